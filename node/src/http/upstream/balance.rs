//! Whose turn it is: nginx's smooth weighted round robin with passive health and backup peers.
//!
//! Pure: the state of the peers and `now` (in whole seconds, as nginx counts) in, a choice out.

use std::rc::Rc;

use dysvr_conf::model::Upstream;
use smallvec::SmallVec;

use super::{Inner, PeerState, State};

/// A chosen peer.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Its index in the configuration.
    pub index: usize,
    /// Its state.
    pub peer: Rc<PeerState>,
}

/// How a try ended for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Alive,
    /// It failed: counts against it.
    Failed,
    /// It answered 403 or 404 and the request goes on elsewhere: does not count against it.
    Next,
}

/// The tries of one request.
#[derive(Debug, Default)]
pub struct Turn {
    tried: SmallVec<[bool; 8]>,
    /// Tries that are left, after the one that runs.
    tries: u32,
    backup: bool,
}

impl Turn {
    /// A request that has tried nobody yet.
    pub fn new(conf: &Upstream) -> Self {
        let tries = conf.peers.iter().filter(|peer| !peer.down).count();
        Self { tried: SmallVec::from_elem(false, conf.peers.len()), tries: tries as u32, backup: false }
    }

    /// Whether another peer may be tried.
    pub fn may_try(&self) -> bool {
        self.tries > 0
    }

    /// Whether another peer is left beside the one that is being tried.
    pub fn has_others(&self) -> bool {
        self.tries > 1
    }

    /// A kept connection turned out to be closed: that was nobody's try.
    pub fn give_back(&mut self) {
        self.tries += 1;
    }
}

/// Whether there is just one peer, which is never marked as failed.
fn is_single(conf: &Upstream) -> bool {
    conf.peers.len() == 1
}

impl State {
    /// The next peer, or `None` when all of them are down, failed or tried.
    pub fn choose(&self, conf: &Upstream, turn: &mut Turn, now: u64) -> Option<Choice> {
        let inner = self.inner(conf);
        if is_single(conf) {
            let choice = Choice { index: 0, peer: Rc::clone(inner.peers.first()?) };
            return (!conf.peers[0].down).then_some(choice);
        }
        if !turn.backup {
            if let Some(choice) = inner.choose_among(conf, turn, now) {
                return Some(choice);
            }
            turn.backup = true;
        }
        inner.choose_among(conf, turn, now)
    }

    /// Ends a try. True if the peer has just been marked as failed.
    pub fn end(&self, conf: &Upstream, choice: &Choice, turn: &mut Turn, outcome: Outcome, now: u64) -> bool {
        let peer = &choice.peer;
        if is_single(conf) {
            peer.fails.set(0);
            turn.tries = 0;
            return false;
        }
        let Some(conf) = conf.peers.get(choice.index) else { return false };
        turn.tries = turn.tries.saturating_sub(1);
        let mut disabled = false;
        if outcome == Outcome::Failed {
            peer.fails.set(peer.fails.get().saturating_add(1));
            peer.accessed.set(now);
            peer.checked.set(now);
            if conf.max_fails > 0 {
                let weight = i64::from(conf.weight);
                peer.effective_weight.set((peer.effective_weight.get() - weight / i64::from(conf.max_fails)).max(0));
                disabled = peer.fails.get() >= conf.max_fails;
            }
        } else if peer.accessed.get() < peer.checked.get() {
            // It was tried again after its punishment, and it works.
            peer.fails.set(0);
        }
        disabled
    }
}

impl Inner {
    fn choose_among(&self, conf: &Upstream, turn: &mut Turn, now: u64) -> Option<Choice> {
        let mut best: Option<usize> = None;
        let mut total = 0;
        for (index, (peer, state)) in conf.peers.iter().zip(&self.peers).enumerate() {
            let tried = turn.tried.get(index).copied().unwrap_or(true);
            if peer.backup != turn.backup || tried || peer.down {
                continue;
            }
            let failed = peer.max_fails > 0 && state.fails.get() >= peer.max_fails;
            if failed && now.saturating_sub(state.checked.get()) <= peer.fail_timeout {
                continue;
            }
            state.current_weight.set(state.current_weight.get() + state.effective_weight.get());
            total += state.effective_weight.get();
            if state.effective_weight.get() < i64::from(peer.weight) {
                state.effective_weight.set(state.effective_weight.get() + 1);
            }
            if best.is_none_or(|best| state.current_weight.get() > self.peers[best].current_weight.get()) {
                best = Some(index);
            }
        }
        let index = best?;
        let peer = &self.peers[index];
        turn.tried[index] = true;
        peer.current_weight.set(peer.current_weight.get() - total);
        if now.saturating_sub(peer.checked.get()) > conf.peers[index].fail_timeout {
            peer.checked.set(now);
        }
        Some(Choice { index, peer: Rc::clone(peer) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::upstream::fixture;
    use dysvr_conf::model::{ListenAddr, Peer};

    fn upstream(peers: &[(&str, u32, bool)]) -> Upstream {
        let peer = |(name, weight, backup): &(&str, u32, bool)| Peer {
            weight: *weight,
            max_fails: 2,
            backup: *backup,
            ..fixture::peer(ListenAddr::Unix(format!("/{name}").into()), name)
        };
        fixture::upstream(peers.iter().map(peer))
    }

    fn round(state: &State, conf: &Upstream, now: u64, outcome: impl Fn(&str) -> Outcome) -> String {
        let mut turn = Turn::new(conf);
        let mut path = String::new();
        loop {
            let Some(choice) = state.choose(conf, &mut turn, now) else { return path + "!" };
            let name = &conf.peers[choice.index].name;
            path.push_str(name);
            let outcome = outcome(name);
            state.end(conf, &choice, &mut turn, outcome, now);
            if outcome == Outcome::Alive || !turn.may_try() {
                return path;
            }
        }
    }

    #[test]
    fn weights_are_smooth() {
        let conf = upstream(&[("a", 5, false), ("b", 1, false), ("c", 1, false)]);
        let state = State::new(&conf);
        let path: String = (0..7).map(|_| round(&state, &conf, 1, |_| Outcome::Alive)).collect();
        assert_eq!(path, "aabacaa");
    }

    #[test]
    fn failed_peers_rest_and_backups_serve() {
        let conf = upstream(&[("a", 1, false), ("b", 1, false), ("z", 1, true)]);
        let state = State::new(&conf);
        let bad = |name: &str| if name == "z" { Outcome::Alive } else { Outcome::Failed };
        assert_eq!(round(&state, &conf, 100, bad), "abz");
        assert_eq!(round(&state, &conf, 100, bad), "baz");
        assert_eq!(round(&state, &conf, 110, bad), "z", "both rest for 10 s");
        assert_eq!(round(&state, &conf, 111, |_| Outcome::Alive), "a");
        assert_eq!(round(&state, &conf, 111, bad), "baz", "a works again, b is tried again");
    }

    #[test]
    fn a_single_peer_is_always_tried_once() {
        let conf = upstream(&[("a", 1, false)]);
        let state = State::new(&conf);
        for _ in 0..5 {
            assert_eq!(round(&state, &conf, 1, |_| Outcome::Failed), "a");
        }
    }

    #[test]
    fn a_replacement_keeps_what_is_known_of_the_same_peers() {
        let old = upstream(&[("a", 1, false), ("b", 1, false)]);
        let state = State::new(&old);
        for _ in 0..4 {
            round(&state, &old, 50, |name| if name == "a" { Outcome::Failed } else { Outcome::Alive });
        }
        let new = upstream(&[("c", 1, false), ("a", 1, false)]);
        let carried = State::carry_over(&state, &old, &new);
        let path: String = (0..3).map(|_| round(&carried, &new, 55, |_| Outcome::Alive)).collect();
        assert_eq!(path, "ccc", "a still rests");
        let old_inner = state.inner.get().unwrap();
        assert!(!old_inner.peers[0].retired.get() && old_inner.peers[1].retired.get());
    }
}
