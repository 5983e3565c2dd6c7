//! Changes vhosts in place as an operator without an agent does (files, task line, signal, verdict), with as little
//! processor time of its own as it can: it sleeps until the master is through with the task file.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use inotify::{Inotify, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::Peer;
use super::corpus::Vhost;
use crate::prefix::Prefix;
use crate::proxy::Proxy;
use crate::signal;
use crate::task::{Kind, Line, TaskFile};

/// No update takes longer.
const LIMIT: Duration = Duration::from_secs(120);
/// How long nothing happens to the task file before it is looked at all the same.
const LOOK: Duration = Duration::from_millis(500);

/// Gives one proxy its tasks.
#[derive(Debug)]
pub struct Driver {
    master: i32,
    file: TaskFile,
    watch: Watch,
    last_task: u64,
    last_conf: Option<PathBuf>,
}

/// When a task began and ended.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// Right before the signal.
    pub begin: Instant,
    /// When `D` had been read.
    pub done: Instant,
}

impl Ran {
    /// From the signal to the verdict, in ms.
    pub fn ms(&self) -> f64 {
        (self.done - self.begin).as_secs_f64() * 1e3
    }
}

impl Driver {
    /// For a running dysvr.
    ///
    /// # Errors
    /// When the task file's directory cannot be watched.
    pub fn new(proxy: &Proxy) -> Result<Self> {
        let file = proxy.prefix.task_file();
        let directory = file.path.parent().context("the task file has no directory")?;
        let watch = Watch::new(directory)?;
        Ok(Self { master: proxy.master(), file, watch, last_task: 0, last_conf: None })
    }

    /// Writes the vhost's file (or removes it) and has the proxy do so.
    ///
    /// # Errors
    /// When the task does not end in `D`.
    pub fn change(&mut self, prefix: &Prefix, kind: Kind, vhost: &Vhost) -> Result<Ran> {
        match kind {
            Kind::Add | Kind::Modify | Kind::Set => vhost.write(Peer::Dysvr, prefix)?,
            Kind::Delete => fs::remove_file(prefix.conf(&vhost.file())).context("removing a vhost's file")?,
        }
        let files: &[String] = if kind == Kind::Delete { &[] } else { &[vhost.file()] };
        self.run(prefix, kind, files, &[vhost.vsvc_id()], &[&vhost.ups_id()])
    }

    /// Has the proxy take a change whose files are written.
    ///
    /// # Errors
    /// When the task does not end in `D`.
    pub fn run(
        &mut self,
        prefix: &Prefix,
        kind: Kind,
        files: &[String],
        vsvc_ids: &[u64],
        ups_ids: &[&str],
    ) -> Result<Ran> {
        self.last_task += 1;
        let task_id = self.last_task;
        let conf = self.file.path.with_file_name(format!("dysvr_{task_id}.conf"));
        let includes: String = files.iter().map(|name| format!("include {};\n", prefix.conf(name).display())).collect();
        fs::write(&conf, includes).with_context(|| format!("writing {}", conf.display()))?;
        self.file.write(&(Line::text(kind, &conf, vsvc_ids, ups_ids, task_id) + "\n"))?;
        if let Some(former) = self.last_conf.replace(conf) {
            fs::remove_file(former).context("removing the former task's configuration")?;
        }
        self.watch.forget()?;
        let begin = Instant::now();
        signal::send_dysvr(self.master)?;
        let done = self.verdict(task_id, begin)?;
        Ok(Ran { begin, done })
    }

    fn verdict(&mut self, task_id: u64, begin: Instant) -> Result<Instant> {
        loop {
            // A master that was still at work may have taken the task before the signal, and what it did then has been
            // forgotten: so nobody waits for ever.
            self.watch.moved(LOOK)?;
            let text = fs::read_to_string(&self.file.path).context("reading the task file")?;
            match status(&text, task_id) {
                Some('D') => return Ok(Instant::now()),
                Some('F') => bail!("task {task_id} failed: {text}"),
                _ => ensure!(begin.elapsed() < LIMIT, "task {task_id} has no verdict after {LIMIT:?}: {text}"),
            }
        }
    }
}

/// Wakes when a file of a directory is closed behind a change, or replaced: that is once for a task, behind its verdict.
/// Each letter before is a write, which would wake this program on a processor where a worker is to run; and a watch of
/// the file itself, a new one for each task, leaves the kernel one to take down, which it does on such a processor, too.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: Inotify,
}

impl Watch {
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let inotify = Inotify::init().context("starting inotify")?;
        let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO;
        inotify.watches().add(directory, mask).with_context(|| format!("watching {}", directory.display()))?;
        Ok(Self { inotify })
    }

    /// Forgets what has happened so far.
    pub(super) fn forget(&mut self) -> Result<()> {
        while self.moved(Duration::ZERO)? {}
        Ok(())
    }

    /// Waits for something to happen; whether it did.
    pub(super) fn moved(&mut self, limit: Duration) -> Result<bool> {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut poll = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        if nix::poll::poll(&mut poll, timeout).context("waiting for a file")? == 0 {
            return Ok(false);
        }
        let mut buffer = [0; 4096];
        let _ = self.inotify.read_events(&mut buffer).context("reading what changed")?;
        Ok(true)
    }
}

/// The status letter of a task; the cheap way, for this runs beside what is measured.
fn status(text: &str, task_id: u64) -> Option<char> {
    let line = text.lines().find(|line| line.contains(&format!(" task_id={task_id} ")))?;
    line.split(" status=").nth(1)?.chars().next()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_task_is_found_by_its_whole_number() {
        let text = "type=0 task_id=12 status=D\ntype=0 task_id=1 status=I later=1\n";
        assert_eq!(super::status(text, 1), Some('I'));
        assert_eq!(super::status(text, 12), Some('D'));
        assert_eq!(super::status(text, 2), None);
    }
}
