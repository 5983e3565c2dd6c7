//! The deadlines of one client connection, without a timer registration per request.
//!
//! A connection has one [`tokio::time::Sleep`]. Moving a deadline only stores a number: the sleep is registered anew only
//! when a deadline comes before it, and when it fires it is moved to the earliest deadline that is still ahead. With
//! constant timeouts a busy connection touches the runtime's timer once per timeout, not once per request, and deadlines
//! keep the runtime's precision of a millisecond.

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::pin::Pin;
use std::task::Context;
use std::time::Instant;

use tokio::time::Sleep;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// The client: the next request, its head, its body, or that it takes the answer.
    Client = 0,
    /// The peer: connect, send or read.
    Peer = 1,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Timer {
    due: [Cell<Option<Instant>>; 2],
    armed: Cell<Option<Instant>>,
    sleep: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Timer {
    /// Sets or clears a deadline.
    pub(super) fn set(&self, deadline: Deadline, at: Option<Instant>) {
        self.due[deadline as usize].set(at);
    }

    /// The deadline, if one is set.
    pub(super) fn get(&self, deadline: Deadline) -> Option<Instant> {
        self.due[deadline as usize].get()
    }

    /// Whether the deadline is set and over.
    pub(super) fn expired(&self, deadline: Deadline, now: Instant) -> bool {
        self.due[deadline as usize].get().is_some_and(|due| due <= now)
    }

    /// Makes sure that the task is woken at the earliest deadline. To be called whenever the task is about to wait.
    pub(super) fn arm(&self, cx: &mut Context<'_>, now: Instant) {
        let Some(earliest) = self.due.iter().filter_map(Cell::get).filter(|due| *due > now).min() else { return };
        if self.armed.get().is_some_and(|armed| armed <= earliest && armed > now) {
            return;
        }
        let mut slot = self.sleep.borrow_mut();
        let sleep = match &mut *slot {
            Some(sleep) => {
                sleep.as_mut().reset(earliest.into());
                sleep
            }
            None => slot.insert(Box::pin(tokio::time::sleep_until(earliest.into()))),
        };
        self.armed.set(Some(earliest));
        // The task's waker is always the same, so one poll registers it until the next reset.
        if sleep.as_mut().poll(cx).is_ready() {
            self.armed.set(None);
            cx.waker().wake_by_ref();
        }
    }
}
