//! `apply`: from files to a revision and its rollout.

use dysvr_proto::wire::operator::{ApplyReply, ChangeRequest};
use serde::Serialize;

use super::get;
use crate::ctl::bundle::Bundle;
use crate::ctl::cli::{self, Machine, Waiting};
use crate::ctl::connect::Controllers;
use crate::ctl::exit::Failure;
use crate::ctl::follow::{Which, follow};
use crate::ctl::output::{self, Output};
use crate::ctl::plan::{self, Effect};
use crate::ctl::view::Change;
use crate::ctl::{input, strategy};

/// What `-o json` shows of a change that was made.
#[derive(Debug, Serialize)]
pub(super) struct Applied {
    dry_run: bool,
    /// `null` if nothing was stored.
    revision: Option<u64>,
    /// `null` if none was needed.
    rollout: Option<u64>,
    objects: Vec<Effect>,
    changes: Vec<Change>,
}

pub(super) async fn run(controllers: &mut Controllers, output: Output, options: &cli::Apply) -> Result<(), Failure> {
    let bundle = input::gather(&options.inputs)?;
    let request = ChangeRequest {
        files: input::to_wire(&bundle),
        delete_vhosts: Vec::new(),
        message: options.note.message.clone().unwrap_or_default(),
        author: strategy::author(),
        strategy: Some(strategy::to_wire(&options.strategy)),
        dry_run: options.dry_run,
    };
    let reply = send(controllers, request, &bundle).await?;
    let mut applied = Applied::new(&reply, options.dry_run);
    applied.objects.extend(unchanged(controllers, &bundle, &applied.changes).await?);
    match options.output {
        Some(Machine::Json) => output.print(&output::json(&applied)?),
        Some(Machine::Yaml) => output.print(&output::yaml(&applied)?),
        Some(Machine::Name) => {
            output.print(&applied.objects.iter().map(|effect| format!("{}\n", effect.object)).collect::<String>())
        }
        None => finish(controllers, output, &applied, &options.waiting).await,
    }
}

/// Sends a change; problems of its files are a refusal.
pub(super) async fn send(
    controllers: &mut Controllers,
    request: ChangeRequest,
    bundle: &Bundle,
) -> Result<ApplyReply, Failure> {
    let reply = controllers.change(async |mut client| client.apply(request.clone()).await).await?;
    match plan::refusal(reply.plan.as_ref().map_or(&[][..], |plan| &plan.problems), bundle) {
        Some(refusal) => Err(refusal),
        None => Ok(reply),
    }
}

impl Applied {
    pub(super) fn new(reply: &ApplyReply, dry_run: bool) -> Self {
        let plan = reply.plan.as_ref();
        let changes: Vec<Change> = plan.map_or(&[][..], |plan| &plan.changes).iter().map(Change::from).collect();
        Self {
            dry_run,
            revision: Some(reply.revision).filter(|revision| *revision > 0),
            rollout: Some(reply.rollout).filter(|id| *id > 0),
            objects: plan::effects(&changes),
            changes,
        }
    }
}

/// Says what became of each object, and follows the rollout when that is wanted.
pub(super) async fn finish(
    controllers: &mut Controllers,
    output: Output,
    applied: &Applied,
    waiting: &Waiting,
) -> Result<(), Failure> {
    let how = if applied.dry_run { " (dry run)" } else { "" };
    let mut text = String::new();
    for Effect { object, effect } in &applied.objects {
        text.push_str(&format!("{object} {effect}{how}\n"));
    }
    if let Some(revision) = applied.revision {
        text.push_str(&format!("revision/{revision} created\n"));
    }
    match applied.rollout {
        Some(rollout) => text.push_str(&format!("rollout/{rollout} started\n")),
        None if applied.revision.is_some() => text.push_str("no rollout: there is no node to move\n"),
        None => {}
    }
    output.print(&text)?;
    match applied.rollout {
        Some(rollout) if waiting.wait => {
            follow(controllers, output, Which::Started(rollout), waiting.timeout).await.map(drop)
        }
        _ => Ok(()),
    }
}

/// The objects of the files that are already as they should be.
async fn unchanged(controllers: &mut Controllers, bundle: &Bundle, changes: &[Change]) -> Result<Vec<Effect>, Failure> {
    let same: Vec<String> = bundle
        .vhost_files()
        .filter(|name| !changes.iter().any(|change| change.file == *name))
        .map(str::to_owned)
        .collect();
    if same.is_empty() {
        return Ok(Vec::new());
    }
    let vhosts = get::vhosts(controllers, &same).await?;
    let of_file = |file: &String| {
        let ids: Vec<String> =
            vhosts.iter().filter(|vhost| vhost.file == *file).map(|vhost| format!("vhost/{}", vhost.vsvc_id)).collect();
        if ids.is_empty() { vec![format!("file/{file}")] } else { ids }
    };
    Ok(same.iter().flat_map(of_file).map(|object| Effect { object, effect: "unchanged" }).collect())
}
