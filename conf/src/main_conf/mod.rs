//! The directives outside `http`: `main` and `events`.

mod set;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use set::error_log;
pub use set::{DIRECTIVES, EventsSet, MainSet};

/// The main level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Main {
    /// `worker_processes`; `None` is `auto`: as many as there are processors.
    pub worker_processes: Option<u32>,
    /// `worker_rlimit_nofile`.
    pub worker_rlimit_nofile: Option<u64>,
    /// `worker_shutdown_timeout`.
    pub worker_shutdown_timeout: Option<Duration>,
    /// `daemon`.
    pub daemon: bool,
    /// `master_process`.
    pub master_process: bool,
    /// `pid`, absolute.
    pub pid: PathBuf,
    /// `user`: name, group.
    pub user: Option<(String, Option<String>)>,
    /// `error_log` of the main level; empty: the default of the build.
    pub error_logs: Vec<ErrorLog>,
}

/// `events {}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events {
    /// `worker_connections`, 512.
    pub worker_connections: u32,
}

/// One `error_log`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ErrorLog {
    /// Where.
    pub target: LogTarget,
    /// Least severe level that is written.
    pub level: Level,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// A file, absolute.
    File(PathBuf),
    /// Standard error.
    Stderr,
}

/// nginx's levels, most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The process cannot go on or start.
    Emerg,
    /// Something that must not happen did.
    Alert,
    /// Critical.
    Crit,
    /// A request or a task failed.
    Error,
    /// Something odd.
    Warn,
    /// Normal but notable.
    Notice,
    /// Clients' mistakes.
    Info,
    /// For developers.
    Debug,
}

impl Level {
    /// All of them, most severe first.
    pub const ALL: [Self; 8] =
        [Self::Emerg, Self::Alert, Self::Crit, Self::Error, Self::Warn, Self::Notice, Self::Info, Self::Debug];

    /// As it stands in files and log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emerg => "emerg",
            Self::Alert => "alert",
            Self::Crit => "crit",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}
