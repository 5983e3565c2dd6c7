//! The master's side of a look: forks the twin, hears what it found, says it in the log and beside the task file, and heals
//! if that is asked for.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use dysvr_proto::status::Status;

use super::{Master, SlotId, twin};
use crate::cycle::digest::Sum;
use crate::dysvr::verify::finding::MAX_TEXT;
use crate::dysvr::verify::machine::{Effect, Input, Machine};
use crate::dysvr::verify::{Finding, Outcome, TWIN, finding_file, metrics, metrics_file};
use crate::dysvr::{self, round};
use crate::log::{self, Level};
use crate::os::channel::Command;
use crate::os::errno;
use crate::os::fork::{Exit, Fork, fork};
use crate::os::process::{self, exit_now};
use crate::os::signal;
use crate::os::time::{monotonic, unix};
use crate::task::TaskFile;
use crate::task::file::{Durability, read_task_file, write_whole};

/// Lines of a difference that go into the log.
const LOG_LINES: usize = 100;

/// What the master knows of looks.
#[derive(Debug, Default)]
pub struct Verify {
    machine: Machine,
    twin: Option<Twin>,
    /// The difference that was said last: it is said once, however long it stays.
    said: Option<u128>,
    findings: u64,
    alerts: u64,
    /// Workers that were replaced because they differed from the master.
    pub replaced: u64,
}

/// The child that looks.
#[derive(Debug)]
struct Twin {
    pid: i32,
    pipe: File,
    heard: Vec<u8>,
    /// The machine waits for it no more.
    given_up: bool,
}

impl Verify {
    /// What is readable when the twin has said something.
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.twin.as_ref().map(|twin| twin.pipe.as_fd())
    }
}

impl Twin {
    /// Takes in what is there.
    fn hear(&mut self) {
        let mut chunk = [0; 16 << 10];
        // It is a child of ours, but nothing that grows without end is kept.
        while self.heard.len() <= 4 * MAX_TEXT {
            match self.pipe.read(&mut chunk) {
                Ok(0) => return,
                Ok(read) => self.heard.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

impl Master {
    /// When a look is due, or when the one under way must have ended.
    pub(super) fn verify_deadline(&self) -> Option<Duration> {
        // What must end before a look begins wakes the master by itself.
        (self.verify.machine.is_looking() || self.may_look()).then(|| self.verify.machine.poll_timeout()).flatten()
    }

    fn may_look(&self) -> bool {
        let busy = self.tasks.is_running() || self.tasks.wanted || self.reload.is_busy() || self.reload.wanted;
        !busy && self.verify.twin.is_none() && self.leaving.is_none()
    }

    /// Somebody wants to know.
    pub(super) fn verify_asked(&mut self, number: u32) {
        self.verify.machine.handle(monotonic(), Input::Asked(number));
    }

    /// A task or a reload begins.
    pub(super) fn verify_disturbed(&mut self, now: Duration) {
        self.verify.machine.handle(now, Input::Disturbed);
    }

    /// Goes on with looks: the clock, the configuration's interval, and what the twin says.
    pub(super) fn verify_tick(&mut self, now: Duration) {
        let dysvr = self.cycle.http().map(|http| Arc::clone(&http.main.dysvr)).filter(|dysvr| dysvr.enable);
        let every = dysvr.and_then(|dysvr| dysvr.verify).map(|verify| verify.every);
        self.verify.machine.set_interval(now, every);
        if let Some(twin) = &mut self.verify.twin {
            twin.hear();
        }
        let free = self.may_look();
        self.verify.machine.handle(now, Input::Tick(free));
        self.verify_effects(now);
    }

    /// A child that is no worker has ended.
    pub(super) fn verify_reaped(&mut self, pid: i32, exit: Exit) {
        let Some(mut twin) = self.verify.twin.take_if(|twin| twin.pid == pid) else { return };
        self.cycle.region().take_back();
        twin.hear();
        if twin.given_up {
            return;
        }
        let finding = match exit {
            Exit::Code(0) => Finding::decode(&twin.heard).unwrap_or_else(|error| Finding::unknown(error.to_string())),
            Exit::Code(code) => Finding::unknown(format!("the twin {pid} exited with code {code}")),
            Exit::Signal(signal) => Finding::unknown(format!("the twin {pid} was ended by signal {signal}")),
        };
        // A task whose files are written already.
        let waits = finding.outcome != Outcome::Equal && self.task_waits();
        let now = monotonic();
        self.verify.machine.handle(now, Input::Found(Box::new(finding), waits));
        self.verify_effects(now);
    }

    /// Whether what a worker has shown is `digest`. One that serves something else is told of and counted.
    pub(super) fn is_proved(&mut self, slot: SlotId, digest: Sum) -> bool {
        let Some(worker) = self.workers.get(slot).filter(|_| !self.is_damaged) else { return true };
        let shown = Sum(worker.zone.slot(slot).proof());
        if shown == digest {
            return true;
        }
        log!(Level::Alert, "[dysvr] verify: worker {} serves {shown}, the master {digest}: replaced", worker.pid);
        self.verify.replaced += 1;
        false
    }

    /// A worker says that it has committed a version: it has if it serves what the master does.
    pub(super) fn on_committed(&mut self, now: Duration, slot: SlotId, version: u64) {
        let current = self.tasks.committed_version() == Some(version);
        let digest = self.cycle.digest();
        let input = if current && !self.is_proved(slot, digest) {
            round::Input::Refused(slot, version, "it serves something else than the master".into())
        } else {
            round::Input::Committed(slot, version)
        };
        self.round_input(now, input);
    }

    /// A new worker that serves something else: it leaves, and another one comes, after a pause: this must not go round and
    /// round.
    pub(super) fn refuse_birth(&mut self, now: Duration, slot: SlotId) {
        let Some(worker) = self.workers.get_mut(slot) else { return };
        worker.leaving = true;
        self.births.died(now, worker.born, worker.ordinal);
        self.workers.send(slot, Command::Quit, 0);
    }

    fn task_waits(&self) -> bool {
        let path = dysvr::task_file(self.cycle.http().as_deref(), &self.prefix);
        let file = read_task_file(&path).ok().and_then(|bytes| TaskFile::parse(&bytes).ok());
        file.is_some_and(|file| file.0.iter().any(|task| !task.status.is_final() || task.status == Status::Init))
    }

    fn verify_effects(&mut self, now: Duration) {
        while let Some(effect) = self.verify.machine.poll_effect() {
            match effect {
                Effect::Look(awaited) => {
                    let forked = match self.is_damaged {
                        true => Err("a commit has panicked, and the files have not been loaded since".to_owned()),
                        false => self
                            .fork_twin(awaited)
                            .map_err(|error| format!("no twin could be forked ({})", errno(&error))),
                    };
                    if let Err(why) = forked {
                        self.verify.machine.handle(now, Input::Found(Box::new(Finding::unknown(why)), false));
                    }
                }
                Effect::Kill => {
                    if let Some(twin) = &mut self.verify.twin {
                        twin.given_up = true;
                        // Our child until it is reaped, so the number is its own.
                        let _ = signal::send(twin.pid, libc::SIGKILL);
                    }
                }
                Effect::Conclude(finding) => self.say_finding(*finding),
            }
        }
    }

    /// In the child this does not return.
    fn fork_twin(&mut self, awaited: bool) -> io::Result<()> {
        let (ours, theirs) = io::pipe()?;
        let ours = File::from(std::os::fd::OwnedFd::from(ours));
        nix::fcntl::fcntl(&ours, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        // Named before it is born: whoever counts the master's workers must never take it for one.
        let (mine, mut its) = (process::name(), [0; 16]);
        its[..TWIN.len()].copy_from_slice(TWIN.as_bytes());
        let me = process::id();
        process::set_name(its);
        // Lines that wait would be written by both.
        log::flush();
        self.cycle.region().lend();
        let forked = fork();
        if let Ok(Fork::Child) = forked {
            log::forget();
            // An address that closes meanwhile must be closed, and a dead master's channels must end.
            self.sockets.close_all();
            self.workers.clear();
            exit_now(twin::look(&self.options, &self.prefix, &self.cycle, theirs, me, awaited));
        }
        process::set_name(mine);
        if forked.is_err() {
            self.cycle.region().take_back();
        }
        if let Fork::Parent(pid) = forked? {
            self.verify.twin = Some(Twin { pid, pipe: ours, heard: Vec::new(), given_up: false });
        }
        Ok(())
    }

    fn say_finding(&mut self, mut finding: Finding) {
        let fingerprint = finding.fingerprint();
        let differs = matches!(finding.outcome, Outcome::Different | Outcome::Unloadable);
        let new = differs && self.verify.said != Some(fingerprint);
        self.verify.findings += 1;
        self.verify.alerts += u64::from(new);
        if finding.outcome != Outcome::Unknown {
            self.verify.said = differs.then_some(fingerprint);
        }
        match finding.outcome {
            Outcome::Equal => log!(Level::Info, "[dysvr] verify: {}", finding.sentence()),
            Outcome::Unknown => log!(Level::Error, "[dysvr] verify: {}", finding.sentence()),
            Outcome::Different | Outcome::Unloadable if new => {
                log!(Level::Alert, "[dysvr] verify: {}", finding.sentence());
                for line in finding.text.lines().take(LOG_LINES) {
                    log!(Level::Alert, "[dysvr] verify: {line}");
                }
            }
            _ => {}
        }
        finding.time = unix();
        finding.master = process::id();
        finding.version = self.zone.version();
        finding.findings = self.verify.findings;
        finding.alerts = self.verify.alerts;
        finding.replaced = self.verify.replaced;
        if finding.outcome == Outcome::Unknown {
            finding.digest = self.cycle.digest();
        }
        let task_file = dysvr::task_file(self.cycle.http().as_deref(), &self.prefix);
        // The metrics first: who waits for the finding may read them.
        let files =
            [(metrics_file(&task_file), metrics(&finding).into()), (finding_file(&task_file), finding.encode())];
        for (path, bytes) in files {
            if let Err(error) = write_whole(&path, &bytes, Durability::Visible) {
                log!(Level::Crit, "writing \"{}\" failed ({})", path.display(), errno(&error));
            }
        }
        let heal = self.cycle.http().and_then(|http| http.main.dysvr.verify).is_some_and(|verify| verify.heal);
        // What does not load is healed by no reload; what a reload has not healed, by no second one.
        if heal && new && finding.outcome == Outcome::Different {
            log!(Level::Notice, "[dysvr] verify: reloading, as dysvr_verify says (heal)");
            self.reload.wanted = true;
        }
    }
}
