//! The fleet as the leader holds it in memory: the head, the running rollout, every node. Synchronous; whoever waits
//! does it outside.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dysvr_proto::digest::Digest;
use dysvr_proto::id::{Epoch, Revision, RolloutId};
use dysvr_proto::wire::fleet;
use dysvr_proto::wire::operator::TaskRecord;
use tokio::sync::Notify;

use super::node::{Choice, Decision, InFlight, Known, Link, Node, Want};
use crate::revision::{Head, matches};
use crate::rollout::{Input, Plan, Planned, Rollout, State, Strategy, Time, desired};
use crate::store::Condition;

/// A task's deadline outside a rollout, milliseconds.
const DEADLINE_MS: u64 = 60_000;

/// What a task may be late beyond its deadline before it is given up, milliseconds: the verdict travels.
const GRACE_MS: u64 = 2_000;

/// All that the leader knows.
#[derive(Debug)]
pub(super) struct Fleet {
    /// As the store has it.
    pub head: Head,
    /// What the next write of the head must compare.
    pub head_at: Condition,
    /// The rollout that moves nodes.
    pub active: Option<ActiveRollout>,
    /// The last rollout that left its nodes where they were.
    pub left: Option<(State, Arc<Plan>)>,
    /// Every node that was ever seen.
    pub nodes: BTreeMap<String, Node>,
    /// Digests of revisions.
    pub digests: HashMap<Revision, Digest>,
    /// Of this reign.
    pub epoch: Epoch,
    /// Something has changed that watchers want to see.
    pub dirty: bool,
    serial: u64,
    attempts: u64,
}

/// The running rollout.
#[derive(Debug)]
pub(super) struct ActiveRollout {
    /// The machine.
    pub core: Rollout,
    /// What the next write of its state must compare.
    pub at: Condition,
    /// Final reports that no summary has yet.
    pub unsaved: Vec<TaskRecord>,
}

/// A stream that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub String);

/// A task to build and send.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Its id.
    pub id: String,
    /// What the node has.
    pub from: Revision,
    /// All files instead of the difference.
    pub whole: bool,
    /// What it should have.
    pub want: Want,
}

impl Fleet {
    /// Before any node has come.
    pub(super) fn new(head: Head, head_at: Condition, epoch: Epoch) -> Self {
        let empty = crate::revision::digest_of(&crate::revision::Files::new());
        Self {
            head,
            head_at,
            active: None,
            left: None,
            nodes: BTreeMap::new(),
            digests: HashMap::from([(Revision(0), empty)]),
            epoch,
            dirty: false,
            serial: 0,
            attempts: 0,
        }
    }

    /// What a node should run: what the running rollout says, or the one that left its nodes where they were, or what
    /// the fleet has settled on.
    pub(super) fn target(&self, name: &str) -> (Revision, Option<&Rollout>) {
        if let Some(active) = &self.active
            && let Some(revision) = active.core.desired(name)
        {
            return (revision, Some(&active.core));
        }
        if let Some((state, plan)) = &self.left
            && let Some(revision) = desired(state, plan, name)
        {
            return (revision, None);
        }
        let none = BTreeMap::new();
        let labels = self.nodes.get(name).map_or(&none, |node| &node.labels);
        (self.head.settled_for(labels), None)
    }

    /// The same with all that a task needs; `None` while the revision's digest is not known.
    pub(super) fn want(&self, name: &str) -> Option<Want> {
        let (revision, rollout) = self.target(name);
        Some(Want {
            revision,
            digest: *self.digests.get(&revision)?,
            rollout: rollout.map_or(RolloutId(0), |rollout| rollout.state().id),
            may_send: rollout.is_none_or(Rollout::may_send),
            deadline_ms: rollout.map_or(DEADLINE_MS, |rollout| rollout.state().strategy.node_deadline_ms),
        })
    }

    /// What to do with a node.
    pub(super) fn decide(&self, name: &str, now: Time) -> Decision {
        match (self.nodes.get(name), self.want(name)) {
            (Some(node), Some(want)) => node.decide(now, &want, self.epoch),
            (Some(node), None) if node.link.is_some() => Decision::Behind { retry: Some(now.after(1000)) },
            _ => Decision::Away,
        }
    }

    /// Takes a node's stream in. The first stream of an identity is the good one, unless its agent itself dials again.
    pub(super) fn attach(&mut self, hello: fleet::Hello, now_unix_ms: i64) -> Result<Link, Refused> {
        let node = self.nodes.entry(hello.node.clone()).or_default();
        if let Some(link) = &node.link {
            if link.boot != hello.boot {
                let text = format!("node {} is connected already, by another start of its agent", hello.node);
                return Err(Refused(text));
            }
            link.evict.notify_one();
        }
        self.serial += 1;
        self.dirty = true;
        let link = Link {
            serial: self.serial,
            boot: hello.boot,
            wake: Arc::new(Notify::new()),
            evict: Arc::new(Notify::new()),
        };
        node.labels = hello.labels.into_iter().collect();
        node.agent_version = hello.agent_version;
        node.link = Some(link.clone());
        node.in_flight = None;
        node.nack = None;
        node.known = Known::Unasked;
        // Nothing is believed from an earlier stream.
        node.observed = None;
        node.observe(hello.observed.unwrap_or_default(), now_unix_ms);
        Ok(link)
    }

    /// A stream has ended.
    pub(super) fn detach(&mut self, name: &str, serial: u64, now: Time) {
        let Some(node) = self.of(name, serial) else { return };
        node.link = None;
        node.in_flight = None;
        node.seen_unix_ms = now.0.cast_signed();
        self.tell(now, Input::Gone { node: name.to_owned() });
    }

    /// The node, if its stream is this one.
    fn of(&mut self, name: &str, serial: u64) -> Option<&mut Node> {
        self.nodes.get_mut(name).filter(|node| node.link.as_ref().is_some_and(|link| link.serial == serial))
    }

    /// Whether a node has a task without a verdict.
    pub(super) fn is_busy(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|node| node.in_flight.is_some())
    }

    /// The revisions whose digests a node's next step needs and nobody has read yet.
    pub(super) fn unknown(&self, name: &str) -> Vec<Revision> {
        let (target, _) = self.target(name);
        let node = self.nodes.get(name).filter(|node| node.known == Known::Unasked);
        let held = node.and_then(|node| node.observed.as_ref()).map(|observed| Revision(observed.revision));
        let mut wanted: Vec<_> = held.into_iter().chain([target]).collect();
        wanted.retain(|revision| !self.digests.contains_key(revision));
        wanted.dedup();
        wanted
    }

    /// A revision's digest was looked up; `None`: there is no such revision.
    pub(super) fn learn(&mut self, revision: Revision, digest: Option<Digest>) {
        if let Some(digest) = digest {
            self.digests.insert(revision, digest);
        }
    }

    /// Compares what the node has with its revision, once the digest was looked up.
    pub(super) fn recognise(&mut self, name: &str, now: Time) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let Some(observed) = node.observed.as_ref().filter(|_| std::mem::take(&mut node.fresh)) else { return };
        self.dirty = true;
        if node.known == Known::Unasked {
            node.known = self.digests.get(&Revision(observed.revision)).map_or(Known::No, |digest| Known::Yes(*digest));
        }
        let proxy_down = observed.proxy.as_ref().is_some_and(|proxy| !proxy.running);
        let drift = observed.drift;
        let idle = self.active.is_none();
        let clean = node.clean();
        if let Some(revision) = clean {
            node.choice = Choice::Open;
            self.tell(now, Input::At { node: name.to_owned(), revision });
        }
        let Some(node) = self.nodes.get_mut(name) else { return };
        if idle {
            node.tolerate();
        }
        let quarantined = node.quarantined().iter().find(|line| !node.tolerated.contains(line));
        let reason = match (proxy_down, drift, quarantined) {
            (true, ..) => "its proxy is not running".to_owned(),
            (_, true, _) => "its files were changed by hand".to_owned(),
            (.., Some(line)) => format!("its proxy has quarantined a vhost: {line}"),
            _ => return,
        };
        self.tell(now, Input::Unhealthy { node: name.to_owned(), reason });
    }

    /// A node says what it has.
    pub(super) fn observed(&mut self, name: &str, serial: u64, observed: fleet::Observed, now: Time) {
        if let Some(node) = self.of(name, serial) {
            node.observe(observed, now.0.cast_signed());
        }
    }

    /// A node is heard.
    pub(super) fn beat(&mut self, name: &str, serial: u64, now: Time) {
        if let Some(node) = self.of(name, serial) {
            node.seen_unix_ms = now.0.cast_signed();
        }
    }

    /// A node reports on a task.
    pub(super) fn report(&mut self, name: &str, serial: u64, report: fleet::TaskReport, now: Time) {
        let Some(node) = self.of(name, serial) else { return };
        node.seen_unix_ms = now.0.cast_signed();
        let verdict = match report.status() {
            fleet::Status::Done => Some(Ok(())),
            fleet::Status::Failed => Some(Err(report.reason.clone())),
            _ => None,
        };
        let record =
            TaskRecord { node: name.to_owned(), report: Some(report.clone()), at_unix_ms: now.0.cast_signed() };
        node.keep_report(record.clone());
        self.dirty = true;
        let Some(node) = self.nodes.get_mut(name) else { return };
        let Some(verdict) = verdict else { return };
        let expected = node.in_flight.take_if(|task| task.id == report.id);
        let to = Revision(report.to_revision);
        let observed = report.observed;
        if let Some(observed) = observed.clone() {
            node.observe(observed, now.0.cast_signed());
        }
        let wrong = observed.filter(|observed| self.digests.get(&to).is_none_or(|digest| observed.digest != *digest));
        let verdict = verdict.and_then(|()| match wrong {
            Some(observed) if observed.revision == to.0 => Err("it reports another digest for the revision".to_owned()),
            _ => Ok(()),
        });
        node.fresh = true;
        let outcome = match (verdict, &expected) {
            (Ok(()), _) => {
                node.nack = None;
                None
            }
            (Err(reason), Some(_)) => {
                node.failed(now, to, reason.clone());
                Some(reason)
            }
            (Err(_), None) => None,
        };
        if expected.is_some() {
            self.tell(now, Input::Answered { node: name.to_owned() });
        }
        if let Some(reason) = outcome {
            self.tell(now, Input::Nack { node: name.to_owned(), revision: to, reason });
        }
        if let Some(active) = self.active.as_mut().filter(|active| active.core.state().id.0 == report.rollout) {
            active.unsaved.push(record);
        }
    }

    /// The next task of a node, if it is time for one; it counts as sent.
    pub(super) fn order(&mut self, name: &str, serial: u64, now: Time) -> Option<Order> {
        let want = self.want(name)?;
        let epoch = self.epoch;
        let (from, whole) = match self.of(name, serial)?.decide(now, &want, epoch) {
            Decision::Send { from, whole } => (from, whole),
            // It gets no task, so its wave need not wait for a verdict.
            Decision::Drifted(reason) | Decision::Failed { reason, .. } if want.rollout != RolloutId(0) => {
                self.tell(now, Input::Nack { node: name.to_owned(), revision: want.revision, reason });
                return None;
            }
            _ => return None,
        };
        let id = match want.rollout {
            RolloutId(0) => {
                self.attempts += 1;
                format!("e{}-{}-{}-{name}", self.epoch, self.attempts, want.revision)
            }
            rollout => format!("r{rollout}-{}-{name}", want.revision),
        };
        let deadline = now.after(want.deadline_ms + GRACE_MS);
        let in_flight = InFlight { id: id.clone(), to: want.revision, deadline };
        let node = self.of(name, serial)?;
        node.in_flight = Some(in_flight);
        node.tolerate();
        self.tell(now, Input::Sent { node: name.to_owned() });
        Some(Order { id, from, whole, want })
    }

    /// A task could not be sent after all.
    pub(super) fn unsent(&mut self, name: &str, serial: u64, id: &str, now: Time) {
        let Some(node) = self.of(name, serial) else { return };
        node.in_flight.take_if(|task| task.id == id);
        node.fresh = true;
        self.tell(now, Input::Answered { node: name.to_owned() });
    }

    /// Gives up a task that is late; when to look at the node again.
    pub(super) fn tick(&mut self, name: &str, serial: u64, now: Time) -> Option<Time> {
        let node = self.of(name, serial)?;
        if let Some(task) = node.in_flight.take_if(|task| task.deadline <= now) {
            let reason = "no verdict within the task's deadline".to_owned();
            node.failed(now, task.to, reason.clone());
            node.fresh = true;
            self.tell(now, Input::Answered { node: name.to_owned() });
            self.tell(now, Input::Nack { node: name.to_owned(), revision: task.to, reason });
        }
        if let Some(task) = self.of(name, serial).and_then(|node| node.in_flight.as_ref()) {
            return Some(task.deadline);
        }
        match self.decide(name, now) {
            Decision::Behind { retry } | Decision::Failed { retry, .. } => retry,
            _ => None,
        }
    }

    /// Tells the running rollout something. Its refusals concern operators' verbs only.
    pub(super) fn tell(&mut self, now: Time, input: Input) {
        self.dirty = true;
        if let Some(active) = &mut self.active {
            let _ = active.core.handle(now, input);
        }
    }

    /// Makes every stream's loop look again.
    pub(super) fn wake_all(&self) {
        for link in self.nodes.values().filter_map(|node| node.link.as_ref()) {
            link.wake.notify_one();
        }
    }

    /// The nodes that a rollout with this strategy would move: connected, chosen, and not changed by hand.
    pub(super) fn eligible(&self, strategy: &Strategy, now: Time) -> Vec<Planned> {
        let mut chosen = Vec::new();
        for (name, node) in &self.nodes {
            if node.link.is_some()
                && matches(&strategy.selector, &node.labels)
                && !matches!(self.decide(name, now), Decision::Drifted(_))
            {
                chosen.push(Planned { node: name.clone(), from: self.target(name).0 });
            }
        }
        chosen
    }
}
