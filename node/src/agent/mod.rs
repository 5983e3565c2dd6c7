//! The agent: takes tasks from controllers or from the operator, writes files, signals the master, and says how it ended.

pub mod check;
pub mod journal;
pub mod ledger;
pub mod managed;
pub mod memory;
pub mod order;
pub mod plan;
pub mod report;
pub mod state;
