//! A worker's side of an in-place update: reads the message, prepares the change, and flips when told.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use dysvr_conf::intern::Interner;

use super::accept::{Accepts, Ready};
use super::follow::Follower;

use crate::cycle::{Change, Cycle, Over, Prepared, Refusal};
use crate::dysvr::message::Message;
use crate::dysvr::update::{change_of, guarded};
use crate::http::Context;
use crate::log::{self, Level};
use crate::os::channel::Command;
use crate::os::sealed::Sealed;
use crate::os::time::{monotonic, unix};
use crate::os::zone::{Said, Zone};
use crate::os::{errno, listen};

/// What a worker knows of tasks.
pub struct Updater {
    zone: Rc<Zone>,
    slot: usize,
    follower: Follower<(Prepared, Vec<Ready>)>,
    /// Ends with the process, as the cycle does.
    interner: ManuallyDrop<Interner>,
    /// Sockets that were sent for a version.
    sockets: (u64, Vec<OwnedFd>),
    /// Log files that were sent for a version.
    logs: (u64, Vec<(PathBuf, File)>),
    /// The message of a version that is too large for the zone.
    text: Option<(u64, Sealed)>,
    said: Said,
    /// Of the last commit.
    over: Over,
}

impl Updater {
    /// For a worker that was born with the configuration of `version`.
    pub fn new(zone: Rc<Zone>, slot: usize, version: u64, interner: Interner) -> Self {
        let said = Said::default();
        let follower = Follower::new(version);
        let interner = ManuallyDrop::new(interner);
        Self {
            zone,
            slot,
            follower,
            interner,
            sockets: Default::default(),
            logs: Default::default(),
            text: None,
            said,
            over: Over::default(),
        }
    }

    /// Takes in sockets for a version that is to be prepared.
    pub fn receive(&mut self, version: u64, fds: Vec<OwnedFd>) {
        if self.sockets.0 != version {
            self.sockets = (version, Vec::new());
        }
        self.sockets.1.extend(fds);
    }

    /// Takes in a log file for a version that is to be prepared.
    pub fn receive_log(&mut self, version: u64, fds: Vec<OwnedFd>) {
        const PATH: usize = libc::PATH_MAX as usize;
        let Ok([path, file]) = <[OwnedFd; 2]>::try_from(fds) else { return };
        let Ok(path) = Sealed::from_fd(path).and_then(|path| path.read_all(PATH)) else { return };
        if self.logs.0 != version {
            self.logs = (version, Vec::new());
        }
        self.logs.1.push((OsString::from_vec(path).into(), file.into()));
    }

    /// Takes in the message of a version that is to be prepared, which is too large for the zone.
    pub fn receive_text(&mut self, version: u64, fds: Vec<OwnedFd>) {
        // What is none is not kept, and then missed.
        self.text = fds.into_iter().next().and_then(|fd| Sealed::from_fd(fd).ok()).map(|text| (version, text));
    }

    /// Prepares a version: reads, parses, checks; changes nothing. Gives the answer for the channel.
    pub fn prepare(&mut self, cycle: &Cycle, accepts: &Accepts, version: u64) -> Command {
        let began = monotonic();
        log!(Level::Notice, "dysvr_worker_dyreload_process begin {}ms", unix().as_millis());
        if !self.follower.meet(version) {
            log!(Level::Error, "[dysvr] the version jumped from {} to {version}", self.follower.version());
            return Command::Lost;
        }
        let prepared = guarded(|| self.try_prepare(cycle, accepts, version)).map_err(|refusal| refusal.to_string());
        let prepare_us = monotonic().saturating_sub(began).as_micros() as u64;
        self.said = Said { version, prepare_us, commit_us: 0, reason: String::new() };
        let answer = match prepared {
            Ok(prepared) => {
                self.follower.prepared(prepared);
                Command::Prepared
            }
            Err(reason) => {
                log!(Level::Error, "[dysvr] version {version} refused: {reason}");
                self.said.reason = reason;
                Command::Refused
            }
        };
        self.zone.slot(self.slot).say(&self.said);
        #[cfg(feature = "poison")]
        crate::poison::point("prepared", &self.zone, self.slot);
        answer
    }

    fn try_prepare(
        &mut self,
        cycle: &Cycle,
        accepts: &Accepts,
        version: u64,
    ) -> Result<(Prepared, Vec<Ready>), Refusal> {
        #[cfg(feature = "poison")]
        crate::poison::point("prepare", &self.zone, self.slot);
        let wrong = |error: &dyn std::fmt::Display| Refusal::Wrong(error.to_string());
        let bytes = {
            let _guard = self.zone.lock(false);
            #[cfg(feature = "poison")]
            crate::poison::point("locked", &self.zone, self.slot);
            let read = match self.text.take().filter(|(sent_for, _)| *sent_for == version) {
                Some((_, text)) => self.zone.read_sealed(version, &text),
                None => self.zone.read(version),
            };
            read.map_err(|error| wrong(&error))?
        };
        let message = Message::decode(&bytes).map_err(|error| wrong(&error))?;
        drop(bytes);
        let change = match message {
            Message::Light(delta) => delta.into(),
            Message::Read { task, placed, sources } => {
                let read = change_of(&task, cycle, &mut sources.replay(), &mut self.interner, None)?;
                Change { placed: Some(placed), ..read }
            }
        };
        let (sent_for, logs) = std::mem::take(&mut self.logs);
        let handed = log::hand(logs.into_iter().filter(|_| sent_for == version));
        let prepared = cycle.prepare(change)?;
        drop(handed);
        let ready = self.enter_sockets(version).map_err(Refusal::Wrong)?;
        match prepared
            .opens()
            .iter()
            .find(|(addr, _)| !accepts.has(addr) && !ready.iter().any(|new| new.addr() == addr))
        {
            Some((addr, _)) => Err(Refusal::Wrong(format!("no socket of {addr} has come"))),
            None => Ok((prepared, ready)),
        }
    }

    /// The sockets that were sent for a version, in the runtime.
    fn enter_sockets(&mut self, version: u64) -> Result<Vec<Ready>, String> {
        let (sent_for, fds) = std::mem::take(&mut self.sockets);
        let fds = if sent_for == version { fds } else { Vec::new() };
        let ready = fds.into_iter().map(|fd| Ready::new(listen::address_of(&fd)?, fd)).collect::<io::Result<_>>();
        ready.map_err(|error| format!("a socket that was sent cannot be used ({})", errno(&error)))
    }

    /// Makes the prepared version so. `None`: there is none of that version.
    pub fn commit(&mut self, context: &Rc<Context>, accepts: &Accepts, version: u64) -> Option<Command> {
        let began = monotonic();
        let (prepared, ready) = self.follower.commit(version)?;
        #[cfg(feature = "poison")]
        crate::poison::point("commit", &self.zone, self.slot);
        let mut committed = context.cycle.commit(prepared);
        self.over = std::mem::take(&mut committed.over);
        for socket in ready {
            accepts.begin(context, socket);
        }
        if !committed.closed.is_empty() {
            accepts.close_unserved(context, &committed.closed);
            context.addresses_closed();
        }
        #[cfg(feature = "poison")]
        crate::poison::point("committed", &self.zone, self.slot);
        for (addr, total) in &committed.listeners {
            log!(Level::Notice, "[dysvr] update listening {addr}, total:{total}");
        }
        self.said.commit_us = monotonic().saturating_sub(began).as_micros() as u64;
        self.prove(&context.cycle);
        self.zone.slot(self.slot).say(&self.said);
        let cost = (self.said.prepare_us + self.said.commit_us).div_ceil(1000);
        log!(Level::Notice, "dysvr_worker_dyreload_process end {}ms cost {cost}ms", unix().as_millis());
        Some(Command::Committed)
    }

    /// Whether this worker was never told to prepare a version that is to be committed.
    pub fn has_missed(&self, version: u64) -> bool {
        version > self.follower.version()
    }

    /// Drops what the last commit has left: the master has its answer.
    pub fn tidy(&mut self) {
        self.over = Over::default();
    }

    /// Shows the master what this worker serves, as a number; an answer on the channel follows.
    pub fn prove(&self, cycle: &Cycle) {
        let digest = cycle.digest().0;
        #[cfg(feature = "poison")]
        let digest = digest ^ u128::from(crate::poison::taken("proof"));
        self.zone.slot(self.slot).prove(digest);
    }

    /// Forgets what was prepared; the version is met all the same.
    pub fn abort(&mut self, version: u64) {
        self.follower.abort(version);
        self.sockets = Default::default();
        self.logs = Default::default();
        self.text = None;
    }
}
