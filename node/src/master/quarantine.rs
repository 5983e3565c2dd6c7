//! Which vhosts crash workers, and what is done about it: the second crash within [`WINDOW`] that is traced to one
//! version of a vhost puts that vhost alone under quarantine. It answers 503 in every worker until a task modifies or
//! deletes it.
//!
//! Traced means: its request ran in the worker at the moment of the crash (see [`crate::os::zone::Pulse`]). One crash may
//! be an accident of the machine, two of one vhost are not; and each one costs the connections of a whole worker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Master;
use crate::cycle::{Cycle, Entry};
use crate::dysvr;
use crate::log::Level;
use crate::os::channel::Command;
use crate::os::errno;
use crate::os::time::{monotonic, unix};
use crate::task::file::{Durability, write_whole};

/// Crashes further apart are not seen together: long enough for a health check or a retry to come by again, short enough
/// that accidents of different weeks do not add up.
pub const WINDOW: Duration = Duration::from_secs(600);
/// How many crashes within the window are too many.
const LIMIT: usize = 2;

/// The name of the file, beside the task file, that lists what is under quarantine: a line each. Absent: nothing is.
pub const FILE: &str = "dysvr_quarantine";

/// What the master knows of vhosts that have crashed workers.
#[derive(Debug, Default)]
pub struct Quarantine {
    known: BTreeMap<u64, Known>,
    /// The file as it was written.
    file: Option<PathBuf>,
}

/// A version of a vhost that has crashed a worker.
#[derive(Debug)]
struct Known {
    /// Gone when the vhost was modified or deleted: then all is forgotten.
    vhost: Weak<Entry>,
    crashes: Vec<Duration>,
    /// Its line in the file while it is under quarantine.
    held: Option<String>,
}

impl Quarantine {
    /// Counts a crash; gives how many there were within the window, and whether this one was too many.
    fn crashed(&mut self, now: Duration, vhost: &Rc<Entry>) -> (usize, bool) {
        let weak = Rc::downgrade(vhost);
        let known = self.known.entry(vhost.mark()).or_insert_with(|| Known {
            vhost: Weak::clone(&weak),
            crashes: Vec::new(),
            held: None,
        });
        if !Weak::ptr_eq(&known.vhost, &weak) {
            *known = Known { vhost: weak, crashes: Vec::new(), held: None };
        }
        known.crashes.retain(|at| now.saturating_sub(*at) < WINDOW);
        known.crashes.push(now);
        (known.crashes.len(), known.crashes.len() >= LIMIT && known.held.is_none())
    }

    /// Forgets what was modified or deleted; gives the lines of those that were under quarantine.
    fn lift(&mut self) -> Vec<String> {
        let mut lifted = Vec::new();
        self.known.retain(|_, known| {
            let alive = known.vhost.strong_count() > 0;
            if !alive {
                lifted.extend(known.held.take());
            }
            alive
        });
        lifted
    }

    /// A reload changes nothing for a vhost that says what it said.
    fn carry_over(&mut self, cycle: &Cycle) {
        for (mark, known) in &mut self.known {
            if let Some(vhost) = cycle.marked(*mark) {
                vhost.quarantine(known.held.is_some());
                known.vhost = Rc::downgrade(&vhost);
            }
        }
    }

    fn lines(&self) -> String {
        self.known.values().filter_map(|known| known.held.as_deref()).map(|line| format!("{line}\n")).collect()
    }
}

impl Master {
    /// A worker has crashed, or one of its requests has panicked: `what`, while it ran a request of the vhost of `mark`.
    pub(super) fn blame(&mut self, mark: u64, what: &str) {
        let Some(vhost) = self.cycle.marked(mark) else {
            log!(Level::Alert, "[dysvr] {what} in a request of a vhost that was changed since: not counted");
            return;
        };
        let name = name_of(&vhost);
        let (count, too_many) = self.quarantine.crashed(monotonic(), &vhost);
        let minutes = WINDOW.as_secs() / 60;
        log!(Level::Alert, "[dysvr] {what} in a request of {name}: crash {count} within {minutes} min");
        if !too_many {
            return;
        }
        vhost.quarantine(true);
        drop(vhost);
        log!(Level::Alert, "[dysvr] quarantine of {name}: it answers 503 until it is modified");
        if let Some(known) = self.quarantine.known.get_mut(&mark) {
            known.held = Some(format!("{name} crashes={count} since={} reason={what:?}", unix().as_secs()));
        }
        let slots: Vec<_> = self.workers.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            // One that is told later, or forked later, is told in order or knows it from birth.
            if !self.workers.send(slot, Command::Quarantine, mark) {
                self.retire(monotonic(), slot, "was not told of a quarantine");
            }
        }
        self.write_quarantine();
    }

    /// A change was made: whoever was modified or deleted is free.
    pub(super) fn lift_quarantine(&mut self) {
        let lifted = self.quarantine.lift();
        if lifted.is_empty() {
            return;
        }
        for line in lifted {
            log!(Level::Notice, "[dysvr] quarantine lifted: {line}");
        }
        self.write_quarantine();
    }

    /// Another cycle takes over, before any worker is forked from it.
    pub(super) fn carry_quarantine(&mut self, cycle: &Cycle) {
        self.quarantine.carry_over(cycle);
    }

    /// Writes the file anew, or removes it when it would be empty; at the start what an earlier master left.
    pub(super) fn write_quarantine(&mut self) {
        let path = dysvr::task_file(self.cycle.http().as_deref(), &self.prefix).with_file_name(FILE);
        if let Some(old) = self.quarantine.file.replace(path.clone()).filter(|old| *old != path) {
            let _ = std::fs::remove_file(old);
        }
        let text = self.quarantine.lines();
        let written =
            if text.is_empty() { remove(&path) } else { write_whole(&path, text.as_bytes(), Durability::Visible) };
        if let Err(error) = written {
            log!(Level::Crit, "writing \"{}\" failed ({})", path.display(), errno(&error));
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What an operator finds it by.
fn name_of(vhost: &Entry) -> String {
    let id = vhost.id().map_or_else(|| "none".to_owned(), |id| id.0.to_string());
    match vhost.outline() {
        Ok(outline) => {
            let name = outline.names.first().map(ToString::to_string).unwrap_or_default();
            format!("vsvc_id={id} server_name={name:?} in {}", outline.place)
        }
        Err(_) => format!("vsvc_id={id}"),
    }
}
