//! The table of workers: who lives in which slot, and what is known of them.

use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use crate::cycle::digest::Sum;
use crate::os::channel::{Channel, Command, MAX_FDS};
use crate::os::sealed::Sealed;
use crate::os::zone::{SLOTS, Zone};

/// A worker by its slot in the zone.
pub use crate::dysvr::round::SlotId;

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// Its process.
    pub pid: i32,
    /// The master's end of its channel.
    pub channel: Channel,
    /// Which of the generation's workers it is, from 0: decides its `reuseport` socket.
    pub ordinal: usize,
    /// The reload that it belongs to.
    pub generation: u64,
    /// It has said that it serves.
    pub ready: bool,
    /// It was told to leave.
    pub leaving: bool,
    /// Of the cycle that it was forked with.
    pub digest: Sum,
    /// When it was forked (time since boot).
    pub born: Duration,
    /// Where its slot is: a reload may have made another zone since.
    pub zone: Rc<Zone>,
    /// The watchdog has killed it.
    pub stuck: bool,
}

/// All of them, old generations included.
#[derive(Debug, Default)]
pub struct Workers {
    slots: Vec<Option<Worker>>,
}

impl Workers {
    /// A slot that nobody has. `None` when all are taken.
    pub fn vacant(&self) -> Option<SlotId> {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        (free < SLOTS).then_some(free)
    }

    /// Enters a worker.
    pub fn insert(&mut self, slot: SlotId, worker: Worker) {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(worker);
    }

    /// Takes the worker of a process out.
    pub fn remove(&mut self, pid: i32) -> Option<(SlotId, Worker)> {
        let slot = self.slots.iter().position(|worker| worker.as_ref().is_some_and(|worker| worker.pid == pid))?;
        self.slots[slot].take().map(|worker| (slot, worker))
    }

    /// The worker of a slot.
    pub fn get(&self, slot: SlotId) -> Option<&Worker> {
        self.slots.get(slot)?.as_ref()
    }

    /// The worker of a slot.
    pub fn get_mut(&mut self, slot: SlotId) -> Option<&mut Worker> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// All, with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &Worker)> {
        self.slots.iter().enumerate().filter_map(|(slot, worker)| worker.as_ref().map(|worker| (slot, worker)))
    }

    /// Those that serve and stay: the ones that a task must reach.
    pub fn serving(&self) -> Vec<SlotId> {
        self.iter().filter(|(_, worker)| !worker.leaving).map(|(slot, _)| slot).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Sends a command to a worker; whether its channel took it. One that did not get a command is found out by the
    /// deadline of a task, by its next version or by its death.
    pub fn send(&self, slot: SlotId, command: Command, version: u64) -> bool {
        self.get(slot).is_some_and(|worker| worker.channel.send(command, version, &[]).is_ok())
    }

    /// Sends a worker the sockets of a version; whether its channel took them.
    pub fn send_sockets(&self, slot: SlotId, version: u64, fds: &[RawFd]) -> bool {
        let Some(worker) = self.get(slot) else { return false };
        fds.chunks(MAX_FDS).all(|fds| worker.channel.send(Command::Sockets, version, fds).is_ok())
    }

    /// Sends a worker the message of a version that is too large for the zone; whether its channel took it.
    pub fn send_text(&self, slot: SlotId, version: u64, text: &Sealed) -> bool {
        use std::os::fd::AsRawFd as _;
        self.get(slot).is_some_and(|worker| worker.channel.send(Command::Text, version, &[text.as_raw_fd()]).is_ok())
    }

    /// Sends a worker a log file under its path; whether its channel took it.
    pub fn send_log(&self, slot: SlotId, version: u64, path: &Sealed, file: RawFd) -> bool {
        use std::os::fd::AsRawFd as _;
        let fds = [path.as_raw_fd(), file];
        self.get(slot).is_some_and(|worker| worker.channel.send(Command::Log, version, &fds).is_ok())
    }

    /// Forgets all: in a forked worker, whose siblings' channels are not its business.
    pub fn clear(&mut self) {
        self.slots.clear();
    }
}
