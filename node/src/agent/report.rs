//! What the agent says of itself and of its tasks: domain types, and their one conversion to the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use dysvr_proto::digest::Digest;
use dysvr_proto::id::{Epoch, Revision, RolloutId, TaskId};
pub use dysvr_proto::status::Mode;
use dysvr_proto::status::Status;
use dysvr_proto::wire::fleet as wire;
use serde::{Deserialize, Serialize};

use super::managed::FileName;
use crate::dysvr::verify::Finding;
use crate::task::WorkerTime;

/// How long each phase took, microseconds. A phase that did not happen is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Task received → files and task line written.
    pub files_us: u64,
    /// Memory guard and signal.
    pub guard_us: u64,
    /// Signal → `R` seen.
    pub ready_us: u64,
    /// `R` (or the signal) → `L` seen.
    pub loading_us: u64,
    /// The last of these → the verdict seen.
    pub done_us: u64,
    /// Task received → verdict.
    pub total_us: u64,
    /// The master's own, of its final line.
    pub master_us: u64,
    /// pid, prepare, commit of each worker, of the final line.
    pub workers: Vec<(u32, u64, u64)>,
}

impl Timings {
    /// Takes over what a final line says.
    pub fn add_line(&mut self, master_us: Option<u64>, workers: &[WorkerTime]) {
        self.master_us += master_us.unwrap_or(0);
        for worker in workers {
            match self.workers.iter_mut().find(|(pid, ..)| *pid == worker.pid) {
                Some((_, prepare, commit)) => {
                    *prepare += worker.prepare_us;
                    *commit += worker.commit_us;
                }
                None => self.workers.push((worker.pid, worker.prepare_us, worker.commit_us)),
            }
        }
    }
}

/// Whole microseconds of a span.
pub fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// What has become of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The controller's name of the task.
    pub id: String,
    /// The rollout that it belongs to.
    pub rollout: RolloutId,
    /// The revision that it leads to.
    pub to_revision: Revision,
    /// Where it is.
    pub status: Status,
    /// Why it failed, or why it took a reload.
    pub reason: String,
    /// By which way; `None` while that is not decided.
    pub mode: Option<Mode>,
    /// Of its (last) task line, 0 when none was written.
    pub local_task_id: TaskId,
    /// How long it took.
    pub timings: Timings,
}

/// What the node has and runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The last revision that was applied here.
    pub revision: Revision,
    /// The highest epoch that was obeyed here.
    pub epoch: Epoch,
    /// Of the managed files as they are on disk.
    pub digest: Digest,
    /// The files that differ from what `revision` left.
    pub drifted: BTreeSet<FileName>,
    /// The proxy.
    pub proxy: ProxySeen,
}

/// The proxy as the agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySeen {
    /// The master, when it runs.
    pub master: Option<u32>,
    /// Its children.
    pub workers: Vec<u32>,
    /// What it has under quarantine, a line each.
    pub quarantined: Vec<String>,
    /// What its master found last when it compared what runs with what the files would start.
    pub verified: Option<Finding>,
}

impl Observed {
    /// The message.
    pub fn to_wire(&self) -> wire::Observed {
        wire::Observed {
            revision: self.revision.0,
            epoch: self.epoch.0,
            digest: self.digest.to_vec(),
            drift: !self.drifted.is_empty(),
            drifted: self.drifted.iter().map(FileName::to_string).collect(),
            proxy: Some(wire::Proxy {
                running: self.proxy.master.is_some(),
                master_pid: self.proxy.master.map_or(0, i64::from),
                worker_pids: self.proxy.workers.iter().copied().map(i64::from).collect(),
                version: 0,
                proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
                quarantined: self.proxy.quarantined.clone(),
                verified: self.proxy.verified.as_ref().map(verified),
            }),
        }
    }
}

/// Bytes of a difference that travel: enough to see what is the matter.
const MAX_DIFFERENCE: usize = 16 << 10;

fn verified(finding: &Finding) -> wire::Verified {
    let mut end = finding.text.len().min(MAX_DIFFERENCE);
    while !finding.text.is_char_boundary(end) {
        end -= 1;
    }
    wire::Verified {
        verdict: finding.outcome.name().to_owned(),
        unix_ms: finding.time.as_millis() as i64,
        reason: finding.sentence(),
        text: finding.text[..end].to_owned(),
        differences: finding.differences,
        alerts: finding.alerts,
        digest: finding.digest.to_string(),
    }
}

impl Report {
    /// The message; `observed` is told with a verdict.
    pub fn to_wire(&self, observed: Option<&Observed>) -> wire::TaskReport {
        wire::TaskReport {
            id: self.id.clone(),
            rollout: self.rollout.0,
            to_revision: self.to_revision.0,
            status: wire::Status::from(self.status).into(),
            reason: self.reason.clone(),
            mode: Mode::to_wire(self.mode).into(),
            local_task_id: self.local_task_id.0,
            timings: Some(self.timings.to_wire()),
            observed: observed.map(Observed::to_wire),
        }
    }
}

impl Timings {
    fn to_wire(&self) -> wire::Timings {
        let worker = |&(pid, prepare_us, commit_us): &(u32, u64, u64)| wire::WorkerTiming {
            pid: pid.into(),
            prepare_us,
            commit_us,
        };
        wire::Timings {
            files_us: self.files_us,
            guard_us: self.guard_us,
            ready_us: self.ready_us,
            loading_us: self.loading_us,
            done_us: self.done_us,
            total_us: self.total_us,
            master_us: self.master_us,
            workers: self.workers.iter().map(worker).collect(),
        }
    }
}
