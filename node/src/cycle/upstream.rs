//! Upstreams as they run, and their part of a change.

mod named;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::digest::Digest;
use dysvr_conf::model::{self, OrderKey};
use dysvr_conf::problem::Place;
use rustc_hash::{FxHashMap, FxHashSet};

use super::change::{self, wrong};
use super::digest::{Kind, Sum};
use super::entry::Part;
use super::record::{Damaged, UpstreamRecord, Used};
use super::slot::Slot;
use super::{Change, Cycle, Refusal, files};
use crate::http::upstream::State;
use crate::log::Level;
use crate::os::region::Blob;
use named::Named;

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
    current: Slot<Upstream>,
    /// How many times vhosts pass to it; it cannot go while there are any.
    pub(super) users: Cell<u32>,
}

impl UpstreamCell {
    fn new(record: Option<Blob>, current: Option<Rc<Upstream>>) -> Rc<Self> {
        Rc::new(Self { record: RefCell::new(record), current: current.into(), users: Cell::new(0) })
    }

    /// That of a `proxy_pass` to a host.
    pub(super) fn implicit(conf: &Arc<model::Upstream>) -> Rc<Self> {
        Self::new(None, Some(Rc::new(Upstream { conf: Arc::clone(conf), state: State::new(conf) })))
    }

    /// The upstream as it is now. An empty one when its record cannot be read, which is in the log.
    pub fn get(&self) -> Rc<Upstream> {
        if let Some(current) = self.current.get() {
            return current;
        }
        let conf = self.conf_of_record();
        let current = Rc::new(Upstream { state: State::new(&conf), conf });
        self.current.set(Rc::clone(&current));
        current
    }

    /// What it is, without making it ready for requests.
    pub fn conf(&self) -> Arc<model::Upstream> {
        match self.current.get() {
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

    /// The file that its block stands in.
    fn file(&self) -> files::Name {
        self.record.borrow().as_deref().map_or(0, |record| UpstreamRecord(record).file())
    }

    fn with_name<T>(&self, look: impl FnOnce(&str) -> T) -> T {
        match &*self.record.borrow() {
            Some(record) => look(UpstreamRecord(record).name()),
            None => look(self.current.get().as_ref().map_or("", |upstream| &upstream.conf.name)),
        }
    }

    /// Its name as it is written.
    pub fn name(&self) -> Arc<str> {
        self.with_name(|name| name.into())
    }

    fn is_named(&self, other: &str) -> bool {
        self.with_name(|name| name.eq_ignore_ascii_case(other))
    }

    /// Its part of the cycle's digest: what it is, and each time that a vhost passes to it.
    pub fn sum(&self) -> Sum {
        let mut sum = self.with_name(sum_of_use).times(self.users.get());
        sum += self.own_sum();
        sum
    }

    fn own_sum(&self) -> Sum {
        let digest = match &*self.record.borrow() {
            Some(record) => UpstreamRecord(record).digest(),
            None => self.current.get().map(|upstream| upstream.conf.digest).unwrap_or_default(),
        };
        self.with_name(|name| Sum::of(Kind::Upstream, (name, digest.0)))
    }

    fn replace(&self, record: Blob) {
        self.record.replace(Some(record));
        let old = self.current.take();
        if let Some(old) = old {
            let conf = self.conf_of_record();
            let state = State::carry_over(&old.state, &old.conf, &conf);
            self.current.set(Rc::new(Upstream { conf, state }));
        }
    }
}

fn sum_of_use(name: &str) -> Sum {
    Sum::of(Kind::Use, &*lower(name))
}

/// The upstreams of a process.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    pub(super) named: Named,
    /// How many times vhosts pass to hosts that are no upstreams, by host in lower case.
    pub(super) hosts: FxHashMap<Box<str>, u32>,
}

fn duplicate(cell: &UpstreamCell) -> Refusal {
    let conf = cell.conf();
    wrong(format!("duplicate upstream \"{}\" in {}", conf.name, conf.place))
}

/// The upstreams of a change.
#[derive(Debug, Default)]
pub(super) struct Cells {
    fresh: Named,
    /// What the fresh ones are in a digest: summed up while their records are at hand.
    sum: Sum,
    replaced: Vec<(Rc<UpstreamCell>, Blob)>,
    gone: FxHashSet<Arc<str>>,
    /// Where the records of those that come stand in the region, in the order of the change.
    pub(super) places: Vec<u32>,
}

impl Cells {
    /// The files that the upstreams which change or go stand in until then.
    pub(super) fn leaves(&self, cycle: &Cycle) -> impl Iterator<Item = files::Name> {
        let gone = self.gone.iter().filter_map(|name| cycle.upstream(name));
        self.replaced.iter().map(|(cell, _)| Rc::clone(cell)).chain(gone).map(|cell| cell.file())
    }

    /// The files that those stand in which come.
    pub(super) fn enters(&self) -> impl Iterator<Item = files::Name> {
        let fresh = self.fresh.values().map(|cell| cell.file());
        fresh.chain(self.replaced.iter().map(|(_, record)| UpstreamRecord(record).file()))
    }

    /// The cell of a name once the change is made.
    pub(super) fn find(&self, cycle: &Cycle, name: &str) -> Option<Rc<UpstreamCell>> {
        let key = lower(name);
        if self.gone.contains(&*key) {
            return None;
        }
        self.fresh.get(name).cloned().or_else(|| cycle.upstream(name))
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
fn host_of(name: &str) -> Option<Cow<'_, str>> {
    let plain = !name.starts_with('[') && !name.starts_with("unix:");
    plain.then(|| lower(name.split_once(':').map_or(name, |(host, _)| host)))
}

impl Cycle {
    /// The upstream of a name.
    pub fn upstream(&self, name: &str) -> Option<Rc<UpstreamCell>> {
        self.upstreams.borrow().named.get(name).cloned()
    }

    /// The records of a change's upstreams: of those that were just read, or those that the master has put.
    pub(super) fn coming_upstreams(&self, change: &mut Change) -> Result<Vec<Blob>, Refusal> {
        let Some(placed) = &change.placed else {
            if let Some(put) = &mut change.put {
                return Ok(put.take_upstreams());
            }
            // As with vhosts.
            return match change.kind {
                change::Kind::Load => change.upstreams.drain(..).map(|upstream| self.put(&upstream.record)).collect(),
                _ => change.upstreams.iter().map(|upstream| self.put(&upstream.record)).collect(),
            };
        };
        let record = |&at: &u32| {
            let record = self.region.blob(at).ok_or_else(|| wrong(format!("nothing stands at {at}")))?;
            UpstreamRecord(&record).check().map_err(|damaged| wrong(format!("the upstream at {at}: {damaged}")))?;
            Ok(record)
        };
        let mut records = Vec::with_capacity(placed.upstreams.len());
        for at in &placed.upstreams {
            records.push(record(at)?);
        }
        Ok(records)
    }

    pub(super) fn prepare_upstreams(
        &self,
        change: &Change,
        coming: Vec<Blob>,
        gone: &[Part],
    ) -> Result<Cells, Refusal> {
        let all = self.upstreams.borrow();
        let touched: FxHashSet<Arc<str>> = change.touched.iter().map(|name| key(name)).collect();
        let mut cells = Cells::default();
        cells.fresh.reserve(coming.len());
        cells.places.reserve(coming.len());
        let mut kept: FxHashSet<Arc<str>> = FxHashSet::default();
        for record in coming {
            let name = UpstreamRecord(&record).name();
            cells.places.push(record.at());
            let Some(cell) = all.named.get(name) else {
                let cell = UpstreamCell::new(Some(record), None);
                cells.sum += cell.own_sum();
                if !cells.fresh.add(Rc::clone(&cell)) {
                    return Err(duplicate(&cell));
                }
                continue;
            };
            if !touched.contains(&*lower(name)) || !kept.insert(key(name)) {
                return Err(duplicate(&UpstreamCell::new(Some(record), None)));
            }
            cells.replaced.push((Rc::clone(cell), record));
        }
        // In a load nothing stands beside the change.
        if !all.hosts.is_empty() {
            all.check_hosts(&cells, gone)?;
        }
        let mut leaving: FxHashMap<Cow<'_, str>, u32> = FxHashMap::default();
        for used in gone.iter().flat_map(|vhost| vhost.upstreams()) {
            if let Used::Named(name) = used {
                *leaving.entry(lower(name)).or_default() += 1;
            }
        }
        for name in &change.touched {
            let key = key(name);
            if kept.contains(&key) || cells.fresh.get(&key).is_some() {
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
        for used in gone.iter().flat_map(|vhost| vhost.upstreams()) {
            match used {
                Used::Named(name) => {
                    if let Some(cell) = all.named.get(name).filter(|cell| cell.users.get() > 0) {
                        cell.users.set(cell.users.get() - 1);
                        self.count_out(sum_of_use(name));
                    }
                }
                Used::Implicit(name, _) => all.forget_host(name),
            }
        }
        for name in cells.gone {
            if let Some(cell) = all.named.remove(&name) {
                self.count_out(cell.sum());
            }
        }
        for (cell, record) in cells.replaced {
            self.count_out(cell.own_sum());
            cell.replace(record);
            self.count_in(cell.own_sum());
        }
        self.count_in(cells.sum);
        all.named.append(cells.fresh);
        for used in new.iter().flat_map(|vhost| vhost.upstreams()) {
            match used {
                Used::Named(name) => {
                    if let Some(cell) = all.named.get(name) {
                        cell.users.set(cell.users.get() + 1);
                        self.count_in(sum_of_use(name));
                    }
                }
                Used::Implicit(name, _) => all.note_host(name),
            }
        }
    }
}

impl Upstreams {
    /// A `proxy_pass` to a host means the upstream of that name if there is one. One that is new would take over what
    /// vhosts pass to the host by now, which only those vhosts can be made anew for.
    fn check_hosts(&self, cells: &Cells, gone: &[Part]) -> Result<(), Refusal> {
        for cell in cells.fresh.values() {
            let name = key(&cell.name());
            let Some(users) = self.hosts.get(&*name) else { continue };
            let implicit = gone.iter().flat_map(|vhost| vhost.upstreams()).filter(|used| match used {
                Used::Implicit(passed, _) => host_of(passed).is_some_and(|host| *host == *name),
                Used::Named(_) => false,
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

    fn note_host(&mut self, name: &str) {
        if let Some(host) = host_of(name) {
            match self.hosts.get_mut(&*host) {
                Some(users) => *users += 1,
                None => drop(self.hosts.insert(host.into(), 1)),
            }
        }
    }

    fn forget_host(&mut self, name: &str) {
        if let Some(host) = host_of(name)
            && let Some(users) = self.hosts.get_mut(&*host)
        {
            *users -= 1;
            if *users == 0 {
                self.hosts.remove(&*host);
            }
        }
    }
}
