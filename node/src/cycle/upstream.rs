//! Upstreams as they run, and their part of a change.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::hash::BuildHasher as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::digest::Digest;
use dysvr_conf::model::{self, OrderKey, UpstreamRef};
use dysvr_conf::problem::Place;
use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use super::change::wrong;
use super::digest::{Kind, Sum};
use super::entry::Part;
use super::record::{self, Damaged, UpstreamRecord};
use super::two::in_two;
use super::{Change, Cycle, Refusal};
use crate::http::upstream::State;
use crate::log::Level;
use crate::os::region::Blob;

/// An upstream at one moment: its configuration, and the health, counters and idle connections of its peers.
#[derive(Debug)]
pub struct Upstream {
    /// What it is.
    pub conf: Arc<model::Upstream>,
    /// What it has been through.
    pub state: State,
}

/// The identity of an upstream: vhosts hold the cell, so that a new configuration of the upstream reaches all of them
/// at once, while a request goes on with what it took out. What it is stands in its record until it is used.
#[derive(Debug)]
pub struct UpstreamCell {
    /// None for one that a `proxy_pass` to a host makes.
    record: RefCell<Option<Blob>>,
    current: RefCell<Option<Rc<Upstream>>>,
    /// How many times vhosts pass to it; it cannot go while there are any.
    pub(super) users: Cell<u32>,
}

impl UpstreamCell {
    fn new(record: Option<Blob>, current: Option<Rc<Upstream>>) -> Rc<Self> {
        Rc::new(Self { record: RefCell::new(record), current: RefCell::new(current), users: Cell::new(0) })
    }

    /// That of a `proxy_pass` to a host.
    pub(super) fn implicit(conf: &Arc<model::Upstream>) -> Rc<Self> {
        Self::new(None, Some(Rc::new(Upstream { conf: Arc::clone(conf), state: State::new(conf) })))
    }

    /// The upstream as it is now. An empty one when its record cannot be read, which is in the log.
    pub fn get(&self) -> Rc<Upstream> {
        let mut current = self.current.borrow_mut();
        Rc::clone(current.get_or_insert_with(|| {
            let conf = self.conf_of_record();
            Rc::new(Upstream { state: State::new(&conf), conf })
        }))
    }

    /// What it is, without making it ready for requests.
    pub fn conf(&self) -> Arc<model::Upstream> {
        match &*self.current.borrow() {
            Some(upstream) => Arc::clone(&upstream.conf),
            None => self.conf_of_record(),
        }
    }

    fn conf_of_record(&self) -> Arc<model::Upstream> {
        let record = self.record.borrow();
        let read = record.as_deref().ok_or(Damaged).and_then(|record| UpstreamRecord(record).upstream());
        Arc::new(read.unwrap_or_else(|Damaged| {
            log!(Level::Alert, "[dysvr] upstream \"{}\": {Damaged}", self.name());
            model::Upstream {
                name: self.name(),
                place: Place { file: Path::new("").into(), line: 0 },
                order: OrderKey::default(),
                peers: Box::default(),
                keepalive: None,
                digest: Digest::default(),
            }
        }))
    }

    fn with_name<T>(&self, look: impl FnOnce(&str) -> T) -> T {
        match (&*self.record.borrow(), &*self.current.borrow()) {
            (Some(record), _) => look(UpstreamRecord(record).name()),
            (None, Some(upstream)) => look(&upstream.conf.name),
            (None, None) => look(""),
        }
    }

    /// Its name as it is written.
    pub fn name(&self) -> Arc<str> {
        self.with_name(|name| name.into())
    }

    fn is_named(&self, other: &str) -> bool {
        self.with_name(|name| name.eq_ignore_ascii_case(other))
    }

    /// Its part of the cycle's digest.
    pub fn sum(&self) -> Sum {
        let digest = match (&*self.record.borrow(), &*self.current.borrow()) {
            (Some(record), _) => UpstreamRecord(record).digest(),
            (None, upstream) => upstream.as_ref().map(|upstream| upstream.conf.digest).unwrap_or_default(),
        };
        self.with_name(|name| Sum::of(Kind::Upstream, (name, digest.0, self.users.get())))
    }

    fn replace(&self, coming: Coming) {
        self.record.replace(Some(coming.record));
        let old = self.current.take();
        if let Some(old) = old {
            let conf = coming.read.unwrap_or_else(|| self.conf_of_record());
            let state = State::carry_over(&old.state, &old.conf, &conf);
            self.current.replace(Some(Rc::new(Upstream { conf, state })));
        }
    }
}

/// Upstreams by name; names have no case.
#[derive(Debug, Default)]
pub(super) struct Named(HashTable<Rc<UpstreamCell>>);

fn hash_of(name: &str) -> u64 {
    FxBuildHasher.hash_one(&*lower(name))
}

fn hash_of_cell(cell: &Rc<UpstreamCell>) -> u64 {
    cell.with_name(hash_of)
}

impl Named {
    pub(super) fn get(&self, name: &str) -> Option<&Rc<UpstreamCell>> {
        self.0.find(hash_of(name), |cell| cell.is_named(name))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Rc<UpstreamCell>> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds one whose name nobody has.
    fn add(&mut self, cell: Rc<UpstreamCell>) {
        self.0.insert_unique(hash_of_cell(&cell), cell, hash_of_cell);
    }

    fn remove(&mut self, name: &str) {
        if let Ok(found) = self.0.find_entry(hash_of(name), |cell| cell.is_named(name)) {
            found.remove();
        }
    }
}

/// The upstreams of a process.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    pub(super) named: Named,
    /// How many times vhosts pass to hosts that are no upstreams, by host in lower case.
    pub(super) hosts: FxHashMap<Box<str>, u32>,
}

/// An upstream that comes.
#[derive(Debug)]
struct Coming {
    record: Blob,
    /// Where it was just read.
    read: Option<Arc<model::Upstream>>,
}

impl Coming {
    fn name(&self) -> &str {
        UpstreamRecord(&self.record).name()
    }

    fn duplicate(&self) -> Refusal {
        let place = self.read.as_ref().map(|read| format!(" in {}", read.place)).unwrap_or_default();
        wrong(format!("duplicate upstream \"{}\"{place}", self.name()))
    }
}

/// An upstream that is new, with what was read of it where that was just now.
type Fresh = (Rc<UpstreamCell>, Option<Arc<model::Upstream>>);

/// The upstreams of a change.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// By name in lower case.
    fresh: FxHashMap<Arc<str>, Fresh>,
    replaced: Vec<(Rc<UpstreamCell>, Coming)>,
    gone: FxHashSet<Arc<str>>,
    /// Where the records of those that come stand in the region, in the order of the change.
    pub(super) places: Vec<u32>,
}

impl Cells {
    /// What the upstreams that come, change or go are known by.
    pub(super) fn keys(&self) -> impl Iterator<Item = Arc<str>> {
        let replaced = self.replaced.iter().map(|(_, coming)| key(coming.name()));
        self.fresh.keys().chain(&self.gone).cloned().chain(replaced)
    }

    /// What the upstreams that change or go are until then.
    pub(super) fn standing(&self, cycle: &Cycle) -> impl Iterator<Item = Arc<model::Upstream>> {
        let gone = self.gone.iter().filter_map(|name| cycle.upstream(name));
        self.replaced.iter().map(|(cell, _)| Rc::clone(cell)).chain(gone).map(|cell| cell.conf())
    }

    /// Those that were just read.
    pub(super) fn read(&self) -> impl Iterator<Item = &Arc<model::Upstream>> {
        let fresh = self.fresh.values().filter_map(|(_, read)| read.as_ref());
        fresh.chain(self.replaced.iter().filter_map(|(_, coming)| coming.read.as_ref()))
    }

    /// The cell of a name once the change is made.
    pub(super) fn find(&self, cycle: &Cycle, name: &str) -> Option<Rc<UpstreamCell>> {
        let key = lower(name);
        if self.gone.contains(&*key) {
            return None;
        }
        self.fresh.get(&*key).map(|(cell, _)| Rc::clone(cell)).or_else(|| cycle.upstream(name))
    }
}

fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// What a name is known by.
pub(super) fn key(name: &str) -> Arc<str> {
    lower(name).into()
}

/// The host of an upstream that a `proxy_pass` makes, which is called `HOST[:PORT]`, in lower case.
fn host_of(upstream: &model::Upstream) -> Option<Cow<'_, str>> {
    let name = &*upstream.name;
    let plain = !name.starts_with('[') && !name.starts_with("unix:");
    plain.then(|| lower(name.split_once(':').map_or(name, |(host, _)| host)))
}

impl Cycle {
    /// The upstream of a name.
    pub fn upstream(&self, name: &str) -> Option<Rc<UpstreamCell>> {
        self.upstreams.borrow().named.get(name).cloned()
    }

    /// The upstreams of a change with their records: those that were just read, or those that the master has put.
    fn coming_upstreams(&self, change: &Change) -> Result<Vec<Coming>, Refusal> {
        let Some(placed) = &change.placed else {
            let mut read = Vec::with_capacity(change.upstreams.len());
            for (conf, bytes) in in_two(&change.upstreams, |conf| record::write_upstream(conf)) {
                read.push(Coming { record: self.put(&bytes)?, read: Some(Arc::clone(conf)) });
            }
            return Ok(read);
        };
        let placed = placed.upstreams.iter().map(|&at| {
            let record = self.region.blob(at).ok_or_else(|| wrong(format!("nothing stands at {at}")))?;
            Ok(Coming { record, read: None })
        });
        placed.collect()
    }

    pub(super) fn prepare_upstreams(&self, change: &Change, gone: &[Part]) -> Result<Cells, Refusal> {
        let all = self.upstreams.borrow();
        let touched: FxHashSet<Arc<str>> = change.touched.iter().map(|name| key(name)).collect();
        let mut cells = Cells::default();
        let coming = self.coming_upstreams(change)?;
        cells.fresh.reserve(coming.len());
        let mut kept: FxHashSet<Arc<str>> = FxHashSet::default();
        for upstream in coming {
            let key = key(upstream.name());
            cells.places.push(upstream.record.at());
            match all.named.get(&key) {
                Some(cell) if touched.contains(&key) => {
                    if !kept.insert(key) {
                        return Err(upstream.duplicate());
                    }
                    cells.replaced.push((Rc::clone(cell), upstream));
                }
                Some(_) => return Err(upstream.duplicate()),
                None => match cells.fresh.entry(key) {
                    Entry::Occupied(_) => return Err(upstream.duplicate()),
                    Entry::Vacant(entry) => {
                        entry.insert((UpstreamCell::new(Some(upstream.record), None), upstream.read));
                    }
                },
            }
        }
        // In a load nothing stands beside the change.
        if !all.hosts.is_empty() {
            all.check_hosts(&cells, gone)?;
        }
        let mut leaving: FxHashMap<Cow<'_, str>, u32> = FxHashMap::default();
        for used in gone.iter().flat_map(|vhost| &vhost.upstreams) {
            if let UpstreamRef::Named(name) = used {
                *leaving.entry(lower(name)).or_default() += 1;
            }
        }
        for name in &change.touched {
            let key = key(name);
            if kept.contains(&key) || cells.fresh.contains_key(&key) {
                continue;
            }
            let Some(cell) = all.named.get(&key) else {
                return Err(wrong(format!("no upstream is named \"{name}\"")));
            };
            let staying = cell.users.get().saturating_sub(leaving.get(&*key).copied().unwrap_or_default());
            if staying > 0 {
                return Err(wrong(format!("upstream \"{name}\" is still used by {staying} other vhost(s)")));
            }
            cells.gone.insert(key);
        }
        Ok(cells)
    }

    pub(super) fn commit_upstreams(&self, cells: Cells, gone: &[Part], new: &[Part]) {
        let mut all = self.upstreams.borrow_mut();
        for used in gone.iter().flat_map(|vhost| &vhost.upstreams) {
            match used {
                UpstreamRef::Named(name) => {
                    if let Some(cell) = all.named.get(name) {
                        cell.users.set(cell.users.get().saturating_sub(1));
                    }
                }
                UpstreamRef::Implicit(upstream) => all.forget_host(upstream),
            }
        }
        for name in cells.gone {
            all.named.remove(&name);
        }
        for (cell, coming) in cells.replaced {
            cell.replace(coming);
        }
        all.named.0.reserve(cells.fresh.len(), hash_of_cell);
        for (cell, _) in cells.fresh.into_values() {
            all.named.add(cell);
        }
        for used in new.iter().flat_map(|vhost| &vhost.upstreams) {
            match used {
                UpstreamRef::Named(name) => {
                    if let Some(cell) = all.named.get(name) {
                        cell.users.set(cell.users.get() + 1);
                    }
                }
                UpstreamRef::Implicit(upstream) => all.note_host(upstream),
            }
        }
    }
}

impl Upstreams {
    /// A `proxy_pass` to a host means the upstream of that name if there is one. One that is new would take over what
    /// vhosts pass to the host by now, which only those vhosts can be made anew for.
    fn check_hosts(&self, cells: &Cells, gone: &[Part]) -> Result<(), Refusal> {
        for (name, (cell, _)) in &cells.fresh {
            let Some(users) = self.hosts.get(&**name) else { continue };
            let implicit = gone.iter().flat_map(|vhost| &vhost.upstreams).filter(|used| match used {
                UpstreamRef::Implicit(upstream) => host_of(upstream).is_some_and(|host| *host == **name),
                UpstreamRef::Named(_) => false,
            });
            let staying = *users as usize - implicit.count();
            if staying > 0 {
                let place = &cell.conf().place;
                return Err(Refusal::NeedsReload(format!(
                    "{staying} other vhost(s) pass to the host \"{name}\", which becomes an upstream in {place}"
                )));
            }
        }
        Ok(())
    }

    fn note_host(&mut self, upstream: &model::Upstream) {
        if let Some(host) = host_of(upstream) {
            match self.hosts.get_mut(&*host) {
                Some(users) => *users += 1,
                None => drop(self.hosts.insert(host.into(), 1)),
            }
        }
    }

    fn forget_host(&mut self, upstream: &model::Upstream) {
        if let Some(host) = host_of(upstream)
            && let Some(users) = self.hosts.get_mut(&*host)
        {
            *users -= 1;
            if *users == 0 {
                self.hosts.remove(&*host);
            }
        }
    }
}
