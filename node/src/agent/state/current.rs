//! The task under way: what is known of it, and in which phase it is.

use std::rc::Rc;
use std::time::Duration;

use dysvr_proto::id::{RolloutId, TaskId};
use dysvr_proto::status::Status;

use super::super::ledger::{Begun, BegunStep, FileChanges};
use super::super::managed::ContentDigest;
use super::super::order::{Order, Origin};
use super::super::plan::{Plan, PlannedLine};
use super::super::report::{Mode, Report, Timings, micros};
use super::{MARGIN, NumberedLine, PROGRESS, Wake};
use crate::task::{Mode as LineMode, TaskLine};

#[derive(Debug)]
pub(super) struct Current {
    /// `None` when the task was found unfinished.
    pub(super) order: Option<Rc<Order>>,
    /// When the order came.
    pub(super) since: Duration,
    pub(super) report: Report,
    /// When to tell how far it is, if that is to be told.
    pub(super) tell: Option<Duration>,
    pub(super) phase: Phase,
    /// What becomes different from what the ledger's revision left.
    pub(super) changes: FileChanges,
    pub(super) plan: Plan,
    pub(super) begun: Option<Begun>,
    /// The former contents are kept and the journal names the task.
    pub(super) kept: bool,
    /// Whether the names of its files could be made durable, once that was tried. If not, no verdict makes it done.
    pub(super) settled: Option<bool>,
    /// The master may have begun with the present lines.
    pub(super) signalled: bool,
    pub(super) last_task: TaskId,
    pub(super) task_timeout: Duration,
    /// Time spent in the guard, before the files are written.
    pub(super) guard: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    Locking,
    Checking,
    Planning,
    Guarding {
        since: Duration,
    },
    Beginning,
    Writing,
    Testing,
    Signalling {
        since: Duration,
    },
    /// With the time of the signal; without it the task is done when its files are durable.
    Settling {
        signalled: Option<Duration>,
    },
    Waiting(Waiting),
    Withdrawing {
        reason: String,
    },
    Undoing {
        reason: String,
        revert: bool,
    },
    UndoLater {
        at: Duration,
        reason: String,
        revert: bool,
    },
    // The steps of the reload of restored files.
    RevertBeginning {
        reason: String,
    },
    RevertWriting {
        reason: String,
    },
    RevertSignalling {
        reason: String,
    },
    RevertWaiting {
        reason: String,
        deadline: Duration,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    pub(super) signalled: Duration,
    /// When the last thing moved or was signalled.
    pub(super) moved: Duration,
    pub(super) deadline: Duration,
    pub(super) ready: Option<Duration>,
    pub(super) loading: Option<Duration>,
    pub(super) seen: Vec<Status>,
    /// The master has ended.
    pub(super) gone: bool,
    /// Found unfinished: whether the signal was sent is not known.
    pub(super) found: bool,
}

impl Waiting {
    pub(super) fn new(now: Duration, deadline: Duration) -> Self {
        let seen = Vec::new();
        Self { signalled: now, moved: now, deadline, ready: None, loading: None, seen, gone: false, found: false }
    }
}

impl Current {
    pub(super) fn new(now: Duration, order: Option<Rc<Order>>, phase: Phase) -> Self {
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
            tell: None,
            phase,
            changes: FileChanges::new(),
            plan: Plan::default(),
            begun: None,
            kept: false,
            settled: None,
            signalled: false,
            last_task: TaskId(0),
            task_timeout: Duration::ZERO,
            guard: Duration::ZERO,
        }
    }

    /// Becomes the task that an earlier run began.
    pub(super) fn take_over(&mut self, begun: &Begun) {
        self.report.id.clone_from(&begun.id);
        if let Some(step) = &begun.step {
            (self.report.rollout, self.report.to_revision) = (step.rollout, step.to);
        }
        self.report.mode = Some(if begun.reload.is_some() { Mode::Reload } else { Mode::InPlace });
        self.report.reason = begun.reload.clone().unwrap_or_default();
        self.report.local_task_id = begun.tasks.last().copied().unwrap_or_default();
        self.last_task = self.last_task.max(self.report.local_task_id);
        self.changes.clone_from(&begun.changes);
        (self.kept, self.signalled) = (true, true);
        self.order = None;
        self.begun = Some(begun.clone());
    }

    /// The revision that the order leads to, with the digest of its files.
    pub(super) fn step(&self) -> Option<(BegunStep, ContentDigest)> {
        let Origin::Controller(step) = &self.order.as_ref()?.origin else { return None };
        let digest = ContentDigest(step.digest);
        Some((BegunStep { epoch: step.epoch, to: step.to, digest, rollout: step.rollout }, digest))
    }

    /// The journal's entry for the plan, or for the reload of restored files.
    pub(super) fn next_begun(&mut self, reverting: Option<String>) -> Begun {
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
            former: None,
            touched: self.touched(),
            reverting,
        }
    }

    /// The lines of the task as it has begun.
    pub(super) fn lines(&self) -> Vec<NumberedLine> {
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
    pub(super) fn mine(&self, lines: &[TaskLine]) -> Vec<TaskLine> {
        let tasks = self.begun.as_ref().map(|begun| begun.tasks.as_slice()).unwrap_or_default();
        lines.iter().filter(|line| tasks.contains(&line.task_id)).cloned().collect()
    }

    /// It is further than was told.
    pub(super) fn moved_on(&mut self, now: Duration) {
        self.tell.get_or_insert(now + PROGRESS);
    }

    pub(super) fn wake(&self) -> Wake {
        match self.begun.as_ref().is_some_and(|begun| begun.reload.is_some()) {
            true => Wake::Reload,
            false => Wake::InPlace,
        }
    }

    pub(super) fn touched(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.touched)
    }

    /// How long to wait for the verdict: the master grants its workers the timeout twice (prepare, commit).
    pub(super) fn patience(&self) -> Duration {
        let longest = 2 * self.task_timeout + MARGIN;
        self.order.as_ref().and_then(|order| order.deadline).map_or(longest, |deadline| deadline.min(longest))
    }

    pub(super) fn failed(&self, now: Duration, reason: String) -> Report {
        Report { reason, ..self.finished(now, Status::Failed) }
    }

    pub(super) fn finished(&self, now: Duration, status: Status) -> Report {
        let mut report = Report { status, ..self.report.clone() };
        report.timings.total_us = micros(now - self.since);
        report
    }
}
