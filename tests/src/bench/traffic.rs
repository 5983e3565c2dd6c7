//! What other traffic sees of updates: requests in an open loop to vhosts that nobody touches, in turns without and with
//! updates of others beside them. For nginx the updates are reloads, one a second or as fast as it can.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::corpus::{self, Vhost};
use super::driver::Driver;
use super::goals::Goal;
use super::part::Part;
use super::plot::{Panel, Shape};
use super::print::{self, millis};
use super::update::KINDS;
use super::{Peer, figures, progress};
use crate::prefix::Prefix;
use crate::proxy::Proxy;
use crate::soak::load::Shared;
use crate::soak::origin::Origins;
use crate::soak::site::Site;
use crate::soak::tally::{Seen, Tally};
use crate::soak::{self, Traffic};
use crate::{signal, wait};

/// No start and no reload takes longer.
const LIMIT: Duration = Duration::from_secs(120);
/// Vhosts that are asked, beside those that stand there and those that change.
const ASKED: usize = 50;
/// Updates of dysvr a second.
const RATE: f64 = 100.0;
/// Requests a second: a fifth of what two cores carry with clients and origins on them, so that nothing queues by itself.
const REQUESTS: f64 = 2000.0;

/// One turn.
#[derive(Clone, Debug)]
pub struct Turn {
    /// 99th percentile, ms.
    pub p99: f64,
    /// Median, ms.
    pub median: f64,
    /// Requests that were answered.
    pub answers: u64,
    /// Requests that failed: refused, cut off, or another status.
    pub failed: usize,
    /// Connections that the proxy asked its client to close.
    pub closed: usize,
    /// Updates meanwhile.
    pub updates: u64,
}

/// Turns of one peer: the n-th without and the n-th with are neighbours.
#[derive(Clone, Debug)]
pub struct Turns {
    /// Whose.
    pub peer: Peer,
    /// Without updates.
    pub without: Vec<Turn>,
    /// With.
    pub with: Vec<Turn>,
}

/// All peers.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How many vhosts stood there.
    pub vhosts: usize,
    /// Ours first.
    pub turns: Vec<Turns>,
}

/// A proxy with vhosts that are asked and vhosts that are there.
#[derive(Debug)]
pub struct Bed {
    /// The proxy.
    pub proxy: Proxy,
    /// Those that are asked.
    pub site: Arc<Site>,
    _origins: Origins,
}

impl Bed {
    /// Starts a peer with [`ASKED`] vhosts that lead to origins, and `vhosts` more. `http` goes into its configuration.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn start(peer: Peer, vhosts: usize, http: &str) -> Result<Self> {
        let mut conf = corpus::main_conf(peer);
        conf.http.push_str(http);
        let prefix = Prefix::new_in(&corpus::tmpfs(), &conf)?;
        for number in 0..vhosts {
            Vhost::first(ASKED + number).write(peer, &prefix)?;
        }
        let origins = Origins::start(4)?;
        let site = Arc::new(Site::new(peer, ASKED, prefix.port, origins.addresses.clone()));
        site.write_first(&prefix)?;
        let proxy = Proxy::start_from(&peer.binary()?, prefix)?;
        wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
        Ok(Self { proxy, site, _origins: origins })
    }

    /// The first number of a vhost that is not there.
    pub fn next(vhosts: usize) -> usize {
        ASKED + vhosts
    }

    /// Requests while `during` runs; what it gave and what they saw.
    ///
    /// # Errors
    /// When clients cannot run, or `during` fails.
    pub fn traffic<T>(&self, rate: f64, seed: u64, during: impl FnOnce() -> Result<T>) -> Result<(T, Seen)> {
        let shared = Arc::new(Shared {
            addr: self.proxy.prefix.addr(),
            site: Arc::clone(&self.site),
            changing: ASKED,
            pauses: false,
            tally: Tally::new(Instant::now()),
            ending: AtomicBool::new(false),
        });
        let clients = soak::clients(&shared, &Traffic { rate, connections: 20, lasting: 0, seed })?;
        let gave = during();
        shared.ending.store(true, Ordering::Relaxed);
        clients.join().map_err(|_| anyhow!("the clients' thread panicked"))??;
        Ok((gave?, shared.tally.seen()))
    }
}

/// Measures `pairs` pairs of turns of `seconds` each, for dysvr and, when asked for, for nginx.
///
/// # Errors
/// When a proxy does not do what is asked.
pub fn measure(vhosts: usize, pairs: usize, seconds: u64, nginx: bool) -> Result<Figures> {
    let mut figures = Figures { vhosts, turns: Vec::new() };
    let peers: &[Peer] = if nginx { &[Peer::Dysvr, Peer::Nginx] } else { &[Peer::Dysvr] };
    for &peer in peers {
        let bar = progress(format!("{}: other traffic", peer.name()), pairs as u64 * 2);
        let bed = Bed::start(peer, vhosts, "")?;
        let mut turns = Turns { peer, without: Vec::new(), with: Vec::new() };
        let mut next = Bed::next(vhosts);
        let mut driver = if peer == Peer::Dysvr { Some(Driver::new(&bed.proxy)?) } else { None };
        // One that does not count: pools fill, branches are learnt.
        bed.traffic(REQUESTS, 0, || rest(1))?;
        for pair in 0..pairs {
            let ((), seen) = bed.traffic(REQUESTS, pair as u64, || rest(seconds))?;
            turns.without.push(turn(&seen, 0));
            bar.inc(1);
            let until = Instant::now() + Duration::from_secs(seconds);
            let (updates, seen) = bed.traffic(REQUESTS, pair as u64, || match &mut driver {
                Some(driver) => updates(driver, &bed.proxy.prefix, &mut next, until),
                None => reloads(&bed.proxy, &mut next, until),
            })?;
            turns.with.push(turn(&seen, updates));
            bar.inc(1);
        }
        bar.finish();
        figures.turns.push(turns);
    }
    Ok(figures)
}

/// The length of a turn without updates.
fn rest(seconds: u64) -> Result<()> {
    std::thread::sleep(Duration::from_secs(seconds));
    Ok(())
}

fn updates(driver: &mut Driver, prefix: &Prefix, next: &mut usize, until: Instant) -> Result<u64> {
    let mut due = Instant::now();
    let mut count = 0;
    while due < until {
        let kind = KINDS[count as usize % KINDS.len()];
        *next += usize::from((count as usize).is_multiple_of(KINDS.len()));
        let vhost = Vhost { number: *next, place: *next % 1000, revision: count };
        driver.change(prefix, kind, &vhost).context("an update beside traffic")?;
        count += 1;
        due += Duration::from_secs_f64(1.0 / RATE);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    // What was added last goes, for the next turn begins with an add.
    let left = count as usize % KINDS.len();
    if left > 0 {
        driver.change(
            prefix,
            crate::task::Kind::Delete,
            &Vhost { number: *next, place: *next % 1000, revision: count },
        )?;
    }
    Ok(count)
}

fn reloads(proxy: &Proxy, next: &mut usize, until: Instant) -> Result<u64> {
    let mut count = 0;
    while Instant::now() < until {
        let (begin, old) = (Instant::now(), proxy.workers());
        *next += 1;
        Vhost { number: *next, place: *next % 1000, revision: 0 }.write(Peer::Nginx, &proxy.prefix)?;
        signal::send(proxy.master(), Signal::SIGHUP)?;
        wait::until("new workers", LIMIT, || {
            let new: BTreeSet<i32> = proxy.workers().difference(&old).copied().collect();
            new.len() >= 2
        })?;
        count += 1;
        std::thread::sleep((begin + Duration::from_secs(1)).saturating_duration_since(Instant::now()));
    }
    Ok(count)
}

fn turn(seen: &Seen, updates: u64) -> Turn {
    let closed = seen.words.iter().filter(|words| words.contains("closes the connection")).count();
    let failed = usize::try_from(seen.violations).unwrap_or(usize::MAX).saturating_sub(closed);
    Turn { p99: seen.p99, median: seen.median, answers: seen.answers, failed, closed, updates }
}

impl Turns {
    /// The median of pairs with : without of the 99th percentile.
    pub fn ratio(&self) -> f64 {
        let p99 = |turns: &[Turn]| turns.iter().map(|turn| turn.p99).collect::<Vec<f64>>();
        figures::paired_ratio(&p99(&self.with), &p99(&self.without))
    }

    /// All requests that failed beside updates.
    pub fn failed(&self) -> usize {
        self.with.iter().map(|turn| turn.failed).sum()
    }
}

impl Part for Figures {
    fn name(&self) -> &'static str {
        "traffic"
    }

    fn table(&self) -> String {
        let mut rows = Vec::new();
        for turns in &self.turns {
            for (with, of) in [(false, &turns.without), (true, &turns.with)] {
                let median =
                    |figure: &dyn Fn(&Turn) -> f64| figures::median(&of.iter().map(figure).collect::<Vec<f64>>());
                let sum = |figure: &dyn Fn(&Turn) -> u64| of.iter().map(figure).sum::<u64>().to_string();
                rows.push(vec![
                    format!("{}, {}", turns.peer.name(), if with { "with updates" } else { "without" }),
                    millis(median(&|turn| turn.median)),
                    millis(median(&|turn| turn.p99)),
                    if with { print::times(turns.ratio()) } else { String::new() },
                    sum(&|turn| turn.answers),
                    sum(&|turn| turn.failed as u64),
                    sum(&|turn| turn.closed as u64),
                    sum(&|turn| turn.updates),
                ]);
            }
        }
        print::table(
            &format!(
                "Other traffic at {} vhosts: {REQUESTS}/s, {RATE} updates/s, nginx's reloads at most one a second",
                print::count(self.vhosts)
            ),
            &["", "median", "p99", "with : without", "answers", "failed", "told to close", "updates"],
            rows,
        )
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for turns in &self.turns {
            let name = turns.peer.name();
            if turns.peer == Peer::Dysvr {
                let figure = format!("p99 of other traffic, {RATE} updates/s : none");
                goals.push(Goal::at_most(figure, turns.ratio(), 1.2, print::times));
                let whole = |count: f64| format!("{count:.0}");
                goals.push(Goal::at_most("requests that failed meanwhile", turns.failed() as f64, 0.0, whole));
            } else {
                let (ratio, failed) = (print::times(turns.ratio()), turns.failed());
                let reloads: u64 = turns.with.iter().map(|turn| turn.updates).sum();
                let value = format!("{ratio}, {failed} failed in {reloads}");
                goals.push(Goal::beside(format!("{name}: p99 with reloads : without, failed"), value));
            }
        }
        goals
    }

    fn panels(&self) -> Vec<Panel> {
        let bars = self.turns.iter().map(|turns| (turns.peer.name().to_owned(), turns.ratio())).collect();
        vec![Panel { title: "p99 of other traffic, with updates : without".to_owned(), shape: Shape::Bars(bars) }]
    }

    fn json(&self) -> Value {
        let turns = |turns: &[Turn]| -> Vec<Value> {
            let one = |turn: &Turn| {
                json!({
                    "p99_ms": turn.p99, "median_ms": turn.median, "answers": turn.answers, "failed": turn.failed,
                    "closed": turn.closed, "updates": turn.updates,
                })
            };
            turns.iter().map(one).collect()
        };
        let peers = self
            .turns
            .iter()
            .map(|one| (one.peer.name().to_owned(), json!({"without": turns(&one.without), "with": turns(&one.with)})));
        json!({"vhosts": self.vhosts, "peers": peers.collect::<serde_json::Map<String, Value>>()})
    }
}
