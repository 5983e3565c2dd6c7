//! The ledger on disk: a file of entries, one per line, each with a checksum and each on the disk before it counts.
//!
//! The first line is the whole ledger; when the file has grown it is replaced by a new one. Behind the last line there is room, bytes of
//! zero that are on the disk already: an entry that is written there changes neither the file's length nor where its blocks
//! lie, so that its sync is one write of the disk and no commit of the file system.
//!
//! A last line that was cut off never counted. It may be cut off anywhere: what the disk has not taken of it is still
//! zero, sector by sector. Damage anywhere else is an error: the file is set aside, and the node begins as one that
//! knows nothing (its files are then reported as drift, never overwritten).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dysvr_proto::digest;
use dysvr_proto::planted::{Bug, planted};

use super::aside::Aside;
use super::ledger::{Entry, Ledger};
use crate::task::file::{Durability, write_whole_as};

/// Rewritten when it has grown to this and to twice its first line: a megabyte is read in milliseconds.
const REWRITE_AT: u64 = 1 << 20;
/// Room is made in pieces of this: for dozens of tasks, and written as fast as one entry.
const ROOM: u64 = 64 << 10;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// The former contents of files may stand in it, and those may be secrets.
const MODE: u32 = 0o600;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Arc<File>,
    aside: Aside,
    /// Where the next line goes.
    end: u64,
    /// Where the file ends.
    size: u64,
    whole_size: u64,
}

impl Journal {
    /// Opens the journal of a state directory, creating it if there is none. The second value is what it says; the
    /// third is where a damaged one was set aside.
    pub fn open(dir: &Path) -> io::Result<(Self, Ledger, Option<PathBuf>)> {
        let path = dir.join("journal");
        let (ledger, damaged) = match fs::read(&path) {
            Ok(_) if planted(Bug::JournalForgotten) => (Ledger::default(), None),
            Ok(bytes) => match replay(&bytes) {
                Ok(ledger) => {
                    fs::set_permissions(&path, Permissions::from_mode(MODE))?; // the next one takes over the mode
                    (ledger, None)
                }
                Err(Damaged { line }) => {
                    let aside = dir.join("journal.damaged");
                    fs::rename(&path, &aside)?;
                    tracing::error!(line, aside = %aside.display(), "the journal is damaged");
                    (Ledger::default(), Some(aside))
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => (Ledger::default(), None),
            Err(e) => return Err(e),
        };
        let journal = Self::rewrite(path, &ledger)?;
        Ok((journal, ledger, damaged))
    }

    /// Reads the ledger of a state directory without touching anything; `None` if there is no journal.
    pub fn peek(dir: &Path) -> io::Result<Option<Ledger>> {
        match fs::read(dir.join("journal")) {
            Ok(bytes) => replay(&bytes)
                .map(Some)
                .map_err(|e| io::Error::other(format!("the journal is damaged in line {}", e.line))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn rewrite(path: PathBuf, ledger: &Ledger) -> io::Result<Self> {
        let mut bytes = encode(&Entry::Whole(Box::new(ledger.clone())))?;
        let end = bytes.len() as u64;
        let size = (end + 1).next_multiple_of(ROOM);
        bytes.resize(size as usize, 0);
        write_whole_as(&path, &bytes, MODE, Durability::Synced)?;
        let file = OpenOptions::new().write(true).open(&path)?;
        Ok(Self { path, file: Arc::new(file), aside: Aside::default(), end, size, whole_size: end })
    }

    /// Whether another process has moved the journal on since this one last did: whoever opens it makes a new file.
    pub fn is_stale(&self) -> io::Result<bool> {
        let mine = self.file.metadata()?;
        let there = fs::metadata(&self.path)?;
        Ok(mine.ino() != there.ino() || mine.dev() != there.dev())
    }

    /// Writes an entry down, then applies it. On an error it has not counted.
    pub fn append(&mut self, ledger: &mut Ledger, entry: Entry) -> io::Result<()> {
        self.write(ledger, entry, |_, file| to_disk(file))
    }

    /// The same, and while the entry is on its way to the disk something else that must be there with it. When that fails
    /// the entry has not counted.
    pub fn append_and(
        &mut self,
        ledger: &mut Ledger,
        entry: Entry,
        meanwhile: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.write(ledger, entry, |aside, file| {
            let file = Arc::clone(file);
            let syncing = aside.start(move || to_disk(&file));
            let done = meanwhile();
            done.and(syncing.wait().flatten())
        })
    }

    fn write(
        &mut self,
        ledger: &mut Ledger,
        entry: Entry,
        sync: impl FnOnce(&mut Aside, &Arc<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut bytes = encode(&entry)?;
        let (line, former_size) = (bytes.len(), self.size);
        let end = self.end + line as u64;
        if end > self.size {
            self.size = end.next_multiple_of(ROOM);
            bytes.resize((self.size - self.end) as usize, 0);
        }
        let written = self.file.write_all_at(&bytes, self.end).map_err(unwritten);
        let written = written.and_then(|()| sync(&mut self.aside, &self.file));
        if let Err(e) = written {
            self.size = former_size;
            // It, or half of it, may stand there, which would become the middle of the file.
            self.file.set_len(self.size)?;
            let erase = line.min((self.size - self.end) as usize);
            self.file.write_all_at(&vec![0; erase], self.end)?;
            return Err(e);
        }
        self.end = end;
        ledger.apply(entry);
        if self.end > REWRITE_AT.max(2 * self.whole_size) {
            match Self::rewrite(self.path.clone(), ledger) {
                Ok(new) => *self = Self { aside: std::mem::take(&mut self.aside), ..new },
                Err(e) => tracing::warn!(error = %e, "the journal could not be rewritten and grows on"),
            }
        }
        Ok(())
    }
}

fn unwritten(e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("the journal could not be written: {e}"))
}

fn to_disk(file: &File) -> io::Result<()> {
    if planted(Bug::JournalUnsynced) { Ok(()) } else { file.sync_data().map_err(unwritten) }
}

/// A line in the middle of a journal that is not an entry.
#[derive(Debug, PartialEq, Eq)]
struct Damaged {
    line: usize,
}

fn encode(entry: &Entry) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(entry).map_err(io::Error::other)?;
    Ok(format!("{} {json}\n", sum(json.as_bytes())).into_bytes())
}

fn sum(bytes: &[u8]) -> String {
    digest::hex(&digest::of_content(bytes)[..8])
}

fn decode(line: &[u8]) -> Option<Entry> {
    let (checksum, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    if sum(json.as_bytes()) != checksum {
        return None;
    }
    serde_json::from_str(json).ok()
}

fn replay(bytes: &[u8]) -> Result<Ledger, Damaged> {
    let mut ledger = Ledger::default();
    if bytes.is_empty() {
        return Ok(ledger);
    }
    let written = &bytes[..bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1)];
    let whole_lines = &written[..written.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1)];
    let mut start = 0;
    for (index, line) in whole_lines.split_inclusive(|&b| b == b'\n').enumerate() {
        let end = start + line.len();
        match decode(&line[..line.len() - 1]) {
            Some(entry) => ledger.apply(entry),
            None if end == written.len() && index > 0 && has_hole(bytes, start, end) => break,
            None => return Err(Damaged { line: index + 1 }),
        }
        start = end;
    }
    if start == 0 { Err(Damaged { line: 1 }) } else { Ok(ledger) }
}

/// Whether the disk has not taken a part of what stands there: all that lies in one of its sectors is still zero, which no
/// line is anywhere.
fn has_hole(bytes: &[u8], start: usize, end: usize) -> bool {
    (start / SECTOR..end.div_ceil(SECTOR)).any(|sector| {
        let within = start.max(sector * SECTOR)..end.min((sector + 1) * SECTOR);
        bytes[within].iter().all(|&b| b == 0)
    })
}

#[cfg(test)]
mod tests {
    use dysvr_proto::id::{Epoch, Revision, RolloutId, TaskId};
    use dysvr_proto::status::Status;

    use super::super::ledger::{Begun, BegunStep, Served};
    use super::super::managed::{ContentDigest, FileName};
    use super::super::report::Report;
    use super::super::undo::{Former, Was};
    use super::*;

    fn begin(n: u64) -> Entry {
        let name = FileName::new(&format!("auto_vhost/{n}.conf")).unwrap();
        Entry::Begin(Begun {
            id: format!("t{n}"),
            step: Some(BegunStep {
                epoch: Epoch(1),
                to: Revision(n),
                digest: ContentDigest::of(&[n as u8]),
                rollout: RolloutId(1),
            }),
            tasks: vec![TaskId(n)],
            reload: None,
            changes: [(name, Some(ContentDigest::of(b"x")))].into(),
            former: None,
            touched: false,
            reverting: None,
        })
    }

    fn end(n: u64, status: Status) -> Entry {
        let report = Report {
            id: format!("t{n}"),
            rollout: RolloutId(1),
            to_revision: Revision(n),
            status,
            reason: String::new(),
            mode: None,
            local_task_id: TaskId(n),
            timings: Default::default(),
        };
        Entry::End { report, served_known: status == Status::Done }
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, mut ledger, _) = Journal::open(dir.path()).unwrap();
        for n in 1..=3 {
            journal.append(&mut ledger, begin(n)).unwrap();
            journal.append(&mut ledger, end(n, Status::Done)).unwrap();
        }
        journal.append(&mut ledger, begin(4)).unwrap();
        assert!(!journal.is_stale().unwrap());
        let (_other, again, damaged) = Journal::open(dir.path()).unwrap();
        assert_eq!((&again, damaged), (&ledger, None));
        assert!(journal.is_stale().unwrap());
        assert_eq!(again.revision, Revision(3));
        assert_eq!(again.files.count(), 3);
        assert_eq!(again.in_flight.unwrap().tasks, [TaskId(4)]);
        assert!(again.answers.iter().any(|a| a.report.id == "t3"));
    }

    #[test]
    fn every_cut_gives_the_ledger_of_some_moment_and_every_flip_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, mut ledger, _) = Journal::open(dir.path()).unwrap();
        let mut moments = vec![ledger.clone()];
        for entry in [begin(1), end(1, Status::Done), begin(2), end(2, Status::Failed)] {
            journal.append(&mut ledger, entry).unwrap();
            moments.push(ledger.clone());
        }
        assert_eq!(ledger.served, Served::Unknown);
        let bytes = fs::read(dir.path().join("journal")).unwrap();
        assert_eq!(bytes.len() as u64, ROOM);
        let written = journal.end as usize;
        let first = bytes.iter().position(|&b| b == b'\n').unwrap() + 1;
        let mut last = 0;
        for end in first..=written {
            let cut = &bytes[..end];
            let at = replay(cut).unwrap();
            assert_eq!(replay(&[cut, &[0; 3 * SECTOR]].concat()).unwrap(), at);
            let moment = moments.iter().position(|m| *m == at).unwrap();
            assert!(moment >= last, "cut at {end}");
            last = moment;
        }
        assert_eq!(last, moments.len() - 1);
        for bit in 0..(written + SECTOR) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(ledger) = replay(&flipped) else { continue };
            // A flip of the last line's end cuts that line off; none behind it is a line.
            assert!(moments.contains(&ledger) && bit / 8 >= written - 1, "bit {bit}");
            assert!(bit / 8 == written - 1 || ledger == moments[4], "bit {bit}");
        }
        assert!(replay(&[0; SECTOR]).is_err(), "nothing but room");
    }

    #[test]
    fn an_entry_of_which_the_disk_took_some_sectors_has_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, mut ledger, _) = Journal::open(dir.path()).unwrap();
        journal.append(&mut ledger, begin(1)).unwrap();
        let (before, start) = (ledger.clone(), journal.end as usize);
        let Entry::Begin(begun) = begin(2) else { unreachable!() };
        let was = Was { mode: 0o644, content: "server {}\n".repeat(300).into_bytes() };
        let former = vec![Former { name: FileName::new("a.conf").unwrap(), was: Some(was) }];
        journal.append(&mut ledger, Entry::Begin(Begun { former: Some(former), ..begun })).unwrap();
        let bytes = fs::read(dir.path().join("journal")).unwrap();
        let sectors: Vec<usize> = (start / SECTOR..(journal.end as usize).div_ceil(SECTOR)).collect();
        assert!(sectors.len() >= 7);
        for taken in 0..1 << sectors.len() {
            let mut torn = bytes.clone();
            for (_, sector) in sectors.iter().enumerate().filter(|(i, _)| taken & 1 << i == 0) {
                torn[start.max(sector * SECTOR)..(sector + 1) * SECTOR].fill(0);
            }
            let whole = taken == (1 << sectors.len()) - 1;
            assert_eq!(replay(&torn).unwrap(), if whole { ledger.clone() } else { before.clone() }, "{taken:b}");
        }
    }

    #[test]
    fn room_is_made_when_there_is_none_and_an_entry_that_failed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, mut ledger, _) = Journal::open(dir.path()).unwrap();
        let path = dir.path().join("journal");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        for n in 0..300 {
            journal.append(&mut ledger, begin(n)).unwrap();
            let size = fs::metadata(&path).unwrap().len();
            assert!(size == journal.size && size.is_multiple_of(ROOM) && size - journal.end < ROOM, "{size}");
        }
        assert!(journal.size > ROOM);
        assert_eq!(Journal::peek(dir.path()).unwrap().unwrap(), ledger);
        journal.file = File::open(&path).unwrap().into(); // nothing can be written to it
        assert!(journal.append(&mut ledger, begin(300)).is_err());
        assert_eq!(Journal::peek(dir.path()).unwrap().unwrap(), ledger);
        Journal::open(dir.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
    }

    #[test]
    fn a_damaged_journal_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("journal"), "nonsense\nmore\n").unwrap();
        assert!(Journal::peek(dir.path()).is_err());
        let (_, ledger, aside) = Journal::open(dir.path()).unwrap();
        assert_eq!(ledger, Ledger::default());
        assert_eq!(fs::read_to_string(aside.unwrap()).unwrap(), "nonsense\nmore\n");
        assert_eq!(Journal::peek(dir.path()).unwrap(), Some(Ledger::default()));
    }

    #[test]
    fn a_long_history_does_not_grow_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        let mut journal = Journal::rewrite(dir.path().join("journal"), &ledger).unwrap();
        journal.end = REWRITE_AT; // as if much had been written
        journal.append(&mut ledger, begin(1)).unwrap();
        assert_eq!(fs::read(dir.path().join("journal")).unwrap().len() as u64, journal.size);
        assert!(journal.end < REWRITE_AT);
        assert_eq!(Journal::peek(dir.path()).unwrap(), Some(ledger));
    }
}
