//! A task's way through the agent: from its controller over the stream, files written and durable, the line, the signal,
//! the verdict, and back as a report. On the disk and on a tmpfs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dysvr_proto::digest::{self, Digest};
use dysvr_proto::wire::fleet::{File, Mode, Task};
use serde_json::{Value, json};

use super::corpus::{self, Vhost};
use super::disk::Waits;
use super::goals::Goal;
use super::line::Line;
use super::part::Part;
use super::plot::{Panel, Shape};
use super::print::{self, millis};
use super::{Peer, figures, progress};
use crate::node::Node;
use crate::prefix::Prefix;

/// On one file system.
#[derive(Clone, Debug)]
pub struct Place {
    /// `disk` or `tmpfs`.
    pub name: &'static str,
    /// The node's first sync, all vhosts in one task: task sent → report of `D` received, ms.
    pub first_ms: f64,
    /// The controller's view: task sent → report of `D` received, ms.
    pub round_ms: Vec<f64>,
    /// The waits for the disk of a task without its work, a round behind each, ms.
    pub waits_ms: Vec<f64>,
    /// The agent's own: task received → verdict seen, ms.
    pub agent_ms: Vec<f64>,
}

/// All places.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Vhosts of the node.
    pub vhosts: usize,
    /// In the order in which they were measured.
    pub places: Vec<Place>,
}

/// Measures `tasks` tasks on the disk and on a tmpfs, on a node of `vhosts` vhosts.
///
/// # Errors
/// When a task fails or does not go in place.
pub fn measure(vhosts: usize, tasks: usize) -> Result<Figures> {
    let bar = progress("agent: task → D reported".to_owned(), tasks as u64 * 2);
    let disk = std::env::temp_dir();
    let mut places = Vec::new();
    for (name, parent) in [("disk", disk.as_path()), ("tmpfs", corpus::tmpfs().as_path())] {
        places.push(place(name, parent, vhosts, tasks, &bar).with_context(|| format!("on {name}"))?);
    }
    bar.finish();
    Ok(Figures { vhosts, places })
}

fn place(
    name: &'static str,
    parent: &Path,
    vhosts: usize,
    tasks: usize,
    bar: &indicatif::ProgressBar,
) -> Result<Place> {
    let mut line = Line::listen()?;
    let conf = corpus::main_conf(Peer::Dysvr);
    let prefix = Prefix::new_in(parent, &conf)?;
    let port = prefix.port;
    let _node = Node::start_over("bench", prefix, conf.workers, Some(&format!("http://{}", line.addr)))?;
    line.attached()?;

    let mut digests: BTreeMap<String, Digest> = BTreeMap::new();
    let mut files = Vec::new();
    for number in 0..vhosts {
        files.push(file(&mut digests, &Vhost::first(number), port));
    }
    let first = Task {
        id: "first".into(),
        epoch: 1,
        to_revision: 1,
        whole: true,
        files,
        digest: digest::of_files(&digests).to_vec(),
        rollout: 1,
        deadline_ms: 60_000,
        ..Task::default()
    };
    let (_, took) = line.done(first).context("the first sync")?;

    let mut place = Place {
        name,
        first_ms: took.as_secs_f64() * 1e3,
        round_ms: Vec::new(),
        waits_ms: Vec::new(),
        agent_ms: Vec::new(),
    };
    // Made before: a digest of all files right before a task would leave its caches to the agent.
    let modify = |number: usize| {
        let revision = number as u64 + 1;
        let vhost = Vhost { revision, ..Vhost::first(number * 7919 % vhosts.max(1)) };
        let files = vec![file(&mut digests, &vhost, port)];
        Task {
            id: format!("task-{number}"),
            epoch: 1,
            from_revision: revision,
            to_revision: revision + 1,
            files,
            digest: digest::of_files(&digests).to_vec(),
            rollout: 1,
            deadline_ms: 60_000,
            ..Task::default()
        }
    };
    let mut waits = Waits::new(parent)?;
    let tasks: Vec<Task> = (0..tasks).map(modify).collect();
    for task in tasks {
        let id = task.id.clone();
        let (report, took) = line.done(task)?;
        ensure!(report.mode() == Mode::InPlace, "{id} went by {:?}: {}", report.mode(), report.reason);
        place.round_ms.push(took.as_secs_f64() * 1e3);
        place.agent_ms.push(report.timings.map_or(0.0, |timings| timings.total_us as f64 / 1e3));
        place.waits_ms.push(waits.round()?);
        bar.inc(1);
    }
    Ok(place)
}

fn file(digests: &mut BTreeMap<String, Digest>, vhost: &Vhost, port: u16) -> File {
    let text = vhost.text(Peer::Dysvr, port);
    digests.insert(vhost.file(), digest::of_content(text.as_bytes()));
    File { name: vhost.file(), content: text.into() }
}

impl Part for Figures {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn table(&self) -> String {
        let rows = self.places.iter().map(|place| {
            vec![
                place.name.to_owned(),
                millis(figures::median(&place.round_ms)),
                millis(figures::quantile(&place.round_ms, 0.99)),
                millis(figures::median(&place.agent_ms)),
                millis(figures::median(&place.waits_ms)),
                place.round_ms.len().to_string(),
                millis(place.first_ms),
            ]
        });
        print::table(
            &format!(
                "A controller's task on a node of {} vhosts, one modified (medians), and all of them in one",
                print::count(self.vhosts)
            ),
            &["files on", "sent → D reported", "p99", "of that the agent", "the disk alone", "tasks", "first sync"],
            rows,
        )
    }

    fn goals(&self) -> Vec<Goal> {
        let goal = |place: &Place| {
            let figure = format!("agent: task → D reported, files durable ({})", place.name);
            Goal::at_most(figure, figures::median(&place.round_ms), 2.0, millis)
        };
        let alone = |place: &Place| {
            let figure = format!("its waits for the disk without any work ({})", place.name);
            Goal::beside(figure, millis(figures::median(&place.waits_ms)))
        };
        self.places.iter().flat_map(|place| [goal(place), alone(place)]).collect()
    }

    fn panels(&self) -> Vec<Panel> {
        let bars = self.places.iter().map(|place| (place.name.to_owned(), figures::median(&place.round_ms))).collect();
        vec![Panel { title: "agent: task → D reported, ms".to_owned(), shape: Shape::Bars(bars) }]
    }

    fn json(&self) -> Value {
        let places = self.places.iter().map(|place| {
            json!({
                "files_on": place.name, "first_ms": place.first_ms, "waits_ms": place.waits_ms,
                "round_ms": place.round_ms, "agent_ms": place.agent_ms,
            })
        });
        json!({"vhosts": self.vhosts, "places": places.collect::<Vec<Value>>()})
    }
}
