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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::task::Poll;

    use dysvr_conf::model::{ListenAddr, Upstream};

    use super::*;
    use crate::http::upstream::{Reaper, State, Turn, connect, fixture};

    fn upstream(sockets: &[&TcpListener]) -> Upstream {
        let peer = |socket: &&TcpListener| fixture::peer(ListenAddr::Inet(socket.local_addr().unwrap()), "p");
        Upstream { keepalive: Some(4), ..fixture::upstream(sockets.iter().map(peer)) }
    }

    /// A connection to each peer, all of them idle in the pool.
    async fn fill(state: &State, conf: &Upstream, reaper: &Rc<Reaper>) -> Vec<Rc<PeerState>> {
        let mut turn = Turn::new(conf);
        let mut peers = Vec::new();
        for _ in &conf.peers {
            let choice = state.choose(conf, &mut turn, 1).unwrap();
            let stream = connect(&conf.peers[choice.index].addr).await.unwrap();
            let connection = Box::new(PeerConnection::new(stream, &choice.peer, Instant::now()).await.unwrap());
            let mut connection = Some(connection);
            std::future::poll_fn(|cx| {
                if let Some(connection) = connection.take() {
                    state.pool(conf).put(reaper, connection, Instant::now(), cx);
                }
                Poll::Ready(())
            })
            .await;
            peers.push(choice.peer);
        }
        peers
    }

    #[test]
    fn a_replacement_keeps_the_connections_of_the_same_peers_and_closes_the_others() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
        runtime.block_on(async {
            let (a, b) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
            let reaper = Rc::new(Reaper::default());
            let old = upstream(&[&a, &b]);
            let state = State::new(&old);
            let peers = fill(&state, &old, &reaper).await;
            assert_eq!(state.pool(&old).idle(), 2);

            let new = upstream(&[&b]);
            let carried = State::carry_over(&state, &old, &new);
            assert_eq!(carried.pool(&new).idle(), 1);
            let now = Instant::now();
            let first = peers.iter().filter(|peer| carried.pool(&new).take(peer, now).is_some()).count();
            assert_eq!(first, 1, "that of b");

            // Without `keepalive` nothing is kept, and what is in use is not put back.
            let mut none = upstream(&[&b]);
            none.keepalive = None;
            let carried = State::carry_over(&carried, &new, &none);
            fill(&carried, &none, &reaper).await;
            assert_eq!(carried.pool(&none).idle(), 0);
        });
    }
}
