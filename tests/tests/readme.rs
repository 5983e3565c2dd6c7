//! The README's "first ten minutes by hand" are run as they stand there: only ports and the folder on the tmpfs are
//! exchanged for free ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dysvr_tests::process::{self, Process};
use dysvr_tests::proxy::LIMIT;
use dysvr_tests::{binaries, ports};

/// The shell blocks of the chapter, in order, and the command that ends the tour.
fn tour(readme: &str) -> Result<(Vec<String>, String)> {
    let (_, chapter) =
        readme.split_once("## The first ten minutes by hand").context("the README has no such chapter")?;
    let chapter = chapter.split("\n## ").next().unwrap_or(chapter);
    let blocks: Vec<String> =
        chapter.split("```sh\n").skip(1).filter_map(|rest| Some(rest.split("```").next()?.to_owned())).collect();
    let (_, end) = chapter.split_once("And the end: `").context("the README does not end its tour")?;
    Ok((blocks, end.split('`').next().unwrap_or_default().to_owned()))
}

/// Who reads what a command has printed before going on to the next gives the programs in the background their time; a
/// script has to wait for what the reader is told to see.
fn paced(block: &str) -> String {
    let mut text = String::new();
    for line in block.lines() {
        let condition = if line.starts_with("dysvrctl get nodes") {
            "(exec 3<>/dev/tcp/127.0.0.1/9000) 2>/dev/null && dysvrctl get nodes 2>/dev/null | grep -qE 'current|drifted'"
        } else if line.starts_with("cat /dev/shm/dysvr-tour/dy_update_server.conf") {
            "grep -q 'status=[DF]' /dev/shm/dysvr-tour/dy_update_server.conf"
        } else {
            ""
        };
        if !condition.is_empty() {
            text.push_str(&format!("until {condition}; do read -t 0.05 <> <(:); done\n"));
        }
        text.push_str(&format!("{line}\n"));
    }
    text
}

#[test]
fn the_first_ten_minutes() -> Result<()> {
    let readme = fs::read_to_string(binaries::workspace().join("README.md"))?;
    let (blocks, end) = tour(&readme)?;
    ensure!(blocks.len() >= 4, "{} shell blocks", blocks.len());

    let dir = tempfile::Builder::new().prefix("dysvr-readme-").tempdir()?;
    let checkout = dir.path().join("checkout");
    fs::create_dir_all(checkout.join("target"))?;
    let programs = binaries::path("dysvrctl")?;
    symlink(programs.parent().context("no directory")?, checkout.join("target/dist"))?;
    let tasks = tempfile::Builder::new().prefix("dysvr-readme-").tempdir_in("/dev/shm")?;

    let mut script = "set -m\n".to_owned();
    for (number, block) in blocks.iter().enumerate() {
        // Each command is shown, so that a failure is seen where it happened.
        script.push_str(&format!("echo '## block {}'\nset -v\n{}\nset +v\n", number + 1, paced(block)));
    }
    // The node has to be as the fleet wants it before everything ends.
    script.push_str("until dysvrctl get nodes 2>/dev/null | grep -q current; do read -t 0.05 <> <(:); done\n");
    script.push_str(&format!("{end}\nwait\necho '## the end'\n"));
    let controller = ports::free()?.to_string();
    for (port, free) in
        [("7480", controller.clone()), ("8080", ports::free()?.to_string()), ("9000", ports::free()?.to_string())]
    {
        ensure!(script.contains(port), "the README no longer uses port {port}");
        script = script.replace(port, &free);
    }
    script = script.replace("/dev/shm/dysvr-tour", &tasks.path().display().to_string());

    let file = dir.path().join("tour.sh");
    fs::write(&file, &script)?;
    let mut command = Command::new("bash");
    command.arg(&file).current_dir(&checkout).env("HOME", dir.path());
    // The tour's controller is where dysvrctl looks for one by default.
    command.env("DYSVR_CONTROLLER", format!("http://127.0.0.1:{controller}"));
    let mut shell = Process::start("tour", &mut command, dir.path())?;
    let ended = shell.wait(LIMIT * 3);
    let said = shell.output();
    drop(shell);
    let master = fs::read_to_string(dir.path().join("dysvr-tour/n1/logs/nginx.pid"));
    if let Some(pid) = master.ok().and_then(|text| text.trim().parse().ok()) {
        process::end_all(&[pid].into());
    }
    ended.with_context(|| said.clone())?;
    let log = fs::read_to_string(dir.path().join("dysvr-tour/n1/logs/error.log")).unwrap_or_default();
    for wanted in [
        "test is successful",
        "hello.example",
        "HTTP/1.1 200 OK",
        "bad.conf:1: unknown directive \"listn\"",
        "status=D",
        "## the end",
    ] {
        ensure!(said.contains(wanted), "{wanted:?} is not in what the tour printed:\n{said}\n{log}");
    }
    for mistake in ["command not found", "No such file", "cannot reach", "[alert]", "panicked"] {
        ensure!(
            !said.contains(mistake) && !log.contains(mistake),
            "{mistake:?} in what the tour printed:\n{said}\n{log}"
        );
    }
    Ok(())
}
