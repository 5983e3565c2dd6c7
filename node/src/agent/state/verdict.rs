//! The second half of a task's life: waiting for the master's verdict, and what follows from it.

use std::time::Duration;

use dysvr_proto::status::Status;

use super::super::ledger::{Begun, Entry};
use super::super::report::{Report, micros};
use super::current::{Current, Phase, Waiting};
use super::{Effect, Machine, NEEDS_RELOAD, RECOVERY, SIGNAL_AGAIN, Wake};
use crate::task::TaskLine;

impl Machine {
    /// With the time of the signal, waits for the verdict next; without it the task is done.
    pub(super) fn settle(&mut self, current: Current, signalled: Option<Duration>) {
        let changes = current.begun.as_ref().map(|begun| begun.changes.clone()).unwrap_or_default();
        let found = current.order.is_none();
        self.go(current, Phase::Settling { signalled }, Effect::Settle { changes, found });
    }

    pub(super) fn settled(
        &mut self,
        now: Duration,
        mut current: Current,
        signalled: Option<Duration>,
        result: Result<(), String>,
    ) {
        current.settled = Some(result.is_ok());
        match (result, signalled) {
            (Ok(()), Some(signalled)) => {
                let waiting = Waiting::new(signalled, signalled + current.patience());
                self.go(current, Phase::Waiting(waiting), Effect::Look);
            }
            (Ok(()), None) => self.end_done(now, current),
            // The lines may be done by now, but are not to be taken up any more.
            (Err(reason), _) => self.withdraw(current, reason),
        }
    }

    pub(super) fn looked(&mut self, now: Duration, mut current: Current, mut waiting: Waiting, lines: Vec<TaskLine>) {
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
            current.moved_on(now);
        }
        current.phase = Phase::Waiting(waiting);
        self.current = Some(current);
    }

    pub(super) fn tick(&mut self, now: Duration, current: Current, mut waiting: Waiting) {
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

    pub(super) fn stay(&mut self, mut current: Current, waiting: Waiting) {
        current.phase = Phase::Waiting(waiting);
        self.current = Some(current);
    }

    /// All lines have their verdict.
    pub(super) fn conclude(
        &mut self,
        now: Duration,
        mut current: Current,
        waiting: Option<&Waiting>,
        mine: Vec<TaskLine>,
    ) {
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
        let Some(failed) = failed else {
            return if current.settled == Some(true) {
                self.end_done(now, current)
            } else {
                self.settle(current, None)
            };
        };
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
    pub(super) fn withdraw(&mut self, mut current: Current, reason: String) {
        current.tell = None;
        let tasks = current.begun.as_ref().map(|begun| begun.tasks.clone()).unwrap_or_default();
        let effect = Effect::Withdraw { tasks, reason: reason.clone() };
        self.go(current, Phase::Withdrawing { reason }, effect);
    }

    pub(super) fn withdrawn(
        &mut self,
        now: Duration,
        current: Current,
        reason: String,
        found: Result<Vec<TaskLine>, String>,
    ) {
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
        let counts = current.settled != Some(false);
        if complete && !mine.is_empty() && counts && mine.iter().all(|line| line.status.is_final()) {
            // The verdict came in the last moment.
            return self.conclude(now, current, None, mine);
        }
        let failed = mine.into_iter().find(|line| line.status == Status::Failed && counts);
        let reason = failed.and_then(|line| line.reason).unwrap_or(reason);
        self.undo(current, reason, revert);
    }

    pub(super) fn undo(&mut self, mut current: Current, reason: String, revert: bool) {
        current.tell = None;
        self.go(current, Phase::Undoing { reason, revert }, Effect::Undo);
    }

    /// The files are restored, but something may have taken effect: the proxy reloads them.
    pub(super) fn revert(&mut self, mut current: Current, reason: String) {
        let begun = current.next_begun(Some(reason.clone()));
        current.begun = Some(begun.clone());
        let lines = current.lines();
        self.go(current, Phase::RevertBeginning { reason }, Effect::Begin { begun, lines, staged: false });
    }

    /// Leaves no open line of a reload that will not be waited for. What is found in it changes nothing any more.
    pub(super) fn take_back_revert(&mut self, current: &Current, reason: &str) {
        let tasks = current.begun.as_ref().map(|begun| begun.tasks.clone()).unwrap_or_default();
        self.effects.push_back(Effect::Withdraw { tasks, reason: reason.to_owned() });
    }

    pub(super) fn recover(&mut self, mut current: Current, begun: Begun) {
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

    pub(super) fn end_done(&mut self, now: Duration, current: Current) {
        self.end(now, current.finished(now, Status::Done), true);
    }

    pub(super) fn end_failed(&mut self, now: Duration, current: Current, reason: String, served_known: bool) {
        self.end(now, current.failed(now, reason), served_known);
    }

    pub(super) fn end(&mut self, now: Duration, report: Report, served_known: bool) {
        self.effects.push_back(Effect::Record(Entry::End { report: report.clone(), served_known }));
        self.effects.push_back(Effect::Report(report));
        self.leave(now);
    }
}
