//! A running controller, which can crash and start again with the same store and address.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::ctl::Ctl;
use crate::process::Process;
use crate::proxy::LIMIT;
use crate::{binaries, client, ports};

/// A controller.
#[derive(Debug)]
pub struct Controller {
    process: Option<Process>,
    /// Its port on 127.0.0.1.
    pub port: u16,
    store: String,
    logs: PathBuf,
}

impl Controller {
    /// Starts one with `--store STORE`.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn start(store: &str, logs: &Path) -> Result<Self> {
        let mut controller =
            Self { process: None, port: ports::free()?, store: store.to_owned(), logs: logs.to_owned() };
        controller.start_again()?;
        Ok(controller)
    }

    /// Where nodes and operators dial it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The command line for it.
    pub fn ctl(&self) -> Ctl {
        Ctl::new(self.endpoint())
    }

    /// SIGKILL.
    pub fn crash(&mut self) {
        self.process = None;
    }

    /// Starts it (again): same address, same store.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new(binaries::path("dysvr-controller")?);
        command.args(["--listen", &format!("127.0.0.1:{}", self.port), "--store", &self.store]);
        let mut process = Process::start("controller", &mut command, &self.logs)?;
        let addr = ([127, 0, 0, 1], self.port).into();
        process
            .wait_for("a listening port", LIMIT, || client::Connection::open(addr).map(drop).context("connecting"))?;
        self.process = Some(process);
        Ok(())
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }
}
