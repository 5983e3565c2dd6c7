//! Which vhost of a listener a host name belongs to, in nginx's order: exact name, longest `*.name`, longest `name.*`,
//! first expression, default server. Kept under change: inserting and removing costs the names of that vhost alone.

mod table;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;

use dysvr_conf::problem::Place;
use dysvr_conf::regex::Regex;
use dysvr_proto::planted::{Bug, planted};

use super::Stamp;
use super::digest::{Kind, Sum, Who};
use super::entry::{Entry, Part};
use super::record::NameKind;
use table::{Holder, Holders, Table, who, who_serves};

/// An expression by the place of its vhost in the source and its index there.
type ByPlace = (Box<[u8]>, u16);

/// An entry by its place in the source.
#[derive(Debug)]
struct InOrder(Rc<Entry>);

impl Borrow<[u8]> for InOrder {
    fn borrow(&self) -> &[u8] {
        self.0.order()
    }
}

impl Ord for InOrder {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.order().cmp(other.0.order())
    }
}

impl PartialOrd for InOrder {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for InOrder {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for InOrder {}

/// The names of a listener.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: Table,
    leading: Table,
    trailing: Table,
    regexes: BTreeMap<ByPlace, (Regex, Rc<Entry>)>,
    all: BTreeSet<InOrder>,
    explicit: Option<Rc<Entry>>,
    /// What [`Self::summed`] gives.
    sum: Sum,
}

impl Names {
    /// Adds many, each with whether its `listen` here says `default_server`: the order is summed anew, which costs what
    /// there is, so there must not be many more already. Gives the names that another one already has before it or that it
    /// takes from another one.
    pub(super) fn fill(&mut self, vhosts: &[(&Part, bool)]) -> Vec<(String, Place)> {
        self.sum -= self.sum_of_order();
        self.exact.reserve(vhosts.len());
        let conflicts = vhosts.iter().flat_map(|(vhost, default)| self.enter(vhost, *default)).collect();
        // Made of a sorted list the order is built without a search for each, and without spare room.
        self.all.append(&mut vhosts.iter().map(|(vhost, _)| InOrder(Rc::clone(&vhost.entry))).collect());
        self.sum += self.sum_of_order();
        conflicts
    }

    /// Adds one.
    pub(super) fn insert(&mut self, vhost: &Part, default: bool) -> Vec<(String, Place)> {
        let entry = &vhost.entry;
        self.sum -= self.sum_of_place(entry.order());
        if planted(Bug::DefaultByArrival) {
            self.explicit = self.default_server().cloned();
        }
        let conflicts = self.enter(vhost, default);
        self.all.insert(InOrder(Rc::clone(entry)));
        self.sum += self.sum_of_place(entry.order());
        conflicts
    }

    fn table(&mut self, kind: NameKind) -> Option<&mut Table> {
        match kind {
            NameKind::Exact => Some(&mut self.exact),
            NameKind::Leading => Some(&mut self.leading),
            NameKind::Trailing => Some(&mut self.trailing),
            NameKind::Regex => None,
        }
    }

    /// All of [`Self::insert`] but the place in the order.
    fn enter(&mut self, vhost: &Part, default: bool) -> Vec<(String, Place)> {
        let entry = &vhost.entry;
        for (index, regex) in &vhost.regexes {
            self.sum += sum_of_regex(entry, *index, regex);
            self.regexes.insert((entry.order().into(), *index), (regex.clone(), Rc::clone(entry)));
        }
        let mut conflicts = Vec::new();
        for (index, (kind, key)) in (0..).zip(entry.names()) {
            let Some(table) = self.table(kind) else { continue };
            if table.get(key).is_some_and(|holders| holders.iter().any(|other| Rc::ptr_eq(&other.entry, entry))) {
                continue;
            }
            let (at, holders) = table.add(key, Holder { entry: Rc::clone(entry), index });
            conflicts.extend(ignored(holders, at).map(|ignored| (kind.name(key).to_string(), ignored.place())));
            // Who waits behind another one changes nothing.
            if at == 0 {
                let (before, now) = (holders.get(1).map(who), who_serves(holders));
                self.serves(kind, key, before, now);
            }
        }
        if default {
            self.explicit = Some(Rc::clone(entry));
        }
        conflicts
    }

    /// Puts one into the place of another one that [stands like](super::record::Record::stands_like) it: who is where does
    /// not change, nor do the sums.
    pub(super) fn exchange(&mut self, old: &Rc<Entry>, new: &Rc<Entry>) {
        for (kind, key) in new.names() {
            let holders = self.table(kind).and_then(|table| table.get_mut(key)).into_iter().flatten();
            for holder in holders.filter(|holder| Rc::ptr_eq(&holder.entry, old)) {
                holder.entry = Rc::clone(new);
            }
        }
        self.all.replace(InOrder(Rc::clone(new)));
        if self.explicit.as_ref().is_some_and(|default| Rc::ptr_eq(default, old)) {
            self.explicit = Some(Rc::clone(new));
        }
    }

    /// What [`Self::insert`] would say of one that is there, when all of its change are: those say it themselves that wait
    /// behind it and came with it.
    pub(super) fn conflicts(&self, entry: &Rc<Entry>, change: Stamp) -> Vec<(String, Place)> {
        let mut conflicts = Vec::new();
        for (index, (kind, key)) in (0..).zip(entry.names()) {
            let holders = match kind {
                NameKind::Exact => self.exact.get(key),
                NameKind::Leading => self.leading.get(key),
                NameKind::Trailing => self.trailing.get(key),
                NameKind::Regex => None,
            };
            let Some(holders) = holders else { continue };
            let is_it = |holder: &Holder| holder.index == index && Rc::ptr_eq(&holder.entry, entry);
            let Some(at) = holders.iter().position(is_it) else { continue };
            let ignored = ignored(holders, at).filter(|ignored| at > 0 || ignored.stamp() != change);
            conflicts.extend(ignored.map(|ignored| (kind.name(key).to_string(), ignored.place())));
        }
        conflicts
    }

    /// Removes a vhost that was inserted.
    pub(super) fn remove(&mut self, entry: &Rc<Entry>) {
        self.sum -= self.sum_of_place(entry.order());
        for (index, (kind, key)) in (0..).zip(entry.names()) {
            if kind == NameKind::Regex {
                let removed = self.regexes.remove(&(entry.order().into(), index));
                if let Some((regex, entry)) = removed {
                    self.sum -= sum_of_regex(&entry, index, &regex);
                }
                continue;
            }
            if let Some((before, now)) = self.table(kind).and_then(|table| table.remove(key, entry)) {
                self.serves(kind, key, Some(before), now);
            }
        }
        self.all.remove(entry.order());
        if self.explicit.as_ref().is_some_and(|default| Rc::ptr_eq(default, entry)) {
            self.explicit = None;
        }
        self.sum += self.sum_of_place(entry.order());
    }

    /// Counts that another one serves a name now.
    fn serves(&mut self, kind: NameKind, key: &str, before: Option<Who>, now: Option<Who>) {
        if let Some(who) = before {
            self.sum -= sum_of_name(kind, key, who);
        }
        if let Some(who) = now {
            self.sum += sum_of_name(kind, key, who);
        }
    }

    /// Its part of the cycle's digest, as it is kept.
    pub(super) fn sum(&self) -> Sum {
        self.sum
    }

    /// Its part of the cycle's digest, from the tables.
    pub(super) fn summed(&self) -> Sum {
        let tables =
            [(NameKind::Exact, &self.exact), (NameKind::Leading, &self.leading), (NameKind::Trailing, &self.trailing)];
        let names = tables.into_iter().flat_map(|(kind, table)| {
            table.iter().filter_map(move |(key, holders)| Some(sum_of_name(kind, key, who_serves(holders)?)))
        });
        let regexes = self.regexes.iter().map(|((_, index), (regex, entry))| sum_of_regex(entry, *index, regex));
        names.chain(regexes).chain([self.sum_of_order()]).sum()
    }

    /// Who stands behind whom, and the default server.
    fn sum_of_order(&self) -> Sum {
        let mut before = None;
        let order = self.iter().map(|entry| {
            let who = Who::from(&**entry);
            Sum::of(Kind::Order, (before.replace(who), who))
        });
        order.chain([self.sum_of_default()]).sum()
    }

    /// The same as text, a summand on a line.
    pub(super) fn lines(&self) -> Vec<String> {
        let tables = [("", &self.exact, ""), ("*.", &self.leading, ""), ("", &self.trailing, ".*")];
        let mut lines = Vec::new();
        for (before, table, behind) in tables {
            for (key, holders) in table.iter() {
                if let Some(holder) = holders.first() {
                    lines.push(format!("name {before}{key}{behind}: {}", Who::from(&*holder.entry)));
                }
            }
        }
        lines.sort();
        for (regex, entry) in self.regexes.values() {
            lines.push(format!("name {regex:?}: {}", Who::from(&**entry)));
        }
        let mut before = None;
        for entry in self.iter() {
            let who = Who::from(&**entry);
            lines.push(match before.replace(who) {
                None => format!("first: {who}"),
                Some(before) => format!("behind {before}: {who}"),
            });
        }
        lines
    }

    /// What a change at a place of the order touches beside the names: the default server, and who stands beside whom.
    fn sum_of_place(&self, at: &[u8]) -> Sum {
        let who = |InOrder(entry): &InOrder| Who::from(&**entry);
        let before = self.all.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(at))).next_back().map(who);
        let mut here = self.all.range::<[u8], _>((Bound::Included(at), Bound::Unbounded));
        let mut sum = self.sum_of_default();
        let Some(first) = here.next() else { return sum };
        let is_here = first.0.order() == at;
        let first = who(first);
        sum += Sum::of(Kind::Order, (before, first));
        if is_here && let Some(second) = here.next() {
            sum += Sum::of(Kind::Order, (Some(first), who(second)));
        }
        sum
    }

    fn sum_of_default(&self) -> Sum {
        self.default_server().map_or_else(Sum::default, |entry| Sum::of(Kind::Default, Who::from(&**entry)))
    }

    /// All of them, in the order of the source.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Entry>> {
        self.all.iter().map(|InOrder(entry)| entry)
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The first in the source of those that `wanted` takes.
    pub(super) fn first(&self, wanted: impl Fn(&Rc<Entry>) -> bool) -> Option<&Rc<Entry>> {
        self.iter().find(|entry| wanted(entry))
    }

    /// The one that says `default_server`.
    pub(super) fn explicit_default(&self) -> Option<&Rc<Entry>> {
        self.explicit.as_ref()
    }

    /// The one that says so, else the first in the source.
    pub(super) fn default_server(&self) -> Option<&Rc<Entry>> {
        self.explicit.as_ref().or_else(|| self.all.first().map(|InOrder(entry)| entry))
    }

    /// See [`super::Listener::find`]; with the index of the expression that matched, if one did.
    pub(super) fn find(&self, host: &[u8]) -> Option<(&Rc<Entry>, Option<u16>)> {
        if let Ok(host) = std::str::from_utf8(host) {
            let named = self.exact.get(host).or_else(|| self.leading(host)).or_else(|| self.trailing(host));
            if let Some(holder) = named.and_then(|holders| holders.first()) {
                return Some((&holder.entry, None));
            }
        }
        for ((_, index), (regex, entry)) in &self.regexes {
            if !host.is_empty() && regex.code().is_match(host).unwrap_or(false) {
                return Some((entry, Some(*index)));
            }
        }
        self.default_server().map(|entry| (entry, None))
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

/// Whose name is ignored because the holder at a place has it, too: the later one's.
fn ignored(holders: &Holders, at: usize) -> Option<&Entry> {
    holders.get(at.max(1)).map(|holder| &*holder.entry)
}

fn sum_of_name(table: NameKind, key: &str, who: Who) -> Sum {
    Sum::of(Kind::Name, (table as u8, key, who))
}

fn sum_of_regex(entry: &Entry, index: u16, regex: &Regex) -> Sum {
    Sum::of(Kind::Regex, (Who::from(entry), index, regex.pattern(), regex.caseless()))
}
