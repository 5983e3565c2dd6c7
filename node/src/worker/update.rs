//! A worker's side of an in-place update: reads the message, prepares the change, and flips when told.

use std::rc::Rc;

use dysvr_conf::intern::Interner;

use crate::cycle::{Cycle, Prepared};
use crate::dysvr::message::Message;
use crate::dysvr::update::change_of;
use crate::log::Level;
use crate::os::channel::Command;
use crate::os::time::{monotonic, unix};
use crate::os::zone::{Said, Zone};

/// What a worker knows of tasks.
pub struct Updater {
    zone: Rc<Zone>,
    slot: usize,
    /// The last version that this worker has met.
    version: u64,
    interner: Interner,
    prepared: Option<Prepared>,
    said: Said,
}

impl Updater {
    /// For a worker that was born with the configuration of `version`.
    pub fn new(zone: Rc<Zone>, slot: usize, version: u64, interner: Interner) -> Self {
        Self { zone, slot, version, interner, prepared: None, said: Said::default() }
    }

    /// Prepares a version: reads, parses, checks; changes nothing. Gives the answer for the channel.
    pub fn prepare(&mut self, cycle: &Cycle, version: u64) -> Command {
        let began = monotonic();
        log!(Level::Notice, "dysvr_worker_dyreload_process begin {}ms", unix().as_millis());
        if version != self.version + 1 {
            // What was missed is not known: no guessing.
            log!(Level::Error, "[dysvr] the version jumped from {} to {version}", self.version);
            return Command::Lost;
        }
        self.version = version;
        let prepared = self.try_prepare(cycle, version);
        let prepare_us = monotonic().saturating_sub(began).as_micros() as u64;
        self.said = Said { version, prepare_us, commit_us: 0, reason: String::new() };
        let answer = match prepared {
            Ok(prepared) => {
                self.prepared = Some(prepared);
                Command::Prepared
            }
            Err(reason) => {
                log!(Level::Error, "[dysvr] version {version} refused: {reason}");
                self.said.reason = reason;
                Command::Refused
            }
        };
        self.zone.say(self.slot, &self.said);
        answer
    }

    fn try_prepare(&mut self, cycle: &Cycle, version: u64) -> Result<Prepared, String> {
        let bytes = {
            let guard = self.zone.lock(false).ok_or("the zone's mutex is broken")?;
            guard.read(version).map_err(|error| error.to_string())?
        };
        let Message { task, sources } = Message::decode(&bytes).map_err(|error| error.to_string())?;
        let change = change_of(&task, cycle, &mut sources.replay(), &mut self.interner)
            .map_err(|refusal| refusal.to_string())?;
        cycle.prepare(change).map_err(|refusal| refusal.to_string())
    }

    /// Makes the prepared version so. `None`: there is none of that version.
    pub fn commit(&mut self, cycle: &Cycle, version: u64) -> Option<Command> {
        let began = monotonic();
        if version != self.version {
            return None;
        }
        let prepared = self.prepared.take()?;
        let committed = cycle.commit(prepared);
        for (addr, total) in &committed.listeners {
            log!(Level::Notice, "[dysvr] update listening {addr}, total:{total}");
        }
        self.said.commit_us = monotonic().saturating_sub(began).as_micros() as u64;
        self.zone.say(self.slot, &self.said);
        let cost = (self.said.prepare_us + self.said.commit_us).div_ceil(1000);
        log!(Level::Notice, "dysvr_worker_dyreload_process end {}ms cost {cost}ms", unix().as_millis());
        Some(Command::Committed)
    }

    /// Forgets what was prepared; the version is met all the same.
    pub fn abort(&mut self, version: u64) {
        self.version = self.version.max(version);
        self.prepared = None;
    }
}
