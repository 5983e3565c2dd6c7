//! Which vhost of a listener a host name belongs to, in nginx's order: exact name, longest `*.name`, longest `name.*`,
//! first expression, default server. Kept under change: inserting and removing costs the names of that vhost alone.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::model::{OrderKey, ServerName};
use dysvr_conf::regex::Regex;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::{Found, Vhost};

/// Who has a name: the first in source order serves it, the others wait behind it ("conflicting server name, ignored").
type Holders = SmallVec<[Rc<Vhost>; 1]>;
type Table = HashMap<Arc<str>, Holders, FxBuildHasher>;

/// The names of a listener.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: Table,
    leading: Table,
    trailing: Table,
    regexes: BTreeMap<(OrderKey, u16), (Regex, Rc<Vhost>)>,
    all: BTreeMap<OrderKey, Rc<Vhost>>,
    explicit: Option<Rc<Vhost>>,
}

impl Names {
    /// Adds a vhost; `default` if its `listen` here says `default_server`. Gives the names that another one already has
    /// before it or that it takes from another one.
    pub(super) fn insert(&mut self, vhost: &Rc<Vhost>, default: bool) -> Vec<Arc<str>> {
        let mut conflicts = Vec::new();
        for (index, name) in (0..).zip(&vhost.conf.names) {
            let (table, key) = match name {
                ServerName::Exact(key) => (&mut self.exact, key),
                ServerName::Leading(key) => (&mut self.leading, key),
                ServerName::Trailing(key) => (&mut self.trailing, key),
                ServerName::Regex { regex, .. } => {
                    let key = (vhost.conf.order.clone(), index);
                    self.regexes.insert(key, (regex.clone(), Rc::clone(vhost)));
                    continue;
                }
            };
            let holders = table.entry(Arc::clone(key)).or_default();
            if holders.iter().any(|other| Rc::ptr_eq(other, vhost)) {
                continue;
            }
            if !holders.is_empty() {
                conflicts.push(Arc::clone(key));
            }
            let at = holders.partition_point(|other| other.conf.order < vhost.conf.order);
            holders.insert(at, Rc::clone(vhost));
        }
        self.all.insert(vhost.conf.order.clone(), Rc::clone(vhost));
        if default {
            self.explicit = Some(Rc::clone(vhost));
        }
        conflicts
    }

    /// Removes a vhost that was inserted.
    pub(super) fn remove(&mut self, vhost: &Rc<Vhost>) {
        for (index, name) in (0..).zip(&vhost.conf.names) {
            let (table, key) = match name {
                ServerName::Exact(key) => (&mut self.exact, key),
                ServerName::Leading(key) => (&mut self.leading, key),
                ServerName::Trailing(key) => (&mut self.trailing, key),
                ServerName::Regex { .. } => {
                    self.regexes.remove(&(vhost.conf.order.clone(), index));
                    continue;
                }
            };
            if let Some(holders) = table.get_mut(key) {
                holders.retain(|other| !Rc::ptr_eq(other, vhost));
                if holders.is_empty() {
                    table.remove(key);
                }
            }
        }
        self.all.remove(&vhost.conf.order);
        if self.explicit.as_ref().is_some_and(|default| Rc::ptr_eq(default, vhost)) {
            self.explicit = None;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Vhost>> {
        self.all.values()
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The one that says `default_server`.
    pub(super) fn explicit_default(&self) -> Option<&Rc<Vhost>> {
        self.explicit.as_ref()
    }

    /// The one that says so, else the first in the source.
    pub(super) fn default_server(&self) -> Option<&Rc<Vhost>> {
        self.explicit.as_ref().or_else(|| self.all.first_key_value().map(|(_, vhost)| vhost))
    }

    /// See [`super::Listener::find`].
    pub(super) fn find(&self, host: &[u8]) -> Option<Found> {
        if let Ok(host) = std::str::from_utf8(host) {
            let named = self.exact.get(host).or_else(|| self.leading(host)).or_else(|| self.trailing(host));
            if let Some(vhost) = named.and_then(|holders| holders.first()) {
                return Some(Found { vhost: Rc::clone(vhost), regex: None });
            }
        }
        for ((_, index), (regex, vhost)) in &self.regexes {
            if !host.is_empty() && regex.code().is_match(host).unwrap_or(false) {
                return Some(Found { vhost: Rc::clone(vhost), regex: Some(*index) });
            }
        }
        self.default_server().map(|vhost| Found { vhost: Rc::clone(vhost), regex: None })
    }

    fn leading(&self, host: &str) -> Option<&Holders> {
        if self.leading.is_empty() {
            return None;
        }
        // A dot at the very beginning has no label before it.
        let dots = host.bytes().enumerate().filter(|&(at, byte)| byte == b'.' && at > 0);
        dots.map(|(at, _)| &host[at + 1..]).find_map(|suffix| self.leading.get(suffix))
    }

    fn trailing(&self, host: &str) -> Option<&Holders> {
        if self.trailing.is_empty() {
            return None;
        }
        let mut prefix = host;
        loop {
            prefix = &prefix[..prefix.rfind('.')?];
            if let Some(found) = self.trailing.get(prefix) {
                return Some(found);
            }
        }
    }
}
