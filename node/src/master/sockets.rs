//! The listening sockets: opened by the master, inherited by the workers, kept over reloads.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use dysvr_conf::model::ListenAddr;

use crate::cycle::{Cycle, SocketOptions};
use crate::os::{errno, listen};

/// All listening sockets of a master.
#[derive(Debug, Default)]
pub struct Sockets {
    open: BTreeMap<ListenAddr, Bound>,
}

#[derive(Debug)]
struct Bound {
    options: SocketOptions,
    /// One, or one per worker with `reuseport`.
    fds: Vec<OwnedFd>,
}

/// What [`Sockets::open`] has opened; nothing is closed or forgotten until it is taken over.
#[derive(Debug)]
pub struct Opened {
    fresh: Vec<(ListenAddr, Bound)>,
    wanted: Vec<(ListenAddr, SocketOptions)>,
}

impl Sockets {
    /// Opens what a cycle needs and what is not open yet, for a number of workers. The error is nginx's text. On an
    /// error nothing has changed.
    pub fn open(&self, cycle: &Cycle, workers: usize) -> Result<Opened, String> {
        let wanted = cycle.sockets();
        let mut fresh = Vec::new();
        for (addr, options) in &wanted {
            let count = if options.reuseport { workers } else { 1 };
            let kept = self.open.get(addr).filter(|bound| bound.options.reuseport == options.reuseport);
            let missing = count.saturating_sub(kept.map_or(0, |bound| bound.fds.len()));
            if missing == 0 {
                continue;
            }
            let fds = (0..missing)
                .map(|_| listen::listen(addr, *options))
                .collect::<io::Result<Vec<_>>>()
                .map_err(|error| format!("bind() to {addr} failed ({})", errno(&error)))?;
            fresh.push((addr.clone(), Bound { options: *options, fds }));
        }
        Ok(Opened { fresh, wanted })
    }

    /// Makes what was opened part of this, and closes what is wanted no more (workers that still serve have their own
    /// descriptors).
    pub fn take_over(&mut self, opened: Opened) {
        let Opened { fresh, wanted } = opened;
        for (addr, bound) in fresh {
            match self.open.get_mut(&addr) {
                Some(known) if known.options.reuseport == bound.options.reuseport => known.fds.extend(bound.fds),
                _ => drop(self.open.insert(addr, bound)),
            }
        }
        self.open.retain(|addr, _| wanted.iter().any(|(wanted, _)| wanted == addr));
        for (addr, options) in wanted {
            if let Some(bound) = self.open.get_mut(&addr) {
                if bound.options.backlog != options.backlog {
                    for fd in &bound.fds {
                        let _ = listen::set_backlog(fd.as_raw_fd(), options.backlog);
                    }
                }
                bound.options = options;
            }
        }
    }

    /// The sockets of the worker with this ordinal, as descriptors of its own.
    pub fn of_worker(&self, ordinal: usize) -> io::Result<Vec<(ListenAddr, OwnedFd)>> {
        let sockets = self.open.iter().map(|(addr, bound)| {
            let fd = &bound.fds[ordinal % bound.fds.len()];
            Ok((addr.clone(), listen::duplicate(fd)?))
        });
        sockets.collect()
    }

    /// Forgets all: in a forked worker, which keeps only its own.
    pub fn close(&mut self) {
        self.open.clear();
    }
}
