//! `make planted`: shows for each bug that can be planted that a suite finds it. Ends with an exit code other than 0 when one is
//! found by none, or when a suite fails without.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use dysvr_proto::planted::Bug;
use dysvr_tests::planted::{Programs, suite};
use dysvr_tests::{program, wait};
use indicatif::{ProgressBar, ProgressStyle};

/// Plants one bug after the other and runs the suite that must find it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only the bugs with these names
    #[arg(value_parser = bug)]
    bugs: Vec<Bug>,
}

fn bug(name: &str) -> Result<Bug, String> {
    let named = Bug::ALL.iter().find(|bug| bug.name() == name);
    named.copied().ok_or_else(|| {
        let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!("there are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::run("dysvr-planted", |_| run(arguments))
}

fn run(Arguments { mut bugs }: Arguments) -> Result<bool> {
    if bugs.is_empty() {
        bugs = Bug::ALL.to_vec();
    }
    let bar = ProgressBar::new(bugs.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed:>4} {msg}")?);
    bar.set_message("building");
    let mut programs = Programs::build(bugs.iter().copied().map(suite))?;
    let mut missed = 0;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["planted", "suite", "found in", "took"]);
    for bug in bugs {
        bar.set_message(bug.name());
        let [found_in, took] = match programs.show(bug) {
            Ok(shown) => [shown.found_in.join("\n"), format!("{:.1} s", shown.took.as_secs_f64())],
            Err(_) if wait::interrupted() => bail!("interrupted"),
            Err(error) => {
                missed += 1;
                bar.suspend(|| eprintln!("{}: {error:#}", bug.name()));
                ["NOT FOUND".into(), String::new()]
            }
        };
        table.add_row([bug.name(), suite(bug).target, &found_in, &took]);
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("{table}");
    Ok(missed == 0)
}
