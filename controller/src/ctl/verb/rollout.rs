//! `rollout`: looks at and steers rollouts.

use std::collections::BTreeMap;

use dysvr_proto::wire::operator::RolloutRequest;
use serde::Serialize;

use super::{get, now_ms, undo};
use crate::ctl::cli::{self, Format, WhichRollout};
use crate::ctl::columns::took;
use crate::ctl::connect::Controllers;
use crate::ctl::exit::Failure;
use crate::ctl::follow::{Which, follow};
use crate::ctl::output::{self, Output};
use crate::ctl::progress;
use crate::ctl::resource::Kind;
use crate::ctl::table::{self, number, remark, state, text};
use crate::ctl::time::age;
use crate::ctl::view::{Instant, Outcome, Revision, Rollout};

pub(super) async fn run(controllers: &mut Controllers, output: Output, verb: cli::Rollout) -> Result<(), Failure> {
    let request = |which: WhichRollout| RolloutRequest { id: which.id.unwrap_or_default() };
    let rollout = match verb {
        cli::Rollout::Status(which) => return status(controllers, output, which).await,
        cli::Rollout::Watch { which, timeout } => {
            let which = which.id.map_or(Which::Newest, Which::Named);
            return follow(controllers, output, which, timeout).await.map(drop);
        }
        cli::Rollout::Undo(options) => return undo::run(controllers, output, &options).await,
        cli::Rollout::History(options) => return history(controllers, output, &options).await,
        cli::Rollout::Pause(which) => {
            controllers.change(async |mut client| client.pause_rollout(request(which)).await).await?
        }
        cli::Rollout::Resume(which) => {
            controllers.change(async |mut client| client.resume_rollout(request(which)).await).await?
        }
        cli::Rollout::Abort(which) => {
            controllers.change(async |mut client| client.abort_rollout(request(which)).await).await?
        }
    };
    output.line(&progress::verdict(&Rollout::from(rollout)))
}

/// Where it is, wave by wave; an end without success is a failure.
async fn status(controllers: &mut Controllers, output: Output, which: WhichRollout) -> Result<(), Failure> {
    let rollout = newest(get::rollouts(controllers, &names(which)).await?, which)?;
    let mut said = progress::verdict(&rollout) + "\n";
    for bar in progress::bars(&rollout) {
        let message = if bar.message.is_empty() { String::new() } else { format!(" ({})", bar.message) };
        said.push_str(&format!("  {}: {}/{}{message}\n", bar.label, bar.position, bar.length));
    }
    for node in rollout.waves.iter().flat_map(|wave| &wave.nodes).filter(|node| !node.reason.is_empty()) {
        said.push_str(&format!("  {} {}: {}\n", node.node, node.state, node.reason));
    }
    match rollout.outcome() {
        Some(Outcome::Unsuccessful) => {
            output.print(&said)?;
            Err(Failure::Failed(format!("rollout/{} did not succeed: {}", rollout.rollout, rollout.phase)))
        }
        _ => output.print(&said),
    }
}

fn names(which: WhichRollout) -> Vec<String> {
    which.id.iter().map(u64::to_string).collect()
}

fn newest(rollouts: Vec<Rollout>, which: WhichRollout) -> Result<Rollout, Failure> {
    let wanted = rollouts.into_iter().filter(|rollout| which.id.is_none_or(|id| id == rollout.rollout));
    wanted.max_by_key(|rollout| rollout.rollout).ok_or_else(|| match which.id {
        Some(id) => get::not_found(Kind::Rollout, &[id.to_string()]),
        None => Failure::from(tonic::Status::not_found("there has been no rollout yet")),
    })
}

/// A rollout with what its revision was for.
#[derive(Serialize)]
struct Entry {
    rollout: u64,
    from_revision: u64,
    to_revision: u64,
    phase: String,
    reason: String,
    nodes: usize,
    done_nodes: usize,
    failed_nodes: u32,
    created: Instant,
    ended: Instant,
    author: String,
    message: String,
    #[serde(skip)]
    took: String,
}

#[derive(Serialize)]
struct History<'a> {
    kind: &'static str,
    items: &'a [Entry],
}

async fn history(controllers: &mut Controllers, output: Output, options: &cli::History) -> Result<(), Failure> {
    let rollouts = get::rollouts(controllers, &names(options.which)).await?;
    let (mut rollouts, absent) = get::pick(rollouts, &names(options.which));
    if !absent.is_empty() {
        return Err(get::not_found(Kind::Rollout, &absent));
    }
    rollouts.sort_by_key(|rollout| rollout.rollout);
    let revisions = get::revisions(controllers, &[]).await?;
    let revisions: BTreeMap<u64, Revision> = revisions.into_iter().map(|found| (found.revision, found)).collect();
    let entries: Vec<Entry> = rollouts.iter().map(|rollout| entry(rollout, &revisions)).collect();
    let document = History { kind: "RolloutHistory", items: &entries };
    output.print(&match options.output {
        Format::Json => output::json(&document)?,
        Format::Yaml => output::yaml(&document)?,
        Format::Name => entries.iter().map(|entry| format!("rollout/{}\n", entry.rollout)).collect(),
        Format::Table | Format::Wide => {
            drawn(&entries, options.no_headers, options.output == Format::Wide, now_ms(), output.color)
        }
    })
}

fn entry(rollout: &Rollout, revisions: &BTreeMap<u64, Revision>) -> Entry {
    let revision = revisions.get(&rollout.to_revision);
    Entry {
        rollout: rollout.rollout,
        from_revision: rollout.from_revision,
        to_revision: rollout.to_revision,
        phase: rollout.phase.clone(),
        reason: rollout.reason.clone(),
        nodes: rollout.nodes(),
        done_nodes: rollout.nodes_in("done"),
        failed_nodes: rollout.failed_nodes,
        created: rollout.created,
        ended: rollout.ended,
        author: revision.map(|revision| revision.author.clone()).unwrap_or_default(),
        message: revision.map(|revision| revision.message.clone()).unwrap_or_default(),
        took: took(rollout),
    }
}

fn drawn(entries: &[Entry], no_headers: bool, wide: bool, now_ms: i64, color: bool) -> String {
    let mut headings = vec!["ROLLOUT", "FROM", "TO", "PHASE", "NODES", "FAILED", "AGE", "TOOK", "AUTHOR", "MESSAGE"];
    if wide {
        headings.insert(9, "REASON");
    }
    let row = |entry: &Entry| {
        let mut row = vec![
            text(entry.rollout.to_string()),
            number(entry.from_revision),
            number(entry.to_revision),
            state(&entry.phase),
            text(format!("{}/{}", entry.done_nodes, entry.nodes)),
            number(entry.failed_nodes),
            text(age(now_ms, entry.created.0)),
            text(&entry.took),
            text(&entry.author),
            remark(&entry.message),
        ];
        if wide {
            row.insert(9, text(&entry.reason));
        }
        row
    };
    if no_headers {
        headings.clear();
    }
    table::draw(&headings, entries.iter().map(row).collect(), color)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::samples;

    #[test]
    fn the_history_says_what_each_rollout_was_for() {
        let revisions = samples::revisions().into_iter().map(|revision| (revision.revision, revision)).collect();
        let entries: Vec<Entry> = samples::rollouts().iter().rev().map(|rollout| entry(rollout, &revisions)).collect();
        let wanted = "\
ROLLOUT   FROM   TO   PHASE         NODES   FAILED   AGE   TOOK     AUTHOR   MESSAGE
6            5    6   rolled-back   0/3          1   60s   1.4s     <none>
7            6    7   running       1/3          0   10s   <none>   ops      add lucas
";
        assert_eq!(drawn(&entries, false, false, samples::NOW_MS, false), wanted);
    }
}
