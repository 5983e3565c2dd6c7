//! The ledger on disk: a file of entries, one per line, each with a checksum and each on the disk before it counts.
//!
//! The first line is the whole ledger; when the file has grown it is replaced by a new one. A line that was cut off at
//! the end of the file never counted. Damage anywhere else is an error: the file is set aside, and the node begins as
//! one that knows nothing (its files are then reported as drift, never overwritten).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dysvr_proto::digest;
use dysvr_proto::planted::{Bug, planted};

use super::ledger::{Entry, Ledger};
use crate::task::file::{Durability, write_whole};

/// Rewritten when it has grown to this and to twice its first line: a megabyte is read in milliseconds.
const REWRITE_AT: u64 = 1 << 20;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
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
                Ok(ledger) => (ledger, None),
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
        let line = encode(&Entry::Whole(Box::new(ledger.clone())))?;
        write_whole(&path, &line, Durability::Synced)?;
        let file = OpenOptions::new().append(true).open(&path)?;
        let size = line.len() as u64;
        Ok(Self { path, file, size, whole_size: size })
    }

    /// Whether another process has moved the journal on since this one last did.
    pub fn is_stale(&self) -> io::Result<bool> {
        let mine = self.file.metadata()?;
        let there = fs::metadata(&self.path)?;
        Ok(mine.ino() != there.ino() || mine.dev() != there.dev() || there.len() != self.size)
    }

    /// Writes an entry down, then applies it. On an error it has not counted.
    pub fn append(&mut self, ledger: &mut Ledger, entry: Entry) -> io::Result<()> {
        let line = encode(&entry)?;
        let synced = |()| if planted(Bug::JournalUnsynced) { Ok(()) } else { self.file.sync_data() };
        let written = (&self.file).write_all(&line).and_then(synced);
        if let Err(e) = written {
            // Half a line may stand there: it must not become the middle of the file.
            self.file.set_len(self.size)?;
            return Err(e);
        }
        self.size += line.len() as u64;
        ledger.apply(entry);
        if self.size > REWRITE_AT.max(2 * self.whole_size) {
            match Self::rewrite(self.path.clone(), ledger) {
                Ok(new) => *self = new,
                Err(e) => tracing::warn!(error = %e, "the journal could not be rewritten and grows on"),
            }
        }
        Ok(())
    }
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
    let whole_lines = bytes.iter().rposition(|&b| b == b'\n').map_or(&bytes[..0], |end| &bytes[..end]);
    if whole_lines.is_empty() {
        return if bytes.is_empty() { Ok(ledger) } else { Err(Damaged { line: 1 }) };
    }
    for (index, line) in whole_lines.split(|&b| b == b'\n').enumerate() {
        ledger.apply(decode(line).ok_or(Damaged { line: index + 1 })?);
    }
    Ok(ledger)
}

#[cfg(test)]
mod tests {
    use dysvr_proto::id::{Epoch, Revision, RolloutId, TaskId};
    use dysvr_proto::status::Status;

    use super::super::ledger::{Begun, BegunStep, Served};
    use super::super::managed::{ContentDigest, FileName};
    use super::super::report::Report;
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
        assert_eq!(again.files.0.len(), 3);
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
        let first = bytes.iter().position(|&b| b == b'\n').unwrap() + 1;
        let mut last = 0;
        for end in first..=bytes.len() {
            let at = replay(&bytes[..end]).unwrap();
            let moment = moments.iter().position(|m| *m == at).unwrap();
            assert!(moment >= last, "cut at {end}");
            last = moment;
        }
        assert_eq!(last, moments.len() - 1);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(ledger) = replay(&flipped) else { continue };
            // A flip of the last line's end cuts that line off.
            assert!(moments.contains(&ledger) && bit / 8 == bytes.len() - 1, "bit {bit}");
        }
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
        journal.size = REWRITE_AT; // as if much had been written
        journal.append(&mut ledger, begin(1)).unwrap();
        assert_eq!(fs::read(dir.path().join("journal")).unwrap().len() as u64, journal.size);
        assert!(journal.size < REWRITE_AT);
        assert_eq!(Journal::peek(dir.path()).unwrap(), Some(ledger));
    }
}
