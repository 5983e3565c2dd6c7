//! The connections of an upstream that wait for the next request: last in, first out, at most `keepalive N`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::reaper::Reaper;
use super::{PeerConnection, PeerState};

/// nginx's `keepalive_requests` of an upstream.
const MAX_REQUESTS: u32 = 1000;
/// nginx's `keepalive_timeout` of an upstream.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Pool {
    limit: Cell<usize>,
    /// The oldest first. Boxed because a connection is large and moves with each request.
    #[allow(clippy::vec_box)]
    idle: RefCell<Vec<Box<PeerConnection>>>,
    watched: RefCell<Option<Waker>>,
}

impl Pool {
    pub(super) fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { limit: Cell::new(limit), idle: RefCell::default(), watched: RefCell::default() })
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| !connection.peer.retired.get());
        let excess = idle.len().saturating_sub(limit);
        idle.drain(..excess);
    }

    /// The youngest idle connection of a peer.
    pub fn take(&self, peer: &Rc<PeerState>, now: Instant) -> Option<Box<PeerConnection>> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let at = idle.iter().rposition(|connection| Rc::ptr_eq(&connection.peer, peer))?;
            let connection = idle.remove(at);
            if now.saturating_duration_since(connection.since) < MAX_IDLE {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end, if it may be kept.
    pub fn put(
        self: &Rc<Self>,
        reaper: &Rc<Reaper>,
        mut connection: Box<PeerConnection>,
        now: Instant,
        cx: &mut Context<'_>,
    ) {
        let limit = self.limit.get();
        if limit == 0
            || connection.requests >= MAX_REQUESTS
            || connection.peer.retired.get()
            || !connection.is_reusable(cx)
        {
            return;
        }
        let mut watched = self.watched.borrow_mut();
        connection.rest(watched.get_or_insert_with(|| reaper.watch(self)), now);
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= limit {
            idle.remove(0);
        }
        idle.push(connection);
    }

    /// Closes what the peers have closed and what has been idle for too long. True if anything is left.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let mut idle = self.idle.borrow_mut();
        let watched = self.watched.borrow();
        let waker = watched.as_ref().unwrap_or(Waker::noop());
        let mut cx = Context::from_waker(waker);
        idle.retain_mut(|connection| {
            now.saturating_duration_since(connection.since) < MAX_IDLE
                && !connection.peer.retired.get()
                && connection.is_alive(&mut cx)
        });
        !idle.is_empty()
    }

    /// How many connections wait.
    pub fn idle(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Closes all of them.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }
}
