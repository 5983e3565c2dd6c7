//! What is shown: the documents of `-o json` and `-o yaml`, whose field names are stable, converted once from the wire.
//!
//! Numbers are numbers, times are RFC 3339 in UTC, digests are hexadecimal. What there is none of is `null`.

use std::collections::BTreeMap;

use dysvr_proto::digest;
use dysvr_proto::status::{Mode, Status};
use dysvr_proto::wire::{fleet, operator};
use serde::Serialize;

use super::time::rfc3339;

/// An instant, milliseconds since 1970; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instant(pub i64);

impl Serialize for Instant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        rfc3339(self.0).serialize(serializer)
    }
}

/// A `server {}` of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vhost {
    /// Its identity.
    pub vsvc_id: u64,
    /// As in `server_name`.
    pub server_names: Vec<String>,
    /// As in `listen`.
    pub listens: Vec<String>,
    /// The upstreams that it passes to.
    pub upstreams: Vec<String>,
    /// Its file, relative to the configuration's directory.
    pub file: String,
    /// The revision that last changed it.
    pub revision: u64,
}

impl From<operator::Vhost> for Vhost {
    fn from(wire: operator::Vhost) -> Self {
        Self {
            vsvc_id: wire.vsvc_id,
            server_names: wire.server_names,
            listens: wire.listens,
            upstreams: wire.ups_ids,
            file: wire.file,
            revision: wire.revision,
        }
    }
}

/// An `upstream {}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Upstream {
    /// Its name.
    pub ups_id: String,
    /// As in `server`.
    pub servers: Vec<String>,
    /// The vhosts that pass to it.
    pub vhosts: Vec<u64>,
    /// Its file, relative to the configuration's directory.
    pub file: String,
    /// The revision that last changed it.
    pub revision: u64,
}

impl From<operator::Upstream> for Upstream {
    fn from(wire: operator::Upstream) -> Self {
        Self {
            ups_id: wire.ups_id,
            servers: wire.servers,
            vhosts: wire.vsvc_ids,
            file: wire.file,
            revision: wire.revision,
        }
    }
}

/// A machine of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its identity.
    pub name: String,
    /// As it announced them.
    pub labels: BTreeMap<String, String>,
    /// current, degraded, behind, updating, failed, drifted, away
    pub state: String,
    /// Why it is in that state, if there is something to say.
    pub reason: String,
    /// Whether it has a stream to a controller.
    pub connected: bool,
    /// What it should run.
    pub desired_revision: u64,
    /// What it says it runs.
    pub observed: Option<Observed>,
    /// Of `dysvr-node`.
    pub agent_version: String,
    /// When it was last heard of.
    pub seen: Instant,
}

impl From<operator::Node> for Node {
    fn from(wire: operator::Node) -> Self {
        Self {
            name: wire.name,
            labels: wire.labels.into_iter().collect(),
            state: wire.state,
            reason: wire.reason,
            connected: wire.connected,
            desired_revision: wire.desired_revision,
            observed: wire.observed.map(Observed::from),
            agent_version: wire.agent_version,
            seen: Instant(wire.seen_unix_ms),
        }
    }
}

/// What a node serves, by its own word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The last revision that was applied there.
    pub revision: u64,
    /// The highest epoch that it has obeyed.
    pub epoch: u64,
    /// Of its managed files.
    pub digest: Option<String>,
    /// Whether its files differ from what `revision` left.
    pub drift: bool,
    /// Which ones.
    pub drifted: Vec<String>,
    /// Its proxy.
    pub proxy: Option<Proxy>,
}

impl From<fleet::Observed> for Observed {
    fn from(wire: fleet::Observed) -> Self {
        Self {
            revision: wire.revision,
            epoch: wire.epoch,
            digest: hex(&wire.digest),
            drift: wire.drift,
            drifted: wire.drifted,
            proxy: wire.proxy.map(Proxy::from),
        }
    }
}

/// The proxy of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proxy {
    /// Whether its master lives.
    pub running: bool,
    /// The master.
    pub master_pid: i64,
    /// The workers.
    pub worker_pids: Vec<i64>,
    /// How many in-place updates its master has published.
    pub updates: u64,
    /// Of `dysvr-proxy`.
    pub version: String,
    /// The vhosts that crashed workers and answer 503 now.
    pub quarantined: Vec<String>,
    /// Whether it runs what its files would start, once its master has looked.
    pub verified: Option<Verified>,
}

/// What a master found last when it compared what it runs with what its files would start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// `equal`, `different`, `unloadable` or `unknown`.
    pub verdict: String,
    /// When, milliseconds since the Unix epoch.
    pub unix_ms: i64,
    /// A sentence.
    pub reason: String,
    /// Both sides of each difference.
    pub text: String,
    /// Things that differ.
    pub differences: u64,
    /// Differences since the master began.
    pub alerts: u64,
    /// Of the running configuration.
    pub digest: String,
}

impl From<fleet::Verified> for Verified {
    fn from(wire: fleet::Verified) -> Self {
        let fleet::Verified { verdict, unix_ms, reason, text, differences, alerts, digest } = wire;
        Self { verdict, unix_ms, reason, text, differences, alerts, digest }
    }
}

impl From<fleet::Proxy> for Proxy {
    fn from(wire: fleet::Proxy) -> Self {
        Self {
            running: wire.running,
            master_pid: wire.master_pid,
            worker_pids: wire.worker_pids,
            updates: wire.version,
            version: wire.proxy_version,
            quarantined: wire.quarantined,
            verified: wire.verified.map(Verified::from),
        }
    }
}

/// A version of the fleet's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// What it was made from.
    pub parent: u64,
    /// Of all its files.
    pub digest: Option<String>,
    /// Who made it.
    pub author: String,
    /// What for.
    pub message: String,
    /// When.
    pub created: Instant,
    /// Its files that differ from its parent's.
    pub changes: Vec<Change>,
    /// The rollout that it was made for; `null` if there was none.
    pub rollout: Option<u64>,
}

impl From<operator::Revision> for Revision {
    fn from(wire: operator::Revision) -> Self {
        Self {
            revision: wire.number,
            parent: wire.parent,
            digest: hex(&wire.digest),
            author: wire.author,
            message: wire.message,
            created: Instant(wire.created_unix_ms),
            changes: wire.changes.iter().map(Change::from).collect(),
            rollout: Some(wire.rollout).filter(|id| *id > 0),
        }
    }
}

/// A file that a revision adds, modifies or deletes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Relative to the configuration's directory.
    pub file: String,
    /// What becomes of it.
    pub change: ChangeKind,
    /// The vhosts in it.
    pub vsvc_ids: Vec<u64>,
    /// The upstreams in it.
    pub ups_ids: Vec<String>,
}

impl From<&operator::FileChange> for Change {
    fn from(wire: &operator::FileChange) -> Self {
        Self {
            file: wire.name.clone(),
            change: wire.kind().into(),
            vsvc_ids: wire.vsvc_ids.clone(),
            ups_ids: wire.ups_ids.clone(),
        }
    }
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Add,
    /// It differs.
    Modify,
    /// It goes.
    Delete,
    /// Something that this program is too old to know.
    Unknown,
}

impl From<operator::file_change::Kind> for ChangeKind {
    fn from(wire: operator::file_change::Kind) -> Self {
        use operator::file_change::Kind;
        match wire {
            Kind::Add => Self::Add,
            Kind::Modify => Self::Modify,
            Kind::Delete => Self::Delete,
            Kind::Unspecified => Self::Unknown,
        }
    }
}

/// A move of the fleet from one revision to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rollout {
    /// Its number.
    pub rollout: u64,
    /// Where the fleet was.
    pub from_revision: u64,
    /// Where it goes.
    pub to_revision: u64,
    /// queued, running, soaking, paused, rolling-back, done, rolled-back, aborted, failed
    pub phase: String,
    /// Why it is in that phase, if there is something to say.
    pub reason: String,
    /// The current wave, from 1; 0 when there is none.
    pub wave: u32,
    /// In their order.
    pub waves: Vec<Wave>,
    /// How many nodes have failed.
    pub failed_nodes: u32,
    /// How many may.
    pub failure_budget: u32,
    /// When it began.
    pub created: Instant,
    /// When it last moved.
    pub changed: Instant,
    /// When it ended.
    pub ended: Instant,
}

/// A part of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wave {
    /// The nodes that move together.
    pub nodes: Vec<NodeProgress>,
}

/// A node within a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeProgress {
    /// Its name.
    pub node: String,
    /// waiting, updating, done, failed, undone
    pub state: String,
    /// Why it is in that state, if there is something to say.
    pub reason: String,
    /// Since when.
    pub changed: Instant,
}

impl From<operator::Rollout> for Rollout {
    fn from(wire: operator::Rollout) -> Self {
        let waves: Vec<Wave> = wire.waves.into_iter().map(Wave::from).collect();
        Self {
            rollout: wire.id,
            from_revision: wire.from_revision,
            to_revision: wire.to_revision,
            phase: wire.phase,
            reason: wire.reason,
            wave: if waves.is_empty() { 0 } else { wire.wave.saturating_add(1).min(waves.len() as u32) },
            waves,
            failed_nodes: wire.failed_nodes,
            failure_budget: wire.failure_budget,
            created: Instant(wire.created_unix_ms),
            changed: Instant(wire.changed_unix_ms),
            ended: Instant(wire.ended_unix_ms),
        }
    }
}

impl From<operator::Wave> for Wave {
    fn from(wire: operator::Wave) -> Self {
        let nodes = wire.nodes.into_iter().map(|node| NodeProgress {
            node: node.node,
            state: node.state,
            reason: node.reason,
            changed: Instant(node.changed_unix_ms),
        });
        Self { nodes: nodes.collect() }
    }
}

impl Rollout {
    /// How many nodes it moves.
    pub fn nodes(&self) -> usize {
        self.waves.iter().map(|wave| wave.nodes.len()).sum()
    }

    /// How many of them are in a state.
    pub fn nodes_in(&self, state: &str) -> usize {
        self.waves.iter().flat_map(|wave| &wave.nodes).filter(|node| node.state == state).count()
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.phase.as_str() {
            "done" => Some(Outcome::Succeeded),
            "rolled-back" | "aborted" | "failed" => Some(Outcome::Unsuccessful),
            _ => None,
        }
    }
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every node has the revision.
    Succeeded,
    /// It was rolled back, aborted, or failed.
    Unsuccessful,
}

/// One change for one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    /// Of the controller.
    pub task: String,
    /// Whose.
    pub node: String,
    /// Of the node's task line.
    pub local_task_id: u64,
    /// `null` if there was none.
    pub rollout: Option<u64>,
    /// What the node has when it is done.
    pub to_revision: u64,
    /// I, R, L, F, D; U for one that this program is too old to know.
    pub status: char,
    /// in_place, reload, nothing; empty while it is open
    pub mode: &'static str,
    /// Why it failed, or why a reload.
    pub reason: String,
    /// Of its phases.
    pub timings: Timings,
    /// When it was reported.
    pub at: Instant,
}

/// Microseconds. A phase that did not happen is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timings {
    /// The task received → its files and task line written.
    pub files_us: u64,
    /// The memory guard and the signal.
    pub guard_us: u64,
    /// Signal → R.
    pub ready_us: u64,
    /// R → L.
    pub loading_us: u64,
    /// L → D or F.
    pub done_us: u64,
    /// Everything.
    pub total_us: u64,
    /// The master's own update.
    pub master_us: u64,
    /// The workers' updates.
    pub workers: Vec<WorkerTiming>,
}

/// The update of one worker, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerTiming {
    /// Which one.
    pub pid: i64,
    /// Parsing and compiling, beside the running configuration.
    pub prepare_us: u64,
    /// The flip.
    pub commit_us: u64,
}

impl From<operator::TaskRecord> for Task {
    fn from(wire: operator::TaskRecord) -> Self {
        let report = wire.report.unwrap_or_default();
        let status = Status::try_from(report.status()).map_or('U', Status::letter);
        let mode = Mode::from_wire(report.mode()).map_or("", Mode::name);
        let timings = report.timings.unwrap_or_default();
        let workers = timings.workers.iter().map(|worker| WorkerTiming {
            pid: worker.pid,
            prepare_us: worker.prepare_us,
            commit_us: worker.commit_us,
        });
        Self {
            task: report.id,
            node: wire.node,
            local_task_id: report.local_task_id,
            rollout: Some(report.rollout).filter(|id| *id > 0),
            to_revision: report.to_revision,
            status,
            mode,
            reason: report.reason,
            timings: Timings {
                files_us: timings.files_us,
                guard_us: timings.guard_us,
                ready_us: timings.ready_us,
                loading_us: timings.loading_us,
                done_us: timings.done_us,
                total_us: timings.total_us,
                master_us: timings.master_us,
                workers: workers.collect(),
            },
            at: Instant(wire.at_unix_ms),
        }
    }
}

/// `None` for a digest that was not sent.
fn hex(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| digest::hex(bytes))
}
