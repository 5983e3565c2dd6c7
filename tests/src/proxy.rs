//! A running proxy (dysvr's, or nginx for comparison): started from a prefix, asked by its command line and signals.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::client::{self, Connection};
use crate::prefix::{MainConf, Prefix};
use crate::process::{self, Process};
use crate::task::{Kind, Line, Verdict};
use crate::{binaries, procfs, signal, wait};

/// How long a proxy may take to start or to react to a signal in a test: so long that only one that never would exceeds it,
/// on a machine that stands still for seconds at times.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A master that runs in the foreground, with its workers.
#[derive(Debug)]
pub struct Proxy {
    /// Dropped before its files are.
    process: Process,
    /// Its files.
    pub prefix: Prefix,
    binary: PathBuf,
}

/// `dysvr-proxy`.
///
/// # Errors
/// When it cannot be built.
pub fn dysvr_binary() -> Result<PathBuf> {
    binaries::path("dysvr-proxy")
}

impl Proxy {
    /// Starts dysvr-proxy with a prefix of its own.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(conf: &MainConf) -> Result<Self> {
        Self::start_from(&dysvr_binary()?, Prefix::new(conf)?)
    }

    /// Starts a program with nginx's command line from a prepared prefix and waits until its workers serve.
    ///
    /// # Errors
    /// When it ends or does not serve in time: with what it said.
    pub fn start_from(binary: &std::path::Path, prefix: Prefix) -> Result<Self> {
        Self::start_by(Command::new(binary), binary, prefix)
    }

    /// As [`Self::start_from`], by a command that runs the program: with an environment, limits or a tracer. It must become
    /// the program itself (`exec`) for its pid to be the master's.
    ///
    /// # Errors
    /// As [`Self::start_from`].
    pub fn start_by(mut command: Command, binary: &std::path::Path, prefix: Prefix) -> Result<Self> {
        command.arg("-p").arg(prefix.path()).args(["-c", "conf/nginx.conf", "-e", "logs/error.log"]);
        let logs = prefix.path().join("logs");
        let mut process = Process::start("proxy", &mut command, &logs)?;
        process.wait_for("the pid file and a listening port", LIMIT, || {
            prefix.master_pid()?;
            Connection::open(prefix.addr()).context("connecting")?;
            // Sockets listen before there are workers: a test that asks who they are means all of them.
            let (workers, wanted) = (procfs::live_children(prefix.master_pid()?).len(), prefix.worker_processes());
            ensure!(wanted.is_none_or(|wanted| workers == wanted), "{workers} of {wanted:?} workers");
            Ok(())
        })?;
        let proxy = Self { process, prefix, binary: binary.to_owned() };
        ensure!(proxy.master() == proxy.process.pid(), "`daemon off` and yet the pid file names another process");
        Ok(proxy)
    }

    /// Starts the program once more for the same prefix, after its master has ended, and waits until the new one has
    /// written the pid file.
    ///
    /// # Errors
    /// When it ends or does not start in time: with what it said.
    pub fn start_again(&mut self) -> Result<()> {
        self.start_again_by(Command::new(&self.binary))
    }

    /// As [`Self::start_again`], by a command that execs the program.
    ///
    /// # Errors
    /// As [`Self::start_again`].
    pub fn start_again_by(&mut self, mut command: Command) -> Result<()> {
        command.arg("-p").arg(self.prefix.path()).args(["-c", "conf/nginx.conf", "-e", "logs/error.log"]);
        let mut process = Process::start("proxy", &mut command, &self.prefix.path().join("logs"))?;
        let pid = process.pid();
        process.wait_for("the pid file", LIMIT, || {
            ensure!(self.prefix.master_pid()? == pid, "it names another process");
            Ok(())
        })?;
        self.process = process;
        Ok(())
    }

    /// The master.
    pub fn master(&self) -> i32 {
        self.prefix.master_pid().unwrap_or_else(|_| self.process.pid())
    }

    /// The workers that run.
    pub fn workers(&self) -> BTreeSet<i32> {
        procfs::live_children(self.master())
    }

    /// The program.
    pub fn binary(&self) -> &std::path::Path {
        &self.binary
    }

    /// The process that was started.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it and gives its files, to start from them again.
    pub fn into_prefix(self) -> Prefix {
        let Self { process, prefix, .. } = self;
        drop(process);
        // Whoever starts it again waits for a new one.
        let _ = std::fs::remove_file(prefix.pid_file());
        prefix
    }

    /// Sends a signal to the master.
    ///
    /// # Errors
    /// As kill(2).
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::send(self.master(), signal)
    }

    /// Runs the program once more with other options, for the same prefix.
    ///
    /// # Errors
    /// When it does not end.
    pub fn command_line(&self, options: &[&str]) -> Result<Output> {
        run(&self.binary, &self.prefix, options)
    }

    /// Writes a task's configuration (`include FILE;` for each) and its line, signals, and waits for the verdict: what
    /// an operator without an agent does.
    ///
    /// # Errors
    /// When there is no verdict in time.
    pub fn task(
        &self,
        kind: Kind,
        files: &[&str],
        vsvc_ids: &[u64],
        ups_ids: &[&str],
        task_id: u64,
    ) -> Result<Verdict> {
        let file = self.prefix.task_file();
        let conf = file.path.with_file_name(format!("dysvr_{task_id}.conf"));
        let includes: String =
            files.iter().map(|name| format!("include {};\n", self.prefix.conf(name).display())).collect();
        std::fs::write(&conf, includes).with_context(|| format!("writing {}", conf.display()))?;
        self.line(&Line::text(kind, &conf, vsvc_ids, ups_ids, task_id), task_id)
    }

    /// Writes a task file, signals, and waits for the verdict of `task_id`.
    ///
    /// # Errors
    /// When there is no verdict in time: with the end of the error log.
    pub fn line(&self, text: &str, task_id: u64) -> Result<Verdict> {
        let file = self.prefix.task_file();
        file.write(&format!("{text}\n"))?;
        let mut watch = file.watch()?;
        signal::kill_by_hand(self.master())?;
        watch.verdict(task_id, LIMIT).with_context(|| process::tail(&self.prefix.error_log()))
    }

    /// The answer of every worker, each asked by its pid, in the order of the pids.
    ///
    /// # Errors
    /// When a worker cannot be reached.
    pub fn ask_every_worker(&self, host: &str, target: &str) -> Result<Vec<client::Reply>> {
        let answers = client::ask_every_worker(self.prefix.addr(), || self.workers(), host, target, LIMIT)
            .with_context(|| process::tail(&self.prefix.error_log()))?;
        Ok(answers.into_values().collect())
    }

    /// Waits for a text in the error log.
    ///
    /// # Errors
    /// After the limit, with the log's end.
    pub fn wait_log(&self, text: &str) -> Result<()> {
        wait::eventually(&format!("{text:?} in the error log"), LIMIT, || {
            let log = self.prefix.error_log();
            if log.contains(text) { Ok(()) } else { Err(process::tail(&log)) }
        })
    }
}

impl AsRef<Prefix> for Proxy {
    fn as_ref(&self) -> &Prefix {
        &self.prefix
    }
}

/// Runs a program with nginx's command line for a prefix, to its end.
///
/// # Errors
/// When it does not end.
pub fn run(binary: &std::path::Path, prefix: &Prefix, options: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary);
    command.arg("-p").arg(prefix.path()).args(["-c", "conf/nginx.conf", "-e", "logs/error.log"]).args(options);
    process::run(&mut command, LIMIT)
}
