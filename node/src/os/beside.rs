//! A thread for a while beside this one, on another processor.
//!
//! Linux often leaves a new thread on the processor of its maker until a tick (up to 10 ms) finds it there, though another
//! one idles: in virtual machines whose hypervisor tells which processors it has taken away, it takes each that idles for
//! such a one. The same becomes of a thread that its maker wakes. So it is bound to the other processors, until its maker
//! waits for it. What its maker is bound to does not change, for that outlives the thread, and whoever is forked inherits it.

use std::convert::Infallible;
use std::os::unix::thread::JoinHandleExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::{io, mem};

use libc::{cpu_set_t, pthread_setaffinity_np};

/// The thread. It is joined at the latest when this is dropped.
#[derive(Debug)]
pub struct SecondThread<T> {
    /// `None` once it is joined.
    thread: Option<JoinHandle<T>>,
    /// It ends when this is gone, too: the handle of one that has ended stands for the thread that uses it.
    stays: Option<Sender<Infallible>>,
}

/// Keeps a thread from ending.
struct Stay(Receiver<Infallible>);

impl Drop for Stay {
    fn drop(&mut self) {
        let _ = self.0.recv();
    }
}

impl<T: Send + 'static> SecondThread<T> {
    /// Begins `work`.
    ///
    /// # Errors
    /// When the machine has no room for a thread.
    pub fn start(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        // SAFETY: what it works with lives for as long as it wants.
        unsafe { Self::start_unchecked(name, work) }
    }
}

impl<T: Send> SecondThread<T> {
    /// # Safety
    /// What `work` borrows lives until this is joined or dropped, which must not be forgotten.
    unsafe fn start_unchecked(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<Self> {
        let (stays, may_end) = channel();
        let work = move || {
            let _stay = Stay(may_end);
            work()
        };
        // SAFETY: as the caller promises.
        let thread = unsafe { Builder::new().name(name.into()).spawn_unchecked(work) }?;
        if let Some(others) = others() {
            bind(&thread, &others);
        }
        Ok(Self { thread: Some(thread), stays: Some(stays) })
    }
}

impl<T> SecondThread<T> {
    /// Waits for its end, and leaves it this processor as well.
    ///
    /// # Errors
    /// What it has panicked with.
    pub fn join(mut self) -> std::thread::Result<T> {
        self.wait().expect("joined once, since that takes it")
    }

    fn wait(&mut self) -> Option<std::thread::Result<T>> {
        let thread = self.thread.take()?;
        if let Some(own) = own() {
            bind(&thread, &own);
        }
        self.stays = None;
        Some(thread.join())
    }
}

impl<T> Drop for SecondThread<T> {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Calls both, `theirs` beside this thread if the machine has room for one, else not at all.
///
/// # Panics
/// With what either panics with.
pub fn both(name: &str, theirs: &mut (dyn FnMut() + Send), ours: &mut dyn FnMut()) {
    // SAFETY: it is joined below, or dropped should `ours` panic.
    let thread = unsafe { SecondThread::start_unchecked(name, theirs) };
    ours();
    if let Some(Err(panic)) = thread.ok().map(SecondThread::join) {
        std::panic::resume_unwind(panic);
    }
}

/// Where this thread may run. `None` on a machine with more processors than there is room for.
fn own() -> Option<cpu_set_t> {
    // SAFETY: bits, of which none is set.
    let mut own: cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes as much as is said that there is.
    let is_known = unsafe { libc::sched_getaffinity(0, size_of::<cpu_set_t>(), &raw mut own) } == 0;
    is_known.then_some(own)
}

/// That without the processor that it runs on, if there are others.
fn others() -> Option<cpu_set_t> {
    let mut others = own()?;
    // SAFETY: it asks the kernel and touches nothing.
    let here = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
    // SAFETY: these look into the set, whose length they know.
    let left = unsafe {
        libc::CPU_CLR(here, &mut others);
        libc::CPU_COUNT(&others)
    };
    (left > 0).then_some(others)
}

/// What cannot be done is left: the thread runs all the same.
fn bind<T>(thread: &JoinHandle<T>, set: &cpu_set_t) {
    // SAFETY: a thread that stays until it is joined, so that its handle stands for it, and a set of the length that is said.
    unsafe { pthread_setaffinity_np(thread.as_pthread_t(), size_of::<cpu_set_t>(), set) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which processors the kernel says that the calling thread is bound to.
    fn bound() -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap().to_owned()
    }

    fn count(set: Option<cpu_set_t>) -> i32 {
        // SAFETY: it looks into the set, whose length it knows.
        set.map_or(0, |set| unsafe { libc::CPU_COUNT(&set) })
    }

    #[test]
    fn a_thread_has_the_other_processors_until_it_is_waited_for_and_its_maker_stays_as_it_was() {
        let (before, all) = (bound(), count(own()));
        let ((is_bound, may_look), (at_first, told)) = (channel(), channel());
        let thread = SecondThread::start("beside", move || {
            may_look.recv().unwrap();
            at_first.send(count(own())).unwrap();
            while count(own()) < all {
                std::thread::yield_now();
            }
        });
        is_bound.send(()).unwrap();
        assert_eq!(told.recv().unwrap(), all.max(2) - 1);
        thread.unwrap().join().unwrap();
        assert_eq!(bound(), before);
    }

    #[test]
    fn one_that_is_long_ready_is_not_taken_for_its_maker() {
        let before = bound();
        for _ in 0..100 {
            drop(SecondThread::start("beside", || ()).unwrap());
        }
        assert_eq!(bound(), before);
        let (works, done) = channel::<Infallible>();
        let thread = SecondThread::start("beside", move || drop(works)).unwrap();
        assert!(done.recv().is_err());
        for _ in 0..1000 {
            std::thread::yield_now();
            assert!(!thread.thread.as_ref().unwrap().is_finished(), "it waits to be joined");
        }
    }

    #[test]
    fn both_are_called_and_what_either_panics_with_goes_on() {
        let (mut theirs, mut ours) = (0, 0);
        both("beside", &mut || theirs += 1, &mut || ours += 1);
        assert_eq!((theirs, ours), (1, 1));
        let panicked = std::panic::catch_unwind(|| both("beside", &mut || std::panic::panic_any(7), &mut || ()));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&7));
        let mut theirs = 0;
        let add = &mut theirs;
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            both("beside", &mut || *add += 1, &mut || std::panic::panic_any(8));
        }));
        assert_eq!((panicked.unwrap_err().downcast_ref(), theirs), (Some(&8), 1));
    }
}
