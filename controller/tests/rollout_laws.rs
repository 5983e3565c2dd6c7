//! The laws of rollouts, over random fleets, faults and interleavings on a virtual clock. A failure prints its seed;
//! `DYSVR_SEED=N` repeats it, `DYSVR_ROUNDS=N` tries more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dysvr_controller::rollout::{
    Budget, Effect, Input, Phase, Plan, PlanRef, Planned, Rollout, Size, Standing, State, Strategy, Time, desired,
};
use dysvr_proto::id::{Revision, RolloutId};

const FROM: Revision = Revision(4);
const TO: Revision = Revision(5);

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

/// What a node does with the task to the new revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Good,
    /// Refuses the new revision.
    Bad,
    /// Takes a task and never answers.
    Silent,
}

#[derive(Clone, Debug)]
struct Node {
    nature: Nature,
    connected: bool,
    revision: Revision,
    task: Option<(Revision, Time)>,
    /// Refused already on this stream.
    nacked: Option<Revision>,
}

struct World {
    dice: Dice,
    now: Time,
    core: Rollout,
    /// What the store has.
    stored: State,
    plan: Arc<Plan>,
    /// A write that is on its way.
    writing: Option<Box<State>>,
    nodes: BTreeMap<String, Node>,
    faults: bool,
    /// Failures that the machine was told of, forward.
    bad_news: BTreeSet<String>,
    /// Since when the store says that a wave soaks.
    soaking: Option<Time>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let count = 1 + dice.below(12);
        let sizes = [Size::Count(1), Size::Count(3), Size::Percent(25), Size::Percent(100)];
        let pick = |dice: &mut Dice| sizes[usize::try_from(dice.below(4)).unwrap()];
        let waves = (0..=dice.below(3)).map(|_| pick(&mut dice)).collect();
        let strategy = Strategy {
            waves,
            failure_budget: Budget(Size::Count(u32::try_from(dice.below(4)).unwrap())),
            soak_ms: dice.below(2) * 5_000,
            node_deadline_ms: 30_000,
            auto_undo: dice.percent(80),
            ..Strategy::default()
        };
        let badness = dice.below(40);
        let nodes: BTreeMap<_, _> = (0..count)
            .map(|n| {
                let nature = match (dice.percent(badness), dice.percent(70)) {
                    (false, _) => Nature::Good,
                    (true, true) => Nature::Bad,
                    (true, false) => Nature::Silent,
                };
                let node = Node { nature, connected: true, revision: FROM, task: None, nacked: None };
                (format!("n{n:02}"), node)
            })
            .collect();
        let planned = nodes.keys().map(|node| Planned { node: node.clone(), from: FROM }).collect();
        let plan = Arc::new(Plan::new(planned, &strategy));
        let now = Time(1_000);
        let stored = State::queued(RolloutId(1), FROM, TO, strategy, now);
        let core = Rollout::begin(now, stored.clone(), Arc::clone(&plan), PlanRef([0; 32]));
        let mut world = Self {
            dice,
            now,
            core,
            stored,
            plan,
            writing: None,
            nodes,
            faults: true,
            bad_news: BTreeSet::new(),
            soaking: None,
        };
        world.tell_all();
        world
    }

    fn handle(&mut self, input: Input) {
        let verb = matches!(input, Input::Pause | Input::Resume | Input::Abort(_));
        let outcome = self.core.handle(self.now, input);
        assert!(verb || outcome.is_ok(), "{outcome:?}");
        self.check();
    }

    fn tell_all(&mut self) {
        for (node, held) in self.nodes.clone() {
            if held.connected {
                self.handle(Input::At { node, revision: held.revision });
            }
        }
    }

    /// What must hold after every step.
    fn check(&mut self) {
        let state = self.core.state();
        let current = match state.phase {
            Phase::RollingBack { back } => back,
            _ => state.wave,
        };
        let size = self.plan.waves().get(current).map_or(0, Vec::len);
        if !state.phase.has_ended() {
            assert!(
                self.core.in_flight() <= size,
                "{} in flight in a wave of {size}: {state:?}",
                self.core.in_flight()
            );
        }
        assert_eq!(*state, self.stored, "only what is stored takes effect");
        for node in self.nodes.keys() {
            if let Some(progress) = self.core.progress(node)
                && matches!(progress.standing, Standing::Failed(_))
                && matches!(state.phase, Phase::Running | Phase::Soaking)
            {
                self.bad_news.insert(node.clone());
            }
        }
    }

    /// A node that is free for it gets the task that it should have.
    fn pump(&mut self) {
        let budget = self.stored.strategy.failure_budget.of(self.plan.total());
        let mut sent = Vec::new();
        for (name, node) in &mut self.nodes {
            let Some(want) = self.core.desired(name) else { continue };
            assert_eq!(Some(want), desired(&self.stored, &self.plan, name), "desired follows from what is stored");
            let idle = node.connected && node.task.is_none() && node.revision != want && node.nacked != Some(want);
            if !idle || !self.core.may_send() {
                continue;
            }
            if want == TO {
                let (wave, _) = self.plan.find(name).unwrap();
                assert!(wave <= self.stored.wave, "{name} moves before its wave");
                let stops = self.stored.strategy.auto_undo || self.stored.phase != Phase::Failed;
                let live = matches!(self.stored.phase, Phase::Running | Phase::Soaking);
                assert!(!(live && stops) || self.bad_news.len() <= budget, "{name} gets a task with the budget spent");
            }
            node.task = Some((want, self.now.after(1 + self.dice.below(3_000))));
            sent.push(name.clone());
        }
        for node in sent {
            self.handle(Input::Sent { node });
        }
    }

    /// Tasks that are due get their verdict.
    fn verdicts(&mut self) {
        let now = self.now;
        let due: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.connected && node.task.is_some_and(|(_, at)| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let node = self.nodes.get_mut(&name).unwrap();
            let Some((to, _)) = node.task else { continue };
            match node.nature {
                Nature::Silent if to == TO => {
                    // It will be busy for long.
                    node.task = Some((to, now.after(100_000)));
                }
                Nature::Bad if to == TO => {
                    node.task = None;
                    node.nacked = Some(to);
                    let revision = node.revision;
                    self.handle(Input::Answered { node: name.clone() });
                    self.handle(Input::Nack { node: name.clone(), revision: to, reason: "no".into() });
                    self.handle(Input::At { node: name, revision });
                }
                _ => {
                    node.task = None;
                    node.revision = to;
                    self.handle(Input::Answered { node: name.clone() });
                    self.handle(Input::At { node: name, revision: to });
                }
            }
        }
    }

    fn store(&mut self) {
        if self.writing.is_none()
            && let Some(Effect::Store(state)) = self.core.poll_effect()
        {
            self.writing = Some(state);
        }
        let Some(state) = self.writing.take() else { return };
        if !self.faults || self.dice.percent(60) {
            self.keep(&state);
            self.core_stored(state);
        } else if self.dice.percent(40) {
            self.handle(Input::NotStored);
        } else {
            self.writing = Some(state);
        }
    }

    fn core_stored(&mut self, state: Box<State>) {
        let outcome = self.core.handle(self.now, Input::Stored(state));
        assert!(outcome.is_ok());
        self.check();
    }

    /// The store has a state.
    fn keep(&mut self, state: &State) {
        self.check_transition(state);
        if state.phase != Phase::Soaking {
            self.soaking = None;
        } else if self.stored.phase != Phase::Soaking {
            self.soaking = Some(self.now);
        }
        self.stored = state.clone();
    }

    /// A wave begins only when the one before it has all its verdicts within the budget, and has soaked.
    fn check_transition(&self, next: &State) {
        let last = &self.stored;
        assert!(!last.phase.has_ended() || last.phase == next.phase, "{last:?} → {next:?}");
        assert!(next.wave == last.wave || next.wave == last.wave + 1);
        assert!(last.failed.keys().all(|node| next.failed.contains_key(node)), "a failure was forgotten");
        if next.wave > last.wave {
            assert!(next.spent() <= next.strategy.failure_budget.of(self.plan.total()));
            for planned in &self.plan.waves()[last.wave] {
                let progress = self.core.progress(&planned.node).unwrap();
                assert!(matches!(progress.standing, Standing::Done | Standing::Failed(_)), "{progress:?}");
            }
        }
        let on = next.wave > last.wave || (next.phase == Phase::Done && last.phase != Phase::Done);
        if on && last.phase != Phase::Queued && next.strategy.soak_ms > 0 {
            let soaked = self.soaking.is_some_and(|since| next.changed >= since.after(next.strategy.soak_ms));
            assert!(soaked, "on without a soak since {:?}: {last:?} → {next:?}", self.soaking);
        }
        if let (Phase::RollingBack { back: before }, Phase::RollingBack { back: after }) = (last.phase, next.phase) {
            assert!(after == before || after + 1 == before);
        }
    }

    /// The controller dies and another one goes on: with what is stored and what nodes say.
    fn restart(&mut self) {
        // A write that was on its way may have happened.
        if let Some(state) = self.writing.take()
            && self.dice.percent(50)
        {
            self.keep(&state);
        }
        self.core = match self.stored.phase {
            Phase::Queued => Rollout::begin(self.now, self.stored.clone(), Arc::clone(&self.plan), PlanRef([0; 32])),
            _ => Rollout::restore(self.now, self.stored.clone(), Arc::clone(&self.plan)),
        };
        self.bad_news = self.stored.failed.keys().cloned().collect();
        for node in self.nodes.values_mut() {
            node.nacked = None;
        }
        self.tell_all();
        // Tasks that are out are sent again on the new stream, and answered once.
        for (node, held) in self.nodes.clone() {
            if held.task.is_some() {
                self.handle(Input::Sent { node });
            }
        }
    }

    fn fault(&mut self) {
        let names: Vec<_> = self.nodes.keys().cloned().collect();
        let name = names[usize::try_from(self.dice.below(names.len() as u64)).unwrap()].clone();
        match self.dice.below(12) {
            0 => self.handle(Input::Pause),
            1 => self.handle(Input::Resume),
            2 if self.dice.percent(10) => self.handle(Input::Abort("enough".into())),
            3 => self.restart(),
            4 => {
                let node = self.nodes.get_mut(&name).unwrap();
                if node.connected {
                    node.connected = false;
                    node.task = None;
                    self.handle(Input::Gone { node: name });
                }
            }
            5 => {
                let node = self.nodes.get_mut(&name).unwrap();
                if !node.connected {
                    node.connected = true;
                    node.nacked = None;
                    let revision = node.revision;
                    self.handle(Input::At { node: name, revision });
                }
            }
            6 if self.dice.percent(20) => self.handle(Input::Unhealthy { node: name, reason: "down".into() }),
            // Reports out of place change nothing.
            7 => self.handle(Input::Nack { node: name, revision: Revision(3), reason: "old".into() }),
            8 => self.handle(Input::At { node: "stranger".into(), revision: TO }),
            _ => {}
        }
    }

    fn step(&mut self) {
        self.now = self.now.after(self.dice.below(2_000));
        if self.faults {
            self.fault();
        }
        self.verdicts();
        self.handle(Input::Tick);
        self.store();
        self.pump();
    }

    /// No faults any more: it must come to an end.
    fn settle(&mut self) {
        self.faults = false;
        for step in 0.. {
            if self.stored.phase.has_ended() {
                return;
            }
            if matches!(self.stored.phase, Phase::Paused(_)) && self.core.is_settled() {
                self.handle(Input::Resume);
            }
            assert!(step < 2_000, "it does not end: {:?}", self.stored);
            self.step();
        }
    }
}

fn rounds(default: u64) -> Vec<u64> {
    if let Some(seed) = std::env::var("DYSVR_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return vec![seed];
    }
    let rounds = std::env::var("DYSVR_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default);
    (0..rounds).collect()
}

/// Prints the seed when the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("DYSVR_SEED={}", self.0);
        }
    }
}

#[test]
fn every_interleaving_keeps_the_laws_and_ends() {
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in rounds(3_000) {
        let _seed = Seed(seed);
        let mut world = World::new(seed);
        for _ in 0..world.dice.below(120) {
            world.step();
        }
        world.settle();
        let state = &world.stored;
        *ends.entry(state.phase.name()).or_default() += 1;
        let budget = state.strategy.failure_budget.of(world.plan.total());
        match state.phase {
            Phase::Done => assert!(state.spent() <= budget, "{state:?}"),
            Phase::RolledBack => assert!(state.spent() > budget && state.strategy.auto_undo, "{state:?}"),
            Phase::Failed => assert!(state.spent() > budget && !state.strategy.auto_undo, "{state:?}"),
            Phase::Aborted => assert_eq!(state.reason, "enough"),
            phase => panic!("{phase:?}"),
        }
        for (name, node) in &world.nodes {
            let progress = &world.core.progress(name).unwrap().standing;
            match state.phase {
                Phase::Done if !state.failed.contains_key(name) => {
                    // What falls ill while the end is being written is nobody's failure any more.
                    let ill = Standing::Failed("down".into());
                    assert!(*progress == Standing::Done || *progress == ill, "{name}: {progress:?}");
                }
                Phase::RolledBack if *progress == Standing::Undone => assert_eq!(node.revision, FROM, "{name}"),
                _ => {}
            }
            if state.phase == Phase::RolledBack {
                assert_eq!(world.core.desired(name), Some(FROM));
                // Only what could not be reached in time is not back.
                let stuck = state.failed.contains_key(name);
                assert!(node.revision == FROM || stuck || !node.connected, "{name}: {node:?} {progress:?}");
            }
        }
    }
    if std::env::var_os("DYSVR_SEED").is_none() {
        for phase in ["done", "rolled-back", "aborted", "failed"] {
            assert!(ends.get(phase).is_some_and(|count| *count > 20), "{phase} is hardly tried: {ends:?}");
        }
    }
}

/// The same fleet without chance: every node answers after one step, as its nature is.
fn straight(
    natures: &[Nature],
    strategy: &Strategy,
    restart_at: Option<usize>,
) -> (String, BTreeSet<String>, Vec<Revision>, usize) {
    let mut world = World::new(0);
    world.faults = false;
    world.nodes = natures
        .iter()
        .enumerate()
        .map(|(n, nature)| {
            let node = Node { nature: *nature, connected: true, revision: FROM, task: None, nacked: None };
            (format!("n{n:02}"), node)
        })
        .collect();
    let planned = world.nodes.keys().map(|node| Planned { node: node.clone(), from: FROM }).collect();
    world.plan = Arc::new(Plan::new(planned, strategy));
    world.stored = State::queued(RolloutId(1), FROM, TO, strategy.clone(), world.now);
    world.core = Rollout::begin(world.now, world.stored.clone(), Arc::clone(&world.plan), PlanRef([0; 32]));
    world.writing = None;
    world.tell_all();
    let mut steps = 0;
    while !world.stored.phase.has_ended() {
        if restart_at == Some(steps) {
            world.restart();
        }
        // One thing at a time, so that a restart falls between any two.
        match steps % 3 {
            0 => world.verdicts(),
            1 => world.store(),
            _ => world.pump(),
        }
        world.now = world.now.after(1_000);
        world.handle(Input::Tick);
        steps += 1;
        assert!(steps < 5_000, "it does not end: {:?}", world.stored);
    }
    for _ in 0..8 {
        world.pump();
        world.now = world.now.after(4_000);
        world.verdicts();
    }
    let failed = world.stored.failed.keys().cloned().collect();
    (format!("{:?}", world.stored.phase), failed, world.nodes.values().map(|node| node.revision).collect(), steps)
}

#[test]
fn a_restart_at_any_step_ends_equal() {
    use Nature::{Bad, Good};
    let strategy = |budget, soak_ms, auto_undo| Strategy {
        waves: vec![Size::Count(1), Size::Count(2)],
        failure_budget: Budget(Size::Count(budget)),
        soak_ms,
        auto_undo,
        ..Strategy::default()
    };
    let cases = [
        (vec![Good; 5], strategy(0, 0, true), "Done"),
        (vec![Good; 5], strategy(0, 4_000, true), "Done"),
        (vec![Good, Good, Bad, Good, Good], strategy(1, 0, true), "Done"),
        (vec![Good, Good, Good, Bad, Good], strategy(0, 0, true), "RolledBack"),
        (vec![Bad, Good, Good, Good, Good], strategy(0, 0, true), "RolledBack"),
        (vec![Good, Good, Good, Bad, Good], strategy(0, 0, false), "Failed"),
    ];
    for (natures, strategy, phase) in cases {
        let (end, failed, revisions, steps) = straight(&natures, &strategy, None);
        assert_eq!(end, phase, "{natures:?}");
        for restart in 0..steps {
            let again = straight(&natures, &strategy, Some(restart));
            assert_eq!(
                (&again.0, &again.1, &again.2),
                (&end, &failed, &revisions),
                "restart at {restart} of {natures:?}"
            );
        }
    }
}

#[test]
fn a_paused_rollout_begins_nothing_and_judges_nothing() {
    let strategy = Strategy { waves: vec![Size::Count(1)], ..Strategy::default() };
    let planned = ["a", "b"].map(|node| Planned { node: node.into(), from: FROM }).to_vec();
    let plan = Arc::new(Plan::new(planned, &strategy));
    let now = Time(1_000);
    let state = State::queued(RolloutId(1), FROM, TO, strategy, now);
    let mut core = Rollout::begin(now, state, plan, PlanRef([0; 32]));
    let store = |core: &mut Rollout, now| {
        while let Some(Effect::Store(state)) = core.poll_effect() {
            core.handle(now, Input::Stored(state)).unwrap();
        }
    };
    store(&mut core, now);
    core.handle(now, Input::Pause).unwrap();
    assert!(!core.may_send(), "a stop that waits for the store holds already");
    store(&mut core, now);
    assert_eq!((core.state().phase.name(), core.poll_timeout()), ("paused", None));
    // Its node fails, and time passes: nothing moves, and nothing goes back.
    core.handle(now, Input::At { node: "a".into(), revision: FROM }).unwrap();
    core.handle(now, Input::Nack { node: "a".into(), revision: TO, reason: "no".into() }).unwrap();
    core.handle(now.after(1_000_000), Input::Tick).unwrap();
    store(&mut core, now);
    assert_eq!(core.state().phase.name(), "paused");
    assert!(core.handle(now, Input::Resume).is_ok());
    store(&mut core, now);
    assert_eq!(core.state().phase.name(), "rolled-back");
    let refusal = core.handle(now, Input::Pause).unwrap_err().to_string();
    assert_eq!(refusal, "rollout 1 is rolled-back: it cannot be paused");
}
