//! Which configuration of a vhost an answer may show: a pure account of what was asked for when, and when it was done.
//!
//! A task may take effect from its signal on, and must have taken effect when its `D` is there. So an answer to a request
//! that was sent at `from` and came at `to` shows a state that had begun by `to` and whose successor was not done by
//! `from`: never one from before a `D` that the request had seen, never a mixture of two.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::load::LIMIT;

/// How long a past state is kept: no request takes longer and passes.
const KEPT: Duration = LIMIT.saturating_mul(2);

/// One configuration of a vhost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Absent,
    /// It is there, with these revisions of itself and of its upstream.
    Present {
        /// Its own.
        vhost: u64,
        /// Its upstream's.
        upstream: u64,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::Present { vhost, upstream } => write!(f, "r{vhost}/u{upstream}"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    begin: Instant,
    done: Option<Instant>,
}

/// The states of one vhost, the present one last.
#[derive(Clone, Debug)]
pub struct History {
    entries: VecDeque<Entry>,
}

impl History {
    /// One that has been so for as long as anybody asks.
    pub fn new(state: State, now: Instant) -> Self {
        Self { entries: [Entry { state, begin: now, done: Some(now) }].into() }
    }

    /// The last one that was asked for.
    pub fn last(&self) -> State {
        self.entries.back().map_or(State::Absent, |entry| entry.state)
    }

    /// From now on it may be seen.
    pub fn begin(&mut self, state: State, now: Instant) {
        while self.entries.get(1).and_then(|next| next.done).is_some_and(|done| now - done > KEPT) {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { state, begin: now, done: None });
    }

    /// From now on nothing else may be seen.
    pub fn done(&mut self, now: Instant) {
        if let Some(last) = self.entries.back_mut() {
            last.done = Some(now);
        }
    }

    /// What an answer may show that came at `to` to a request that was sent at `from`.
    pub fn allowed(&self, from: Instant, to: Instant) -> impl Iterator<Item = State> {
        let next = self.entries.iter().skip(1).map(|next| next.done).chain([None]);
        self.entries
            .iter()
            .zip(next)
            .filter(move |(entry, next)| entry.begin <= to && next.is_none_or(|done| done > from))
            .map(|(entry, _)| entry.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: State = State::Present { vhost: 1, upstream: 1 };
    const B: State = State::Present { vhost: 2, upstream: 1 };

    #[test]
    fn an_answer_shows_what_was_current_between_request_and_answer() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let mut history = History::new(A, zero);
        history.begin(B, at(10));
        let table = |history: &History, cases: &[(u64, u64, &[State])]| {
            for (from, to, states) in cases {
                let allowed: Vec<State> = history.allowed(at(*from), at(*to)).collect();
                assert_eq!(&allowed, states, "from {from} to {to}");
            }
        };
        // Before the signal, across it, and while it is not known to be done.
        table(&history, &[(1, 9, &[A]), (9, 11, &[A, B]), (11, 90, &[A, B])]);
        history.done(at(20));
        table(&history, &[(1, 9, &[A]), (9, 11, &[A, B]), (19, 30, &[A, B]), (20, 21, &[B]), (25, 26, &[B])]);
        history.begin(State::Absent, at(30));
        history.done(at(31));
        table(&history, &[(1, 99, &[A, B, State::Absent]), (25, 29, &[B]), (31, 32, &[State::Absent])]);
    }

    #[test]
    fn what_is_long_past_is_forgotten_and_the_present_is_not() {
        let zero = Instant::now();
        let mut history = History::new(A, zero);
        for second in 0..3 * KEPT.as_secs() {
            let now = zero + Duration::from_secs(second);
            history.begin(if second % 2 == 0 { A } else { B }, now);
            history.done(now);
        }
        assert!(history.entries.len() as u64 <= KEPT.as_secs() + 3, "{}", history.entries.len());
        assert_eq!(history.last(), B);
    }
}
