//! Whether a proxy runs what its files would start: asked of its master, as `dysvr-node verify` asks.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dysvr_node::dysvr::verify::{Finding, Outcome, finding_file};
use dysvr_node::os::{pidfd::PidFd, signal};
use inotify::{Inotify, WatchMask};

use crate::prefix::Prefix;
use crate::process;
use crate::proxy::Proxy;
use crate::task::Verdict;

/// How long a look may take: it yields to everything else on the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Numbers tell answers apart.
static NEXT: AtomicU32 = AtomicU32::new(1000);

/// That a task was done, and that its files would start what it has made run.
///
/// # Errors
/// When it failed: with its reason. As [`verify`].
pub fn done(proxy: &Proxy, verdict: &Verdict) -> Result<()> {
    ensure!(verdict.done, "the task failed: {}", verdict.line.reason());
    verify(proxy).map(drop)
}

/// Asks the master of a proxy or of a node, and fails with both sides of each difference unless the answer is that they
/// are equal.
///
/// # Errors
/// When the files would start something else, or when the master does not say.
pub fn verify(of: &impl AsRef<Prefix>) -> Result<Finding> {
    let finding = look(of)?;
    ensure!(finding.outcome == Outcome::Equal, "{}\n{}", finding.sentence(), finding.text);
    Ok(finding)
}

/// Asks, and gives whatever the answer is.
///
/// # Errors
/// When the master does not say: with the end of its log.
pub fn look(of: &impl AsRef<Prefix>) -> Result<Finding> {
    let prefix = of.as_ref();
    let task_file = prefix.task_file().path;
    let path = finding_file(&task_file);
    let mut inotify = Inotify::init().context("starting inotify")?;
    let folder = path.parent().context("the task file has no directory")?;
    inotify.watches().add(folder, WatchMask::MOVED_TO).with_context(|| format!("watching {}", folder.display()))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let master = PidFd::open(prefix.master_pid()?.unsigned_abs()).context("holding the master")?;
    master.send_value(signal::dysvr(), number).context("asking the master")?;
    let begin = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        let found = std::fs::read(&path).ok().and_then(|bytes| Finding::decode(&bytes).ok());
        if let Some(finding) = found.filter(|finding| finding.asked.contains(&number)) {
            return Ok(finding);
        }
        let Some(left) = PATIENCE.checked_sub(begin.elapsed()) else {
            bail!("no finding after {PATIENCE:?}: {}", process::tail(&prefix.error_log()));
        };
        let timeout = nix::poll::PollTimeout::try_from(left).unwrap_or(nix::poll::PollTimeout::MAX);
        let mut poll = [nix::poll::PollFd::new(inotify.as_fd(), nix::poll::PollFlags::POLLIN)];
        if nix::poll::poll(&mut poll, timeout).context("waiting for the finding")? > 0 {
            let _ = inotify.read_events(&mut buffer).context("reading what changed")?;
        }
    }
}
