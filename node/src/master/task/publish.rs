//! What a task hands to the workers beside commands, and what is taken back when they need it no more.

use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;

use super::super::sockets::Opened;
use super::super::{Master, SlotId};
use crate::cycle::{Prepared, Refusal};
use crate::log::Level;
use crate::os::channel::Command;
use crate::os::errno;
use crate::os::sealed::Sealed;
use crate::os::zone::{MAX_MESSAGE, NotPublished};

/// A version that was published, and who was told of it.
pub(super) struct Told {
    pub(super) version: u64,
    pub(super) members: Vec<SlotId>,
}

impl Master {
    /// Gives the room of records that are no part of the configuration any more to others, if nobody reads them: each worker
    /// that follows has said that it does not. A worker that leaves does not follow.
    pub(super) fn sweep(&self) {
        let generation = self.generation;
        let reads_on = self.workers.iter().any(|(_, worker)| worker.leaving && worker.generation == generation);
        if !reads_on {
            self.cycle.region().sweep();
        }
    }

    /// Sends workers the log files that a change opens: they are not root any more. A worker that a file does not reach, or
    /// that needs more of them, opens it itself or refuses the task for want of it.
    fn hand_logs(&self, prepared: &Prepared, version: u64, members: &[SlotId]) {
        // A channel holds some hundreds of messages, and what follows must find room.
        const MOST: usize = 32;
        for log in prepared.fresh_logs().into_iter().take(MOST) {
            let Ok(file) = log.descriptor() else { continue };
            let Ok(path) = Sealed::new(log.path().as_os_str().as_bytes()) else { continue };
            for &slot in members {
                self.workers.send_log(slot, version, &path, file.as_raw_fd());
            }
        }
    }

    /// Publishes a message and sends the workers what they need beside it: the log files and sockets of a change that was
    /// checked. `prepare`: they are to prepare it.
    pub(super) fn tell(
        &self,
        message: &[u8],
        with: Option<(&Prepared, &Opened)>,
        prepare: bool,
    ) -> Result<Told, Refusal> {
        let (version, text) = self.publish(message)?;
        let members = self.workers.serving();
        if let Some((prepared, _)) = with.filter(|_| self.owner.is_some()) {
            self.hand_logs(prepared, version, &members);
        }
        for &slot in &members {
            if let Some(text) = &text
                && !self.workers.send_text(slot, version, text)
            {
                // As with the sockets.
                log!(Level::Error, "[dysvr] the task could not be sent to worker slot {slot}");
            }
            let ordinal = self.workers.get(slot).map_or(0, |worker| worker.ordinal);
            if let Some((_, opened)) = with
                && !self.workers.send_sockets(slot, version, &opened.of_worker(ordinal))
            {
                // It is told to prepare all the same, and refuses for want of them.
                log!(Level::Error, "[dysvr] sockets could not be sent to worker slot {slot}");
            }
            if prepare && !self.workers.send(slot, Command::Prepare, version) {
                // Its channel is full: it will miss this version, and say so when it meets the next.
                log!(Level::Error, "[dysvr] the channel of worker slot {slot} is full");
            }
        }
        Ok(Told { version, members })
    }

    /// Puts a message into the zone; one that is too large for it is given back sealed, to be sent.
    fn publish(&self, message: &[u8]) -> Result<(u64, Option<Sealed>), Refusal> {
        let fits = message.len() <= self.zone.capacity();
        let text = (!fits).then(|| Sealed::new(message)).transpose().map_err(|error| {
            Refusal::Wrong(format!("memory for the task's {} bytes: {}", message.len(), errno(&error)))
        })?;
        let trylock = self.cycle.http().is_some_and(|http| http.main.dysvr.trylock);
        let published = self.zone.publish(message, trylock).map_err(|error| match error {
            NotPublished::Taken => Refusal::Wrong("the mutex of dysvr_shm_zone is taken".into()),
            NotPublished::TooLarge => {
                Refusal::NeedsReload(format!("the task's {} bytes are more than {MAX_MESSAGE}", message.len()))
            }
        })?;
        if published.anew {
            log!(
                Level::Alert,
                "[dysvr] the mutex of dysvr_shm_zone was held by a worker that does not go on: made anew"
            );
        }
        Ok((published.version, text))
    }
}
