//! A thread that does what waits, most of all for the disk, while whoever needs it done does something else.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::thread;

type Work = Box<dyn FnOnce() + Send>;

/// Starts its thread when it is first needed, which ends when this is dropped.
#[derive(Debug, Default)]
pub struct Aside {
    thread: Option<Sender<Work>>,
}

/// What is done aside. Nobody has to wait for it: what was started is done.
#[must_use]
#[derive(Debug)]
pub struct Doing<T>(Receiver<T>);

impl Aside {
    /// Has something done, behind what was started before.
    pub fn start<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Doing<T> {
        let (result, done) = channel();
        // Who does not wait does not want the result.
        let work: Work = Box::new(move || drop(result.send(work())));
        match self.thread.take().or_else(start) {
            Some(thread) => match thread.send(work) {
                Ok(()) => self.thread = Some(thread),
                Err(SendError(work)) => work(),
            },
            // There is no room for a thread.
            None => work(),
        }
        Doing(done)
    }
}

impl<T> Doing<T> {
    /// What came of it, once it is done. An error: it has panicked.
    pub fn wait(self) -> io::Result<T> {
        self.0.recv().map_err(|_| io::Error::other("what was done aside has panicked"))
    }
}

fn start() -> Option<Sender<Work>> {
    let (thread, works) = channel::<Work>();
    // A panic ends one work; who waits for that finds no result.
    let serve = move || works.into_iter().for_each(|work| drop(catch_unwind(AssertUnwindSafe(work))));
    let started = thread::Builder::new().name("aside".to_owned()).spawn(serve);
    started.is_ok().then_some(thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_one_behind_the_other_and_says_what_came_of_each() {
        let mut aside = Aside::default();
        let (go, may_go) = channel::<()>();
        let first = aside.start(move || may_go.recv().is_ok());
        let here = thread::current().id();
        let second = aside.start(move || thread::current().id() != here);
        assert!(matches!(second.0.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)));
        go.send(()).unwrap();
        assert!(second.wait().unwrap() && first.wait().unwrap());
    }

    #[test]
    fn goes_on_behind_a_work_that_panicked() {
        let mut aside = Aside::default();
        assert!(aside.start(|| std::panic::resume_unwind(Box::new(()))).wait().is_err());
        for number in 0..3 {
            assert_eq!(aside.start(move || number).wait().unwrap(), number);
        }
    }
}
