//! `describe`: everything about some things.

use dysvr_proto::wire::operator::{FileRequest, TaskListRequest};
use tonic::Code;

use super::{get, now_ms};
use crate::ctl::cli;
use crate::ctl::connect::Controllers;
use crate::ctl::describe;
use crate::ctl::exit::Failure;
use crate::ctl::output::Output;
use crate::ctl::resource::{self, Kind};
use crate::ctl::unified;
use crate::ctl::view::Revision;

/// The last tasks of a node that are worth showing.
const TASKS: u32 = 10;
/// The differences of larger revisions are left out: each file is a question to the controller.
const FILES: usize = 20;

pub(super) async fn run(controllers: &mut Controllers, output: Output, options: &cli::Describe) -> Result<(), Failure> {
    let selection = resource::selection(&options.words).map_err(Failure::Usage)?;
    let names = selection.names;
    let mut pages = Vec::new();
    let absent = match selection.kind {
        Kind::Vhost => {
            let (items, absent) = get::pick(get::vhosts(controllers, &names).await?, &names);
            let upstreams = if items.is_empty() { Vec::new() } else { get::upstreams(controllers, &[]).await? };
            for item in &items {
                let content = file(controllers, &item.file, 0).await?.unwrap_or_default();
                pages.push(describe::vhost(item, &upstreams, &content));
            }
            absent
        }
        Kind::Upstream => {
            let (items, absent) = get::pick(get::upstreams(controllers, &names).await?, &names);
            for item in &items {
                let content = file(controllers, &item.file, 0).await?.unwrap_or_default();
                pages.push(describe::upstream(item, &content));
            }
            absent
        }
        Kind::Node => {
            let (items, absent) = get::pick(get::nodes(controllers, &names).await?, &names);
            for item in &items {
                let request = TaskListRequest { node: item.name.clone(), limit: TASKS, ..TaskListRequest::default() };
                let mut tasks = get::tasks(controllers, &request).await?;
                tasks.sort_by_key(|task| std::cmp::Reverse(task.at.0));
                pages.push(describe::node(item, &tasks, now_ms(), output));
            }
            absent
        }
        Kind::Rollout => {
            let (items, absent) = get::pick(get::rollouts(controllers, &names).await?, &names);
            for item in &items {
                let request = TaskListRequest { rollout: item.rollout, ..TaskListRequest::default() };
                let tasks = get::tasks(controllers, &request).await?;
                let revisions = get::revisions(controllers, &[item.to_revision.to_string()]).await?;
                let revision = revisions.iter().find(|revision| revision.revision == item.to_revision);
                pages.push(describe::rollout(item, revision, &tasks, now_ms(), output));
            }
            absent
        }
        Kind::Revision => {
            let (items, absent) = get::pick(get::revisions(controllers, &names).await?, &names);
            for item in &items {
                let diffs = differences(controllers, item).await?;
                pages.push(describe::revision(item, diffs.as_deref(), now_ms()));
            }
            absent
        }
        Kind::Task => return Err(Failure::Usage("tasks are described with their rollout or their node".into())),
    };
    if pages.is_empty() && absent.is_empty() {
        output.note(&format!("No {} found.", selection.kind.plural()));
    }
    output.print(&pages.join("\n\n"))?;
    if absent.is_empty() { Ok(()) } else { Err(get::not_found(selection.kind, &absent)) }
}

/// A file's bytes at a revision (0: the head); `None` when that has no such file.
async fn file(controllers: &mut Controllers, name: &str, revision: u64) -> Result<Option<Vec<u8>>, Failure> {
    let request = FileRequest { name: name.to_owned(), revision };
    match controllers.read(async |mut client| client.get_file(request.clone()).await).await {
        Ok(reply) => Ok(reply.file.map(|file| file.content)),
        Err(Failure::Server(status)) if status.code() == Code::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn differences(controllers: &mut Controllers, revision: &Revision) -> Result<Option<String>, Failure> {
    if revision.changes.len() > FILES {
        return Ok(None);
    }
    let mut text = String::new();
    for change in &revision.changes {
        let before = match revision.parent {
            0 => None, // before the first revision there was nothing; 0 would ask for the head
            parent => file(controllers, &change.file, parent).await?,
        };
        let after = file(controllers, &change.file, revision.revision).await?;
        let before_label = format!("revision/{}/{}", revision.parent, change.file);
        let after_label = format!("revision/{}/{}", revision.revision, change.file);
        let (before_label, after_label) = unified::labels(change.change, &before_label, &after_label);
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        text.push_str(&unified::unified(&before_label, &after_label, &before, &after));
    }
    Ok(Some(text))
}
