//! What is changed in a cycle: checked as a whole first, then made so without a way to fail.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::by_address::ByAddress;
use dysvr_conf::http::log::Format;
use dysvr_conf::http::map::Map;
use dysvr_conf::model::{ListenAddr, VsvcId};
use dysvr_conf::problem::Place;
use serde::{Deserialize, Serialize};

use super::addresses::{Addresses, Opening};
use super::definitions::Defined;
use super::digest::Sum;
use super::early::Put;
use super::entry::{Entry, Part};
use super::files::Moves;
use super::record::Used;
use super::upstream::Cells;
use super::{Cycle, Listener, Recorded, RecordedUpstream, Stamp, Vhost};

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
    pub vhosts: Vec<Recorded>,
    /// The upstreams that are added, or replaced if `touched` names them.
    pub upstreams: Vec<RecordedUpstream>,
    /// Where the master has put the records of those vhosts and upstreams, in a worker: then `upstreams` need not be there,
    /// and `vhosts` need not go on behind the last one that is pinned.
    pub placed: Option<Placed>,
    /// What was put of them already, by the master.
    pub put: Option<Put>,
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
    /// What the new ones are in a digest.
    sum: Sum,
    /// Those of the new ones that are compiled already.
    pub(super) pinned: Vec<Rc<Vhost>>,
    pub(super) addresses: Addresses,
    pub(super) upstreams: Cells,
    defined: Defined,
    files: Moves,
    delta: Delta,
    read: Vec<RecordedUpstream>,
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

/// The new vhosts of a listener, each with whether its `listen` says `default_server`.
type Entering<'c> = (Option<Rc<Listener>>, Vec<(&'c Part, bool)>);

/// Fewer new vhosts than this are entered one by one.
const MANY: usize = 256;

pub(super) fn wrong(text: String) -> Refusal {
    Refusal::Wrong(text)
}

impl Cycle {
    /// Checks a change against this cycle and builds what it needs; changes nothing.
    pub fn prepare(&self, mut change: Change) -> Result<Prepared, Refusal> {
        if change.placed.is_none() && change.put.is_none() {
            self.expect(&change.vhosts, &change.upstreams);
        }
        let (mut new, sum) = self.incoming(&mut change)?;
        let coming = self.coming_upstreams(&mut change)?;
        let gone = self.gone(&change, &mut new)?;
        let defined = self.prepare_definitions(&change, &gone, &new)?;
        let cells = self.prepare_upstreams(&change, coming, &gone)?;
        let files = self.prepare_files(&change, &gone, &new, &cells)?;
        let addresses = self.prepare_addresses(&change, &gone, &new)?;
        // What a load has checked itself, and a worker's master for it.
        let checks = change.kind != Kind::Load && change.placed.is_none();
        if checks {
            if addresses.ssl {
                self.check_ssl(&gone, &new)?;
            }
            self.check_caches(&gone, &new)?;
        }
        let mut pinned = Vec::new();
        for part in &new {
            match part.whole() {
                Some(conf) => {
                    let upstream = |name: &str| cells.find(self, name);
                    pinned.push(part.entry.keep(self.run(Arc::clone(conf), change.stamp, upstream)?));
                }
                None if !checks => {}
                None => {
                    let mut named = part.upstreams().filter_map(Used::named);
                    if let Some(name) = named.find(|name| cells.find(self, name).is_none()) {
                        return Err(no_upstream(name, &part.place()));
                    }
                }
            }
        }
        let Change { kind, stamp, removed, touched, upstreams: read, put, .. } = change;
        let delta = put.map(Put::into_delta).unwrap_or_else(|| {
            let vhosts = new.iter().map(|vhost| vhost.entry.at()).collect();
            Delta { kind, stamp, removed, touched, placed: Placed { vhosts, upstreams: cells.places.clone() } }
        });
        Ok(Prepared { gone, new, sum, pinned, addresses, upstreams: cells, defined, files, delta, read })
    }

    /// The vhosts that come, and their sum, which is made while their records are at hand.
    fn incoming(&self, change: &mut Change) -> Result<(Vec<Part>, Sum), Refusal> {
        let read = std::mem::take(&mut change.vhosts);
        let Some(placed) = &change.placed else {
            return self.coming(read, change.put.as_mut(), change.kind);
        };
        let mut read = read.into_iter();
        let mut parts = Vec::with_capacity(placed.vhosts.len());
        let mut sum = Sum::default();
        for at in &placed.vhosts {
            let part = self.placed(*at, read.next())?;
            sum += part.sum();
            parts.push(part);
        }
        Ok((parts, sum))
    }

    /// The vhosts that the change takes out, after the check that ids are as its kind says. (That they differ among themselves
    /// was checked when they were read.)
    fn gone(&self, change: &Change, new: &mut [Part]) -> Result<Vec<Part>, Refusal> {
        if change.kind == Kind::Load {
            return Ok(Vec::new()); // and that its ids are different ones
        }
        let vhosts = self.vhosts.borrow();
        let mut gone = Vec::new();
        for vhost in new {
            let Some(id) = vhost.id() else {
                return Err(wrong(format!("server without \"vsvc_id\" in {}", vhost.place())));
            };
            match (change.kind, vhosts.get(&id)) {
                (Kind::Modify | Kind::Set, Some(old)) => gone.push(vhost.replacing(old)),
                (Kind::Modify, None) => return Err(wrong(format!("no vhost has vsvc_id {id}: nothing to modify"))),
                (_, Some(old)) => return Err(duplicate_id(id, old, vhost)),
                (_, None) => {}
            }
        }
        for id in &change.removed {
            match vhosts.get(id) {
                Some(old) => gone.push(Part::going(old)),
                None => return Err(wrong(format!("no vhost has vsvc_id {id}: nothing to delete"))),
            }
        }
        Ok(gone)
    }

    /// Makes a prepared change so. It was prepared against this cycle as it is now.
    pub fn commit(&self, prepared: Prepared) -> Committed {
        let many = prepared.new.len() >= MANY;
        self.count_out(self.sum_of(&prepared.addresses.touched));
        self.commit_definitions(prepared.defined);
        self.commit_files(prepared.files);
        let mut listeners = self.listeners.borrow_mut();
        let mut vhosts = self.vhosts.borrow_mut();
        self.count_in(prepared.sum);
        let mut committed = Committed::default();

        for listener in &prepared.addresses.closes {
            listeners.remove(&listener.addr);
            listener.closed.set(true);
            committed.touch(&listener.addr);
        }
        for vhost in &prepared.gone {
            self.count_out(vhost.sum());
            if let Some(new) = &vhost.peer {
                for listen in new.listens() {
                    if let Some(listener) = listeners.get(&listen.addr) {
                        listener.names.borrow_mut().exchange(&vhost.entry, new);
                    }
                }
                continue;
            }
            for listen in vhost.listens() {
                // One that closes keeps its names: connections that it has may be about to ask.
                let Some(listener) = listeners.get(&listen.addr) else { continue };
                listener.names.borrow_mut().remove(&vhost.entry);
                committed.touch(&listen.addr);
            }
            if let Some(id) = vhost.id() {
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
        vhosts.reserve(prepared.new.iter().filter(|vhost| vhost.peer.is_none()).count());
        let mut coming: ByAddress<Entering<'_>> = ByAddress::default();
        let ignored = |addr: &ListenAddr, (name, place): (String, Place)| {
            format!("conflicting server name \"{name}\" on {addr}, ignored in {place}")
        };
        for vhost in &prepared.new {
            let entry = &vhost.entry;
            for listen in entry.listens() {
                let addr = listen.addr;
                if many && vhost.peer.is_none() {
                    // Each listener enters all its new vhosts at once.
                    let new = || (listeners.get(&addr).cloned(), Vec::new());
                    if let (Some(listener), vhosts) = coming.entry(&addr, new) {
                        listener.ssl.set(listen.ssl);
                        vhosts.push((vhost, listen.default_server));
                    }
                    continue;
                }
                let Some(listener) = listeners.get(&addr) else { continue };
                listener.ssl.set(listen.ssl);
                let conflicts = match vhost.peer {
                    Some(_) => listener.names.borrow().conflicts(entry, prepared.delta.stamp),
                    None => listener.names.borrow_mut().insert(vhost, listen.default_server),
                };
                committed.conflicts.extend(conflicts.into_iter().map(|conflict| ignored(&addr, conflict)));
                committed.touch(&addr);
            }
            if let Some(id) = entry.id() {
                // `insert` would make room for one more, whether it is there or not.
                vhosts.entry(id).insert_entry(Rc::clone(entry));
            }
        }
        for (addr, (listener, coming)) in coming.into_iter() {
            let Some(listener) = listener else { continue };
            let mut names = listener.names.borrow_mut();
            let conflicts = match names.count() <= coming.len() {
                true => names.fill(&coming),
                false => coming.iter().flat_map(|(vhost, default)| names.insert(vhost, *default)).collect(),
            };
            committed.conflicts.extend(conflicts.into_iter().map(|conflict| ignored(&addr, conflict)));
            committed.touch(&addr);
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
        self.count_in(self.sum_of(&prepared.addresses.touched));
        committed.over = Over { _gone: prepared.gone, _new: prepared.new, _read: prepared.read };
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
    _read: Vec<RecordedUpstream>,
}

impl Committed {
    fn touch(&mut self, addr: &ListenAddr) {
        if !self.listeners.iter().any(|(known, _)| known == addr) {
            self.listeners.push((addr.clone(), 0));
        }
    }
}

pub(super) fn no_upstream(name: &str, place: &Place) -> Refusal {
    wrong(format!("host not found in upstream \"{name}\" in {place}"))
}

fn duplicate_id(id: VsvcId, first: &Entry, second: &Entry) -> Refusal {
    wrong(format!("duplicate vsvc_id {id}, it is already used in {} in {}", first.place(), second.place()))
}
