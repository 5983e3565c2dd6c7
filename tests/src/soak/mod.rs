//! A soak: steady traffic and long-lived connections while vhosts and upstreams change all the time, every answer
//! checked. It fails on a failed, misrouted, mixed or stale answer, on a closed connection, on memory or descriptors that
//! grow, on a replaced worker, and on a configuration that is not what the files say at the end.
//!
//! `dysvr-soak` runs it for long, `tests/tests/soak.rs` in short.

pub mod change;
pub mod flat;
pub mod lasting;
pub mod load;
pub mod origin;
pub mod report;
pub mod site;
pub mod state;
pub mod tally;
pub mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use self::change::Changes;
use self::flat::Sample;
use self::load::Shared;
use self::origin::Origins;
use self::report::Report;
use self::site::Site;
use self::state::State;
use self::tally::Tally;
use crate::bench::Peer;
use crate::bench::corpus::tmpfs;
use crate::bench::driver::Driver;
use crate::bench::spent::pss_kib;
use crate::client;
use crate::prefix::{MainConf, Prefix};
use crate::proxy::{LIMIT, Proxy};
use crate::{ports, procfs, verify, wait};

/// How many addresses upstreams lead to in turn: an answer of a revision sixteen back would pass for the present one.
const ORIGINS: usize = 16;
/// How long Ctrl-C may have to wait.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Vhosts in all.
    pub vhosts: usize,
    /// Of those, how many change.
    pub changing: usize,
    /// Requests a second, over all connections.
    pub rate: f64,
    /// Keepalive connections.
    pub connections: usize,
    /// Long-lived connections, half of them upgraded.
    pub lasting: usize,
    /// Updates a second.
    pub updates_rate: f64,
    /// How many updates in all.
    pub updates: u64,
    /// By which part memory and descriptors may grow.
    pub growth: f64,
    /// Or by how many KiB memory may.
    pub slack_kib: f64,
    /// Or by how many descriptors may: connections come and go, idle ones to upstreams and those that come again.
    pub slack_descriptors: f64,
    /// Of everything random.
    pub seed: u64,
}

/// Where it is, for a progress line.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Updates done.
    pub updates: u64,
    /// Requests answered.
    pub answers: u64,
    /// Things that were wrong.
    pub violations: u64,
    /// Memory of all processes, KiB.
    pub pss_kib: f64,
}

/// Runs one and tells how far it is about once a second.
///
/// # Errors
/// When it could not be run; what it found is in the report.
pub fn run(options: &Options, mut progress: impl FnMut(Progress)) -> Result<Report> {
    ensure!(options.changing >= 1 && options.changing <= options.vhosts, "of {} vhosts", options.vhosts);
    let origins = Origins::start(ORIGINS)?;
    let conf = MainConf { main: "worker_rlimit_nofile 16384;\n".to_owned(), ..MainConf::default() };
    let prefix = Prefix::new_in(&tmpfs(), &conf)?;
    let own = (0..options.changing).map(|_| ports::free()).collect::<Result<Vec<u16>>>()?;
    let site = Site::new(Peer::Dysvr, options.vhosts, prefix.port, origins.addresses.clone()).with_ports(own);
    let site = Arc::new(site);
    site.write_first(&prefix)?;
    let proxy = Proxy::start_from(&crate::proxy::dysvr_binary()?, prefix)?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    let processes: BTreeSet<i32> = proxy.workers().into_iter().chain([proxy.master()]).collect();

    let shared = Arc::new(Shared {
        addr: proxy.prefix.addr(),
        site: Arc::clone(&site),
        changing: options.changing,
        pauses: true,
        tally: Tally::new(Instant::now()),
        ending: AtomicBool::new(false),
    });
    let traffic =
        Traffic { rate: options.rate, connections: options.connections, lasting: options.lasting, seed: options.seed };
    let clients = clients(&shared, &traffic)?;
    let updated = AtomicU64::new(0);
    let mut samples = Vec::new();
    let changes = std::thread::scope(|scope| -> Result<Changes> {
        // Dropped when the changes end, in whatever way: that is what the samples wait for.
        let (over, ended) = channel::<()>();
        let (shared, proxy, updated) = (&shared, &proxy, &updated);
        let changing = std::thread::Builder::new().name("changes".to_owned()).spawn_scoped(scope, move || {
            let _over = over;
            let mut driver = Driver::new(proxy)?;
            let pace = (options.updates_rate, options.updates);
            change::run(shared, &proxy.prefix, &mut driver, pace, options.seed, || {
                updated.fetch_add(1, Ordering::Relaxed);
            })
        })?;
        // Some two hundred looks, none more often than the kernel's walk through all pages is worth.
        let seconds = options.updates as f64 / options.updates_rate;
        let every = Duration::from_secs_f64((seconds / 200.0).clamp(0.1, 10.0));
        let mut next = Instant::now() + every;
        while ended.recv_timeout(next.saturating_duration_since(Instant::now()).min(PATIENCE))
            == Err(RecvTimeoutError::Timeout)
        {
            if wait::interrupted() {
                shared.ending.store(true, Ordering::Relaxed);
            }
            if Instant::now() < next {
                continue;
            }
            let (sample, (answers, violations)) = (sample(shared, &processes, updated), shared.tally.so_far());
            samples.push(sample);
            progress(Progress { updates: sample.updates, answers, violations, pss_kib: sample.pss_kib });
            next = Instant::now() + every;
        }
        changing.join().map_err(|_| anyhow!("the thread of the changes panicked"))?
    });
    let seconds = shared.tally.start().elapsed().as_secs_f64();
    shared.ending.store(true, Ordering::Relaxed);
    clients.join().map_err(|_| anyhow!("the clients' thread panicked"))??;
    let mut report = Report {
        options: options.clone(),
        seconds,
        seen: shared.tally.seen(),
        changes: Changes::default(),
        samples,
        violations: Vec::new(),
    };
    let mut violations = report.seen.words.clone();
    let more = report.seen.violations - violations.len() as u64;
    if more > 0 {
        violations.push(format!("and {more} more"));
    }
    match changes {
        Ok(changes) => report.changes = changes,
        Err(error) => violations.push(format!("{error:#}")),
    }
    violations.extend(at_the_end(&proxy, &shared, &processes, &report));
    report.violations = violations;
    drop(proxy);
    origins.stop()?;
    Ok(report)
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Requests a second, over all connections.
    pub rate: f64,
    /// Keepalive connections.
    pub connections: usize,
    /// Long-lived connections, half of them upgraded.
    pub lasting: usize,
    /// Of what they ask for and when.
    pub seed: u64,
}

/// The thread of all clients; it ends some time after `Shared::ending` is set.
pub type Clients = std::thread::JoinHandle<Result<()>>;

/// All connections, on one thread of their own.
///
/// # Errors
/// When the thread cannot be made.
pub fn clients(shared: &Arc<Shared>, traffic: &Traffic) -> Result<Clients> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the clients")?;
    let (shared, options) = (Arc::clone(shared), *traffic);
    let run = move || {
        runtime.block_on(async {
            let mean = Duration::from_secs_f64(options.connections.max(1) as f64 / options.rate.max(0.001));
            let mut all = tokio::task::JoinSet::new();
            for number in 0..options.connections {
                all.spawn(load::connection(Arc::clone(&shared), number, mean, options.seed ^ (number as u64) << 20));
            }
            for number in 0..options.lasting {
                all.spawn(lasting::connections(Arc::clone(&shared), number, options.seed ^ (number as u64) << 40));
            }
            while let Some(ended) = all.join_next().await {
                ended.map_err(|_| anyhow!("a client panicked"))?;
            }
            Ok(())
        })
    };
    std::thread::Builder::new().name("clients".to_owned()).spawn(run).context("the clients")
}

fn sample(shared: &Shared, processes: &BTreeSet<i32>, updated: &AtomicU64) -> Sample {
    Sample {
        at: shared.tally.start().elapsed().as_secs_f64(),
        updates: updated.load(Ordering::Relaxed),
        pss_kib: pss_kib(processes),
        descriptors: processes.iter().filter_map(|pid| procfs::descriptors(*pid)).sum::<usize>() as f64,
    }
}

/// What must hold when all is quiet again; everything that does not, in words.
fn at_the_end(proxy: &Proxy, shared: &Shared, processes: &BTreeSet<i32>, report: &Report) -> Vec<String> {
    let mut wrong = Vec::new();
    let now: BTreeSet<i32> = proxy.workers().into_iter().chain([proxy.master()]).collect();
    // The master may have a child more at any moment: the one that compares it with its files.
    if !processes.is_subset(&now) {
        wrong.push(format!("workers were replaced: {processes:?} have become {now:?}"));
    }
    let log = proxy.prefix.error_log();
    for line in log.lines().filter(|line| ["[emerg]", "[alert]", "[crit]"].iter().any(|level| line.contains(level))) {
        wrong.push(format!("in the log: {line}"));
    }
    let (memory, descriptors) = (report.memory(), report.descriptors());
    if !memory.is_flat(report.options.growth, report.options.slack_kib) {
        wrong.push(format!("memory has grown from {:.0} to {:.0} KiB", memory.early, memory.late));
    }
    if !descriptors.is_flat(report.options.growth, report.options.slack_descriptors) {
        wrong.push(format!("descriptors have grown from {:.0} to {:.0}", descriptors.early, descriptors.late));
    }
    let workers = processes.iter().copied().filter(|pid| *pid != proxy.master()).collect();
    if let Err(error) = sweep(proxy, shared, &workers) {
        wrong.push(format!("at the end: {error:#}"));
    }
    wrong
}

/// Every worker serves exactly what the files say, and they would start.
fn sweep(proxy: &Proxy, shared: &Shared, workers: &BTreeSet<i32>) -> Result<()> {
    let mut pinned = client::pin_every_worker(shared.addr, "nobody.example", workers, LIMIT)?;
    for number in 0..shared.site.len() {
        let state = shared.site.history(number).last();
        for (pid, connection) in &mut pinned {
            let reply = connection.get(&site::host(number), "/sweep").with_context(|| format!("worker {pid}"))?;
            let header = |name: &str| reply.head.header(name).unwrap_or("-").to_owned();
            let seen = (reply.status, header("x-vhost"), header("x-rev"), header("x-origin"));
            let expected = match state {
                State::Absent => (404, "-".to_owned(), "-".to_owned(), "-".to_owned()),
                State::Present { vhost, upstream } => {
                    let origin = shared.site.origin(number, upstream).to_string();
                    (200, site::name(number), vhost.to_string(), origin)
                }
            };
            ensure!(seen == expected, "worker {pid} serves {seen:?} for {}, not {expected:?}", site::host(number));
        }
    }
    verify::verify(proxy).context("comparing what runs with the files").map(drop)
}
