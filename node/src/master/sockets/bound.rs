//! The sockets of one address, as a master holds them.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use dysvr_conf::model::ListenAddr;

use crate::cycle::SocketOptions;
use crate::log::Level;
use crate::os::socket_file::SocketFile;
use crate::os::{errno, listen};

/// The sockets of an address.
#[derive(Debug)]
pub(super) struct Bound {
    pub options: SocketOptions,
    /// One, or one per worker with `reuseport`.
    pub fds: Vec<OwnedFd>,
    pub file: Option<SocketFile>,
    pub listening: bool,
    /// It was closed a moment ago, and may turn newcomers away until it is taken over again.
    pub lingers: bool,
}

impl Bound {
    /// That of the worker with this ordinal.
    pub fn of_worker(&self, ordinal: usize) -> &OwnedFd {
        &self.fds[ordinal % self.fds.len()]
    }

    /// Whether its sockets can be those of an address with these options.
    pub fn fits(&self, options: SocketOptions) -> bool {
        (self.options.reuseport, self.options.ipv6only) == (options.reuseport, options.ipv6only)
    }

    /// Binds `count` sockets that do not listen yet.
    pub fn new(addr: &ListenAddr, options: SocketOptions, count: usize, beside: &[&OwnedFd]) -> io::Result<Self> {
        let fds = (0..count).map(|_| listen::bind(addr, options, beside)).collect::<io::Result<Vec<_>>>()?;
        let file = match addr {
            ListenAddr::Unix(path) => Some(SocketFile::at(path)?),
            ListenAddr::Inet(_) => None,
        };
        Ok(Self { options, fds, file, listening: false, lingers: false })
    }

    /// Lets them listen.
    pub fn listen(&mut self, beside: &[&OwnedFd]) -> io::Result<()> {
        for fd in &self.fds {
            listen::begin(fd, self.options, beside)?;
        }
        self.listening = true;
        Ok(())
    }

    /// Descriptors of our own of the same sockets.
    pub fn again(&self, options: SocketOptions) -> io::Result<Self> {
        let fds = self.fds.iter().map(listen::duplicate).collect::<io::Result<_>>()?;
        Ok(Self { options, fds, file: None, listening: true, lingers: true })
    }

    /// From now on nothing joins its queue.
    pub fn turn_away(&self, addr: &ListenAddr) {
        if let Some(file) = &self.file {
            return file.remove();
        }
        for fd in &self.fds {
            if let Err(error) = listen::turn_away(fd) {
                log!(Level::Error, "setsockopt(SO_ATTACH_FILTER) for {addr} failed ({})", errno(&error));
            }
        }
    }

    /// Gives them what can change while they are open.
    pub fn set_options(&mut self, options: SocketOptions) {
        if self.options.backlog != options.backlog {
            for fd in &self.fds {
                let _ = listen::set_backlog(fd.as_raw_fd(), options.backlog);
            }
        }
        self.options = options;
    }
}
