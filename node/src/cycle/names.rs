//! Which vhost of a listener a host name belongs to, in nginx's order: exact name, longest `*.name`, longest `name.*`,
//! first expression, default server. Kept under change: inserting and removing costs the names of that vhost alone.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::model::{OrderKey, ServerName};
use dysvr_conf::problem::Place;
use dysvr_conf::regex::Regex;
use dysvr_proto::planted::{Bug, planted};
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::digest::{Kind, Sum, Who};
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
    /// What [`Self::summed`] gives, kept up to date once it was asked for: a load, which fills the tables from nothing,
    /// counts once at its end.
    sum: Option<Sum>,
}

/// A table's part of the digest's summands.
const EXACT: u8 = 0;
const LEADING: u8 = 1;
const TRAILING: u8 = 2;

impl Names {
    /// Adds the vhosts of a load, where there are none, each with whether its `listen` here says `default_server`. Gives the names that another one already has
    /// before it or that it takes from another one.
    pub(super) fn fill(&mut self, vhosts: &[(&Rc<Vhost>, bool)]) -> Vec<(String, Place)> {
        // Made of a sorted list the order is built without a search for each, and without spare room.
        self.exact.reserve(vhosts.len());
        let conflicts = vhosts.iter().flat_map(|(vhost, default)| self.enter(vhost, *default)).collect();
        self.all = vhosts.iter().map(|(vhost, _)| (vhost.conf.order.clone(), Rc::clone(vhost))).collect();
        conflicts
    }

    /// Adds one.
    pub(super) fn insert(&mut self, vhost: &Rc<Vhost>, default: bool) -> Vec<(String, Place)> {
        self.take_out(|names| names.sum_of_place(&vhost.conf.order));
        if planted(Bug::DefaultByArrival) {
            self.explicit = self.default_server().cloned();
        }
        let conflicts = self.enter(vhost, default);
        self.all.insert(vhost.conf.order.clone(), Rc::clone(vhost));
        self.put_in(|names| names.sum_of_place(&vhost.conf.order));
        conflicts
    }

    /// All of [`Self::insert`] but the place in the order.
    fn enter(&mut self, vhost: &Rc<Vhost>, default: bool) -> Vec<(String, Place)> {
        let mut conflicts = Vec::new();
        for (index, name) in (0..).zip(&vhost.conf.names) {
            let (table, kind, key) = match name {
                ServerName::Exact(key) => (&mut self.exact, EXACT, key),
                ServerName::Leading(key) => (&mut self.leading, LEADING, key),
                ServerName::Trailing(key) => (&mut self.trailing, TRAILING, key),
                ServerName::Regex { regex, .. } => {
                    let key = (vhost.conf.order.clone(), index);
                    if let Some(sum) = &mut self.sum {
                        *sum += sum_of_regex(vhost, index, regex);
                    }
                    self.regexes.insert(key, (regex.clone(), Rc::clone(vhost)));
                    continue;
                }
            };
            let holders = table.entry(Arc::clone(key)).or_default();
            if holders.iter().any(|other| Rc::ptr_eq(other, vhost)) {
                continue;
            }
            let at = holders.partition_point(|other| other.conf.order < vhost.conf.order);
            // The later one is the one whose name is ignored.
            let ignored = if at > 0 { Some(vhost) } else { holders.first() };
            conflicts.extend(ignored.map(|ignored| (name.to_string(), ignored.conf.place.clone())));
            let before = self.sum.is_some().then(|| sum_of_name(kind, key, holders));
            holders.insert(at, Rc::clone(vhost));
            if let (Some(before), Some(sum)) = (before, &mut self.sum) {
                *sum -= before;
                *sum += sum_of_name(kind, key, holders);
            }
        }
        if default {
            self.explicit = Some(Rc::clone(vhost));
        }
        conflicts
    }

    /// Removes a vhost that was inserted.
    pub(super) fn remove(&mut self, vhost: &Rc<Vhost>) {
        self.take_out(|names| names.sum_of_place(&vhost.conf.order));
        for (index, name) in (0..).zip(&vhost.conf.names) {
            let (table, kind, key) = match name {
                ServerName::Exact(key) => (&mut self.exact, EXACT, key),
                ServerName::Leading(key) => (&mut self.leading, LEADING, key),
                ServerName::Trailing(key) => (&mut self.trailing, TRAILING, key),
                ServerName::Regex { .. } => {
                    let removed = self.regexes.remove(&(vhost.conf.order.clone(), index));
                    if let (Some((regex, vhost)), Some(sum)) = (removed, &mut self.sum) {
                        *sum -= sum_of_regex(&vhost, index, &regex);
                    }
                    continue;
                }
            };
            if let Some(holders) = table.get_mut(key) {
                let before = sum_of_name(kind, key, holders);
                holders.retain(|other| !Rc::ptr_eq(other, vhost));
                if let Some(sum) = &mut self.sum {
                    *sum -= before;
                    *sum += sum_of_name(kind, key, holders);
                }
                if holders.is_empty() {
                    table.remove(key);
                }
            }
        }
        self.all.remove(&vhost.conf.order);
        if self.explicit.as_ref().is_some_and(|default| Rc::ptr_eq(default, vhost)) {
            self.explicit = None;
        }
        self.put_in(|names| names.sum_of_place(&vhost.conf.order));
    }

    /// Its part of the cycle's digest, as it is kept.
    pub(super) fn sum(&mut self) -> Sum {
        let sum = self.sum.unwrap_or_else(|| self.summed());
        self.sum = Some(sum);
        sum
    }

    /// Its part of the cycle's digest, from the tables.
    pub(super) fn summed(&self) -> Sum {
        let tables = [(EXACT, &self.exact), (LEADING, &self.leading), (TRAILING, &self.trailing)];
        let names = tables
            .into_iter()
            .flat_map(|(kind, table)| table.iter().map(move |(key, holders)| sum_of_name(kind, key, holders)));
        let regexes = self.regexes.iter().map(|((_, index), (regex, vhost))| sum_of_regex(vhost, *index, regex));
        let mut before = None;
        let order = self.all.values().map(|vhost| {
            let who = Who::from(&**vhost);
            Sum::of(Kind::Order, (before.replace(who), who))
        });
        names.chain(regexes).chain(order).chain([self.sum_of_default()]).sum()
    }

    /// The same as text, a summand on a line.
    pub(super) fn lines(&self) -> Vec<String> {
        let tables = [("", &self.exact, ""), ("*.", &self.leading, ""), ("", &self.trailing, ".*")];
        let mut lines = Vec::new();
        for (before, table, behind) in tables {
            for (key, holders) in table {
                if let Some(vhost) = holders.first() {
                    lines.push(format!("name {before}{key}{behind}: {}", Who::from(&**vhost)));
                }
            }
        }
        lines.sort();
        for (regex, vhost) in self.regexes.values() {
            lines.push(format!("name {regex:?}: {}", Who::from(&**vhost)));
        }
        let mut before = None;
        for vhost in self.all.values() {
            let who = Who::from(&**vhost);
            lines.push(match before.replace(who) {
                None => format!("first: {who}"),
                Some(before) => format!("behind {before}: {who}"),
            });
        }
        lines
    }

    /// What a change at a place of the order touches beside the names: the default server, and who stands beside whom.
    fn sum_of_place(&self, at: &OrderKey) -> Sum {
        let who = |(_, vhost): (&OrderKey, &Rc<Vhost>)| Who::from(&**vhost);
        let before = self.all.range::<OrderKey, _>(..at).next_back().map(who);
        let mut here = self.all.range::<OrderKey, _>((Bound::Included(at), Bound::Unbounded));
        let mut sum = self.sum_of_default();
        let Some(first) = here.next() else { return sum };
        let is_here = first.0 == at;
        let first = who(first);
        sum += Sum::of(Kind::Order, (before, first));
        if is_here && let Some(second) = here.next() {
            sum += Sum::of(Kind::Order, (Some(first), who(second)));
        }
        sum
    }

    fn take_out(&mut self, part: impl FnOnce(&Self) -> Sum) {
        if let Some(mut sum) = self.sum {
            sum -= part(self);
            self.sum = Some(sum);
        }
    }

    fn put_in(&mut self, part: impl FnOnce(&Self) -> Sum) {
        if let Some(mut sum) = self.sum {
            sum += part(self);
            self.sum = Some(sum);
        }
    }

    fn sum_of_default(&self) -> Sum {
        self.default_server().map_or_else(Sum::default, |vhost| Sum::of(Kind::Default, Who::from(&**vhost)))
    }

    /// Calls for each vhost without an id.
    pub(super) fn each_nameless(&self, visit: impl FnMut(&Rc<Vhost>)) {
        self.all.values().filter(|vhost| vhost.conf.vsvc_id.is_none()).for_each(visit);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Vhost>> {
        self.all.values()
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The first in the source of those that `wanted` takes.
    pub(super) fn first(&self, wanted: impl Fn(&Rc<Vhost>) -> bool) -> Option<&Rc<Vhost>> {
        self.all.values().find(|vhost| wanted(vhost))
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

/// Who serves a name; nothing for a name that nobody has.
fn sum_of_name(table: u8, key: &str, holders: &Holders) -> Sum {
    holders.first().map_or_else(Sum::default, |vhost| Sum::of(Kind::Name, (table, key, Who::from(&**vhost))))
}

fn sum_of_regex(vhost: &Vhost, index: u16, regex: &Regex) -> Sum {
    Sum::of(Kind::Regex, (Who::from(vhost), index, regex.pattern(), regex.caseless()))
}
