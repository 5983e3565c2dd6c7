//! Lines that belong together are written together: an in-place update prints ten lines in a process, and a write(2) for
//! each of them would cost more than the update itself.
//!
//! While a [`Gathering`] lives, lines wait in memory, in their order, and are written with one call for each file when it
//! ends. Whatever could be lost is not held: a line of level `error` or worse is written at once with all that waits
//! before it, a panic ends the gathering by unwinding, and a fork is preceded by [`flush`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::LogFile;

/// Longest piece that is written at once, bytes: up to here appends of several processes to a pipe are not mixed either.
const PIECE: usize = libc::PIPE_BUF;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static HELD: RefCell<Vec<(Rc<LogFile>, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

/// Lines are gathered as long as this lives.
#[must_use = "lines are gathered as long as it lives"]
#[derive(Debug)]
pub struct Gathering(());

/// Begins to gather; within another gathering it only goes on.
pub fn gather() -> Gathering {
    DEPTH.set(DEPTH.get() + 1);
    Gathering(())
}

impl Drop for Gathering {
    fn drop(&mut self) {
        // A child of a fork within the gathering has forgotten it.
        DEPTH.set(DEPTH.get().saturating_sub(1));
        if DEPTH.get() == 0 {
            flush();
        }
    }
}

/// Writes what waits.
pub fn flush() {
    for (file, lines) in HELD.take() {
        file.append(&lines);
    }
}

/// In a child: its parent's gathering, which it was forked in, is none of its own. (The parent has flushed before.)
pub fn forget() {
    DEPTH.set(0);
    HELD.take();
}

/// Appends a line to a file, now or when the gathering ends.
pub(super) fn append(file: &Rc<LogFile>, line: &[u8], at_once: bool) {
    if DEPTH.get() == 0 {
        return file.append(line);
    }
    let waits = HELD.with_borrow(|held| held.iter().find(|(other, _)| Rc::ptr_eq(other, file)).map(|(_, l)| l.len()));
    if at_once || waits.unwrap_or(0) + line.len() > PIECE {
        flush();
    }
    if at_once {
        return file.append(line);
    }
    HELD.with_borrow_mut(|held| match held.iter_mut().find(|(other, _)| Rc::ptr_eq(other, file)) {
        Some((_, lines)) => lines.extend_from_slice(line),
        None => {
            let mut lines = Vec::with_capacity(1024);
            lines.extend_from_slice(line);
            held.push((Rc::clone(file), lines));
        }
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dysvr_conf::main_conf::{ErrorLog, LogTarget};

    use super::super::{Level, Log};
    use super::*;

    fn log(dir: &Path) -> Log {
        Log::open(&[ErrorLog { target: LogTarget::File("x".into()), level: Level::Info }], dir).unwrap()
    }

    fn texts(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join("x")).unwrap();
        text.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn lines_wait_in_their_order_until_the_outermost_gathering_ends() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        let say = |text: &str| log.write(Level::Notice, 0, format_args!("{text}"));
        {
            let _outer = gather();
            say("one");
            drop(gather());
            say("two");
            assert!(texts(dir.path()).is_empty());
        }
        say("three");
        assert_eq!(texts(dir.path()), ["one", "two", "three"]);
    }

    #[test]
    fn nothing_that_matters_waits() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        let _outer = gather();
        log.write(Level::Notice, 0, format_args!("before"));
        log.write(Level::Error, 0, format_args!("error"));
        assert_eq!(texts(dir.path()), ["before", "error"]);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            forget();
            let _inner = gather();
            log.write(Level::Notice, 0, format_args!("unwound"));
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        assert_eq!(texts(dir.path()), ["before", "error", "unwound"]);
    }

    #[test]
    fn pieces_stay_below_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        let outer = gather();
        (0..100).for_each(|_| log.write(Level::Notice, 0, format_args!("{}", "x".repeat(100))));
        let written = texts(dir.path()).len();
        assert!((26..100).contains(&written), "{written}");
        drop(outer);
        assert_eq!(texts(dir.path()).len(), 100);
    }
}
