//! The error log in nginx's format, and the open files that error and access logs share.
//!
//! Not `tracing`: nginx has eight levels to its five, and what reads these files expects nginx's lines. One thread per
//! process, so files and sinks are `Rc`s in a thread-local registry.

mod file;
mod gather;

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::path::Path;
use std::rc::Rc;

pub use dysvr_conf::main_conf::Level;
use dysvr_conf::main_conf::{ErrorLog, LogTarget};
pub use file::{Handed, LogFile, chown_all, hand, open_file, reopen_all};
pub use gather::{Gathering, flush, forget, gather};

use crate::os::process;
use crate::os::time::{self, Local};

/// Where the lines of a process or of a location go. Clones share their sinks.
#[derive(Clone, Debug)]
pub struct Log {
    sinks: Rc<[Sink]>,
}

#[derive(Clone, Debug)]
struct Sink {
    file: Option<Rc<LogFile>>,
    level: Level,
}

impl Log {
    /// Opens the logs of a configuration; relative files are below `prefix`.
    pub fn open(logs: &[ErrorLog], prefix: &Path) -> io::Result<Self> {
        let sinks = logs
            .iter()
            .map(|log| {
                let file = match &log.target {
                    LogTarget::Stderr => None,
                    LogTarget::File(path) => Some(open_file(&prefix.join(path))?),
                };
                Ok(Sink { file, level: log.level })
            })
            .collect::<io::Result<Rc<[_]>>>()?;
        Ok(Self { sinks })
    }

    /// Standard error alone.
    pub fn stderr(level: Level) -> Self {
        Self { sinks: Rc::new([Sink { file: None, level }]) }
    }

    /// No lines at all.
    pub fn nowhere() -> Self {
        Self { sinks: Rc::new([]) }
    }

    /// Whether a line of this level would be written anywhere.
    pub fn admits(&self, level: Level) -> bool {
        self.sinks.iter().any(|sink| level <= sink.level)
    }

    /// Writes one line to every sink whose level admits it. `connection` 0 is none.
    pub fn write(&self, level: Level, connection: u64, text: fmt::Arguments<'_>) {
        if !self.admits(level) {
            return;
        }
        thread_local!(static LINE: RefCell<String> = const { RefCell::new(String::new()) });
        // Taken, not borrowed: what is printed may panic, and a panic is logged.
        let mut line = LINE.take();
        line.clear();
        let _ = render(&mut line, &now(), level, connection, text);
        cut(&mut line);
        for sink in self.sinks.iter().filter(|sink| level <= sink.level) {
            match &sink.file {
                Some(file) => gather::append(file, line.as_bytes(), level <= Level::Error),
                None => drop(io::stderr().write_all(line.as_bytes())),
            }
        }
        LINE.set(line);
    }
}

/// Cuts a line that is longer than nginx writes (`NGX_MAX_ERROR_STR`): a task may name ten thousand vhosts.
fn cut(line: &mut String) {
    /// Bytes, the line's end included.
    const LONGEST: usize = 2048;
    if line.len() > LONGEST {
        let end = (0..LONGEST).rev().find(|end| line.is_char_boundary(*end)).unwrap_or_default();
        line.truncate(end);
        line.push('\n');
    }
}

/// Panics of this process are lines of its log from now on.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(|s| &**s));
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        let text = text.unwrap_or("no text");
        eprintln!("nginx: [alert] panicked{place}: {text}");
        current().write(Level::Alert, 0, format_args!("panicked{place}: {text}"));
    }));
}

fn render(line: &mut String, now: &Local, level: Level, connection: u64, text: fmt::Arguments<'_>) -> fmt::Result {
    let Local { year, month, day, hour, minute, second, .. } = now;
    write!(line, "{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02} [{}] ", level.name())?;
    // One thread per process: its thread id is its pid; nginx without thread pools prints 0.
    write!(line, "{}#0: ", process::id())?;
    if connection != 0 {
        write!(line, "*{connection} ")?;
    }
    writeln!(line, "{text}")
}

thread_local! {
    static NOW: Cell<Option<(i64, Local)>> = const { Cell::new(None) };
    static CURRENT: RefCell<Log> = RefCell::new(Log::stderr(Level::Notice));
}

/// Local time, broken down once per second.
pub fn now() -> Local {
    let second = time::unix().as_secs() as i64;
    match NOW.get() {
        Some((cached, local)) if cached == second => local,
        _ => {
            let local = time::local(second);
            NOW.set(Some((second, local)));
            local
        }
    }
}

/// The log of the process.
pub fn current() -> Log {
    CURRENT.with_borrow(Clone::clone)
}

/// Makes `log` the log of the process.
pub fn set_current(log: Log) {
    CURRENT.set(log);
}

/// Writes a line to the log of the process: `log!(Level::Notice, "text {}", value)`.
#[macro_export]
macro_rules! log {
    ($level:expr, $($text:tt)+) => {
        $crate::log::current().write($level, 0, format_args!($($text)+))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Local = Local { year: 2022, month: 7, day: 27, hour: 12, minute: 4, second: 9, offset: 0 };

    #[test]
    fn lines_are_nginx_s() {
        let mut line = String::new();
        render(&mut line, &NOON, Level::Notice, 0, format_args!("start worker processes")).unwrap();
        assert_eq!(line, format!("2022/07/27 12:04:09 [notice] {}#0: start worker processes\n", process::id()));
        line.clear();
        render(&mut line, &NOON, Level::Error, 12, format_args!("x")).unwrap();
        assert_eq!(line, format!("2022/07/27 12:04:09 [error] {}#0: *12 x\n", process::id()));
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_ends() {
        for (blanks, length) in [(0, 2048), (1, 2047), (2, 2048), (3, 2048)] {
            let mut line = " ".repeat(blanks) + &"€".repeat(1000) + "\n";
            cut(&mut line);
            assert!(line.len() <= 2048 && line.len() + 3 > length && line.ends_with("€\n"), "{}", line.len());
        }
        let mut line = "x".repeat(2047) + "\n";
        cut(&mut line);
        assert_eq!(line.len(), 2048);
    }

    #[test]
    fn a_line_goes_to_every_log_whose_level_admits_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = |name: &str, level| ErrorLog { target: LogTarget::File(name.into()), level };
        let logs = Log::open(&[log("a", Level::Error), log("b", Level::Info)], dir.path()).unwrap();
        logs.write(Level::Warn, 0, format_args!("one"));
        logs.write(Level::Crit, 0, format_args!("two"));
        logs.write(Level::Debug, 0, format_args!("three"));
        let lines = |name| std::fs::read_to_string(dir.path().join(name)).unwrap().lines().count();
        assert_eq!((lines("a"), lines("b")), (1, 2));
    }
}
