//! `make soak`: steady traffic while vhosts change all the time, every answer checked. Ends with an exit code other than 0
//! when anything was wrong.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use dysvr_tests::bench::{plot, progress};
use dysvr_tests::soak::{self, Options};
use dysvr_tests::{binaries, program, wait};

/// Traffic, long-lived connections and updates at once: nobody may notice any of the updates.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Arguments {
    /// How many updates; 100000 is the long form
    #[arg(long, default_value_t = 6000)]
    updates: u64,
    /// Updates a second
    #[arg(long, default_value_t = 50.0)]
    updates_rate: f64,
    /// Requests a second
    #[arg(long, default_value_t = 5000.0)]
    rate: f64,
    /// Keepalive connections
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Long-lived connections: half of them upgraded, a quarter drips, a quarter is read slowly
    #[arg(long, default_value_t = 100)]
    lasting: usize,
    /// Vhosts
    #[arg(long, default_value_t = 200)]
    vhosts: usize,
    /// Of those, how many change
    #[arg(long, default_value_t = 100)]
    changing: usize,
    /// By how many percent memory and descriptors may grow
    #[arg(long, default_value_t = 1.0)]
    growth: f64,
    /// Or by how many KiB memory may: buffers of the traffic come and go
    #[arg(long, default_value_t = 8192.0)]
    slack: f64,
    /// Or by how many descriptors may: connections come and go
    #[arg(long, default_value_t = 150.0)]
    slack_descriptors: f64,
    /// Of everything random
    #[arg(long)]
    seed: Option<u64>,
    /// Where the picture and the JSON go [default: target/soak]
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::run("dysvr-soak", |_| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<bool> {
    let options = Options {
        vhosts: arguments.vhosts,
        changing: arguments.changing,
        rate: arguments.rate,
        connections: arguments.connections,
        lasting: arguments.lasting,
        updates_rate: arguments.updates_rate,
        updates: arguments.updates,
        growth: arguments.growth / 100.0,
        slack_kib: arguments.slack,
        slack_descriptors: arguments.slack_descriptors,
        seed: arguments.seed.unwrap_or_else(rand::random),
    };
    println!("seed {}", options.seed);
    let bar = progress("updates".to_owned(), options.updates);
    let report = soak::run(&options, |now| {
        bar.set_position(now.updates);
        let memory = now.pss_kib / 1024.0;
        bar.set_message(format!("{} answers, {memory:.0} MiB, {} violations", now.answers, now.violations));
    })?;
    bar.finish();
    println!("\n{}", report.table());
    let out = arguments.out.clone().unwrap_or_else(|| binaries::workspace().join("target/soak"));
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let (picture, data) = (out.join("soak.svg"), out.join("soak.json"));
    plot::write(&picture, &report.panels())?;
    std::fs::write(&data, format!("{:#}\n", report.json())).context("writing the figures")?;
    println!("\n{}\n{}", picture.display(), data.display());
    for violation in &report.violations {
        println!("VIOLATION {violation}");
    }
    ensure!(!wait::interrupted(), "interrupted");
    Ok(report.violations.is_empty())
}
