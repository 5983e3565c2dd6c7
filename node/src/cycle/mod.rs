//! The running configuration of one process, changed in place in O(change).
//!
//! Listeners → names → vhosts, and upstreams by name. A full load is an empty cycle to which everything is added: the
//! same [`Cycle::prepare`] and [`Cycle::commit`] serve both, so nothing can be elected or ordered in two ways. A request
//! holds the vhost that it began with (`Rc`); one that was deleted or replaced is freed when its last request ends.

mod addresses;
mod caches;
mod change;
mod definitions;
pub mod differ;
pub mod digest;
mod early;
mod entry;
mod files;
mod listener;
mod logs;
mod names;
mod record;
mod recorded;
mod slot;
mod ssl;
mod upstream;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use dysvr_conf::intern::Interner;
use dysvr_conf::model::{self, Config, ListenAddr, VsvcId};
use rustc_hash::FxHashMap;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};

use crate::log::LogFile;
use crate::os::errno;
use crate::os::region::{Blob, Region};
use crate::ssl::Configs;
use digest::Sum;

pub use addresses::{Opening, unserved};
pub use change::{Change, Committed, Delta, Kind, Over, Placed, Prepared, Refusal};
pub use entry::Entry;
pub use listener::{Found, Listener, SocketOptions};
pub(crate) use recorded::Records;
pub use recorded::{Loaded, Recorded, RecordedUpstream, load};
pub use upstream::{Upstream, UpstreamCell};

/// Which task made a vhost what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The task, `None` for a vhost of a full load.
    pub task_id: Option<u64>,
    /// The fleet's revision that the task belonged to.
    pub revision: Option<u64>,
}

/// A vhost as it runs.
#[derive(Debug)]
pub struct Vhost {
    /// What it is.
    pub conf: Arc<model::Vhost>,
    /// Parallel to `conf.upstreams`.
    pub upstreams: Box<[Rc<UpstreamCell>]>,
    /// Its log files: open as long as it is.
    pub logs: Box<[Rc<LogFile>]>,
    /// What its handshakes run with, if an address of it is TLS and it has a certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who made it so.
    pub stamp: Stamp,
    /// It has crashed workers: it answers 503 until it is modified, and nothing of its own is run.
    pub quarantined: Cell<bool>,
}

impl Vhost {
    /// See [`Entry::mark`].
    pub fn mark(&self) -> u64 {
        entry::mark_of(&self.conf.digest)
    }
}

/// The running configuration.
#[derive(Debug)]
pub struct Cycle {
    /// The directives outside `http`, and what a load has said: these change by a reload only.
    pub conf: Rc<Config>,
    definitions: RefCell<definitions::Definitions>,
    files: RefCell<files::Files>,
    listeners: RefCell<FxHashMap<ListenAddr, Rc<Listener>>>,
    /// The exact addresses of a port, by its wildcard address.
    exact: RefCell<FxHashMap<ListenAddr, Vec<ListenAddr>>>,
    /// Raised when listeners come or go.
    layout: Cell<u64>,
    vhosts: RefCell<FxHashMap<VsvcId, Rc<Entry>>>,
    upstreams: RefCell<upstream::Upstreams>,
    count: Cell<usize>,
    /// Of the text outside vhosts, upstreams, maps and log formats.
    conf_sum: Sum,
    /// Of all that follows the changes; see [`digest`].
    sum: Cell<Sum>,
    /// What TLS runs with.
    tls: Configs,
    caches: RefCell<caches::Caches>,
    /// Whether vhosts that join open their log files; not in a cycle that is made to be looked at.
    opens_logs: bool,
    /// Where the records of its vhosts and upstreams are.
    region: Rc<Region>,
    /// The files that texts include, by their contents.
    included: RefCell<FxHashMap<Sum, Weak<Blob>>>,
    /// Shares strings and settings among the vhosts that requests have compiled.
    interner: RefCell<Interner>,
    /// The log files of `http` itself, open as long as the cycle is: vhosts that join in place log there.
    _logs: Box<[Rc<LogFile>]>,
}

impl Cycle {
    /// The cycle of a whole configuration.
    pub fn load(loaded: Loaded) -> Result<Self, Refusal> {
        Self::make(loaded, true)
    }

    /// The same without side effects: no log file is opened, so nothing can be served from it.
    pub fn look_at(loaded: Loaded) -> Result<Self, Refusal> {
        Self::make(loaded, false)
    }

    fn make(loaded: Loaded, opens_logs: bool) -> Result<Self, Refusal> {
        let (mut conf, vhosts, upstreams) = loaded.split();
        let logs = conf.http.as_ref().filter(|_| opens_logs).map_or_else(|| Ok(Box::default()), logs::open_http)?;
        let cycle = Self {
            conf_sum: Sum::of(digest::Kind::Outside, &*conf.outside),
            files: RefCell::new(files::Files::new(conf.http.as_ref())),
            caches: RefCell::new(caches::Caches::new(conf.http.as_ref().map(|http| &*http.srv))),
            definitions: RefCell::new(definitions::Definitions::new(conf.http.take().map(Rc::new))),
            conf: Rc::new(conf),
            listeners: RefCell::default(),
            exact: RefCell::default(),
            layout: Cell::new(0),
            vhosts: RefCell::default(),
            upstreams: RefCell::default(),
            count: Cell::new(0),
            sum: Cell::default(),
            tls: Configs::new().map_err(Refusal::Wrong)?,
            opens_logs,
            region: Region::new().map_err(|error| Refusal::Wrong(format!("mmap() failed ({})", errno(&error))))?,
            included: RefCell::default(),
            interner: RefCell::default(),
            _logs: logs,
        };
        let change = Change { kind: Kind::Load, vhosts, upstreams, ..Change::default() };
        let prepared = cycle.prepare(change)?;
        cycle.commit(prepared);
        Ok(cycle)
    }

    /// The vhost of an id.
    pub fn vhost(&self, id: VsvcId) -> Option<Rc<Entry>> {
        self.vhosts.borrow().get(&id).cloned()
    }

    /// The vhost of a mark. Looks at all of them: for what happens when a worker has crashed.
    pub fn marked(&self, mark: u64) -> Option<Rc<Entry>> {
        let listeners = self.listeners.borrow();
        listeners
            .values()
            .find_map(|listener| listener.names.borrow().iter().find(|entry| entry.mark() == mark).cloned())
    }

    /// Where the records of its vhosts and upstreams are.
    pub fn region(&self) -> &Rc<Region> {
        &self.region
    }

    /// The listener of an address.
    pub fn listener(&self, addr: &ListenAddr) -> Option<Rc<Listener>> {
        self.listeners.borrow().get(addr).cloned()
    }

    /// How many vhosts there are, those without an id included.
    pub fn vhost_count(&self) -> usize {
        self.count.get()
    }

    /// How many upstreams there are.
    pub fn upstream_count(&self) -> usize {
        self.upstreams.borrow().named.len()
    }

    /// How many listeners there are, those that a wildcard socket covers included.
    pub fn listener_count(&self) -> usize {
        self.listeners.borrow().len()
    }

    /// The listener that a connection belongs to, which came in on the socket of `bound`: a wildcard socket also takes
    /// the connections of exact addresses of its port, which are told apart by the local address.
    pub fn route(&self, bound: &Rc<Listener>, local: impl FnOnce() -> Option<std::net::SocketAddr>) -> Rc<Listener> {
        if self.exact.borrow().contains_key(&bound.addr)
            && let Some(local) = local()
            && let Some(exact) = self.listener(&ListenAddr::Inet(local))
        {
            return exact;
        }
        Rc::clone(bound)
    }

    /// The listener of a concrete address that a client has connected to: its own, or the wildcard's of its port.
    pub fn listener_at(&self, addr: &ListenAddr) -> Option<Rc<Listener>> {
        self.listener(addr).or_else(|| self.listener(&wildcard_of(addr)?))
    }

    /// Whether there are listeners of exact addresses of a wildcard's port.
    pub fn has_exact(&self, wildcard: &ListenAddr) -> bool {
        self.exact.borrow().contains_key(wildcard)
    }

    /// Changes whenever [`Self::listener_at`] may give another listener than before.
    pub fn layout(&self) -> u64 {
        self.layout.get()
    }

    /// The sockets that this configuration needs, sorted: every listener but those that a wildcard socket covers.
    pub fn sockets(&self) -> Vec<Opening> {
        let listeners = self.listeners.borrow();
        let mut all: Vec<_> = listeners
            .values()
            .filter(|listener| wildcard_of(&listener.addr).is_none_or(|wildcard| !listeners.contains_key(&wildcard)))
            .map(|listener| (listener.addr.clone(), listener.options()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// The wildcard address of the same port, for an address that is not it.
pub fn wildcard_of(addr: &ListenAddr) -> Option<ListenAddr> {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    let ListenAddr::Inet(inet) = addr else { return None };
    let any = match inet.ip() {
        ip if ip.is_unspecified() => return None,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Some(ListenAddr::Inet(SocketAddr::new(any, inet.port())))
}
