//! A listener: an address with the vhosts that are reached through it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use dysvr_conf::model::ListenAddr;

use super::digest::{Kind, Sum};
use super::names::Names;
use super::{Cycle, Entry, Vhost};
use crate::os::listen;

/// What the socket of a listener is made with.
pub type SocketOptions = listen::Options;

/// What it is made with when no `listen` says otherwise.
pub(super) const DEFAULT: SocketOptions = SocketOptions { backlog: listen::BACKLOG, reuseport: false, ipv6only: true };

/// An address:port with its names.
#[derive(Debug)]
pub struct Listener {
    /// The address.
    pub addr: ListenAddr,
    /// The options that one of its vhosts carries.
    pub(super) carried: Cell<Option<SocketOptions>>,
    pub(super) names: RefCell<Names>,
    pub(super) closed: Cell<bool>,
    /// Whether its connections are TLS.
    pub(super) ssl: Cell<bool>,
}

/// The vhost of a name.
#[derive(Clone, Debug)]
pub struct Found {
    /// It.
    pub vhost: Rc<Vhost>,
    /// When an expression matched: its index in the vhost's names, for its groups.
    pub regex: Option<u16>,
}

impl Listener {
    pub(super) fn new(addr: ListenAddr) -> Self {
        Self {
            addr,
            carried: Cell::new(None),
            names: RefCell::default(),
            closed: Cell::new(false),
            ssl: Cell::new(false),
        }
    }

    /// Whether its connections are TLS, for those that come now.
    pub fn is_ssl(&self) -> bool {
        self.ssl.get()
    }

    /// Whether it has lost its last vhost and is no part of the cycle any more. It keeps the names that it had, for
    /// connections that are about to ask.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// What its socket is made with.
    pub fn options(&self) -> SocketOptions {
        self.carried.get().unwrap_or(DEFAULT)
    }

    /// The vhost of a host name in lower case, without port and trailing dot; the default server when none has it. The
    /// first one who asks for a vhost waits for it to be compiled.
    /// `None` for a listener of a cycle only if that cannot be, see [`Cycle::compile`].
    pub fn find(&self, cycle: &Cycle, host: &[u8]) -> Option<Found> {
        let names = self.names.borrow();
        let (entry, regex) = names.find(host)?;
        Some(Found { vhost: cycle.compile(entry)?, regex })
    }

    /// Its part of the cycle's digest: address, options, and the names as they stand.
    pub fn sum(&self) -> Sum {
        let names = self.names.borrow().sum();
        self.with_names(names)
    }

    /// The same, from its tables.
    pub fn summed(&self) -> Sum {
        self.with_names(self.names.borrow().summed())
    }

    fn with_names(&self, names: Sum) -> Sum {
        let SocketOptions { backlog, reuseport, ipv6only } = self.options();
        Sum::of(Kind::Listener, (&self.addr, backlog, reuseport, ipv6only, self.carried.get().is_some(), names))
    }

    /// The default server.
    pub fn default_server(&self) -> Option<Rc<Entry>> {
        self.names.borrow().default_server().cloned()
    }
}
