//! Revisions in the store: reading them with a cache, writing them with one compare-and-set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dysvr_conf::bundle::Assumptions;
use dysvr_proto::digest::{self, Digest};
use dysvr_proto::id::Revision;
use dysvr_proto::planted::{Bug, planted};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::change::{Draft, Request, draft};
use super::check::{Checked, check};
use super::files::{Content, Files, digest_of};
use super::head::Head;
use super::record::{Change, Changes, FileEntry, Manifest, PageRef, Record, page_of};
use crate::store::{
    Condition, Entry, Store, StoreError, Txn, Verdict, Write, decode, encode, keys, read_large, settle, write_large,
};

/// Blobs kept in memory, bytes.
const CACHE: usize = 256 << 20;

/// Blobs that are read at the same time: a leader that begins reads thousands of small ones.
const READS: usize = 32;

/// Revisions whose files are kept at hand.
const SETS: usize = 8;

/// How often a change is worked out again when others move the head meanwhile.
const ATTEMPTS: usize = 5;

/// Reads and writes revisions.
#[derive(Debug)]
pub struct Repository {
    store: Arc<dyn Store>,
    assumptions: Arc<Assumptions>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    blobs: HashMap<Digest, Bytes>,
    bytes: usize,
    sets: Vec<(Revision, Arc<Files>)>,
    checked: Option<(Revision, Arc<Checked>)>,
}

/// Who makes a revision, and when.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// Who.
    pub author: String,
    /// Why.
    pub message: String,
    /// Milliseconds since 1970.
    pub now_unix_ms: i64,
}

/// What goes into the transaction of a new revision beside it: called with the head after the change and the record, to
/// complete both; the writes that it answers are committed with them. Called again when the head has moved.
pub type Steering<'a> = &'a (dyn Fn(&mut Head, &mut Record) -> Vec<Write> + Send + Sync);

/// What became of a change.
#[derive(Debug)]
pub enum Applied {
    /// Something is wrong with it; nothing was stored.
    Refused(Draft, Head),
    /// The fleet's files are so already; nothing was stored.
    Nothing(Draft, Head),
    /// It is a revision now.
    Stored(Box<Stored>),
}

/// A new revision.
#[derive(Debug)]
pub struct Stored {
    /// The change.
    pub draft: Draft,
    /// The head after it.
    pub head: Head,
    /// What the next write of the head must compare.
    pub head_at: Condition,
    /// The revision.
    pub record: Record,
}

/// Why a change was neither stored nor refused for what it holds.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else changed the same file meanwhile.
    #[error("{0} was changed by somebody else meanwhile (revision {1})")]
    Conflict(String, Revision),
    /// Others kept moving the head.
    #[error("the head kept moving; try again")]
    Busy,
    /// This controller does not lead any more.
    #[error("another controller leads")]
    NotLeader,
}

impl Repository {
    /// On a store; changes are checked in what nodes are assumed to have around them.
    pub fn new(store: Arc<dyn Store>, assumptions: Arc<Assumptions>) -> Self {
        Self { store, assumptions, cache: Mutex::default() }
    }

    /// The store below.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The head, and what a write that builds on it must compare.
    pub async fn head(&self) -> Result<(Head, Condition), StoreError> {
        let entry = self.store.get(keys::HEAD).await?;
        let head = entry.as_ref().map_or_else(|| Ok(Head::new()), decode)?;
        Ok((head, Condition::as_read(keys::HEAD, entry.as_ref())))
    }

    /// A revision's record; `None` for 0 and for numbers that were not given out.
    pub async fn record(&self, number: Revision) -> Result<Option<Record>, StoreError> {
        self.store.get(&keys::revision(number)).await?.as_ref().map(decode).transpose()
    }

    /// All records, oldest first.
    pub async fn records(&self) -> Result<Vec<Record>, StoreError> {
        self.store.range(keys::REVISIONS, None).await?.entries.iter().map(decode::<Record>).collect()
    }

    /// What a revision changed.
    pub async fn changes(&self, record: &Record) -> Result<Vec<Change>, StoreError> {
        match &record.changes {
            Changes::Inline(changes) => Ok(changes.clone()),
            Changes::Blob(PageRef(digest)) => {
                let entry = Entry {
                    key: keys::blob(digest),
                    value: self.blob(digest).await?.to_vec(),
                    modified: crate::store::StoreRevision(0),
                };
                decode(&entry)
            }
        }
    }

    /// The file map of a revision; 0 has none.
    pub async fn manifest(&self, number: Revision) -> Result<Manifest, StoreError> {
        let Some(record) = self.known(number).await? else { return Ok(Manifest::new()) };
        let mut manifest = Manifest::new();
        for PageRef(digest) in record.pages.values() {
            let value = self.blob(digest).await?.to_vec();
            let entry = Entry { key: keys::blob(digest), value, modified: crate::store::StoreRevision(0) };
            manifest.append(&mut decode::<Manifest>(&entry)?);
        }
        Ok(manifest)
    }

    async fn known(&self, number: Revision) -> Result<Option<Record>, StoreError> {
        if number == Revision(0) {
            return Ok(None);
        }
        let record = self.record(number).await?;
        record.map(Some).ok_or_else(|| StoreError::Damaged(format!("revision {number} is missing")))
    }

    /// The files of a revision with their contents.
    pub async fn files(&self, number: Revision) -> Result<Arc<Files>, StoreError> {
        if let Some(files) = self.cached(number) {
            return Ok(files);
        }
        let reads = stream::iter(self.manifest(number).await?).map(async |(name, entry)| {
            Ok::<_, StoreError>((name, Content { bytes: self.blob(&entry.digest).await?, digest: entry.digest }))
        });
        let files: Files = reads.buffer_unordered(READS).try_collect().await?;
        let files = Arc::new(files);
        self.remember(number, &files);
        Ok(files)
    }

    /// What a revision holds; the last one that was asked for is kept.
    pub async fn checked(&self, number: Revision) -> Result<Arc<Checked>, StoreError> {
        let held = self.cache.lock().unwrap_or_else(PoisonError::into_inner).checked.clone();
        if let Some((_, checked)) = held.filter(|(held, _)| *held == number) {
            return Ok(checked);
        }
        let files = self.files(number).await?;
        let assumptions = Arc::clone(&self.assumptions);
        let checked = Arc::new(beside(move || check(&files, &assumptions)).await?);
        self.keep_checked(number, &checked);
        Ok(checked)
    }

    fn keep_checked(&self, number: Revision, checked: &Arc<Checked>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.checked = Some((number, Arc::clone(checked)));
    }

    fn cached(&self, number: Revision) -> Option<Arc<Files>> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.sets.iter().find(|(held, _)| *held == number).map(|(_, files)| Arc::clone(files))
    }

    fn remember(&self, number: Revision, files: &Arc<Files>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.sets.iter().all(|(held, _)| *held != number) {
            if cache.sets.len() == SETS {
                cache.sets.remove(0);
            }
            cache.sets.push((number, Arc::clone(files)));
        }
    }

    /// A blob by its address.
    pub async fn blob(&self, address: &Digest) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).blobs.get(address) {
            return Ok(bytes.clone());
        }
        let found = read_large(&*self.store, &keys::blob(address)).await?;
        let bytes = found
            .filter(|bytes| digest::of_content(bytes) == *address)
            .map(Bytes::from)
            .ok_or_else(|| StoreError::Damaged(format!("blob {} is missing or differs", digest::hex(address))))?;
        self.cache_blob(*address, &bytes);
        Ok(bytes)
    }

    fn cache_blob(&self, address: Digest, bytes: &Bytes) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.bytes + bytes.len() > CACHE {
            cache.blobs.clear();
            cache.bytes = 0;
        }
        if cache.blobs.insert(address, bytes.clone()).is_none() {
            cache.bytes += bytes.len();
        }
    }

    /// Writes blobs; their addresses. What is known to be there is not written again.
    pub async fn write_blobs(&self, blobs: Vec<Bytes>) -> Result<Vec<Digest>, StoreError> {
        let mut addresses = Vec::with_capacity(blobs.len());
        let mut new: BTreeMap<Digest, Bytes> = BTreeMap::new();
        for bytes in blobs {
            let address = digest::of_content(&bytes);
            addresses.push(address);
            if !self.cache.lock().unwrap_or_else(PoisonError::into_inner).blobs.contains_key(&address) {
                new.insert(address, bytes);
            }
        }
        let values = new.iter().map(|(address, bytes)| (keys::blob(address), bytes.to_vec())).collect();
        write_large(&*self.store, values).await?;
        for (address, bytes) in &new {
            self.cache_blob(*address, bytes);
        }
        Ok(addresses)
    }

    /// Works a change out against the head, storing nothing.
    pub async fn plan(&self, request: &Request) -> Result<(Draft, Head), StoreError> {
        let (head, _) = self.head().await?;
        Ok((self.work_out(&head, request).await?, head))
    }

    /// Makes a change the next revision. `always`: even when it changes no file. `fence` proves who steers.
    pub async fn apply(
        &self,
        request: &Request,
        meta: &Meta,
        always: bool,
        fence: Option<Condition>,
        steering: Steering<'_>,
    ) -> Result<Applied, ApplyError> {
        let mut first: Option<Revision> = None;
        for _ in 0..ATTEMPTS {
            let (mut head, unmoved) = self.head().await?;
            let base = self.files(head.base).await?;
            if let Some(seen) = first
                && let Some(name) = self.touched_since(seen, &base, request).await?
            {
                return Err(ApplyError::Conflict(name, head.base));
            }
            first.get_or_insert(head.base);
            let draft = self.work_out(&head, request).await?;
            if !draft.checked.problems.is_empty() {
                return Ok(Applied::Refused(draft, head));
            }
            if draft.changes.is_empty() && !always {
                return Ok(Applied::Nothing(draft, head));
            }
            let mut record = self.write_contents(&draft, &head, meta).await?;
            head.base = record.number;
            head.last = record.number;
            head.next_vsvc_id = draft.next_vsvc_id;
            let beside = steering(&mut head, &mut record);
            let key = keys::revision(record.number);
            let mut txn = Txn::new()
                .when(unmoved)
                .when(Condition::Absent(key.clone()))
                .put(keys::HEAD, encode(&head))
                .put(key, encode(&record));
            txn.conditions.extend(fence.clone().filter(|_| !planted(Bug::FenceForgotten)));
            txn.writes.extend(beside);
            if let Verdict::Committed(at) = settle(&*self.store, txn).await? {
                self.remember(record.number, &Arc::new(draft.files.clone()));
                self.keep_checked(record.number, &Arc::new(draft.checked.clone()));
                let head_at = Condition::Unchanged(keys::HEAD.to_owned(), at);
                return Ok(Applied::Stored(Box::new(Stored { draft, head, head_at, record })));
            }
            if let Some(fence) = &fence
                && Condition::as_read(fence.key(), self.store.get(fence.key()).await?.as_ref()) != *fence
            {
                return Err(ApplyError::NotLeader);
            }
        }
        Err(ApplyError::Busy)
    }

    async fn work_out(&self, head: &Head, request: &Request) -> Result<Draft, StoreError> {
        let base = self.files(head.base).await?;
        let before = self.checked(head.base).await?;
        let (request, next) = (request.clone(), head.next_vsvc_id);
        let assumptions = Arc::clone(&self.assumptions);
        beside(move || draft(&base, &before, &request, next, &assumptions)).await
    }

    /// A file of the request that differs between the base that was first seen and the one of now.
    async fn touched_since(
        &self,
        seen: Revision,
        now: &Files,
        request: &Request,
    ) -> Result<Option<String>, StoreError> {
        let then = self.files(seen).await?;
        let differs =
            |name: &String| then.get(name).map(|content| content.digest) != now.get(name).map(|content| content.digest);
        Ok(match request {
            Request::Change { files, .. } => files.keys().find(|name| differs(name)).cloned(),
            Request::Restore(_) => then.keys().chain(now.keys()).find(|name| differs(name)).cloned(),
        })
    }

    /// Writes the blobs of new contents and touched pages; the record that names them.
    async fn write_contents(&self, draft: &Draft, head: &Head, meta: &Meta) -> Result<Record, StoreError> {
        let number = head.last.next();
        let mut manifest = self.manifest(head.base).await?;
        let mut pages = self.known(head.base).await?.map(|record| record.pages).unwrap_or_default();
        let mut blobs = Vec::new();
        let mut touched = BTreeSet::new();
        for change in &draft.changes {
            touched.insert(page_of(&change.name));
            match draft.files.get(&change.name) {
                None => {
                    manifest.remove(&change.name);
                }
                Some(content) => {
                    blobs.push(content.bytes.clone());
                    let size = content.bytes.len() as u64;
                    let entry = FileEntry { digest: content.digest, size, revision: number };
                    manifest.insert(change.name.clone(), entry);
                }
            }
        }
        let mut held: BTreeMap<u8, BTreeMap<&String, &FileEntry>> = BTreeMap::new();
        for (name, entry) in &manifest {
            let page = page_of(name);
            if touched.contains(&page) {
                held.entry(page).or_default().insert(name, entry);
            }
        }
        for page in touched {
            let Some(held) = held.get(&page) else {
                pages.remove(&page);
                continue;
            };
            let blob = Bytes::from(encode(held));
            pages.insert(page, PageRef(digest::of_content(&blob)));
            blobs.push(blob);
        }
        let (changes, blob) = Changes::keep(draft.changes.clone());
        blobs.extend(blob.map(Bytes::from));
        self.write_blobs(blobs).await?;
        Ok(Record {
            number,
            parent: head.base,
            digest: digest_of(&draft.files),
            author: meta.author.clone(),
            message: meta.message.clone(),
            created_unix_ms: meta.now_unix_ms,
            changes,
            pages,
            rollout: dysvr_proto::id::RolloutId(0),
        })
    }
}

/// Reading thousands of files takes a while: beside the executor.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError::Damaged(format!("the files could not be read: {error}")))
}
