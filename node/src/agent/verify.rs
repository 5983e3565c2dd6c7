//! `dysvr-node verify`: has the master compare what it runs with what the files would start, and shows what it finds. It asks
//! by the update's own signal with a number along, not by a task line: the task file belongs to tasks, one may be in flight,
//! and what is asked here has none of a task's statuses. A master that knows nothing of numbers reads the task file and finds
//! nothing to do.

use std::io;
use std::path::Path;
use std::time::Duration;

use inotify::WatchMask;

use super::proxy::{Layout, Settings};
use crate::dysvr::verify::{Finding, finding_file};
use crate::os::inotify::Directories;
use crate::os::signal;
use crate::pid_file;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// There is nobody to ask.
    #[error(transparent)]
    NoMaster(#[from] pid_file::NoMaster),
    /// It could not be asked or heard.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// It ended meanwhile.
    #[error("master {0} has ended")]
    Ended(u32),
    /// It did not answer.
    #[error("master {master} has not answered within {} s: it is older than this command, or its machine is too busy", .limit.as_secs())]
    Late {
        /// The master.
        master: u32,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// The last finding that a master has written, whenever that was.
pub fn last(task_file: &Path) -> Option<Finding> {
    Finding::decode(&std::fs::read(finding_file(task_file)).ok()?).ok()
}

/// Asks the master and waits for its answer. Needs a tokio runtime.
pub async fn ask(layout: &Layout, limit: Duration) -> Result<Finding, NoAnswer> {
    // A configuration that is broken is what may be asked about.
    let settings = Settings::read(layout).unwrap_or_else(|_| Settings::guess(layout));
    let path = finding_file(&settings.task_file);
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let described = |error| NoAnswer::Io(folder.display().to_string(), error);
    let mut directories = Directories::new().map_err(described)?;
    directories.add(&folder, WatchMask::MOVED_TO).map_err(described)?;
    let master = pid_file::master(&settings.pid_file)?;
    let number = rand::random::<u32>().max(1);
    let pid = master.pid();
    master.send_value(signal::dysvr(), number).map_err(|error| NoAnswer::Io(format!("signalling {pid}"), error))?;
    let answer = async {
        loop {
            if let Some(finding) = last(&settings.task_file).filter(|finding| finding.asked.contains(&number)) {
                return Ok(finding);
            }
            if !master.is_alive() {
                return Err(NoAnswer::Ended(pid));
            }
            directories.changes().await.map_err(described)?;
        }
    };
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(NoAnswer::Late { master: pid, limit }))
}
