//! Taking over after a master that was killed: its workers serve on and hold the listening sockets. A new master takes
//! these from them, forks workers of its own, and lets the old ones go when the new ones serve, so that no connection is
//! refused meanwhile.
//!
//! Whose workers they are is known by the pid file that the dead master left: its workers are in the process group that
//! it has founded. Each is held by a pidfd before it is asked, and nothing is done to a bare number.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use dysvr_conf::model::ListenAddr;

use crate::log::Level;
use crate::os::pidfd::PidFd;
use crate::os::{errno, listen, procfs};
use crate::version::PROGRAM;

/// What a former master has left behind.
#[derive(Debug, Default)]
pub struct Takeover {
    orphans: Vec<PidFd>,
    /// Some of their sockets may not be taken.
    denied: bool,
    /// Two masters that start at once must not both take over.
    lock: Option<File>,
}

impl Takeover {
    /// Looks for orphans of the master that a pid file names, from now on alone with them until [`Self::settled`].
    pub fn begin(pid_file: &Path) -> Self {
        let folder = pid_file.parent().unwrap_or(Path::new("/"));
        let lock = File::open(folder).and_then(|folder| folder.lock().map(|()| folder)).ok();
        let orphans = orphans(pid_file);
        if !orphans.is_empty() {
            log!(Level::Notice, "the former master has ended without its {} worker(s)", orphans.len());
        }
        Self { orphans, denied: false, lock }
    }

    /// The listening sockets of the orphans, each once. Those that may not be taken (another user's, or root without the
    /// capability to trace) are missing: their addresses are free only when the orphans have let go of them.
    pub fn sockets(&mut self) -> Vec<(ListenAddr, OwnedFd)> {
        let mut seen = HashSet::new();
        let mut sockets = Vec::new();
        for orphan in &self.orphans {
            let result = procfs::sockets(orphan.pid()).and_then(|all| {
                for (number, socket) in all {
                    // What another one shares with it is the same socket; what is gone by now was none that listens.
                    if seen.contains(&socket) {
                        continue;
                    }
                    match orphan.descriptor(number) {
                        Ok(fd) if listen::is_listening(&fd) => {
                            seen.insert(socket);
                            listen::welcome(&fd).ok();
                            sockets.push((listen::address_of(&fd)?, fd));
                        }
                        Ok(_) => {}
                        Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            });
            if let Err(error) = result {
                let pid = orphan.pid();
                self.denied = true;
                log!(Level::Warn, "the sockets of the former worker {pid} cannot be taken over ({})", errno(&error));
            }
        }
        sockets
    }

    /// The pid file is written: whoever starts now finds a master that runs.
    pub fn settled(&mut self) {
        self.lock = None;
    }

    /// Whether there is nobody to let go.
    pub fn is_over(&self) -> bool {
        self.orphans.is_empty()
    }

    /// Tells the orphans to leave gracefully.
    pub fn dismiss(&mut self) {
        for orphan in self.orphans.drain(..) {
            match orphan.send(libc::SIGQUIT) {
                Ok(()) => log!(Level::Notice, "the former worker {} leaves gracefully", orphan.pid()),
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => log!(Level::Alert, "kill({}, SIGQUIT) failed ({})", orphan.pid(), errno(&error)),
            }
        }
    }
}

/// The workers of a master that has ended without them.
fn orphans(pid_file: &Path) -> Vec<PidFd> {
    let text = std::fs::read_to_string(pid_file).unwrap_or_default();
    let Some(group) = text.trim().parse::<u32>().ok().filter(|&group| group > 1) else { return Vec::new() };
    if procfs::is_running(group) {
        return Vec::new();
    }
    let me = std::process::id();
    let is_one = |pid: u32| {
        pid != me && procfs::process_group(pid) == Some(group) && procfs::program(pid).as_deref() == Some(PROGRAM)
    };
    let held = procfs::all().into_iter().filter(|&pid| is_one(pid)).filter_map(|pid| PidFd::open(pid).ok());
    // Asked again while it is held: the number is its own until here.
    held.filter(|held| is_one(held.pid()) && held.is_alive()).collect()
}

/// Opens sockets. Where orphans hold some that may not be taken from them, they are told to leave, and it is tried until
/// they have let go: they close their sockets soon, whatever their connections take. Any other failure lets them serve
/// on: they are all that serves.
pub fn open_or_clear<T>(takeover: &mut Takeover, mut open: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(5);
    const STEP: std::time::Duration = std::time::Duration::from_millis(20);
    let result = open();
    if result.is_ok() || !takeover.denied {
        return result;
    }
    takeover.dismiss();
    let deadline = crate::os::time::monotonic() + LIMIT;
    loop {
        match open() {
            Err(_) if crate::os::time::monotonic() < deadline => std::thread::sleep(STEP),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_taken_for_an_orphan_who_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nginx.pid");
        assert!(orphans(&file).is_empty(), "no pid file");
        // A living group of strangers, a number that is no pid, everybody's and nobody's group.
        for text in [std::process::id().to_string(), "x".into(), "0".into(), "1".into(), "-1".into()] {
            std::fs::write(&file, format!("{text}\n")).unwrap();
            assert!(orphans(&file).is_empty(), "{text}");
        }
    }

    #[test]
    fn one_takes_over_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nginx.pid");
        let mut first = Takeover::begin(&file);
        let folder = File::open(dir.path()).unwrap();
        assert!(folder.try_lock().is_err());
        first.settled();
        assert!(folder.try_lock().is_ok());
        let error = open_or_clear(&mut first, || Err::<(), _>("no".to_owned())).unwrap_err();
        assert_eq!(error, "no", "without orphans there is nothing to wait for");
    }
}
