//! The members of a cluster, of which one is used at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use etcd_client::Client;

/// A connection to each member, of which one is used until it falls silent. (One connection balanced over all members
/// sends half of the calls to a dead one.)
#[derive(Clone)]
pub(super) struct Members {
    clients: Arc<[Client]>,
    current: Arc<AtomicUsize>,
}

impl Members {
    /// One connection each.
    pub(super) fn new(clients: Vec<Client>) -> Self {
        Self { clients: clients.into(), current: Arc::default() }
    }

    /// The one in use, and its number.
    pub(super) fn current(&self) -> (usize, Client) {
        let n = self.current.load(Ordering::Relaxed) % self.clients.len();
        (n, self.clients[n].clone())
    }

    /// Member `n` is silent: the next one is used, unless somebody has moved on already.
    pub(super) fn silent(&self, n: usize) {
        let next = (n + 1) % self.clients.len();
        let _ = self.current.compare_exchange(n, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}
