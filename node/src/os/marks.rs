//! Marks that living processes hold on a file: who is a master and who a worker of one pid file. The kernel takes a mark
//! away when its process ends, however that ends, and says whose it is; so a number that a stranger was given since is
//! never taken for its former owner, and a worker is found when nothing but its own life is left of its master.
//!
//! Each mark is a POSIX record lock on a byte of its own. Only who may open the file can hold one: it is for its owner
//! alone, and workers, who may be another user, inherit its descriptor. A worker that was broken into can lock what it
//! likes, but stands for nobody else: a lock counts only on the byte of its holder. A process loses its marks when it
//! closes any descriptor of the file; so it opens the file once.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
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

/// Its owner alone may open it.
const MODE: u32 = 0o600;

/// A file that can be marked.
#[derive(Debug)]
pub struct Marks(File);

impl Marks {
    /// Opens the file, which is made if there is none; for its owner alone, whatever it was before. Links are not followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(MODE).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(path)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
        Ok(Self(file))
    }

    /// Whether the path names this file, which then must not be opened once more.
    pub fn are_at(&self, path: &Path) -> io::Result<bool> {
        super::is_same(path, &self.0)
    }

    /// Opens the file to look at it. `None`: there is none, so nobody has marked it.
    pub fn find(path: &Path) -> io::Result<Option<Self>> {
        match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
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
                // A process of another namespace has the number 0 here.
                let is_mark = found.l_len == 1 && found.l_start == role.first() + i64::from(found.l_pid);
                pids.extend(u32::try_from(found.l_pid).ok().filter(|pid| is_mark && *pid > 0));
                // It is the whole lock, which may begin and end anywhere; 0: it has no end.
                let end = if found.l_len == 0 { to } else { found.l_start.saturating_add(found.l_len) };
                parts.extend([(from, found.l_start), (end, to)]);
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
        let lock = |from, length| fcntl(&marks.0, FcntlArg::F_SETLK(&part(from, length))).map(drop).unwrap();
        match std::env::var("DYSVR_TEST_ROLE").unwrap().as_str() {
            "master" => marks.set(Role::Master).unwrap(),
            "worker" => marks.set(Role::Worker).unwrap(),
            "everything" => lock(0, 0),
            "of the first" => lock(Role::Master.first() + 1, 1),
            "of many" => lock(Role::Worker.first() - 10, 20),
            "the rest" => lock(Role::Worker.first() + ROOM / 2, 0),
            other => panic!("{other}"),
        }
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
    #[test]
    fn a_lock_is_no_mark_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        let end = |mut child: Child| {
            child.kill().unwrap();
            child.wait().unwrap();
        };
        let everything = marker(&path, "everything");
        let marks = Marks::find(&path).unwrap().unwrap();
        assert_eq!((marks.of(Role::Master).unwrap(), marks.of(Role::Worker).unwrap()), (vec![], vec![]));
        end(everything);
        let odd = ["of the first", "of many", "the rest"].map(|what| marker(&path, what));
        let (master, worker) = (marker(&path, "master"), marker(&path, "worker"));
        assert_eq!(
            (marks.of(Role::Master).unwrap(), marks.of(Role::Worker).unwrap()),
            (vec![master.id()], vec![worker.id()])
        );
        odd.into_iter().chain([master, worker]).for_each(end);
    }

    #[test]
    fn the_file_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("marks"), dir.path().join("link"));
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for refused in [Marks::open(&link).map(drop), Marks::find(&link).map(drop)] {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ELOOP));
        }
        let marks = Marks::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let around = dir.path().join("..").join(dir.path().file_name().unwrap()).join("marks");
        assert!(marks.are_at(&around).unwrap() && !marks.are_at(&dir.path().join("none")).unwrap());
    }
}
