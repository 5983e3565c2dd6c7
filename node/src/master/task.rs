//! The master's side of an in-place update: reads the task file, checks a task against its own cycle, publishes it, and
//! does what the [`Round`] says until there is a verdict.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use dysvr_conf::recording::Recording;
use dysvr_proto::status::Status;

use super::sockets::Opened;
use super::{Master, SlotId};
use crate::cycle::{Committed, Prepared, Refusal};
use crate::dysvr;
use crate::dysvr::message::Message;
use crate::dysvr::round::{Effect, Input, Round, Verdict};
use crate::dysvr::source::Machine;
use crate::dysvr::update::{change_of, guarded};
use crate::log::Level;
use crate::os::channel::Command;
use crate::os::errno;
use crate::os::time::{monotonic, unix};
use crate::task::file::{Durability, read_task_file, write_whole};
use crate::task::{Mode, TaskFile, WorkerTime};

/// What the master knows of tasks.
#[derive(Debug, Default)]
pub struct Tasks {
    /// A signal has come: the task file wants to be read.
    pub wanted: bool,
    running: Option<Running>,
    /// The last task that was done and the bytes that it was: asked again, it is answered, not run.
    last: Option<(u64, Vec<u8>)>,
}

/// The task in flight.
#[derive(Debug)]
struct Running {
    path: PathBuf,
    file: TaskFile,
    /// Which line of the file.
    index: usize,
    message: Vec<u8>,
    round: Round,
    /// Until the commit.
    prepared: Option<(Prepared, Opened)>,
    began: Duration,
    /// Those that took part, for their timings.
    members: Vec<SlotId>,
    /// Replacements: the new worker, `None` until there is one, → the one that it stands in for.
    replacements: Vec<(Option<SlotId>, SlotId)>,
}

impl Tasks {
    /// When the task in flight wants the clock.
    pub fn deadline(&self) -> Option<Duration> {
        self.running.as_ref()?.round.poll_timeout()
    }

    /// Whether a task is published but not committed.
    pub fn is_preparing(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.round.is_committed())
    }

    /// Whether a task is in flight.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

fn millis() -> u128 {
    unix().as_millis()
}

impl Master {
    /// Goes on with tasks: the clock of the one in flight, and the file when none is.
    pub(super) fn task_tick(&mut self, now: Duration) -> io::Result<()> {
        self.round_input(now, Input::Tick);
        while self.tasks.wanted && !self.tasks.is_running() && !self.reload.is_busy() && self.leaving.is_none() {
            self.begin_next(now);
        }
        Ok(())
    }

    /// Reads the task file and begins its first task that is still at `I`; without one there is nothing wanted.
    fn begin_next(&mut self, now: Duration) {
        let path = dysvr::task_file(self.cycle.http().as_deref(), &self.prefix);
        if !self.cycle.http().is_some_and(|http| http.main.dysvr.enable) {
            self.tasks.wanted = false;
            log!(Level::Error, "[dysvr] signal ignored: dysvr is off");
            return;
        }
        let file = match read_task_file(&path)
            .map_err(|e| errno(&e))
            .and_then(|bytes| TaskFile::parse(&bytes).map_err(|error| error.to_string()))
        {
            Ok(file) => file,
            Err(error) => {
                self.tasks.wanted = false;
                log!(Level::Error, "[dysvr] task file \"{}\" refused: {error}", path.display());
                return refuse_file(&path, &error);
            }
        };
        let fresh = |task: &crate::task::TaskLine| task.status == Status::Init && task.mode != Some(Mode::Reload);
        let Some(index) = file.0.iter().position(fresh) else {
            self.tasks.wanted = false;
            return;
        };
        log!(Level::Notice, "[dysvr] {}", file.0[index]);
        if let Err((refusal, mut file)) = self.begin(now, path.clone(), file, index) {
            log!(Level::Error, "[dysvr] task_id {} failed: {refusal}", file.0[index].task_id);
            let task = &mut file.0[index];
            if let Refusal::NeedsReload(_) = refusal {
                task.mode = Some(Mode::Reload);
            }
            task.fail(refusal.to_string());
            write_status(&path, &file);
        }
    }

    /// Checks a task, publishes it and tells the workers to prepare. On a refusal nothing has changed anywhere.
    fn begin(
        &mut self,
        now: Duration,
        path: PathBuf,
        mut file: TaskFile,
        index: usize,
    ) -> Result<(), (Refusal, TaskFile)> {
        let task = file.0[index].clone();
        log!(Level::Notice, "master dysvr_update begin {}ms", millis());
        log!(Level::Notice, "[dysvr] dysvr_update {}: task_type[{}]", task.task_id, task.kind);
        let mut recording = Recording::new(Machine);
        log!(Level::Notice, "conf_parse begin {}ms", millis());
        let read = || {
            #[cfg(feature = "poison")]
            crate::poison::point("parse", &self.zone, 0);
            change_of(&task, &self.cycle, &mut recording, &mut self.interner)
        };
        let change = match guarded(read) {
            Ok(change) => change,
            Err(refusal) => return Err((refusal, file)),
        };
        log!(Level::Notice, "conf_parse end {}ms", millis());
        let count = change.vhosts.len() + change.removed.len();
        let task_id = task.task_id.0;
        let message = Message { task, sources: recording.into_sources() }.encode();
        if self.tasks.last.as_ref().is_some_and(|(id, bytes)| *id == task_id && *bytes == message) {
            log!(Level::Notice, "[dysvr] task_id {task_id} is done already");
            file.0[index].set_status(Status::Done);
            write_status(&path, &file);
            return Ok(());
        }
        let prepared = match guarded(|| self.cycle.prepare(change)) {
            Ok(prepared) => prepared,
            Err(refusal) => return Err((refusal, file)),
        };
        let opened = match self.sockets.open(prepared.opens(), self.worker_count()) {
            Ok(opened) => opened,
            Err(error) => return Err((Refusal::Wrong(error), file)),
        };
        file.0[index].set_status(Status::Ready);
        write_status(&path, &file);
        let version = match self.publish(&message) {
            Ok(version) => version,
            Err(refusal) => return Err((refusal, file)),
        };
        log!(Level::Notice, "[dysvr] send msg task_id {task_id} count {count} version: {version}");

        let members = self.workers.serving();
        for &slot in &members {
            let ordinal = self.workers.get(slot).map_or(0, |worker| worker.ordinal);
            if !self.workers.send_sockets(slot, version, &opened.of_worker(ordinal)) {
                // It is told to prepare all the same, and refuses for want of them.
                log!(Level::Error, "[dysvr] sockets could not be sent to worker slot {slot}");
            }
            if !self.workers.send(slot, Command::Prepare, version) {
                // Its channel is full: it will miss this version, and say so when it meets the next.
                log!(Level::Error, "[dysvr] the channel of worker slot {slot} is full");
            }
        }
        let round = Round::new(now, version, members.iter().copied(), self.task_timeout());
        self.tasks.running = Some(Running {
            path,
            file,
            index,
            message,
            round,
            prepared: Some((prepared, opened)),
            began: now,
            members,
            replacements: Vec::new(),
        });
        self.round_effects(now);
        Ok(())
    }

    /// Puts a message into the zone.
    fn publish(&self, message: &[u8]) -> Result<u64, Refusal> {
        let trylock = self.cycle.http().is_some_and(|http| http.main.dysvr.trylock);
        let taken = || Refusal::Wrong("the mutex of dysvr_shm_zone is taken".into());
        let guard = match self.zone.lock(trylock) {
            Some(guard) => guard,
            None if trylock => return Err(taken()),
            None => {
                log!(
                    Level::Alert,
                    "[dysvr] the mutex of dysvr_shm_zone is held by a worker that does not go on: made anew"
                );
                self.zone.reset().map_err(|_| taken())?;
                self.zone.lock(true).ok_or_else(taken)?
            }
        };
        guard.publish(message).ok_or_else(|| {
            let (size, room) = (message.len(), self.zone.capacity());
            Refusal::NeedsReload(format!(
                "the task's {size} bytes do not fit into dysvr_shm_zone, which has room for {room}"
            ))
        })
    }

    /// Feeds the round, if there is one, and does what it says.
    pub(super) fn round_input(&mut self, now: Duration, input: Input) {
        if let Some(running) = &mut self.tasks.running {
            running.round.handle(now, input);
            self.round_effects(now);
        }
    }

    /// A worker serves: if it stands in for another one, the round may go on.
    pub(super) fn task_replaced(&mut self, now: Duration, new: SlotId) {
        let Some(running) = &self.tasks.running else { return };
        if let Some(&(_, old)) = running.replacements.iter().find(|(slot, _)| *slot == Some(new)) {
            self.round_input(now, Input::Replaced { old });
        }
    }

    fn round_effects(&mut self, now: Duration) {
        while let Some(effect) = self.tasks.running.as_mut().and_then(|running| running.round.poll_effect()) {
            match effect {
                Effect::Commit(slots) => self.commit(&slots),
                Effect::Abort(slots) => {
                    let version = self.tasks.running.as_ref().map_or(0, |running| running.round.version());
                    for slot in slots {
                        self.workers.send(slot, Command::Abort, version);
                    }
                }
                Effect::Retire(slots) => {
                    for slot in slots {
                        self.retire(now, slot, "did not prepare in time");
                    }
                }
                Effect::Replace(slot) => self.replace(now, slot),
                Effect::End(verdict) => self.end(verdict),
            }
        }
    }

    fn commit(&mut self, slots: &[SlotId]) {
        let Some(running) = &mut self.tasks.running else { return };
        if let Some((prepared, opened)) = running.prepared.take() {
            self.sockets.take_over(opened);
            let committed = self.cycle.commit(prepared);
            self.sockets.commit(&self.cycle, &committed);
            log_committed(&committed);
            self.lift_quarantine();
        }
        let Some(running) = &mut self.tasks.running else { return };
        let cost = monotonic().saturating_sub(running.began).as_millis();
        log!(Level::Notice, "master dysvr_update end {}ms cost {cost}ms", millis());
        running.file.0[running.index].set_status(Status::Loading);
        write_status(&running.path, &running.file);
        let version = running.round.version();
        for &slot in slots {
            self.workers.send(slot, Command::Commit, version);
        }
    }

    /// Forks a worker in place of one that cannot follow; that one leaves as soon as it can.
    fn replace(&mut self, now: Duration, old: SlotId) {
        // A dead one's successor is due already, a living one's becomes due here: it is born at once.
        self.retire(now, old, "did not commit");
        if let Some(running) = &mut self.tasks.running {
            running.replacements.push((None, old));
        }
        let ordinal = self.births.take_one();
        self.give_birth(now, ordinal);
    }

    /// A worker was forked: it is the replacement that the round waits for, if it waits for one.
    pub(super) fn task_born(&mut self, new: SlotId) {
        let Some(running) = &mut self.tasks.running else { return };
        if let Some(wanted) = running.replacements.iter_mut().find(|(slot, _)| slot.is_none()) {
            wanted.0 = Some(new);
            running.members.push(new);
        }
    }

    /// A worker has ended: if it was a replacement, the next one that is born is it.
    pub(super) fn task_lost(&mut self, slot: SlotId) {
        let Some(running) = &mut self.tasks.running else { return };
        for (new, _) in running.replacements.iter_mut().filter(|(new, _)| *new == Some(slot)) {
            *new = None;
        }
        running.members.retain(|member| *member != slot);
    }

    fn end(&mut self, verdict: Verdict) {
        let Some(mut running) = self.tasks.running.take() else { return };
        let version = running.round.version();
        let task = &mut running.file.0[running.index];
        let times = running.members.iter().filter_map(|&slot| {
            let said = self.zone.said(slot);
            let pid = self.workers.get(slot)?.pid as u32;
            (said.version == version).then_some(WorkerTime {
                pid,
                prepare_us: said.prepare_us,
                commit_us: said.commit_us,
            })
        });
        task.workers = times.collect();
        task.master_us = Some(monotonic().saturating_sub(running.began).as_micros() as u64);
        task.mode = Some(Mode::InPlace);
        let id = task.task_id;
        match verdict {
            Verdict::Done => {
                task.set_status(Status::Done);
                log!(Level::Notice, "[dysvr] task_id {id} done version: {version}");
                self.tasks.last = Some((id.0, running.message));
            }
            Verdict::Failed(reason) => {
                log!(Level::Error, "[dysvr] task_id {id} failed: {reason}");
                task.fail(reason);
            }
        }
        write_status(&running.path, &running.file);
    }
}

fn log_committed(committed: &Committed) {
    for (addr, total) in &committed.listeners {
        log!(Level::Notice, "[dysvr] update listening {addr}, total:{total}");
    }
    for (name, addr) in &committed.conflicts {
        log!(Level::Warn, "conflicting server name \"{name}\" on {addr}, ignored");
    }
}

/// Writes the task file anew. If that fails the agent learns nothing, but what was done is done: say it in the log.
pub(super) fn write_status(path: &std::path::Path, file: &TaskFile) {
    if let Err(error) = write_whole(path, &file.encode(), Durability::Visible) {
        log!(Level::Crit, "writing \"{}\" failed ({})", path.display(), errno(&error));
    }
}

/// Answers a file that cannot be read as tasks: its own lines stay, as comments, under a line that says why, so that
/// whoever wrote it sees the verdict and nothing is lost.
fn refuse_file(path: &std::path::Path, error: &str) {
    let Ok(bytes) = std::fs::read(path) else { return };
    let mut text = format!("# status=F reason={error:?}\n");
    for line in String::from_utf8_lossy(&bytes).lines() {
        text.push_str("# ");
        text.push_str(line);
        text.push('\n');
    }
    if let Err(error) = write_whole(path, text.as_bytes(), Durability::Visible) {
        log!(Level::Crit, "writing \"{}\" failed ({})", path.display(), errno(&error));
    }
}
