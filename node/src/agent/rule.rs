//! What a task asks of the proxy, and the one place that says which changes may go in place.
//!
//! In place go vhosts and upstreams that files of their own hold. By reload goes what changes `http` as a whole, since
//! everything is merged from it; a `server` without `vsvc_id`, since no task can name it; a file that gains a vhost
//! beside others, and an upstream that moves between files, since a task line takes files whole and lines run one after
//! the other. What only the proxy knows (a port that does not listen yet, listen options) it says itself, and the task
//! then goes by reload too (see `state::NEEDS_RELOAD`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dysvr_conf::source::Source;

use super::index::Index;
use super::ledger::FileChanges;
use super::managed::{FileName, VHOSTS};
use super::order::{Order, Origin};
use super::plan::{Plan, PlannedLine};
use super::unit::Unit;
use crate::task::Kind;

/// The units that a task leaves different: their new content, or `None` for one that is no more. For [`Index::set`]
/// once the task is done.
pub type UnitChanges = BTreeMap<PathBuf, Option<Unit>>;

/// Works out the plan of an order. `source` shows the files as they will be, `index` what they were. An error is a
/// reason to refuse the order.
pub fn plan(
    index: &Index,
    source: &mut dyn Source,
    order: &Order,
    disk: &FileChanges,
    reload: Option<String>,
) -> Result<(Plan, UnitChanges), String> {
    let conf_dir = index.conf_dir();
    let names: BTreeSet<&FileName> = match &order.origin {
        // By hand also files that stand there already are meant.
        Origin::Hand(_) => order.write.keys().chain(&order.remove).collect(),
        Origin::Controller(_) => disk.keys().collect(),
    };
    let changed: BTreeSet<PathBuf> = names.iter().map(|name| name.path(conf_dir)).collect();
    let mut reasons: Vec<String> = reload.into_iter().collect();

    let mut units = UnitChanges::new();
    let affected = changed.iter().flat_map(|path| index.users(path)).chain(&changed);
    for path in affected.collect::<BTreeSet<_>>() {
        let was_unit = index.unit(path).is_some();
        if index.is_whole(path) {
            reasons.push(format!("{} belongs to http as a whole", path.display()));
            continue;
        }
        if !was_unit && !index.reaches(path) {
            continue;
        }
        let goes = FileName::of_path(conf_dir, path).is_some_and(|name| disk.get(&name) == Some(&None));
        let unit = if goes { None } else { Some(Unit::scan(source, conf_dir, path)?) };
        match unit {
            Some(unit) if !was_unit && !unit.has_blocks() => {
                reasons.push(format!("{} belongs to http as a whole", path.display()));
            }
            unit => drop(units.insert(path.clone(), unit)),
        }
    }
    reached(index, &names, order, &units)?;
    check_ids(index, &units)?;
    reasons.extend(units.iter().filter_map(|(path, after)| {
        let before = index.unit(path);
        before.and_then(unfit).or_else(|| after.as_ref().and_then(unfit))
    }));
    let lines = match &order.origin {
        Origin::Controller(_) => lines(index, &units, &mut reasons),
        Origin::Hand(kind) => match by_hand(index, &units, *kind)?.line(*kind) {
            Some(line) => vec![line],
            None if reasons.is_empty() => return Err("no vhost and no upstream is in these files".into()),
            None => Vec::new(),
        },
    };
    Ok((Plan { reload: reasons.into_iter().next(), lines }, units))
}

/// Why a unit cannot be changed in place.
fn unfit(unit: &Unit) -> Option<String> {
    let anonymous = unit.anonymous.as_ref().map(|place| format!("server without \"vsvc_id\" in {place}"));
    anonymous.or_else(|| unit.other.as_ref().map(|other| format!("{other} changes http as a whole")))
}

/// A vhost's file that no include reaches would be lost at the next start.
fn reached(index: &Index, names: &BTreeSet<&FileName>, order: &Order, units: &UnitChanges) -> Result<(), String> {
    let is_part = |path: &Path| units.values().flatten().any(|unit| unit.closure.contains(path));
    for name in names.iter().filter(|name| name.is_in(VHOSTS) && order.write.contains_key(**name)) {
        let path = name.path(index.conf_dir());
        if !index.reaches(&path) && !is_part(&path) {
            return Err(format!(
                "\"{}\" is reached by no include of nginx.conf: it would be lost at the next start",
                path.display()
            ));
        }
    }
    Ok(())
}

/// No two vhosts have one id.
fn check_ids(index: &Index, units: &UnitChanges) -> Result<(), String> {
    let mut owners: BTreeMap<u64, &Path> = BTreeMap::new();
    for (path, unit) in units {
        for id in unit.iter().flat_map(|unit| &unit.vsvc_ids) {
            let elsewhere = index.owner(*id).filter(|owner| !units.contains_key(*owner));
            if let Some(other) = owners.insert(*id, path).or(elsewhere) {
                return Err(format!("duplicate vsvc_id {id} in {} and {}", other.display(), path.display()));
            }
        }
    }
    Ok(())
}

/// The ids on one side of a change, each with its file.
fn owners<'u, T: Ord>(
    units: impl Iterator<Item = (&'u PathBuf, &'u Unit)>,
    ids: impl Fn(&'u Unit) -> &'u [T],
) -> BTreeMap<&'u T, &'u PathBuf> {
    units.flat_map(|(path, unit)| ids(unit).iter().map(move |id| (id, path))).collect()
}

fn lines(index: &Index, units: &UnitChanges, reasons: &mut Vec<String>) -> Vec<PlannedLine> {
    let before = || units.keys().filter_map(|path| index.unit(path).map(|unit| (path, unit)));
    let after = || units.iter().filter_map(|(path, unit)| unit.as_ref().map(|unit| (path, unit)));
    let ids_before = owners(before(), |unit| &unit.vsvc_ids);
    let ids_after = owners(after(), |unit| &unit.vsvc_ids);
    let ups_before = owners(before(), |unit| &unit.upstreams);
    let ups_after = owners(after(), |unit| &unit.upstreams);

    let mut delete = Draft::default();
    delete.vsvc_ids.extend(ids_before.keys().filter(|id| !ids_after.contains_key(*id)).map(|id| **id));
    let (mut add, mut modify) = (Draft::default(), Draft::default());
    for (path, unit) in after() {
        let kept = unit.vsvc_ids.iter().filter(|id| ids_before.contains_key(*id)).count();
        let old = index.unit(path);
        let is_new = match unit.vsvc_ids.is_empty() {
            true => old.is_none(),
            false => kept == 0,
        };
        if kept > 0 && kept < unit.vsvc_ids.len() {
            reasons.push(format!("{} gains a vhost beside others", path.display()));
        }
        let draft = if is_new { &mut add } else { &mut modify };
        draft.take(path, unit);
        // The upstreams that the file no longer holds go with it.
        let gone = old.iter().flat_map(|old| &old.upstreams).filter(|name| !ups_after.contains_key(name));
        draft.ups_ids.extend(gone.cloned());
    }
    for (name, path) in &ups_after {
        if let Some(other) = ups_before.get(*name).filter(|other| *other != path) {
            reasons.push(format!("upstream \"{name}\" moves from {} to {}", other.display(), path.display()));
        }
    }
    let mut last = Draft::default();
    let gone = ups_before.iter().filter(|(name, path)| !ups_after.contains_key(*name) && units[**path].is_none());
    // A vhost that changes may still use the upstream until it has changed.
    let draft = if modify.is_empty() { &mut delete } else { &mut last };
    draft.ups_ids.extend(gone.map(|(name, _)| (*name).clone()));

    let drafts = [(Kind::Delete, delete), (Kind::Modify, modify), (Kind::Add, add), (Kind::Delete, last)];
    drafts.into_iter().filter_map(|(kind, draft)| draft.line(kind)).collect()
}

/// The operator says what it is.
fn by_hand(index: &Index, units: &UnitChanges, kind: Kind) -> Result<Draft, String> {
    let mut draft = Draft::default();
    for (path, after) in units {
        let before = index.unit(path);
        match (kind, after) {
            (Kind::Delete, Some(_)) => return Err(format!("{} is still there", path.display())),
            (Kind::Add | Kind::Modify, None) => return Err(format!("{} is not there", path.display())),
            (Kind::Delete, None) => {
                draft.vsvc_ids.extend(before.iter().flat_map(|unit| &unit.vsvc_ids));
                draft.ups_ids.extend(before.iter().flat_map(|unit| unit.upstreams.iter().cloned()));
            }
            (Kind::Add, Some(unit)) => draft.take(path, unit),
            (Kind::Modify, Some(unit)) => {
                draft.take(path, unit);
                draft.ups_ids.extend(before.iter().flat_map(|unit| unit.upstreams.iter().cloned()));
            }
        }
    }
    Ok(draft)
}

#[derive(Default)]
struct Draft {
    vsvc_ids: BTreeSet<u64>,
    ups_ids: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

impl Draft {
    fn take(&mut self, path: &Path, unit: &Unit) {
        self.vsvc_ids.extend(&unit.vsvc_ids);
        self.ups_ids.extend(unit.upstreams.iter().cloned());
        self.files.insert(path.to_owned());
    }

    fn is_empty(&self) -> bool {
        self.vsvc_ids.is_empty() && self.ups_ids.is_empty()
    }

    fn line(self, kind: Kind) -> Option<PlannedLine> {
        (!self.is_empty()).then(|| PlannedLine {
            kind,
            vsvc_ids: self.vsvc_ids.into_iter().collect(),
            ups_ids: self.ups_ids.into_iter().collect(),
            files: self.files.into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests;
