//! A reign at work: what the leader holds, and every operation that waits for the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dysvr_conf::bundle::Assumptions;
use dysvr_proto::id::{Revision, RolloutId};
use dysvr_proto::wire::fleet as wire;
use prost::Message as _;
use tokio::sync::{Mutex as Pen, OwnedSemaphorePermit, Semaphore, watch};

use super::clock::Clock;
use super::fleet::{ActiveRollout, Fleet, Order};
use super::record::NodeRecord;
use crate::revision::{Head, Repository, difference};
use crate::rollout::{Phase, Plan, PlanRef, Planned, Rollout, State};
use crate::store::{Condition, Reign, Store, StoreError, decode, encode, keys};

/// What tasks without a verdict may hold in memory together, KiB: when thousands of nodes come back at once, each for a
/// whole configuration, they are served one after the other.
const IN_MEMORY: u32 = 512 << 10;

/// What a leader holds while it leads.
#[derive(Debug)]
pub(super) struct Lead {
    /// Revisions.
    pub repository: Repository,
    /// The right to write.
    pub reign: Reign,
    /// The clock.
    pub clock: Clock,
    /// Held by whoever writes the head or a rollout.
    pub pen: Pen<()>,
    fleet: Mutex<Fleet>,
    news: watch::Sender<u64>,
    over: watch::Sender<bool>,
    memory: Arc<Semaphore>,
    /// The last revision whose size was asked for, and its size.
    size: Mutex<Option<(Revision, u64)>>,
}

impl Lead {
    /// Takes over from the store where the last leader stopped.
    pub(super) async fn begin(
        store: Arc<dyn Store>,
        assumptions: Arc<Assumptions>,
        reign: Reign,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let repository = Repository::new(Arc::clone(&store), assumptions);
        let (head, head_at) = repository.head().await?;
        let mut fleet = Fleet::new(head, head_at, reign.epoch);
        for entry in store.range(keys::NODES, None).await?.entries {
            let record: NodeRecord = decode(&entry)?;
            let name = entry.key.trim_start_matches(keys::NODES).to_owned();
            fleet.nodes.insert(name, record.into_node());
        }
        let lead = Self {
            repository,
            reign,
            clock,
            pen: Pen::new(()),
            fleet: Mutex::new(fleet),
            news: watch::Sender::new(0),
            over: watch::Sender::new(false),
            memory: Arc::new(Semaphore::new(IN_MEMORY as usize)),
            size: Mutex::default(),
        };
        let (left, active) = lead.with(|fleet| (fleet.head.left, fleet.head.rollouts.first().copied()));
        if left != RolloutId(0)
            && let Some((state, plan, _)) = lead.rollout(left).await?
        {
            lead.with(|fleet| fleet.left = Some((state, plan)));
        }
        if let Some(id) = active
            && let Some((state, plan, at)) = lead.rollout(id).await?
            && state.phase != Phase::Queued
        {
            tracing::info!(rollout = id.0, phase = state.phase.name(), wave = state.wave, "going on with a rollout");
            let core = Rollout::restore(clock.now(), state, plan);
            lead.with(|fleet| fleet.active = Some(ActiveRollout { core, at, unsaved: Vec::new() }));
        }
        Ok(lead)
    }

    /// Looks at the fleet or changes it; who watches is told when something has changed. Never held while waiting.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Fleet) -> T) -> T {
        let mut fleet = self.lock();
        let answer = work(&mut fleet);
        if std::mem::take(&mut fleet.dirty) {
            self.news.send_modify(|n| *n += 1);
        }
        answer
    }

    /// Changes the fleet and tells everybody who watches.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut Fleet) -> T) -> T {
        self.with(|fleet| {
            fleet.dirty = true;
            work(fleet)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it: streams and watches end with it.
    pub(super) fn end(&self) {
        self.over.send_replace(true);
    }

    /// Whether it has ended, or the reign has.
    pub(super) fn is_over(&self) -> bool {
        *self.over.borrow() || self.reign.is_lost()
    }

    /// Waits for its end.
    pub(super) async fn over(&self) {
        let mut over = self.over.subscribe();
        tokio::select! {
            _ = over.wait_for(|over| *over) => {}
            () = self.reign.lost() => {}
        }
    }

    /// Rises with each change of the fleet.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// A rollout's state, its plan (empty while it is queued), and what a write of its state must compare.
    pub(super) async fn rollout(&self, id: RolloutId) -> Result<Option<(State, Arc<Plan>, Condition)>, StoreError> {
        let key = keys::rollout(id);
        let Some(entry) = self.repository.store().get(&key).await? else { return Ok(None) };
        let state: State = decode(&entry)?;
        let plan = self.plan(&state).await?;
        Ok(Some((state, plan, Condition::Unchanged(key, entry.modified))))
    }

    /// A rollout's plan; empty while it has none.
    pub(super) async fn plan(&self, state: &State) -> Result<Arc<Plan>, StoreError> {
        let Some(PlanRef(address)) = state.plan else { return Ok(Arc::default()) };
        let blob = self.repository.blob(&address).await?;
        let waves: Vec<Vec<Planned>> =
            serde_json::from_slice(&blob).map_err(|error| StoreError::Damaged(format!("a plan: {error}")))?;
        Ok(Arc::new(Plan::from_waves(waves)))
    }

    /// Writes a plan as a blob.
    pub(super) async fn write_plan(&self, plan: &Plan) -> Result<PlanRef, StoreError> {
        self.write_blob(encode(&plan.waves())).await
    }

    /// Writes a blob.
    pub(super) async fn write_blob(&self, blob: Vec<u8>) -> Result<PlanRef, StoreError> {
        let addresses = self.repository.write_blobs(vec![Bytes::from(blob)]).await?;
        addresses.first().copied().map(PlanRef).ok_or_else(|| StoreError::Damaged("a blob without an address".into()))
    }

    /// The reports of a rollout's tasks, as far as they were written.
    pub(super) async fn written_reports(
        &self,
        state: &State,
    ) -> Result<Vec<dysvr_proto::wire::operator::TaskRecord>, StoreError> {
        let mut records = Vec::new();
        for PlanRef(address) in &state.reports {
            let blob = self.repository.blob(address).await?;
            let list = dysvr_proto::wire::operator::TaskList::decode(blob)
                .map_err(|error| StoreError::Damaged(format!("task reports: {error}")))?;
            records.extend(list.items);
        }
        Ok(records)
    }

    /// Looks up what the node's next step needs to know.
    pub(super) async fn recognise(&self, name: &str) -> Result<(), StoreError> {
        for revision in self.with(|fleet| fleet.unknown(name)) {
            let digest = self.repository.record(revision).await?.map(|record| record.digest);
            self.with(|fleet| fleet.learn(revision, digest));
        }
        self.with(|fleet| fleet.recognise(name, self.clock.now()));
        Ok(())
    }

    /// Builds the message of a task, if there is room for it now. The room is taken until the answer's second half is
    /// dropped.
    pub(super) async fn build(&self, order: &Order) -> Result<Option<(wire::Task, OwnedSemaphorePermit)>, StoreError> {
        // Differences are small; what fills the memory is a fleet that comes for everything.
        let size = if order.whole { self.size(order.want.revision).await? } else { 0 };
        let room = u32::try_from(size >> 10).unwrap_or(u32::MAX).clamp(1, IN_MEMORY);
        let Ok(room) = Arc::clone(&self.memory).try_acquire_many_owned(room) else { return Ok(None) };
        let to = self.repository.files(order.want.revision).await?;
        let from = match order.whole {
            true => Arc::default(),
            false => self.repository.files(order.from).await?,
        };
        let (written, removed) = difference(&from, &to);
        let file = |(name, content): (&str, &crate::revision::Content)| wire::File {
            name: name.to_owned(),
            content: content.bytes.to_vec(),
        };
        let task = wire::Task {
            id: order.id.clone(),
            epoch: self.reign.epoch.0,
            from_revision: if order.whole { 0 } else { order.from.0 },
            to_revision: order.want.revision.0,
            digest: order.want.digest.to_vec(),
            whole: order.whole,
            files: written.into_iter().map(file).collect(),
            remove: removed.into_iter().map(str::to_owned).collect(),
            rollout: order.want.rollout.0,
            deadline_ms: u32::try_from(order.want.deadline_ms).unwrap_or(u32::MAX),
        };
        Ok(Some((task, room)))
    }

    /// The bytes of a whole revision.
    async fn size(&self, revision: Revision) -> Result<u64, StoreError> {
        if let Some((known, size)) = *self.size.lock().unwrap_or_else(PoisonError::into_inner)
            && known == revision
        {
            return Ok(size);
        }
        let size = self.repository.manifest(revision).await?.values().map(|entry| entry.size).sum();
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = Some((revision, size));
        Ok(size)
    }

    /// Remembers a node that is new or says something else about itself. The store's troubles are no reason to refuse it.
    pub(super) async fn remember(&self, name: &str) {
        let Some(record) = self.with(|fleet| fleet.nodes.get(name).map(NodeRecord::of)) else { return };
        let key = keys::node(name);
        let store = self.repository.store();
        let work = async {
            let held = store.get(&key).await?;
            let value = encode(&record);
            let unchanged = held.as_ref().and_then(|entry| decode::<NodeRecord>(entry).ok());
            if unchanged.is_some_and(|held| held.same(&record)) {
                return Ok(());
            }
            let txn = crate::store::Txn::new().when(self.reign.fence.clone()).put(&key, value);
            store.commit(txn).await.map(drop)
        };
        if let Err(error) = work.await {
            tracing::warn!(node = name, %error, "a node could not be remembered");
        }
    }

    /// Reads the head again after a write of which nobody knows.
    pub(super) async fn reread_head(&self) -> Result<Head, StoreError> {
        let (head, at) = self.repository.head().await?;
        self.change(|fleet| (fleet.head, fleet.head_at) = (head.clone(), at));
        Ok(head)
    }

    /// The digest of a revision.
    pub(super) async fn digest(&self, revision: Revision) -> Result<Option<dysvr_proto::digest::Digest>, StoreError> {
        if let Some(digest) = self.with(|fleet| fleet.digests.get(&revision).copied()) {
            return Ok(Some(digest));
        }
        let digest = self.repository.record(revision).await?.map(|record| record.digest);
        self.with(|fleet| fleet.learn(revision, digest));
        Ok(digest)
    }

    /// Sleeps until a moment of its clock; for ever without one.
    pub(super) async fn sleep_until(&self, at: Option<crate::rollout::Time>) {
        match at {
            Some(at) => tokio::time::sleep_until(self.clock.instant(at)).await,
            None => std::future::pending().await,
        }
    }

    /// How long an operator's call may take altogether; each call of the store has its own, shorter deadline.
    pub(super) const PATIENCE: Duration = Duration::from_secs(60);
}
