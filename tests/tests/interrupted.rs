//! Ctrl-C while a program of this harness is at work: nothing of what it has started is left.

use std::process::Command;

use anyhow::{Result, ensure};
use dysvr_tests::process::Process;
use dysvr_tests::proxy::LIMIT;
use dysvr_tests::{procfs, wait};
use nix::sys::signal::Signal;

/// Processes that it has started before the signal: a master and two workers at least.
const STARTED: usize = 3;

fn interrupt(program: &str, arguments: &[&str]) -> Result<()> {
    let logs = tempfile::tempdir()?;
    let mut started = Process::start("program", Command::new(program).args(arguments), logs.path())?;
    let mark = format!("DYSVR_HARNESS={}", started.pid());
    let at_work = || match procfs::with_environment(&mark).len() {
        STARTED.. => Ok(()),
        count => anyhow::bail!("it has started {count}"),
    };
    started.wait_for("that it is at work", LIMIT * 3, at_work)?;
    started.signal(Signal::SIGINT)?;
    let status = started.wait(LIMIT)?;
    ensure!(status.code() == Some(130), "{status:?}: {}", started.output());
    wait::until("everything to be gone", LIMIT, || procfs::with_environment(&mark).is_empty())
}

#[test]
fn a_soak_that_is_interrupted_leaves_nothing() -> Result<()> {
    interrupt(env!("CARGO_BIN_EXE_dysvr-soak"), &["--updates", "100000", "--out", "/dev/null"])
}

#[test]
fn a_benchmark_that_is_interrupted_leaves_nothing() -> Result<()> {
    interrupt(
        env!("CARGO_BIN_EXE_dysvr-bench"),
        &["--alone", "--only", "long", "--vhosts", "1000", "--out", "/dev/null"],
    )
}
