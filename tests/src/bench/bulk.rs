//! Ten thousand vhosts in one task, as the first sync of a node: against a cold start with as many, and how long other
//! traffic waits meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::corpus::{Vhost, WHO};
use super::driver::{Driver, Ran};
use super::goals::Goal;
use super::part::Part;
use super::plot::{Panel, Shape};
use super::print::{self, millis};
use super::traffic::Bed;
use super::{Peer, figures, progress};
use crate::client;
use crate::proxy::Proxy;
use crate::task::Kind;
use crate::wait;

/// No start takes longer.
const LIMIT: Duration = Duration::from_secs(120);
/// Between one thing and the next.
const PAUSE: Duration = Duration::from_millis(300);
/// Requests a second beside the task: enough to meet every stall.
const REQUESTS: f64 = 1000.0;
/// Its workers may take their time: what is measured is how much they take.
const HTTP: &str = "    dysvr_task_timeout 60s;\n";

/// What was measured.
#[derive(Clone, Debug)]
pub struct Figures {
    /// How many vhosts.
    pub vhosts: usize,
    /// Signal → `D`, ms, one per round.
    pub task_ms: Vec<f64>,
    /// exec → every worker serves, with equal files, ms.
    pub start_ms: Vec<f64>,
    /// The longest answer beside the task, ms.
    pub stall_ms: Vec<f64>,
    /// Requests that failed meanwhile.
    pub failed: u64,
}

/// Measures `rounds` rounds: the task and the start with nothing beside them, then the task again with other traffic.
///
/// # Errors
/// When the task fails.
pub fn measure(vhosts: usize, rounds: usize) -> Result<Figures> {
    let bar = progress(format!("{vhosts} vhosts in one task"), rounds as u64);
    let mut all = Figures { vhosts, task_ms: Vec::new(), start_ms: Vec::new(), stall_ms: Vec::new(), failed: 0 };
    for round in 0..rounds {
        let task = Task::new(vhosts)?;
        std::thread::sleep(PAUSE);
        all.task_ms.push(task.run()?.ms());
        served(&task.bed.proxy, &task.last())?;
        drop(task);

        // Files that were just written, too: to read them for the first time costs the system more than once again.
        let unread = Task::new(vhosts)?;
        let last = unread.last();
        let prefix = unread.bed.proxy.into_prefix();
        std::thread::sleep(PAUSE);
        let begin = Instant::now();
        let proxy = Proxy::start_from(&Peer::Dysvr.binary()?, prefix)?;
        wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
        client::pin_every_worker(proxy.prefix.addr(), &last.name(), &proxy.workers(), LIMIT)?;
        all.start_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        served(&proxy, &last)?;
        drop(proxy);

        let task = Task::new(vhosts)?;
        let (_, seen) = task.bed.traffic(REQUESTS, round as u64, || {
            // Traffic is to run before it is disturbed, and to be seen to run again.
            std::thread::sleep(PAUSE);
            task.run()?;
            std::thread::sleep(PAUSE);
            Ok(())
        })?;
        all.stall_ms.push(seen.longest);
        all.failed += seen.violations;
        served(&task.bed.proxy, &task.last())?;
        bar.inc(1);
    }
    bar.finish();
    Ok(all)
}

/// A proxy, and a task that is ready to be given to it.
struct Task {
    bed: Bed,
    many: Vec<Vhost>,
}

impl Task {
    fn new(vhosts: usize) -> Result<Self> {
        let bed = Bed::start(Peer::Dysvr, 0, HTTP)?;
        let many: Vec<Vhost> = (0..vhosts).map(|number| Vhost::first(Bed::next(0) + number)).collect();
        for vhost in &many {
            vhost.write(Peer::Dysvr, &bed.proxy.prefix)?;
        }
        Ok(Self { bed, many })
    }

    fn last(&self) -> Vhost {
        self.many.last().copied().unwrap_or(Vhost::first(0))
    }

    fn run(&self) -> Result<Ran> {
        let files: Vec<String> = self.many.iter().map(Vhost::file).collect();
        let ids: Vec<u64> = self.many.iter().map(Vhost::vsvc_id).collect();
        let names: Vec<String> = self.many.iter().map(Vhost::ups_id).collect();
        let upstreams: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut driver = Driver::new(&self.bed.proxy)?;
        driver.run(&self.bed.proxy.prefix, Kind::Add, &files, &ids, &upstreams).context("the task")
    }
}

fn served(proxy: &Proxy, vhost: &Vhost) -> Result<()> {
    for reply in proxy.ask_every_worker(&vhost.name(), WHO)? {
        ensure!(reply.text() == vhost.who(), "{:?} for {}", reply.text(), vhost.name());
    }
    Ok(())
}

impl Part for Figures {
    fn name(&self) -> &'static str {
        "bulk"
    }

    fn table(&self) -> String {
        let row = |what: &str, values: &[f64]| {
            let longest = values.iter().copied().fold(0.0, f64::max);
            vec![what.to_owned(), millis(figures::median(values)), millis(longest)]
        };
        print::table(
            &format!("{} vhosts at once, {} rounds", print::count(self.vhosts), self.task_ms.len()),
            &["", "median", "longest"],
            [
                row("one task: signal → every worker serves", &self.task_ms),
                row("cold start with as many", &self.start_ms),
                row("longest answer of other traffic beside the task", &self.stall_ms),
            ],
        )
    }

    fn goals(&self) -> Vec<Goal> {
        let (task, start) = (figures::median(&self.task_ms), figures::median(&self.start_ms));
        let count = print::count(self.vhosts);
        vec![
            Goal::at_most(format!("a task of {count} vhosts, against a cold start"), task, start, millis),
            Goal::beside("longest answer of other traffic meanwhile", millis(figures::median(&self.stall_ms))),
            Goal::at_most("requests that failed meanwhile", self.failed as f64, 0.0, |count| format!("{count:.0}")),
        ]
    }

    fn panels(&self) -> Vec<Panel> {
        let bar = |label: &str, values: &[f64]| (label.to_owned(), figures::median(values));
        let bars = vec![
            bar("one task", &self.task_ms),
            bar("cold start", &self.start_ms),
            bar("longest answer", &self.stall_ms),
        ];
        vec![Panel { title: format!("{} vhosts at once, ms", print::count(self.vhosts)), shape: Shape::Bars(bars) }]
    }

    fn json(&self) -> Value {
        json!({
            "vhosts": self.vhosts, "task_ms": self.task_ms, "start_ms": self.start_ms, "stall_ms": self.stall_ms,
            "failed": self.failed,
        })
    }
}
