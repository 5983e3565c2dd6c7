//! Upstreams as a worker sees them: the health and the turns of their peers, and the connections that stay open to them.
//!
//! Idle upstreams cost one empty cell each, since there may be a hundred thousand: everything else is made when the first
//! request comes.

mod balance;
mod connection;
#[cfg(test)]
mod fixture;
mod pool;
mod reaper;

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dysvr_conf::model;
use smallvec::SmallVec;

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
    /// connections, also those that are in use right now. Whether a peer is a backup decides between two of one address
    /// alone.
    pub fn carry_over(old: &Self, old_conf: &model::Upstream, new_conf: &model::Upstream) -> Self {
        let Some(old) = old.inner.get() else { return Self::default() };
        let mut left: Vec<Option<(&model::Peer, &Rc<PeerState>)>> =
            old_conf.peers.iter().zip(&old.peers).map(Some).collect();
        let mut by_addr: HashMap<&model::ListenAddr, SmallVec<[usize; 1]>> = HashMap::new();
        for (index, peer) in old_conf.peers.iter().enumerate() {
            by_addr.entry(&peer.addr).or_default().push(index);
        }
        let mut keep = |conf: &model::Peer, exactly: bool| {
            let candidates = by_addr.get(&conf.addr)?;
            let index = *candidates
                .iter()
                .find(|index| left[**index].is_some_and(|(known, _)| !exactly || known.backup == conf.backup))?;
            let (known, state) = left[index].take()?;
            state.change_weight(known, conf);
            Some(Rc::clone(state))
        };
        let mut peers: Vec<Option<Rc<PeerState>>> = new_conf.peers.iter().map(|peer| keep(peer, true)).collect();
        for (peer, conf) in peers.iter_mut().zip(&new_conf.peers).filter(|(peer, _)| peer.is_none()) {
            *peer = keep(conf, false).or_else(|| Some(Rc::new(PeerState::new(conf))));
        }
        let peers = peers.into_iter().flatten().collect();
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

    /// The turns of a peer with another weight begin anew. What its failures have cost it stays, in proportion.
    fn change_weight(&self, known: &model::Peer, conf: &model::Peer) {
        if known.weight != conf.weight || known.backup != conf.backup {
            let effective = self.effective_weight.get() * i64::from(conf.weight) / i64::from(known.weight);
            self.current_weight.set(0);
            self.effective_weight.set(effective);
        }
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
