//! One task's way through the workers, as a pure machine: prepare everywhere, then commit everywhere.
//!
//! Before the commit anything that goes wrong ends the round with nothing changed anywhere. After it the only way is
//! forward: a worker that does not follow is replaced by a fork of the committed master.
//!
//! A task of which a worker has nothing to find out that the master does not know, no file, no socket, nothing to compile,
//! begins with the commit: what each worker could refuse the master has refused already. A large one of that kind they were
//! told to prepare while the master still checked it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use dysvr_proto::planted::{Bug, planted};

/// A worker, by its slot in the zone.
pub type SlotId = usize;

/// What happens to a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A worker has prepared the version.
    Prepared(SlotId, u64),
    /// A worker cannot; with its reason.
    Refused(SlotId, u64, String),
    /// A worker has committed the version.
    Committed(SlotId, u64),
    /// A worker has ended, or its channel has.
    Died(SlotId),
    /// A replacement serves with the committed configuration.
    Replaced {
        /// The worker that it replaces.
        old: SlotId,
    },
    /// Only the clock has moved.
    Tick,
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send `commit` to each of these, make the change in the master's own cycle, and write `L`.
    Commit(Vec<SlotId>),
    /// The same, but these have not prepared it: they are told to apply it.
    Apply(Vec<SlotId>),
    /// Send `abort` to these: they forget what they prepared.
    Abort(Vec<SlotId>),
    /// Let these leave, and others take their place: they do not answer, so no later task could reach them either.
    Retire(Vec<SlotId>),
    /// Fork a worker with the committed configuration; it stands in for this one.
    Replace(SlotId),
    /// The verdict.
    End(Verdict),
}

/// How a round ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every live worker serves the version.
    Done,
    /// Nothing has changed; why.
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preparing,
    Committing,
    Over,
}

/// The machine.
#[derive(Debug)]
pub struct Round {
    version: u64,
    phase: Phase,
    /// Alive and part of the round.
    members: BTreeSet<SlotId>,
    /// Still to answer.
    waiting: BTreeSet<SlotId>,
    /// Replacements that are under way.
    replacing: BTreeSet<SlotId>,
    deadline: Duration,
    timeout: Duration,
    effects: VecDeque<Effect>,
}

impl Round {
    /// A round for a version that was published and of which `members` have been told to prepare. Each phase may take
    /// `timeout`.
    pub fn new(now: Duration, version: u64, members: impl IntoIterator<Item = SlotId>, timeout: Duration) -> Self {
        let mut round = Self::begin(now, Phase::Preparing, version, members, timeout);
        round.advance(now);
        round
    }

    /// A round that begins with the commit although `members` may still prepare: they were told to before the task was checked,
    /// and what each could refuse the master would have refused. `timeout` is for all that they do.
    pub fn early(now: Duration, version: u64, members: impl IntoIterator<Item = SlotId>, timeout: Duration) -> Self {
        let mut round = Self::begin(now, Phase::Committing, version, members, timeout);
        round.effects.push_back(Effect::Commit(round.members.iter().copied().collect()));
        round.advance(now);
        round
    }

    /// A round that begins with the commit: `members` were told nothing yet. `timeout` is for all that they do.
    pub fn direct(now: Duration, version: u64, members: impl IntoIterator<Item = SlotId>, timeout: Duration) -> Self {
        let mut round = Self::begin(now, Phase::Committing, version, members, timeout);
        round.effects.push_back(Effect::Apply(round.members.iter().copied().collect()));
        round.advance(now);
        round
    }

    fn begin(
        now: Duration,
        phase: Phase,
        version: u64,
        members: impl IntoIterator<Item = SlotId>,
        timeout: Duration,
    ) -> Self {
        let members: BTreeSet<_> = members.into_iter().collect();
        Self {
            version,
            phase,
            waiting: members.clone(),
            members,
            replacing: BTreeSet::new(),
            deadline: now + timeout,
            timeout,
            effects: VecDeque::new(),
        }
    }

    /// The version that it is about.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether a worker's answer is still to come.
    pub fn awaits(&self, slot: SlotId) -> bool {
        self.waiting.contains(&slot)
    }

    /// Whether the change is made in the master: from then on new workers have it from birth.
    pub fn is_committed(&self) -> bool {
        self.phase != Phase::Preparing
    }

    /// Takes in what has happened. Inputs of other versions, of strangers and after the end change nothing.
    pub fn handle(&mut self, now: Duration, input: Input) {
        match (self.phase, input) {
            (Phase::Preparing, Input::Prepared(slot, version)) if version == self.version => {
                self.waiting.remove(&slot);
            }
            (Phase::Preparing, Input::Refused(slot, version, reason)) if version == self.version => {
                if self.members.contains(&slot) {
                    return self.fail(reason);
                }
            }
            (Phase::Preparing, Input::Died(slot)) => {
                if self.members.remove(&slot) {
                    return self.fail(format!("worker {slot} ended before the commit"));
                }
            }
            (Phase::Preparing, Input::Tick) if now >= self.deadline => {
                let late: Vec<SlotId> = self.waiting.iter().copied().collect();
                let (count, ms) = (late.len(), self.timeout.as_millis());
                self.effects.push_back(Effect::Retire(late));
                return self.fail(format!("{count} worker(s) did not prepare within {ms} ms"));
            }
            (Phase::Committing, Input::Committed(slot, version)) if version == self.version => {
                self.waiting.remove(&slot);
                if planted(Bug::AckBeforeAll) {
                    self.waiting.clear();
                }
            }
            (Phase::Committing, Input::Refused(slot, version, _)) if version == self.version => self.replace(slot),
            (Phase::Committing, Input::Died(slot)) => self.replace(slot),
            (Phase::Committing, Input::Replaced { old }) => {
                self.replacing.remove(&old);
            }
            (Phase::Committing, Input::Tick) if now >= self.deadline => {
                for slot in self.waiting.clone() {
                    self.replace(slot);
                }
            }
            _ => return,
        }
        self.advance(now);
    }

    /// What to do next, until there is nothing.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Tick`] is due, if ever.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let waits = self.phase == Phase::Preparing || !self.waiting.is_empty();
        (self.phase != Phase::Over && waits).then_some(self.deadline)
    }

    fn replace(&mut self, slot: SlotId) {
        if self.waiting.remove(&slot) {
            self.replacing.insert(slot);
            self.effects.push_back(Effect::Replace(slot));
        }
    }

    fn fail(&mut self, reason: String) {
        self.phase = Phase::Over;
        self.effects.push_back(Effect::Abort(self.members.iter().copied().collect()));
        self.effects.push_back(Effect::End(Verdict::Failed(reason)));
    }

    fn advance(&mut self, now: Duration) {
        if !self.waiting.is_empty() {
            return;
        }
        if self.phase == Phase::Preparing {
            self.phase = Phase::Committing;
            self.waiting = self.members.clone();
            self.deadline = now + self.timeout;
            self.effects.push_back(Effect::Commit(self.members.iter().copied().collect()));
        }
        let replaced = self.replacing.is_empty() || planted(Bug::DoneBeforeReplacement);
        if self.phase == Phase::Committing && self.waiting.is_empty() && replaced {
            self.phase = Phase::Over;
            self.effects.push_back(Effect::End(Verdict::Done));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const ZERO: Duration = Duration::ZERO;

    fn effects(round: &mut Round) -> Vec<Effect> {
        std::iter::from_fn(|| round.poll_effect()).collect()
    }

    fn done() -> Effect {
        Effect::End(Verdict::Done)
    }

    #[test]
    fn commits_after_all_have_prepared_and_is_done_after_all_have_committed() {
        let mut round = Round::new(ZERO, 5, [0, 1], LIMIT);
        round.handle(ZERO, Input::Prepared(0, 5));
        round.handle(ZERO, Input::Prepared(0, 5));
        round.handle(ZERO, Input::Prepared(1, 4));
        assert_eq!(effects(&mut round), []);
        round.handle(ZERO, Input::Prepared(1, 5));
        assert_eq!(effects(&mut round), [Effect::Commit(vec![0, 1])]);
        round.handle(ZERO, Input::Committed(1, 5));
        assert_eq!(effects(&mut round), []);
        round.handle(ZERO, Input::Committed(0, 5));
        assert_eq!(effects(&mut round), [done()]);
        assert_eq!(round.poll_timeout(), None);
    }

    #[test]
    fn a_refusal_a_death_or_lateness_before_the_commit_changes_nothing() {
        for input in [Input::Refused(1, 5, "no".into()), Input::Died(1), Input::Tick] {
            let mut round = Round::new(ZERO, 5, [0, 1], LIMIT);
            round.handle(ZERO, Input::Prepared(0, 5));
            round.handle(LIMIT, input.clone());
            let mut got = effects(&mut round);
            if input == Input::Tick {
                assert_eq!(got.remove(0), Effect::Retire(vec![1]), "the late one is replaced");
            }
            assert!(matches!(&got[0], Effect::Abort(slots) if slots.contains(&0)), "{input:?}: {got:?}");
            assert!(
                matches!(&got[1], Effect::End(Verdict::Failed(reason)) if !reason.is_empty()),
                "{input:?}: {got:?}"
            );
            round.handle(LIMIT, Input::Prepared(1, 5));
            assert_eq!(effects(&mut round), [], "it is over");
        }
    }

    #[test]
    fn after_the_commit_the_dead_and_the_late_are_replaced_and_only_then_it_is_done() {
        let mut round = Round::new(ZERO, 5, [0, 1, 2], LIMIT);
        for slot in 0..3 {
            round.handle(ZERO, Input::Prepared(slot, 5));
        }
        effects(&mut round);
        round.handle(ZERO, Input::Died(1));
        assert_eq!(effects(&mut round), [Effect::Replace(1)]);
        round.handle(ZERO, Input::Committed(0, 5));
        round.handle(LIMIT / 2, Input::Tick);
        assert_eq!(effects(&mut round), []);
        round.handle(LIMIT, Input::Tick);
        assert_eq!(effects(&mut round), [Effect::Replace(2)]);
        round.handle(LIMIT, Input::Replaced { old: 1 });
        assert_eq!(effects(&mut round), []);
        round.handle(LIMIT, Input::Replaced { old: 2 });
        assert_eq!(effects(&mut round), [done()]);
    }

    #[test]
    fn a_death_after_its_commit_holds_nothing_up() {
        let mut round = Round::new(ZERO, 5, [0, 1], LIMIT);
        round.handle(ZERO, Input::Prepared(0, 5));
        round.handle(ZERO, Input::Prepared(1, 5));
        round.handle(ZERO, Input::Committed(0, 5));
        round.handle(ZERO, Input::Died(0));
        effects(&mut round);
        round.handle(ZERO, Input::Committed(1, 5));
        assert_eq!(effects(&mut round), [done()]);
    }

    #[test]
    fn without_workers_the_master_alone_commits() {
        let mut round = Round::new(ZERO, 1, [], LIMIT);
        assert_eq!(effects(&mut round), [Effect::Commit(vec![]), done()]);
        let mut round = Round::direct(ZERO, 1, [], LIMIT);
        assert_eq!(effects(&mut round), [Effect::Apply(vec![]), done()]);
    }

    #[test]
    fn a_direct_or_early_round_is_committed_at_once_and_who_does_not_follow_is_replaced() {
        type Begin = fn(Duration, u64, [SlotId; 2], Duration) -> Round;
        let ways: [(Begin, Effect); 2] =
            [(Round::direct, Effect::Apply(vec![0, 1])), (Round::early, Effect::Commit(vec![0, 1]))];
        let inputs = [Input::Refused(1, 5, "no".into()), Input::Died(1), Input::Tick];
        for (input, (begin, told)) in inputs.iter().flat_map(|input| ways.iter().map(move |way| (input, way))) {
            let mut round = begin(ZERO, 5, [0, 1], LIMIT);
            assert!(round.is_committed());
            assert_eq!(effects(&mut round), std::slice::from_ref(told));
            round.handle(ZERO, Input::Prepared(1, 5));
            round.handle(ZERO, Input::Committed(1, 4));
            round.handle(ZERO, Input::Refused(1, 4, "what was before".into()));
            round.handle(ZERO, Input::Committed(0, 5));
            assert_eq!(effects(&mut round), [], "a worker is missing");
            round.handle(LIMIT, input.clone());
            assert_eq!(effects(&mut round), [Effect::Replace(1)], "{input:?}");
            round.handle(LIMIT, Input::Replaced { old: 1 });
            assert_eq!(effects(&mut round), [done()]);
            assert_eq!(round.poll_timeout(), None);
        }
    }
}
