//! From a wish (files to write, vhosts to delete) and the files of the base revision to the next revision's files, or to
//! all that is wrong with it. Nothing is stored here.

use std::collections::BTreeSet;

use dysvr_conf::bundle::{Assumptions, assign_vsvc_ids_with};

use super::check::{Checked, Problem, check};
use super::files::{Content, Files};
use super::record::{Change, ChangeKind, PageRef};
use super::shape::{Shape, server_names};

/// Where upstream files are that go with their last vhost.
const UPSTREAMS: &str = "auto_upstream/";

/// What a change wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Writes files and deletes vhosts.
    Change {
        /// Whole contents.
        files: Files,
        /// Vhosts that go.
        delete: Vec<Selection>,
    },
    /// Makes the files those of an earlier revision.
    Restore(Files),
}

/// Which vhost to delete: a file's name, a server name or a `vsvc_id`, whichever there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(pub String);

/// A change worked out against a base.
#[derive(Clone, Debug)]
pub struct Draft {
    /// All files after the change.
    pub files: Files,
    /// What differs from the base; empty when nothing does.
    pub changes: Vec<Change>,
    /// What the files hold, and what is wrong.
    pub checked: Checked,
    /// The counter after the ids that were given out.
    pub next_vsvc_id: u64,
}

/// Works a change out. `before` is what the base holds.
pub fn draft(base: &Files, before: &Checked, request: &Request, next_vsvc_id: u64, assumptions: &Assumptions) -> Draft {
    let mut files = base.clone();
    let mut problems = Vec::new();
    let mut next = next_vsvc_id.max(1);
    match request {
        Request::Restore(earlier) => files = earlier.clone(),
        Request::Change { files: written, delete } => {
            for name in deletions(before, delete, &mut problems) {
                files.remove(&name);
            }
            files.extend(written.iter().map(|(name, content)| (name.clone(), content.clone())));
            assign_ids(&mut files, written, before, &mut next);
        }
    }
    let mut checked = check(&files, assumptions);
    checked.problems.append(&mut problems);
    let changes = changes(base, &files, before, &checked);
    checked.problems.extend(without_effect(&changes, before, &checked));
    checked.problems.sort();
    Draft { files, changes, checked, next_vsvc_id: next }
}

/// What nodes would accept and then ignore: files that no include reaches, server names that another vhost of the
/// address has already. An operator who applies that is mistaken.
fn without_effect(changes: &[Change], before: &Checked, after: &Checked) -> Vec<Problem> {
    let written = changes.iter().filter(|change| change.kind != ChangeKind::Delete);
    let unreached = written.filter(|change| after.unreached.contains(&change.name)).map(|change| Problem {
        file: change.name.clone(),
        line: 0,
        text: "no include reaches this file: it would have no effect".to_owned(),
    });
    let known: BTreeSet<&str> = before.warnings.iter().map(|warning| warning.text.as_str()).collect();
    let conflicts = after.warnings.iter().filter(|warning| {
        warning.text.starts_with("conflicting server name") && !known.contains(warning.text.as_str())
    });
    unreached.chain(conflicts.cloned()).collect()
}

/// Gives ids to the vhosts of the written files that have none. A vhost keeps the id that its file gave to the same
/// server names before, so that the operator's own file applied again changes nothing; others get the next one that no vhost has.
fn assign_ids(files: &mut Files, written: &Files, before: &Checked, next: &mut u64) {
    let untouched = before.vhosts.iter().filter(|vhost| !written.contains_key(&vhost.file));
    let mut used: BTreeSet<u64> = untouched.filter_map(|vhost| vhost.vsvc_id).collect();
    for (name, content) in written {
        used.extend(Shape::of(name, &content.bytes).vhosts.iter().filter_map(|vhost| vhost.vsvc_id));
    }
    for (name, content) in written {
        let Ok(text) = std::str::from_utf8(&content.bytes) else { continue };
        let assigned = assign_vsvc_ids_with(text, |server| {
            let names = server.block.as_ref().map(|block| server_names(block.directives)).unwrap_or_default();
            let held = before.vhosts_in(name).iter().find(|vhost| vhost.server_names == names);
            if let Some(id) = held.and_then(|vhost| vhost.vsvc_id)
                && used.insert(id)
            {
                return id;
            }
            while !used.insert(*next) {
                *next += 1;
            }
            *next += 1;
            *next - 1
        });
        if !assigned.ids.is_empty() {
            files.insert(name.clone(), Content::new(assigned.text));
        }
    }
}

/// The files that go with the vhosts of `wanted`.
fn deletions(before: &Checked, wanted: &[Selection], problems: &mut Vec<Problem>) -> BTreeSet<String> {
    let mut gone = BTreeSet::new();
    for Selection(text) in wanted {
        if before.includes.contains_key(text) {
            gone.insert(text.clone());
            continue;
        }
        let id = text.parse::<u64>().ok();
        let found: BTreeSet<&str> = before
            .vhosts
            .iter()
            .filter(|vhost| vhost.server_names.contains(text) || (id.is_some() && vhost.vsvc_id == id))
            .map(|vhost| vhost.file.as_str())
            .collect();
        let mut problem = |text: String| problems.push(Problem { file: String::new(), line: 0, text });
        match found.len() {
            0 => problem(format!("nothing to delete: no file, server name or vsvc_id is \"{text}\"")),
            1 => {
                let file = found.first().copied().unwrap_or_default();
                if before.vhosts_in(file).len() > 1 {
                    problem(format!(
                        "cannot delete \"{text}\" alone: {file} holds other vhosts; apply the file without it, or delete the file"
                    ));
                } else {
                    gone.insert(file.to_owned());
                }
            }
            _ => problem(format!(
                "\"{text}\" stands in several files ({}): delete by file or vsvc_id",
                Vec::from_iter(found).join(", ")
            )),
        }
    }
    let reached = |names: &mut dyn Iterator<Item = &String>| -> BTreeSet<String> {
        names.flat_map(|name| before.closure(name)).map(str::to_owned).collect()
    };
    let lost = reached(&mut gone.iter());
    let kept = reached(&mut before.includes.keys().filter(|name| !gone.contains(*name) && !lost.contains(*name)));
    gone.extend(lost.into_iter().filter(|name| name.starts_with(UPSTREAMS) && !kept.contains(name)));
    gone
}

fn changes(base: &Files, files: &Files, before: &Checked, after: &Checked) -> Vec<Change> {
    let names: BTreeSet<&String> = base.keys().chain(files.keys()).collect();
    let reference = |content: Option<&Content>| content.map(|content| PageRef(content.digest));
    names
        .into_iter()
        .filter_map(|name| {
            let (old, new) = (base.get(name), files.get(name));
            let kind = match (old, new) {
                (None, _) => ChangeKind::Add,
                (_, None) => ChangeKind::Delete,
                (Some(old), Some(new)) if old.digest != new.digest => ChangeKind::Modify,
                _ => return None,
            };
            let ids: BTreeSet<u64> =
                [before, after].iter().flat_map(|c| c.vhosts_in(name)).filter_map(|vhost| vhost.vsvc_id).collect();
            let ups: BTreeSet<&str> =
                [before, after].iter().flat_map(|c| c.upstreams_in(name)).map(|u| u.ups_id.as_str()).collect();
            Some(Change {
                name: name.clone(),
                kind,
                before: reference(old),
                after: reference(new),
                vsvc_ids: ids.into_iter().collect(),
                ups_ids: ups.into_iter().map(str::to_owned).collect(),
            })
        })
        .collect()
}
