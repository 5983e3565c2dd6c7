//! The life of a task, as a pure machine: what has happened comes in with the time, what must be done comes out.
//!
//! ```text
//! order → check → plan → guard → begin (journal) → write → [test] → signal → wait ──D──▶ end D
//!            │       │       │        │               │        │         │     ├─F─▶ undo ─▶ end F
//!            └───────┴───────┴────────┴── end F ◀─ undo ◀──────┴─────────┘     └─ late, master gone:
//!                                                                withdraw the line ─▶ undo ─▶ reload ─▶ end F
//! ```
//!
//! Before `begin` nothing has changed, so a task that ends there is only answered. From `begin` on the journal names the
//! task, and a restart at any moment goes on from what the task file says. A line is withdrawn (set to `F`) before the
//! files are restored, so that no master acts on restored files. When something may have taken effect although the task
//! failed (another line of it is done, the master died or fell silent) the restored files are reloaded.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use dysvr_proto::id::{Revision, RolloutId, TaskId};
use dysvr_proto::status::Status;

use super::check::Checked;
use super::ledger::{Answer, Begun, BegunStep, Entry, FileChanges};
use super::managed::ContentDigest;
use super::order::{Order, Origin};
use super::plan::{Plan, PlannedLine};
use super::report::{Mode, Report, Timings, micros};
use crate::task::{Mode as LineMode, TaskLine};

/// A signal is a hint: when nothing has moved for so long it is sent again.
pub const SIGNAL_AGAIN: Duration = Duration::from_secs(1);
/// What the agent grants beyond the time that the master grants its workers.
pub const MARGIN: Duration = Duration::from_secs(2);
/// How long a task that was under way at a restart may still take: its verdict is due within 2 s.
pub const RECOVERY: Duration = Duration::from_millis(1500);
/// How long the reload of restored files may take.
const REVERT: Duration = Duration::from_secs(10);
/// What the master's reason begins with when a reload can do what the in-place way cannot.
pub const NEEDS_RELOAD: &str = "needs a reload: ";

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// A new order.
    Order(Box<Order>),
    /// Answer to [`Effect::Lock`]: the task that the journal names.
    Locked(Result<Option<Begun>, String>),
    /// Answer to [`Effect::Check`].
    Checked(Result<Standing, String>),
    /// Answer to [`Effect::Plan`].
    Planned(Result<Plan, String>),
    /// Answer to [`Effect::Guard`]: percent of memory.
    Guarded(Result<u64, String>),
    /// Answer to [`Effect::Begin`].
    Began(Result<(), String>),
    /// Answer to [`Effect::Write`].
    Written(Result<(), String>),
    /// Answer to [`Effect::Test`].
    Tested(Result<(), String>),
    /// Answer to [`Effect::Signal`].
    Signalled(Result<(), String>),
    /// The lines of the task file: answer to [`Effect::Look`], and whenever the file was replaced.
    Looked(Result<Vec<TaskLine>, String>),
    /// Answer to [`Effect::Withdraw`]: the task's lines as they were found.
    Withdrawn(Result<Vec<TaskLine>, String>),
    /// The master that was signalled has ended.
    MasterGone,
    /// Answer to [`Effect::Undo`].
    Undone(Result<(), String>),
    /// Only the clock has moved.
    Tick,
    /// End what is under way, begin nothing more.
    Stop,
}

/// What an order is checked against, and the result.
#[derive(Debug)]
pub struct Standing {
    /// The result.
    pub checked: Checked,
    /// The highest number that a task line has had.
    pub last_task: TaskId,
    /// A task that another process left unfinished.
    pub in_flight: Option<Begun>,
    /// How long workers may take for a task.
    pub task_timeout: Duration,
}

/// Which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// SIGRTMIN+9: read the task file.
    InPlace,
    /// SIGHUP: the full reload.
    Reload,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Take the lock of the state directory, to go on with an unfinished task.
    Lock,
    /// Take the lock, read journal and disk, check the order.
    Check(Rc<Order>),
    /// Find out what the changes mean to the proxy.
    Plan {
        /// The order.
        order: Rc<Order>,
        /// The files that it changes.
        disk: FileChanges,
        /// Why it goes by reload whatever it means.
        reload: Option<String>,
    },
    /// Read the memory figures.
    Guard,
    /// Keep the former contents (unless the task goes on by another way: they are kept already), then journal it.
    Begin {
        /// The entry.
        begun: Begun,
        /// Whether the former contents are still to be kept.
        keep: bool,
    },
    /// Write the order's files (if there is one), the configuration files of the lines, then the task file.
    Write {
        /// Whose files.
        order: Option<Rc<Order>>,
        /// The files of the order that change.
        disk: FileChanges,
        /// The lines.
        lines: Vec<NumberedLine>,
    },
    /// `dysvr-proxy -t`.
    Test,
    /// Signal the master.
    Signal(Wake),
    /// Read the task file.
    Look,
    /// Set the lines of the task that have no verdict to `F`.
    Withdraw {
        /// Which.
        tasks: Vec<TaskId>,
        /// Why.
        reason: String,
    },
    /// Restore the former contents.
    Undo,
    /// Write the entry down.
    Record(Entry),
    /// Tell whoever gave the order.
    Report(Report),
    /// Give the lock back.
    Unlock,
    /// All is done that [`Input::Stop`] asked for.
    Exit,
}

/// A task line to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedLine {
    /// Its number.
    pub task_id: TaskId,
    /// What it says.
    pub line: PlannedLine,
    /// By which way.
    pub mode: LineMode,
    /// The fleet's revision that it belongs to.
    pub revision: Option<Revision>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Machine {
    current: Option<Current>,
    next: Option<Rc<Order>>,
    stopping: bool,
    effects: VecDeque<Effect>,
}

#[derive(Debug)]
struct Current {
    /// `None` when the task was found unfinished.
    order: Option<Rc<Order>>,
    /// When the order came.
    since: Duration,
    report: Report,
    phase: Phase,
    /// The files that the order changes on disk.
    disk: FileChanges,
    /// What becomes different from what the ledger's revision left.
    changes: FileChanges,
    plan: Plan,
    begun: Option<Begun>,
    /// The former contents are kept and the journal names the task.
    kept: bool,
    /// The order's files are written.
    written: bool,
    /// The master may have begun with the present lines.
    signalled: bool,
    last_task: TaskId,
    task_timeout: Duration,
    /// Time spent in the guard, before the files are written.
    guard: Duration,
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Locking,
    Checking,
    Planning,
    Guarding { since: Duration },
    Beginning,
    Writing,
    Testing,
    Signalling { since: Duration },
    Waiting(Waiting),
    Withdrawing { reason: String },
    Undoing { reason: String, revert: bool },
    UndoLater { at: Duration, reason: String, revert: bool },
    // The steps of the reload of restored files.
    RevertBeginning { reason: String },
    RevertWriting { reason: String },
    RevertSignalling { reason: String },
    RevertWaiting { reason: String, deadline: Duration },
}

#[derive(Clone, Debug, PartialEq)]
struct Waiting {
    signalled: Duration,
    /// When the last thing moved or was signalled.
    moved: Duration,
    deadline: Duration,
    ready: Option<Duration>,
    loading: Option<Duration>,
    seen: Vec<Status>,
    /// The master has ended.
    gone: bool,
    /// Found unfinished: whether the signal was sent is not known.
    found: bool,
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
        match &self.current.as_ref()?.phase {
            Phase::Waiting(waiting) => Some(waiting.deadline.min(waiting.moved + SIGNAL_AGAIN)),
            Phase::UndoLater { at, .. } => Some(*at),
            Phase::RevertWaiting { deadline, .. } => Some(*deadline),
            _ => None,
        }
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
                self.write(current);
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
                let waiting = Waiting::new(now, now + current.patience());
                self.go(current, Phase::Waiting(waiting), Effect::Look);
            }
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
                let lines = current.lines();
                let write = Effect::Write { order: None, disk: FileChanges::new(), lines };
                self.go(current, Phase::RevertWriting { reason }, write);
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
                (current.disk, current.changes) = (disk.clone(), changes);
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
        let keep = !current.kept;
        self.go(current, Phase::Beginning, Effect::Begin { begun, keep });
    }

    fn write(&mut self, mut current: Current) {
        // On the second way the files are there already.
        let (order, disk) = match current.written {
            true => (None, FileChanges::new()),
            false => (current.order.clone(), current.disk.clone()),
        };
        current.written = true;
        let lines = current.lines();
        self.go(current, Phase::Writing, Effect::Write { order, disk, lines });
    }

    fn written(&mut self, now: Duration, mut current: Current) {
        if current.report.timings.files_us == 0 {
            current.report.timings.files_us = micros((now - current.since).saturating_sub(current.guard));
        }
        let Some(begun) = &current.begun else { return self.leave(now) };
        if begun.tasks.is_empty() {
            return self.end_done(now, current);
        }
        let reload = begun.reload.is_some();
        self.effects.push_back(Effect::Report(current.report.clone()));
        if reload {
            self.go(current, Phase::Testing, Effect::Test);
        } else {
            self.signal(now, current, Wake::InPlace);
        }
    }

    fn signal(&mut self, now: Duration, current: Current, wake: Wake) {
        self.go(current, Phase::Signalling { since: now }, Effect::Signal(wake));
    }

    fn looked(&mut self, now: Duration, mut current: Current, mut waiting: Waiting, lines: Vec<TaskLine>) {
        let mine = current.mine(&lines);
        if mine.len() < current.begun.as_ref().map_or(0, |begun| begun.tasks.len()) {
            if waiting.found && mine.is_empty() {
                // It was never asked for; or the task file was lost, and the proxy has started since from whatever the
                // files were.
                let revert = current.touched() || lines.is_empty();
                return self.undo(current, "interrupted before it was signalled".into(), revert);
            }
            return self.undo(current, "the task line vanished from the task file".into(), true);
        }
        let statuses: Vec<Status> = mine.iter().map(|line| line.status).collect();
        if statuses != waiting.seen {
            waiting.moved = now;
            if statuses.iter().any(|status| *status != Status::Init) {
                waiting.ready.get_or_insert(now);
            }
            if statuses.iter().any(|status| matches!(status, Status::Loading | Status::Done)) {
                waiting.loading.get_or_insert(now);
            }
            waiting.seen.clone_from(&statuses);
        }
        if statuses.iter().all(|status| status.is_final()) {
            return self.conclude(now, current, Some(&waiting), mine);
        }
        if waiting.gone {
            return self.withdraw(current, "the master ended during the task".into());
        }
        if std::mem::take(&mut waiting.found) {
            let wake = current.wake();
            waiting.moved = now;
            self.go(current, Phase::Waiting(waiting), Effect::Signal(wake));
            self.effects.push_back(Effect::Look);
            return;
        }
        let progress = statuses.iter().copied().filter(|status| !status.is_final()).max_by_key(|status| match status {
            Status::Loading => 2,
            Status::Ready => 1,
            _ => 0,
        });
        if let Some(status) = progress
            && status != current.report.status
        {
            current.report.status = status;
            self.effects.push_back(Effect::Report(current.report.clone()));
        }
        current.phase = Phase::Waiting(waiting);
        self.current = Some(current);
    }

    fn tick(&mut self, now: Duration, current: Current, mut waiting: Waiting) {
        if now >= waiting.deadline {
            let took = (now - waiting.signalled).as_millis();
            return self.withdraw(current, format!("no verdict of the master within {took} ms"));
        }
        if now < waiting.moved + SIGNAL_AGAIN {
            return self.stay(current, waiting);
        }
        if waiting.seen.contains(&Status::Failed) {
            // The master has left the lines behind the failed one alone.
            return self.withdraw(current, "an earlier line of the task failed".into());
        }
        waiting.moved = now;
        if current.wake() == Wake::Reload {
            // A reload that takes long is under way; a second one would only begin it anew.
            return self.stay(current, waiting);
        }
        self.go(current, Phase::Waiting(waiting), Effect::Signal(Wake::InPlace));
        self.effects.push_back(Effect::Look);
    }

    fn stay(&mut self, mut current: Current, waiting: Waiting) {
        current.phase = Phase::Waiting(waiting);
        self.current = Some(current);
    }

    /// All lines have their verdict.
    fn conclude(&mut self, now: Duration, mut current: Current, waiting: Option<&Waiting>, mine: Vec<TaskLine>) {
        for line in &mine {
            current.report.timings.add_line(line.master_us, &line.workers);
        }
        if let Some(waiting) = waiting {
            let ready = waiting.ready.unwrap_or(waiting.signalled);
            let loading = waiting.loading.unwrap_or(ready);
            current.report.timings.ready_us += micros(ready - waiting.signalled);
            current.report.timings.loading_us += micros(loading.saturating_sub(ready));
            current.report.timings.done_us += micros(now - loading.max(ready));
        }
        let failed = mine.iter().find(|line| line.status == Status::Failed);
        let Some(failed) = failed else { return self.end_done(now, current) };
        let reason = failed.reason.clone().unwrap_or_default();
        if let Some(begun) = &mut current.begun {
            begun.touched |= mine.iter().any(|line| line.status == Status::Done);
        }
        if let Some(why) = reason.strip_prefix(NEEDS_RELOAD)
            && current.wake() == Wake::InPlace
            && current.order.is_some()
        {
            current.plan.reload = Some(why.to_owned());
            return self.begin(current);
        }
        let revert = current.touched();
        self.undo(current, reason, revert);
    }

    /// Takes the lines back before anything else is done about a failure.
    fn withdraw(&mut self, current: Current, reason: String) {
        let tasks = current.begun.as_ref().map(|begun| begun.tasks.clone()).unwrap_or_default();
        let effect = Effect::Withdraw { tasks, reason: reason.clone() };
        self.go(current, Phase::Withdrawing { reason }, effect);
    }

    fn withdrawn(&mut self, now: Duration, current: Current, reason: String, found: Result<Vec<TaskLine>, String>) {
        // Who was signalled may be at it, whatever the line says now.
        let revert = current.signalled || current.touched();
        let mine = match found {
            Ok(lines) => current.mine(&lines),
            Err(why) => {
                tracing::error!(%why, "the task line could not be withdrawn");
                Vec::new()
            }
        };
        let complete = mine.len() == current.begun.as_ref().map_or(0, |begun| begun.tasks.len());
        if complete && !mine.is_empty() && mine.iter().all(|line| line.status.is_final()) {
            // The verdict came in the last moment.
            return self.conclude(now, current, None, mine);
        }
        let failed = mine.into_iter().find(|line| line.status == Status::Failed);
        let reason = failed.and_then(|line| line.reason).unwrap_or(reason);
        self.undo(current, reason, revert);
    }

    fn undo(&mut self, current: Current, reason: String, revert: bool) {
        self.go(current, Phase::Undoing { reason, revert }, Effect::Undo);
    }

    /// The files are restored, but something may have taken effect: the proxy reloads them.
    fn revert(&mut self, mut current: Current, reason: String) {
        let begun = current.next_begun(Some(reason.clone()));
        current.begun = Some(begun.clone());
        self.go(current, Phase::RevertBeginning { reason }, Effect::Begin { begun, keep: false });
    }

    /// Leaves no open line of a reload that will not be waited for. What is found in it changes nothing any more.
    fn take_back_revert(&mut self, current: &Current, reason: &str) {
        let tasks = current.begun.as_ref().map(|begun| begun.tasks.clone()).unwrap_or_default();
        self.effects.push_back(Effect::Withdraw { tasks, reason: reason.to_owned() });
    }

    fn recover(&mut self, mut current: Current, begun: Begun) {
        current.take_over(&begun);
        if let Some(reason) = begun.reverting {
            return self.undo(current, reason, true);
        }
        if begun.tasks.is_empty() {
            return self.undo(current, "interrupted while its files were written".into(), begun.touched);
        }
        let since = current.since;
        let waiting = Waiting { found: true, ..Waiting::new(since, since + RECOVERY) };
        self.go(current, Phase::Waiting(waiting), Effect::Look);
    }

    fn end_done(&mut self, now: Duration, current: Current) {
        self.end(now, current.finished(now, Status::Done), true);
    }

    fn end_failed(&mut self, now: Duration, current: Current, reason: String, served_known: bool) {
        self.end(now, current.failed(now, reason), served_known);
    }

    fn end(&mut self, now: Duration, report: Report, served_known: bool) {
        self.effects.push_back(Effect::Record(Entry::End { report: report.clone(), served_known }));
        self.effects.push_back(Effect::Report(report));
        self.leave(now);
    }
}

impl Waiting {
    fn new(now: Duration, deadline: Duration) -> Self {
        let seen = Vec::new();
        Self { signalled: now, moved: now, deadline, ready: None, loading: None, seen, gone: false, found: false }
    }
}

impl Current {
    fn new(now: Duration, order: Option<Rc<Order>>, phase: Phase) -> Self {
        let report = Report {
            id: order.as_ref().map(|order| order.id.clone()).unwrap_or_default(),
            rollout: order.as_ref().map_or(RolloutId(0), |order| order.rollout()),
            to_revision: order.as_ref().and_then(|order| order.to_revision()).unwrap_or_default(),
            status: Status::Init,
            reason: String::new(),
            mode: None,
            local_task_id: TaskId(0),
            timings: Timings::default(),
        };
        Self {
            order,
            since: now,
            report,
            phase,
            disk: FileChanges::new(),
            changes: FileChanges::new(),
            plan: Plan::default(),
            begun: None,
            kept: false,
            written: false,
            signalled: false,
            last_task: TaskId(0),
            task_timeout: Duration::ZERO,
            guard: Duration::ZERO,
        }
    }

    /// Becomes the task that an earlier run began.
    fn take_over(&mut self, begun: &Begun) {
        self.report.id.clone_from(&begun.id);
        if let Some(step) = &begun.step {
            (self.report.rollout, self.report.to_revision) = (step.rollout, step.to);
        }
        self.report.mode = Some(if begun.reload.is_some() { Mode::Reload } else { Mode::InPlace });
        self.report.reason = begun.reload.clone().unwrap_or_default();
        self.report.local_task_id = begun.tasks.last().copied().unwrap_or_default();
        self.last_task = self.last_task.max(self.report.local_task_id);
        self.changes.clone_from(&begun.changes);
        (self.kept, self.written, self.signalled) = (true, true, true);
        self.order = None;
        self.begun = Some(begun.clone());
    }

    /// The revision that the order leads to, with the digest of its files.
    fn step(&self) -> Option<(BegunStep, ContentDigest)> {
        let Origin::Controller(step) = &self.order.as_ref()?.origin else { return None };
        let digest = ContentDigest(step.digest);
        Some((BegunStep { epoch: step.epoch, to: step.to, digest, rollout: step.rollout }, digest))
    }

    /// The journal's entry for the plan, or for the reload of restored files.
    fn next_begun(&mut self, reverting: Option<String>) -> Begun {
        let former = self.begun.as_ref();
        let reload = if reverting.is_some() { Some("undo".to_owned()) } else { self.plan.reload.clone() };
        let count = if reload.is_some() { 1 } else { self.plan.lines.len() };
        let tasks = (0..count)
            .map(|_| {
                self.last_task = self.last_task.next();
                self.last_task
            })
            .collect();
        Begun {
            id: self.report.id.clone(),
            step: former.and_then(|begun| begun.step.clone()).or_else(|| self.step().map(|(step, _)| step)),
            tasks,
            reload,
            changes: self.changes.clone(),
            touched: self.touched(),
            reverting,
        }
    }

    /// The lines of the task as it has begun.
    fn lines(&self) -> Vec<NumberedLine> {
        let Some(begun) = &self.begun else { return Vec::new() };
        let revision = begun.step.as_ref().map(|step| step.to);
        let number = |(&task_id, line): (&TaskId, PlannedLine)| NumberedLine {
            task_id,
            line,
            mode: if begun.reload.is_some() { LineMode::Reload } else { LineMode::InPlace },
            revision,
        };
        let lines = match (&begun.reverting, &begun.reload) {
            (Some(_), _) => vec![Plan::default().merged()],
            (None, Some(_)) => vec![self.plan.merged()],
            (None, None) => self.plan.lines.clone(),
        };
        begun.tasks.iter().zip(lines).map(number).collect()
    }

    /// The lines of the task among those of the file.
    fn mine(&self, lines: &[TaskLine]) -> Vec<TaskLine> {
        let tasks = self.begun.as_ref().map(|begun| begun.tasks.as_slice()).unwrap_or_default();
        lines.iter().filter(|line| tasks.contains(&line.task_id)).cloned().collect()
    }

    fn wake(&self) -> Wake {
        match self.begun.as_ref().is_some_and(|begun| begun.reload.is_some()) {
            true => Wake::Reload,
            false => Wake::InPlace,
        }
    }

    fn touched(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.touched)
    }

    /// How long to wait for the verdict: the master grants its workers the timeout twice (prepare, commit).
    fn patience(&self) -> Duration {
        let longest = 2 * self.task_timeout + MARGIN;
        self.order.as_ref().and_then(|order| order.deadline).map_or(longest, |deadline| deadline.min(longest))
    }

    fn failed(&self, now: Duration, reason: String) -> Report {
        Report { reason, ..self.finished(now, Status::Failed) }
    }

    fn finished(&self, now: Duration, status: Status) -> Report {
        let mut report = Report { status, ..self.report.clone() };
        report.timings.total_us = micros(now - self.since);
        report
    }
}

#[cfg(test)]
mod tests;
