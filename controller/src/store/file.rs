//! The store of a single controller: an embedded database (redb) in one file, locked by its process.
//!
//! Every commit is durable before it is answered. Each write keeps its revision, so that a prefix can be read as of an
//! earlier one and a watch can begin in the past; what is older than the last [`KEEP`] revisions is dropped now and then.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::{Mutex, oneshot, watch};

use super::{
    Candidate, Condition, Entry, Event, Leader, Reign, Snapshot, Store, StoreError, StoreRevision, Txn, Verdict, Watch,
    Write, encode, keys, reign,
};

/// How many revisions can be read back and watched from.
pub const KEEP: u64 = 10_000;

/// The revision that holds each key's current value.
const CURRENT: TableDefinition<'_, &str, u64> = TableDefinition::new("current");
/// Every kept value; `None` is a deletion.
const VERSIONS: TableDefinition<'_, (&str, u64), Option<&[u8]>> = TableDefinition::new("versions");
/// The keys that each kept revision wrote.
const LOG: TableDefinition<'_, (u64, u32), &str> = TableDefinition::new("log");
/// The two numbers below.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const COMPACTED: &str = "compacted";

/// An open database file.
#[derive(Debug)]
pub struct FileStore {
    db: Arc<Database>,
    path: PathBuf,
    /// The last revision, for watches to wake up on.
    revision: Arc<watch::Sender<u64>>,
    /// Held by the reign: the file's lock keeps other processes away, this one other campaigns of the same process.
    throne: Arc<Mutex<()>>,
}

impl FileStore {
    /// Opens or creates the file and the directories above it.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        blocking(move || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|error| unavailable("creating its directory", error))?;
            }
            let db = Database::create(&path).map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.display().to_string()),
                error => unavailable(&format!("opening {}", path.display()), error),
            })?;
            let txn = db.begin_write().map_err(|error| unavailable("opening", error))?;
            let revision = create(&txn).map_err(|error| unavailable("creating its tables", error))?;
            txn.commit().map_err(|error| unavailable("creating its tables", error))?;
            Ok(Self {
                db: Arc::new(db),
                path,
                revision: Arc::new(watch::Sender::new(revision)),
                throne: Arc::default(),
            })
        })
        .await
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what was overwritten or deleted up to `upto`, the newest value of each key excepted.
    pub async fn compact(&self, upto: StoreRevision) -> Result<(), StoreError> {
        let db = Arc::clone(&self.db);
        blocking(move || {
            let txn = db.begin_write().map_err(|error| unavailable("compacting", error))?;
            compact(&txn, upto.0).map_err(|error| unavailable("compacting", error))?;
            txn.commit().map_err(|error| unavailable("compacting", error))
        })
        .await
    }
}

#[async_trait]
impl Store for FileStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let (db, key) = (Arc::clone(&self.db), key.to_owned());
        blocking(move || get(&db, &key).map_err(|error| unavailable(&format!("reading {key}"), error))).await
    }

    async fn range(&self, prefix: &str, at: Option<StoreRevision>) -> Result<Snapshot, StoreError> {
        let (db, prefix) = (Arc::clone(&self.db), prefix.to_owned());
        blocking(move || range(&db, &prefix, at).map_err(|error| unavailable(&format!("reading {prefix}"), error))?)
            .await
    }

    async fn commit(&self, txn: Txn) -> Result<Verdict, StoreError> {
        txn.check()?;
        let (db, revision) = (Arc::clone(&self.db), Arc::clone(&self.revision));
        blocking(move || {
            let verdict = commit(&db, &txn)?;
            if let Verdict::Committed(at) = verdict {
                revision.send_modify(|last| *last = at.0.max(*last));
            }
            Ok(verdict)
        })
        .await
    }

    async fn watch(&self, prefix: &str, after: StoreRevision) -> Result<Watch, StoreError> {
        let watcher = Watcher {
            db: Arc::clone(&self.db),
            prefix: prefix.to_owned(),
            seen: after.0,
            news: self.revision.subscribe(),
            failed: false,
        };
        Ok(Box::pin(stream::unfold(watcher, Watcher::next)))
    }

    async fn campaign(&self, candidate: &Candidate) -> Result<Reign, StoreError> {
        let throne = Arc::clone(&self.throne).lock_owned().await;
        let last = self.get(keys::EPOCH).await?;
        let epoch = reign::next_epoch(last.as_ref());
        let leader = Leader { candidate: candidate.clone(), epoch };
        let txn = Txn::new()
            .when(Condition::as_read(keys::EPOCH, last.as_ref()))
            .put(keys::EPOCH, epoch.to_string())
            .put(keys::LEADER, encode(&leader));
        let Verdict::Committed(at) = self.commit(txn).await? else {
            return Err(StoreError::Damaged("an epoch was given out beside the election".into()));
        };
        let (resign, resigned) = oneshot::channel::<()>();
        let (lost_tx, lost) = watch::channel(false);
        let fence = Condition::Unchanged(keys::LEADER.to_owned(), at);
        let (db, news, guard) = (Arc::clone(&self.db), Arc::clone(&self.revision), fence.clone());
        tokio::spawn(async move {
            let _ = resigned.await;
            let txn = Txn::new().when(guard).delete(keys::LEADER);
            let _ = blocking(move || {
                if let Verdict::Committed(at) = commit(&db, &txn)? {
                    news.send_modify(|last| *last = at.0.max(*last));
                }
                Ok(())
            })
            .await;
            lost_tx.send_replace(true);
            drop(throne);
        });
        Ok(Reign::new(epoch, fence, lost, resign))
    }
}

/// Runs what blocks beside the executor. A panic below is a damaged store, not a dead controller.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Unavailable { attempt: "working on the file".into(), source: Arc::new(error) }),
    }
}

fn unavailable(attempt: &str, error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    match &error {
        redb::Error::Corrupted(text) => StoreError::Damaged(text.clone()),
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => StoreError::NoSpace(io.to_string()),
        _ => StoreError::Unavailable { attempt: attempt.to_owned(), source: Arc::new(error) },
    }
}

/// Makes the tables; the last revision.
fn create(txn: &WriteTransaction) -> Result<u64, redb::Error> {
    txn.open_table(CURRENT)?;
    txn.open_table(VERSIONS)?;
    txn.open_table(LOG)?;
    let meta = txn.open_table(META)?;
    let revision = meta.get(REVISION)?.map_or(0, |value| value.value());
    Ok(revision)
}

fn get(db: &Database, key: &str) -> Result<Option<Entry>, redb::Error> {
    let txn = db.begin_read()?;
    let Some(modified) = txn.open_table(CURRENT)?.get(key)?.map(|at| at.value()) else { return Ok(None) };
    let versions = txn.open_table(VERSIONS)?;
    let value = versions.get((key, modified))?;
    Ok(value.and_then(|value| {
        value.value().map(|bytes| Entry {
            key: key.to_owned(),
            value: bytes.to_vec(),
            modified: StoreRevision(modified),
        })
    }))
}

fn range(db: &Database, prefix: &str, at: Option<StoreRevision>) -> Result<Result<Snapshot, StoreError>, redb::Error> {
    let txn = db.begin_read()?;
    let meta = txn.open_table(META)?;
    let last = meta.get(REVISION)?.map_or(0, |value| value.value());
    let compacted = meta.get(COMPACTED)?.map_or(0, |value| value.value());
    let at = at.map_or(last, |at| at.0);
    if at < compacted {
        return Ok(Err(StoreError::Compacted(StoreRevision(at))));
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut add = |key: &str, modified: u64, value: &[u8]| {
        entries.push(Entry { key: key.to_owned(), value: value.to_vec(), modified: StoreRevision(modified) });
    };
    let versions = txn.open_table(VERSIONS)?;
    if at >= last {
        for item in txn.open_table(CURRENT)?.range(prefix..)? {
            let (key, modified) = item?;
            if !key.value().starts_with(prefix) {
                break;
            }
            if let Some(value) = versions.get((key.value(), modified.value()))?
                && let Some(bytes) = value.value()
            {
                add(key.value(), modified.value(), bytes);
            }
        }
    } else {
        // The newest version of each key that is not above `at`.
        let mut newest: Option<(String, u64, Option<Vec<u8>>)> = None;
        for item in versions.range((prefix, 0)..)? {
            let (key, value) = item?;
            let (name, modified) = key.value();
            if !name.starts_with(prefix) {
                break;
            }
            if let Some((held, modified, Some(value))) = newest.take_if(|(held, ..)| held != name) {
                add(&held, modified, &value);
            }
            if modified <= at {
                newest = Some((name.to_owned(), modified, value.value().map(<[u8]>::to_vec)));
            }
        }
        if let Some((held, modified, Some(value))) = newest {
            add(&held, modified, &value);
        }
    }
    Ok(Ok(Snapshot { entries, revision: StoreRevision(at) }))
}

fn commit(db: &Database, txn: &Txn) -> Result<Verdict, StoreError> {
    let attempt = || format!("writing {}", txn.writes.first().map_or("nothing", Write::key));
    let inner = db.begin_write().map_err(|error| unavailable(&attempt(), error))?;
    let verdict = write(&inner, txn).map_err(|error| unavailable(&attempt(), error))?;
    match verdict {
        Verdict::Conflict => inner.abort().map_err(|error| unavailable(&attempt(), error))?,
        // A commit that fails may have reached the disk: only the next open tells.
        Verdict::Committed(_) => inner.commit().map_err(|error| match unavailable(&attempt(), error) {
            StoreError::Unavailable { attempt, source } => StoreError::Unknown { attempt, source },
            error => error,
        })?,
    }
    Ok(verdict)
}

fn write(inner: &WriteTransaction, txn: &Txn) -> Result<Verdict, redb::Error> {
    let mut current = inner.open_table(CURRENT)?;
    for condition in &txn.conditions {
        let found = current.get(condition.key())?.map(|at| at.value());
        let holds = match condition {
            Condition::Absent(_) => found.is_none(),
            Condition::Unchanged(_, at) => found == Some(at.0),
        };
        if !holds {
            return Ok(Verdict::Conflict);
        }
    }
    let mut meta = inner.open_table(META)?;
    let revision = meta.get(REVISION)?.map_or(0, |value| value.value()) + 1;
    let mut versions = inner.open_table(VERSIONS)?;
    let mut log = inner.open_table(LOG)?;
    for (n, write) in (0..).zip(&txn.writes) {
        match write {
            Write::Put(key, value) => {
                current.insert(key.as_str(), revision)?;
                versions.insert((key.as_str(), revision), Some(value.as_slice()))?;
            }
            Write::Delete(key) => {
                if current.remove(key.as_str())?.is_none() {
                    continue;
                }
                versions.insert((key.as_str(), revision), None)?;
            }
        }
        log.insert((revision, n), write.key())?;
    }
    meta.insert(REVISION, revision)?;
    let compacted = meta.get(COMPACTED)?.map_or(0, |value| value.value());
    drop((current, versions, log, meta));
    if revision > compacted + 2 * KEEP {
        compact(inner, revision - KEEP)?;
    }
    Ok(Verdict::Committed(StoreRevision(revision)))
}

fn compact(txn: &WriteTransaction, upto: u64) -> Result<(), redb::Error> {
    let mut meta = txn.open_table(META)?;
    let last = meta.get(REVISION)?.map_or(0, |value| value.value());
    let compacted = meta.get(COMPACTED)?.map_or(0, |value| value.value());
    let upto = upto.min(last);
    if upto <= compacted {
        return Ok(());
    }
    let mut log = txn.open_table(LOG)?;
    let mut versions = txn.open_table(VERSIONS)?;
    for item in log.extract_from_if(..(upto + 1, 0), |_, _| true)? {
        let (at, key) = item?;
        let (revision, _) = at.value();
        let key = key.value();
        let deleted = versions.get((key, revision))?.is_some_and(|value| value.value().is_none());
        // What this revision replaced goes; a deletion leaves nothing to keep either.
        let end = if deleted { revision + 1 } else { revision };
        versions.retain_in((key, 0)..(key, end), |_, _| false)?;
    }
    meta.insert(COMPACTED, upto)?;
    Ok(())
}

/// A running watch: reads the log whenever the revision has moved, so it can fall behind but not miss anything.
struct Watcher {
    db: Arc<Database>,
    prefix: String,
    seen: u64,
    news: watch::Receiver<u64>,
    failed: bool,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Vec<Event>, StoreError>, Self)> {
        while !self.failed {
            let last = *self.news.borrow_and_update();
            if last > self.seen {
                let (db, prefix, seen) = (Arc::clone(&self.db), self.prefix.clone(), self.seen);
                let events = blocking(move || {
                    changes(&db, &prefix, seen, last).map_err(|error| unavailable("watching", error))?
                })
                .await;
                self.seen = last;
                match events {
                    Ok(events) if events.is_empty() => {}
                    events => {
                        self.failed = events.is_err();
                        return Some((events, self));
                    }
                }
            } else if self.news.changed().await.is_err() {
                return None;
            }
        }
        None
    }
}

fn changes(db: &Database, prefix: &str, after: u64, upto: u64) -> Result<Result<Vec<Event>, StoreError>, redb::Error> {
    let txn = db.begin_read()?;
    let compacted = txn.open_table(META)?.get(COMPACTED)?.map_or(0, |value| value.value());
    if after < compacted {
        return Ok(Err(StoreError::Compacted(StoreRevision(after))));
    }
    let versions = txn.open_table(VERSIONS)?;
    let mut events = Vec::new();
    for item in txn.open_table(LOG)?.range((after + 1, 0)..(upto + 1, 0))? {
        let (at, key) = item?;
        let (revision, _) = at.value();
        if key.value().starts_with(prefix) {
            let value = versions.get((key.value(), revision))?;
            events.push(Event {
                key: key.value().to_owned(),
                value: value.and_then(|value| value.value().map(<[u8]>::to_vec)),
                revision: StoreRevision(revision),
            });
        }
    }
    Ok(Ok(events))
}
