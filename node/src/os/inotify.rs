//! Changes of directories, read as they happen.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for hundreds of events; what does not fit is read next time.
const BUFFER: usize = 16 << 10;

/// Watched directories.
#[derive(Debug)]
pub struct Directories {
    /// Never given out mutably: its descriptor stays the one that is registered.
    inotify: AsyncFd<Inotify>,
}

/// One change.
#[derive(Clone, Debug)]
pub struct Change {
    /// The watch that saw it.
    pub watch: WatchDescriptor,
    /// What happened.
    pub mask: EventMask,
    /// The name of the file, unless it is about the directory itself.
    pub name: Option<OsString>,
}

impl Directories {
    /// Watches nothing yet. Needs a tokio runtime.
    pub fn new() -> io::Result<Self> {
        // SAFETY: Inotify owns its descriptor and always answers with it; nothing replaces it within the AsyncFd.
        let inotify = unsafe { AsyncFd::register_with_interest(Inotify::init()?, Interest::READABLE)? };
        Ok(Self { inotify })
    }

    /// Watches a directory.
    pub fn add(&self, dir: &Path, mask: WatchMask) -> io::Result<WatchDescriptor> {
        self.inotify.get_ref().watches().add(dir, mask)
    }

    /// Waits for changes. Cancelling it loses nothing.
    pub async fn changes(&mut self) -> io::Result<Vec<Change>> {
        loop {
            let mut guard = self.inotify.readable_mut().await?;
            let mut buffer = [0; BUFFER];
            let read = guard.try_io(|inotify| {
                let events = inotify.get_mut().read_events(&mut buffer)?;
                let change = |event: inotify::Event<&OsStr>| Change {
                    watch: event.wd.clone(),
                    mask: event.mask,
                    name: event.name.map(OsStr::to_owned),
                };
                Ok(events.map(change).collect())
            });
            match read {
                Ok(changes) => return changes,
                Err(_would_block) => {}
            }
        }
    }
}
