//! Domain values as the operator's protocol has them, and the other way. Converted here and nowhere else.

use std::sync::Arc;

use dysvr_proto::wire::fleet::File;
use dysvr_proto::wire::operator as wire;
use tonic::Status;

use crate::revision::{
    ApplyError, Change, ChangeKind, Checked, Content, Draft, Files, Head, Record, Request, Selection, UpstreamInfo,
    VhostInfo,
};
use crate::rollout::{Plan, Rollout, Standing, State, Strategy};
use crate::store::StoreError;

/// A change as it was asked for.
pub(super) fn request(asked: wire::ChangeRequest) -> Result<Request, Status> {
    let mut files = Files::new();
    for file in asked.files {
        if let Some(text) = crate::revision::invalid_name(&file.name) {
            return Err(Status::invalid_argument(format!("file {:?}: {text}", file.name)));
        }
        if files.insert(file.name.clone(), Content::new(file.content)).is_some() {
            return Err(Status::invalid_argument(format!("file {:?} is given twice", file.name)));
        }
    }
    let delete: Vec<_> = asked.delete_vhosts.into_iter().map(Selection).collect();
    if files.is_empty() && delete.is_empty() {
        return Err(Status::invalid_argument("a change needs files to write or vhosts to delete"));
    }
    Ok(Request::Change { files, delete })
}

/// A strategy; the defaults without one.
pub(super) fn strategy(asked: Option<wire::Strategy>) -> Result<Strategy, Status> {
    let Some(asked) = asked else { return Ok(Strategy::default()) };
    Strategy::parse(
        &asked.waves,
        &asked.failure_budget,
        asked.soak_seconds,
        asked.node_deadline_seconds,
        asked.selector.into_iter().collect(),
        !asked.no_auto_undo,
    )
    .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// A change that was worked out. Contents go along: an operator wants to see the difference.
pub(super) fn plan(draft: &Draft, head: &Head, base: &Files) -> wire::ChangePlan {
    wire::ChangePlan {
        base_revision: head.base.0,
        changes: draft.changes.iter().map(|change| file_change(change, Some((base, &draft.files)))).collect(),
        problems: draft
            .checked
            .problems
            .iter()
            .map(|problem| wire::Problem { file: problem.file.clone(), line: problem.line, text: problem.text.clone() })
            .collect(),
        nothing: draft.changes.is_empty(),
    }
}

/// One change of one file, with contents if they are at hand.
pub(super) fn file_change(change: &Change, sets: Option<(&Files, &Files)>) -> wire::FileChange {
    let content = |files: &Files| files.get(&change.name).map(|content| content.bytes.to_vec()).unwrap_or_default();
    let kind = match change.kind {
        ChangeKind::Add => wire::file_change::Kind::Add,
        ChangeKind::Modify => wire::file_change::Kind::Modify,
        ChangeKind::Delete => wire::file_change::Kind::Delete,
    };
    wire::FileChange {
        name: change.name.clone(),
        kind: kind.into(),
        before: sets.map(|(base, _)| content(base)).unwrap_or_default(),
        after: sets.map(|(_, after)| content(after)).unwrap_or_default(),
        vsvc_ids: change.vsvc_ids.clone(),
        ups_ids: change.ups_ids.clone(),
    }
}

/// A vhost of a list.
pub(super) fn vhost(vhost: &VhostInfo, revision: u64) -> wire::Vhost {
    wire::Vhost {
        vsvc_id: vhost.vsvc_id.unwrap_or_default(),
        server_names: vhost.server_names.clone(),
        listens: vhost.listens.clone(),
        ups_ids: vhost.ups_ids.clone(),
        file: vhost.file.clone(),
        revision,
    }
}

/// An upstream of a list, with the vhosts that pass to it.
pub(super) fn upstream(upstream: &UpstreamInfo, checked: &Checked, revision: u64) -> wire::Upstream {
    wire::Upstream {
        ups_id: upstream.ups_id.clone(),
        servers: upstream.servers.clone(),
        vsvc_ids: checked
            .vhosts
            .iter()
            .filter(|vhost| vhost.ups_ids.contains(&upstream.ups_id))
            .filter_map(|vhost| vhost.vsvc_id)
            .collect(),
        file: upstream.file.clone(),
        revision,
    }
}

/// A revision of a list.
pub(super) fn revision(record: &Record, changes: &[Change]) -> wire::Revision {
    wire::Revision {
        number: record.number.0,
        parent: record.parent.0,
        digest: record.digest.to_vec(),
        author: record.author.clone(),
        message: record.message.clone(),
        created_unix_ms: record.created_unix_ms,
        changes: changes.iter().map(|change| file_change(change, None)).collect(),
        rollout: record.rollout.0,
    }
}

/// A running rollout.
pub(super) fn rollout(core: &Rollout) -> wire::Rollout {
    let state = core.state();
    let node = |name: &str| {
        let Some(progress) = core.progress(name) else { return wire::NodeProgress::default() };
        let failure = state.failed.get(name).map(|failure| failure.reason.clone()).unwrap_or_default();
        let (word, reason) = match &progress.standing {
            Standing::Waiting => ("waiting", String::new()),
            Standing::Updating => ("updating", String::new()),
            Standing::Done => ("done", String::new()),
            Standing::Failed(reason) => ("failed", reason.clone()),
            Standing::Returning => ("updating", "going back".to_owned()),
            // What went wrong says more than that it is back.
            Standing::Undone if !failure.is_empty() => ("failed", failure),
            Standing::Undone => ("undone", String::new()),
        };
        wire::NodeProgress {
            node: name.to_owned(),
            state: word.to_owned(),
            reason,
            changed_unix_ms: progress.since.0.cast_signed(),
        }
    };
    let waves = core.plan().waves().iter();
    wire::Rollout {
        id: state.id.0,
        from_revision: state.from.0,
        to_revision: state.to.0,
        phase: state.phase.name().to_owned(),
        reason: state.reason.clone(),
        waves: waves.map(|wave| wire::Wave { nodes: wave.iter().map(|p| node(&p.node)).collect() }).collect(),
        wave: u32::try_from(state.wave).unwrap_or(u32::MAX),
        failed_nodes: u32::try_from(state.failed.len()).unwrap_or(u32::MAX),
        failure_budget: u32::try_from(state.strategy.failure_budget.of(core.plan().total())).unwrap_or(u32::MAX),
        created_unix_ms: state.created.0.cast_signed(),
        changed_unix_ms: state.changed.0.cast_signed(),
        ended_unix_ms: state.ended.0.cast_signed(),
    }
}

/// A rollout that does not run: as it was stored.
pub(super) fn stored_rollout(state: State, plan: Arc<Plan>) -> wire::Rollout {
    let at = state.changed;
    rollout(&Rollout::restore(at, state, plan))
}

/// A managed file.
pub(super) fn file(name: &str, content: &[u8]) -> File {
    File { name: name.to_owned(), content: content.to_vec() }
}

/// The store's error with the code that tells a client what to do.
pub(super) fn store_error(error: &StoreError) -> Status {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("{error}{cause}");
    match error {
        StoreError::Unavailable { .. } | StoreError::InUse(_) => Status::unavailable(text),
        StoreError::Unknown { .. } => Status::unknown(text),
        StoreError::Compacted(_) => Status::out_of_range(text),
        StoreError::TooLarge { .. } => Status::invalid_argument(text),
        StoreError::NoSpace(_) => Status::resource_exhausted(text),
        StoreError::Damaged(_) => Status::data_loss(text),
        StoreError::BadAddress(_) => Status::internal(text),
    }
}

/// The same for a change.
pub(super) fn apply_error(error: &ApplyError) -> Status {
    match error {
        ApplyError::Store(error) => store_error(error),
        ApplyError::Conflict(..) => Status::aborted(error.to_string()),
        ApplyError::Busy => Status::aborted(error.to_string()),
        ApplyError::NotLeader => Status::unavailable(error.to_string()),
    }
}
