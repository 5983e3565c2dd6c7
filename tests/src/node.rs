//! One machine of the fleet: an agent, and the proxy that it starts.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::client::{self, Connection, Reply};
use crate::prefix::{MainConf, Prefix};
use crate::process::{self, Process};
use crate::proxy::LIMIT;
use crate::{binaries, procfs};

/// A node. When it is dropped its agent, its proxy and its files are gone.
#[derive(Debug)]
pub struct Node {
    /// Its identity.
    pub id: String,
    /// Its files.
    pub prefix: Prefix,
    agent: Option<Process>,
    controller: Option<String>,
    labels: Vec<String>,
    options: Vec<String>,
    workers: usize,
}

impl Node {
    /// Makes the node's files and starts its agent, which starts its proxy.
    ///
    /// # Errors
    /// When the proxy does not serve in time.
    pub fn start(
        id: &str,
        labels: &[&str],
        controller: Option<&str>,
        conf: &MainConf,
        options: &[&str],
    ) -> Result<Self> {
        let mut node = Self::over(id, Prefix::new(conf)?, conf.workers, controller);
        node.labels = labels.iter().map(|label| (*label).to_owned()).collect();
        node.options = options.iter().map(|option| (*option).to_owned()).collect();
        node.start_agent()?;
        Ok(node)
    }

    /// Starts an agent over files that are there.
    ///
    /// # Errors
    /// When the proxy does not serve in time.
    pub fn start_over(id: &str, prefix: Prefix, workers: usize, controller: Option<&str>) -> Result<Self> {
        let mut node = Self::over(id, prefix, workers, controller);
        node.start_agent()?;
        Ok(node)
    }

    fn over(id: &str, prefix: Prefix, workers: usize, controller: Option<&str>) -> Self {
        Self {
            id: id.to_owned(),
            prefix,
            agent: None,
            controller: controller.map(str::to_owned),
            labels: Vec::new(),
            options: Vec::new(),
            workers,
        }
    }

    /// Starts the agent (again).
    ///
    /// # Errors
    /// When the proxy does not serve in time.
    pub fn start_agent(&mut self) -> Result<()> {
        let mut command = Command::new(binaries::path("dysvr-node")?);
        command.args(["run", "--id", &self.id]);
        for label in &self.labels {
            command.args(["--label", label]);
        }
        if let Some(controller) = &self.controller {
            command.args(["--controller", controller]);
        }
        command.arg("--prefix").arg(self.prefix.path()).args(["--conf", "conf/nginx.conf"]);
        if !self.options.iter().any(|option| option == "--proxy") {
            command.arg("--proxy").arg(binaries::path("dysvr-proxy")?);
        }
        command.arg("--state").arg(self.state()).args(&self.options);
        let mut agent = Process::start("agent", &mut command, &self.prefix.path().join("logs"))?;
        let prefix = &self.prefix;
        let wanted = self.workers;
        agent.wait_for("a proxy that serves", LIMIT, || {
            let workers = procfs::live_children(prefix.master_pid()?);
            ensure!(workers.len() == wanted, "{} of {wanted} workers", workers.len());
            Connection::open(prefix.addr()).map(drop).context("connecting")
        })?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Where the agent keeps its journal.
    pub fn state(&self) -> PathBuf {
        self.prefix.path().join("state")
    }

    /// SIGKILL for the agent alone: the proxy serves on.
    pub fn crash_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.crash();
        }
    }

    /// The agent.
    pub fn agent(&self) -> Option<&Process> {
        self.agent.as_ref()
    }

    /// The master's workers that run.
    pub fn workers(&self) -> BTreeSet<i32> {
        self.prefix.master_pid().map(procfs::live_children).unwrap_or_default()
    }

    /// The answer of every worker, in the order of the pids.
    ///
    /// # Errors
    /// When a worker cannot be reached.
    pub fn ask_every_worker(&self, host: &str, target: &str) -> Result<Vec<Reply>> {
        let answers = client::ask_every_worker(self.prefix.addr(), || self.workers(), host, target, LIMIT)
            .with_context(|| format!("node {}: {}", self.id, process::tail(&self.prefix.error_log())))?;
        Ok(answers.into_values().collect())
    }

    /// `dysvr-node task add|modify|delete FILE…` as from a shell on this node.
    ///
    /// # Errors
    /// When it does not end.
    pub fn task(&self, args: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new(binaries::path("dysvr-node")?);
        command.arg("task").args(args);
        command.arg("--prefix").arg(self.prefix.path()).args(["--conf", "conf/nginx.conf"]);
        command.arg("--state").arg(self.state());
        process::run(&mut command, LIMIT)
    }
}

impl AsRef<Prefix> for Node {
    fn as_ref(&self) -> &Prefix {
        &self.prefix
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The agent first, or it would start another proxy. A proxy whose agent has crashed, and workers whose master
        // has, are nobody's children; all of them name the prefix.
        self.agent = None;
        process::end_all(&procfs::with_argument(self.prefix.path()));
    }
}
