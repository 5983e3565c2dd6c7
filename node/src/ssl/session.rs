//! `ssl_session_cache`: sessions in the worker's memory, bounded in number and age.
//!
//! Each worker has its own, the `shared` ones too: a client that comes to another worker and has no ticket makes a full
//! handshake there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dysvr_conf::digest::Digest;
use rustc_hash::FxHashMap;
use rustls::server::StoresServerSessions;

use crate::os::time::monotonic;

/// A cache.
#[derive(Debug)]
pub(super) struct Sessions {
    most: usize,
    /// The library wants it shareable between threads; there is only one.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// When it was put there, and the session.
    sessions: FxHashMap<Vec<u8>, (Duration, Vec<u8>)>,
    /// In the order of their age; those that were taken are still here.
    order: VecDeque<(Duration, Vec<u8>)>,
}

impl std::fmt::Debug for Table {
    /// Sessions are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sessions", self.sessions.len())
    }
}

impl Sessions {
    /// For so many sessions.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, now: Duration, key: Vec<u8>, session: Vec<u8>) {
        let mut table = self.table();
        while table.order.len() >= self.most {
            table.drop_oldest();
        }
        table.order.push_back((now, key.clone()));
        table.sessions.insert(key, (now, session));
    }

    fn get(&self, now: Duration, key: &[u8], timeout: Duration) -> Option<Vec<u8>> {
        let table = self.table();
        let (made, session) = table.sessions.get(key)?;
        (now.saturating_sub(*made) <= timeout).then(|| session.clone())
    }

    fn take(&self, now: Duration, key: &[u8], timeout: Duration) -> Option<Vec<u8>> {
        let (made, session) = self.table().sessions.remove(key)?;
        (now.saturating_sub(made) <= timeout).then_some(session)
    }
}

impl Table {
    fn drop_oldest(&mut self) {
        let Some((made, key)) = self.order.pop_front() else { return };
        // A newer one may have its key.
        if self.sessions.get(&key).is_some_and(|(at, _)| *at == made) {
            self.sessions.remove(&key);
        }
    }
}

/// A cache as one vhost uses it: sessions of other certificates are not found.
#[derive(Debug)]
pub(super) struct Store {
    sessions: Arc<Sessions>,
    context: Digest,
    timeout: Duration,
}

impl Store {
    /// Sessions end after `timeout` seconds.
    pub(super) fn new(sessions: Arc<Sessions>, context: Digest, timeout: u64) -> Self {
        Self { sessions, context, timeout: Duration::from_secs(timeout) }
    }

    fn key(&self, id: &[u8]) -> Vec<u8> {
        [&self.context.0, id].concat()
    }
}

impl StoresServerSessions for Store {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.sessions.put(monotonic(), self.key(&key), value);
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.sessions.get(monotonic(), &self.key(key), self.timeout)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.sessions.take(monotonic(), &self.key(key), self.timeout)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_bounded_in_number_and_age() {
        let sessions = Sessions::new(2);
        let (at, long) = (Duration::from_secs, Duration::from_secs(10));
        for n in 0..3_u8 {
            sessions.put(at(u64::from(n)), vec![n], vec![n; 3]);
        }
        assert_eq!(sessions.get(at(3), &[0], long), None, "the oldest made room");
        assert_eq!(sessions.get(at(3), &[2], long), Some(vec![2; 3]));
        assert_eq!(sessions.get(at(13), &[2], long), None, "too old");
        assert_eq!(sessions.take(at(3), &[1], long), Some(vec![1; 3]));
        assert_eq!(sessions.take(at(3), &[1], long), None, "taken once");
        for n in 0..100_u8 {
            sessions.put(at(20), vec![n], vec![]);
            sessions.take(at(20), &[n], long);
        }
        assert!(sessions.table().order.len() <= 2 && sessions.table().sessions.len() <= 2);
    }
}
