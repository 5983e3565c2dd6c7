//! The configuration's files as they will be once an order is carried out: the order's contents over the disk.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dysvr_conf::glob;
use dysvr_conf::source::Source;

use super::ledger::FileChanges;
use super::managed::FileName;
use super::order::Order;
use crate::dysvr::source::Machine;

/// The disk, or the disk with an order's changes.
#[derive(Debug)]
pub struct Overlay<'o> {
    inner: Disk,
    conf_dir: PathBuf,
    order: Option<(&'o Order, &'o FileChanges)>,
}

impl<'o> Overlay<'o> {
    /// The files as they are.
    pub fn disk() -> Self {
        Self { inner: Disk { globs: true }, conf_dir: PathBuf::new(), order: None }
    }

    /// The files that are included by name alone: the settings of a configuration without its vhosts.
    pub fn without_patterns() -> Self {
        Self { inner: Disk { globs: false }, ..Self::disk() }
    }

    /// The files as an order leaves them.
    pub fn after(conf_dir: &Path, order: &'o Order, changes: &'o FileChanges) -> Self {
        Self { conf_dir: conf_dir.to_owned(), order: Some((order, changes)), ..Self::disk() }
    }

    /// What the order makes of a file; `None` if it leaves it alone.
    fn changed(&self, path: &Path) -> Option<Option<&'o [u8]>> {
        let (order, changes) = self.order?;
        let name = FileName::of_path(&self.conf_dir, path)?;
        let change = changes.get(&name)?;
        Some(change.and_then(|_| order.write.get(&name)).map(Vec::as_slice))
    }
}

impl Source for Overlay<'_> {
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        match self.changed(path) {
            Some(Some(content)) => Ok(content.into()),
            Some(None) => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            None => self.inner.read(path),
        }
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = self.inner.glob(pattern)?;
        if let Some((_, changes)) = self.order {
            found.retain(|path| !matches!(self.changed(path), Some(None)));
            let new = changes.iter().filter(|(_, digest)| digest.is_some()).map(|(name, _)| name.path(&self.conf_dir));
            found.extend(new.filter(|path| glob::matches(pattern, path)));
            found.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
            found.dedup();
        }
        Ok(found)
    }

    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.inner.resolve(host)
    }
}

#[derive(Debug)]
struct Disk {
    globs: bool,
}

impl Source for Disk {
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        Machine.read(path)
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        if self.globs { Machine.glob(pattern) } else { Ok(Vec::new()) }
    }

    /// The agent asks for files alone: names of upstreams are the proxy's business.
    fn resolve(&mut self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
}
