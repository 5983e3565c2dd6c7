//! What a task asks of the proxy, and the one place that says which changes may go in place.
//!
//! In place go vhosts and upstreams that files of their own hold, in one task line, and the ports that they open and
//! close. By reload goes what changes `http` as a whole, since everything is merged from it, and a `server` without
//! `vsvc_id`, since no task can name it. What only the proxy knows (`reuseport` or `ipv6only` of an open port changes, a
//! host becomes an upstream) it says itself, and the task then goes by reload too (see `state::NEEDS_RELOAD`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dysvr_conf::load::LOST;
use dysvr_conf::source::Source;

use super::index::Index;
use super::ledger::FileChanges;
use super::managed::{FileName, VHOSTS};
use super::order::{Order, Origin};
use super::plan::{Plan, PlannedLine};
use super::unit::Unit;
use super::whole;
use crate::task::Kind;

/// The units that a task leaves different: their new content, or `None` for one that is no more. For [`Index::set`]
/// once the task is done.
pub type UnitChanges = BTreeMap<PathBuf, Option<Unit>>;

/// Works out the plan of an order. `source` shows the files as they will be, `disk_now` as they are, `index` what they were.
/// An error is a reason to refuse the order.
pub fn plan(
    index: &Index,
    disk_now: &mut dyn Source,
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
            reasons.push(whole::reason(disk_now, source, path));
            continue;
        }
        if !was_unit && !index.reaches(path) {
            continue;
        }
        let goes = FileName::of_path(conf_dir, path).is_some_and(|name| disk.get(&name) == Some(&None));
        let unit = if goes { None } else { Some(Unit::scan(source, conf_dir, path)?) };
        match unit {
            Some(unit) if !was_unit && !unit.has_blocks() => reasons.push(whole::reason(disk_now, source, path)),
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
        Origin::Controller(_) => line(index, &units, &changed).into_iter().collect(),
        Origin::Hand(kind) => match by_hand(index, &units, &changed, *kind)?.line(*kind) {
            Some(line) => vec![line],
            None if reasons.is_empty() => {
                return Err("no vhost, upstream, map or log_format is in these files".into());
            }
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
    let is_part = |path: &Path| units.values().flatten().any(|unit| unit.parts.contains_key(path));
    for name in names.iter().filter(|name| name.is_in(VHOSTS) && order.write.contains_key(**name)) {
        let path = name.path(index.conf_dir());
        if !index.reaches(&path) && !is_part(&path) {
            return Err(format!("\"{}\" {LOST}", path.display()));
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

/// All that a controller's task changes, in one line: it is done as a whole or not at all.
fn line(index: &Index, units: &UnitChanges, changed: &BTreeSet<PathBuf>) -> Option<PlannedLine> {
    let (mut before, mut after) = (Draft::default(), Draft::default());
    for (path, unit) in units {
        let old = index.unit(path);
        if let (Some(old), Some(unit)) = (old, unit)
            && let Some(parts) = upstreams_alone(path, old, unit, changed)
        {
            for (part, was, is) in parts {
                before.ups_ids.extend(was.iter().cloned());
                after.ups_ids.extend(is.iter().cloned());
                after.files.insert(part.clone());
            }
            continue;
        }
        old.iter().for_each(|old| before.take(path, old));
        unit.iter().for_each(|unit| after.take(path, unit));
    }
    let all_new = before.is_empty();
    let none_new = after.vsvc_ids.is_subset(&before.vsvc_ids) && before.vsvc_ids.is_subset(&after.vsvc_ids);
    let kind = match (all_new, after.is_empty()) {
        (true, _) => Kind::Add,
        (false, true) => Kind::Delete,
        (false, false) if none_new => Kind::Modify,
        (false, false) => Kind::Set,
    };
    after.take_over(before);
    after.line(kind)
}

/// A part of a unit, and the upstreams that it held and holds.
type AlonePart<'u> = (&'u PathBuf, &'u [String], &'u [String]);

/// The changed parts of a unit, if all of them hold upstreams alone: the vhosts around them stay as they are. The master
/// knows such a file by the upstreams that it had, so one that keeps none of them takes the unit with it.
fn upstreams_alone<'u>(
    path: &Path,
    old: &'u Unit,
    unit: &'u Unit,
    changed: &'u BTreeSet<PathBuf>,
) -> Option<Vec<AlonePart<'u>>> {
    if changed.contains(path) || old.vsvc_ids != unit.vsvc_ids {
        return None;
    }
    let is_part = |part: &&PathBuf| old.parts.contains_key(*part) || unit.parts.contains_key(*part);
    let mut parts: Vec<AlonePart<'u>> = Vec::new();
    for part in changed.iter().filter(is_part) {
        let (was, is) = (old.upstreams_alone(part)?, unit.upstreams_alone(part)?);
        if !was.iter().any(|name| is.contains(name)) {
            return None;
        }
        parts.push((part, was, is));
    }
    // A part that another one includes comes with that one.
    let within = |inner: &AlonePart<'_>, outer: &AlonePart<'_>| {
        inner.0 != outer.0 && inner.2.iter().all(|name| outer.2.contains(name))
    };
    let outermost = parts.iter().filter(|part| !parts.iter().any(|other| within(part, other)));
    Some(outermost.cloned().collect())
}

/// The operator says what it is.
fn by_hand(index: &Index, units: &UnitChanges, changed: &BTreeSet<PathBuf>, kind: Kind) -> Result<Draft, String> {
    let mut draft = Draft::default();
    for (path, after) in units {
        let before = index.unit(path);
        match (kind, after) {
            (Kind::Delete, Some(_)) => return Err(format!("{} is still there", path.display())),
            (Kind::Add | Kind::Modify | Kind::Set, None) => return Err(format!("{} is not there", path.display())),
            (Kind::Delete, None) => before.iter().for_each(|before| draft.name(before)),
            (Kind::Add, Some(unit)) => draft.take(path, unit),
            (Kind::Modify | Kind::Set, Some(unit)) => {
                if let Some(before) = before
                    && let Some(parts) = upstreams_alone(path, before, unit, changed)
                {
                    for (part, was, is) in parts {
                        draft.ups_ids.extend(was.iter().chain(is).cloned());
                        draft.files.insert(part.clone());
                    }
                    continue;
                }
                draft.take(path, unit);
                if let Some(before) = before {
                    draft.name(&Unit { vsvc_ids: Vec::new(), ..before.clone() });
                }
            }
        }
    }
    Ok(draft)
}

#[derive(Default)]
struct Draft {
    vsvc_ids: BTreeSet<u64>,
    ups_ids: BTreeSet<String>,
    maps: BTreeSet<String>,
    formats: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
}

impl Draft {
    /// What a file holds, and the file.
    fn take(&mut self, path: &Path, unit: &Unit) {
        self.name(unit);
        self.files.insert(path.to_owned());
    }

    fn name(&mut self, unit: &Unit) {
        self.vsvc_ids.extend(&unit.vsvc_ids);
        self.ups_ids.extend(unit.upstreams.iter().cloned());
        self.maps.extend(unit.maps.iter().cloned());
        self.formats.extend(unit.formats.iter().cloned());
    }

    /// What another one names, but for its files.
    fn take_over(&mut self, mut other: Self) {
        self.vsvc_ids.append(&mut other.vsvc_ids);
        self.ups_ids.append(&mut other.ups_ids);
        self.maps.append(&mut other.maps);
        self.formats.append(&mut other.formats);
    }

    fn is_empty(&self) -> bool {
        self.vsvc_ids.is_empty() && self.ups_ids.is_empty() && self.maps.is_empty() && self.formats.is_empty()
    }

    fn line(self, kind: Kind) -> Option<PlannedLine> {
        (!self.is_empty()).then(|| PlannedLine {
            kind,
            vsvc_ids: self.vsvc_ids.into_iter().collect(),
            ups_ids: self.ups_ids.into_iter().collect(),
            maps: self.maps.into_iter().collect(),
            formats: self.formats.into_iter().collect(),
            files: self.files.into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests;
