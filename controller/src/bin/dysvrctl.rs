//! `dysvrctl`: the operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    dysvr_controller::ctl::main()
}
