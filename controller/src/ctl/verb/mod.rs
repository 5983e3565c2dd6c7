//! The verbs.

mod apply;
mod delete;
mod describe;
mod diff;
mod get;
mod node;
mod rollout;
mod undo;
mod validate;
mod version;

use clap::CommandFactory as _;

use super::cli::{Cli, Completion, Verb};
use super::connect::Controllers;
use super::exit::Failure;
use super::output::Output;

/// Does what the command line says.
pub async fn run(cli: Cli, output: Output) -> Result<(), Failure> {
    match &cli.verb {
        Verb::Completion(options) => return completion(options, output),
        Verb::Version(options) => return version::run(options, output),
        _ => {}
    }
    let mut controllers = Controllers::new(&cli.global)?;
    match cli.verb {
        Verb::Validate(options) => validate::run(&mut controllers, output, &options).await,
        Verb::Diff(options) => diff::run(&mut controllers, output, &options).await.map_err(Failure::above_one),
        Verb::Apply(options) => apply::run(&mut controllers, output, &options).await,
        Verb::Delete(options) => delete::run(&mut controllers, output, &options).await,
        Verb::Get(options) => get::run(&mut controllers, output, &options).await,
        Verb::Describe(options) => describe::run(&mut controllers, output, &options).await,
        Verb::Rollout(verb) => rollout::run(&mut controllers, output, verb).await,
        Verb::Node(verb) => node::run(&mut controllers, output, verb).await,
        Verb::Completion(_) | Verb::Version(_) => Ok(()), // answered above, without a controller
    }
}

fn completion(options: &Completion, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "dysvrctl", &mut script);
    output.print(&String::from_utf8_lossy(&script))
}

/// Milliseconds since 1970, by this machine's clock.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
