//! Moving a fleet from one revision to another, in waves.
//!
//! Values and `now` in, values out: no clock, no I/O. The plan (which node in which wave) is immutable and stored before
//! anything moves; the state that is stored with it changes with waves and failures only. Which revision a node should run is a
//! pure function of the two, see [`desired`].

mod machine;
mod message;
mod plan;
mod state;
mod strategy;

pub use self::machine::Rollout;
pub use self::message::{Effect, Input, Progress, Refusal, Standing};
pub use self::plan::{Plan, Planned};
pub use self::state::{Active, Failure, Phase, PlanRef, State, Time, desired};
pub use self::strategy::{Budget, InvalidStrategy, Size, Strategy};
