//! Where the text of a configuration comes from.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::glob;
pub use crate::recording::{InvalidSources, Recording, Replay, Sources};

/// What a configuration may ask of the outside while it is read. Paths are absolute.
pub trait Source {
    /// The whole content of a file.
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>>;

    /// The whole content of a file that must not be shown: a certificate, a private key.
    fn secret(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        self.read(path)
    }

    /// The files that match a pattern with `*`, `?` or `[…]`, sorted by name as glob(3) does; none is not an error.
    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>>;

    /// These files will be asked for next, in this order: they may be read ahead.
    fn expect(&mut self, _paths: &Arc<[PathBuf]>) {}

    /// Calls both, `theirs` on a second thread for that time if there can be one, else not at all. Whoever knows the
    /// processors may see to it that the thread has one.
    fn beside(&mut self, theirs: &mut (dyn FnMut() + Send), ours: &mut dyn FnMut()) {
        std::thread::scope(|scope| {
            // Its end is waited for by the scope.
            let _ = std::thread::Builder::new().spawn_scoped(scope, theirs);
            ours();
        });
    }

    /// The addresses of a host name that stands in an `upstream` or a `proxy_pass`, in a stable order.
    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>>;
}

impl<S: Source + ?Sized> Source for &mut S {
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        (**self).read(path)
    }

    fn secret(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        (**self).secret(path)
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        (**self).glob(pattern)
    }

    fn expect(&mut self, paths: &Arc<[PathBuf]>) {
        (**self).expect(paths);
    }

    fn beside(&mut self, theirs: &mut (dyn FnMut() + Send), ours: &mut dyn FnMut()) {
        (**self).beside(theirs, ours);
    }

    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        (**self).resolve(host)
    }
}

/// Files that are in memory: a bundle that is validated, a test.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// By absolute path.
    pub files: BTreeMap<PathBuf, Arc<[u8]>>,
    /// What names resolve to.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
}

impl Memory {
    /// Adds or replaces a file.
    pub fn insert(&mut self, path: impl Into<PathBuf>, content: impl AsRef<[u8]>) {
        self.files.insert(path.into(), content.as_ref().into());
    }
}

/// `ENOENT`, as the operating system says it.
pub(crate) const NOT_FOUND: i32 = 2;

impl Source for Memory {
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        self.files.get(path).cloned().ok_or_else(|| io::Error::from_raw_os_error(NOT_FOUND))
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found: Vec<_> = self.files.keys().filter(|path| glob::matches(pattern, path)).cloned().collect();
        // glob(3) compares whole names as bytes, paths compare by component.
        found.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
        Ok(found)
    }

    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.hosts.get(host).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// Knows nothing: for a load that has all it needs. Whoever asks all the same finds out.
pub(crate) struct Nowhere;

impl Source for Nowhere {
    fn read(&mut self, _: &Path) -> io::Result<Arc<[u8]>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn glob(&mut self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn resolve(&mut self, _: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
