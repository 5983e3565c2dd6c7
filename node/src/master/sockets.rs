//! The listening sockets: opened by the master, inherited by the workers or sent to them, kept over reloads and updates
//! for as long as their address is served.

mod bound;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use dysvr_conf::model::ListenAddr;

use bound::Bound;

use crate::cycle::{Committed, Cycle, Opening, SocketOptions, unserved, wildcard_of};
use crate::log::Level;
use crate::os::socket_file::SocketFile;
use crate::os::{errno, listen};
use crate::worker::LINGER;

/// All listening sockets of a master.
#[derive(Debug, Default)]
pub struct Sockets {
    open: BTreeMap<ListenAddr, Bound>,
    /// What former workers still accept on and nobody after them: a new cycle has other sockets there, or none.
    leaving: Vec<(ListenAddr, Bound)>,
    /// Wildcards that were closed beside exact addresses, which workers leave open for a moment.
    lingering: Vec<(Duration, ListenAddr, Bound)>,
    /// What they have made; kept when they are closed, to be removed when the last worker has left.
    files: Vec<SocketFile>,
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
            let bound = || Bound { options, fds: Vec::new(), file, listening: true, lingers: false };
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
            if let Some(bound) = self.left(addr, *options) {
                opened.fresh.insert(addr.clone(), bound.again(*options).map_err(|error| errno(&error))?);
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
        let open = self.open.iter().chain(self.leaving.iter().map(|(addr, bound)| (addr, bound)));
        let all = open.chain(self.lingering.iter().map(|(_, addr, bound)| (addr, bound)));
        let near = all.filter(|(other, _)| {
            *other == addr || Some(*other) == wildcard.as_ref() || wildcard_of(other).as_ref() == Some(addr)
        });
        near.flat_map(|(_, bound)| &bound.fds).collect()
    }

    /// What was closed a moment ago and is still open somewhere.
    fn left(&self, addr: &ListenAddr, options: SocketOptions) -> Option<&Bound> {
        let leaving = self.leaving.iter().map(|(addr, bound)| (addr, bound));
        let mut left = leaving.chain(self.lingering.iter().map(|(_, addr, bound)| (addr, bound)));
        left.find(|(other, bound)| *other == addr && bound.fits(options)).map(|(_, bound)| bound)
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
            if std::mem::take(&mut bound.lingers) {
                bound.fds.iter().for_each(|fd| drop(listen::welcome(fd)));
                self.lingering.retain(|(_, other, _)| *other != addr);
                if let Some(at) = self.leaving.iter().position(|(other, old)| *other == addr && old.fits(bound.options))
                {
                    bound.file = self.leaving.swap_remove(at).1.file;
                }
            }
            match self.open.get_mut(&addr) {
                Some(known) if known.fits(bound.options) => known.fds.append(&mut bound.fds),
                _ => {
                    if let Some(old) = self.open.insert(addr.clone(), bound) {
                        self.leaving.push((addr, old));
                    }
                }
            }
        }
    }

    /// Lets go of what a newly loaded cycle does not serve, as soon as its workers serve ([`Self::let_go`]), and gives the
    /// rest its options.
    pub fn follow(&mut self, cycle: &Cycle, workers: usize) {
        let (kept, gone): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.open).into_iter().partition(|(addr, _)| cycle.listener_at(addr).is_some());
        self.open = kept;
        self.leaving.extend(gone);
        for (addr, options) in cycle.sockets() {
            if let Some(bound) = self.open.get_mut(&addr) {
                // Nobody would accept on those of workers that there are no more.
                let wanted = if options.reuseport { workers.max(1) } else { 1 };
                let fds = bound.fds.split_off(wanted.min(bound.fds.len()));
                bound.set_options(options);
                if !fds.is_empty() {
                    self.leaving.push((addr, Bound { options, fds, file: None, listening: true, lingers: false }));
                }
            }
        }
    }

    /// The workers of another cycle leave: they empty the queues of what is theirs alone, which nothing joins from now on.
    pub fn let_go(&mut self) {
        for (addr, bound) in std::mem::take(&mut self.leaving) {
            bound.turn_away(&addr);
        }
    }

    /// Closes what a commit has left unserved, and changes the options that it has changed.
    pub fn commit(&mut self, now: Duration, cycle: &Cycle, committed: &Committed) {
        for listener in &committed.options {
            if let Some(bound) = self.open.get_mut(&listener.addr) {
                bound.set_options(listener.options());
            }
        }
        for listener in &committed.closed {
            for addr in unserved(cycle, &listener.addr, self.open.keys()) {
                let Some(bound) = self.open.remove(&addr) else { continue };
                // Workers empty its queue before they close theirs.
                bound.turn_away(&addr);
                if cycle.has_exact(&addr) {
                    self.lingering.push((now + LINGER * 3 / 2, addr, bound));
                }
            }
        }
    }

    /// When [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        self.lingering.iter().map(|(until, ..)| *until).min()
    }

    /// Closes what has lingered long enough: the workers have closed theirs.
    pub fn expire(&mut self, now: Duration) {
        self.lingering.retain(|(until, ..)| *until > now);
    }

    /// The sockets of the worker with this ordinal, as descriptors of its own.
    pub fn of_worker(&self, ordinal: usize) -> io::Result<Vec<(ListenAddr, OwnedFd)>> {
        let sockets =
            self.open.iter().map(|(addr, bound)| Ok((addr.clone(), listen::duplicate(bound.of_worker(ordinal))?)));
        sockets.collect()
    }

    /// Closes all: in a forked worker, which keeps only its own, and in a master that leaves.
    pub fn close_all(&mut self) {
        self.lingering.clear();
        let leaving = std::mem::take(&mut self.leaving).into_iter().map(|(_, bound)| bound);
        let bound = std::mem::take(&mut self.open).into_values().chain(leaving);
        self.files.extend(bound.filter_map(|bound| bound.file));
    }

    /// Removes the files of unix sockets: the last act of a master.
    pub fn remove_files(&mut self) {
        self.close_all();
        self.files.drain(..).for_each(|file| file.remove());
    }
}

#[cfg(test)]
mod tests;
