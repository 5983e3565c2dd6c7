//! Keeping workers alive: forking them, and forking them again when they die, but not faster than makes sense.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::Master;
use super::workers::{SlotId, Worker};
use crate::log::{self, Level};
use crate::os::channel::{Channel, Command};
use crate::os::errno;
use crate::os::fork::{Fork, fork};
use crate::os::memory;
use crate::os::process::exit_now;
use crate::os::time::monotonic;
use crate::worker::{self, Birth};

/// A worker that lived shorter than this is replaced only after as long a pause: a configuration or a machine on which
/// workers cannot live must not fork in a loop.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// Workers that are due to be forked.
#[derive(Debug, Default)]
pub struct Births {
    due: VecDeque<(Duration, usize)>,
    stopped: bool,
}

impl Births {
    /// A worker died that should be alive: one with its ordinal is due, now or after a pause.
    pub fn died(&mut self, now: Duration, born: Duration, ordinal: usize) {
        if self.stopped {
            return;
        }
        let pause = if now.saturating_sub(born) < SHORT_LIFE { SHORT_LIFE } else { Duration::ZERO };
        self.due.push_back((now + pause, ordinal));
    }

    /// No more are forked: the master leaves.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.due.clear();
    }

    /// A new generation takes over, to which the missing ones do not belong.
    pub fn forget(&mut self) {
        self.due.clear();
        self.stopped = false;
    }

    /// When the next one is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.due.iter().map(|(at, _)| *at).min()
    }

    /// The ordinal of one that is due, now or later: it is born at once, for a task that waits for it.
    pub fn take_one(&mut self) -> usize {
        self.due.pop_front().map_or(0, |(_, ordinal)| ordinal)
    }

    fn take_due(&mut self, now: Duration) -> Vec<usize> {
        let ready = self.due.iter().filter(|(at, _)| *at <= now).map(|(_, ordinal)| *ordinal).collect();
        self.due.retain(|(at, _)| *at > now);
        ready
    }
}

impl Master {
    /// Forks a whole generation.
    pub(super) fn spawn_generation(&mut self, count: usize) -> io::Result<Vec<SlotId>> {
        log!(Level::Notice, "start worker processes");
        memory::give_back();
        (0..count).map(|ordinal| self.spawn(ordinal)).collect()
    }

    /// Forks one worker. When that fails (out of processes or memory) it is due again after a pause: the others serve on.
    pub(super) fn give_birth(&mut self, now: Duration, ordinal: usize) -> Option<SlotId> {
        match self.spawn(ordinal) {
            Ok(slot) => {
                self.task_born(slot);
                Some(slot)
            }
            Err(error) => {
                log!(Level::Alert, "fork() failed while spawning a worker process ({})", errno(&error));
                self.births.died(now, now, ordinal);
                None
            }
        }
    }

    /// Forks what is due, unless a task is between its two phases (a worker born there would belong to neither) or the
    /// cycle is damaged.
    pub(super) fn respawn_due(&mut self, now: Duration) {
        if self.tasks.is_preparing() || self.is_damaged {
            return;
        }
        for ordinal in self.births.take_due(now) {
            self.give_birth(now, ordinal);
        }
    }

    /// Forks one worker with the master's cycle as it is. In the child this does not return.
    pub(super) fn spawn(&mut self, ordinal: usize) -> io::Result<SlotId> {
        let slot = self.workers.vacant().ok_or_else(|| io::Error::other("no slot is free for another worker"))?;
        let (ours, theirs) = Channel::pair()?;
        let sockets = self.sockets.of_worker(ordinal)?;
        self.zone.slot(slot).claim();
        // Read before the fork: the child may run late, and the zone, which is shared, then shows a version that the
        // child's copy of the cycle does not have.
        let version = self.zone.version();
        // Lines that wait would be written by both.
        log::flush();
        match fork()? {
            Fork::Child => {
                log::forget();
                drop(ours);
                let code = worker::run(self.birth(slot, theirs, sockets, version));
                exit_now(code)
            }
            Fork::Parent(pid) => {
                log!(Level::Notice, "start worker process {pid}");
                let worker = Worker {
                    pid,
                    channel: ours,
                    ordinal,
                    generation: self.generation,
                    ready: false,
                    leaving: false,
                    digest: self.cycle.digest(),
                    born: monotonic(),
                    zone: Rc::clone(&self.zone),
                    stuck: false,
                };
                self.workers.insert(slot, worker);
                Ok(slot)
            }
        }
    }

    /// What a worker is given; in the child, which then drops what was the master's alone.
    fn birth(
        &mut self,
        slot: SlotId,
        channel: Channel,
        sockets: Vec<(dysvr_conf::model::ListenAddr, std::os::fd::OwnedFd)>,
        version: u64,
    ) -> Birth {
        self.workers.clear();
        self.sockets.close_all();
        self.takeover = Default::default();
        self.verify = Default::default();
        Birth {
            slot,
            confined: true,
            channel,
            sockets,
            zone: Rc::clone(&self.zone),
            version,
            cycle: Rc::clone(&self.cycle),
            interner: std::mem::take(&mut self.interner),
            owner: self.owner.clone(),
            prefix: self.prefix.clone(),
            marks: Rc::clone(&self.marks),
        }
    }

    /// Lets a worker that cannot follow leave gracefully; another one is due.
    pub(super) fn retire(&mut self, now: Duration, slot: SlotId, why: &str) {
        let Some(worker) = self.workers.get_mut(slot) else { return };
        if std::mem::replace(&mut worker.leaving, true) {
            return;
        }
        log!(Level::Error, "[dysvr] worker {} {why}: replaced", worker.pid);
        // Not a short life: it is the master that ends it.
        self.births.died(now, Duration::ZERO, worker.ordinal);
        self.workers.send(slot, Command::Quit, 0);
    }

    /// A worker says that it serves.
    pub(super) fn on_ready(&mut self, now: Duration, slot: SlotId) {
        if let Some(worker) = self.workers.get_mut(slot) {
            worker.ready = true;
            // One that is at work on a task will show what came of that, and one that was given up leaves already.
            let (digest, settled) = (worker.digest, !worker.leaving && !self.tasks.awaits(slot));
            if settled && !self.is_proved(slot, digest) {
                return self.refuse_birth(now, slot);
            }
        }
        if self.leaving.is_some() {
            // It was born while the order to leave went round.
            let command = if self.leaving == Some(libc::SIGQUIT) { Command::Quit } else { Command::Terminate };
            self.workers.send(slot, command, 0);
        }
        self.relieve();
        self.task_replaced(now, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_life_is_followed_by_a_pause() {
        let mut births = Births::default();
        let at = Duration::from_secs;
        births.died(at(100), at(5), 0);
        births.died(at(100), at(100), 1);
        assert_eq!(births.take_due(at(100)), [0]);
        assert_eq!(births.deadline(), Some(at(101)));
        assert_eq!(births.take_due(at(101)), [1]);
        births.stop();
        births.died(at(200), at(5), 0);
        assert_eq!(births.deadline(), None);
    }
}
