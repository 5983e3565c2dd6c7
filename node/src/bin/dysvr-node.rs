//! The agent of a node; see `dysvr_node::agent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dysvr_node::agent::cli::main()
}
