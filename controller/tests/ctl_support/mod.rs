//! The real `dysvrctl`, run as an operator runs it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a run left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A way to run it: which controllers, and where.
#[derive(Clone, Debug)]
pub(crate) struct Ctl {
    pub(crate) controller: String,
    pub(crate) dir: std::path::PathBuf,
}

impl Ctl {
    pub(crate) fn new(controller: impl Into<String>, dir: &Path) -> Self {
        Self { controller: controller.into(), dir: dir.to_owned() }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dysvrctl"));
        command.args(args).current_dir(&self.dir).env("DYSVR_CONTROLLER", &self.controller);
        command.env("DYSVR_AUTHOR", "tester").env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        ended(self.command(args).output().expect("dysvrctl starts"))
    }

    pub(crate) fn run_with_stdin(&self, args: &[&str], text: &str) -> Run {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("dysvrctl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("dysvrctl reads its standard input");
        drop(stdin);
        ended(child.wait_with_output().expect("dysvrctl ends"))
    }

    /// Its standard output, when it succeeds.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "dysvrctl {args:?}: {run:?}");
        run.stdout
    }
}

fn ended(output: std::process::Output) -> Run {
    Run {
        code: output.status.code().expect("no signal ended it"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Writes files below a directory.
pub(crate) fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
}
