//! The agent: takes tasks from controllers or from the operator, writes files, signals the master, says how it ended.
//!
//! The deciding parts are pure: [`check`] (may an order begin), [`rule`] (in place or reload, and which task lines),
//! [`state`] (the life of a task), [`ledger`] (what survives a restart), [`memory`]. [`hands`] does to files and processes
//! what they say, [`drive`] feeds them with what happens, and on top of that stand the agent itself ([`run`], with the
//! [`supervise`]d proxy and the [`link`] to a controller) and the commands of a shell ([`hand`], [`probe`], [`show`], [`verify`]).
//!
//! It meets the proxy only in files and signals, and a controller only in messages; each works without it.

mod aside;
pub mod check;
pub mod cli;
pub mod disk;
pub mod drive;
pub mod hand;
pub mod hands;
pub mod index;
pub mod journal;
pub mod ledger;
pub mod link;
pub mod managed;
pub mod memory;
pub mod order;
pub mod overlay;
pub mod plan;
pub mod probe;
pub mod proxy;
pub mod report;
pub mod rule;
pub mod run;
pub mod show;
pub mod state;
pub mod supervise;
pub mod tasks;
pub mod undo;
pub mod unit;
pub mod verify;
pub mod watch;
mod whole;
