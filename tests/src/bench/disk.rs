//! The limit of a task through the agent on this machine's disk: its waits for the disk without its work. A small file is
//! written beside the one that it replaces, while an entry is written into a journal's room; the file gets its name, and
//! then the journal another entry.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

/// Bytes of a vhost's file.
const CONTENT: [u8; 500] = [b'x'; 500];
/// Bytes of an entry, which holds the former contents too.
const ENTRY: [u8; 1500] = [b'x'; 1500];
/// Bytes of the journal; behind its end the entries begin anew.
const ROOM: u64 = 64 << 10;

/// A folder in which rounds are made; it goes with this.
#[derive(Debug)]
pub struct Waits {
    folder: tempfile::TempDir,
    file: PathBuf,
    journal: File,
    end: u64,
}

impl Waits {
    /// In a folder of its own below `parent`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(parent: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(parent).context("making a folder")?;
        let file = folder.path().join("vhost.conf");
        let journal = File::create(folder.path().join("journal")).context("making a journal")?;
        journal.write_all_at(&vec![0; ROOM as usize], 0).context("making room")?;
        journal.sync_all().context("making room")?;
        Ok(Self { folder, file, journal, end: 0 })
    }

    /// One round, in ms.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn round(&mut self) -> Result<f64> {
        let begin = Instant::now();
        let beside = self.file.with_extension("tmp");
        let content = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(&CONTENT)?;
            file.sync_data()
        };
        let mut entry = || -> io::Result<()> {
            self.end = if self.end + ENTRY.len() as u64 > ROOM { 0 } else { self.end };
            self.journal.write_all_at(&ENTRY, self.end)?;
            self.end += ENTRY.len() as u64;
            self.journal.sync_data()
        };
        let (written, begun) = thread::scope(|scope| {
            let begun = scope.spawn(&mut entry);
            (content(), begun.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
        });
        written.and(begun).context("writing side by side")?;
        fs::rename(&beside, &self.file).context("replacing the file")?;
        File::open(self.folder.path()).and_then(|folder| folder.sync_all()).context("syncing the folder")?;
        entry().context("writing the last entry")?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn rounds_go_on_behind_the_end_of_the_journal() {
        let parent = tempfile::tempdir().unwrap();
        let mut waits = super::Waits::new(parent.path()).unwrap();
        for _ in 0..50 {
            assert!(waits.round().unwrap() > 0.0);
        }
        assert_eq!(waits.journal.metadata().unwrap().len(), super::ROOM);
        assert_eq!(std::fs::read(&waits.file).unwrap(), super::CONTENT);
    }
}
