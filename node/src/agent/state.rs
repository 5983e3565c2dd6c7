//! The life of a task, as a pure machine: what has happened comes in with the time, what must be done comes out.
//!
//! ```text
//! order → check → stage → plan → guard → begin (journal) → write → [test] → signal → settle → wait ──D──▶ end D
//!           │               │       │        │               │        │         │        │      ├─F─▶ undo ─▶ end F
//!           └───────────────┴───────┴────────┴── end F ◀─ undo ◀──────┴─────────┘        │      └─ late, master gone:
//!                                                                                        └─▶ withdraw the line ─▶ undo ─▶ reload ─▶ end F
//! ```
//!
//! Before `begin` nothing has changed, so a task that ends there is only answered. From `begin` on the journal names the
//! task, and a restart at any moment goes on from what the task file says. A line is withdrawn (set to `F`) before the
//! files are restored, so that no master acts on restored files. When something may have taken effect although the task
//! failed (another line of it is done, the master died or fell silent) the restored files are reloaded.
//!
//! What is on the disk when: at the end of `begin` the former contents, the new ones (without names) and the journal's entry,
//! all that a restart needs to undo the task or to find it done. Nothing that is managed has changed before. After `settle` the names
//! of the files too; the master works meanwhile. Should the machine go down before that, some names are the new ones and
//! some not, and no master lives that could have taken the task for done: the restart undoes it, also if a task file on a disk
//! says `D` while a file is what it was. After `end` the verdict, and only then is it told: a reboot loses a task
//! file on a tmpfs, and without the entry of the end the restart could not know of a `D` that was told.

mod current;
mod event;
mod verdict;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use dysvr_proto::status::Status;

use super::check::Checked;
use super::ledger::{Answer, Entry};
use super::order::Order;
use super::report::{Mode, micros};
use current::{Current, Phase, Waiting};
pub use event::{Effect, Input, NumberedLine, Standing, Wake};

/// A signal is a hint: when nothing has moved for so long it is sent again.
pub const SIGNAL_AGAIN: Duration = Duration::from_secs(1);
/// How late it is told how far a task is: a task in place has its verdict in a millisecond or two, and each report before would take
/// processor time from the workers that it waits for, here and at a controller on the same machine.
pub const PROGRESS: Duration = Duration::from_millis(50);
/// What the agent grants beyond the time that the master grants its workers.
pub const MARGIN: Duration = Duration::from_secs(2);
/// How long a task that was under way at a restart may still take: its verdict is due within 2 s.
pub const RECOVERY: Duration = Duration::from_millis(1500);
/// How long the reload of restored files may take.
const REVERT: Duration = Duration::from_secs(10);
/// What the master's reason begins with when a reload can do what the in-place way cannot.
pub const NEEDS_RELOAD: &str = "needs a reload: ";

/// The machine.
#[derive(Debug, Default)]
pub struct Machine {
    current: Option<Current>,
    next: Option<Rc<Order>>,
    stopping: bool,
    effects: VecDeque<Effect>,
}

impl Machine {
    /// A machine that first ends a task that an earlier run left unfinished, if there is one.
    pub fn new(now: Duration) -> Self {
        let mut machine = Self::default();
        machine.start(Current::new(now, None, Phase::Locking), Effect::Lock);
        machine
    }

    /// Whether a task is under way.
    pub fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// Whether it wants to know of every new task file.
    pub fn is_waiting(&self) -> bool {
        let phase = self.current.as_ref().map(|current| &current.phase);
        matches!(phase, Some(Phase::Waiting(_) | Phase::RevertWaiting { .. }))
    }

    /// What to do next, until there is nothing.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Tick`] is due, if ever.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let current = self.current.as_ref()?;
        let phase = match &current.phase {
            Phase::Waiting(waiting) => Some(waiting.deadline.min(waiting.moved + SIGNAL_AGAIN)),
            Phase::UndoLater { at, .. } => Some(*at),
            Phase::RevertWaiting { deadline, .. } => Some(*deadline),
            _ => None,
        };
        phase.into_iter().chain(current.tell).min()
    }

    /// Takes in what has happened. An answer that the phase does not wait for changes nothing.
    pub fn handle(&mut self, now: Duration, input: Input) {
        match input {
            Input::Order(order) => return self.order(now, Rc::new(*order)),
            Input::Stop => {
                self.stopping = true;
                self.next = None;
                if self.current.is_none() {
                    self.effects.push_back(Effect::Exit);
                }
                return;
            }
            _ => {}
        }
        let Some(mut current) = self.current.take() else { return };
        if matches!(input, Input::Tick) && current.tell.take_if(|at| now >= *at).is_some() {
            self.effects.push_back(Effect::Report(current.report.clone()));
        }
        let phase = std::mem::replace(&mut current.phase, Phase::Locking);
        match (phase, input) {
            (Phase::Locking, Input::Locked(Ok(Some(begun)))) => self.recover(current, begun),
            (Phase::Locking, Input::Locked(Ok(None))) => self.leave(now),
            (Phase::Locking, Input::Locked(Err(reason))) => {
                tracing::error!(%reason, "an unfinished task cannot be looked for");
                self.leave(now);
            }
            (Phase::Checking, Input::Checked(result)) => self.checked(now, current, result),
            (Phase::Planning, Input::Planned(Ok(plan))) => {
                current.plan = plan;
                let needs_proxy = current.plan.reload.is_some() || !current.plan.lines.is_empty();
                if needs_proxy {
                    self.go(current, Phase::Guarding { since: now }, Effect::Guard);
                } else {
                    self.begin(current);
                }
            }
            (Phase::Guarding { since }, Input::Guarded(Ok(_))) => {
                current.guard = now - since;
                self.begin(current);
            }
            (Phase::Planning, Input::Planned(Err(reason))) | (Phase::Guarding { .. }, Input::Guarded(Err(reason))) => {
                self.answer_failed(now, current, reason);
            }
            (Phase::Beginning, Input::Began(Ok(()))) => {
                current.kept = true;
                self.go(current, Phase::Writing, Effect::Write);
            }
            (Phase::Beginning, Input::Began(Err(reason))) if current.kept => {
                // Going on by reload; the journal still names the task, in its former way.
                let touched = current.touched();
                self.undo(current, reason, touched);
            }
            (Phase::Beginning, Input::Began(Err(reason))) => {
                current.begun = None;
                self.answer_failed(now, current, reason);
            }
            (Phase::Writing, Input::Written(Ok(()))) => self.written(now, current),
            (Phase::Writing, Input::Written(Err(reason))) | (Phase::Testing, Input::Tested(Err(reason))) => {
                self.withdraw(current, reason);
            }
            (Phase::Testing, Input::Tested(Ok(()))) => self.signal(now, current, Wake::Reload),
            (Phase::Signalling { since }, Input::Signalled(Ok(()))) => {
                current.report.timings.guard_us = micros(current.guard + (now - since));
                current.signalled = true;
                self.settle(current, Some(now));
            }
            (Phase::Settling { signalled }, Input::Settled(result)) => self.settled(now, current, signalled, result),
            (Phase::Signalling { .. }, Input::Signalled(Err(reason))) => self.withdraw(current, reason),
            (Phase::Waiting(waiting), Input::Looked(Ok(lines))) => self.looked(now, current, waiting, lines),
            (Phase::Waiting(mut waiting), Input::MasterGone) if !waiting.gone => {
                waiting.gone = true;
                self.go(current, Phase::Waiting(waiting), Effect::Look);
            }
            (Phase::Waiting(waiting), Input::Looked(Err(reason))) if waiting.gone => self.withdraw(current, reason),
            (Phase::Waiting(waiting), Input::Signalled(Err(reason))) => {
                // Signalling again has failed: the master is gone, or is not ours any more.
                tracing::warn!(%reason, "the master cannot be signalled again");
                self.go(current, Phase::Waiting(Waiting { gone: true, ..waiting }), Effect::Look);
            }
            (Phase::Waiting(waiting), Input::Tick) => self.tick(now, current, waiting),
            (Phase::Withdrawing { reason }, Input::Withdrawn(found)) => self.withdrawn(now, current, reason, found),
            (Phase::Undoing { reason, revert }, Input::Undone(Ok(()))) => {
                if revert {
                    self.revert(current, reason);
                } else {
                    self.end_failed(now, current, reason, true);
                }
            }
            (Phase::Undoing { reason, revert }, Input::Undone(Err(why))) => {
                let at = now + SIGNAL_AGAIN;
                let first = format!("{reason}; the files are not restored yet: {why}");
                self.effects.push_back(Effect::Report(current.failed(now, first)));
                current.phase = Phase::UndoLater { at, reason, revert };
                self.current = Some(current);
            }
            (Phase::UndoLater { at, reason, revert }, Input::Tick) if now >= at => {
                self.go(current, Phase::Undoing { reason, revert }, Effect::Undo);
            }
            (Phase::RevertBeginning { reason }, Input::Began(_)) => {
                // Journalled or not, the way is the same; without the entry a restart only undoes the task once more.
                self.go(current, Phase::RevertWriting { reason }, Effect::Write);
            }
            (Phase::RevertWriting { reason }, Input::Written(Ok(()))) => {
                self.go(current, Phase::RevertSignalling { reason }, Effect::Signal(Wake::Reload));
            }
            (Phase::RevertWriting { reason }, Input::Written(Err(why))) => {
                self.end_failed(
                    now,
                    current,
                    format!("{reason}; the restored files could not be reloaded: {why}"),
                    false,
                );
            }
            (Phase::RevertSignalling { reason }, Input::Signalled(Ok(()))) => {
                self.go(current, Phase::RevertWaiting { reason, deadline: now + REVERT }, Effect::Look);
            }
            // No master: the next one starts from the restored files.
            (Phase::RevertSignalling { reason }, Input::Signalled(Err(_)))
            | (Phase::RevertWaiting { reason, .. }, Input::MasterGone) => {
                self.take_back_revert(&current, &reason);
                self.end_failed(now, current, reason, true);
            }
            (Phase::RevertWaiting { reason, deadline }, Input::Looked(Ok(lines))) => {
                let verdict = current.mine(&lines).first().map(|line| (line.status, line.reason.clone()));
                match verdict {
                    Some((Status::Done, _)) => {
                        let reason = format!("{reason}; the former configuration was reloaded");
                        self.end_failed(now, current, reason, true);
                    }
                    Some((Status::Failed, why)) => {
                        let why = why.unwrap_or_default();
                        let reason = format!("{reason}; the reload of the former configuration failed: {why}");
                        self.end_failed(now, current, reason, false);
                    }
                    _ => {
                        current.phase = Phase::RevertWaiting { reason, deadline };
                        self.current = Some(current);
                    }
                }
            }
            (Phase::RevertWaiting { reason, deadline }, Input::Tick) if now >= deadline => {
                self.take_back_revert(&current, &reason);
                let reason = format!("{reason}; the master did not reload the former configuration in time");
                self.end_failed(now, current, reason, false);
            }
            (phase, _) => {
                current.phase = phase;
                self.current = Some(current);
            }
        }
    }

    fn order(&mut self, now: Duration, order: Rc<Order>) {
        let id = Some(&order.id);
        let is = |other: Option<&Rc<Order>>| other.map(|other| &other.id) == id;
        let recovering = self.current.as_ref().and_then(|c| c.begun.as_ref()).map(|begun| &begun.id) == id;
        if self.stopping || is(self.next.as_ref()) || recovering {
            return;
        }
        if self.current.as_ref().is_some_and(|current| is(current.order.as_ref())) {
            return;
        }
        if self.current.is_none() {
            return self.start_order(now, order);
        }
        if let Some(replaced) = self.next.replace(order) {
            let current = Current::new(now, Some(replaced), Phase::Checking);
            let report = current.failed(now, "replaced by a newer task before it began".into());
            self.effects.push_back(Effect::Report(report));
        }
    }

    fn start_order(&mut self, now: Duration, order: Rc<Order>) {
        let current = Current::new(now, Some(Rc::clone(&order)), Phase::Checking);
        self.start(current, Effect::Check(order));
    }

    fn start(&mut self, current: Current, effect: Effect) {
        self.current = Some(current);
        self.effects.push_back(effect);
    }

    fn go(&mut self, mut current: Current, phase: Phase, effect: Effect) {
        current.phase = phase;
        self.start(current, effect);
    }

    /// The task is over: the lock goes back, the next one begins.
    fn leave(&mut self, now: Duration) {
        self.effects.push_back(Effect::Unlock);
        self.current = None;
        if self.stopping {
            self.effects.push_back(Effect::Exit);
        } else if let Some(order) = self.next.take() {
            self.start_order(now, order);
        }
    }

    fn checked(&mut self, now: Duration, mut current: Current, result: Result<Standing, String>) {
        let standing = match result {
            Ok(standing) => standing,
            Err(reason) => return self.refuse(now, current, reason),
        };
        if let Some(begun) = standing.in_flight {
            // Another process was killed in the middle of its task: that one first.
            self.next = self.next.take().or(current.order.take());
            return self.recover(current, begun);
        }
        current.last_task = standing.last_task;
        current.task_timeout = standing.task_timeout;
        match standing.checked {
            Checked::Repeated(report) => {
                self.effects.push_back(Effect::Report(*report));
                self.leave(now);
            }
            Checked::Refused(reason) => self.refuse(now, current, reason),
            Checked::Nothing { changes } => {
                current.report.mode = Some(Mode::Nothing);
                let report = current.finished(now, Status::Done);
                if let Some((step, digest)) = current.step() {
                    let (epoch, revision) = (step.epoch, step.to);
                    let answer = Answer { digest, report: report.clone() };
                    self.effects.push_back(Effect::Record(Entry::Adopted { epoch, revision, changes, answer }));
                }
                self.effects.push_back(Effect::Report(report));
                self.leave(now);
            }
            Checked::Run { reload, disk, changes } => {
                let Some(order) = current.order.clone() else { return self.leave(now) };
                current.changes.clone_from(&changes);
                let stage = Effect::Stage { order: Rc::clone(&order), disk: disk.clone(), changes };
                self.effects.push_back(stage);
                self.go(current, Phase::Planning, Effect::Plan { order, disk, reload });
            }
        }
    }

    /// Ends an order that has not begun, without a record.
    fn refuse(&mut self, now: Duration, current: Current, reason: String) {
        self.effects.push_back(Effect::Report(current.failed(now, reason)));
        self.leave(now);
    }

    /// Ends an order that has changed nothing, for good.
    fn answer_failed(&mut self, now: Duration, current: Current, reason: String) {
        let report = current.failed(now, reason);
        if let Some((_, digest)) = current.step() {
            self.effects.push_back(Effect::Record(Entry::Answered(Answer { digest, report: report.clone() })));
        }
        self.effects.push_back(Effect::Report(report));
        self.leave(now);
    }

    /// Numbers the task's lines and journals it.
    fn begin(&mut self, mut current: Current) {
        let begun = current.next_begun(None);
        current.report.local_task_id = begun.tasks.last().copied().unwrap_or_default();
        current.report.mode = Some(match (&begun.reload, begun.tasks.is_empty()) {
            (Some(_), _) => Mode::Reload,
            (None, false) => Mode::InPlace,
            (None, true) => Mode::Nothing,
        });
        current.report.reason = begun.reload.clone().unwrap_or_default();
        current.report.status = Status::Init;
        current.signalled = false;
        current.begun = Some(begun.clone());
        // On the second way the files are there already.
        let (lines, staged) = (current.lines(), !current.kept);
        self.go(current, Phase::Beginning, Effect::Begin { begun, lines, staged });
    }

    fn written(&mut self, now: Duration, mut current: Current) {
        if current.report.timings.files_us == 0 {
            current.report.timings.files_us = micros((now - current.since).saturating_sub(current.guard));
        }
        let Some(begun) = &current.begun else { return self.leave(now) };
        if begun.tasks.is_empty() {
            return self.settle(current, None);
        }
        let by_reload = begun.reload.is_some();
        current.moved_on(now);
        if by_reload {
            self.go(current, Phase::Testing, Effect::Test);
        } else {
            self.signal(now, current, Wake::InPlace);
        }
    }

    fn signal(&mut self, now: Duration, current: Current, wake: Wake) {
        self.go(current, Phase::Signalling { since: now }, Effect::Signal(wake));
    }
}

#[cfg(test)]
mod tests;
