//! One contract for both stores: every case runs against a real etcd and against the file.

mod support;

use std::sync::Arc;
use std::time::Duration;

use dysvr_controller::store::{
    self, Candidate, Condition, Event, MAX_TXN_OPS, MAX_VALUE, Store, StoreError, StoreRevision, Txn, Verdict, Watch,
    read_large, settle, write_large,
};
use futures_util::StreamExt as _;
use tempfile::TempDir;
use tokio::time::timeout;

use support::etcd::Etcd;
use support::{PATIENCE, until};

/// Something that keeps a store alive, and how to reach the same store again.
trait Place {
    async fn open(&self) -> Arc<dyn Store>;
}

struct FilePlace(TempDir);

impl Place for FilePlace {
    async fn open(&self) -> Arc<dyn Store> {
        let address = format!("file:{}", self.0.path().join("sub/store.redb").display());
        // The one before is closed when its last task has ended.
        until("the file to be free", async || match store::open(&address).await {
            Ok(store) => Some(store),
            Err(StoreError::InUse(_)) => None,
            Err(error) => panic!("{error}"),
        })
        .await
    }
}

impl Place for Etcd {
    async fn open(&self) -> Arc<dyn Store> {
        store::open(&self.address()).await.unwrap()
    }
}

macro_rules! contract {
    ($($name:ident,)*) => {
        mod file {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::FilePlace(tempfile::TempDir::new().unwrap())).await;
            })*
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Etcd::start().await).await;
            })*
        }
    };
}

contract! {
    what_is_written_is_read,
    all_or_nothing,
    a_prefix_is_read_as_of_a_revision,
    many_keys_are_read_whole,
    a_watch_misses_nothing,
    a_watch_begins_in_the_past,
    what_is_written_survives,
    one_of_many_writers_wins,
    limits_are_the_same,
    large_values_come_back,
    one_leads_and_the_next_one_has_a_higher_epoch,
    a_deposed_leader_cannot_write,
    an_outcome_is_settled,
}

async fn committed(store: &dyn Store, txn: Txn) -> StoreRevision {
    match store.commit(txn).await.unwrap() {
        Verdict::Committed(revision) => revision,
        Verdict::Conflict => panic!("a conflict"),
    }
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    store.get(key).await.unwrap().map(|entry| String::from_utf8(entry.value).unwrap())
}

async fn next(watch: &mut Watch) -> Vec<Event> {
    timeout(PATIENCE, watch.next()).await.expect("an event in time").expect("no end").unwrap()
}

async fn what_is_written_is_read(place: impl Place) {
    let store = place.open().await;
    assert_eq!(store.get("a").await.unwrap(), None);
    let first = committed(&*store, Txn::new().put("a", "1").put("b", "")).await;
    let entry = store.get("a").await.unwrap().unwrap();
    assert_eq!((entry.key.as_str(), entry.value.as_slice(), entry.modified), ("a", &b"1"[..], first));
    assert_eq!(value(&*store, "b").await.as_deref(), Some(""));
    let second = committed(&*store, Txn::new().put("a", "2").delete("b").delete("never")).await;
    assert!(second > first);
    assert_eq!(store.get("a").await.unwrap().unwrap().modified, second);
    assert_eq!(store.get("b").await.unwrap(), None);
}

async fn all_or_nothing(place: impl Place) {
    let store = place.open().await;
    let first = committed(&*store, Txn::new().put("a", "1")).await;
    let cases = [
        Condition::Absent("a".into()),
        Condition::Unchanged("a".into(), StoreRevision(first.0 + 1)),
        Condition::Unchanged("never".into(), first),
    ];
    for wrong in cases {
        let txn = Txn::new().when(Condition::Absent("c".into())).when(wrong.clone()).put("c", "1").put("a", "9");
        assert_eq!(store.commit(txn).await.unwrap(), Verdict::Conflict, "{wrong:?}");
        assert_eq!(value(&*store, "a").await.as_deref(), Some("1"));
        assert_eq!(store.get("c").await.unwrap(), None);
    }
    committed(&*store, Txn::new().when(Condition::Unchanged("a".into(), first)).delete("a").put("c", "1")).await;
    committed(&*store, Txn::new().when(Condition::Absent("a".into())).put("a", "again")).await;
}

async fn a_prefix_is_read_as_of_a_revision(place: impl Place) {
    let store = place.open().await;
    committed(&*store, Txn::new().put("p/a", "1").put("p/b", "1").put("q/a", "1").put("p", "1")).await;
    let middle = committed(&*store, Txn::new().put("p/a", "2").put("p/c", "2")).await;
    committed(&*store, Txn::new().delete("p/a").put("p/b", "3").put("p/aa", "3")).await;
    let last = committed(&*store, Txn::new().put("p/c", "4")).await;

    let pairs = async |at| {
        let found = store.range("p/", at).await.unwrap();
        let pair = |e: store::Entry| format!("{}={}", e.key, String::from_utf8(e.value).unwrap());
        (found.entries.into_iter().map(pair).collect::<Vec<_>>(), found.revision)
    };
    assert_eq!(pairs(None).await, (vec!["p/aa=3".into(), "p/b=3".into(), "p/c=4".into()], last));
    assert_eq!(pairs(Some(middle)).await, (vec!["p/a=2".into(), "p/b=1".into(), "p/c=2".into()], middle));
    let then = store.range("p/", Some(middle)).await.unwrap().entries;
    assert_eq!(then[0].modified, middle);
    assert!(then[1].modified < middle);
}

async fn many_keys_are_read_whole(place: impl Place) {
    let store = place.open().await;
    for batch in 0..5 {
        let txn = (0..60).fold(Txn::new(), |txn, n| txn.put(format!("k/{:04}", batch * 60 + n), "v"));
        committed(&*store, txn).await;
    }
    let found = store.range("k/", None).await.unwrap();
    let keys: Vec<_> = found.entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, (0..300).map(|n| format!("k/{n:04}")).collect::<Vec<_>>());
}

async fn a_watch_misses_nothing(place: impl Place) {
    let store = place.open().await;
    let from = committed(&*store, Txn::new().put("w/a", "0")).await;
    let mut watch = store.watch("w/", from).await.unwrap();
    let mut expected = Vec::new();
    for n in 1..=50 {
        let value = n.to_string();
        let revision = committed(&*store, Txn::new().put("w/a", value.as_str()).put("other", value.as_str())).await;
        expected.push((Some(value.into_bytes()), revision));
    }
    let revision = committed(&*store, Txn::new().delete("w/a")).await;
    expected.push((None, revision));
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.extend(next(&mut watch).await.into_iter().map(|event| {
            assert_eq!(event.key, "w/a");
            (event.value, event.revision)
        }));
    }
    assert_eq!(seen, expected);
}

async fn a_watch_begins_in_the_past(place: impl Place) {
    let store = place.open().await;
    let first = committed(&*store, Txn::new().put("w/a", "1")).await;
    let second = committed(&*store, Txn::new().put("w/a", "2").put("w/b", "2")).await;
    let mut watch = store.watch("w/", first).await.unwrap();
    let event = |key: &str| Event { key: key.into(), value: Some(b"2".to_vec()), revision: second };
    assert_eq!(next(&mut watch).await, [event("w/a"), event("w/b")]);
}

async fn what_is_written_survives(place: impl Place) {
    let store = place.open().await;
    let revision = committed(&*store, Txn::new().put("a", "1")).await;
    drop(store);
    let store = place.open().await;
    assert_eq!(store.get("a").await.unwrap().unwrap().modified, revision);
    assert!(committed(&*store, Txn::new().put("a", "2")).await > revision);
}

async fn one_of_many_writers_wins(place: impl Place) {
    let store = place.open().await;
    committed(&*store, Txn::new().put("n", "0")).await;
    let add = async |times: usize| {
        for _ in 0..times {
            loop {
                let entry = store.get("n").await.unwrap().unwrap();
                let n: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let txn = Txn::new().when(Condition::as_read("n", Some(&entry))).put("n", (n + 1).to_string());
                if store.commit(txn).await.unwrap() != Verdict::Conflict {
                    break;
                }
            }
        }
    };
    tokio::join!(add(20), add(20), add(20));
    assert_eq!(value(&*store, "n").await.as_deref(), Some("60"));
}

async fn limits_are_the_same(place: impl Place) {
    let store = place.open().await;
    let refused = async |txn: Txn, what: &str| match store.commit(txn).await {
        Err(StoreError::TooLarge { what: said, .. }) => assert!(said.contains(what), "{said}"),
        other => panic!("{other:?}"),
    };
    let filled = |count: usize| (0..count).fold(Txn::new(), |txn, n| txn.put(format!("k{n}"), ""));
    refused(filled(MAX_TXN_OPS + 1), "writes").await;
    refused(Txn::new().put("big", vec![0; MAX_VALUE + 1]), "value of big").await;
    refused(Txn::new().put("a", vec![0; MAX_VALUE]).put("b", vec![0; MAX_VALUE]), "bytes").await;
    committed(&*store, filled(MAX_TXN_OPS)).await;
    committed(&*store, Txn::new().put("big", vec![7; MAX_VALUE])).await;
    assert_eq!(store.get("big").await.unwrap().unwrap().value.len(), MAX_VALUE);
    let conditions = (0..=MAX_TXN_OPS).fold(Txn::new(), |txn, n| txn.when(Condition::Absent(format!("x{n}"))));
    refused(conditions, "conditions").await;
}

async fn large_values_come_back(place: impl Place) {
    let store = place.open().await;
    let sizes = [0, 1, store::CHUNK - 1, store::CHUNK, store::CHUNK + 1, 5 * store::CHUNK + 17];
    let content = |size: usize| (0..size).map(|n| (n * 31 % 251) as u8).collect::<Vec<u8>>();
    write_large(&*store, sizes.iter().map(|size| (format!("blob/{size}/"), content(*size))).collect()).await.unwrap();
    for size in sizes {
        let found = read_large(&*store, &format!("blob/{size}/")).await.unwrap();
        assert!(found == Some(content(size)), "{size} bytes");
    }
    assert_eq!(read_large(&*store, "blob/none/").await.unwrap(), None);
    // One chunk of two is not a value.
    committed(&*store, Txn::new().put("blob/half/00000-00002", "x")).await;
    assert_eq!(read_large(&*store, "blob/half/").await.unwrap(), None);
}

fn candidate(name: &str) -> Candidate {
    Candidate { name: name.into(), address: format!("{name}:7480") }
}

async fn one_leads_and_the_next_one_has_a_higher_epoch(place: impl Place) {
    let store = place.open().await;
    assert_eq!(store.leader().await.unwrap(), None);
    let first = store.campaign(&candidate("one")).await.unwrap();
    let leader = store.leader().await.unwrap().unwrap();
    assert_eq!((leader.candidate, leader.epoch), (candidate("one"), first.epoch));

    let two = candidate("two");
    let mut waiting = Box::pin(store.campaign(&two));
    assert!(timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "two lead");
    assert!(!first.is_lost());
    let epoch = first.epoch;
    let end = first.end();
    drop(first);
    let second = timeout(PATIENCE, waiting).await.expect("elected in time").unwrap();
    assert!(second.epoch > epoch);
    assert_eq!(store.leader().await.unwrap().unwrap().candidate, candidate("two"));
    assert!(*end.borrow() || timeout(PATIENCE, end.clone().wait_for(|lost| *lost)).await.is_ok());
}

async fn a_deposed_leader_cannot_write(place: impl Place) {
    let store = place.open().await;
    let first = store.campaign(&candidate("one")).await.unwrap();
    let fenced = |fence: &Condition, text: &str| Txn::new().when(fence.clone()).put("head", text);
    committed(&*store, fenced(&first.fence, "1")).await;
    let old = first.fence.clone();
    drop(first);
    let second = store.campaign(&candidate("two")).await.unwrap();
    assert_eq!(store.commit(fenced(&old, "stale")).await.unwrap(), Verdict::Conflict);
    committed(&*store, fenced(&second.fence, "2")).await;
    assert_eq!(value(&*store, "head").await.as_deref(), Some("2"));
}

async fn an_outcome_is_settled(place: impl Place) {
    let store = place.open().await;
    let txn = Txn::new().when(Condition::Absent("r/1".into())).put("r/1", "mine").put("head", "1");
    assert!(matches!(settle(&*store, txn.clone()).await.unwrap(), Verdict::Committed(_)));
    // Without an unknown outcome before it, a conflict is somebody else's write, equal or not.
    assert_eq!(settle(&*store, txn).await.unwrap(), Verdict::Conflict);
}

#[tokio::test]
async fn a_file_has_one_user_and_says_so() {
    let dir = TempDir::new().unwrap();
    let address = format!("file:{}", dir.path().join("s.redb").display());
    let _held = store::open(&address).await.unwrap();
    let error = store::open(&address).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("s.redb"), "{error}");
}

#[tokio::test]
async fn a_file_forgets_what_was_overwritten_and_says_so() {
    let dir = TempDir::new().unwrap();
    let store = store::file::FileStore::open(&dir.path().join("s.redb")).await.unwrap();
    let first = committed(&store, Txn::new().put("a", "1").put("b", "1")).await;
    let second = committed(&store, Txn::new().put("a", "2").delete("b")).await;
    let third = committed(&store, Txn::new().put("a", "3")).await;
    store.compact(second).await.unwrap();
    assert!(matches!(store.range("", Some(first)).await, Err(StoreError::Compacted(at)) if at == first));
    let then = store.range("", Some(second)).await.unwrap().entries;
    assert_eq!(then.iter().map(|e| (e.key.as_str(), e.value.as_slice())).collect::<Vec<_>>(), [("a", &b"2"[..])]);
    assert_eq!(value(&store, "a").await.as_deref(), Some("3"));
    let mut watch = store.watch("", first).await.unwrap();
    assert!(matches!(timeout(PATIENCE, watch.next()).await.unwrap(), Some(Err(StoreError::Compacted(_)))));
    let mut watch = store.watch("", second).await.unwrap();
    assert_eq!(next(&mut watch).await[0].revision, third);
}

#[tokio::test]
async fn addresses_that_mean_nothing_are_refused() {
    for bad in ["", "file:", "etcd://", "etcd://host", "etcd://:1", "http://x:1", "/var/lib/x", "etcd://a:1,b"] {
        assert!(matches!(store::open(bad).await, Err(StoreError::BadAddress(_))), "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_etcd_is_told_apart_from_a_refused_write() {
    let etcd = Etcd::start().await;
    let store = store::open(&etcd.address()).await.unwrap();
    committed(&*store, Txn::new().put("a", "1")).await;
    let reign = store.campaign(&candidate("one")).await.unwrap();
    etcd.signal("STOP");
    let read = store.get("a").await.unwrap_err();
    assert!(matches!(read, StoreError::Unavailable { .. }), "{read}");
    let written = store.commit(Txn::new().put("a", "2")).await.unwrap_err();
    assert!(matches!(written, StoreError::Unknown { .. }), "{written}");
    // A leader that cannot renew its lease steps down by its own clock.
    timeout(PATIENCE, reign.lost()).await.expect("it steps down");
    etcd.signal("CONT");
    let read = until("etcd to answer again", async || store.get("a").await.ok()).await;
    assert!(read.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_says_what_it_compacted() {
    let etcd = Etcd::start().await;
    let store = store::open(&etcd.address()).await.unwrap();
    let first = committed(&*store, Txn::new().put("a", "1")).await;
    let last = committed(&*store, Txn::new().put("a", "2")).await;
    let endpoint = format!("127.0.0.1:{}", etcd.port);
    let mut operator = etcd_client::Client::connect([endpoint], None).await.unwrap();
    operator.compact(last.0.cast_signed(), None).await.unwrap();
    assert!(matches!(store.range("a", Some(first)).await, Err(StoreError::Compacted(at)) if at == first));
    let mut watch = store.watch("a", StoreRevision(first.0 - 1)).await.unwrap();
    assert!(matches!(timeout(PATIENCE, watch.next()).await.unwrap(), Some(Err(StoreError::Compacted(_)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_of_three_may_be_dead() {
    let (mut members, address) = Etcd::cluster(3).await;
    let store = store::open(&address).await.unwrap();
    let mut last = store.get("n").await.unwrap();
    members[0].kill();
    for n in 0..40 {
        let txn = Txn::new().when(Condition::as_read("n", last.as_ref())).put("n", format!("{n}"));
        let verdict = settle(&*store, txn).await;
        assert!(matches!(verdict, Ok(Verdict::Committed(_))), "write {n}: {verdict:?}");
        last = store.get("n").await.unwrap();
        assert_eq!(last.as_ref().map(|entry| entry.value.clone()), Some(n.to_string().into_bytes()));
    }
    members[1].kill();
    let read = store.get("n").await.unwrap_err();
    assert!(matches!(read, StoreError::Unavailable { .. }), "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_says_so_and_recovers() {
    let etcd = Etcd::start_with(&["--quota-backend-bytes", "8388608"]).await;
    let store = store::open(&etcd.address()).await.unwrap();
    committed(&*store, Txn::new().put("kept", "1")).await;
    let mut full = None;
    for _ in 0..40 {
        if let Err(error) = store.commit(Txn::new().put("big", vec![1; MAX_VALUE])).await {
            full = Some(error);
            break;
        }
    }
    assert!(matches!(full, Some(StoreError::NoSpace(_))), "{full:?}");
    assert_eq!(value(&*store, "kept").await.as_deref(), Some("1"), "reads go on");
    // What an operator does: compact, defragment, disarm.
    let endpoint = format!("127.0.0.1:{}", etcd.port);
    let mut operator = etcd_client::Client::connect([endpoint], None).await.unwrap();
    let answer = operator.get("x", None).await.unwrap();
    let (revision, member) = (answer.header().unwrap().revision(), answer.header().unwrap().member_id());
    let options = etcd_client::CompactionOptions::new().with_physical();
    operator.compact(revision, Some(options)).await.unwrap();
    operator.defragment().await.unwrap();
    let (disarm, nospace) = (etcd_client::AlarmAction::Deactivate, etcd_client::AlarmType::Nospace);
    let mut options = etcd_client::AlarmOptions::new();
    options.with_member(member);
    operator.alarm(disarm, nospace, Some(options)).await.unwrap();
    committed(&*store, Txn::new().put("kept", "2")).await;
}
