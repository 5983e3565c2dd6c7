//! The Operator service: what `dysvrctl` asks.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dysvr_proto::id::{Revision, RolloutId};
use dysvr_proto::wire::operator::operator_server::Operator;
use dysvr_proto::wire::operator::{
    ApplyReply, ChangePlan, ChangeRequest, DriftRequest, FileReply, FileRequest, ListRequest, Node, NodeList,
    RevisionList, Rollout as WireRollout, RolloutList, RolloutRequest, TaskList, TaskListRequest, UndoRequest,
    UpstreamList, VhostList, drift_request,
};
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::change;
use super::lead::Lead;
use super::node::Choice;
use super::throne::Throne;
use super::wire;
use crate::revision::{Checked, Manifest};
use crate::rollout::Input;
use crate::store::{decode, keys};

/// Between two messages of a watch, so that a large fleet's watchers cost little.
const WATCH_PAUSE: Duration = Duration::from_millis(50);

/// Serves operators while this controller leads.
#[derive(Clone, Debug)]
pub(super) struct OperatorService {
    throne: Throne,
}

impl OperatorService {
    /// On the throne that may or may not be ours.
    pub(super) fn new(throne: Throne) -> Self {
        Self { throne }
    }

    /// The rollout that a verb names, after the verb has been obeyed.
    async fn verb(&self, id: u64, input: Input) -> Result<Response<WireRollout>, Status> {
        let lead = self.throne.lead().await?;
        let id = which(&lead, id)?;
        let work = async move {
            change::obey(&lead, id, input).await?;
            show(&lead, id).await
        };
        finished(work).await.map(Response::new)
    }
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Operator for OperatorService {
    type WatchRolloutStream = Pin<Box<dyn Stream<Item = Result<WireRollout, Status>> + Send>>;

    async fn validate(&self, request: Request<ChangeRequest>) -> Reply<ChangePlan> {
        let lead = self.throne.lead().await?;
        let asked = wire::request(request.into_inner())?;
        change::plan(&lead, &asked).await.map(Response::new)
    }

    async fn apply(&self, request: Request<ChangeRequest>) -> Reply<ApplyReply> {
        let lead = self.throne.lead().await?;
        let asked = request.into_inner();
        let strategy = wire::strategy(asked.strategy.clone())?;
        let (author, message, dry_run) = (asked.author.clone(), asked.message.clone(), asked.dry_run);
        let asked = wire::request(asked)?;
        if dry_run {
            let plan = Some(change::plan(&lead, &asked).await?);
            return Ok(Response::new(ApplyReply { revision: 0, rollout: 0, plan }));
        }
        let work = async move { change::apply(&lead, &asked, strategy, author, message, false).await };
        finished(work).await.map(Response::new)
    }

    async fn list_vhosts(&self, request: Request<ListRequest>) -> Reply<VhostList> {
        let lead = self.throne.lead().await?;
        let names = BTreeSet::from_iter(request.into_inner().names);
        let (checked, manifest, revision) = base(&lead).await?;
        let items = checked
            .vhosts
            .iter()
            .filter(|vhost| {
                names.is_empty()
                    || names.contains(&vhost.file)
                    || vhost.server_names.iter().any(|name| names.contains(name))
                    || vhost.vsvc_id.is_some_and(|id| names.contains(&id.to_string()))
            })
            .map(|vhost| wire::vhost(vhost, changed(&manifest, &vhost.file)))
            .collect();
        Ok(Response::new(VhostList { items, revision: revision.0 }))
    }

    async fn list_upstreams(&self, request: Request<ListRequest>) -> Reply<UpstreamList> {
        let lead = self.throne.lead().await?;
        let names = BTreeSet::from_iter(request.into_inner().names);
        let (checked, manifest, revision) = base(&lead).await?;
        let items = checked
            .upstreams
            .iter()
            .filter(|upstream| names.is_empty() || names.contains(&upstream.ups_id) || names.contains(&upstream.file))
            .map(|upstream| wire::upstream(upstream, &checked, changed(&manifest, &upstream.file)))
            .collect();
        Ok(Response::new(UpstreamList { items, revision: revision.0 }))
    }

    async fn list_nodes(&self, request: Request<ListRequest>) -> Reply<NodeList> {
        let lead = self.throne.lead().await?;
        let names = BTreeSet::from_iter(request.into_inner().names);
        let wanted = |name: &String| names.is_empty() || names.contains(name);
        let items = lead.with(|fleet| {
            let listed: Vec<_> = fleet.nodes.keys().filter(|name| wanted(name)).cloned().collect();
            listed.iter().filter_map(|name| node(&lead, fleet, name)).collect()
        });
        Ok(Response::new(NodeList { items }))
    }

    async fn list_rollouts(&self, request: Request<ListRequest>) -> Reply<RolloutList> {
        let lead = self.throne.lead().await?;
        let names = BTreeSet::from_iter(request.into_inner().names);
        let found = lead.repository.store().range(keys::ROLLOUTS, None).await;
        let mut items = Vec::new();
        for entry in found.map_err(|error| wire::store_error(&error))?.entries {
            let state: crate::rollout::State = decode(&entry).map_err(|error| wire::store_error(&error))?;
            if !names.is_empty() && !names.contains(&state.id.to_string()) {
                continue;
            }
            let running = lead.with(|fleet| {
                let active = fleet.active.as_ref().filter(|active| active.core.state().id == state.id);
                active.map(|active| wire::rollout(&active.core))
            });
            items.push(match running {
                Some(rollout) => rollout,
                None => {
                    let plan = lead.plan(&state).await.map_err(|error| wire::store_error(&error))?;
                    wire::stored_rollout(state, plan)
                }
            });
        }
        Ok(Response::new(RolloutList { items }))
    }

    async fn list_revisions(&self, request: Request<ListRequest>) -> Reply<RevisionList> {
        let lead = self.throne.lead().await?;
        let names = BTreeSet::from_iter(request.into_inner().names);
        let records = lead.repository.records().await.map_err(|error| wire::store_error(&error))?;
        let mut items = Vec::new();
        for record in records {
            if !names.is_empty() && !names.contains(&record.number.to_string()) {
                continue;
            }
            let changes = lead.repository.changes(&record).await.map_err(|error| wire::store_error(&error))?;
            items.push(wire::revision(&record, &changes));
        }
        let head = lead.with(|fleet| fleet.head.base.0);
        Ok(Response::new(RevisionList { items, head }))
    }

    async fn list_tasks(&self, request: Request<TaskListRequest>) -> Reply<TaskList> {
        let lead = self.throne.lead().await?;
        let asked = request.into_inner();
        let mut items = lead.with(|fleet| {
            let named = |name: &str| asked.node.is_empty() || asked.node == name;
            let nodes = fleet.nodes.iter().filter(|(name, _)| named(name));
            nodes.flat_map(|(_, node)| node.reports.iter().cloned()).collect::<Vec<_>>()
        });
        let rollout = |record: &dysvr_proto::wire::operator::TaskRecord| {
            record.report.as_ref().map_or(0, |report| report.rollout)
        };
        if asked.rollout != 0 {
            items.retain(|record| rollout(record) == asked.rollout);
        }
        // What was reported to an earlier leader, or pushed out of memory.
        let store = async {
            let id = RolloutId(asked.rollout);
            let Some((state, ..)) = lead.rollout(id).await? else { return Ok(Vec::new()) };
            lead.written_reports(&state).await
        };
        if asked.rollout != 0 {
            let key = |record: &dysvr_proto::wire::operator::TaskRecord| {
                (record.node.clone(), record.report.as_ref().map(|report| report.id.clone()))
            };
            let held: BTreeSet<_> = items.iter().map(key).collect();
            let written = store.await.map_err(|error| wire::store_error(&error))?;
            let named = |name: &str| asked.node.is_empty() || asked.node == name;
            items.extend(written.into_iter().filter(|record| named(&record.node) && !held.contains(&key(record))));
        }
        items.sort_by(|a, b| (b.at_unix_ms, &a.node).cmp(&(a.at_unix_ms, &b.node)));
        if asked.limit != 0 {
            items.truncate(asked.limit as usize);
        }
        Ok(Response::new(TaskList { items }))
    }

    async fn get_file(&self, request: Request<FileRequest>) -> Reply<FileReply> {
        let lead = self.throne.lead().await?;
        let asked = request.into_inner();
        let revision = match asked.revision {
            0 => lead.with(|fleet| fleet.head.base),
            number => Revision(number),
        };
        let known = lead.digest(revision).await.map_err(|error| wire::store_error(&error))?;
        if known.is_none() {
            return Err(Status::not_found(format!("there is no revision {revision}")));
        }
        let files = lead.repository.files(revision).await.map_err(|error| wire::store_error(&error))?;
        let Some(content) = files.get(&asked.name) else {
            return Err(Status::not_found(format!("revision {revision} has no file {:?}", asked.name)));
        };
        let file = Some(wire::file(&asked.name, &content.bytes));
        Ok(Response::new(FileReply { file, revision: revision.0 }))
    }

    async fn watch_rollout(&self, request: Request<RolloutRequest>) -> Reply<Self::WatchRolloutStream> {
        let lead = self.throne.lead().await?;
        let id = which(&lead, request.into_inner().id)?;
        let first = show(&lead, id).await?;
        let (out, answers) = mpsc::channel(1);
        tokio::spawn(watch(lead, id, first, out));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn pause_rollout(&self, request: Request<RolloutRequest>) -> Reply<WireRollout> {
        self.verb(request.into_inner().id, Input::Pause).await
    }

    async fn resume_rollout(&self, request: Request<RolloutRequest>) -> Reply<WireRollout> {
        self.verb(request.into_inner().id, Input::Resume).await
    }

    async fn abort_rollout(&self, request: Request<RolloutRequest>) -> Reply<WireRollout> {
        self.verb(request.into_inner().id, Input::Abort("aborted by an operator".into())).await
    }

    async fn undo(&self, request: Request<UndoRequest>) -> Reply<ApplyReply> {
        let lead = self.throne.lead().await?;
        let asked = request.into_inner();
        let strategy = wire::strategy(asked.strategy.clone())?;
        finished(async move { change::undo(&lead, asked, strategy).await }).await.map(Response::new)
    }

    async fn resolve_drift(&self, request: Request<DriftRequest>) -> Reply<Node> {
        let lead = self.throne.lead().await?;
        let asked = request.into_inner();
        let choice = match asked.choice() {
            drift_request::Choice::Revert => Choice::Revert,
            drift_request::Choice::Hold => Choice::Hold,
            drift_request::Choice::Adopt => {
                return Err(Status::unimplemented(
                    "adopt is not supported: a node reports the names of changed files, not their contents; apply the files \
                     with dysvrctl, then the node's files are what the fleet should have",
                ));
            }
            drift_request::Choice::Unspecified => return Err(Status::invalid_argument("choose revert or hold")),
        };
        lead.change(|fleet| {
            let now = lead.clock.now();
            let decision = fleet.decide(&asked.node, now);
            let Some(node) = fleet.nodes.get_mut(&asked.node) else {
                return Err(Status::not_found(format!("there is no node {:?}", asked.node)));
            };
            if !matches!(decision, super::node::Decision::Drifted(_)) {
                let text = format!("node {} has not drifted, it is {}", asked.node, decision.state().0);
                return Err(Status::failed_precondition(text));
            }
            node.choice = choice;
            if let Some(link) = &node.link {
                link.wake.notify_one();
            }
            self::node(&lead, fleet, &asked.node).map(Response::new).ok_or_else(|| Status::internal("the node is gone"))
        })
    }
}

/// Runs an operation to its end, whether the operator waits for it or not: one that was dropped between the store's
/// answer and the memory would leave the two apart.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    match timeout(Lead::PATIENCE, tokio::spawn(work)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(Status::internal(format!("the operation failed: {error}"))),
        Err(_) => {
            Err(Status::deadline_exceeded("the store did not answer in time; whether the change was stored is unknown"))
        }
    }
}

/// 0 is the newest.
fn which(lead: &Lead, id: u64) -> Result<RolloutId, Status> {
    let newest = lead.with(|fleet| fleet.head.last_rollout);
    match id {
        0 if newest == RolloutId(0) => Err(Status::not_found("there was no rollout yet")),
        0 => Ok(newest),
        id if id > newest.0 => Err(Status::not_found(format!("there is no rollout {id}"))),
        id => Ok(RolloutId(id)),
    }
}

async fn show(lead: &Lead, id: RolloutId) -> Result<WireRollout, Status> {
    let running = lead.with(|fleet| {
        let active = fleet.active.as_ref().filter(|active| active.core.state().id == id);
        active.map(|active| wire::rollout(&active.core))
    });
    if let Some(rollout) = running {
        return Ok(rollout);
    }
    match lead.rollout(id).await.map_err(|error| wire::store_error(&error))? {
        Some((state, plan, _)) => Ok(wire::stored_rollout(state, plan)),
        None => Err(Status::not_found(format!("there is no rollout {id}"))),
    }
}

/// Sends the rollout whenever it has changed, until it has ended or nobody listens.
async fn watch(lead: Arc<Lead>, id: RolloutId, first: WireRollout, out: mpsc::Sender<Result<WireRollout, Status>>) {
    let mut news = lead.news();
    let mut last = first;
    if out.send(Ok(last.clone())).await.is_err() {
        return;
    }
    while last.ended_unix_ms == 0 {
        tokio::select! {
            _ = news.changed() => {}
            () = out.closed() => return,
            () = lead.over() => {
                let _ = out.send(Err(Status::unavailable("this controller does not lead any more"))).await;
                return;
            }
        }
        tokio::time::sleep(WATCH_PAUSE).await;
        news.mark_unchanged();
        match show(&lead, id).await {
            Ok(now) if now != last => {
                last = now;
                if out.send(Ok(last.clone())).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            // The store is away for a moment: the watch outlives it.
            Err(status) if status.code() == Code::Unavailable => {}
            Err(status) => {
                let _ = out.send(Err(status)).await;
                return;
            }
        }
    }
}

fn node(lead: &Lead, fleet: &super::fleet::Fleet, name: &str) -> Option<Node> {
    let held = fleet.nodes.get(name)?;
    let decision = fleet.decide(name, lead.clock.now());
    let (word, reason) = match (&decision, fleet.nodes.get(name).and_then(|node| node.quarantined().first())) {
        // It runs what it should, and not all of it serves.
        (super::node::Decision::Current, Some(line)) => ("degraded", format!("quarantined: {line}")),
        (super::node::Decision::Current, None) => match held.unproved() {
            Some(reason) => ("degraded", reason.to_owned()),
            None => decision.state(),
        },
        _ => decision.state(),
    };
    Some(Node {
        name: name.to_owned(),
        labels: held.labels.clone().into_iter().collect(),
        connected: held.link.is_some(),
        desired_revision: fleet.target(name).0.0,
        observed: held.observed.clone(),
        agent_version: held.agent_version.clone(),
        seen_unix_ms: held.seen_unix_ms,
        state: word.to_owned(),
        reason,
    })
}

/// What the fleet is meant to run.
async fn base(lead: &Lead) -> Result<(Arc<Checked>, Manifest, Revision), Status> {
    let revision = lead.with(|fleet| fleet.head.base);
    let read = async { Ok((lead.repository.checked(revision).await?, lead.repository.manifest(revision).await?)) };
    let (checked, manifest) = read.await.map_err(|error: crate::store::StoreError| wire::store_error(&error))?;
    Ok((checked, manifest, revision))
}

fn changed(manifest: &Manifest, file: &str) -> u64 {
    manifest.get(file).map_or(0, |entry| entry.revision.0)
}
