//! The operator's command line, as an operator types it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::proxy::LIMIT;
use crate::{binaries, process};

/// `dysvrctl` for one controller.
#[derive(Clone, Debug)]
pub struct Ctl {
    endpoint: String,
}

/// What one call gave.
#[derive(Clone, Debug)]
pub struct Said {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ctl {
    /// For the controller at `endpoint`.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into() }
    }

    /// Runs it, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be built, or does not end in time.
    pub fn run(&self, args: &[&str]) -> Result<Said> {
        let mut command = Command::new(binaries::path("dysvrctl")?);
        command.args(["--controller", &self.endpoint]).args(args);
        let output = process::run(&mut command, LIMIT * 3)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) })
    }

    /// Runs it and gives its output.
    ///
    /// # Errors
    /// When it fails: with all that it said.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let said = self.run(args)?;
        ensure!(said.code == Some(0), "dysvrctl {args:?} ended with {:?}: {}{}", said.code, said.stdout, said.stderr);
        Ok(said.stdout)
    }

    /// Runs it with `-o json` and gives what it printed.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.ok(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("dysvrctl {args:?} -o json printed {text}"))
    }
}
