//! The keys in use: the one home of their layout.

use dysvr_proto::digest::{Digest, hex};
use dysvr_proto::id::{Revision, RolloutId};

/// The leader's [`super::Leader`] record; in etcd it lives as long as the leader's lease.
pub const LEADER: &str = "election/leader";

/// The last epoch that was given out, decimal.
pub const EPOCH: &str = "election/epoch";

/// What moves with each change: see `revision::Head`.
pub const HEAD: &str = "head";

/// All revision records.
pub const REVISIONS: &str = "revision/";

/// All rollout states.
pub const ROLLOUTS: &str = "rollout/";

/// All nodes that were ever seen.
pub const NODES: &str = "node/";

/// A revision's record. Numbers are padded, so that the order of keys is theirs.
pub fn revision(number: Revision) -> String {
    format!("{REVISIONS}{:020}", number.0)
}

/// The chunks of a blob.
pub fn blob(digest: &Digest) -> String {
    format!("blob/{}/", hex(digest))
}

/// A rollout's state.
pub fn rollout(id: RolloutId) -> String {
    format!("{ROLLOUTS}{:020}", id.0)
}

/// A node's record.
pub fn node(name: &str) -> String {
    format!("{NODES}{name}")
}
