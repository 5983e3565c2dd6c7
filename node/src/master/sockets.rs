//! The listening sockets: opened by the master, inherited by the workers or sent to them, kept over reloads and updates
//! for as long as their address is served.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use dysvr_conf::model::ListenAddr;

use crate::cycle::{Committed, Cycle, Opening, SocketOptions, unserved, wildcard_of};
use crate::log::Level;
use crate::os::socket_file::SocketFile;
use crate::os::{errno, listen};

/// All listening sockets of a master.
#[derive(Debug, Default)]
pub struct Sockets {
    open: BTreeMap<ListenAddr, Bound>,
    /// What they have made; kept when they are closed, to be removed when the last worker has left.
    files: Vec<SocketFile>,
}

#[derive(Debug)]
struct Bound {
    options: SocketOptions,
    /// One, or one per worker with `reuseport`.
    fds: Vec<OwnedFd>,
    file: Option<SocketFile>,
    listening: bool,
}

/// What [`Sockets::open`] has opened; nothing is closed or forgotten until it is taken over. Dropped without that, it is
/// as if it had never been.
#[derive(Debug)]
pub struct Opened {
    fresh: BTreeMap<ListenAddr, Bound>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        for file in self.fresh.values().filter_map(|bound| bound.file.as_ref()) {
            file.remove();
        }
    }
}

impl Opened {
    /// The new sockets of the worker with this ordinal.
    pub fn of_worker(&self, ordinal: usize) -> Vec<RawFd> {
        self.fresh.values().map(|bound| bound.of_worker(ordinal).as_raw_fd()).collect()
    }
}

impl Bound {
    fn of_worker(&self, ordinal: usize) -> &OwnedFd {
        &self.fds[ordinal % self.fds.len()]
    }

    /// Whether its sockets can be those of an address with these options.
    fn fits(&self, options: SocketOptions) -> bool {
        (self.options.reuseport, self.options.ipv6only) == (options.reuseport, options.ipv6only)
    }
}

impl Sockets {
    /// Makes sockets that listen already, of a former master, part of this. Several of one address are those of
    /// `reuseport`.
    pub fn adopt(&mut self, sockets: Vec<(ListenAddr, OwnedFd)>) {
        for (addr, fd) in sockets {
            let Ok(options) = listen::options_of(&fd) else { continue };
            let file = match &addr {
                ListenAddr::Unix(path) => SocketFile::at(path).ok(),
                ListenAddr::Inet(_) => None,
            };
            let bound = || Bound { options, fds: Vec::new(), file, listening: true };
            self.open.entry(addr).or_insert_with(bound).fds.push(fd);
        }
    }

    /// Opens what is wanted and not open yet, for a number of workers. The error is nginx's text. On an error nothing has
    /// changed.
    ///
    /// Where another socket of ours takes the connections of an address so far, the new one does not listen before it is
    /// taken over: what is opened for a change that fails after all must not have got any.
    pub fn open(&self, wanted: &[Opening], workers: usize) -> Result<Opened, String> {
        let mut opened = Opened { fresh: BTreeMap::new() };
        for (addr, options) in wanted {
            let count = if options.reuseport { workers.max(1) } else { 1 };
            let kept = self.open.get(addr).filter(|bound| bound.fits(*options));
            let missing = count.saturating_sub(kept.map_or(0, |bound| bound.fds.len()));
            if missing == 0 {
                continue;
            }
            let beside = self.beside(addr);
            let bound = Bound::new(addr, *options, missing, &beside)
                .map_err(|error| format!("bind() to {addr} failed ({})", errno(&error)))?;
            let bound = opened.fresh.entry(addr.clone()).or_insert(bound);
            if beside.is_empty() {
                bound.listen(&[]).map_err(|error| format!("listen() to {addr} failed ({})", errno(&error)))?;
            }
        }
        Ok(opened)
    }

    /// The sockets that a new one of this address would conflict with: of the address itself, and of the wildcard beside
    /// an exact one.
    fn beside(&self, addr: &ListenAddr) -> Vec<&OwnedFd> {
        if matches!(addr, ListenAddr::Unix(_)) {
            return Vec::new();
        }
        let wildcard = wildcard_of(addr);
        let near = self.open.iter().filter(|(other, _)| {
            *other == addr || Some(*other) == wildcard.as_ref() || wildcard_of(other).as_ref() == Some(addr)
        });
        near.flat_map(|(_, bound)| &bound.fds).collect()
    }

    /// Makes what was opened part of this: what has only been bound listens from now on.
    pub fn take_over(&mut self, mut opened: Opened) {
        for (addr, mut bound) in std::mem::take(&mut opened.fresh) {
            if !bound.listening
                && let Err(error) = bound.listen(&self.beside(&addr))
            {
                // The address is bound, so nobody else has it: this does not happen.
                log!(Level::Alert, "listen() to {addr} failed ({})", errno(&error));
            }
            match self.open.get_mut(&addr) {
                Some(known) if known.fits(bound.options) => known.fds.append(&mut bound.fds),
                _ => drop(self.open.insert(addr, bound)),
            }
        }
    }

    /// Closes what a newly loaded cycle does not serve, and gives the rest its options (workers that still serve have
    /// their own descriptors).
    pub fn follow(&mut self, cycle: &Cycle, workers: usize) {
        let gone: Vec<_> = self.open.keys().filter(|addr| cycle.listener_at(addr).is_none()).cloned().collect();
        for addr in gone {
            self.close(&addr);
        }
        for (addr, options) in cycle.sockets() {
            if let Some(bound) = self.open.get_mut(&addr) {
                // Nobody would accept on those of workers that there are no more.
                bound.fds.truncate(if options.reuseport { workers.max(1) } else { 1 });
                bound.set_options(options);
            }
        }
    }

    /// Closes what a commit has left unserved, and changes the options that it has changed.
    pub fn commit(&mut self, cycle: &Cycle, committed: &Committed) {
        for listener in &committed.options {
            if let Some(bound) = self.open.get_mut(&listener.addr) {
                bound.set_options(listener.options());
            }
        }
        for listener in &committed.closed {
            for addr in unserved(cycle, &listener.addr, self.open.keys()) {
                self.close(&addr);
            }
        }
    }

    /// Closes our descriptors of an address. Workers empty its queue before they close theirs: from now on nothing joins
    /// it.
    fn close(&mut self, addr: &ListenAddr) {
        let Some(bound) = self.open.remove(addr) else { return };
        if let Some(file) = &bound.file {
            file.remove();
            return;
        }
        for fd in &bound.fds {
            if let Err(error) = listen::turn_away(fd) {
                log!(Level::Error, "setsockopt(SO_ATTACH_FILTER) for {addr} failed ({})", errno(&error));
            }
        }
    }

    /// The sockets of the worker with this ordinal, as descriptors of its own.
    pub fn of_worker(&self, ordinal: usize) -> io::Result<Vec<(ListenAddr, OwnedFd)>> {
        let sockets =
            self.open.iter().map(|(addr, bound)| Ok((addr.clone(), listen::duplicate(bound.of_worker(ordinal))?)));
        sockets.collect()
    }

    /// Closes all: in a forked worker, which keeps only its own, and in a master that leaves.
    pub fn close_all(&mut self) {
        let bound = std::mem::take(&mut self.open).into_values();
        self.files.extend(bound.filter_map(|bound| bound.file));
    }

    /// Removes the files of unix sockets: the last act of a master.
    pub fn remove_files(&mut self) {
        self.close_all();
        self.files.drain(..).for_each(|file| file.remove());
    }
}

impl Bound {
    fn new(addr: &ListenAddr, options: SocketOptions, count: usize, beside: &[&OwnedFd]) -> io::Result<Self> {
        let fds = (0..count).map(|_| listen::bind(addr, options, beside)).collect::<io::Result<Vec<_>>>()?;
        let file = match addr {
            ListenAddr::Unix(path) => Some(SocketFile::at(path)?),
            ListenAddr::Inet(_) => None,
        };
        Ok(Self { options, fds, file, listening: false })
    }

    fn listen(&mut self, beside: &[&OwnedFd]) -> io::Result<()> {
        for fd in &self.fds {
            listen::begin(fd, self.options, beside)?;
        }
        self.listening = true;
        Ok(())
    }

    fn set_options(&mut self, options: SocketOptions) {
        if self.options.backlog != options.backlog {
            for fd in &self.fds {
                let _ = listen::set_backlog(fd.as_raw_fd(), options.backlog);
            }
        }
        self.options = options;
    }
}
