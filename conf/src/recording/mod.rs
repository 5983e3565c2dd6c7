//! What a load has read, so that it can be read again elsewhere: the master loads from disk while recording, workers
//! replay the record and so see the same bytes, whatever happens to the files meanwhile.

mod codec;

use std::borrow::Borrow;
use std::ffi::OsString;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, Hasher};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::source::Source;

pub use codec::InvalidSources;

/// An answer of a source: a value, or the error number of the operating system (0 if it had none).
type Answer<T> = Result<T, i32>;

/// All that was asked of a source and its answers.
#[derive(Clone, Default)]
pub struct Sources {
    files: Table<OsString, Arc<[u8]>>,
    /// Certificates and keys: they travel like any file, and are shown nowhere.
    secrets: Table<OsString, Arc<[u8]>>,
    globs: Table<PathBuf, Vec<PathBuf>>,
    hosts: Table<String, Vec<IpAddr>>,
}

/// Answers in the order in which they were first asked for.
#[derive(Clone, Debug)]
struct Table<K, V> {
    answers: Vec<(K, Answer<V>)>,
    /// Where each stands, by the hash of its key.
    index: HashTable<usize>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { answers: Vec::new(), index: HashTable::new() }
    }
}

impl<K: Eq + Hash, V: Clone> Table<K, V> {
    fn find<Q>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let is_it = |at: &usize| self.answers[*at].0.borrow() == key;
        self.index.find(FxBuildHasher.hash_one(key), is_it).copied()
    }

    fn get<Q>(&self, key: &Q) -> Option<io::Result<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let (_, answer) = &self.answers[self.find(key)?];
        Some(answer.clone().map_err(|code| match code {
            0 => io::Error::from(io::ErrorKind::NotFound),
            code => io::Error::from_raw_os_error(code),
        }))
    }

    fn reserve(&mut self, more: usize) {
        self.answers.reserve(more);
        let answers = &self.answers;
        self.index.reserve(more, |at| FxBuildHasher.hash_one(&answers[*at].0));
    }

    /// Adds what is not there.
    fn insert(&mut self, key: K, answer: Answer<V>) {
        let hash = FxBuildHasher.hash_one(&key);
        self.answers.push((key, answer));
        let answers = &self.answers;
        self.index.insert_unique(hash, answers.len() - 1, |at| FxBuildHasher.hash_one(&answers[*at].0));
    }

    /// The recorded answer, or the source's, recorded.
    fn ask<Q>(&mut self, key: &Q, ask: impl FnOnce() -> io::Result<V>) -> io::Result<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(known) = self.get(key) {
            return known;
        }
        let answer = ask();
        let kept = match &answer {
            Ok(value) => Ok(value.clone()),
            Err(error) => Err(error.raw_os_error().unwrap_or(0)),
        };
        self.insert(key.to_owned(), kept);
        answer
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.answers == other.answers
    }
}

impl fmt::Debug for Sources {
    /// Names alone: contents may be keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files().map(|(path, _)| path)).finish_non_exhaustive()
    }
}

impl PartialEq for Sources {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
            && self.secrets == other.secrets
            && self.globs == other.globs
            && self.hosts == other.hosts
    }
}

/// By all that was asked and answered.
impl Hash for Sources {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.files.answers.hash(state);
        self.secrets.answers.hash(state);
        self.globs.answers.hash(state);
        self.hosts.answers.hash(state);
    }
}

impl Sources {
    /// The files that could be read, each once, in the order in which they were first read: what `-T` prints.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.files.answers.iter().filter_map(|(path, answer)| Some((Path::new(path), &**answer.as_ref().ok()?)))
    }

    /// A source that gives the recorded answers and knows nothing else.
    pub fn replay(&self) -> Replay<'_> {
        Replay(self)
    }
}

/// A [`Source`] that writes down what another one answers. Asked twice, it gives the first answer.
#[derive(Debug)]
pub struct Recording<S> {
    source: S,
    sources: Sources,
}

impl<S: Source> Recording<S> {
    /// Records what is asked of `source`.
    pub fn new(source: S) -> Self {
        Self { source, sources: Sources::default() }
    }

    /// See [`Sources::files`].
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.sources.files()
    }

    /// The record so far.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The record.
    pub fn into_sources(self) -> Sources {
        self.sources
    }
}

impl<S: Source> Source for Recording<S> {
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        self.sources.files.ask(path.as_os_str(), || self.source.read(path))
    }

    fn secret(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        self.sources.secrets.ask(path.as_os_str(), || self.source.secret(path))
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        self.sources.globs.ask(pattern, || self.source.glob(pattern))
    }

    fn expect(&mut self, paths: &Arc<[PathBuf]>) {
        self.sources.files.reserve(paths.len());
        self.source.expect(paths);
    }

    fn beside(&mut self, theirs: &mut (dyn FnMut() + Send), ours: &mut dyn FnMut()) {
        self.source.beside(theirs, ours);
    }

    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.sources.hosts.ask(host, || self.source.resolve(host))
    }
}

/// See [`Sources::replay`].
#[derive(Clone, Copy, Debug)]
pub struct Replay<'s>(&'s Sources);

fn unrecorded<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::NotFound, "it is not in the record"))
}

impl Source for Replay<'_> {
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        self.0.files.get(path.as_os_str()).unwrap_or_else(unrecorded)
    }

    fn secret(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        self.0.secrets.get(path.as_os_str()).unwrap_or_else(unrecorded)
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.globs.get(pattern).unwrap_or_else(unrecorded)
    }

    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.0.hosts.get(host).unwrap_or_else(unrecorded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Memory;

    fn recorded() -> Sources {
        let mut memory = Memory::default();
        memory.insert("/c/nginx.conf", "a;");
        memory.insert("/c/v/b.conf", b"\xff\0");
        memory.hosts.insert("h".into(), vec!["::1".parse().unwrap(), "1.2.3.4".parse().unwrap()]);
        let mut recording = Recording::new(memory);
        recording.glob("/c/v/*.conf".as_ref()).unwrap();
        recording.read("/c/v/b.conf".as_ref()).unwrap();
        recording.read("/c/nginx.conf".as_ref()).unwrap();
        recording.read("/c/v/b.conf".as_ref()).unwrap();
        recording.read("/c/none".as_ref()).unwrap_err();
        recording.secret("/c/v/b.conf".as_ref()).unwrap();
        recording.resolve("h").unwrap();
        recording.resolve("nope").unwrap_err();
        recording.into_sources()
    }

    #[test]
    fn a_record_replays() {
        let sources = recorded();
        assert_eq!(
            sources.files().collect::<Vec<_>>(),
            [("/c/v/b.conf".as_ref(), &b"\xff\0"[..]), ("/c/nginx.conf".as_ref(), &b"a;"[..])]
        );
        let mut replay = sources.replay();
        assert_eq!(&*replay.read("/c/nginx.conf".as_ref()).unwrap(), b"a;");
        assert_eq!(replay.glob("/c/v/*.conf".as_ref()).unwrap(), [PathBuf::from("/c/v/b.conf")]);
        assert_eq!(replay.resolve("h").unwrap().len(), 2);
        assert_eq!(replay.read("/c/none".as_ref()).unwrap_err().raw_os_error(), Some(2));
        assert_eq!(&*replay.secret("/c/v/b.conf".as_ref()).unwrap(), b"\xff\0");
        assert!(replay.read("/c/other".as_ref()).is_err() && replay.resolve("nope").is_err());
    }

    #[test]
    fn a_record_travels() {
        let sources = recorded();
        let bytes = sources.encode();
        assert_eq!(Sources::decode(&bytes).unwrap(), sources);
        for end in 0..bytes.len() {
            assert!(Sources::decode(&bytes[..end]).is_err(), "{end}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Sources::decode(&longer).is_err());
        // Any damage is refused or read as something, never more.
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let _ = Sources::decode(&damaged);
            }
        }
    }
}
