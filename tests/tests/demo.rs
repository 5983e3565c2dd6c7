//! `make run`, from its start to Ctrl-C.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dysvr_tests::process::Process;
use dysvr_tests::proxy::LIMIT;
use dysvr_tests::{client, procfs, seed, wait};
use nix::sys::signal::Signal;

#[test]
fn the_demo_shows_a_fleet_and_leaves_nothing_behind() -> Result<()> {
    let logs = tempfile::tempdir()?;
    let temporary = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_dysvr-demo"));
    command.env("TMPDIR", temporary.path());
    let mut demo = Process::start("demo", &mut command, logs.path())?;
    let pid = demo.pid();
    let output = logs.path().join("demo.out");
    let text = demo.wait_for("that everything runs", LIMIT * 3, || {
        let text = std::fs::read_to_string(&output)?;
        ensure!(text.contains("Everything runs until Ctrl-C"), "it says: {text}");
        Ok(text)
    })?;
    for wanted in ["node-1", "node-2", "node-3", "total ms", "in_place", "dysvrctl rollout undo --wait"] {
        ensure!(text.contains(wanted), "{wanted:?} is not shown: {text}");
    }
    // The URLs that it prints are true.
    let urls: Vec<&str> = text.split_whitespace().filter_map(|word| word.strip_prefix("http://127.0.0.1:")).collect();
    let ports: BTreeSet<u16> = urls.iter().filter_map(|rest| rest.strip_suffix('/')?.parse().ok()).collect();
    ensure!(ports.len() == 3, "{urls:?}");
    for port in &ports {
        let reply = client::get(([127, 0, 0, 1], *port).into(), seed::HOST, "/")?;
        ensure!(reply.status == 200 && reply.text().contains("origin demo"), "{reply:?}");
    }
    let started = procfs::descendants(pid);
    ensure!(started.len() > 3 * 4, "a controller, and an agent, a master and two workers per node: {started:?}");

    demo.signal(Signal::SIGINT)?;
    let status = demo.wait(LIMIT)?;
    ensure!(status.code() == Some(0), "{status:?}: {}", demo.output());
    wait::until("everything to be gone", LIMIT, || started.iter().all(|pid| !procfs::alive(*pid)))?;
    let left: Vec<_> = std::fs::read_dir(temporary.path())?.flatten().map(|entry| entry.path()).collect();
    let left: Vec<_> = left.into_iter().filter(|path| !path.ends_with("dysvr-ports")).collect();
    ensure!(left.is_empty(), "{left:?} is left");
    let task_directory =
        text.lines().find_map(|line| line.trim().strip_prefix("cat ")).context("no task file is shown")?;
    ensure!(!std::path::Path::new(task_directory).exists(), "{task_directory} is left");
    Ok(())
}
