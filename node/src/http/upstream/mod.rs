//! Upstreams as a worker sees them: the health and the turns of their peers, and the connections that stay open to them.
//!
//! Idle upstreams cost one empty cell each, since there may be a hundred thousand: everything else is made when the first
//! request comes.

mod balance;
mod connection;
mod pool;
mod reaper;

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dysvr_conf::model;

pub use balance::{Choice, Outcome, Turn};
pub use connection::{Outgoing, PeerConnection, connect};
pub use pool::Pool;
pub use reaper::Reaper;

/// The state of an upstream in this process.
#[derive(Default)]
pub struct State {
    inner: OnceCell<Inner>,
}

/// What a used upstream has.
struct Inner {
    peers: Box<[Rc<PeerState>]>,
    pool: Rc<Pool>,
}

/// What is known about a peer. Shared between an upstream and what replaces it, if the peer is in both.
#[derive(Debug, Default)]
pub struct PeerState {
    current_weight: Cell<i64>,
    effective_weight: Cell<i64>,
    fails: Cell<u32>,
    /// Seconds of the worker's clock.
    accessed: Cell<u64>,
    checked: Cell<u64>,
    /// The configuration has it no longer: its connections are not kept.
    retired: Cell<bool>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers = self.inner.get().map(|inner| &inner.peers);
        f.debug_struct("State").field("peers", &peers).finish_non_exhaustive()
    }
}

impl State {
    /// Of an upstream that is new.
    pub fn new(_conf: &model::Upstream) -> Self {
        Self::default()
    }

    /// Of an upstream that replaces another one: peers with the same address keep their health, their counters and their
    /// connections, also those that are in use right now.
    pub fn carry_over(old: &Self, old_conf: &model::Upstream, new_conf: &model::Upstream) -> Self {
        let Some(old) = old.inner.get() else { return Self::default() };
        let mut left: Vec<Option<(&model::Peer, &Rc<PeerState>)>> =
            old_conf.peers.iter().zip(&old.peers).map(Some).collect();
        let keep = |conf: &model::Peer| {
            let same = |slot: &&mut Option<(&model::Peer, &Rc<PeerState>)>| {
                slot.is_some_and(|(known, _)| known.addr == conf.addr && known.backup == conf.backup)
            };
            match left.iter_mut().find(same).and_then(Option::take) {
                Some((known, state)) => {
                    if known.weight != conf.weight {
                        state.current_weight.set(0);
                        state.effective_weight.set(i64::from(conf.weight));
                    }
                    Rc::clone(state)
                }
                None => Rc::new(PeerState::new(conf)),
            }
        };
        let peers = new_conf.peers.iter().map(keep).collect();
        for (_, state) in left.into_iter().flatten() {
            state.retired.set(true);
        }
        old.pool.set_limit(new_conf.keepalive.unwrap_or(0) as usize);
        let inner = Inner { peers, pool: Rc::clone(&old.pool) };
        Self { inner: OnceCell::from(inner) }
    }

    fn inner(&self, conf: &model::Upstream) -> &Inner {
        self.inner.get_or_init(|| Inner {
            peers: conf.peers.iter().map(|peer| Rc::new(PeerState::new(peer))).collect(),
            pool: Pool::new(conf.keepalive.unwrap_or(0) as usize),
        })
    }

    /// The connections that are kept.
    pub fn pool(&self, conf: &model::Upstream) -> &Rc<Pool> {
        &self.inner(conf).pool
    }
}

impl PeerState {
    fn new(conf: &model::Peer) -> Self {
        let state = Self::default();
        state.effective_weight.set(i64::from(conf.weight));
        state
    }
}

/// One try of a peer, as variables and logs show it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// `$upstream_addr`.
    pub name: Arc<str>,
    /// 0: none.
    pub status: u16,
    /// When it began.
    pub start: Instant,
    /// When the connection stood.
    pub connect: Option<Instant>,
    /// When the head was there.
    pub header: Option<Instant>,
    /// When it ended.
    pub response: Option<Instant>,
    /// Bytes read from the connection.
    pub received: u64,
    /// Bytes of the body.
    pub body_bytes: u64,
}

impl Attempt {
    /// One that begins now.
    pub fn new(name: &Arc<str>, now: Instant) -> Self {
        Self {
            name: Arc::clone(name),
            status: 0,
            start: now,
            connect: None,
            header: None,
            response: None,
            received: 0,
            body_bytes: 0,
        }
    }
}
