//! How a worker says whose request it runs, so that the master knows when it dies.

use std::rc::Rc;

use super::Zone;
use super::slot::Slot;

/// The mark of a step of a task, which is no vhost's.
pub const TASK: u64 = u64::MAX;

/// A worker's way to say in its slot whose request it runs. Plain stores into its own memory: no system call, no lock.
#[derive(Debug, Default)]
pub struct Pulse {
    /// `None`: nobody looks.
    slot: Option<(Rc<Zone>, usize)>,
}

impl Pulse {
    /// Of the worker that has `slot`.
    pub fn new(zone: &Rc<Zone>, slot: usize) -> Self {
        Self { slot: Some((Rc::clone(zone), slot)) }
    }

    fn slot(&self) -> Option<&Slot> {
        self.slot.as_ref().map(|(zone, slot)| zone.slot(*slot))
    }

    /// A connection is polled; `mark` is its request's vhost, 0 while that is not known.
    pub fn enter(&self, mark: u64) {
        if let Some(slot) = self.slot() {
            slot.poll();
            slot.turn(mark);
        }
    }

    /// Another vhost's request runs from here on, within the same poll.
    pub fn turn(&self, mark: u64) {
        if let Some(slot) = self.slot() {
            slot.turn(mark);
        }
    }

    /// The mark of what runs.
    pub fn running(&self) -> u64 {
        self.slot().map_or(0, Slot::running)
    }

    /// Leaves the mark of a vhost whose request has panicked, the worker's `number`th.
    pub fn panicked(&self, number: u64, mark: u64) {
        if let Some(slot) = self.slot() {
            slot.panic(number, mark);
        }
    }
}
