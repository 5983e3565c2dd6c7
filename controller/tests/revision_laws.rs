//! The laws of revisions: over random histories, concurrent writers, and a store that fails at any write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use dysvr_conf::bundle::Assumptions;
use dysvr_controller::revision::{
    Applied, ApplyError, ChangeKind, Content, Files, Head, Meta, Record, Repository, Request, Selection, digest_of,
    page_of,
};
use dysvr_controller::store::{
    self, Candidate, Entry, Reign, Snapshot, Store, StoreError, StoreRevision, Txn, Verdict, Watch, Write, keys,
};
use dysvr_proto::id::Revision;
use tempfile::TempDir;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

async fn open(dir: &TempDir) -> Arc<dyn Store> {
    store::open(&format!("file:{}", dir.path().join("s.redb").display())).await.unwrap()
}

fn repository(store: &Arc<dyn Store>) -> Repository {
    Repository::new(Arc::clone(store), Arc::new(Assumptions::default()))
}

fn name(n: u64) -> String {
    format!("auto_vhost/v{n}.conf")
}

fn vhost(n: u64, status: u64) -> Content {
    Content::new(format!("server {{ vsvc_id {}; listen 80; server_name v{n}; return {status}; }}\n", n + 1))
}

fn write(n: u64, status: u64) -> Request {
    Request::Change { files: Files::from([(name(n), vhost(n, status))]), delete: Vec::new() }
}

fn nothing(_: &mut Head, _: &mut Record) -> Vec<Write> {
    Vec::new()
}

async fn apply(repository: &Repository, request: &Request) -> Result<Applied, ApplyError> {
    repository.apply(request, &Meta::default(), false, None, &nothing).await
}

async fn stored(repository: &Repository, request: &Request) -> Record {
    match apply(repository, request).await.unwrap() {
        Applied::Stored(stored) => stored.record.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_revision_stays_what_it_was() {
    let seeds: Vec<u64> = match std::env::var("DYSVR_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..4).collect(),
    };
    for seed in seeds {
        eprintln!("DYSVR_SEED={seed}");
        let mut dice = Dice(seed);
        let dir = TempDir::new().unwrap();
        let store = open(&dir).await;
        let writer = repository(&store);
        let mut model = Files::new();
        let mut history = vec![model.clone()];
        let mut touched = BTreeMap::new();
        while history.len() < 40 {
            let before = writer.record(Revision(history.len() as u64 - 1)).await.unwrap();
            let request = match dice.below(10) {
                0..=5 => {
                    let mut files = Files::new();
                    for _ in 0..=dice.below(3) {
                        let n = dice.below(12);
                        files.insert(name(n), vhost(n, 200 + dice.below(4)));
                    }
                    model.extend(files.clone());
                    Request::Change { files, delete: Vec::new() }
                }
                6..=8 => {
                    let all: Vec<_> = model.keys().cloned().collect();
                    if all.is_empty() {
                        continue;
                    }
                    let gone = all[usize::try_from(dice.below(all.len() as u64)).unwrap()].clone();
                    model.remove(&gone);
                    // By any of the three names that it has.
                    let stem = gone.trim_start_matches("auto_vhost/").trim_end_matches(".conf").to_owned();
                    let id = stem.trim_start_matches('v').parse::<u64>().unwrap() + 1;
                    let selection = [gone, stem, id.to_string()][usize::try_from(dice.below(3)).unwrap()].clone();
                    Request::Change { files: Files::new(), delete: vec![Selection(selection)] }
                }
                _ => {
                    model = history[usize::try_from(dice.below(history.len() as u64)).unwrap()].clone();
                    Request::Restore(model.clone())
                }
            };
            let last = history.last().unwrap();
            match apply(&writer, &request).await.unwrap() {
                Applied::Nothing(..) => assert_eq!(model, *last, "something changed"),
                Applied::Refused(draft, _) => panic!("{:?}", draft.checked.problems),
                Applied::Stored(stored) => {
                    assert_ne!(model, *last, "nothing changed");
                    let record = stored.record;
                    assert_eq!(record.number, Revision(history.len() as u64));
                    assert_eq!(record.parent, Revision(history.len() as u64 - 1));
                    assert_eq!(record.digest, digest_of(&model));
                    // Only the pages of changed files are new.
                    let changes = writer.changes(&record).await.unwrap();
                    let changed: Vec<_> = changes.iter().map(|change| page_of(&change.name)).collect();
                    let pages = before.map(|before| before.pages).unwrap_or_default();
                    for page in 0..dysvr_controller::revision::PAGES {
                        let same = pages.get(&page) == record.pages.get(&page);
                        assert!(same || changed.contains(&page), "page {page} was rewritten");
                    }
                    for change in changes {
                        let expected = match (last.contains_key(&change.name), model.contains_key(&change.name)) {
                            (false, _) => ChangeKind::Add,
                            (_, false) => ChangeKind::Delete,
                            _ => ChangeKind::Modify,
                        };
                        assert_eq!(change.kind, expected);
                        touched.insert(change.name, record.number);
                    }
                    history.push(model.clone());
                }
            }
        }
        // Somebody who has nothing in memory reads the same.
        let reader = repository(&store);
        for (number, files) in (0..).zip(&history) {
            assert_eq!(*reader.files(Revision(number)).await.unwrap(), *files, "revision {number}");
        }
        for (name, entry) in reader.manifest(Revision(history.len() as u64 - 1)).await.unwrap() {
            assert_eq!(entry.revision, touched[&name], "{name}");
        }
        assert_eq!(reader.records().await.unwrap().len(), history.len() - 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_the_same_time_lose_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let writers = [repository(&store), repository(&store)];
    let work = async |writer: &Repository, from: u64| {
        for n in from..from + 10 {
            loop {
                match apply(writer, &write(n, 200)).await {
                    Ok(Applied::Stored(_)) => break,
                    Err(ApplyError::Busy) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    };
    tokio::join!(work(&writers[0], 0), work(&writers[1], 100));
    let (head, _) = writers[0].head().await.unwrap();
    assert_eq!(head.base, Revision(20));
    assert_eq!(writers[1].files(head.base).await.unwrap().len(), 20);
}

/// A store that does something at its k-th write.
#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn Store>,
    writes: AtomicUsize,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The write is lost and nobody says so.
    LostAt(usize),
    /// The write happens and nobody says so.
    SilentAt(usize),
    /// From then on nothing is written.
    DeadFrom(usize),
    /// Somebody else writes the same file first.
    RivalAt(usize, u64),
}

fn unknown() -> StoreError {
    StoreError::Unknown { attempt: "writing".into(), source: Arc::new(std::io::Error::other("silence")) }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn range(&self, prefix: &str, at: Option<StoreRevision>) -> Result<Snapshot, StoreError> {
        self.inner.range(prefix, at).await
    }

    async fn commit(&self, txn: Txn) -> Result<Verdict, StoreError> {
        let n = self.writes.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::LostAt(k) if n == k => Err(unknown()),
            Fault::SilentAt(k) if n == k => self.inner.commit(txn).await.and(Err(unknown())),
            Fault::DeadFrom(k) if n >= k => Err(unknown()),
            Fault::RivalAt(k, file) if n == k => {
                stored(&repository(&self.inner), &write(file, 299)).await;
                self.inner.commit(txn).await
            }
            _ => self.inner.commit(txn).await,
        }
    }

    async fn watch(&self, prefix: &str, after: StoreRevision) -> Result<Watch, StoreError> {
        self.inner.watch(prefix, after).await
    }

    async fn campaign(&self, candidate: &Candidate) -> Result<Reign, StoreError> {
        self.inner.campaign(candidate).await
    }
}

/// A change through a faulty store, on a base with one vhost; what became of it and what is stored then.
async fn through(fault: Fault) -> (Result<Applied, ApplyError>, usize, Files) {
    let dir = TempDir::new().unwrap();
    let inner = open(&dir).await;
    stored(&repository(&inner), &write(0, 200)).await;
    let faulty: Arc<dyn Store> = Arc::new(Faulty { inner: Arc::clone(&inner), writes: AtomicUsize::new(0), fault });
    let outcome = apply(&repository(&faulty), &write(1, 200)).await;
    let after = repository(&inner);
    let (head, _) = after.head().await.unwrap();
    let files = after.files(head.base).await.unwrap();
    (outcome, after.records().await.unwrap().len(), (*files).clone())
}

/// Writes of one change: its blobs, then the revision.
const WRITES: usize = 2;

#[tokio::test]
async fn a_write_of_unknown_outcome_happens_once() {
    for k in 0..WRITES {
        for fault in [Fault::LostAt(k), Fault::SilentAt(k)] {
            let (outcome, records, files) = through(fault).await;
            assert!(matches!(outcome, Ok(Applied::Stored(_))), "{fault:?}: {outcome:?}");
            assert_eq!((records, files.len()), (2, 2), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_writer_that_dies_leaves_the_old_or_the_new_whole() {
    for k in 0..=WRITES {
        let (outcome, records, files) = through(Fault::DeadFrom(k)).await;
        let expected = if k < WRITES { 1 } else { 2 };
        assert_eq!((records, files.len()), (expected, expected), "dead from write {k}");
        match outcome {
            Ok(Applied::Stored(_)) => assert_eq!(k, WRITES),
            Err(ApplyError::Store(StoreError::Unknown { .. })) => assert!(k < WRITES),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_rival_is_built_on_unless_it_changed_the_same_file() {
    let (outcome, records, files) = through(Fault::RivalAt(WRITES - 1, 5)).await;
    assert!(matches!(&outcome, Ok(Applied::Stored(stored)) if stored.record.number == Revision(3)), "{outcome:?}");
    assert_eq!((records, files.len()), (3, 3));
    let (outcome, records, files) = through(Fault::RivalAt(WRITES - 1, 1)).await;
    match outcome {
        Err(ApplyError::Conflict(file, at)) => assert_eq!((file, at), (name(1), Revision(2))),
        other => panic!("{other:?}"),
    }
    assert_eq!((records, files[&name(1)].clone()), (2, vhost(1, 299)));
}

#[tokio::test]
async fn a_deposed_leader_stores_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let me = Candidate { name: "one".into(), address: "one:1".into() };
    let old = store.campaign(&me).await.unwrap().fence.clone();
    let _new = store.campaign(&me).await.unwrap();
    let writer = repository(&store);
    let outcome = writer.apply(&write(0, 200), &Meta::default(), false, Some(old), &nothing).await;
    assert!(matches!(outcome, Err(ApplyError::NotLeader)), "{outcome:?}");
    assert!(store.get(keys::HEAD).await.unwrap().is_none());
}

#[tokio::test]
async fn a_change_of_any_size_is_one_revision() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir).await;
    let writer = repository(&store);
    let mut files: Files = (0..2_000).map(|n| (name(n), vhost(n, 200))).collect();
    let long = format!("# {}\n", "x".repeat(120)).repeat(20_000) + "location /l { return 204; }\n";
    assert!(long.len() > 2 * store::MAX_VALUE);
    files.insert("common_location.conf".into(), Content::new(long));
    let with = "server { vsvc_id 9000; listen 80; server_name l; include common_location.conf; }\n";
    files.insert("auto_vhost/zz.conf".into(), Content::new(with));
    let record = stored(&writer, &Request::Change { files: files.clone(), delete: Vec::new() }).await;
    assert_eq!(record.number, Revision(1));
    let reader = repository(&store);
    assert_eq!(*reader.files(Revision(1)).await.unwrap(), files);
    assert_eq!(reader.changes(&record).await.unwrap().len(), 2_002);
}
