//! A real etcd of one member, on free ports, with its data in a temporary directory.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::client;
use crate::ports;
use crate::process::Process;
use crate::proxy::LIMIT;

/// A running etcd; it and its data are gone when this is dropped.
#[derive(Debug)]
pub struct Etcd {
    process: Process,
    /// The port of its clients, on 127.0.0.1.
    pub port: u16,
    _data: TempDir,
}

impl Etcd {
    /// Whether etcd is installed here.
    pub fn installed() -> bool {
        Command::new("etcd").arg("--version").output().is_ok()
    }

    /// Starts it and waits until it says that it is healthy.
    ///
    /// # Errors
    /// When it is not installed or does not become healthy.
    pub fn start(logs: &Path) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("dysvr-etcd-").tempdir().context("making a directory for etcd")?;
        let (port, peer) = (ports::free()?, ports::free()?);
        let (client_url, peer_url) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new("etcd");
        command
            .args(["--name", "one", "--data-dir"])
            .arg(data.path())
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("one={peer_url}"), "--log-level", "warn"]);
        let mut process = Process::start("etcd", &mut command, logs)?;
        process.wait_for("health", LIMIT, || {
            let reply = client::get(([127, 0, 0, 1], port).into(), "localhost", "/health")?;
            ensure!(reply.text().contains("true"), "{}", reply.text());
            Ok(())
        })?;
        Ok(Self { process, port, _data: data })
    }

    /// What `--store` takes.
    pub fn store(&self) -> String {
        format!("etcd://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
