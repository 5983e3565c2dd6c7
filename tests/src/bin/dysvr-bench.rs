//! `make bench`: measures dysvr beside nginx and haproxy in the same run, holds the figures against the goals, prints
//! tables, writes a picture and JSON.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use dysvr_tests::bench::part::Part;
use dysvr_tests::bench::updates::Updates;
use dysvr_tests::bench::{agent, bulk, haproxy, long, plot, print, reload, request, sizes, traffic, update};
use dysvr_tests::{binaries, program};
use serde_json::{Map, Value};

/// Measures updates in place, memory, starts and requests, beside nginx and haproxy, and says which goals are met.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    /// Fewer and shorter runs: figures to look at, not to quote
    #[arg(long)]
    quick: bool,
    /// Sizes at which an update is measured, side by side [default: 1000,10000,100000, quick: 1000,10000]
    #[arg(long, value_delimiter = ',')]
    vhosts: Vec<usize>,
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<Measurement>,
    /// No peers: only dysvr is measured
    #[arg(long)]
    alone: bool,
    /// Rounds of an add, a modify and a delete at each size, for latency and again for CPU [default: 300, quick: 50]
    #[arg(long)]
    rounds: Option<usize>,
    /// nginx's and haproxy's reloads per size, for latency and again for CPU [default: 5, quick: 2]
    #[arg(long)]
    reloads: Option<usize>,
    /// Updates for memory over time; 1000000 is the long form [default: 20000, quick: 4000]
    #[arg(long)]
    updates_long: Option<usize>,
    /// Pairs of turns for the cost of a request [default: 7, quick: 3]
    #[arg(long)]
    pairs: Option<usize>,
    /// Length of a turn [default: 4, quick: 2]
    #[arg(long)]
    seconds: Option<u64>,
    /// Where the picture and the JSON go [default: target/bench]
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Updates at each size, beside reloads
    Update,
    /// A controller's task through the agent
    Agent,
    /// Memory and cold starts at each size
    Sizes,
    /// Memory over many updates
    Long,
    /// What other traffic sees of updates
    Traffic,
    /// 10,000 vhosts in one task
    Bulk,
    /// The cost of a proxied request
    Request,
}

impl Options {
    fn wants(&self, part: Measurement) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn or(&self, given: Option<usize>, full: usize, quick: usize) -> usize {
        given.unwrap_or(if self.quick { quick } else { full }).max(1)
    }

    fn sizes(&self) -> Vec<usize> {
        match (self.vhosts.as_slice(), self.quick) {
            ([], true) => vec![1_000, 10_000],
            ([], false) => vec![1_000, 10_000, 100_000],
            (given, _) => given.to_vec(),
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures mean nothing. Use `make bench`.");
    }
    program::run("dysvr-bench", |_| run(&options).map(|()| true))
}

fn run(options: &Options) -> Result<()> {
    let mut parts: Vec<Box<dyn Part>> = Vec::new();
    let mut peers = Vec::new();
    let mut done = |part: Box<dyn Part>| {
        println!("\n{}\n", part.table());
        parts.push(part);
    };
    if options.wants(Measurement::Update) {
        let figures = updates(options)?;
        peers.clone_from(&figures.peers);
        done(Box::new(figures));
    }
    if options.wants(Measurement::Agent) {
        done(Box::new(agent::measure(10_000, options.or(None, 300, 50)).context("measuring the agent")?));
    }
    if options.wants(Measurement::Sizes) {
        let sizes: Vec<usize> = options.sizes().into_iter().filter(|vhosts| *vhosts >= 10_000).collect();
        let mut figures = sizes::measure(&sizes, options.or(None, 5, 2)).context("measuring sizes")?;
        figures.peers = peers;
        done(Box::new(figures));
    }
    if options.wants(Measurement::Long) {
        let updates = options.or(options.updates_long, 20_000, 4_000) as u64;
        done(Box::new(long::measure(10_000, updates).context("measuring memory over updates")?));
    }
    let seconds = options.seconds.unwrap_or(if options.quick { 2 } else { 4 }).max(1);
    if options.wants(Measurement::Traffic) {
        let figures = traffic::measure(1000, options.or(options.pairs, 7, 3), seconds, !options.alone);
        done(Box::new(figures.context("measuring other traffic")?));
    }
    if options.wants(Measurement::Bulk) {
        done(Box::new(bulk::measure(10_000, options.or(None, 11, 2)).context("measuring many vhosts at once")?));
    }
    if options.wants(Measurement::Request) {
        done(Box::new(request::measure(options.or(options.pairs, 7, 3), seconds).context("measuring requests")?));
    }

    let goals: Vec<_> = parts.iter().flat_map(|part| part.goals()).collect();
    println!("\n{}", print::goals(&goals));
    let out = options.out.clone().unwrap_or_else(|| binaries::workspace().join("target/bench"));
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let (picture, data) = (out.join("bench.svg"), out.join("bench.json"));
    let panels: Vec<_> = parts.iter().flat_map(|part| part.panels()).collect();
    plot::write(&picture, &panels)?;
    let mut json: Map<String, Value> = parts.iter().map(|part| (part.name().to_owned(), part.json())).collect();
    json.insert("goals".to_owned(), goals.iter().map(|goal| goal.json()).collect());
    std::fs::write(&data, format!("{:#}\n", Value::Object(json))).context("writing the figures")?;
    println!("\n{}\n{}", picture.display(), data.display());
    Ok(())
}

fn updates(options: &Options) -> Result<Updates> {
    let sizes = options.sizes();
    let update::Measured { sizes: ours, bare_ms } =
        update::measure(&sizes, options.or(options.rounds, 300, 50)).context("measuring updates")?;
    let mut peers = Vec::new();
    // At 100,000 one reload of nginx takes minutes: its search for equal upstreams is quadratic.
    for &vhosts in sizes.iter().filter(|vhosts| !options.alone && **vhosts <= 10_000) {
        let reloads = options.or(options.reloads, 5, 2);
        peers.push(reload::nginx(vhosts, reloads).with_context(|| format!("nginx at {vhosts} vhosts"))?);
        peers.extend(haproxy::measure(vhosts, reloads).with_context(|| format!("haproxy at {vhosts} vhosts"))?);
    }
    Ok(Updates { ours, bare_ms, peers })
}
