//! A listener: an address with the vhosts that are reached through it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use dysvr_conf::model::{Listen, ListenAddr};

use super::Vhost;
use super::digest::{Kind, Sum};
use super::names::Names;
use crate::os::listen;

/// What the socket of a listener is made with.
pub type SocketOptions = listen::Options;

/// The options that a `listen` asks for.
pub(super) fn options_of(listen: &Listen) -> SocketOptions {
    SocketOptions {
        backlog: listen.backlog.unwrap_or(listen::BACKLOG),
        reuseport: listen.reuseport,
        ipv6only: listen.ipv6only.unwrap_or(true),
    }
}

/// An address:port with its names.
#[derive(Debug)]
pub struct Listener {
    /// The address.
    pub addr: ListenAddr,
    pub(super) options: Cell<SocketOptions>,
    pub(super) names: RefCell<Names>,
    /// Listeners with an exact address whose connections come in on this wildcard socket.
    pub(super) covered: Cell<u32>,
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
    pub(super) fn new(addr: ListenAddr, options: SocketOptions) -> Self {
        Self { addr, options: Cell::new(options), names: RefCell::default(), covered: Cell::new(0) }
    }

    /// The vhost of a host name in lower case, without port and trailing dot; the default server when none has it.
    /// `None` only for a listener that has lost its last vhost.
    pub fn find(&self, host: &[u8]) -> Option<Found> {
        self.names.borrow().find(host)
    }

    /// Its part of the cycle's digest: address, options, and the names as they stand.
    pub fn sum(&self) -> Sum {
        let names = self.names.borrow_mut().sum();
        self.with_names(names)
    }

    /// The same, from its tables.
    pub fn summed(&self) -> Sum {
        self.with_names(self.names.borrow().summed())
    }

    fn with_names(&self, names: Sum) -> Sum {
        let SocketOptions { backlog, reuseport, ipv6only } = self.options.get();
        Sum::of(Kind::Listener, (&self.addr, backlog, reuseport, ipv6only, self.covered.get(), names))
    }

    /// The default server.
    pub fn default_server(&self) -> Option<Rc<Vhost>> {
        self.names.borrow().default_server().cloned()
    }
}
