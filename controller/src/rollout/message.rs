//! What goes into a rollout's machine, and what comes out.

use dysvr_proto::id::{Revision, RolloutId};

use super::state::{State, Time};

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// A task was sent to a node: what it runs is not known until it has answered.
    Sent {
        /// The node.
        node: String,
    },
    /// The task has its verdict, or was given up; what the node says it runs counts again.
    Answered {
        /// The node.
        node: String,
    },
    /// A node has proved to run a revision: its number and the digest of its files.
    At {
        /// The node.
        node: String,
        /// What it runs.
        revision: Revision,
    },
    /// A node's stream has ended: what it runs is not known any more.
    Gone {
        /// The node.
        node: String,
    },
    /// A node refused the task to a revision, or its proxy failed under it.
    Nack {
        /// The node.
        node: String,
        /// The task's revision.
        revision: Revision,
        /// Why.
        reason: String,
    },
    /// A node that had moved is not well.
    Unhealthy {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
    /// The operator's verb.
    Pause,
    /// The operator's verb.
    Resume,
    /// The operator's verb; says why.
    Abort(String),
    /// The store has the state of the last [`Effect::Store`] (the shell may have added `reports`).
    Stored(Box<State>),
    /// The store did not take it; nothing is stored. It is asked again.
    NotStored,
    /// Time has passed.
    Tick,
}

/// What the machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write this state, fenced, and answer with [`Input::Stored`] or [`Input::NotStored`].
    Store(Box<State>),
}

/// A verb that does not fit the phase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rollout {id} is {phase}: it cannot be {verb}")]
pub struct Refusal {
    pub(super) id: RolloutId,
    pub(super) phase: &'static str,
    pub(super) verb: &'static str,
}

/// How far one node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub standing: Standing,
    /// Since when.
    pub since: Time,
}

/// Where a node stands in a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its wave has not begun.
    Waiting,
    /// It is to move; no verdict yet.
    Updating,
    /// It runs the new revision.
    Done,
    /// It does not.
    Failed(String),
    /// It is to go back; not there yet.
    Returning,
    /// It runs what it ran before.
    Undone,
}
