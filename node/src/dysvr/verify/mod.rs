//! The twin: whether the running cycle is what the files would give, asked of a second load in a child of the master.
//!
//! [`machine`] decides when to look and what a look is worth, [`finding`] is what is found and how it stands on the disk,
//! [`metrics()`] the same for Prometheus. The looking itself is `master::twin`, the comparison `cycle::differ`.

pub mod finding;
pub mod machine;
mod metrics;

use std::path::{Path, PathBuf};

pub use finding::{Finding, Outcome};
pub use metrics::{metrics, metrics_file};

/// What the child of the master is called in /proc: it is no worker.
pub const TWIN: &str = "dysvr-twin";

/// Where the last finding stands: beside the task file. A task line could not carry it: nobody asks for the looks that
/// come at an interval.
pub fn finding_file(task_file: &Path) -> PathBuf {
    task_file.with_extension("verify")
}
