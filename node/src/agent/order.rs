//! What the agent is told to do: a task of a controller, taken in at the door, or a change by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dysvr_proto::digest::Digest;
use dysvr_proto::id::{Epoch, Revision, RolloutId};
use dysvr_proto::wire::fleet as wire;

use super::managed::{FileName, InvalidFileName};
use crate::task::Kind;

/// Largest sum of file contents in one order, bytes: far above any real revision, and it bounds the agent's memory.
pub const MAX_CONTENT: usize = 512 << 20;

/// One change of the managed files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The same id is the same order.
    pub id: String,
    /// Who wants it, and what that implies.
    pub origin: Origin,
    /// Files to write, with their whole content.
    pub write: BTreeMap<FileName, Vec<u8>>,
    /// Files that go.
    pub remove: BTreeSet<FileName>,
    /// How long its sender waits for a verdict.
    pub deadline: Option<Duration>,
}

/// Who wants a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A controller moves the node to a revision.
    Controller(Step),
    /// The operator of this machine, who says what it is.
    Hand(Kind),
}

/// From one revision to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The reign of the controller.
    pub epoch: Epoch,
    /// What the node must have.
    pub from: Revision,
    /// What it has afterwards.
    pub to: Revision,
    /// Of the managed files afterwards.
    pub digest: Digest,
    /// The files are all that there should be.
    pub whole: bool,
    /// Named in reports.
    pub rollout: RolloutId,
}

/// A task that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTask {
    /// Its id is empty.
    #[error("the task has no id")]
    NoId,
    /// Its digest is not a SHA-256.
    #[error("the task's digest has {0} bytes, not 32")]
    Digest(usize),
    /// A name is refused.
    #[error(transparent)]
    FileName(#[from] InvalidFileName),
    /// A name stands there twice.
    #[error("the task names {0} twice")]
    Twice(FileName),
    /// Too much.
    #[error("the task's files are larger than {MAX_CONTENT} bytes")]
    TooLarge,
}

impl TryFrom<wire::Task> for Order {
    type Error = InvalidTask;

    fn try_from(task: wire::Task) -> Result<Self, InvalidTask> {
        if task.id.is_empty() {
            return Err(InvalidTask::NoId);
        }
        let digest = task.digest.as_slice().try_into().map_err(|_| InvalidTask::Digest(task.digest.len()))?;
        if task.files.iter().map(|file| file.content.len()).sum::<usize>() > MAX_CONTENT {
            return Err(InvalidTask::TooLarge);
        }
        let mut write = BTreeMap::new();
        for file in task.files {
            let name = FileName::new(&file.name)?;
            if write.insert(name.clone(), file.content).is_some() {
                return Err(InvalidTask::Twice(name));
            }
        }
        let mut remove = BTreeSet::new();
        for name in &task.remove {
            let name = FileName::new(name)?;
            if write.contains_key(&name) || !remove.insert(name.clone()) {
                return Err(InvalidTask::Twice(name));
            }
        }
        Ok(Self {
            id: task.id,
            origin: Origin::Controller(Step {
                epoch: Epoch(task.epoch),
                from: Revision(task.from_revision),
                to: Revision(task.to_revision),
                digest,
                whole: task.whole,
                rollout: RolloutId(task.rollout),
            }),
            write,
            remove,
            deadline: (task.deadline_ms > 0).then(|| Duration::from_millis(task.deadline_ms.into())),
        })
    }
}

impl Order {
    /// Of the files that it leads to: with the id it names the order. By hand there is none.
    pub fn digest(&self) -> Option<Digest> {
        match &self.origin {
            Origin::Controller(step) => Some(step.digest),
            Origin::Hand(_) => None,
        }
    }

    /// The revision that it leads to; none by hand.
    pub fn to_revision(&self) -> Option<Revision> {
        match &self.origin {
            Origin::Controller(step) => Some(step.to),
            Origin::Hand(_) => None,
        }
    }

    /// The rollout that it belongs to.
    pub fn rollout(&self) -> RolloutId {
        match &self.origin {
            Origin::Controller(step) => step.rollout,
            Origin::Hand(_) => RolloutId(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> wire::Task {
        wire::Task {
            id: "r3-n1".into(),
            epoch: 2,
            from_revision: 4,
            to_revision: 5,
            digest: vec![7; 32],
            files: vec![wire::File { name: "auto_vhost/a.conf".into(), content: b"server {}".to_vec() }],
            remove: vec!["auto_vhost/b.conf".into()],
            rollout: 3,
            deadline_ms: 1500,
            ..wire::Task::default()
        }
    }

    #[test]
    fn a_task_is_taken_in_at_the_door() {
        let order = Order::try_from(task()).unwrap();
        assert_eq!(order.deadline, Some(Duration::from_millis(1500)));
        assert_eq!(order.to_revision(), Some(Revision(5)));
        assert_eq!(order.write.len() + order.remove.len(), 2);
        assert_eq!(order.digest(), Some([7; 32]));
    }

    #[test]
    fn half_a_task_is_refused() {
        let file = |name: &str| wire::File { name: name.into(), content: vec![] };
        for (task, error) in [
            (wire::Task { id: String::new(), ..task() }, "the task has no id"),
            (wire::Task { digest: vec![1], ..task() }, "the task's digest has 1 bytes, not 32"),
            (wire::Task { files: vec![file("/x.conf")], ..task() }, "file name \"/x.conf\": is absolute"),
            (wire::Task { files: vec![file("a.conf"), file("a.conf")], ..task() }, "the task names a.conf twice"),
            (wire::Task { files: vec![file("auto_vhost/b.conf")], ..task() }, "the task names auto_vhost/b.conf twice"),
        ] {
            assert_eq!(Order::try_from(task).unwrap_err().to_string(), error);
        }
    }
}
