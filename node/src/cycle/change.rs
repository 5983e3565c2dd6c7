//! What is changed in a cycle: checked as a whole first, then made so without a way to fail.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::http::log::Format;
use dysvr_conf::http::map::Map;
use dysvr_conf::model::{self, ListenAddr, Outline, UpstreamRef, VsvcId};
use dysvr_conf::problem::Place;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::addresses::{Addresses, Opening};
use super::definitions::Defined;
use super::entry::Part;
use super::files::Moves;
use super::upstream::Cells;
use super::{Cycle, Listener, Stamp, Vhost};

/// What a change does to the vhosts that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Where the master has put the records of those vhosts and upstreams, in a worker: then `upstreams` need not be there,
    /// and of `vhosts` those that are pinned alone.
    pub placed: Option<Placed>,
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

/// A change of which everything that comes stands in the region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// See [`Change::kind`].
    pub kind: Kind,
    /// See [`Change::stamp`].
    pub stamp: Stamp,
    /// See [`Change::removed`].
    pub removed: Vec<VsvcId>,
    /// See [`Change::touched`].
    pub touched: Vec<Arc<str>>,
    /// What comes.
    pub placed: Placed,
}

/// Places in the region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Of the vhosts, in the order of the change.
    pub vhosts: Vec<u32>,
    /// Of the upstreams, in no order.
    pub upstreams: Vec<u32>,
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
    pub(super) gone: Vec<Part>,
    pub(super) new: Vec<Part>,
    /// Those of the new ones that are compiled already.
    pub(super) pinned: Vec<Rc<Vhost>>,
    pub(super) addresses: Addresses,
    pub(super) upstreams: Cells,
    defined: Defined,
    files: Moves,
    delta: Delta,
}

impl Prepared {
    /// The addresses that need a socket of their own once the change is made, and may have none yet.
    pub fn opens(&self) -> &[Opening] {
        &self.addresses.opens
    }

    /// The same change for the workers.
    pub fn delta(&self) -> &Delta {
        &self.delta
    }

    /// Whether a worker needs no more than the records to follow.
    pub fn is_light(&self) -> bool {
        self.pinned.is_empty() && !self.defined.is_some() && self.addresses.opens.is_empty()
    }
}

/// Fewer new vhosts than this are entered one by one.
const MANY: usize = 256;

pub(super) fn wrong(text: String) -> Refusal {
    Refusal::Wrong(text)
}

impl Cycle {
    /// Checks a change against this cycle and builds what it needs; changes nothing.
    pub fn prepare(&self, change: Change) -> Result<Prepared, Refusal> {
        let new = self.incoming(&change)?;
        let gone = self.gone(&change, &new)?;
        let defined = self.prepare_definitions(&change, &gone, &new)?;
        let cells = self.prepare_upstreams(&change, &gone)?;
        let files = self.prepare_files(&change, &gone, &new, &cells)?;
        let addresses = self.prepare_addresses(&change, &gone, &new)?;
        // What a load has checked itself, and a worker's master for it.
        if change.kind != Kind::Load && change.placed.is_none() {
            self.check_ssl(&gone, &new)?;
            self.check_caches(&gone, &new)?;
        }
        let mut pinned = Vec::new();
        for part in &new {
            match part.read().filter(|_| part.entry.is_pinned()) {
                Some(conf) => {
                    let upstream = |name: &str| cells.find(self, name);
                    pinned.push(part.entry.keep(self.run(Arc::clone(conf), change.stamp, upstream)?));
                }
                // A load has found its upstreams itself.
                None if change.kind == Kind::Load => {}
                None => {
                    let mut named = part.upstreams.iter().filter_map(|used| match used {
                        UpstreamRef::Implicit(_) => None,
                        UpstreamRef::Named(name) => Some(name),
                    });
                    if let Some(name) = named.find(|name| cells.find(self, name).is_none()) {
                        return Err(no_upstream(name, part));
                    }
                }
            }
        }
        let placed =
            Placed { vhosts: new.iter().map(|vhost| vhost.entry.at()).collect(), upstreams: cells.places.clone() };
        let Change { kind, stamp, removed, touched, .. } = change;
        let delta = Delta { kind, stamp, removed, touched, placed };
        Ok(Prepared { gone, new, pinned, addresses, upstreams: cells, defined, files, delta })
    }

    /// The vhosts that come.
    fn incoming(&self, change: &Change) -> Result<Vec<Part>, Refusal> {
        let Some(placed) = &change.placed else {
            return self.coming(&change.vhosts, change.stamp);
        };
        let read = |number: usize| change.vhosts.get(number);
        placed.vhosts.iter().enumerate().map(|(number, at)| self.placed(*at, read(number))).collect()
    }

    /// The vhosts that the change takes out, after the check that ids are as its kind says.
    fn gone(&self, change: &Change, new: &[Part]) -> Result<Vec<Part>, Refusal> {
        if change.kind == Kind::Load {
            return Ok(Vec::new()); // and that its ids are different ones
        }
        let vhosts = self.vhosts.borrow();
        let mut seen: FxHashMap<VsvcId, &Part> = FxHashMap::default();
        seen.reserve(new.len());
        let mut gone = Vec::new();
        for vhost in new {
            let Some(id) = vhost.vsvc_id else {
                return Err(wrong(format!("server without \"vsvc_id\" in {}", vhost.place)));
            };
            if let Some(first) = seen.insert(id, vhost) {
                return Err(duplicate_id(id, &first.place, vhost));
            }
            match (change.kind, vhosts.get(&id)) {
                (Kind::Modify | Kind::Set, Some(old)) => gone.push(Part::going(old)?),
                (Kind::Modify, None) => return Err(wrong(format!("no vhost has vsvc_id {id}: nothing to modify"))),
                (_, Some(old)) => return Err(duplicate_id(id, &old.outline()?.place, vhost)),
                (_, None) => {}
            }
        }
        for id in &change.removed {
            match vhosts.get(id) {
                Some(old) => gone.push(Part::going(old)?),
                None => return Err(wrong(format!("no vhost has vsvc_id {id}: nothing to delete"))),
            }
        }
        Ok(gone)
    }

    /// Makes a prepared change so. It was prepared against this cycle as it is now.
    pub fn commit(&self, prepared: Prepared) -> Committed {
        // What is more than there was is counted anew with all the rest at the end.
        let many = prepared.new.len() >= MANY;
        let whole = self.sum.get().is_none() || many && prepared.new.len() >= self.count.get();
        let touched = if whole { None } else { self.digest_without(&prepared) };
        if whole {
            self.sum.set(None);
        }
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
            for listen in &vhost.listens {
                // One that closes keeps its names: connections that it has may be about to ask.
                let Some(listener) = listeners.get(&listen.addr) else { continue };
                listener.names.borrow_mut().remove(vhost);
                committed.touch(&listen.addr);
            }
            if let Some(id) = vhost.vsvc_id {
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
        let mut coming: FxHashMap<&ListenAddr, Vec<(&Part, bool)>> = FxHashMap::default();
        let ignored = |addr: &ListenAddr, (name, place): (String, Place)| {
            format!("conflicting server name \"{name}\" on {addr}, ignored in {place}")
        };
        for vhost in &prepared.new {
            for listen in &vhost.listens {
                let addr = &listen.addr;
                let Some(listener) = listeners.get(addr) else { continue };
                listener.ssl.set(listen.ssl);
                if many || whole {
                    // Each listener enters all its new vhosts at once.
                    coming.entry(addr).or_default().push((vhost, listen.default_server));
                    continue;
                }
                let conflicts = listener.names.borrow_mut().insert(vhost, listen.default_server);
                committed.conflicts.extend(conflicts.into_iter().map(|conflict| ignored(addr, conflict)));
                committed.touch(addr);
            }
            if let Some(id) = vhost.vsvc_id {
                vhosts.insert(id, Rc::clone(&vhost.entry));
            }
        }
        for (addr, coming) in coming {
            let Some(listener) = listeners.get(addr) else { continue };
            let mut names = listener.names.borrow_mut();
            let conflicts = match names.count() <= coming.len() {
                true => names.fill(&coming),
                false => coming.iter().flat_map(|(vhost, default)| names.insert(vhost, *default)).collect(),
            };
            committed.conflicts.extend(conflicts.into_iter().map(|conflict| ignored(addr, conflict)));
            committed.touch(addr);
        }
        self.count.set(self.count.get() + prepared.new.len() - prepared.gone.len());
        for (addr, total) in &mut committed.listeners {
            *total = listeners.get(addr).map_or(0, |listener| listener.names.borrow().count());
        }
        for listener in &prepared.addresses.closes {
            // What it keeps outlives the records.
            listener.names.borrow().iter().for_each(|entry| entry.detach());
        }
        committed.closed = prepared.addresses.closes;
        committed.options = prepared.addresses.options.into_iter().map(|(listener, _)| listener).collect();
        drop((listeners, vhosts));
        self.digest_with(touched);
        committed.over = Over { _gone: prepared.gone, _new: prepared.new };
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
    /// What is left of the change.
    pub over: Over,
}

/// What went, and what was read for what came: to be dropped when nobody waits any more.
#[derive(Debug, Default)]
pub struct Over {
    _gone: Vec<Part>,
    _new: Vec<Part>,
}

impl Committed {
    fn touch(&mut self, addr: &ListenAddr) {
        if !self.listeners.iter().any(|(known, _)| known == addr) {
            self.listeners.push((addr.clone(), 0));
        }
    }
}

pub(super) fn no_upstream(name: &str, vhost: &Outline) -> Refusal {
    wrong(format!("host not found in upstream \"{name}\" in {}", vhost.place))
}

fn duplicate_id(id: VsvcId, first: &Place, second: &Outline) -> Refusal {
    wrong(format!("duplicate vsvc_id {id}, it is already used in {first} in {}", second.place))
}
