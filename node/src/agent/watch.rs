//! What changes in the directories that matter: the task file's and those of the managed files. No polling.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use inotify::{EventMask, WatchDescriptor, WatchMask};

use super::managed::{DIRECTORIES, FileName};
use crate::dysvr::verify::finding_file;
use crate::master::quarantine::FILE as QUARANTINE;
use crate::os::inotify::Directories;

/// What has changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The task file was replaced, or a status in it changed.
    pub task_file: bool,
    /// Managed files, or files that may become so.
    pub files: Vec<FileName>,
    /// Something else beside or below the main configuration.
    pub configuration: bool,
    /// The pid file came or went.
    pub pid_file: bool,
    /// The list of quarantined vhosts came or went.
    pub quarantine: bool,
    /// The master has compared what it runs with what the files would start.
    pub verified: bool,
    /// Events were lost, or directories came and went: look at everything.
    pub all: bool,
}

/// The watch.
#[derive(Debug)]
pub struct Watch {
    inotify: Directories,
    directories: HashMap<WatchDescriptor, PathBuf>,
    conf_dir: PathBuf,
    task_file: PathBuf,
    pid_file: PathBuf,
}

/// `MODIFY` is for the task file alone: the master changes a status in place, by one byte.
const MASK: WatchMask = WatchMask::MOVED_TO
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::MODIFY)
    .union(WatchMask::DELETE)
    .union(WatchMask::CREATE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR);

impl Watch {
    /// Watches; the directory of the task file is made if it is not there. Needs a tokio runtime.
    pub fn new(conf_dir: &Path, task_file: &Path, pid_file: &Path) -> io::Result<Self> {
        let mut watch = Self {
            inotify: Directories::new()?,
            directories: HashMap::new(),
            conf_dir: conf_dir.to_owned(),
            task_file: task_file.to_owned(),
            pid_file: pid_file.to_owned(),
        };
        watch.watch_all()?;
        Ok(watch)
    }

    /// Whether it watches these files.
    pub fn is_for(&self, task_file: &Path, pid_file: &Path) -> bool {
        self.task_file == task_file && self.pid_file == pid_file
    }

    fn watch_all(&mut self) -> io::Result<()> {
        if let Some(dir) = self.task_file.parent().map(Path::to_owned) {
            std::fs::create_dir_all(&dir)?;
            self.add(&dir)?;
        }
        self.add(&self.conf_dir.clone())?;
        if let Some(dir) = self.pid_file.parent().map(Path::to_owned) {
            self.add_if_there(&dir)?;
        }
        for directory in DIRECTORIES {
            self.add_tree(&self.conf_dir.join(directory))?;
        }
        Ok(())
    }

    fn add(&mut self, dir: &Path) -> io::Result<()> {
        let described = |e: io::Error| io::Error::new(e.kind(), format!("watching {}: {e}", dir.display()));
        let descriptor = self.inotify.add(dir, MASK).map_err(described)?;
        self.directories.insert(descriptor, dir.to_owned());
        Ok(())
    }

    fn add_if_there(&mut self, dir: &Path) -> io::Result<bool> {
        match self.add(dir) {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn add_tree(&mut self, dir: &Path) -> io::Result<()> {
        if !self.add_if_there(dir)? {
            return Ok(());
        }
        for entry in std::fs::read_dir(dir)?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Waits for the next changes. Cancelling it loses nothing.
    pub async fn changed(&mut self) -> io::Result<Changes> {
        loop {
            let mut changes = Changes::default();
            for change in self.inotify.changes().await? {
                self.sort(&change.watch, change.mask, change.name.as_deref(), &mut changes);
            }
            if changes.all {
                self.watch_all()?;
            }
            if changes != Changes::default() {
                return Ok(changes);
            }
        }
    }

    fn sort(&mut self, descriptor: &WatchDescriptor, mask: EventMask, name: Option<&OsStr>, changes: &mut Changes) {
        if mask.contains(EventMask::IGNORED) {
            self.directories.remove(descriptor);
        }
        let lost = EventMask::Q_OVERFLOW | EventMask::IGNORED | EventMask::DELETE_SELF | EventMask::MOVE_SELF;
        if mask.intersects(lost) || mask.contains(EventMask::ISDIR) {
            changes.all = true;
            return;
        }
        // A file that is only created has no content yet: its close or its rename comes.
        let (Some(dir), Some(name)) = (self.directories.get(descriptor), name) else { return };
        if mask.contains(EventMask::CREATE) {
            return;
        }
        let path = dir.join(name);
        if path == self.task_file {
            changes.task_file = true;
        } else if mask.contains(EventMask::MODIFY) {
            // Half-written perhaps: its close comes.
        } else if path == self.pid_file {
            changes.pid_file = true;
        } else if path == self.task_file.with_file_name(QUARANTINE) {
            changes.quarantine = true;
        } else if path == finding_file(&self.task_file) {
            changes.verified = true;
        } else if let Some(name) = FileName::of_path(&self.conf_dir, &path) {
            changes.files.push(name);
        } else if path.starts_with(&self.conf_dir) && !name.to_string_lossy().ends_with(".tmp") {
            changes.configuration = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::task::file::{Durability, write_whole};

    async fn next(watch: &mut Watch) -> Changes {
        tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.expect("an event").unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn sees_each_kind_of_change() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("conf");
        fs::create_dir_all(conf.join("auto_vhost")).unwrap();
        let (task, pid) = (dir.path().join("shm/t.conf"), dir.path().join("nginx.pid"));
        let mut watch = Watch::new(&conf, &task, &pid).unwrap();
        assert!(watch.is_for(&task, &pid));

        write_whole(&task, b"x", Durability::Visible).unwrap();
        assert_eq!(next(&mut watch).await, Changes { task_file: true, ..Changes::default() });
        let mut status = fs::OpenOptions::new().write(true).open(&task).unwrap();
        io::Write::write_all(&mut status, b"y").unwrap();
        assert_eq!(next(&mut watch).await, Changes { task_file: true, ..Changes::default() });
        drop(status);
        assert_eq!(next(&mut watch).await, Changes { task_file: true, ..Changes::default() });
        write_whole(&task.with_file_name(QUARANTINE), b"x", Durability::Visible).unwrap();
        assert_eq!(next(&mut watch).await, Changes { quarantine: true, ..Changes::default() });
        write_whole(&finding_file(&task), b"x", Durability::Visible).unwrap();
        assert_eq!(next(&mut watch).await, Changes { verified: true, ..Changes::default() });
        fs::write(conf.join("auto_vhost/a.conf"), "x").unwrap();
        let files = vec![FileName::new("auto_vhost/a.conf").unwrap()];
        assert_eq!(next(&mut watch).await, Changes { files: files.clone(), ..Changes::default() });
        fs::remove_file(conf.join("auto_vhost/a.conf")).unwrap();
        assert_eq!(next(&mut watch).await, Changes { files, ..Changes::default() });
        fs::write(conf.join("nginx.conf"), "x").unwrap();
        assert_eq!(next(&mut watch).await, Changes { configuration: true, ..Changes::default() });
        fs::write(&pid, "1").unwrap();
        assert_eq!(next(&mut watch).await, Changes { pid_file: true, ..Changes::default() });

        // A directory that comes later is watched from then on.
        fs::create_dir(conf.join("auto_upstream")).unwrap();
        assert!(next(&mut watch).await.all);
        fs::write(conf.join("auto_upstream/u.conf"), "x").unwrap();
        assert_eq!(next(&mut watch).await.files, [FileName::new("auto_upstream/u.conf").unwrap()]);
    }
}
