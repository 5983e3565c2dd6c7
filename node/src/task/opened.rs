//! The task file as the master holds it from the signal to the verdict: the very file that was read stays open, and what
//! becomes of a task is written into it.
//!
//! A status is one letter, and one letter is changed by a write of one byte: no reader sees half of it, and whoever has
//! renamed a newer file over the path meanwhile is not touched, since the byte goes into the file that was read. Only
//! what makes a line longer than it was (a reason, the times behind a line that is not the last) takes a whole new file;
//! that one replaces the file that was read and no other.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dysvr_proto::status::Status;

use super::file::{Replaced, open_task_file, replace};
use super::{Mode, TaskFile, TaskFileError, TaskLine, word};

/// Within one page the size of a file grows after its bytes are there, so a reader sees all of an appended piece or none.
const PAGE: usize = 4096;

/// Why what became of a task could not be written.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// Another file stands at the path: whoever put it there knows better, and it is left as it is.
    #[error("it was replaced meanwhile")]
    Superseded,
    /// The system's error.
    #[error("{}", crate::os::errno(.0))]
    Failed(#[from] io::Error),
}

/// A task file that was read, not yet understood.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    file: File,
    /// Whether `file` is open for writing; else each status takes a whole new file.
    writable: bool,
    bytes: Vec<u8>,
}

impl Held {
    /// Reads the file at `path`; refuses what [`super::file::read_task_file`] refuses.
    pub fn read(path: &Path) -> io::Result<Self> {
        let (file, writable, bytes) = open_task_file(path)?;
        Ok(Self { path: path.to_owned(), file, writable, bytes })
    }

    /// Answers a file that is not understood.
    pub fn refuse(&mut self, error: &str) -> Result<(), NotWritten> {
        self.replace(refusal(&self.bytes, error))
    }

    fn replace(&mut self, bytes: Vec<u8>) -> Result<(), NotWritten> {
        match replace(&self.path, &self.file, &bytes)? {
            Replaced::Done(file) => {
                (self.file, self.writable, self.bytes) = (file, true, bytes);
                Ok(())
            }
            Replaced::Superseded => Err(NotWritten::Superseded),
        }
    }

    /// Writes within the file, or at its very end.
    fn patch(&mut self, at: usize, piece: &[u8]) -> io::Result<()> {
        self.file.write_all_at(piece, at as u64)?;
        self.bytes.resize(self.bytes.len().max(at + piece.len()), 0);
        self.bytes[at..at + piece.len()].copy_from_slice(piece);
        Ok(())
    }
}

/// One task of the file.
#[derive(Debug)]
struct Line {
    task: TaskLine,
    /// Where it stands, without the line's end.
    at: Range<usize>,
    /// `task` says more than stands there.
    pending: bool,
    /// Where its status letter stands in it, once that was looked for.
    letter: Cell<Option<usize>>,
}

/// A task file that was read and understood.
#[derive(Debug)]
pub struct OpenTaskFile {
    held: Held,
    lines: Vec<Line>,
}

impl OpenTaskFile {
    /// Reads the lines; gives the file back with the error when it is not a task file.
    pub fn parse(held: Held) -> Result<Self, (TaskFileError, Held)> {
        match TaskFile::parse_placed(&held.bytes) {
            Ok(tasks) => {
                let lines = tasks
                    .into_iter()
                    .map(|(task, at)| Line { task, at, pending: false, letter: Cell::default() })
                    .collect();
                Ok(Self { held, lines })
            }
            Err(error) => Err((error, held)),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.held.path
    }

    /// Whether it still is what stands at its path.
    pub fn is_current(&self) -> bool {
        crate::os::is_same(&self.held.path, &self.held.file).unwrap_or(false)
    }

    /// Whether it has no name any more: another file was renamed over it, or it was removed.
    pub fn is_gone(&self) -> bool {
        self.held.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// A task.
    pub fn task(&self, index: usize) -> &TaskLine {
        &self.lines[index].task
    }

    /// The same when nothing is left to be written.
    pub fn into_task(mut self, index: usize) -> TaskLine {
        self.lines.swap_remove(index).task
    }

    /// A task's line as it was read.
    pub fn text(&self, index: usize) -> &str {
        str::from_utf8(&self.held.bytes[self.lines[index].at.clone()]).unwrap_or_default()
    }

    /// All tasks.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskLine> {
        self.lines.iter().map(|line| &line.task)
    }

    /// The first task from `from` on that waits to be done in place.
    pub fn next_from(&self, from: usize) -> Option<usize> {
        let waits = |line: &Line| line.task.status == Status::Init && line.task.mode != Some(Mode::Reload);
        (from..self.lines.len()).find(|&index| waits(&self.lines[index]))
    }

    /// Writes that a task has come to `status`, any but `F`.
    pub fn mark(&mut self, index: usize, status: Status) -> Result<(), NotWritten> {
        self.lines[index].task.set_status(status);
        match self.letter(index) {
            Some(at) => Ok(self.held.patch(at, &[status.letter() as u8])?),
            None => {
                self.lines[index].pending = true;
                self.write_whole()
            }
        }
    }

    /// Writes the verdict of a task: its line as it is at the end. The times of one that is done may wait in memory until
    /// the last task of the file has its verdict, since a whole file for each of `n` lines would be `n²` bytes.
    pub fn conclude(&mut self, index: usize, verdict: impl FnOnce(&mut TaskLine)) -> Result<(), NotWritten> {
        let task = &mut self.lines[index].task;
        // No word may stand there twice.
        let bare = task.mode.is_none() && task.master_us.is_none() && task.workers.is_empty();
        verdict(task);
        let letter = if task.status == Status::Done { self.letter(index) } else { None };
        let tail = letter.filter(|_| bare).and_then(|_| self.tail(index));
        let more = self.next_from(index + 1).is_some();
        let line = &mut self.lines[index];
        match (letter, tail) {
            (Some(letter), Some((end, tail))) => {
                self.held.patch(end, tail.as_bytes())?;
                line.at.end = end + tail.len() - 1;
                Ok(self.held.patch(letter, b"D")?)
            }
            (Some(letter), None) if more => {
                line.pending = true;
                Ok(self.held.patch(letter, b"D")?)
            }
            _ => {
                line.pending = true;
                self.write_whole()
            }
        }
    }

    /// Gives several tasks their verdict at once.
    pub fn conclude_all(&mut self, mut verdict: impl FnMut(&mut TaskLine) -> bool) -> Result<(), NotWritten> {
        for line in &mut self.lines {
            line.pending |= verdict(&mut line.task);
        }
        self.settle()
    }

    /// Writes what waits in memory.
    pub fn settle(&mut self) -> Result<(), NotWritten> {
        if self.lines.iter().any(|line| line.pending) { self.write_whole() } else { Ok(()) }
    }

    /// Where the status letter of a line stands, if it can be changed in place.
    fn letter(&self, index: usize) -> Option<usize> {
        let line = &self.lines[index];
        if !self.held.writable || line.pending {
            return None;
        }
        let known = line.letter.get().or_else(|| letter(std::str::from_utf8(&self.held.bytes[line.at.clone()]).ok()?));
        line.letter.set(known);
        Some(line.at.start + known?)
    }

    /// What has to be appended to the file so that its last line, which has no answer yet, says what its task says; and where.
    fn tail(&self, index: usize) -> Option<(usize, String)> {
        let Line { task, at, .. } = self.lines.get(index).filter(|_| index + 1 == self.lines.len())?;
        // Nothing follows but the line's own end.
        let ends = matches!(&self.held.bytes[at.end..], [] | [b'\n']);
        if !ends || self.lines.iter().any(|line| line.pending) {
            return None;
        }
        let mut tail = String::new();
        word::push(&mut tail, "mode", task.mode?.name());
        word::push(&mut tail, "master_us", &task.master_us?.to_string());
        if !task.workers.is_empty() {
            let times: Vec<String> = task.workers.iter().map(ToString::to_string).collect();
            word::push(&mut tail, "workers", &times.join(","));
        }
        let tail = format!(" {tail}\n");
        (at.end % PAGE + tail.len() <= PAGE).then_some((at.end, tail))
    }

    /// Writes a new file with every line as its task is, and all between them as it was.
    fn write_whole(&mut self) -> Result<(), NotWritten> {
        let old = &self.held.bytes;
        let mut bytes = Vec::with_capacity(old.len() + 256);
        let mut done = 0;
        let mut places = Vec::with_capacity(self.lines.len());
        for line in &self.lines {
            bytes.extend_from_slice(&old[done..line.at.start]);
            let start = bytes.len();
            if line.pending {
                bytes.extend_from_slice(line.task.to_string().as_bytes());
            } else {
                bytes.extend_from_slice(&old[line.at.clone()]);
            }
            places.push(start..bytes.len());
            done = line.at.end;
        }
        bytes.extend_from_slice(&old[done..]);
        if !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        self.held.replace(bytes)?;
        for (line, at) in self.lines.iter_mut().zip(places) {
            (line.at, line.pending) = (at, false);
            line.letter.take();
        }
        Ok(())
    }
}

/// The answer to a file that is not understood: its own lines stay, as comments, under a line that says why, so that
/// whoever wrote it sees the verdict and nothing is lost.
pub fn refusal(bytes: &[u8], error: &str) -> Vec<u8> {
    let mut text = format!("# status=F reason={error:?}\n");
    for line in String::from_utf8_lossy(bytes).lines() {
        text.push_str("# ");
        text.push_str(line);
        text.push('\n');
    }
    text.into_bytes()
}

/// Where the letter of `status=X` stands in a line that was read.
fn letter(text: &str) -> Option<usize> {
    let mut rest = text;
    while let Ok(Some(word)) = word::next(&mut rest) {
        if word.key == "status" {
            let end = text.len() - rest.len();
            return text[..end].strip_suffix(&word.value)?.ends_with("status=").then_some(end - 1);
        }
    }
    None
}

#[cfg(test)]
mod tests;
