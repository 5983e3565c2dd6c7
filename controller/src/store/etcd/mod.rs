//! The store of a cluster: etcd, below one prefix of its keys.
//!
//! Every call has a deadline. A read is tried with one member after the other; a write that may have reached one is not:
//! whether it happened is unknown then, and that is the caller's to know.

mod answer;
mod lease;
mod members;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, EventType, GetOptions, PutOptions, Txn as EtcdTxn, TxnOp,
    WatchOptions, WatchStream,
};
use futures_util::stream;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use self::answer::{Silence, is_silence, late, never_sent, no_answer, refused, unavailable, within};
use self::lease::{LEASE_SECONDS, keep};
use self::members::Members;
use super::{
    Candidate, Cause, Condition, DEADLINE, Entry, Event, Leader, Reign, Snapshot, Store, StoreError, StoreRevision,
    Txn, Verdict, Watch, Write, encode, keys, reign,
};

/// Below it stand all keys.
const ROOT: &str = "/dysvr/";

/// Between two attempts of one call.
const PAUSE: Duration = Duration::from_millis(50);

/// Keys per read: a value can be a whole chunk, so that an answer stays below [`MAX_ANSWER`].
const PAGE: i64 = 48;

/// Bytes of an answer.
const MAX_ANSWER: usize = 64 << 20;

/// A connection to a cluster.
#[derive(Clone)]
pub struct EtcdStore {
    members: Members,
    hosts: String,
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Connects to `HOST:PORT,HOST:PORT`. The cluster need not answer yet.
    pub async fn connect(hosts: &str) -> Result<Self, StoreError> {
        let list: Vec<_> = hosts.split(',').map(|host| host.trim().trim_end_matches('/')).collect();
        let is_host = |host: &str| {
            host.rsplit_once(':').is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok())
        };
        if !list.iter().all(|host| is_host(host)) {
            return Err(StoreError::BadAddress(format!("etcd://{hosts}")));
        }
        let options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(1))
            .with_keep_alive(Duration::from_secs(2), Duration::from_secs(2))
            .with_keep_alive_while_idle(true);
        let mut clients = Vec::new();
        for host in list {
            let client = Client::connect([host], Some(options.clone())).await;
            clients.push(client.map_err(|error| unavailable(format!("connecting to {host}"), error))?);
        }
        let members = Members::new(clients);
        Ok(Self { members, hosts: hosts.to_owned() })
    }

    /// A read within the deadline, tried with one member after the other until one answers.
    async fn read<T, F: Future<Output = Result<T, Error>>>(
        &self,
        attempt: &str,
        mut call: impl FnMut(Client) -> F,
    ) -> Result<T, StoreError> {
        let end = Instant::now() + DEADLINE;
        loop {
            let (n, client) = self.members.current();
            // Two silent members leave time for the third.
            let share = (DEADLINE / 3).min(end.saturating_duration_since(Instant::now()));
            let error = match within(share, call(client)).await {
                Ok(answer) => return Ok(answer),
                Err(Silence::Refused(error)) if !is_silence(&error) => return Err(refused(attempt, error)),
                Err(Silence::Refused(error)) => refused(attempt, error),
                Err(Silence::Late) => late(attempt),
            };
            self.members.silent(n);
            if Instant::now() + PAUSE >= end {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A write: tried with the next member only if it never reached one.
    async fn write(&self, attempt: String, request: EtcdTxn) -> Result<etcd_client::TxnResponse, StoreError> {
        let end = Instant::now() + DEADLINE;
        loop {
            let (n, client) = self.members.current();
            let left = end.saturating_duration_since(Instant::now());
            match within(left, client.kv_client().txn(request.clone())).await {
                Ok(answer) => return Ok(answer),
                Err(Silence::Refused(error)) if !is_silence(&error) => return Err(refused(&attempt, error)),
                Err(Silence::Refused(error)) => {
                    self.members.silent(n);
                    if !never_sent(&error) {
                        return Err(StoreError::Unknown { attempt, source: Arc::new(error) });
                    }
                    if Instant::now() + PAUSE >= end {
                        return Err(unavailable(attempt, error));
                    }
                }
                Err(Silence::Late) => {
                    self.members.silent(n);
                    return Err(StoreError::Unknown { attempt, source: no_answer() });
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn open_watch(&self, prefix: &str, from: u64) -> Result<WatchStream, Error> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_progress_notify()
            .with_start_revision(i64::try_from(from).unwrap_or(i64::MAX));
        let (n, client) = self.members.current();
        let opened = client.watch_client().watch(rooted(prefix), Some(options)).await;
        if opened.is_err() {
            self.members.silent(n);
        }
        opened
    }

    /// One attempt to take the empty throne.
    async fn take(&self, candidate: &Candidate) -> Result<Option<Reign>, StoreError> {
        let lease = self
            .read("asking for a lease", |client| async move { client.lease_client().grant(LEASE_SECONDS, None).await })
            .await?
            .id();
        let began = Instant::now();
        let last = self.get(keys::EPOCH).await?;
        let epoch = reign::next_epoch(last.as_ref());
        let leader = Leader { candidate: candidate.clone(), epoch };
        let txn = EtcdTxn::new()
            .when([
                compare(&Condition::Absent(keys::LEADER.to_owned())),
                compare(&Condition::as_read(keys::EPOCH, last.as_ref())),
            ])
            .and_then([
                TxnOp::put(rooted(keys::LEADER), encode(&leader), Some(PutOptions::new().with_lease(lease))),
                TxnOp::put(rooted(keys::EPOCH), epoch.to_string(), None),
            ]);
        let won = match self.write("standing for election".into(), txn).await {
            Ok(answer) if answer.succeeded() => answer.header().map(|header| revision(header.revision())),
            // An unknown outcome is a lost election: the lease ends, and with it a key that may be there.
            _ => None,
        };
        let Some(at) = won else {
            let (_, client) = self.members.current();
            tokio::spawn(async move { within(DEADLINE, client.lease_client().revoke(lease)).await.map(drop) });
            return Ok(None);
        };
        let (resign, resigned) = oneshot::channel();
        let (lost_tx, lost) = watch::channel(false);
        tokio::spawn(keep(self.members.clone(), lease, began, lost_tx, resigned));
        let fence = Condition::Unchanged(keys::LEADER.to_owned(), at);
        Ok(Some(Reign::new(epoch, fence, lost, resign)))
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let answer = self
            .read(&format!("reading {key}"), |client| async move {
                client.kv_client().max_decoding_message_size(MAX_ANSWER).get(rooted(key), None).await
            })
            .await?;
        answer.kvs().first().map(entry).transpose()
    }

    async fn range(&self, prefix: &str, at: Option<StoreRevision>) -> Result<Snapshot, StoreError> {
        let end = end_of(&rooted(prefix));
        let mut entries = Vec::new();
        let mut from = rooted(prefix).into_bytes();
        let mut pinned = at;
        loop {
            let (from_key, end_key) = (&from, &end);
            let answer = self
                .read(&format!("reading {prefix}"), |client| async move {
                    let mut options = GetOptions::new().with_range(end_key.clone()).with_limit(PAGE);
                    if let Some(at) = pinned {
                        options = options.with_revision(at.0.cast_signed());
                    }
                    client.kv_client().max_decoding_message_size(MAX_ANSWER).get(from_key.clone(), Some(options)).await
                })
                .await
                .map_err(|error| match (error, at) {
                    (StoreError::Compacted(_), Some(at)) => StoreError::Compacted(at),
                    (error, _) => error,
                })?;
            // The first page decides the revision of the others.
            let now = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            let pin = *pinned.get_or_insert(revision(now));
            for kv in answer.kvs() {
                entries.push(entry(kv)?);
            }
            match answer.kvs().last() {
                Some(last) if answer.more() => {
                    from = last.key().to_vec();
                    from.push(0);
                }
                _ => return Ok(Snapshot { entries, revision: pin }),
            }
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Verdict, StoreError> {
        txn.check()?;
        let attempt = format!("writing {}", txn.writes.first().map_or("nothing", Write::key));
        let compares: Vec<_> = txn.conditions.iter().map(compare).collect();
        let ops: Vec<_> = txn
            .writes
            .into_iter()
            .map(|write| match write {
                Write::Put(key, value) => TxnOp::put(rooted(&key), value, None),
                Write::Delete(key) => TxnOp::delete(rooted(&key), None),
            })
            .collect();
        let request = EtcdTxn::new().when(compares).and_then(ops);
        let answer = self.write(attempt, request).await?;
        Ok(match answer.succeeded() {
            true => Verdict::Committed(revision(answer.header().map_or(0, etcd_client::ResponseHeader::revision))),
            false => Verdict::Conflict,
        })
    }

    async fn watch(&self, prefix: &str, after: StoreRevision) -> Result<Watch, StoreError> {
        let attempt = format!("watching {prefix}");
        let stream = match within(DEADLINE, self.open_watch(prefix, after.0 + 1)).await {
            Ok(stream) => stream,
            Err(Silence::Refused(error)) => return Err(refused(&attempt, error)),
            Err(Silence::Late) => return Err(late(&attempt)),
        };
        Ok(Box::pin(stream::unfold((stream, after, false), async |(mut stream, after, ended)| {
            if ended {
                return None;
            }
            let events = next_events(&mut stream, after).await;
            let ended = events.is_err();
            Some((events, (stream, after, ended)))
        })))
    }

    async fn campaign(&self, candidate: &Candidate) -> Result<Reign, StoreError> {
        loop {
            let seen = self.range(keys::LEADER, None).await?;
            if seen.entries.is_empty() {
                if let Some(reign) = self.take(candidate).await? {
                    return Ok(reign);
                }
                continue;
            }
            // A watch may lie or be cut: look again after a lease's life, whatever it says.
            let wait = Duration::from_secs(LEASE_SECONDS.unsigned_abs());
            let gone = async {
                let mut watch = self.watch(keys::LEADER, seen.revision).await?;
                while let Some(events) = futures_util::StreamExt::next(&mut watch).await {
                    if events?.iter().any(|event| event.value.is_none()) {
                        break;
                    }
                }
                Ok::<(), StoreError>(())
            };
            match timeout(wait, gone).await {
                Ok(Err(StoreError::Compacted(_)) | Ok(())) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

async fn next_events(stream: &mut WatchStream, after: StoreRevision) -> Result<Vec<Event>, StoreError> {
    loop {
        let answer = match stream.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(StoreError::Unavailable { attempt: "watching".into(), source: no_answer() }),
            Err(error) => return Err(refused("watching", error)),
        };
        if answer.compact_revision() > 0 {
            return Err(StoreError::Compacted(after));
        }
        if answer.canceled() {
            let source: Cause =
                Arc::from(Box::from(answer.cancel_reason().to_owned()) as Box<dyn std::error::Error + Send + Sync>);
            return Err(StoreError::Unavailable { attempt: "watching".into(), source });
        }
        if answer.events().is_empty() {
            continue;
        }
        return answer
            .events()
            .iter()
            .filter_map(|event| Some((event.event_type(), event.kv()?)))
            .map(|(kind, kv)| {
                let found = entry(kv)?;
                let value = (kind == EventType::Put).then_some(found.value);
                Ok(Event { key: found.key, value, revision: found.modified })
            })
            .collect();
    }
}

fn rooted(key: &str) -> String {
    format!("{ROOT}{key}")
}

/// The first key after all that start with `prefix`. Ours are ASCII, so there is always one.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn entry(kv: &etcd_client::KeyValue) -> Result<Entry, StoreError> {
    let key = kv.key_str().ok().and_then(|key| key.strip_prefix(ROOT));
    let Some(key) = key else {
        return Err(StoreError::Damaged(format!("key {:?}", String::from_utf8_lossy(kv.key()))));
    };
    Ok(Entry { key: key.to_owned(), value: kv.value().to_vec(), modified: revision(kv.mod_revision()) })
}

fn revision(number: i64) -> StoreRevision {
    StoreRevision(number.unsigned_abs())
}

fn compare(condition: &Condition) -> Compare {
    let at = match condition {
        Condition::Absent(_) => 0,
        Condition::Unchanged(_, at) => at.0.cast_signed(),
    };
    Compare::mod_revision(rooted(condition.key()), CompareOp::Equal, at)
}
