//! `get`: lists, once or again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use dysvr_proto::wire::operator::{ListRequest, TaskListRequest};
use serde::Serialize;

use super::now_ms;
use crate::ctl::cli::{self, Format};
use crate::ctl::columns::Listed;
use crate::ctl::connect::Controllers;
use crate::ctl::exit::{self, Failure};
use crate::ctl::output::{self, Output};
use crate::ctl::resource::{self, Kind, Selection};
use crate::ctl::table;
use crate::ctl::view::{Node, Revision, Rollout, Task, Upstream, Vhost};

/// Between two looks of `--watch`.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(controllers: &mut Controllers, output: Output, options: &cli::Get) -> Result<(), Failure> {
    let selection = resource::selection(&options.words).map_err(Failure::Usage)?;
    check(options, &selection)?;
    let names = selection.names.clone();
    match selection.kind {
        Kind::Vhost => show(controllers, output, options, &names, async |c, n| vhosts(c, n).await).await,
        Kind::Upstream => show(controllers, output, options, &names, async |c, n| upstreams(c, n).await).await,
        Kind::Node => {
            let labelled = async |c: &mut Controllers, n: &[String]| {
                let mut nodes = nodes(c, n).await?;
                let has = |node: &Node| options.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
                nodes.retain(has);
                Ok(nodes)
            };
            show(controllers, output, options, &names, labelled).await
        }
        Kind::Rollout => show(controllers, output, options, &names, async |c, n| rollouts(c, n).await).await,
        Kind::Revision => show(controllers, output, options, &names, async |c, n| revisions(c, n).await).await,
        Kind::Task => {
            let request = TaskListRequest {
                rollout: options.rollout.unwrap_or_default(),
                node: options.node.clone().unwrap_or_default(),
                limit: options.limit.unwrap_or_default(),
            };
            show(controllers, output, options, &names, async |c, _| tasks(c, &request).await).await
        }
    }
}

/// Options that mean something for one kind only.
fn check(options: &cli::Get, selection: &Selection) -> Result<(), Failure> {
    let only = |given: bool, option: &str, kind: Kind| match given && selection.kind != kind {
        true => Err(Failure::Usage(format!("{option} is for {}, not for {}", kind.plural(), selection.kind.plural()))),
        false => Ok(()),
    };
    only(!options.selector.is_empty(), "--selector", Kind::Node)?;
    only(options.rollout.is_some(), "--rollout", Kind::Task)?;
    only(options.node.is_some(), "--node", Kind::Task)?;
    only(options.limit.is_some(), "--limit", Kind::Task)?;
    if options.watch && matches!(options.output, Format::Json | Format::Yaml) {
        return Err(Failure::Usage("--watch prints tables and names, not documents".into()));
    }
    Ok(())
}

async fn show<T: Listed>(
    controllers: &mut Controllers,
    output: Output,
    options: &cli::Get,
    names: &[String],
    list: impl AsyncFn(&mut Controllers, &[String]) -> Result<Vec<T>, Failure>,
) -> Result<(), Failure> {
    let (items, absent) = pick(list(controllers, names).await?, names);
    if items.is_empty() && absent.is_empty() && matches!(options.output, Format::Table | Format::Wide) {
        output.note(&format!("No {} found.", T::KIND.plural()));
    } else if !items.is_empty() || absent.is_empty() {
        output.print(&render(&items, names, options.output, options.no_headers, output.color)?)?;
    }
    if !absent.is_empty() {
        return Err(not_found(T::KIND, &absent));
    }
    if !options.watch {
        return Ok(());
    }
    let mut shown: BTreeMap<String, serde_json::Value> = items.iter().map(|item| (item.name(), value(item))).collect();
    loop {
        tokio::time::sleep(LOOK).await;
        let items = match list(controllers, names).await {
            Ok(items) => pick(items, names).0,
            Err(failure) if failure.code() == exit::UNREACHABLE => {
                output.note(&failure.to_string());
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let moved: Vec<T> = items.into_iter().filter(|item| shown.get(&item.name()) != Some(&value(item))).collect();
        if !moved.is_empty() {
            output.print(&render(&moved, &[], options.output, true, output.color)?)?;
            shown.extend(moved.iter().map(|item| (item.name(), value(item))));
        }
    }
}

/// What a change is seen by. A node is heard of every few seconds, which is no change.
fn value<T: Listed>(item: &T) -> serde_json::Value {
    let mut value = serde_json::to_value(item).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("seen");
    }
    value
}

/// Those with the names, and the names that nothing has; all and none without names.
pub(super) fn pick<T: Listed>(mut items: Vec<T>, names: &[String]) -> (Vec<T>, Vec<String>) {
    if names.is_empty() {
        return (items, Vec::new());
    }
    items.retain(|item| names.iter().any(|name| item.is_called(name)));
    let absent = names.iter().filter(|name| !items.iter().any(|item| item.is_called(name)));
    let absent = absent.cloned().collect();
    (items, absent)
}

/// kubectl's words for names that nothing has.
pub(super) fn not_found(kind: Kind, absent: &[String]) -> Failure {
    let names: Vec<String> = absent.iter().map(|name| format!("{} \"{name}\" not found", kind.plural())).collect();
    Failure::from(tonic::Status::not_found(names.join(", ")))
}

/// A list as a document: `{"kind": "VhostList", "items": […]}`.
#[derive(Serialize)]
pub(super) struct List<'a, T> {
    kind: String,
    items: &'a [T],
}

/// A list in the form that `-o` names; one thing that was asked for by its only name stands alone in a document.
pub(super) fn render<T: Listed>(
    items: &[T],
    names: &[String],
    format: Format,
    no_headers: bool,
    color: bool,
) -> Result<String, Failure> {
    let kind = T::KIND.singular();
    let list = || {
        let (first, rest) = kind.split_at(1);
        List { kind: format!("{}{rest}List", first.to_uppercase()), items }
    };
    let alone = match (names, items) {
        ([_], [item]) => Some(item),
        _ => None,
    };
    Ok(match (format, alone) {
        (Format::Json, Some(item)) => output::json(item)?,
        (Format::Json, None) => output::json(&list())?,
        (Format::Yaml, Some(item)) => output::yaml(item)?,
        (Format::Yaml, None) => output::yaml(&list())?,
        (Format::Name, _) => items.iter().map(|item| format!("{kind}/{}\n", item.name())).collect(),
        (Format::Table | Format::Wide, _) => {
            let wide = format == Format::Wide;
            let now = now_ms();
            let rows = items.iter().map(|item| item.values(wide, now)).collect();
            let headings = if no_headers { Vec::new() } else { T::headings(wide) };
            table::draw(&headings, rows, color)
        }
    })
}

pub(super) async fn vhosts(controllers: &mut Controllers, names: &[String]) -> Result<Vec<Vhost>, Failure> {
    let request = ListRequest { names: names.to_vec() };
    let list = controllers.read(async |mut client| client.list_vhosts(request.clone()).await).await?;
    Ok(list.items.into_iter().map(Vhost::from).collect())
}

pub(super) async fn upstreams(controllers: &mut Controllers, names: &[String]) -> Result<Vec<Upstream>, Failure> {
    let request = ListRequest { names: names.to_vec() };
    let list = controllers.read(async |mut client| client.list_upstreams(request.clone()).await).await?;
    Ok(list.items.into_iter().map(Upstream::from).collect())
}

pub(super) async fn nodes(controllers: &mut Controllers, names: &[String]) -> Result<Vec<Node>, Failure> {
    let request = ListRequest { names: names.to_vec() };
    let list = controllers.read(async |mut client| client.list_nodes(request.clone()).await).await?;
    Ok(list.items.into_iter().map(Node::from).collect())
}

/// By their numbers, with or without `rollout/`.
pub(super) async fn rollouts(controllers: &mut Controllers, names: &[String]) -> Result<Vec<Rollout>, Failure> {
    let request = ListRequest { names: names.iter().map(|name| last(name)).collect() };
    let list = controllers.read(async |mut client| client.list_rollouts(request.clone()).await).await?;
    Ok(list.items.into_iter().map(Rollout::from).collect())
}

pub(super) async fn revisions(controllers: &mut Controllers, names: &[String]) -> Result<Vec<Revision>, Failure> {
    let request = ListRequest { names: names.to_vec() };
    let list = controllers.read(async |mut client| client.list_revisions(request.clone()).await).await?;
    Ok(list.items.into_iter().map(Revision::from).collect())
}

pub(super) async fn tasks(controllers: &mut Controllers, request: &TaskListRequest) -> Result<Vec<Task>, Failure> {
    let list = controllers.read(async |mut client| client.list_tasks(request.clone()).await).await?;
    Ok(list.items.into_iter().map(Task::from).collect())
}

fn last(name: &str) -> String {
    name.rsplit_once('/').map_or(name, |(_, last)| last).to_owned()
}
