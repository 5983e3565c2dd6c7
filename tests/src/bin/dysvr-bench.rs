//! `make bench`: measures dysvr beside nginx in the same run, prints tables, writes a picture and JSON.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use dysvr_tests::bench::{Peer, plot, print, request, update};
use dysvr_tests::binaries;

/// Measures an update (signal → every worker serves, and its CPU) and a proxied request, beside nginx.
#[derive(Debug, Parser)]
struct Options {
    /// Fewer and shorter runs: figures to look at, not to quote
    #[arg(long)]
    quick: bool,
    /// Sizes at which an update is measured
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    vhosts: Vec<usize>,
    /// Only one of the two measurements
    #[arg(long)]
    only: Option<Part>,
    /// In-place updates per size, for latency and again for CPU [default: 200, quick: 50]
    #[arg(long)]
    updates: Option<usize>,
    /// nginx's reloads per size, for latency and again for CPU [default: 7, quick: 3]
    #[arg(long)]
    reloads: Option<usize>,
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
enum Part {
    Update,
    Request,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let or = |given: Option<usize>, full: usize, quick: usize| {
        given.unwrap_or(if options.quick { quick } else { full }).max(1)
    };
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures mean nothing. Use `make bench`.");
    }
    let mut updates = Vec::new();
    if options.only != Some(Part::Request) {
        for &vhosts in &options.vhosts {
            for (peer, count) in [(Peer::Dysvr, or(options.updates, 200, 50)), (Peer::Nginx, or(options.reloads, 7, 3))]
            {
                updates.push(
                    update::measure(peer, vhosts, count)
                        .with_context(|| format!("{} at {vhosts} vhosts", peer.name()))?,
                );
            }
        }
        println!("\n{}", print::updates(&updates));
    }
    let mut requests = None;
    if options.only != Some(Part::Update) {
        let seconds = options.seconds.unwrap_or(if options.quick { 2 } else { 4 }).max(1);
        let figures = request::measure(or(options.pairs, 7, 3), seconds).context("measuring requests")?;
        println!("\n{}", print::requests(&figures));
        requests = Some(figures);
    }
    let out = options.out.unwrap_or_else(|| binaries::workspace().join("target/bench"));
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let (picture, data) = (out.join("bench.svg"), out.join("bench.json"));
    plot::write(&picture, &updates, requests.as_ref())?;
    std::fs::write(&data, format!("{:#}\n", print::json(&updates, requests.as_ref())))
        .context("writing the figures")?;
    println!("\n{}\n{}", picture.display(), data.display());
    Ok(())
}
