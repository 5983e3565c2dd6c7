//! The master's side of an in-place update: takes a task from the task file, checks it against its own cycle, publishes
//! it, and does what the [`Round`] says until there is a verdict.

mod file;
mod publish;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use dysvr_conf::recording::{Recording, Sources};
use dysvr_proto::planted::{Bug, planted};
use dysvr_proto::status::Status;

pub(super) use file::{carry_over, say_unwritten};
use publish::Told;

use super::sockets::Opened;
use super::{Master, SlotId};
use crate::cycle::digest::{Kind as Of, Sum};
use crate::cycle::{Committed, Delta, Over, Prepared, Refusal};
use crate::dysvr::ahead::ReadAhead;
use crate::dysvr::message;
use crate::dysvr::round::{Effect, Input, Round, Verdict};
use crate::dysvr::update::{change_of, guarded};
use crate::log::Level;
use crate::os::channel::Command;
use crate::os::time::{monotonic, unix};
use crate::task::opened::OpenTaskFile;
use crate::task::{Kind, Mode, TaskLine, WorkerTime};

/// What the master knows of tasks.
#[derive(Debug, Default)]
pub struct Tasks {
    /// A signal has come: the task file wants to be read.
    pub wanted: bool,
    /// The file that was read, and from where on it may have more tasks.
    file: Option<(OpenTaskFile, usize)>,
    running: Option<Running>,
    /// The last task that was done and what it was made of: asked again, it is answered, not run.
    last: Option<(u64, Sum)>,
}

/// What a task was made of. It is summed up only when that is asked for, or when nobody waits any more.
fn sum_of(task: &TaskLine, sources: &Sources) -> Sum {
    Sum::of(Of::Text, (task.asked(), sources))
}

/// What has become of a task that was read.
#[allow(clippy::large_enum_variant, reason = "it is moved once and kept nowhere")]
enum Begun {
    /// It stands in the zone, and the workers have been told to prepare it if they must.
    Published { sources: Box<Sources>, prepared: Box<(Prepared, Opened)>, round: Round, members: Vec<SlotId> },
    /// It is the one that was done last.
    Before,
}

/// The task in flight.
#[derive(Debug)]
struct Running {
    file: OpenTaskFile,
    /// Which line of the file.
    index: usize,
    /// What it was read from.
    sources: Box<Sources>,
    round: Round,
    /// Until the commit.
    prepared: Option<Box<(Prepared, Opened)>>,
    /// From the commit on.
    over: Over,
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

    /// The version of the task in flight, once it is committed in the master.
    pub fn committed_version(&self) -> Option<u64> {
        self.running.as_ref().filter(|running| running.round.is_committed()).map(|running| running.round.version())
    }

    /// Whether a worker may be at work on the task in flight, so that what it shows of itself is about to change.
    pub fn awaits(&self, slot: SlotId) -> bool {
        self.running.as_ref().is_some_and(|running| running.round.awaits(slot))
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
        while (self.tasks.wanted || self.tasks.file.is_some())
            && !self.tasks.is_running()
            && !self.reload.is_busy()
            && !(self.is_damaged && self.reload.wanted)
            && self.leaving.is_none()
        {
            self.begin_next(now);
        }
        Ok(())
    }

    /// Begins the next task that is at `I`: in the file that is open, or in the one that stands there now when a signal
    /// has come. Lines are independent of each other: after one that fails the next one has its turn.
    fn begin_next(&mut self, now: Duration) {
        let (mut file, from) = match self.tasks.file.take() {
            Some((file, from)) if !self.tasks.wanted && file.is_current() => (file, from),
            former => {
                if let Some((mut file, _)) = former {
                    say_unwritten(file.settle(), file.path());
                }
                if !std::mem::take(&mut self.tasks.wanted) {
                    return; // replaced: whoever did it sends a signal
                }
                match self.open_task_file() {
                    Some(file) => (file, 0),
                    None => return,
                }
            }
        };
        let Some(index) = file.next_from(from) else {
            return say_unwritten(file.settle(), file.path());
        };
        log!(Level::Notice, "[dysvr] {}", file.text(index));
        self.verify_disturbed(now);
        match self.begin(now, file.task(index)) {
            Ok(Begun::Published { sources, prepared, round, members }) => {
                say_unwritten(file.mark(index, Status::Ready), file.path());
                self.tasks.running = Some(Running {
                    file,
                    index,
                    sources,
                    round,
                    prepared: Some(prepared),
                    over: Over::default(),
                    began: now,
                    members,
                    replacements: Vec::new(),
                });
                self.round_effects(now);
            }
            Ok(Begun::Before) => {
                log!(Level::Notice, "[dysvr] task_id {} is done already", file.task(index).task_id);
                Self::conclude(&mut file, index, |task| task.set_status(Status::Done));
                drop(self.go_on(file, index));
            }
            Err(refusal) => {
                log!(Level::Error, "[dysvr] task_id {} failed: {refusal}", file.task(index).task_id);
                Self::conclude(&mut file, index, |task| {
                    if let Refusal::NeedsReload(_) = refusal {
                        task.mode = Some(Mode::Reload);
                    }
                    task.fail(refusal.to_string());
                });
                drop(self.go_on(file, index));
            }
        }
    }

    /// Checks a task, publishes it and tells the workers to prepare. On a refusal nothing that is served has changed.
    fn begin(&mut self, now: Duration, task: &TaskLine) -> Result<Begun, Refusal> {
        let mut early = None;
        let begun = self.check(now, task, &mut early);
        if let Some(told) = early {
            for slot in told.members {
                self.workers.send(slot, Command::Abort, told.version);
            }
        }
        begun
    }

    /// `early` is what the workers were told before the task was checked, if it comes to nothing.
    fn check(&mut self, now: Duration, task: &TaskLine, early: &mut Option<Told>) -> Result<Begun, Refusal> {
        if self.is_damaged {
            return Err(Refusal::NeedsReload("a commit has panicked and the files could not be loaded since".into()));
        }
        log!(Level::Notice, "master dysvr_update begin {}ms", millis());
        log!(Level::Notice, "[dysvr] dysvr_update {}: task_type[{}]", task.task_id, task.kind);
        let (task_id, cycle) = (task.task_id.0, Rc::clone(&self.cycle));
        let last = self.tasks.last.filter(|(id, _)| *id == task_id);
        let mut recording = Recording::new(ReadAhead::default());
        log!(Level::Notice, "conf_parse begin {}ms", millis());
        let coming = if task.kind == Kind::Delete { 0 } else { task.vsvc_ids.len() + task.ups_ids.len() };
        let ahead = cycle.region().ahead(coming);
        let mut interner = std::mem::take(&mut self.interner);
        let mut tell = |delta: &Delta| {
            // Asked again it is likely to be done already. What cannot be said now is said when it was checked.
            if last.is_none() {
                *early = self.tell(&message::encode_light(delta), None, true).ok();
            }
        };
        let change = guarded(|| {
            #[cfg(feature = "poison")]
            crate::poison::point("parse", &self.zone, 0);
            change_of(task, &cycle, &mut recording, &mut interner, Some(&mut tell))
        });
        self.interner = interner;
        let change = change?;
        log!(Level::Notice, "conf_parse end {}ms", millis());
        let count = change.vhosts.len() + change.removed.len();
        let sources = Box::new(recording.into_sources());
        let same = |last: Sum| last == sum_of(task, &sources) || planted(Bug::ContentsIgnored);
        if last.is_some_and(|(_, last)| same(last)) {
            return Ok(Begun::Before);
        }
        let prepared = guarded(|| cycle.prepare(change))?;
        drop(ahead);
        let opened = self.sockets.open(prepared.opens(), self.worker_count()).map_err(Refusal::Wrong)?;
        let light = prepared.is_light();
        let (told, begin): (_, fn(_, _, _, _) -> _) = match early.take().filter(|_| light) {
            Some(told) => (told, Round::early),
            None if light => {
                (self.tell(&message::encode_light(prepared.delta()), Some((&prepared, &opened)), false)?, Round::direct)
            }
            None => {
                let message = message::encode_read(&task.to_string(), &prepared.delta().placed, &sources.encode());
                (self.tell(&message, Some((&prepared, &opened)), true)?, Round::new)
            }
        };
        let Told { version, members } = told;
        log!(Level::Notice, "[dysvr] send msg task_id {task_id} count {count} version: {version}");
        let round = begin(now, version, members.clone(), self.task_timeout());
        Ok(Begun::Published { sources, prepared: Box::new((prepared, opened)), round, members })
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
                Effect::Commit(slots) => self.commit(&slots, Command::Commit),
                Effect::Apply(slots) => self.commit(&slots, Command::Apply),
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

    fn commit(&mut self, slots: &[SlotId], command: Command) {
        let Some(running) = &mut self.tasks.running else { return };
        let version = running.round.version();
        // The workers first: what the master does meanwhile, they need not wait for.
        for &slot in slots {
            self.workers.send(slot, command, version);
        }
        if let Some((prepared, opened)) = running.prepared.take().map(|prepared| *prepared) {
            let over = &mut running.over;
            let commit = || {
                self.sockets.take_over(opened);
                #[cfg(feature = "poison")]
                crate::poison::point("master-commit", &self.zone, 0);
                let mut committed = self.cycle.commit(prepared);
                *over = std::mem::take(&mut committed.over);
                self.sockets.commit(monotonic(), &self.cycle, &committed);
                log_committed(&committed);
            };
            // Behind the point of no return: the workers do it anyway, and a master that died of it would take them along
            // where its supervisor ends what it leaves.
            if catch_unwind(AssertUnwindSafe(commit)).is_err() {
                self.damage();
            }
        }
        let Some(running) = &mut self.tasks.running else { return };
        say_unwritten(running.file.mark(running.index, Status::Loading), running.file.path());
        let cost = monotonic().saturating_sub(running.began).as_millis();
        log!(Level::Notice, "master dysvr_update end {}ms cost {cost}ms", millis());
    }

    /// Forks a worker in place of one that cannot follow; that one leaves as soon as it can.
    fn replace(&mut self, now: Duration, old: SlotId) {
        // A dead one's successor is due already, a living one's becomes due here: it is born at once.
        self.retire(now, old, "did not commit");
        if self.is_damaged {
            // The load that is due replaces them all.
            return self.round_input(now, Input::Replaced { old });
        }
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
        let (file, index) = (&mut running.file, running.index);
        let times = running.members.iter().filter_map(|&slot| {
            let said = self.zone.slot(slot).said();
            let pid = self.workers.get(slot)?.pid as u32;
            (said.version == version).then_some(WorkerTime {
                pid,
                prepare_us: said.prepare_us,
                commit_us: said.commit_us,
            })
        });
        let workers = times.collect();
        let master_us = Some(monotonic().saturating_sub(running.began).as_micros() as u64);
        let id = file.task(index).task_id;
        let done = verdict == Verdict::Done;
        Self::conclude(file, index, |task| {
            (task.mode, task.master_us, task.workers) = (Some(Mode::InPlace), master_us, workers);
            match verdict {
                Verdict::Done => {
                    task.set_status(Status::Done);
                    log!(Level::Notice, "[dysvr] task_id {id} done version: {version}");
                }
                Verdict::Failed(reason) => {
                    log!(Level::Error, "[dysvr] task_id {id} failed: {reason}");
                    task.fail(reason);
                }
            }
        });
        // Whoever waits for the file to be closed waits for nothing else.
        let task = self.go_on(running.file, index);
        drop(running.over);
        if done {
            self.tasks.last = Some((id.0, sum_of(&task, &running.sources)));
            self.lift_quarantine();
            self.sweep();
        }
    }
}

fn log_committed(committed: &Committed) {
    for (addr, total) in &committed.listeners {
        log!(Level::Notice, "[dysvr] update listening {addr}, total:{total}");
    }
    for conflict in &committed.conflicts {
        log!(Level::Warn, "{conflict}");
    }
}
