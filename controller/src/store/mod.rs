//! Where controllers keep what must survive them, behind one small trait: read a prefix at a revision, write several
//! keys under conditions, watch a prefix, win an election.
//!
//! Two implementations pass one contract suite (`tests/store_contract.rs`): [`etcd`] for several controllers and
//! [`mod@file`] for one. The limits are etcd's in both, so that what works on one machine works on a cluster.

pub mod etcd;
pub mod file;
pub mod keys;
mod large;
mod reign;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dysvr_proto::id::Epoch;
use dysvr_proto::planted::{Bug, planted};
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

pub use self::large::{CHUNK, read_large, write_large};
pub use self::reign::Reign;

/// The largest value of one key, bytes. Larger contents are cut with [`write_large`].
pub const MAX_VALUE: usize = 1 << 20;

/// The largest number of conditions, and of operations, of one transaction (etcd's `--max-txn-ops`).
pub const MAX_TXN_OPS: usize = 128;

/// The largest sum of the keys and values of one transaction, bytes: etcd refuses requests above 1.5 MiB, framing included.
pub const MAX_TXN_BYTES: usize = 1_400_000;

/// How long one call may take before it counts as unanswered.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// How long a write of unknown outcome is tried again: a cluster elects another leader meanwhile.
const SETTLE: Duration = Duration::from_secs(5);

/// Between two such attempts.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// A version of the store: rises by one with every committed write. Not the fleet's [`dysvr_proto::id::Revision`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreRevision(pub u64);

impl fmt::Display for StoreRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// When the value was written.
    pub modified: StoreRevision,
}

/// What a prefix held at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// In the order of the keys.
    pub entries: Vec<Entry>,
    /// The revision that was read; a watch that goes on from here misses nothing.
    pub revision: StoreRevision,
}

/// What must hold for a transaction to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key is not there.
    Absent(String),
    /// The key was last written at that revision.
    Unchanged(String, StoreRevision),
}

impl Condition {
    /// That `key` is as it was read: the entry's revision, or absent.
    pub fn as_read(key: &str, entry: Option<&Entry>) -> Self {
        match entry {
            Some(entry) => Self::Unchanged(key.to_owned(), entry.modified),
            None => Self::Absent(key.to_owned()),
        }
    }

    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Unchanged(key, _) => key,
        }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put(String, Vec<u8>),
    /// Removes a key; one that is not there is no error.
    Delete(String),
}

impl Write {
    /// The key that it writes.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// Writes that happen together or not at all. No key may be written twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// What to write.
    pub writes: Vec<Write>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Adds a put.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write::Put(key.into(), value.into()));
        self
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.writes.push(Write::Delete(key.into()));
        self
    }

    /// Refuses what etcd would refuse, with an error that says by how much.
    fn check(&self) -> Result<(), StoreError> {
        let limit = |what: String, size: usize, limit: usize| {
            if size > limit { Err(StoreError::TooLarge { what, size, limit }) } else { Ok(()) }
        };
        limit("conditions of one transaction".into(), self.conditions.len(), MAX_TXN_OPS)?;
        limit("writes of one transaction".into(), self.writes.len(), MAX_TXN_OPS)?;
        let mut sum = 0;
        for write in &self.writes {
            sum += write.key().len();
            if let Write::Put(key, value) = write {
                limit(format!("value of {key}"), value.len(), MAX_VALUE)?;
                sum += value.len();
            }
        }
        limit("bytes of one transaction".into(), sum, MAX_TXN_BYTES)
    }
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Written, at that revision.
    Committed(StoreRevision),
    /// A condition did not hold; nothing was written.
    Conflict,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: String,
    /// Its new value; `None` when it was deleted.
    pub value: Option<Vec<u8>>,
    /// The revision of the change.
    pub revision: StoreRevision,
}

/// Changes in the order of their revisions; those of one transaction come together. Ends after the first error: the
/// reader lists again and watches from there. A watch is a hint, a read is the truth.
pub type Watch = BoxStream<'static, Result<Vec<Event>, StoreError>>;

/// Who stands for election.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The controller's name.
    pub name: String,
    /// Where its API is reached, for those who ask the wrong controller.
    pub address: String,
}

/// The leader of the moment, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Who.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// Of its reign.
    pub epoch: Epoch,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer, or none that counts. Nothing was written.
    #[error("the store is unavailable: {attempt}")]
    Unavailable {
        /// What was attempted.
        attempt: String,
        /// What came instead of an answer.
        #[source]
        source: Cause,
    },
    /// A write was sent and no answer came: it may have happened and may still happen. Repeat it with the same
    /// conditions, see [`settle`].
    #[error("the outcome of a write is unknown: {attempt}")]
    Unknown {
        /// What was attempted.
        attempt: String,
        /// What came instead of an answer.
        #[source]
        source: Cause,
    },
    /// The revision that was asked for is no longer kept.
    #[error("revision {0} of the store was compacted away")]
    Compacted(StoreRevision),
    /// Beyond a limit of the store.
    #[error("too large for the store: {what} is {size}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// How large it is.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The store is full: reads work, writes do not until an operator makes room.
    #[error("the store is full: {0}")]
    NoSpace(String),
    /// Another process has the store's file.
    #[error("{0} is used by another controller")]
    InUse(String),
    /// What the store holds cannot be what was written.
    #[error("the store holds something damaged: {0}")]
    Damaged(String),
    /// Not the address of a store.
    #[error("not a store: {0} (file:PATH or etcd://HOST:PORT,HOST:PORT)")]
    BadAddress(String),
}

/// The error below a [`StoreError`].
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// A key-value store with revisions. Keys are text with `/` between their parts; see [`keys`] for those in use.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// The value of one key, as of now.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All keys that start with `prefix`, as of `at` or of now.
    async fn range(&self, prefix: &str, at: Option<StoreRevision>) -> Result<Snapshot, StoreError>;

    /// Writes all or nothing.
    async fn commit(&self, txn: Txn) -> Result<Verdict, StoreError>;

    /// The changes below `prefix` after the revision `after`.
    async fn watch(&self, prefix: &str, after: StoreRevision) -> Result<Watch, StoreError>;

    /// Waits to become the leader. Its fence belongs into every write that steers.
    async fn campaign(&self, candidate: &Candidate) -> Result<Reign, StoreError>;

    /// Who leads now.
    async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        match self.get(keys::LEADER).await? {
            None => Ok(None),
            Some(entry) => decode(&entry).map(Some),
        }
    }
}

/// Opens `file:PATH` or `etcd://HOST:PORT,…`.
pub async fn open(address: &str) -> Result<Arc<dyn Store>, StoreError> {
    if let Some(path) = address.strip_prefix("file:") {
        if path.is_empty() {
            return Err(StoreError::BadAddress(address.to_owned()));
        }
        return Ok(Arc::new(file::FileStore::open(path.as_ref()).await?));
    }
    let Some(hosts) = address.strip_prefix("etcd://") else {
        return Err(StoreError::BadAddress(address.to_owned()));
    };
    Ok(Arc::new(etcd::EtcdStore::connect(hosts).await?))
}

/// Commits a transaction whose outcome must be known: after an unknown outcome the same transaction is tried again,
/// which its conditions make harmless, and a conflict is compared with what it would have written. `txn` must have a condition
/// on a key that it puts, with a value that nobody else writes.
pub async fn settle(store: &dyn Store, txn: Txn) -> Result<Verdict, StoreError> {
    let end = tokio::time::Instant::now() + SETTLE;
    let mut unknown = None;
    loop {
        match store.commit(txn.clone()).await {
            Ok(Verdict::Conflict) if unknown.is_some() && !planted(Bug::UnknownRetried) => {
                return mine(store, &txn).await;
            }
            Err(error @ StoreError::Unknown { .. }) => unknown = Some(error),
            Err(StoreError::Unavailable { .. }) if unknown.is_some() => {}
            known => return known,
        }
        if tokio::time::Instant::now() >= end
            && let Some(error) = unknown
        {
            return Err(error);
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
}

/// Whether what stands in the store is what `txn` would have written. A key that it was to create tells best: others
/// may have been written again since.
async fn mine(store: &dyn Store, txn: &Txn) -> Result<Verdict, StoreError> {
    let put = |condition: &Condition| {
        txn.writes.iter().find_map(|write| match write {
            Write::Put(key, value) if key == condition.key() => Some((key, value)),
            _ => None,
        })
    };
    let created = txn.conditions.iter().filter(|condition| matches!(condition, Condition::Absent(_))).find_map(put);
    let Some((key, value)) = created.or_else(|| txn.conditions.iter().find_map(put)) else {
        return Ok(Verdict::Conflict);
    };
    Ok(match store.get(key).await? {
        Some(entry) if entry.value == *value => Verdict::Committed(entry.modified),
        _ => Verdict::Conflict,
    })
}

/// The record in an entry.
pub fn decode<T: serde::de::DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    serde_json::from_slice(&entry.value).map_err(|error| StoreError::Damaged(format!("{}: {error}", entry.key)))
}

/// A record as the bytes of a value.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    // Only maps with keys that are not text can fail, and no record has one.
    serde_json::to_vec(record).expect("records are plain data")
}
