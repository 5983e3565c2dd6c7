//! What the store keeps of a rollout, and what follows from it.

use std::collections::BTreeMap;

use dysvr_proto::digest::Digest;
use dysvr_proto::id::{Revision, RolloutId};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::strategy::Strategy;
use crate::revision::hex_digest;

/// A moment, milliseconds. The shell takes care that it never goes back while the process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// Later by that much.
    #[must_use]
    pub fn after(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for the rollouts before it. It has no plan yet.
    Queued,
    /// The nodes of the current wave move.
    Running,
    /// The current wave has its verdicts; health is watched.
    Soaking,
    /// Nothing new begins; tasks that were sent end.
    Paused(Active),
    /// The failure budget is spent: waves from the last down to `back` go back.
    RollingBack {
        /// The wave that goes back now.
        back: usize,
    },
    /// All waves have moved.
    Done,
    /// All that had moved went back.
    RolledBack,
    /// An operator stopped it; nodes stay where they are.
    Aborted,
    /// The budget is spent and nobody wanted it rolled back; nodes stay where they are.
    Failed,
}

/// What was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Active {
    /// A wave.
    Running,
    /// A soak.
    Soaking,
}

impl Phase {
    /// Whether nothing will happen any more.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack | Self::Aborted | Self::Failed)
    }

    /// As operators see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Soaking => "soaking",
            Self::Paused(_) => "paused",
            Self::RollingBack { .. } => "rolling-back",
            Self::Done => "done",
            Self::RolledBack => "rolled-back",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
        }
    }
}

/// Why a node failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In the node's words, or ours when it gave none.
    pub reason: String,
    /// When.
    pub at: Time,
    /// It failed on the way back.
    pub back: bool,
}

/// A rollout as the store has it: written with each wave and each failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its number.
    pub id: RolloutId,
    /// What the fleet ran before.
    pub from: Revision,
    /// Where it goes.
    pub to: Revision,
    /// How.
    pub strategy: Strategy,
    /// The blob of the plan, once there is one.
    pub plan: Option<PlanRef>,
    /// Where it is.
    pub phase: Phase,
    /// The wave that moves or moved last.
    pub wave: usize,
    /// Why it is where it is, when there is something to say.
    pub reason: String,
    /// The nodes that failed.
    pub failed: BTreeMap<String, Failure>,
    /// Blobs with the reports of its tasks, wave by wave.
    pub reports: Vec<PlanRef>,
    /// When it was made.
    pub created: Time,
    /// When anything here changed last.
    pub changed: Time,
    /// When it ended; 0 before.
    pub ended: Time,
}

/// The address of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanRef(#[serde(with = "hex_digest")] pub Digest);

impl State {
    /// A rollout that waits for its turn.
    pub fn queued(id: RolloutId, from: Revision, to: Revision, strategy: Strategy, now: Time) -> Self {
        Self {
            id,
            from,
            to,
            strategy,
            plan: None,
            phase: Phase::Queued,
            wave: 0,
            reason: String::new(),
            failed: BTreeMap::new(),
            reports: Vec::new(),
            created: now,
            changed: now,
            ended: Time(0),
        }
    }

    /// The nodes that failed on the way forward: what counts against the budget.
    pub fn spent(&self) -> usize {
        self.failed.values().filter(|failure| !failure.back).count()
    }
}

/// What a node of the plan should run; `None` for a node that is not in it.
pub fn desired(state: &State, plan: &Plan, node: &str) -> Option<Revision> {
    let (wave, planned) = plan.find(node)?;
    let moved = wave <= state.wave;
    let there = match state.phase {
        Phase::Queued | Phase::RolledBack => false,
        Phase::Running | Phase::Soaking | Phase::Paused(_) | Phase::Done => moved,
        Phase::RollingBack { back } => moved && wave < back,
        Phase::Aborted | Phase::Failed => moved && !state.failed.contains_key(node),
    };
    Some(if there { state.to } else { planned.from })
}
