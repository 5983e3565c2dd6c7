//! One node as the leader knows it, and what to do with it next. Desired, sent, observed are kept apart; only what the
//! node reports moves what is observed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dysvr_proto::digest::Digest;
use dysvr_proto::id::{Epoch, Revision, RolloutId};
use dysvr_proto::wire::fleet;
use dysvr_proto::wire::operator::TaskRecord;
use tokio::sync::Notify;

use crate::rollout::Time;

/// Task reports that are kept per node.
const REPORTS: usize = 16;

/// The pause before a failed task is tried again outside a rollout: doubled with each failure, milliseconds.
const RETRY_MS: u64 = 5_000;

/// The longest such pause, milliseconds.
const RETRY_MOST_MS: u64 = 300_000;

/// A node.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// As it said.
    pub labels: BTreeMap<String, String>,
    /// As it said.
    pub agent_version: String,
    /// When it was last heard of, milliseconds since 1970.
    pub seen_unix_ms: i64,
    /// Its stream, while there is one.
    pub link: Option<Link>,
    /// What it last said to have.
    pub observed: Option<fleet::Observed>,
    /// Whether it has said so since somebody looked.
    pub fresh: bool,
    /// What the digest of its revision should be.
    pub known: Known,
    /// What its proxy had under quarantine when nothing was asked of the node: no rollout is to blame for that.
    pub tolerated: Vec<String>,
    /// The task that was sent and has no verdict.
    pub in_flight: Option<InFlight>,
    /// The last failure, while what it should run is still the same.
    pub nack: Option<Nack>,
    /// What an operator decided about its drift.
    pub choice: Choice,
    /// The newest reports, oldest first, one per task.
    pub reports: VecDeque<TaskRecord>,
}

/// An open stream.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Differs for each stream of this controller.
    pub serial: u64,
    /// The start of the agent.
    pub boot: u64,
    /// Tells its loop to look again.
    pub wake: Arc<Notify>,
    /// Tells its loop that another stream took its place.
    pub evict: Arc<Notify>,
}

/// The digest that belongs to the revision that a node names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Known {
    /// The store was not asked yet.
    #[default]
    Unasked,
    /// There is no such revision.
    No,
    /// It is this one.
    Yes(Digest),
}

/// A task without a verdict.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    /// Its id.
    pub id: String,
    /// Where it goes.
    pub to: Revision,
    /// When it is given up.
    pub deadline: Time,
}

/// A failed task.
#[derive(Clone, Debug)]
pub(super) struct Nack {
    /// Where it was to go.
    pub to: Revision,
    /// Why it failed.
    pub reason: String,
    /// Failures in a row.
    pub count: u32,
    /// When it may be tried again outside a rollout.
    pub retry: Time,
}

/// What an operator decided about a drifted node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Choice {
    /// Nothing yet.
    #[default]
    Open,
    /// Leave it as it is.
    Hold,
    /// Overwrite what was changed by hand.
    Revert,
}

/// What a node should run at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    /// The revision.
    pub revision: Revision,
    /// Its digest.
    pub digest: Digest,
    /// The rollout that moves it, 0 for none.
    pub rollout: RolloutId,
    /// Whether tasks may be sent (a paused rollout sends none).
    pub may_send: bool,
    /// How long a task may take, milliseconds.
    pub deadline_ms: u64,
}

/// What to do with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It runs what it should.
    Current,
    /// A task is out.
    Updating,
    /// It should run something else, and that is not for now.
    Behind {
        /// When to look again; never without news if absent.
        retry: Option<Time>,
    },
    /// The last task failed.
    Failed {
        /// Why.
        reason: String,
        /// When to try again.
        retry: Option<Time>,
    },
    /// Its files are not what its revision left.
    Drifted(String),
    /// Send it a task now.
    Send {
        /// What it has; 0 with `whole`.
        from: Revision,
        /// All files instead of the difference.
        whole: bool,
    },
    /// It has no stream.
    Away,
}

impl Decision {
    /// The word for operators, and why.
    pub(super) fn state(&self) -> (&'static str, String) {
        match self {
            Self::Current => ("current", String::new()),
            Self::Updating => ("updating", String::new()),
            Self::Behind { .. } | Self::Send { .. } => ("behind", String::new()),
            Self::Failed { reason, .. } => ("failed", reason.clone()),
            Self::Drifted(reason) => ("drifted", reason.clone()),
            Self::Away => ("away", String::new()),
        }
    }
}

impl Node {
    /// What the node runs, if its files are exactly what that revision is.
    pub(super) fn clean(&self) -> Option<Revision> {
        let observed = self.observed.as_ref()?;
        let Known::Yes(digest) = self.known else { return None };
        (!observed.drift && observed.digest == digest).then_some(Revision(observed.revision))
    }

    /// What its proxy has under quarantine.
    pub(super) fn quarantined(&self) -> &[String] {
        self.observed.as_ref().and_then(|observed| observed.proxy.as_ref()).map_or(&[], |proxy| &proxy.quarantined)
    }

    /// Why what its proxy runs is not what its files would start, if that is so.
    pub(super) fn unproved(&self) -> Option<&str> {
        let verified = self.observed.as_ref()?.proxy.as_ref()?.verified.as_ref()?;
        matches!(verified.verdict.as_str(), "different" | "unloadable").then_some(&verified.reason)
    }

    /// Whatever is under quarantine now is not the doing of what comes.
    pub(super) fn tolerate(&mut self) {
        self.tolerated = self.quarantined().to_vec();
    }

    /// What to do next.
    pub(super) fn decide(&self, now: Time, want: &Want, epoch: Epoch) -> Decision {
        let (Some(observed), Some(_)) = (&self.observed, &self.link) else { return Decision::Away };
        if self.in_flight.is_some() {
            return Decision::Updating;
        }
        if observed.epoch > epoch.0 {
            let reason =
                format!("it has obeyed epoch {}, this controller has {epoch}: the store went back", observed.epoch);
            return Decision::Failed { reason, retry: None };
        }
        let clean = match self.known {
            Known::Unasked => return Decision::Behind { retry: Some(now.after(1000)) },
            Known::No | Known::Yes(_) => self.clean(),
        };
        if clean == Some(want.revision) {
            return Decision::Current;
        }
        // Somebody made by hand what it should run: a whole task with nothing to do gives it the number.
        let equal = observed.digest == want.digest;
        if clean.is_none() && !equal && self.choice != Choice::Revert {
            return Decision::Drifted(self.drift_reason(observed));
        }
        if !want.may_send {
            return Decision::Behind { retry: None };
        }
        if let Some(nack) = self.nack.as_ref().filter(|nack| nack.to == want.revision) {
            let retry = (want.rollout == RolloutId(0)).then_some(nack.retry);
            if retry.is_none_or(|retry| retry > now) {
                return Decision::Failed { reason: nack.reason.clone(), retry };
            }
        }
        match clean {
            Some(from) if from != Revision(0) => Decision::Send { from, whole: false },
            _ => Decision::Send { from: Revision(0), whole: true },
        }
    }

    fn drift_reason(&self, observed: &fleet::Observed) -> String {
        let held = if self.choice == Choice::Hold { "held: " } else { "" };
        if self.known == Known::No {
            return format!("{held}it has revision {}, which this store does not know", observed.revision);
        }
        let names = observed.drifted.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if observed.drifted.len() > 5 { ", …" } else { "" };
        match names.is_empty() {
            true => format!("{held}its files differ from revision {}", observed.revision),
            false => format!("{held}changed by hand: {names}{more}"),
        }
    }

    /// Takes over what it says to have.
    pub(super) fn observe(&mut self, observed: fleet::Observed, now_unix_ms: i64) {
        let same = self.observed.as_ref().is_some_and(|old| old.revision == observed.revision);
        if !same {
            self.known = Known::Unasked;
        }
        if !observed.drift {
            self.choice = match self.choice {
                Choice::Hold => Choice::Open,
                choice => choice,
            };
        }
        self.seen_unix_ms = now_unix_ms;
        self.observed = Some(observed);
        self.fresh = true;
    }

    /// Notes a failed task.
    pub(super) fn failed(&mut self, now: Time, to: Revision, reason: String) {
        let count = self.nack.as_ref().filter(|nack| nack.to == to).map_or(0, |nack| nack.count) + 1;
        let pause = RETRY_MS.saturating_mul(1 << (count - 1).min(10)).min(RETRY_MOST_MS);
        self.nack = Some(Nack { to, reason, count, retry: now.after(pause) });
    }

    /// Keeps a report; a later one of the same task replaces it.
    pub(super) fn keep_report(&mut self, record: TaskRecord) {
        let id = |record: &TaskRecord| record.report.as_ref().map(|report| report.id.clone());
        if let Some(held) = self.reports.iter_mut().find(|held| id(held) == id(&record)) {
            *held = record;
            return;
        }
        if self.reports.len() == REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1000);

    fn want(revision: u64) -> Want {
        Want {
            revision: Revision(revision),
            digest: [u8::try_from(revision).unwrap(); 32],
            rollout: RolloutId(0),
            may_send: true,
            deadline_ms: 1000,
        }
    }

    fn node(revision: u64, digest: u8) -> Node {
        let observed = fleet::Observed { revision, digest: vec![digest; 32], epoch: 2, ..Default::default() };
        Node {
            link: Some(Link { serial: 1, boot: 1, wake: Arc::default(), evict: Arc::default() }),
            observed: Some(observed),
            known: Known::Yes([u8::try_from(revision).unwrap(); 32]),
            ..Node::default()
        }
    }

    #[test]
    fn what_a_node_has_and_should_have_decide() {
        let decide = |node: &Node, want: &Want| node.decide(NOW, want, Epoch(2));
        assert_eq!(decide(&node(3, 3), &want(3)), Decision::Current);
        assert_eq!(decide(&node(3, 3), &want(4)), Decision::Send { from: Revision(3), whole: false });
        assert_eq!(decide(&node(0, 0), &want(4)), Decision::Send { from: Revision(0), whole: true });
        assert_eq!(decide(&Node { link: None, ..node(3, 3) }, &want(4)), Decision::Away);
        // The same number with another content, and numbers from another store.
        assert!(matches!(decide(&node(3, 9), &want(3)), Decision::Drifted(_)));
        assert!(matches!(decide(&Node { known: Known::No, ..node(9, 9) }, &want(3)), Decision::Drifted(_)));
        // By hand what it should be anyway.
        assert_eq!(decide(&node(3, 4), &want(4)), Decision::Send { from: Revision(0), whole: true });
        let reverted = Node { choice: Choice::Revert, ..node(3, 9) };
        assert_eq!(decide(&reverted, &want(3)), Decision::Send { from: Revision(0), whole: true });
        let paused = Want { may_send: false, ..want(4) };
        assert_eq!(decide(&node(3, 3), &paused), Decision::Behind { retry: None });
        assert!(matches!(node(3, 3).decide(NOW, &want(4), Epoch(1)), Decision::Failed { retry: None, .. }));
    }

    #[test]
    fn a_failed_task_is_tried_again_later_outside_a_rollout_and_not_inside() {
        let mut failing = node(3, 3);
        failing.failed(NOW, Revision(4), "no".into());
        let retry = Some(NOW.after(RETRY_MS));
        assert_eq!(failing.decide(NOW, &want(4), Epoch(2)), Decision::Failed { reason: "no".into(), retry });
        let inside = Want { rollout: RolloutId(7), ..want(4) };
        let later = NOW.after(RETRY_MS);
        assert_eq!(failing.decide(later, &inside, Epoch(2)), Decision::Failed { reason: "no".into(), retry: None });
        assert!(matches!(failing.decide(later, &want(4), Epoch(2)), Decision::Send { .. }));
        assert!(matches!(failing.decide(NOW, &want(5), Epoch(2)), Decision::Send { .. }));
        failing.failed(later, Revision(4), "no".into());
        assert_eq!(failing.nack.as_ref().map(|nack| nack.retry), Some(later.after(2 * RETRY_MS)));
    }
}
