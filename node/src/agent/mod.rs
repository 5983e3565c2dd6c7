//! The agent: takes tasks from controllers or from the operator, writes files, signals the master, and says how it ended.

pub mod check;
pub mod disk;
pub mod drive;
pub mod hands;
pub mod index;
pub mod journal;
pub mod ledger;
pub mod managed;
pub mod memory;
pub mod order;
pub mod overlay;
pub mod plan;
pub mod proxy;
pub mod report;
pub mod rule;
pub mod state;
pub mod tasks;
pub mod undo;
pub mod unit;
pub mod watch;
