//! Open log files: one per path and process, reopened by USR1.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

/// A file that lines are appended to. Appends below PIPE_BUF are not mixed with those of other processes.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: RefCell<File>,
}

thread_local!(static OPEN: RefCell<HashMap<PathBuf, Weak<LogFile>>> = RefCell::default());
thread_local!(static HANDED: RefCell<HashMap<PathBuf, File>> = RefCell::default());
thread_local!(static OWNER: Cell<Option<u32>> = const { Cell::new(None) });

fn open(path: &Path) -> io::Result<File> {
    // Not blocking: a FIFO that nobody reads is an error, not the end of the process. Writing may wait, as in nginx.
    let file = OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_APPEND))?;
    if let Some(uid) = OWNER.get()
        && file.metadata().is_ok_and(|meta| meta.is_file() && meta.uid() != uid)
    {
        // May be refused (a file of somebody else, no capability): then workers go without, as before.
        let _ = std::os::unix::fs::fchown(&file, Some(uid), None);
    }
    Ok(file)
}

/// The open file of a path (absolute), opened if it is not yet.
pub fn open_file(path: &Path) -> io::Result<Rc<LogFile>> {
    OPEN.with_borrow_mut(|all| {
        if let Some(file) = all.get(path).and_then(Weak::upgrade) {
            return Ok(file);
        }
        all.retain(|_, file| file.strong_count() > 0);
        let opened = open(path).or_else(|error| match HANDED.with_borrow_mut(|files| files.remove(path)) {
            Some(file) if error.kind() == io::ErrorKind::PermissionDenied => Ok(file),
            _ => Err(error),
        })?;
        let file = Rc::new(LogFile { path: path.to_owned(), file: RefCell::new(opened) });
        all.insert(path.to_owned(), Rc::downgrade(&file));
        Ok(file)
    })
}

/// Files that a master has opened for this process are at hand until this is dropped.
#[derive(Debug)]
pub struct Handed(());

/// Puts files at hand for [`open_file`], should this process not be permitted to open them itself.
pub fn hand(files: impl IntoIterator<Item = (PathBuf, File)>) -> Handed {
    HANDED.set(files.into_iter().collect());
    Handed(())
}

impl Drop for Handed {
    fn drop(&mut self) {
        HANDED.take();
    }
}

/// Opens every file anew, as USR1 asks; one that cannot be opened goes on as it is, and is returned with its error.
pub fn reopen_all() -> Vec<(PathBuf, io::Error)> {
    let files: Vec<_> = OPEN.with_borrow(|all| all.values().filter_map(Weak::upgrade).collect());
    let mut failed = Vec::new();
    for log in files {
        match open(&log.path) {
            Ok(file) => drop(log.file.replace(file)),
            Err(error) => failed.push((log.path.clone(), error)),
        }
    }
    failed
}

/// Gives the open regular files, and those that will be opened, to the workers' user, so that workers can open them by
/// themselves: the master is the first to open the logs of a vhost that joins in place.
pub fn chown_all(uid: u32) {
    OWNER.set(Some(uid));
    OPEN.with_borrow(|all| {
        for log in all.values().filter_map(Weak::upgrade) {
            if log.file.borrow().metadata().is_ok_and(|meta| meta.is_file()) {
                let _ = std::os::unix::fs::chown(&log.path, Some(uid), None);
            }
        }
    });
}

impl LogFile {
    /// Appends whole lines. A full disk loses them, as in nginx: a log must not stop traffic.
    pub fn append(&self, lines: &[u8]) {
        let _ = self.file.borrow_mut().write_all(lines);
    }

    /// Another descriptor of the open file.
    pub fn descriptor(&self) -> io::Result<File> {
        self.file.borrow().try_clone()
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_file_and_reopens_after_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let one = open_file(&path).unwrap();
        let two = open_file(&path).unwrap();
        assert!(Rc::ptr_eq(&one, &two));
        one.append(b"old\n");
        std::fs::rename(&path, dir.path().join("x.log.1")).unwrap();
        assert!(reopen_all().is_empty());
        two.append(b"new\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"new\n");
        assert_eq!(std::fs::read(dir.path().join("x.log.1")).unwrap(), b"old\n");
    }
}
