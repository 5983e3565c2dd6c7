//! The leader's loop: starts rollouts in their order, stores their transitions, tells the streams.

use std::sync::Arc;
use std::time::Duration;

use dysvr_proto::id::RolloutId;
use dysvr_proto::wire::operator::TaskList;
use prost::Message as _;

use super::fleet::{ActiveRollout, Fleet};
use super::lead::Lead;
use crate::revision::Head;
use crate::rollout::{Effect, Input, Phase, Plan, Rollout, State, Time};
use crate::store::{Condition, StoreError, Txn, Verdict, encode, keys, settle};

/// The pause after the store has failed.
const RETRY: Duration = Duration::from_millis(500);

/// Why steering stopped.
#[derive(Debug, thiserror::Error)]
enum Halt {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("another controller leads")]
    Fenced,
}

/// Steers until the reign ends.
pub(super) async fn steer(lead: Arc<Lead>) {
    let mut news = lead.news();
    while !lead.is_over() {
        news.mark_unchanged();
        match step(&lead).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(Halt::Fenced) => {
                tracing::error!(
                    epoch = lead.reign.epoch.0,
                    "the store refuses this controller's writes: it does not lead"
                );
                return;
            }
            Err(Halt::Store(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause, "the rollout waits for the store");
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => continue,
                    () = lead.over() => return,
                }
            }
        }
        let timeout = lead.with(|fleet| fleet.active.as_ref().and_then(|active| active.core.poll_timeout()));
        tokio::select! {
            _ = news.changed() => {}
            () = lead.sleep_until(timeout) => {
                let now = lead.clock.now();
                lead.with(|fleet| fleet.tell(now, Input::Tick));
            }
            () = lead.over() => return,
        }
    }
}

/// One thing that is to do; false if there is none.
async fn step(lead: &Lead) -> Result<bool, Halt> {
    let (active, first, pending) = lead.with(|fleet| {
        let effect = fleet.active.as_mut().and_then(|active| active.core.poll_effect());
        (fleet.active.is_some(), fleet.head.rollouts.first().copied(), effect)
    });
    if let Some(Effect::Store(state)) = pending {
        let outcome = store(lead, *state).await;
        if outcome.is_err() {
            let now = lead.clock.now();
            lead.with(|fleet| fleet.tell(now, Input::NotStored));
        }
        return outcome.map(|()| true);
    }
    if let (false, Some(id)) = (active, first) {
        start(lead, id).await?;
        return Ok(true);
    }
    Ok(false)
}

/// Takes the next rollout from the queue: plans it with the nodes that are there.
async fn start(lead: &Lead, id: RolloutId) -> Result<(), Halt> {
    let _pen = lead.pen.lock().await;
    let Some((state, plan, at)) = lead.rollout(id).await? else {
        return Err(StoreError::Damaged(format!("rollout {id} is missing")).into());
    };
    let now = lead.clock.now();
    let core = match state.phase {
        Phase::Queued => {
            lead.digest(state.to).await?;
            let nodes = lead.with(|fleet| fleet.eligible(&state.strategy, now));
            let plan = Plan::new(nodes, &state.strategy);
            let written = lead.write_plan(&plan).await?;
            tracing::info!(rollout = id.0, nodes = plan.total(), waves = plan.waves().len(), "rollout planned");
            Rollout::begin(now, state, Arc::new(plan), written)
        }
        _ => Rollout::restore(now, state, plan),
    };
    lead.change(|fleet| {
        fleet.active = Some(ActiveRollout { core, at, unsaved: Vec::new() });
        tell_all(fleet, now);
    });
    Ok(())
}

/// Stores a transition, together with what it means for the head.
async fn store(lead: &Lead, mut next: State) -> Result<(), Halt> {
    let _pen = lead.pen.lock().await;
    let held = lead.with(|fleet| {
        let active = fleet.active.as_ref()?;
        let before = active.core.state();
        let before = (before.phase, before.wave);
        Some((fleet.head.clone(), fleet.head_at.clone(), active.at.clone(), before, active.unsaved.clone()))
    });
    let Some((head, head_at, at, before, unsaved)) = held else { return Ok(()) };
    let moved = before != (next.phase, next.wave);
    if moved && !unsaved.is_empty() {
        let blob = TaskList { items: unsaved.clone() }.encode_to_vec();
        next.reports.push(lead.write_blob(blob).await?);
    }
    let after = after(&head, before.0, &next);
    let key = keys::rollout(next.id);
    let mut txn = Txn::new().when(lead.reign.fence.clone()).when(at).put(&key, encode(&next));
    if after != head {
        txn = txn.when(head_at).put(keys::HEAD, encode(&after));
        for dropped in head.rollouts.iter().filter(|id| !after.rollouts.contains(id) && **id != next.id) {
            txn = drop_queued(lead, txn, *dropped, &next).await?;
        }
    }
    let written = match settle(lead.repository.store(), txn).await? {
        Verdict::Committed(written) => written,
        Verdict::Conflict => return recover(lead, next.id).await,
    };
    tracing::info!(
        rollout = next.id.0,
        phase = next.phase.name(),
        wave = next.wave,
        failed = next.failed.len(),
        reason = next.reason,
        "rollout"
    );
    let now = lead.clock.now();
    lead.change(|fleet| {
        if after != fleet.head {
            fleet.head = after;
            fleet.head_at = Condition::Unchanged(keys::HEAD.to_owned(), written);
        }
        if let Some(active) = &mut fleet.active {
            active.at = Condition::Unchanged(key, written);
            if moved {
                active.unsaved.drain(..unsaved.len());
            }
        }
        fleet.tell(now, Input::Stored(Box::new(next.clone())));
        if next.phase.has_ended()
            && let Some(active) = fleet.active.take()
        {
            match next.phase {
                Phase::Aborted | Phase::Failed => fleet.left = Some((next, Arc::clone(active.core.plan()))),
                Phase::Done => fleet.left = None,
                _ => {}
            }
        }
        fleet.wake_all();
    });
    Ok(())
}

/// The head once a rollout's state is `next`. What a rollout brought is no longer what the fleet is meant to run as soon
/// as it is taken back, nor is what was built on it; changes made from then on build on the revision before it.
fn after(head: &Head, before: Phase, next: &State) -> Head {
    let mut after = head.clone();
    let taken_back = matches!(next.phase, Phase::RollingBack { .. } | Phase::Aborted | Phase::Failed);
    if taken_back && !matches!(before, Phase::RollingBack { .. }) {
        after.base = next.from;
        after.rollouts.retain(|id| *id == next.id);
    }
    match next.phase {
        Phase::Done => {
            after.settle(&next.strategy.selector, next.to);
            after.left = RolloutId(0);
        }
        Phase::Aborted | Phase::Failed => after.left = next.id,
        _ => {}
    }
    if next.phase.has_ended() {
        after.rollouts.retain(|id| *id != next.id);
    }
    after
}

async fn drop_queued(lead: &Lead, txn: Txn, id: RolloutId, cause: &State) -> Result<Txn, Halt> {
    let Some((mut state, _, at)) = lead.rollout(id).await? else { return Ok(txn) };
    let now = lead.clock.now();
    state.phase = Phase::Aborted;
    state.reason = format!("revision {} builds on revision {}, which was taken back", state.to, cause.to);
    (state.changed, state.ended) = (now, now);
    Ok(txn.when(at).put(keys::rollout(id), encode(&state)))
}

/// A conflict: either somebody else leads, or the memory is behind the store. The store is the truth.
async fn recover(lead: &Lead, id: RolloutId) -> Result<(), Halt> {
    let fence = &lead.reign.fence;
    let leader = lead.repository.store().get(fence.key()).await?;
    if Condition::as_read(fence.key(), leader.as_ref()) != *fence {
        return Err(Halt::Fenced);
    }
    lead.reread_head().await?;
    let Some((state, plan, at)) = lead.rollout(id).await? else {
        return Err(StoreError::Damaged(format!("rollout {id} is missing")).into());
    };
    tracing::warn!(rollout = id.0, "the store has another state of the rollout; going on from there");
    let now: Time = lead.clock.now();
    lead.change(|fleet| {
        let core = Rollout::restore(now, state, plan);
        fleet.active = Some(ActiveRollout { core, at, unsaved: Vec::new() });
        tell_all(fleet, now);
    });
    Ok(())
}

/// Tells a new machine what is known of the nodes.
fn tell_all(fleet: &mut Fleet, now: Time) {
    let connected = fleet.nodes.iter().filter(|(_, node)| node.link.is_some());
    let inputs: Vec<_> = connected
        .filter_map(|(name, node)| {
            let name = name.clone();
            match (&node.in_flight, node.clean()) {
                (Some(_), _) => Some(Input::Sent { node: name }),
                (None, Some(revision)) => Some(Input::At { node: name, revision }),
                (None, None) => None,
            }
        })
        .collect();
    for input in inputs {
        fleet.tell(now, input);
    }
}
