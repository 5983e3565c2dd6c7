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
    /// The maps.
    pub maps: Vec<String>,
    /// The log formats.
    pub formats: Vec<String>,
    /// The files that its `dysvr_<id>.conf` includes, absolute; none for a delete.
    pub files: Vec<PathBuf>,
}

impl Plan {
    /// All that changes in one line: a reload takes everything at once.
    pub fn merged(&self) -> PlannedLine {
        let mut one = PlannedLine::new(Kind::Modify);
        for line in &self.lines {
            one.vsvc_ids.extend(&line.vsvc_ids);
            one.ups_ids.extend(line.ups_ids.iter().cloned());
            one.maps.extend(line.maps.iter().cloned());
            one.formats.extend(line.formats.iter().cloned());
            one.files.extend(line.files.iter().cloned());
        }
        once(&mut one.vsvc_ids);
        once(&mut one.ups_ids);
        once(&mut one.maps);
        once(&mut one.formats);
        once(&mut one.files);
        one
    }
}

impl PlannedLine {
    /// One that names nothing.
    pub fn new(kind: Kind) -> Self {
        Self { kind, vsvc_ids: vec![], ups_ids: vec![], maps: vec![], formats: vec![], files: vec![] }
    }
}

fn once<T: Ord>(items: &mut Vec<T>) {
    items.sort_unstable();
    items.dedup();
}
