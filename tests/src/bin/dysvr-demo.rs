//! `make run`: a fleet of three nodes on this machine, the seed's vhost rolled out in waves, and what to try next. Stays
//! until Ctrl-C; then everything that it started is gone.

use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use dysvr_tests::demo;
use dysvr_tests::fleet::{Fleet, Store};
use dysvr_tests::{binaries, program, wait};
use indicatif::{ProgressBar, ProgressStyle};

/// Starts a controller, nodes and an origin, rolls the seed's vhost out, and stays until Ctrl-C.
#[derive(Debug, Parser)]
struct Options {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    nodes: u16,
    /// Keep the controller's state in an etcd that is started for it, instead of in a file
    #[arg(long)]
    etcd: bool,
    /// Leave at once when everything has been shown
    #[arg(long)]
    once: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    program::run("dysvr-demo", |interrupted| run(&options, interrupted).map(|()| true))
}

fn run(options: &Options, interrupted: &mpsc::Receiver<()>) -> Result<()> {
    let spinner = ProgressBar::new_spinner();
    spinner.set_style(ProgressStyle::with_template("{spinner} {elapsed:>3}  {msg}").context("a style")?);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner.set_message("building dysvr-proxy, dysvr-node, dysvr-controller, dysvrctl");
    let dysvrctl = binaries::path("dysvrctl")?;

    let store = if options.etcd { Store::Etcd } else { Store::Embedded };
    let fleet = Fleet::start(options.nodes.into(), store, |step| spinner.set_message(format!("starting {step}")))?;
    spinner.finish_and_clear();
    fleet.write_seed()?;

    let files = fleet.files_arg();
    let apply = ["apply", "-f", &files, "--waves", "1,100%", "--wait", "-m", "the seed's vhost"];
    println!("$ dysvrctl apply -f {files} --waves 1,100% --wait -m \"the seed's vhost\"");
    let mut command = Command::new(&dysvrctl);
    let status = command.args(["--controller", &fleet.controller.endpoint()]).args(apply).status();
    ensure!(!wait::interrupted(), "interrupted");
    let status = status.with_context(|| format!("starting {}", dysvrctl.display()))?;
    ensure!(status.success(), "dysvrctl {apply:?} ended with {status}");
    fleet.check_every_worker(dysvr_tests::seed::HOST, 200, "origin demo")?;

    println!("\n{}\n", demo::tasks(&fleet.ctl().json(&["get", "tasks"])?)?);
    println!("{}", demo::next_steps(&fleet, &dysvrctl)?);
    if !options.once {
        println!("Everything runs until Ctrl-C.");
        let _ = interrupted.recv();
        println!();
    }
    spinner.reset();
    spinner.set_message("ending everything");
    drop(fleet);
    spinner.finish_and_clear();
    Ok(())
}
