//! Marks that living processes hold on a file: who is a master and who a worker of one pid file. The kernel takes a mark
//! away when its process ends, however that ends, and says whose it is; so a number that a stranger was given since is
//! never taken for its former owner, and a worker is found when nothing but its own life is left of its master.
//!
//! Each mark is a POSIX record lock on a byte of its own. Only who may open the file can hold one: it is made for its
//! owner alone, and workers, who may be another user, inherit its descriptor. A process loses its marks when it closes any
//! descriptor of the file; so it opens the file once.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It may be told what to do by signals.
    Master,
    /// It serves.
    Worker,
}

/// Marks of a role begin here; a process marks the byte of its number behind it. Numbers of processes end far below.
const ROOM: i64 = 1 << 32;

impl Role {
    fn first(self) -> i64 {
        match self {
            Self::Master => 0,
            Self::Worker => ROOM,
        }
    }
}

/// A file that can be marked.
#[derive(Debug)]
pub struct Marks(File);

impl Marks {
    /// Opens the file, which is made if there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map(Self)
    }

    /// Opens the file to look at it. `None`: there is none, so nobody has marked it.
    pub fn find(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// This process has that role from now on, until it ends.
    pub fn set(&self, role: Role) -> io::Result<()> {
        let lock = part(role.first() + i64::from(std::process::id()), 1);
        fcntl(&self.0, FcntlArg::F_SETLK(&lock))?;
        Ok(())
    }

    /// The other processes that have a role.
    pub fn of(&self, role: Role) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        // The kernel names one of those that it finds; left and right of that one there may be more.
        let mut parts = vec![(role.first(), role.first() + ROOM)];
        while let Some((from, to)) = parts.pop() {
            if from >= to {
                continue;
            }
            let mut found = part(from, to - from);
            fcntl(&self.0, FcntlArg::F_GETLK(&mut found))?;
            if i32::from(found.l_type) != libc::F_UNLCK {
                // 0: a process of another namespace, which has no number here.
                pids.extend(u32::try_from(found.l_pid).ok().filter(|pid| *pid > 0));
                parts.extend([(from, found.l_start), (found.l_start + found.l_len.max(1), to)]);
            }
        }
        pids.sort_unstable();
        Ok(pids)
    }
}

fn part(from: i64, length: i64) -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, l_start: from, l_len: length, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that marks a file, and says so: this test itself, run once more.
    fn marker(path: &Path, role: &str) -> Child {
        use std::io::Read as _;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "os::marks::tests::marks_when_told_to", "--nocapture"]);
        command.env("DYSVR_TEST_MARK", path).env("DYSVR_TEST_ROLE", role);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let out = child.stdout.as_mut().unwrap();
        while !said.contains("marked") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "{said}");
            said.push(char::from(byte[0]));
        }
        child
    }

    #[test]
    fn marks_when_told_to() {
        let Some(path) = std::env::var_os("DYSVR_TEST_MARK") else { return };
        let marks = Marks::open(Path::new(&path)).unwrap();
        let master = std::env::var("DYSVR_TEST_ROLE").unwrap() == "master";
        marks.set(if master { Role::Master } else { Role::Worker }).unwrap();
        println!("marked");
        // Until who started it goes or ends it.
        drop(std::io::stdin().lines().next());
    }

    #[test]
    fn a_mark_lasts_as_long_as_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        assert!(Marks::find(&path).unwrap().is_none());
        let mut master = marker(&path, "master");
        let mut workers: Vec<Child> = (0..5).map(|_| marker(&path, "worker")).collect();
        let marks = Marks::find(&path).unwrap().unwrap();
        let ids = |workers: &[Child]| {
            let mut ids: Vec<u32> = workers.iter().map(Child::id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(
            (marks.of(Role::Master).unwrap(), marks.of(Role::Worker).unwrap()),
            (vec![master.id()], ids(&workers))
        );
        master.kill().unwrap();
        master.wait().unwrap();
        let mut gone = workers.remove(2);
        gone.kill().unwrap();
        gone.wait().unwrap();
        assert_eq!((marks.of(Role::Master).unwrap(), marks.of(Role::Worker).unwrap()), (vec![], ids(&workers)));
        for mut worker in workers {
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
        assert_eq!(marks.of(Role::Worker).unwrap(), [0; 0]);
    }
}
