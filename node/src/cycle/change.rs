//! What is changed in a cycle: checked as a whole first, then made so without a way to fail.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::http::log::Format;
use dysvr_conf::http::map::Map;
use dysvr_conf::model::{self, ListenAddr, UpstreamRef, VsvcId};
use dysvr_conf::problem::Place;
use rustc_hash::FxHashMap;

use super::addresses::{Addresses, Opening};
use super::definitions::Defined;
use super::files::Moves;
use super::upstream::Cells;
use super::{Cycle, Listener, Stamp, UpstreamCell, Vhost, logs};

/// What a change does to the vhosts that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// They are new; ports may be opened: the first load of a process.
    #[default]
    Load,
    /// They are new.
    Add,
    /// They exist and are replaced.
    Modify,
    /// They exist and go.
    Delete,
    /// They are new or replaced, or they go.
    Set,
}

/// A change of a cycle.
#[derive(Debug, Default)]
pub struct Change {
    /// What is done.
    pub kind: Kind,
    /// The vhosts that are added or replaced.
    pub vhosts: Vec<Arc<model::Vhost>>,
    /// The upstreams that are added, or replaced if `touched` names them.
    pub upstreams: Vec<Arc<model::Upstream>>,
    /// The vhosts that go.
    pub removed: Vec<VsvcId>,
    /// The upstreams that the change may replace; those that are not among `upstreams` go.
    pub touched: Vec<Arc<str>>,
    /// The maps that are added, or replaced if `touched_maps` names them, each with its index.
    pub maps: Vec<(u16, Arc<Map>)>,
    /// The maps that the change may replace, by the lower-case names of their variables; those that are not among `maps`
    /// go.
    pub touched_maps: Vec<Arc<str>>,
    /// The same for log formats.
    pub formats: Vec<(u16, Arc<Format>)>,
    /// The same for log formats.
    pub touched_formats: Vec<Arc<str>>,
    /// The files that were read for the change.
    pub files: Vec<PathBuf>,
    /// Goes into the vhosts.
    pub stamp: Stamp,
}

/// Why a change cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is wrong, whatever the way.
    #[error("{0}")]
    Wrong(String),
    /// It is right, but only a reload can make it so.
    #[error("needs a reload: {0}")]
    NeedsReload(String),
}

/// A checked change: all that [`Cycle::commit`] needs.
#[derive(Debug)]
pub struct Prepared {
    pub(super) gone: Vec<Rc<Vhost>>,
    pub(super) new: Vec<Rc<Vhost>>,
    pub(super) addresses: Addresses,
    pub(super) upstreams: Cells,
    defined: Defined,
    files: Moves,
}

impl Prepared {
    /// The addresses that need a socket of their own once the change is made, and may have none yet.
    pub fn opens(&self) -> &[Opening] {
        &self.addresses.opens
    }
}

pub(super) fn wrong(text: String) -> Refusal {
    Refusal::Wrong(text)
}

impl Cycle {
    /// Checks a change against this cycle and builds what it needs; changes nothing.
    pub fn prepare(&self, change: Change) -> Result<Prepared, Refusal> {
        let gone = self.gone(&change)?;
        let defined = self.prepare_definitions(&change, &gone)?;
        let cells = self.prepare_upstreams(&change, &gone)?;
        let files = self.prepare_files(&change, &gone, &cells)?;
        let addresses = self.prepare_addresses(&change, &gone)?;
        if change.kind != Kind::Load {
            self.check_ssl(&change, &gone)?;
            self.check_caches(&change, &gone)?;
        }

        let http = self.http();
        let mut new = Vec::with_capacity(change.vhosts.len());
        for conf in &change.vhosts {
            let upstreams = conf.upstreams.iter().map(|used| match used {
                UpstreamRef::Implicit(upstream) => Ok(UpstreamCell::new(upstream)),
                UpstreamRef::Named(name) => cells
                    .find(self, name)
                    .ok_or_else(|| wrong(format!("host not found in upstream \"{name}\" in {}", conf.place))),
            });
            let upstreams = upstreams.collect::<Result<_, _>>()?;
            let is_tls = conf.listens.iter().any(|listen| listen.ssl);
            let tls = if is_tls { self.tls.of(&conf.srv.ssl).map_err(wrong)? } else { None };
            let logs = if self.opens_logs { logs::open(conf, http.as_deref())? } else { Box::default() };
            let quarantined = Default::default();
            new.push(Rc::new(Vhost { conf: Arc::clone(conf), upstreams, logs, tls, stamp: change.stamp, quarantined }));
        }
        Ok(Prepared { gone, new, addresses, upstreams: cells, defined, files })
    }

    /// The vhosts that the change takes out, after the check that ids are as its kind says.
    fn gone(&self, change: &Change) -> Result<Vec<Rc<Vhost>>, Refusal> {
        let vhosts = self.vhosts.borrow();
        let mut seen: FxHashMap<VsvcId, &Arc<model::Vhost>> = FxHashMap::default();
        seen.reserve(change.vhosts.len());
        let mut gone = Vec::new();
        for vhost in &change.vhosts {
            let Some(id) = vhost.vsvc_id else {
                if change.kind == Kind::Load {
                    continue;
                }
                return Err(wrong(format!("server without \"vsvc_id\" in {}", vhost.place)));
            };
            if let Some(first) = seen.insert(id, vhost) {
                return Err(duplicate_id(id, &first.place, vhost));
            }
            match (change.kind, vhosts.get(&id)) {
                (Kind::Modify | Kind::Set, Some(old)) => gone.push(Rc::clone(old)),
                (Kind::Modify, None) => return Err(wrong(format!("no vhost has vsvc_id {id}: nothing to modify"))),
                (_, Some(old)) => return Err(duplicate_id(id, &old.conf.place, vhost)),
                (_, None) => {}
            }
        }
        for id in &change.removed {
            match vhosts.get(id) {
                Some(old) => gone.push(Rc::clone(old)),
                None => return Err(wrong(format!("no vhost has vsvc_id {id}: nothing to delete"))),
            }
        }
        Ok(gone)
    }

    /// Makes a prepared change so. It was prepared against this cycle as it is now.
    pub fn commit(&self, prepared: Prepared) -> Committed {
        let touched = self.digest_without(&prepared);
        self.commit_definitions(prepared.defined);
        self.commit_files(prepared.files);
        let mut listeners = self.listeners.borrow_mut();
        let mut vhosts = self.vhosts.borrow_mut();
        let mut committed = Committed::default();

        for listener in &prepared.addresses.closes {
            listeners.remove(&listener.addr);
            listener.closed.set(true);
            committed.touch(&listener.addr);
        }
        for vhost in &prepared.gone {
            for listen in &vhost.conf.listens {
                // One that closes keeps its names: connections that it has may be about to ask.
                let Some(listener) = listeners.get(&listen.addr) else { continue };
                listener.names.borrow_mut().remove(vhost);
                committed.touch(&listen.addr);
            }
            if let Some(id) = vhost.conf.vsvc_id {
                vhosts.remove(&id);
            }
        }
        self.commit_caches(&prepared.gone, &prepared.new);
        self.commit_upstreams(prepared.upstreams, &prepared.gone, &prepared.new);
        for listener in &prepared.addresses.fresh {
            listeners.insert(listener.addr.clone(), Rc::clone(listener));
        }
        for (listener, carried) in &prepared.addresses.options {
            listener.carried.set(*carried);
        }
        self.count_exact(&prepared.addresses);
        vhosts.reserve(prepared.new.len());
        // Before the load there are no figures and no vhosts: each listener enters all its vhosts at once.
        let load = self.sum.get().is_none();
        let mut coming: FxHashMap<&ListenAddr, Vec<(&Rc<Vhost>, bool)>> = FxHashMap::default();
        let ignored = |addr: &ListenAddr, (name, place): (String, Place)| {
            format!("conflicting server name \"{name}\" on {addr}, ignored in {place}")
        };
        for vhost in &prepared.new {
            for listen in &vhost.conf.listens {
                let addr = &listen.addr;
                let Some(listener) = listeners.get(addr) else { continue };
                listener.ssl.set(listen.ssl);
                if load {
                    coming.entry(addr).or_default().push((vhost, listen.default_server));
                    continue;
                }
                let conflicts = listener.names.borrow_mut().insert(vhost, listen.default_server);
                committed.conflicts.extend(conflicts.into_iter().map(|conflict| ignored(addr, conflict)));
                committed.touch(addr);
            }
            if let Some(id) = vhost.conf.vsvc_id {
                vhosts.insert(id, Rc::clone(vhost));
            }
        }
        for (addr, coming) in coming {
            let Some(listener) = listeners.get(addr) else { continue };
            let conflicts = listener.names.borrow_mut().fill(&coming);
            committed.conflicts.extend(conflicts.into_iter().map(|conflict| ignored(addr, conflict)));
            committed.touch(addr);
        }
        self.count.set(self.count.get() + prepared.new.len() - prepared.gone.len());
        for (addr, total) in &mut committed.listeners {
            *total = listeners.get(addr).map_or(0, |listener| listener.names.borrow().count());
        }
        committed.closed = prepared.addresses.closes;
        committed.options = prepared.addresses.options.into_iter().map(|(listener, _)| listener).collect();
        drop((listeners, vhosts));
        self.digest_with(touched);
        committed
    }
}

/// What a commit did, for the log.
#[derive(Debug, Default)]
pub struct Committed {
    /// The listeners that were touched, with the vhosts that they have now.
    pub listeners: Vec<(ListenAddr, usize)>,
    /// Names that two vhosts of a listener have.
    pub conflicts: Vec<String>,
    /// The listeners that have lost their last vhost, with the names that they had.
    pub closed: Vec<Rc<Listener>>,
    /// The listeners whose socket options may have changed.
    pub options: Vec<Rc<Listener>>,
}

impl Committed {
    fn touch(&mut self, addr: &ListenAddr) {
        if !self.listeners.iter().any(|(known, _)| known == addr) {
            self.listeners.push((addr.clone(), 0));
        }
    }
}

fn duplicate_id(id: VsvcId, first: &Place, second: &model::Vhost) -> Refusal {
    wrong(format!("duplicate vsvc_id {id}, it is already used in {first} in {}", second.place))
}
