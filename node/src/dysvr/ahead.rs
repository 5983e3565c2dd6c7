//! The files of a large configuration, or of a large task, read by a second thread while the first one makes sense of those before them: at a
//! start a hundred thousand small files take longer to open than to parse, which is why the first one helps when it has
//! nothing else to do.
//!
//! The thread ends with the [`ReadAhead`], so that nobody forks beside it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use dysvr_conf::source::Source;

use super::source::Machine;
use crate::os::beside::{SecondThread, both};

/// Fewer files than this are not worth a thread.
const MANY: usize = 512;
/// Files that are handed over at once: a hand-over wakes a thread.
const BATCH: usize = 128;
/// Batches that wait, at most.
const WAITING: usize = 4;

/// The machine, with the files of the last large pattern or list read ahead. Files that are asked for in another order than
/// its are read when they are asked for.
#[derive(Debug, Default)]
pub struct ReadAhead {
    machine: Machine,
    reader: Option<Reader>,
}

impl Source for ReadAhead {
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        match self.reader.as_mut().and_then(|reader| reader.take(path)) {
            Some(content) => content,
            None => self.machine.read(path),
        }
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let paths = self.machine.glob(pattern)?;
        if paths.len() >= MANY {
            self.reader = Reader::start(paths.as_slice().into());
        }
        Ok(paths)
    }

    fn expect(&mut self, paths: &Arc<[PathBuf]>) {
        if paths.len() >= MANY {
            self.reader = Reader::start(Arc::clone(paths));
        }
    }

    fn beside(&mut self, theirs: &mut (dyn FnMut() + Send), ours: &mut dyn FnMut()) {
        both("dysvr-load", theirs, ours);
    }

    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.machine.resolve(host)
    }
}

/// Some files' content, in one piece of memory: what a thread allocates and another one frees is dear in small pieces.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each file ends, or why it could not be read.
    ends: Vec<io::Result<usize>>,
}

/// The files in their order, cut into batches, each of which is read by whoever comes first: the thread, or the one that
/// needs the files and finds the thread behind.
#[derive(Debug)]
struct Plan {
    paths: Arc<[PathBuf]>,
    /// The first batch that nobody has begun.
    next: AtomicUsize,
}

impl Plan {
    /// Reads the next batch that nobody has begun; `None` when there is none. Gives its number, too.
    fn read_next(&self) -> Option<(usize, Batch)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let paths = self.paths.chunks(BATCH).nth(number)?;
        let mut batch = Batch::default();
        for path in paths {
            let end = Machine::append(path, &mut batch.bytes);
            batch.ends.push(end);
        }
        Some((number, batch))
    }
}

/// The thread, and what was read so far.
#[derive(Debug)]
struct Reader {
    plan: Arc<Plan>,
    /// How many files were taken.
    taken: usize,
    /// The batch that they are taken from.
    batch: Batch,
    /// Where its next file begins, and that one's index in it.
    next: (usize, usize),
    /// Later batches that were read already.
    later: BTreeMap<usize, Batch>,
    /// Dropped before the thread, which ends when nobody takes its batches any more.
    batches: Receiver<(usize, Batch)>,
    _thread: SecondThread<()>,
}

impl Reader {
    /// Begins to read. Without a thread (the machine has no room for one) nothing is read ahead.
    fn start(paths: Arc<[PathBuf]>) -> Option<Self> {
        let plan = Arc::new(Plan { paths, next: AtomicUsize::new(0) });
        let (sender, batches) = sync_channel(WAITING);
        let for_thread = Arc::clone(&plan);
        let read = move || while for_thread.read_next().is_some_and(|batch| sender.send(batch).is_ok()) {};
        let thread = SecondThread::start("dysvr-read", read);
        Some(Self {
            plan,
            taken: 0,
            batch: Batch::default(),
            next: (0, 0),
            later: BTreeMap::new(),
            batches,
            _thread: thread.ok()?,
        })
    }

    /// The content of `path`, if it is the next one.
    fn take(&mut self, path: &Path) -> Option<io::Result<Arc<[u8]>>> {
        // By component would cost several times as much.
        self.plan.paths.get(self.taken).filter(|next| next.as_os_str() == path.as_os_str())?;
        if self.next.1 == self.batch.ends.len() {
            self.batch = self.batch_of(self.taken / BATCH)?;
            self.next = (0, 0);
        }
        self.taken += 1;
        let (start, index) = self.next;
        let end = match self.batch.ends.get_mut(index)? {
            Ok(end) => Ok(*end),
            Err(error) => Err(std::mem::replace(error, io::ErrorKind::Other.into())),
        };
        self.next = (*end.as_ref().unwrap_or(&start), index + 1);
        Some(end.map(|end| self.batch.bytes[start..end].into()))
    }

    /// A batch by its number. While it is not there, others are read: to wait would leave a processor idle.
    fn batch_of(&mut self, number: usize) -> Option<Batch> {
        loop {
            self.later.extend(self.batches.try_iter());
            if let Some(batch) = self.later.remove(&number) {
                return Some(batch);
            }
            let (read, batch) = match self.plan.read_next() {
                Some(read) => read,
                // All are begun: the thread has it in its hands.
                None => self.batches.recv().ok()?,
            };
            self.later.insert(read, batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(count: usize, content: impl Fn(usize) -> String) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..count {
            std::fs::write(folder.path().join(format!("{number:05}.conf")), content(number)).unwrap();
        }
        folder
    }

    #[test]
    fn files_are_what_they_are_in_whatever_order() {
        let content = |number: usize| "x".repeat(number % 7 * (number % 3) * 1000) + &number.to_string();
        let folder = folder(2 * MANY, content);
        std::fs::create_dir(folder.path().join("00100a.conf")).unwrap();
        let mut ahead = ReadAhead::default();
        let paths = ahead.glob(&folder.path().join("*.conf")).unwrap();
        assert!(ahead.reader.is_some());
        for (index, path) in paths.iter().enumerate() {
            match ahead.read(path) {
                Ok(bytes) => {
                    let number: usize = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
                    assert_eq!(&*bytes, content(number).as_bytes(), "{number}");
                }
                Err(error) => {
                    assert_eq!((index, error.raw_os_error()), (101, Some(libc::EISDIR)));
                }
            }
            // A file in between, as a vhost's file includes another one.
            if index % 10 == 0 {
                assert_eq!(&*ahead.read(&paths[0]).unwrap(), content(0).as_bytes());
            }
        }
    }

    #[test]
    fn an_end_before_all_is_read_ends_the_thread() {
        let folder = folder(8 * MANY, |_| "x".repeat(1000));
        let mut ahead = ReadAhead::default();
        let paths = ahead.glob(&folder.path().join("*.conf")).unwrap();
        ahead.read(&paths[0]).unwrap();
        let plan = Arc::downgrade(&ahead.reader.as_ref().unwrap().plan);
        drop(ahead);
        // The thread had its own hold on them.
        assert_eq!(plan.strong_count(), 0);
    }
}
