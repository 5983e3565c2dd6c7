//! From a task line to a change of the cycle. Master and workers both call this, on the same bytes.

use std::collections::BTreeSet;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::load_fragment;
use dysvr_conf::model::{Fragment, VsvcId};
use dysvr_conf::source::Source;

use crate::cycle::{Change, Cycle, Kind, Refusal, Stamp};
use crate::task::{self, TaskLine};

/// Reads the task's configuration and checks that the task line agrees with it.
pub fn change_of(
    task: &TaskLine,
    cycle: &Cycle,
    source: &mut dyn Source,
    interner: &mut Interner,
) -> Result<Change, Refusal> {
    let Some(http) = cycle.http() else {
        return Err(Refusal::NeedsReload("the running configuration has no http block".into()));
    };
    let touched: BTreeSet<&str> = task.ups_ids.iter().map(String::as_str).collect();
    let known = |name: &str| !touched.contains(name) && cycle.upstream(name).is_some();
    let fragment = load_fragment(http, &task.conf, &known, source, interner)
        .map_err(|problems| Refusal::Wrong(problems.to_string().replace('\n', "; ")))?;
    check_ids(task, &fragment)?;
    let kind = match task.kind {
        task::Kind::Add => Kind::Add,
        task::Kind::Modify => Kind::Modify,
        task::Kind::Delete => Kind::Delete,
    };
    let removed = if kind == Kind::Delete { task.vsvc_ids.iter().copied().map(VsvcId).collect() } else { Vec::new() };
    Ok(Change {
        kind,
        vhosts: fragment.vhosts,
        upstreams: fragment.upstreams,
        removed,
        // A new upstream is not there to be touched; whatever else is named may change or go.
        touched: if kind == Kind::Add {
            Vec::new()
        } else {
            task.ups_ids.iter().map(|name| name.as_str().into()).collect()
        },
        stamp: Stamp { task_id: Some(task.task_id.0), revision: task.revision.map(|revision| revision.0) },
    })
}

/// The ids of the line against what the configuration holds. For a delete that is nothing.
fn check_ids(task: &TaskLine, fragment: &Fragment) -> Result<(), Refusal> {
    let wrong = |text: String| Err(Refusal::Wrong(text));
    if task.vsvc_ids.is_empty() && task.ups_ids.is_empty() {
        return wrong("the task names neither vsvc_ids nor ups_ids".into());
    }
    if let Some(vhost) = fragment.vhosts.iter().find(|vhost| vhost.vsvc_id.is_none()) {
        return wrong(format!("server without \"vsvc_id\" in {}", vhost.place));
    }
    let vsvc_ids: BTreeSet<u64> = fragment.vhosts.iter().filter_map(|vhost| vhost.vsvc_id).map(|id| id.0).collect();
    let ups_ids: BTreeSet<&str> = fragment.upstreams.iter().map(|upstream| &*upstream.name).collect();
    let said_vsvc_ids: BTreeSet<u64> = task.vsvc_ids.iter().copied().collect();
    let said_ups_ids: BTreeSet<&str> = task.ups_ids.iter().map(String::as_str).collect();
    let conf = task.conf.display();
    match task.kind {
        task::Kind::Delete if !vsvc_ids.is_empty() || !ups_ids.is_empty() => {
            wrong(format!("{conf} of a delete holds servers or upstreams"))
        }
        task::Kind::Delete => Ok(()),
        _ if vsvc_ids != said_vsvc_ids => {
            wrong(format!("vsvc_ids={} but {conf} holds {}", list(&said_vsvc_ids), list(&vsvc_ids)))
        }
        task::Kind::Add if ups_ids != said_ups_ids => {
            wrong(format!("ups_ids={} but {conf} holds {}", list(&said_ups_ids), list(&ups_ids)))
        }
        task::Kind::Modify if !ups_ids.is_subset(&said_ups_ids) => {
            wrong(format!("ups_ids={} but {conf} holds {}", list(&said_ups_ids), list(&ups_ids)))
        }
        _ => check_ports(task, fragment),
    }
}

/// Each port of the line must be one on which a vhost of the task listens.
fn check_ports(task: &TaskLine, fragment: &Fragment) -> Result<(), Refusal> {
    use dysvr_conf::model::ListenAddr;
    let listens = fragment.vhosts.iter().flat_map(|vhost| &vhost.listens);
    let ports: BTreeSet<u16> = listens
        .filter_map(|listen| match &listen.addr {
            ListenAddr::Inet(addr) => Some(addr.port()),
            ListenAddr::Unix(_) => None,
        })
        .collect();
    match task.ports.iter().find(|port| !ports.contains(port)) {
        Some(port) => Err(Refusal::Wrong(format!("ports={port} but no vhost of the task listens on it"))),
        None => Ok(()),
    }
}

fn list<T: ToString>(items: &BTreeSet<T>) -> String {
    if items.is_empty() {
        return "none".into();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
