//! The pid file: it names the master, and a file beside it ([`Marks`]) proves that the process of that number is it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::os::marks::{Marks, Role};
use crate::os::pidfd::PidFd;
use crate::os::procfs;
use crate::task::file::{Durability, write_whole};

/// Why there is no master to signal.
#[derive(Debug, thiserror::Error)]
pub enum NoMaster {
    /// The pid file says nothing useful.
    #[error("no master runs: {path}: {why}")]
    PidFile {
        /// The file.
        path: String,
        /// What is the matter with it.
        why: String,
    },
    /// It holds no number.
    #[error("no master runs: {path}: \"{}\" is not a pid", .text.escape_debug())]
    NoPid {
        /// The file.
        path: String,
        /// What stands there.
        text: String,
    },
    /// The process of that number is gone.
    #[error("no master runs: process {0} of the pid file has ended")]
    Ended(u32),
    /// The number belongs to somebody else now.
    #[error("process {pid} of the pid file is not our master: {why}")]
    Stranger {
        /// The number.
        pid: u32,
        /// How that was found out.
        why: String,
    },
}

/// The file with the marks of a pid file's master and workers.
pub fn marks(pid_file: &Path) -> PathBuf {
    let mut name = pid_file.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Takes hold of the master that a pid file names: the process must have marked itself as one. Neither the age nor the
/// name of a process would prove that; clocks are set, and a stranger may be another proxy.
pub fn master(pid_file: &Path) -> Result<PidFd, NoMaster> {
    let unusable = |path: &Path, why: String| NoMaster::PidFile { path: path.display().to_string(), why };
    let text = fs::read_to_string(pid_file).map_err(|e| unusable(pid_file, e.to_string()))?;
    let no_pid = || NoMaster::NoPid { path: pid_file.display().to_string(), text: text.trim().to_owned() };
    let pid: u32 = text.trim().parse().ok().filter(|pid| *pid > 0).ok_or_else(no_pid)?;
    let process = match PidFd::open(pid) {
        Ok(process) => process,
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Err(NoMaster::Ended(pid)),
        Err(e) => return Err(unusable(pid_file, e.to_string())),
    };
    let marks = marks(pid_file);
    let masters = Marks::find(&marks).and_then(|marks| marks.map_or(Ok(Vec::new()), |marks| marks.of(Role::Master)));
    let masters = masters.map_err(|e| unusable(&marks, e.to_string()))?;
    // Only now is it sure that the answer was about the process that is held.
    if !process.is_alive() {
        return Err(NoMaster::Ended(pid));
    }
    if !masters.contains(&pid) {
        let program = procfs::program(pid).unwrap_or_else(|| "unknown".into());
        return Err(NoMaster::Stranger {
            pid,
            why: format!("it is {program} and holds no lock on {}", marks.display()),
        });
    }
    Ok(process)
}

/// Makes this process the master that a pid file names.
pub fn write(pid_file: &Path, marks: &Marks) -> io::Result<()> {
    // First the proof, then the claim.
    marks.set(Role::Master)?;
    write_whole(pid_file, format!("{}\n", std::process::id()).as_bytes(), Durability::Visible)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_stranger_is_never_taken_for_the_master() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nginx.pid");
        assert!(master(&file).unwrap_err().to_string().starts_with("no master runs: "));
        fs::write(&file, "x\n").unwrap();
        assert!(master(&file).unwrap_err().to_string().ends_with("\"x\" is not a pid"));
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        fs::write(&file, format!("{pid}\n")).unwrap();
        for _ in 0..2 {
            let refused = master(&file).unwrap_err();
            assert!(matches!(&refused, NoMaster::Stranger { pid: who, .. } if *who == pid), "{refused}");
            assert!(refused.to_string().contains("it is cat and holds no lock"), "{refused}");
            // Nobody has marked it, or somebody else has.
            drop(Marks::open(&marks(&file)).unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(master(&file), Err(NoMaster::Ended(_))));
    }
}
