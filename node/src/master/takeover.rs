//! Taking over after a master that was killed: its workers serve on and hold the listening sockets. A new master takes
//! these from them, forks workers of its own, and lets the old ones go when the new ones serve, so that no connection is
//! refused meanwhile.
//!
//! Whose workers they are is known by the marks that they hold beside the pid file of the dead master ([`Marks`]). Each is
//! held by a pidfd while that is asked, and nothing is done to a bare number.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use dysvr_conf::model::ListenAddr;

use crate::log::Level;
use crate::os::marks::{Marks, Role};
use crate::os::pidfd::PidFd;
use crate::os::{errno, listen, procfs};

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
    /// Looks for workers of a pid file that have no master, from now on alone with them until [`Self::settled`].
    pub fn begin(pid_file: &Path, marks: &Marks) -> io::Result<Self> {
        let folder = pid_file.parent().unwrap_or(Path::new("/"));
        let lock = File::open(folder).and_then(|folder| folder.lock().map(|()| folder)).ok();
        let orphans = orphans(marks)?;
        if !orphans.is_empty() {
            log!(Level::Notice, "the former master has ended without its {} worker(s)", orphans.len());
        }
        Ok(Self { orphans, denied: false, lock })
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
                log!(Level::Error, "the sockets of the former worker {pid} cannot be taken over ({})", errno(&error));
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

/// The workers of masters that have ended without them.
fn orphans(marks: &Marks) -> io::Result<Vec<PidFd>> {
    if !marks.of(Role::Master)?.is_empty() {
        return Ok(Vec::new());
    }
    let held: Vec<PidFd> = marks.of(Role::Worker)?.into_iter().filter_map(|pid| PidFd::open(pid).ok()).collect();
    // Asked again while they are held: the numbers are their own until here.
    let still = marks.of(Role::Worker)?;
    Ok(held.into_iter().filter(|held| still.contains(&held.pid()) && held.is_alive()).collect())
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
    fn one_takes_over_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nginx.pid");
        let marks = Marks::open(&dir.path().join("nginx.pid.lock")).unwrap();
        let mut first = Takeover::begin(&file, &marks).unwrap();
        assert!(first.is_over());
        let folder = File::open(dir.path()).unwrap();
        assert!(folder.try_lock().is_err());
        first.settled();
        assert!(folder.try_lock().is_ok());
        let error = open_or_clear(&mut first, || Err::<(), _>("no".to_owned())).unwrap_err();
        assert_eq!(error, "no", "without orphans there is nothing to wait for");
    }
}
