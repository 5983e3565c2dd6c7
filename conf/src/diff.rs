//! What is different between two configurations: vhosts, upstreams and listening addresses that were added, modified or
//! deleted. The law: `apply(a, diff(a, b)) == b`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::digest::Digest;
use crate::model::{Http, ListenAddr, Peer, VsvcId};

/// What of a configuration can change, by identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The vhosts that have an identity.
    pub vhosts: BTreeMap<VsvcId, VhostState>,
    /// The vhosts that have none, in order: any difference among them needs a reload.
    pub nameless: Vec<VhostState>,
    /// By name.
    pub upstreams: BTreeMap<Arc<str>, UpstreamState>,
    /// Where something listens.
    pub listeners: BTreeSet<ListenAddr>,
}

/// What makes a vhost what it is. Two equal ones in equal `http`s behave alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostState {
    /// What it says.
    pub digest: Digest,
    /// The files that lead to it from the main one, which decide its precedence together with `nth`.
    pub files: Vec<Arc<Path>>,
    /// How many vhosts stand before it in its file. (Not a byte offset: a new comment changes nothing.)
    pub nth: u32,
}

/// What makes an upstream what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamState {
    /// What it says.
    pub digest: Digest,
    /// What its names led to.
    pub peers: Box<[Peer]>,
}

impl From<&Http> for Inventory {
    fn from(http: &Http) -> Self {
        let mut inventory = Self::default();
        let mut counts: BTreeMap<Vec<Arc<Path>>, u32> = BTreeMap::new();
        for vhost in &http.vhosts {
            let files: Vec<_> = vhost.order.0.iter().filter_map(|step| step.file.clone()).collect();
            let count = counts.entry(files.clone()).or_default();
            let state = VhostState { digest: vhost.digest, files, nth: *count };
            *count += 1;
            match vhost.vsvc_id {
                Some(id) => drop(inventory.vhosts.insert(id, state)),
                None => inventory.nameless.push(state),
            }
            inventory.listeners.extend(vhost.listens.iter().map(|listen| listen.addr.clone()));
        }
        for upstream in &http.upstreams {
            let state = UpstreamState { digest: upstream.digest, peers: upstream.peers.clone() };
            inventory.upstreams.insert(Arc::clone(&upstream.name), state);
        }
        inventory
    }
}

/// What leads from one [`Inventory`] to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// Vhosts.
    pub vhosts: Changes<VsvcId, VhostState>,
    /// The new vhosts without identity, if they differ.
    pub nameless: Option<Vec<VhostState>>,
    /// Upstreams.
    pub upstreams: Changes<Arc<str>, UpstreamState>,
    /// Addresses that are new.
    pub opened: BTreeSet<ListenAddr>,
    /// Addresses on which nothing listens any more.
    pub closed: BTreeSet<ListenAddr>,
}

/// Changes of things with an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes<K: Ord, V> {
    /// New.
    pub added: BTreeMap<K, V>,
    /// Known, with another value.
    pub modified: BTreeMap<K, V>,
    /// Gone.
    pub deleted: BTreeSet<K>,
}

impl<K: Ord + Clone, V: Clone + PartialEq> Changes<K, V> {
    fn between(from: &BTreeMap<K, V>, to: &BTreeMap<K, V>) -> Self {
        let pick = |wanted: fn(Option<&V>, &V) -> bool| {
            let picked = to.iter().filter(|(key, value)| wanted(from.get(*key), value));
            picked.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        Self {
            added: pick(|old, _| old.is_none()),
            modified: pick(|old, new| old.is_some_and(|old| old != new)),
            deleted: from.keys().filter(|key| !to.contains_key(*key)).cloned().collect(),
        }
    }

    fn apply(&self, to: &mut BTreeMap<K, V>) {
        to.retain(|key, _| !self.deleted.contains(key));
        for (key, value) in self.added.iter().chain(&self.modified) {
            to.insert(key.clone(), value.clone());
        }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.deleted.is_empty()
    }
}

impl Diff {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        let Self { vhosts, nameless, upstreams, opened, closed } = self;
        vhosts.is_empty() && nameless.is_none() && upstreams.is_empty() && opened.is_empty() && closed.is_empty()
    }
}

/// What is different in `to`.
pub fn diff(from: &Inventory, to: &Inventory) -> Diff {
    Diff {
        vhosts: Changes::between(&from.vhosts, &to.vhosts),
        nameless: (from.nameless != to.nameless).then(|| to.nameless.clone()),
        upstreams: Changes::between(&from.upstreams, &to.upstreams),
        opened: to.listeners.difference(&from.listeners).cloned().collect(),
        closed: from.listeners.difference(&to.listeners).cloned().collect(),
    }
}

/// `from` with a difference applied.
pub fn apply(mut from: Inventory, diff: &Diff) -> Inventory {
    diff.vhosts.apply(&mut from.vhosts);
    diff.upstreams.apply(&mut from.upstreams);
    if let Some(nameless) = &diff.nameless {
        from.nameless.clone_from(nameless);
    }
    from.listeners.retain(|listener| !diff.closed.contains(listener));
    from.listeners.extend(diff.opened.iter().cloned());
    from
}
