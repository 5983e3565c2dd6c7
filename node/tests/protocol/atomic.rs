//! The atomics that the files of the zone are compiled with here: those of the model checker, each access of which may be the
//! last one of a worker, or one at which it is stopped for a while.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::engine;

pub use super::engine::sync::atomic::Ordering;

/// What is in store for a thread.
#[derive(Clone, Copy, Debug, Default)]
pub enum Fate {
    /// It goes on as long as it wants.
    #[default]
    Lives,
    /// It ends before its access of this number, counted from 0.
    Dies(u32),
    /// Before its access of that number it lets others run so many times.
    #[allow(dead_code, reason = "where all schedules are tried, a stopped thread is among them")]
    Stops(u32, u32),
}

#[derive(Debug)]
struct Dead;

engine::thread_local! {
    static FATE: Cell<Fate> = Cell::new(Fate::Lives);
}

/// Runs a worker until it returns (`Some`) or meets its end (`None`). What it holds is released as the kernel releases what a
/// dead process holds.
pub fn lives<R>(fate: Fate, worker: impl FnOnce() -> R) -> Option<R> {
    FATE.with(|cell| cell.set(fate));
    let end = catch_unwind(AssertUnwindSafe(worker));
    FATE.with(|cell| cell.set(Fate::Lives));
    match end {
        Ok(value) => Some(value),
        Err(payload) if payload.is::<Dead>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

fn step() {
    let fate = FATE.with(Cell::get);
    match fate {
        Fate::Lives => {}
        // Past the hook, which would print it.
        Fate::Dies(0) => {
            // What is dropped on the way out is not the dead one's deed.
            FATE.with(|cell| cell.set(Fate::Lives));
            resume_unwind(Box::new(Dead));
        }
        Fate::Dies(left) => FATE.with(|cell| cell.set(Fate::Dies(left - 1))),
        Fate::Stops(0, turns) => {
            FATE.with(|cell| cell.set(Fate::Lives));
            for _ in 0..turns {
                engine::thread::yield_now();
            }
        }
        Fate::Stops(left, turns) => FATE.with(|cell| cell.set(Fate::Stops(left - 1, turns))),
    }
}

/// As in the product.
#[derive(Debug, Default)]
pub struct AtomicU64(engine::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub fn load(&self, order: Ordering) -> u64 {
        step();
        self.0.load(order)
    }

    pub fn store(&self, value: u64, order: Ordering) {
        step();
        self.0.store(value, order);
    }
}
