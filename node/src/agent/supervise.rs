//! Keeps a proxy running: starts it, notices its end, starts it again with growing pauses. Or, attached, only looks.

use std::io;
use std::process::Child;
use std::time::{Duration, Instant};

use super::proxy::Layout;
use crate::os::pidfd::{Ending, PidFd};
use crate::pid_file;

/// The pauses before a proxy is started again, doubled each time from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A proxy that ran for so long had a good start.
const GOOD: Duration = Duration::from_secs(10);

/// The supervisor.
#[derive(Debug)]
pub struct Supervisor {
    layout: Layout,
    /// Someone else starts and stops the proxy.
    attached: bool,
    child: Option<Child>,
    /// The master, ours or found, while it runs.
    master: Option<Ending>,
    started: Instant,
    failures: u32,
    /// When to look for a master or start one.
    look: Option<Instant>,
    stopping: bool,
}

impl Supervisor {
    /// Looks for a master soon; without one (and not attached) starts one.
    pub fn new(layout: Layout, attached: bool) -> Self {
        let now = Instant::now();
        Self {
            layout,
            attached,
            child: None,
            master: None,
            started: now,
            failures: 0,
            look: Some(now),
            stopping: false,
        }
    }

    /// Waits for the next thing to do and does it. Says whether the proxy came or went. Cancelling it loses nothing.
    pub async fn next(&mut self, path: &std::path::Path) -> io::Result<bool> {
        if let Some(master) = &self.master {
            master.wait().await?;
            self.ended()?;
            return Ok(true);
        }
        match self.look {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
        self.look = None;
        if let Ok(process) = pid_file::master(path) {
            tracing::info!(pid = process.pid(), "a master runs");
            self.master = Some(Ending::of(process)?);
            return Ok(true);
        }
        if self.attached || self.stopping {
            return Ok(false);
        }
        // Workers whose master was killed hold its ports: the new master takes these over.
        self.start()?;
        Ok(false)
    }

    /// The pid file came or went: when attached, that is how a new master shows.
    pub fn pid_file_changed(&mut self) {
        if self.master.is_none() && self.attached {
            self.look = Some(Instant::now());
        }
    }

    fn start(&mut self) -> io::Result<()> {
        self.started = Instant::now();
        match self.layout.start() {
            Ok(child) => {
                tracing::info!(pid = child.id(), "proxy started");
                self.master = Some(Ending::of(PidFd::open(child.id())?)?);
                self.child = Some(child);
            }
            Err(error) => {
                tracing::error!(program = %self.layout.proxy.display(), %error, "the proxy cannot be started");
                self.again();
            }
        }
        Ok(())
    }

    fn ended(&mut self) -> io::Result<()> {
        let pid = self.master.take().map(|master| master.pid());
        let status = match self.child.take_if(|child| Some(child.id()) == pid) {
            Some(mut child) => child.wait()?.to_string(),
            None => "not a child of this agent".to_owned(),
        };
        if self.stopping {
            return Ok(());
        }
        tracing::warn!(pid, status, "the proxy ended");
        self.again();
        Ok(())
    }

    fn again(&mut self) {
        self.failures = if self.started.elapsed() > GOOD { 0 } else { self.failures + 1 };
        let pause = PAUSE.0.saturating_mul(1 << self.failures.min(10)).min(PAUSE.1);
        self.look = Some(Instant::now() + pause);
    }

    /// Ends the proxy with the agent, unless it is somebody else's. `signal` is QUIT, then TERM when it is urgent.
    pub fn stop(&mut self, signal: i32, path: &std::path::Path) {
        self.stopping = true;
        self.look = None;
        if self.attached {
            return;
        }
        // The child before its pid file is written, else the master of the pid file (an upgrade may have changed it).
        let child = self.child.as_ref().and_then(|child| PidFd::open(child.id()).ok());
        if let Some(process) = pid_file::master(path).ok().or(child)
            && let Err(error) = process.send(signal)
        {
            tracing::warn!(pid = process.pid(), %error, "the proxy cannot be told to stop");
        }
    }

    /// Whether there is nothing to wait for any more.
    pub fn is_over(&self) -> bool {
        self.stopping && (self.attached || self.master.is_none())
    }
}
