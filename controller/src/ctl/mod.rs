//! `dysvrctl`, the operator's command line.
//!
//! One file per verb under [`verb`]. What they share: [`bundle`] makes one set of files of what `-f` names,
//! [`connect`] finds a controller, [`view`] is what is shown (and the only place that knows the wire's messages for
//! it), [`columns`] and [`describe`] turn it into text, [`progress`] and [`follow`] watch a rollout, [`exit`] has the
//! exit codes. Nothing here decides anything about the fleet: that is the controller's.

pub mod bundle;
pub mod cli;
pub mod columns;
pub mod connect;
pub mod describe;
pub mod exit;
pub mod follow;
pub mod include;
pub mod input;
pub mod local;
pub mod output;
pub mod plan;
pub mod progress;
pub mod quantity;
pub mod resource;
#[cfg(test)]
mod samples;
pub mod strategy;
pub mod table;
pub mod time;
pub mod unified;
pub mod verb;
pub mod view;

use std::process::ExitCode;

use clap::Parser as _;

/// The whole program.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse(); // exits with 2 for nonsense, with 0 for --help and --version
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let output = output::Output::of_process();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(verb::run(cli, output)),
        Err(error) => Err(exit::Failure::Failed(format!("cannot start: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                output.note(&output::printable(&text));
            }
            ExitCode::from(failure.code())
        }
    }
}
