//! What a task asks of the proxy: its task lines, or the reason why it goes by reload.

use std::path::PathBuf;

use crate::task::Kind;

/// The way of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Why it goes by reload; `None` in place.
    pub reload: Option<String>,
    /// What changes, in the order in which it must. Empty when nothing that the proxy reads changes.
    pub lines: Vec<PlannedLine>,
}

/// A task line to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLine {
    /// What happens to the vhosts and upstreams.
    pub kind: Kind,
    /// The vhosts.
    pub vsvc_ids: Vec<u64>,
    /// The upstreams.
    pub ups_ids: Vec<String>,
    /// The files that its `dysvr_<id>.conf` includes, absolute; none for a delete.
    pub files: Vec<PathBuf>,
}

impl Plan {
    /// All that changes in one line: a reload takes everything at once.
    pub fn merged(&self) -> PlannedLine {
        let mut one = PlannedLine { kind: Kind::Modify, vsvc_ids: vec![], ups_ids: vec![], files: vec![] };
        for line in &self.lines {
            one.vsvc_ids.extend(&line.vsvc_ids);
            one.ups_ids.extend(line.ups_ids.iter().cloned());
            one.files.extend(line.files.iter().cloned());
        }
        one.vsvc_ids.sort_unstable();
        one.vsvc_ids.dedup();
        one.ups_ids.sort_unstable();
        one.ups_ids.dedup();
        one.files.sort_unstable();
        one.files.dedup();
        one
    }
}
