//! The rollout as a machine: reports and verbs in, states to store out.
//!
//! A transition takes effect when the store has it, not before: [`Effect::Store`] goes out, [`Input::Stored`] comes back,
//! and only then does [`Rollout::desired`] change. A store that does not answer freezes the rollout where it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use dysvr_proto::id::Revision;
use dysvr_proto::planted::{Bug, planted};

use super::message::{Effect, Input, Progress, Refusal, Standing};
use super::plan::Plan;
use super::state::{Active, Failure, Phase, PlanRef, State, Time, desired};

/// What a node's reason is cut to, bytes: it is kept in the state.
const REASON: usize = 200;

/// One running rollout.
#[derive(Debug)]
pub struct Rollout {
    state: State,
    plan: Arc<Plan>,
    plan_at: Option<PlanRef>,
    nodes: BTreeMap<String, Progress>,
    /// Those that were told to move and have no verdict. All are of one wave.
    moving: BTreeSet<String>,
    /// When they have failed.
    deadline: Time,
    /// What nodes proved to run.
    observed: HashMap<String, Revision>,
    /// Nodes with a task that they have not answered.
    busy: HashSet<String>,
    soak_until: Option<Time>,
    pending: Option<Pending>,
    /// Failures that the store does not have yet.
    unsaved: BTreeMap<String, Failure>,
    /// Verbs that wait for the store.
    asked: Vec<Verb>,
}

#[derive(Debug)]
struct Pending {
    state: Box<State>,
    handed_out: bool,
}

#[derive(Clone, Debug)]
enum Verb {
    Pause,
    Resume,
    Abort(String),
}

impl Rollout {
    /// Starts a queued rollout with the plan that is stored at `at`.
    pub fn begin(now: Time, state: State, plan: Arc<Plan>, at: PlanRef) -> Self {
        let mut rollout = Self::restore(now, state, plan);
        rollout.plan_at = Some(at);
        rollout.advance(now);
        rollout
    }

    /// Goes on where the stored state stands. What nodes run must be told anew.
    pub fn restore(now: Time, state: State, plan: Arc<Plan>) -> Self {
        let mut rollout = Self {
            nodes: BTreeMap::new(),
            moving: BTreeSet::new(),
            deadline: now,
            observed: HashMap::new(),
            busy: HashSet::new(),
            soak_until: None,
            pending: None,
            unsaved: BTreeMap::new(),
            asked: Vec::new(),
            plan_at: state.plan,
            state,
            plan,
        };
        rollout.nodes = rollout.standings();
        rollout.enter(now);
        rollout
    }

    /// The state that the store has.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// How far a node is.
    pub fn progress(&self, node: &str) -> Option<&Progress> {
        self.nodes.get(node)
    }

    /// How many nodes have been told to move and have no verdict.
    pub fn in_flight(&self) -> usize {
        self.moving.len()
    }

    /// What a node should run; `None` for one that is not in the plan.
    pub fn desired(&self, node: &str) -> Option<Revision> {
        desired(&self.state, &self.plan, node)
    }

    /// Whether the nodes of the plan may be sent tasks now. Not while a stop waits for the store: what was decided is not
    /// undone by being slow to write it down.
    pub fn may_send(&self) -> bool {
        let held = |phase| matches!(phase, Phase::Queued | Phase::Paused(_));
        let stopping = self.pending.as_ref().is_some_and(|pending| match pending.state.phase {
            Phase::Paused(_) | Phase::Aborted | Phase::Failed => true,
            Phase::RollingBack { .. } => !matches!(self.state.phase, Phase::RollingBack { .. }),
            _ => false,
        });
        !held(self.state.phase) && !stopping && self.asked.is_empty()
    }

    /// Whether everything that was asked of it is stored.
    pub fn is_settled(&self) -> bool {
        self.pending.is_none() && self.asked.is_empty()
    }

    /// Takes an input.
    pub fn handle(&mut self, now: Time, input: Input) -> Result<(), Refusal> {
        match input {
            Input::At { node, revision } => self.at(now, node, revision),
            Input::Sent { node } => {
                self.observed.remove(&node);
                self.busy.insert(node);
            }
            Input::Answered { node } => drop(self.busy.remove(&node)),
            Input::Gone { node } => {
                self.observed.remove(&node);
                self.busy.remove(&node);
            }
            Input::Nack { node, revision, reason } => self.nack(now, &node, revision, &reason),
            Input::Unhealthy { node, reason } => {
                if self.nodes.get(&node).is_some_and(|p| p.standing == Standing::Done)
                    && matches!(self.state.phase, Phase::Running | Phase::Soaking)
                {
                    self.fail(now, &node, &reason);
                }
            }
            Input::Pause => self.ask(Verb::Pause)?,
            Input::Resume => self.ask(Verb::Resume)?,
            Input::Abort(reason) => self.ask(Verb::Abort(reason))?,
            Input::Stored(state) => {
                let (phase, wave) = (self.state.phase, self.state.wave);
                self.pending = None;
                self.state = *state;
                self.unsaved.retain(|node, _| !self.state.failed.contains_key(node));
                if (phase, wave) != (self.state.phase, self.state.wave) {
                    self.enter(now);
                }
            }
            Input::NotStored => self.pending = None,
            Input::Tick => {}
        }
        self.expire(now);
        self.advance(now);
        Ok(())
    }

    /// What to do next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let pending = self.pending.as_mut().filter(|pending| !pending.handed_out)?;
        pending.handed_out = true;
        Some(Effect::Store(pending.state.clone()))
    }

    /// When to call [`Rollout::handle`] with [`Input::Tick`].
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.pending.is_some() || matches!(self.state.phase, Phase::Paused(_)) || self.state.phase.has_ended() {
            return None;
        }
        let deadline = (!self.moving.is_empty()).then_some(self.deadline);
        deadline.into_iter().chain(self.soak_until).min()
    }

    fn set(&mut self, now: Time, node: &str, standing: Standing) {
        let Some(progress) = self.nodes.get_mut(node) else { return };
        match standing {
            Standing::Updating | Standing::Returning => self.moving.insert(node.to_owned()),
            _ => self.moving.remove(node),
        };
        *progress = Progress { standing, since: now };
    }

    fn fail(&mut self, now: Time, node: &str, reason: &str) {
        let mut end = reason.len().min(REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = reason[..end].to_owned();
        let back = matches!(self.state.phase, Phase::RollingBack { .. });
        self.unsaved.entry(node.to_owned()).or_insert_with(|| Failure { reason: reason.clone(), at: now, back });
        self.set(now, node, Standing::Failed(reason));
    }

    fn at(&mut self, now: Time, node: String, revision: Revision) {
        let Some((_, planned)) = self.plan.find(&node) else { return };
        if self.busy.contains(&node) {
            return;
        }
        let from = planned.from;
        self.observed.insert(node.clone(), revision);
        match self.nodes.get(&node).map(|progress| &progress.standing) {
            Some(Standing::Updating) if revision == self.state.to => self.set(now, &node, Standing::Done),
            Some(Standing::Returning) if revision == from => self.set(now, &node, Standing::Undone),
            _ => {}
        }
    }

    fn nack(&mut self, now: Time, node: &str, revision: Revision, reason: &str) {
        let Some((_, planned)) = self.plan.find(node) else { return };
        let reason = if reason.is_empty() { "failed without a reason" } else { reason };
        match self.nodes.get(node).map(|progress| &progress.standing) {
            Some(Standing::Updating) if revision == self.state.to => {
                self.fail(now, node, reason);
            }
            Some(Standing::Returning) if revision == planned.from => {
                self.fail(now, node, &format!("did not go back: {reason}"));
            }
            _ => {}
        }
    }

    fn ask(&mut self, verb: Verb) -> Result<(), Refusal> {
        let phase = self.pending.as_ref().map_or(self.state.phase, |pending| pending.state.phase);
        let refusal = |verb| Err(Refusal { id: self.state.id, phase: phase.name(), verb });
        match (&verb, phase) {
            (Verb::Pause, Phase::Running | Phase::Soaking | Phase::Paused(_))
            | (Verb::Resume, Phase::Paused(_))
            | (Verb::Abort(_), Phase::Running | Phase::Soaking | Phase::Paused(_) | Phase::Aborted) => {}
            (Verb::Pause, _) => return refusal("paused"),
            (Verb::Resume, _) => return refusal("resumed"),
            (Verb::Abort(_), _) => return refusal("aborted"),
        }
        self.asked.push(verb);
        Ok(())
    }

    /// Nodes whose time is up have failed.
    fn expire(&mut self, now: Time) {
        if matches!(self.state.phase, Phase::Paused(_)) || now < self.deadline {
            return;
        }
        let seconds = self.state.strategy.node_deadline_ms / 1000;
        for node in std::mem::take(&mut self.moving) {
            let heard = self.observed.contains_key(&node) || self.busy.contains(&node);
            let back = self.nodes.get(&node).is_some_and(|progress| progress.standing == Standing::Returning);
            let reason = match (back, heard) {
                (true, _) => format!("did not go back within {seconds} s"),
                (false, true) => format!("no verdict within {seconds} s"),
                (false, false) => format!("away, no verdict within {seconds} s"),
            };
            self.fail(now, &node, &reason);
        }
    }

    /// Works out the next state, if there is one to store.
    fn advance(&mut self, now: Time) {
        if self.pending.is_some() || self.state.phase.has_ended() {
            return;
        }
        let mut next = self.state.clone();
        next.plan = self.plan_at;
        for (node, failure) in &self.unsaved {
            next.failed.entry(node.clone()).or_insert_with(|| failure.clone());
        }
        for verb in std::mem::take(&mut self.asked) {
            obey(&mut next, verb);
        }
        self.step(&mut next, now);
        if next != self.state {
            next.changed = now;
            if next.phase.has_ended() && next.ended == Time(0) {
                next.ended = now;
            }
            self.pending = Some(Pending { state: Box::new(next), handed_out: false });
        }
    }

    /// The transition that the nodes' standings and the time call for.
    fn step(&self, next: &mut State, now: Time) {
        let budget = next.strategy.failure_budget.of(self.plan.total());
        let same = next.phase == self.state.phase;
        match next.phase {
            Phase::Queued if self.plan.total() == 0 => next.phase = Phase::Done,
            Phase::Queued => next.phase = Phase::Running,
            Phase::Running | Phase::Soaking if next.spent() > budget && !planted(Bug::BudgetIgnored) => {
                next.reason = spent(next, budget);
                next.phase = match next.strategy.auto_undo {
                    true => Phase::RollingBack { back: next.wave },
                    false => Phase::Failed,
                };
            }
            Phase::Running if self.moving.is_empty() => match next.strategy.soak_ms {
                0 => self.next_wave(next),
                _ if planted(Bug::SoakSkipped) => self.next_wave(next),
                _ => next.phase = Phase::Soaking,
            },
            Phase::Soaking if same && self.soak_until.is_some_and(|until| until <= now) => self.next_wave(next),
            Phase::RollingBack { back } if same && self.moving.is_empty() => {
                next.phase = match back.checked_sub(1) {
                    Some(back) => Phase::RollingBack { back },
                    None => Phase::RolledBack,
                };
            }
            _ => {}
        }
    }

    fn next_wave(&self, next: &mut State) {
        let left_out = usize::from(planted(Bug::WaveOffByOne));
        if next.wave + 1 + left_out < self.plan.waves().len() {
            next.wave += 1;
            next.phase = Phase::Running;
        } else {
            next.phase = Phase::Done;
        }
    }

    /// What a new phase or wave means for its nodes.
    fn enter(&mut self, now: Time) {
        self.deadline = now.after(self.state.strategy.node_deadline_ms);
        self.soak_until = None;
        match self.state.phase {
            Phase::Soaking => self.soak_until = Some(now.after(self.state.strategy.soak_ms)),
            Phase::Running | Phase::Paused(Active::Running) => {
                self.turn(now, self.state.wave, Standing::Updating);
            }
            Phase::RollingBack { back } => self.turn(now, back, Standing::Returning),
            _ => {}
        }
    }

    /// The nodes of a wave begin to move, those excepted that are there already or have failed to get there.
    fn turn(&mut self, now: Time, wave: usize, standing: Standing) {
        let plan = Arc::clone(&self.plan);
        let back = standing == Standing::Returning;
        for planned in plan.waves().get(wave).into_iter().flatten() {
            let Some(progress) = self.nodes.get(&planned.node) else { continue };
            let goal = if back { planned.from } else { self.state.to };
            let over = match progress.standing {
                Standing::Done | Standing::Failed(_) => !back,
                Standing::Undone => true,
                _ => false,
            };
            if over {
                continue;
            }
            let there = self.observed.get(&planned.node) == Some(&goal);
            let standing = match (there, back) {
                (true, true) => Standing::Undone,
                (true, false) => Standing::Done,
                (false, _) => standing.clone(),
            };
            self.set(now, &planned.node, standing);
        }
    }

    /// The standings that follow from the stored state alone.
    fn standings(&self) -> BTreeMap<String, Progress> {
        let state = &self.state;
        let of = |wave: usize, node: &str| {
            let failed = state.failed.get(node);
            let since = failed.map_or(state.changed, |failure| failure.at);
            let moved = wave < state.wave || (wave == state.wave && !matches!(state.phase, Phase::Queued));
            let standing = match (state.phase, failed) {
                (Phase::RollingBack { back }, Some(failure)) if wave > back || failure.back => {
                    Standing::Failed(failure.reason.clone())
                }
                (Phase::RollingBack { back }, None) if moved && wave > back => Standing::Undone,
                (Phase::RolledBack, None) if moved => Standing::Undone,
                (_, Some(failure)) => Standing::Failed(failure.reason.clone()),
                _ if !moved => Standing::Waiting,
                (Phase::Running | Phase::Paused(Active::Running), None) if wave == state.wave => Standing::Updating,
                _ => Standing::Done,
            };
            Progress { standing, since }
        };
        let waves = self.plan.waves().iter().enumerate();
        waves.flat_map(|(w, nodes)| nodes.iter().map(move |p| (p.node.clone(), of(w, &p.node)))).collect()
    }
}

fn obey(next: &mut State, verb: Verb) {
    match (verb, next.phase) {
        (Verb::Pause, Phase::Running) => next.phase = Phase::Paused(Active::Running),
        (Verb::Pause, Phase::Soaking) => next.phase = Phase::Paused(Active::Soaking),
        (Verb::Resume, Phase::Paused(Active::Running)) => next.phase = Phase::Running,
        (Verb::Resume, Phase::Paused(Active::Soaking)) => next.phase = Phase::Soaking,
        (Verb::Abort(reason), Phase::Running | Phase::Soaking | Phase::Paused(_)) => {
            next.reason = reason;
            next.phase = Phase::Aborted;
        }
        // What it was asked for has been overtaken.
        _ => {}
    }
}

fn spent(state: &State, budget: usize) -> String {
    let first = state.failed.iter().find(|(_, failure)| !failure.back);
    let first = first.map_or_else(String::new, |(node, failure)| format!("; {node}: {}", failure.reason));
    format!("{} failed, the budget is {budget}{first}", state.spent())
}
