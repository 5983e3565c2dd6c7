//! Updates in place: from the signal until every worker serves it, and what all processes of the proxy spend on it.
//!
//! Proxies of several sizes run side by side and are updated in turn, so that whatever the machine does beside meets all
//! of them and the ratio between sizes stays. Each size gets adds (at places all over the order), modifies and deletes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::bare::Bare;
use super::corpus::{self, Vhost, WHO};
use super::driver::Driver;
use super::spent::Spent;
use super::{Peer, figures, progress};
use crate::client::{self, Connection};
use crate::proxy::Proxy;
use crate::task::Kind;
use crate::wait;

/// No start takes longer.
const LIMIT: Duration = Duration::from_secs(300);

/// What an update does, in the order in which a series goes round.
pub const KINDS: [Kind; 3] = [Kind::Add, Kind::Modify, Kind::Delete];

/// Updates that are measured as one for processor time: it is counted in clock ticks where user space and kernel are told
/// apart, and reading it costs more than one update does.
const BLOCK: usize = 30;

/// What was measured at one size.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How many vhosts there were at the start.
    pub vhosts: usize,
    /// Signal → every worker serves (`D` in the task file, by inotify), in ms; every third an add, a modify, a delete.
    pub served_ms: Vec<f64>,
    /// Per update of master and workers, one for each block of updates.
    pub spent: Vec<Spent>,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// A size each.
    pub sizes: Vec<Figures>,
    /// The wake-ups of an update without its work, a round whenever each size has had one, in ms.
    pub bare_ms: Vec<f64>,
}

impl Figures {
    /// The times of one kind of update; the n-th of each size ran beside the n-th of the others.
    pub fn of(&self, kind: Kind) -> Vec<f64> {
        let at = KINDS.iter().position(|one| *one == kind).unwrap_or_default();
        self.served_ms.iter().skip(at).step_by(KINDS.len()).copied().collect()
    }

    /// Median of [`Self::served_ms`].
    pub fn served(&self) -> f64 {
        figures::median(&self.served_ms)
    }

    /// The 99th percentile of [`Self::served_ms`].
    pub fn p99(&self) -> f64 {
        figures::quantile(&self.served_ms, 0.99)
    }

    /// Median over the blocks.
    pub fn spent(&self, what: impl Fn(&Spent) -> f64) -> f64 {
        figures::median(&self.spent.iter().map(what).collect::<Vec<f64>>())
    }

    /// Mean over the blocks: for what is counted in ticks.
    pub fn mean(&self, what: impl Fn(&Spent) -> f64) -> f64 {
        self.spent.iter().map(what).sum::<f64>() / self.spent.len().max(1) as f64
    }
}

/// A proxy of one size under measurement.
#[derive(Debug)]
struct Size {
    proxy: Proxy,
    driver: Driver,
    processes: BTreeSet<i32>,
    pinned: BTreeMap<i32, Connection>,
    changing: Vhost,
    figures: Figures,
}

/// Measures: `rounds` rounds of an add, a modify and a delete at each size for latency, and as many for processor time.
///
/// # Errors
/// When a task fails, or a worker does not serve what it should: a figure without a proof is none.
pub fn measure(sizes: &[usize], rounds: usize) -> Result<Measured> {
    let mut all = Vec::new();
    let bar = progress("starting the sizes".to_owned(), sizes.len() as u64);
    for &vhosts in sizes {
        all.push(Size::start(vhosts).with_context(|| format!("starting with {vhosts} vhosts"))?);
        bar.inc(1);
    }
    bar.finish_and_clear();

    // Some that do not count: code is paged in, allocators get their first pages.
    for size in &mut all {
        for _ in 0..3 {
            size.round()?;
        }
    }
    let mut bare = Bare::start()?;
    let mut bare_ms = Vec::with_capacity(rounds * KINDS.len());
    let bar = progress("updates: latency".to_owned(), rounds as u64);
    for round in 0..rounds {
        let turn = round % all.len().max(1);
        all.rotate_left(turn);
        // Update by update in turn, not round by round: the pairs of the ratio lie a millisecond apart.
        for (step, kind) in KINDS.into_iter().enumerate() {
            for size in &mut all {
                let ms = size.update(step, kind)?;
                size.ask(kind)?;
                size.figures.served_ms.push(ms);
            }
            bare_ms.push(bare.round()?);
        }
        all.rotate_right(turn);
        bar.inc(1);
    }
    bar.finish();

    let blocks = (rounds * KINDS.len()).div_ceil(BLOCK);
    let bar = progress("updates: processor time".to_owned(), blocks as u64);
    for _ in 0..blocks {
        for size in &mut all {
            let before = Spent::by(&size.processes)?;
            for _ in 0..BLOCK / KINDS.len() {
                size.round()?;
            }
            size.figures.spent.push((Spent::by(&size.processes)? - before).each(BLOCK));
        }
        bar.inc(1);
    }
    bar.finish();
    for size in &all {
        let now: BTreeSet<i32> = size.proxy.workers().into_iter().chain([size.proxy.master()]).collect();
        // The master may have a child more: the one that compares it with its files.
        ensure!(size.processes.is_subset(&now), "workers were replaced: {:?} are now {now:?}", size.processes);
    }
    Ok(Measured { sizes: all.into_iter().map(|size| size.figures).collect(), bare_ms })
}

impl Size {
    fn start(vhosts: usize) -> Result<Self> {
        let proxy = Proxy::start_from(&Peer::Dysvr.binary()?, corpus::many_vhosts(Peer::Dysvr, vhosts)?)?;
        wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
        let workers = proxy.workers();
        let pinned = client::pin_every_worker(proxy.prefix.addr(), &Vhost::first(0).name(), &workers, LIMIT)?;
        let processes = workers.into_iter().chain([proxy.master()]).collect();
        let driver = Driver::new(&proxy)?;
        let changing = Vhost { number: vhosts, place: 0, revision: 0 };
        Ok(Self { proxy, driver, processes, pinned, changing, figures: Figures { vhosts, ..Figures::default() } })
    }

    /// An add, a modify and a delete of one vhost more.
    fn round(&mut self) -> Result<()> {
        for (step, kind) in KINDS.into_iter().enumerate() {
            self.update(step, kind)?;
        }
        Ok(())
    }

    /// One update; the first of a round takes a new vhost, at another place of the order each time.
    fn update(&mut self, step: usize, kind: Kind) -> Result<f64> {
        if step == 0 {
            let number = self.changing.number + 1;
            // Any step that shares no factor with round numbers walks over all places without a pattern.
            let place = number.wrapping_mul(7919) % self.figures.vhosts.max(1);
            self.changing = Vhost { number, place, revision: 0 };
        } else {
            self.changing.revision += 1;
        }
        let vhosts = self.figures.vhosts;
        let ran = self.driver.change(&self.proxy.prefix, kind, &self.changing);
        Ok(ran.with_context(|| format!("{kind:?} at {vhosts} vhosts"))?.ms())
    }

    /// Asks each worker for what it should serve now.
    fn ask(&mut self, kind: Kind) -> Result<()> {
        let (name, who) = (self.changing.name(), self.changing.who());
        for (pid, connection) in &mut self.pinned {
            let reply = connection.get(&name, WHO).with_context(|| format!("asking worker {pid}"))?;
            let right = match kind {
                Kind::Add | Kind::Modify | Kind::Set => reply.status == 200 && reply.text() == who,
                Kind::Delete => reply.status == 404,
            };
            ensure!(
                right && reply.worker() == Some(*pid),
                "worker {pid} answers {} {:?} for {who:?} after {kind:?}",
                reply.status,
                reply.text()
            );
        }
        Ok(())
    }
}
