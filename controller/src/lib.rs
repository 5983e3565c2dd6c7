//! The control plane of dysvr: revisions of a fleet's configuration, rollouts in waves, and the store below them.
//!
//! [`revision`] and [`rollout`] decide, [`store`] remembers, [`server`] talks to nodes and operators; [`ctl`] is the
//! operators' command line.

pub mod ctl;
pub mod revision;
pub mod rollout;
pub mod server;
pub mod store;
