//! The directives of the main level and of `events`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ErrorLog, Events, Level, LogTarget, Main};
use crate::directive::{ANYWHERE, Arity, BlockKind, Directive, Done, EVENTS, MAIN, Setter};
use crate::load::{Call, number};

/// The table.
pub static DIRECTIVES: &[Directive] = &[
    Directive::new("include", ANYWHERE, Arity::exactly(1), Setter::Include),
    Directive::new("events", MAIN, Arity::NONE, Setter::Block(BlockKind::Events)),
    Directive::new("daemon", MAIN, Arity::FLAG, Setter::Main(|set, call| call.once(&mut set.daemon, call.flag()?))),
    Directive::new(
        "master_process",
        MAIN,
        Arity::FLAG,
        Setter::Main(|set, call| call.once(&mut set.master_process, call.flag()?)),
    ),
    Directive::new(
        "pid",
        MAIN,
        Arity::exactly(1),
        Setter::Main(|set, call| call.once(&mut set.pid, call.prefix_path(call.arg(1)))),
    ),
    Directive::new("user", MAIN, Arity::between(1, 2), Setter::Main(user)),
    Directive::new("worker_processes", MAIN, Arity::exactly(1), Setter::Main(worker_processes)),
    Directive::new(
        "worker_rlimit_nofile",
        MAIN,
        Arity::exactly(1),
        Setter::Main(|set, call| call.once(&mut set.worker_rlimit_nofile, call.number(1)?)),
    ),
    Directive::new(
        "worker_shutdown_timeout",
        MAIN,
        Arity::exactly(1),
        Setter::Main(|set, call| call.once(&mut set.worker_shutdown_timeout, call.time(1)?)),
    ),
    Directive::new(
        "error_log",
        MAIN,
        Arity::at_least(1),
        Setter::Main(|set, call| {
            set.error_logs.push(error_log(call)?);
            Ok(())
        }),
    ),
    Directive::new("worker_connections", EVENTS, Arity::exactly(1), Setter::Events(worker_connections)),
];

/// What the main level gives.
#[derive(Debug, Default)]
pub struct MainSet {
    worker_processes: Option<Option<u32>>,
    worker_rlimit_nofile: Option<u64>,
    worker_shutdown_timeout: Option<Duration>,
    daemon: Option<bool>,
    master_process: Option<bool>,
    pid: Option<PathBuf>,
    user: Option<(String, Option<String>)>,
    error_logs: Vec<ErrorLog>,
}

/// What `events` gives.
#[derive(Debug, Default)]
pub struct EventsSet {
    worker_connections: Option<u32>,
}

impl MainSet {
    /// The values over the defaults.
    pub(crate) fn finish(self, prefix: &Path) -> Main {
        Main {
            worker_processes: self.worker_processes.unwrap_or(Some(1)),
            worker_rlimit_nofile: self.worker_rlimit_nofile,
            worker_shutdown_timeout: self.worker_shutdown_timeout,
            daemon: self.daemon.unwrap_or(true),
            master_process: self.master_process.unwrap_or(true),
            pid: self.pid.unwrap_or_else(|| prefix.join("logs/nginx.pid")),
            user: self.user,
            error_logs: self.error_logs,
        }
    }
}

impl EventsSet {
    /// The values over the defaults.
    pub(crate) fn finish(self) -> Events {
        Events { worker_connections: self.worker_connections.unwrap_or(512) }
    }
}

fn user(set: &mut MainSet, call: &mut Call<'_, '_>) -> Done {
    let group = (call.arguments().len() == 2).then(|| call.arg(2).to_owned());
    call.once(&mut set.user, (call.arg(1).to_owned(), group))
}

fn worker_processes(set: &mut MainSet, call: &mut Call<'_, '_>) -> Done {
    if set.worker_processes.is_some() {
        return Err(call.fault("is duplicate"));
    }
    let count = match call.arg(1) {
        "auto" => None,
        text => {
            let count = number(text).filter(|count| *count > 0).and_then(|count| u32::try_from(count).ok());
            Some(count.ok_or_else(|| call.fault("invalid value"))?)
        }
    };
    set.worker_processes = Some(count);
    Ok(())
}

fn worker_connections(set: &mut EventsSet, call: &mut Call<'_, '_>) -> Done {
    if set.worker_connections.is_some() {
        return Err(call.fault("is duplicate"));
    }
    let count = number(call.arg(1)).and_then(|count| u32::try_from(count).ok());
    set.worker_connections = Some(count.ok_or_else(|| format!("invalid number \"{}\"", call.arg(1)))?);
    Ok(())
}

/// One `error_log`, at any level.
pub(crate) fn error_log(call: &mut Call<'_, '_>) -> Done<ErrorLog> {
    let target = match call.arg(1) {
        "stderr" => LogTarget::Stderr,
        text if text.starts_with("syslog:") => return Err("logging to syslog is not supported".into()),
        text if text.starts_with("memory:") => return Err("logging to memory is not supported".into()),
        text => LogTarget::File(call.prefix_path(text)),
    };
    let mut level = None;
    for word in &call.arguments()[1..] {
        let text = word.text;
        let found = Level::ALL.into_iter().find(|level| level.name() == text);
        let found = found.ok_or_else(|| format!("invalid log level \"{text}\""))?;
        if level.replace(found).is_some() {
            return Err(format!("duplicate log level \"{text}\"").into());
        }
    }
    Ok(ErrorLog { target, level: level.unwrap_or(Level::Error) })
}
