//! In place of libc's mutex one of the model checker: released when its holder ends, given up on, made anew while it is held, and
//! not unlocked by whom it does not belong to.

use std::cell::Cell;
use std::io;

use super::PATIENCE;
use super::engine;
use super::engine::sync::atomic::{AtomicU64, Ordering};

engine::thread_local! {
    static ME: Cell<u64> = Cell::new(0);
}

/// Gives this thread a number other than 0, which no other has.
pub fn i_am(number: u64) {
    ME.with(|me| me.set(number));
}

#[derive(Debug, Default)]
pub struct Mutex {
    owner: AtomicU64,
}

impl Mutex {
    pub fn reset(&self) -> io::Result<()> {
        self.owner.store(0, Ordering::Relaxed);
        Ok(())
    }

    pub fn lock(&self, try_only: bool) -> Option<Guard<'_>> {
        let me = ME.with(Cell::get);
        assert_ne!(me, 0, "a thread that has no number");
        let mut attempts = 0..if try_only { 1 } else { PATIENCE };
        attempts
            .any(|_| self.owner.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok())
            .then(|| Guard { mutex: self })
    }
}

#[derive(Debug)]
pub struct Guard<'a> {
    mutex: &'a Mutex,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let me = ME.with(Cell::get);
        let _refused = self.mutex.owner.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed);
    }
}
