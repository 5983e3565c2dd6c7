//! Upstreams as they run, and their part of a change.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::model::{self, UpstreamRef};
use rustc_hash::{FxHashMap, FxHashSet};

use super::change::wrong;
use super::digest::{Kind, Sum};
use super::{Change, Cycle, Refusal, Vhost};
use crate::http::upstream::State;

/// An upstream at one moment: its configuration, and the health, counters and idle connections of its peers.
#[derive(Debug)]
pub struct Upstream {
    /// What it is.
    pub conf: Arc<model::Upstream>,
    /// What it has been through.
    pub state: State,
}

/// The identity of an upstream: vhosts hold the cell, so that a new configuration of the upstream reaches all of them
/// at once, while a request goes on with what it took out.
#[derive(Debug)]
pub struct UpstreamCell {
    current: RefCell<Rc<Upstream>>,
    /// How many times vhosts pass to it; it cannot go while there are any.
    pub(super) users: Cell<u32>,
}

impl UpstreamCell {
    pub(super) fn new(conf: &Arc<model::Upstream>) -> Rc<Self> {
        let upstream = Upstream { conf: Arc::clone(conf), state: State::new(conf) };
        Rc::new(Self { current: RefCell::new(Rc::new(upstream)), users: Cell::new(0) })
    }

    /// The upstream as it is now.
    pub fn get(&self) -> Rc<Upstream> {
        Rc::clone(&self.current.borrow())
    }

    /// Its part of the cycle's digest.
    pub fn sum(&self) -> Sum {
        let current = self.current.borrow();
        Sum::of(Kind::Upstream, (&*current.conf.name, current.conf.digest.0, self.users.get()))
    }

    fn replace(&self, conf: &Arc<model::Upstream>) {
        let old = self.get();
        let state = State::carry_over(&old.state, &old.conf, conf);
        self.current.replace(Rc::new(Upstream { conf: Arc::clone(conf), state }));
    }
}

/// The upstreams of a process.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    /// By name in lower case: names have no case.
    pub(super) named: FxHashMap<Arc<str>, Rc<UpstreamCell>>,
    /// How many times vhosts pass to hosts that are no upstreams, by host in lower case.
    pub(super) hosts: FxHashMap<Box<str>, u32>,
}

/// The upstreams of a change.
#[derive(Debug, Default)]
pub(super) struct Cells {
    fresh: FxHashMap<Arc<str>, Rc<UpstreamCell>>,
    replaced: Vec<(Rc<UpstreamCell>, Arc<model::Upstream>)>,
    gone: FxHashSet<Arc<str>>,
}

impl Cells {
    /// What the upstreams that come, change or go are known by.
    pub(super) fn keys(&self) -> impl Iterator<Item = Arc<str>> {
        let replaced = self.replaced.iter().map(|(_, conf)| key(&conf.name));
        self.fresh.keys().chain(&self.gone).cloned().chain(replaced)
    }

    /// What the upstreams that change or go are until then.
    pub(super) fn standing(&self, cycle: &Cycle) -> impl Iterator<Item = Arc<model::Upstream>> {
        let gone = self.gone.iter().filter_map(|name| cycle.upstream(name));
        self.replaced.iter().map(|(cell, _)| Rc::clone(cell)).chain(gone).map(|cell| Arc::clone(&cell.get().conf))
    }

    /// The cell of a name once the change is made.
    pub(super) fn find(&self, cycle: &Cycle, name: &str) -> Option<Rc<UpstreamCell>> {
        let key = lower(name);
        if self.gone.contains(&*key) {
            return None;
        }
        self.fresh.get(&*key).cloned().or_else(|| cycle.upstream(name))
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
pub(super) fn key(name: &Arc<str>) -> Arc<str> {
    match lower(name) {
        Cow::Borrowed(_) => Arc::clone(name),
        Cow::Owned(lower) => lower.into(),
    }
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
        self.upstreams.borrow().named.get(&*lower(name)).cloned()
    }

    pub(super) fn prepare_upstreams(&self, change: &Change, gone: &[Rc<Vhost>]) -> Result<Cells, Refusal> {
        let all = self.upstreams.borrow();
        let touched: FxHashSet<Arc<str>> = change.touched.iter().map(key).collect();
        let mut cells = Cells::default();
        cells.fresh.reserve(change.upstreams.len());
        let mut kept: FxHashSet<Arc<str>> = FxHashSet::default();
        for upstream in &change.upstreams {
            let key = key(&upstream.name);
            let duplicate = || wrong(format!("duplicate upstream \"{}\" in {}", upstream.name, upstream.place));
            match all.named.get(&key) {
                Some(cell) if touched.contains(&key) => {
                    if !kept.insert(key) {
                        return Err(duplicate());
                    }
                    cells.replaced.push((Rc::clone(cell), Arc::clone(upstream)));
                }
                Some(_) => return Err(duplicate()),
                None => match cells.fresh.entry(key) {
                    Entry::Occupied(_) => return Err(duplicate()),
                    Entry::Vacant(entry) => drop(entry.insert(UpstreamCell::new(upstream))),
                },
            }
        }
        // In a load nothing stands beside the change.
        if !all.hosts.is_empty() {
            all.check_hosts(&cells, gone)?;
        }
        let mut leaving: FxHashMap<*const UpstreamCell, u32> = FxHashMap::default();
        for used in gone.iter().flat_map(|vhost| &vhost.upstreams) {
            *leaving.entry(Rc::as_ptr(used)).or_default() += 1;
        }
        for name in &change.touched {
            let key = key(name);
            if kept.contains(&key) || cells.fresh.contains_key(&key) {
                continue;
            }
            let Some(cell) = all.named.get(&key) else {
                return Err(wrong(format!("no upstream is named \"{name}\"")));
            };
            let staying = cell.users.get() - leaving.get(&Rc::as_ptr(cell)).copied().unwrap_or_default();
            if staying > 0 {
                return Err(wrong(format!("upstream \"{name}\" is still used by {staying} other vhost(s)")));
            }
            cells.gone.insert(key);
        }
        Ok(cells)
    }

    pub(super) fn commit_upstreams(&self, cells: Cells, gone: &[Rc<Vhost>], new: &[Rc<Vhost>]) {
        let mut all = self.upstreams.borrow_mut();
        for vhost in gone {
            for (used, conf) in vhost.upstreams.iter().zip(&vhost.conf.upstreams) {
                used.users.set(used.users.get() - 1);
                if let UpstreamRef::Implicit(upstream) = conf {
                    all.forget_host(upstream);
                }
            }
        }
        for name in cells.gone {
            all.named.remove(&name);
        }
        for (cell, conf) in cells.replaced {
            cell.replace(&conf);
        }
        if all.named.is_empty() {
            all.named = cells.fresh;
        } else {
            all.named.extend(cells.fresh);
        }
        for vhost in new {
            for (used, conf) in vhost.upstreams.iter().zip(&vhost.conf.upstreams) {
                used.users.set(used.users.get() + 1);
                if let UpstreamRef::Implicit(upstream) = conf {
                    all.note_host(upstream);
                }
            }
        }
    }
}

impl Upstreams {
    /// A `proxy_pass` to a host means the upstream of that name if there is one. One that is new would take over what
    /// vhosts pass to the host by now, which only those vhosts can be made anew for.
    fn check_hosts(&self, cells: &Cells, gone: &[Rc<Vhost>]) -> Result<(), Refusal> {
        for (name, cell) in &cells.fresh {
            let Some(users) = self.hosts.get(&**name) else { continue };
            let implicit = gone.iter().flat_map(|vhost| &vhost.conf.upstreams).filter(|used| match used {
                UpstreamRef::Implicit(upstream) => host_of(upstream).is_some_and(|host| *host == **name),
                UpstreamRef::Named(_) => false,
            });
            let staying = *users as usize - implicit.count();
            if staying > 0 {
                let place = &cell.get().conf.place;
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
