//! What operators change: a new revision with its rollout, the verbs of a running one.

use std::sync::Mutex;

use dysvr_proto::id::{Revision, RolloutId};
use dysvr_proto::wire::operator::{ApplyReply, ChangePlan, UndoRequest};
use tokio::time::timeout;
use tonic::Status;

use super::lead::Lead;
use super::wire;
use crate::revision::{Applied, Head, Meta, Record, Request};
use crate::rollout::{Input, Phase, State, Strategy};
use crate::store::{Condition, Txn, Verdict, Write, encode, keys, settle};

/// Rollouts that may wait. All of them fall with the one that is running, in one transaction.
const QUEUE: usize = 50;

/// Works a change out, storing nothing.
pub(super) async fn plan(lead: &Lead, request: &Request) -> Result<ChangePlan, Status> {
    let worked_out = async {
        let (draft, head) = lead.repository.plan(request).await?;
        let base = lead.repository.files(head.base).await?;
        Ok(wire::plan(&draft, &head, &base))
    };
    worked_out.await.map_err(|error: crate::store::StoreError| wire::store_error(&error))
}

/// Makes a change the next revision and queues its rollout; the nodes that nobody has to move get it as they come.
pub(super) async fn apply(
    lead: &Lead,
    request: &Request,
    strategy: Strategy,
    author: String,
    message: String,
    always: bool,
) -> Result<ApplyReply, Status> {
    let _pen = lead.pen.lock().await;
    let now = lead.clock.now();
    let (queued, idle) = lead.with(|fleet| {
        let idle = fleet.head.rollouts.is_empty() && fleet.eligible(&strategy, now).is_empty();
        (fleet.head.rollouts.len(), idle)
    });
    if queued > QUEUE {
        return Err(Status::resource_exhausted(format!("{QUEUE} rollouts are waiting already")));
    }
    let before = lead.with(|fleet| fleet.head.base);
    // The closure runs again when the head has moved meanwhile.
    let rollout = Mutex::new(RolloutId(0));
    let steering = |head: &mut Head, record: &mut Record| -> Vec<Write> {
        if idle && head.rollouts.is_empty() {
            head.settle(&strategy.selector, record.number);
            head.left = RolloutId(0);
            return Vec::new();
        }
        head.last_rollout = head.last_rollout.next();
        let id = head.last_rollout;
        head.rollouts.push(id);
        record.rollout = id;
        *rollout.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = id;
        let state = State::queued(id, record.parent, record.number, strategy.clone(), now);
        vec![Write::Put(keys::rollout(id), encode(&state))]
    };
    let meta = Meta { author, message, now_unix_ms: lead.clock.unix_ms() };
    let fence = Some(lead.reign.fence.clone());
    let applied = lead.repository.apply(request, &meta, always, fence, &steering).await;
    let applied = applied.map_err(|error| wire::apply_error(&error))?;
    let base = lead.repository.files(before).await.map_err(|error| wire::store_error(&error))?;
    let (draft, head, number) = match applied {
        Applied::Refused(draft, head) | Applied::Nothing(draft, head) => (draft, head, Revision(0)),
        Applied::Stored(stored) => {
            let rollout = stored.record.rollout.0;
            let number = stored.record.number;
            tracing::info!(
                revision = number.0,
                rollout,
                changes = stored.draft.changes.len(),
                author = meta.author,
                "revision stored"
            );
            lead.change(|fleet| {
                fleet.learn(number, Some(stored.record.digest));
                fleet.head = stored.head.clone();
                fleet.head_at = stored.head_at.clone();
                if fleet.head.left == RolloutId(0) {
                    fleet.left = None;
                }
                fleet.wake_all();
            });
            let plan_head = Head { base: stored.record.parent, ..stored.head };
            (stored.draft, plan_head, number)
        }
    };
    let rollout = match number {
        Revision(0) => 0,
        _ => rollout.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).0,
    };
    Ok(ApplyReply { revision: number.0, rollout, plan: Some(wire::plan(&draft, &head, &base)) })
}

/// A new revision with the content of an earlier one. A rollout that still runs is aborted first.
pub(super) async fn undo(lead: &Lead, asked: UndoRequest, strategy: Strategy) -> Result<ApplyReply, Status> {
    let newest = lead.with(|fleet| fleet.head.last_rollout);
    let id = if asked.rollout == 0 { newest } else { RolloutId(asked.rollout) };
    let found = lead.rollout(id).await.map_err(|error| wire::store_error(&error))?;
    let target = match (asked.to_revision, &found) {
        (0, Some((state, ..))) => state.from,
        (0, None) => return Err(Status::not_found(format!("there is no rollout {id} to undo"))),
        (number, _) => Revision(number),
    };
    let known = lead.digest(target).await.map_err(|error| wire::store_error(&error))?;
    if known.is_none() {
        return Err(Status::not_found(format!("there is no revision {target}")));
    }
    let message = match asked.message.is_empty() {
        true => format!("undo to revision {target}"),
        false => asked.message,
    };
    let running = lead.with(|fleet| fleet.active.as_ref().map(|active| active.core.state().clone()));
    if let Some(state) = running
        && state.id == id
        && matches!(state.phase, Phase::Running | Phase::Soaking | Phase::Paused(_))
    {
        obey(lead, id, Input::Abort(format!("undone: {message}"))).await?;
    }
    let files = lead.repository.files(target).await.map_err(|error| wire::store_error(&error))?;
    let request = Request::Restore((*files).clone());
    apply(lead, &request, strategy, asked.author, message, true).await
}

/// Makes a rollout obey a verb, and waits until the store has it.
pub(super) async fn obey(lead: &Lead, id: RolloutId, input: Input) -> Result<(), Status> {
    let mut news = lead.news();
    let told = lead.change(|fleet| {
        let active = fleet.active.as_mut().filter(|active| active.core.state().id == id)?;
        Some(active.core.handle(lead.clock.now(), input.clone()))
    });
    match told {
        Some(Ok(())) => {}
        Some(Err(refusal)) => return Err(Status::failed_precondition(refusal.to_string())),
        None => return at_rest(lead, id, &input).await,
    }
    let stored = async {
        loop {
            news.mark_unchanged();
            let waiting = lead.with(|fleet| {
                fleet.active.as_ref().is_some_and(|active| active.core.state().id == id && !active.core.is_settled())
            });
            if !waiting || news.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        done = timeout(Lead::PATIENCE, stored) => done.map_err(|_| {
            Status::unavailable("the store did not take it in time; the rollout will obey when the store answers")
        }),
        () = lead.over() => Err(Status::unavailable("this controller does not lead any more")),
    }
}

/// A verb for a rollout that does not run: one that waits can be aborted, the others have ended.
async fn at_rest(lead: &Lead, id: RolloutId, input: &Input) -> Result<(), Status> {
    let _pen = lead.pen.lock().await;
    let found = lead.rollout(id).await.map_err(|error| wire::store_error(&error))?;
    let Some((mut state, _, at)) = found else {
        return Err(Status::not_found(format!("there is no rollout {id}")));
    };
    let Input::Abort(reason) = input else {
        return Err(Status::failed_precondition(format!("rollout {id} is {}", state.phase.name())));
    };
    let (mut head, head_at) = lead.with(|fleet| (fleet.head.clone(), fleet.head_at.clone()));
    if state.phase != Phase::Queued || head.rollouts.last() != Some(&id) {
        let text = match state.phase {
            Phase::Queued => format!("rollout {id} is queued and others build on it: abort the newest first"),
            phase => format!("rollout {id} is {}", phase.name()),
        };
        return Err(Status::failed_precondition(text));
    }
    let now = lead.clock.now();
    state.phase = Phase::Aborted;
    state.reason.clone_from(reason);
    (state.changed, state.ended) = (now, now);
    head.rollouts.pop();
    head.base = state.from;
    let txn = Txn::new()
        .when(lead.reign.fence.clone())
        .when(head_at)
        .when(at)
        .put(keys::HEAD, encode(&head))
        .put(keys::rollout(id), encode(&state));
    match settle(lead.repository.store(), txn).await.map_err(|error| wire::store_error(&error))? {
        Verdict::Committed(at) => {
            lead.change(|fleet| {
                fleet.head = head;
                fleet.head_at = Condition::Unchanged(keys::HEAD.to_owned(), at);
            });
            Ok(())
        }
        Verdict::Conflict => Err(Status::aborted("the rollout changed meanwhile; try again")),
    }
}
