//! A proxy with faults on demand (the feature `poison` of `dysvr-node`), an origin behind it and vhosts to poison.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::client::{self, Reply};
use crate::origin::Origin;
use crate::prefix::{MainConf, Prefix};
use crate::proxy::{LIMIT, Proxy};
use crate::task::{Kind, Verdict};
use crate::{binaries, wait};

/// The rig: a vhost `good.example` (id 1) is there from the start, and every task of [`Rig::task`] has a number of its own.
#[derive(Debug)]
pub struct Rig {
    /// The proxy.
    pub proxy: Proxy,
    /// Behind every vhost.
    pub origin: Origin,
    folder: TempDir,
    workers: usize,
    last_task: std::cell::Cell<u64>,
}

impl Rig {
    /// Starts it.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(conf: &MainConf) -> Result<Self> {
        Self::start_by(conf, |binary| Command::new(binary))
    }

    /// Starts it by a command that execs the program.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_by(conf: &MainConf, command: impl FnOnce(&std::path::Path) -> Command) -> Result<Self> {
        let origin = Origin::start("rig")?;
        let folder = tempfile::Builder::new().prefix("dysvr-poison-").tempdir()?;
        // Workers that have given up root remove files here.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
        let prefix = Prefix::new(conf)?;
        let binary = binaries::poisoned()?;
        let mut command = command(&binary);
        command.env("DYSVR_POISON", folder.path());
        prefix.write("auto_vhost/1.conf", &vhost(&prefix, 1, "good.example", &origin, ""))?;
        let proxy = Proxy::start_by(command, &binary, prefix)?;
        let rig = Self { proxy, origin, folder, workers: conf.workers, last_task: 0.into() };
        rig.all_workers()?;
        // Whoever answers has said to the master that it serves.
        rig.everywhere("good.example", 200)?;
        Ok(rig)
    }

    /// Waits until all workers are there.
    ///
    /// # Errors
    /// After the limit.
    pub fn all_workers(&self) -> Result<()> {
        wait::until("all workers", LIMIT * 2, || self.proxy.workers().len() == self.workers)
    }

    /// The step of the next task that `what` befalls one process at.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn poison(&self, step: &str, what: &str) -> Result<()> {
        // Whole at once: the workers may look at any moment.
        let beside = self.folder.path().join(".new");
        fs::write(&beside, what)?;
        fs::rename(beside, self.folder.path().join(step)).context("poisoning a step")
    }

    /// Whether the poison of a step was taken.
    pub fn taken(&self, step: &str) -> bool {
        !self.folder.path().join(step).exists()
    }

    /// Writes the file of a vhost and runs its task: `extra` stands in its location.
    ///
    /// # Errors
    /// When there is no verdict.
    pub fn task(&self, kind: Kind, id: u64, name: &str, extra: &str) -> Result<Verdict> {
        let file = format!("auto_vhost/{id}.conf");
        let mut files = vec![file.as_str()];
        if kind == Kind::Delete {
            fs::remove_file(self.proxy.prefix.conf(&file))?;
            files.clear();
        } else {
            self.proxy.prefix.write(&file, &vhost(&self.proxy.prefix, id, name, &self.origin, extra))?;
        }
        self.proxy.task(kind, &files, &[id], &[&format!("u{id}")], self.next_task())
    }

    /// As [`Self::task`], and it must be done.
    ///
    /// # Errors
    /// When it fails.
    pub fn done(&self, kind: Kind, id: u64, name: &str, extra: &str) -> Result<()> {
        let verdict = self.task(kind, id, name, extra)?;
        ensure!(verdict.done, "the task failed: {}\n{}", verdict.line.reason(), self.proxy.prefix.error_log());
        Ok(())
    }

    /// A number that no task has had.
    pub fn next_task(&self) -> u64 {
        self.last_task.set(self.last_task.get() + 1);
        self.last_task.get()
    }

    /// What a host answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn get(&self, host: &str) -> Result<Reply> {
        client::get(self.proxy.prefix.addr(), host, "/").with_context(|| format!("asking for {host}"))
    }

    /// Every worker answers with that status.
    ///
    /// # Errors
    /// When one does not.
    pub fn everywhere(&self, host: &str, status: u16) -> Result<()> {
        for reply in self.proxy.ask_every_worker(host, "/")? {
            ensure!(reply.status == status, "worker {:?} answers {} for {host}", reply.worker(), reply.status);
        }
        Ok(())
    }
}

/// A vhost that passes to an origin.
pub fn vhost(prefix: &Prefix, id: u64, name: &str, origin: &Origin, extra: &str) -> String {
    format!(
        "upstream u{id} {{ server {}; }}\nserver {{\n    vsvc_id {id};\n    listen 127.0.0.1:{};\n    server_name {name};\n    \
         location / {{\n        {extra}\n        proxy_pass http://u{id};\n    }}\n}}\n",
        origin.addr, prefix.port
    )
}
