//! Names of one kind, each with who has it.

use std::hash::BuildHasher as _;
use std::rc::Rc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use crate::cycle::Entry;
use crate::cycle::digest::Who;

/// One of an entry's names: what the name is, its record says.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) entry: Rc<Entry>,
    pub(super) index: u16,
}

/// Who has a name: the first in source order serves it, the others wait behind it ("conflicting server name, ignored").
pub(super) type Holders = SmallVec<[Holder; 1]>;

/// Names of one kind.
#[derive(Debug, Default)]
pub(super) struct Table(HashTable<Holders>);

fn key_of(holders: &Holders) -> &str {
    holders.first().map_or("", |holder| holder.entry.name(holder.index))
}

fn hash_of(holders: &Holders) -> u64 {
    FxBuildHasher.hash_one(key_of(holders))
}

impl Table {
    pub(super) fn reserve(&mut self, more: usize) {
        self.0.reserve(more, hash_of);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Holders> {
        self.0.find(FxBuildHasher.hash_one(key), |holders| key_of(holders) == key)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Holders> {
        self.0.find_mut(FxBuildHasher.hash_one(key), |holders| key_of(holders) == key)
    }

    /// Adds a holder among those of the same name; gives the place at which it stands.
    pub(super) fn add(&mut self, key: &str, holder: Holder) -> (usize, &Holders) {
        let hash = FxBuildHasher.hash_one(key);
        let holders = self.0.entry(hash, |holders| key_of(holders) == key, hash_of).or_insert_with(Holders::new);
        let holders = holders.into_mut();
        let at = holders.partition_point(|other| other.entry.order() < holder.entry.order());
        holders.insert(at, holder);
        (at, holders)
    }

    /// Takes an entry out of those of a name. Gives who has served the name before and who serves it now, if it was there.
    pub(super) fn remove(&mut self, key: &str, entry: &Rc<Entry>) -> Option<(Who, Option<Who>)> {
        let hash = FxBuildHasher.hash_one(key);
        let mut found = self.0.find_entry(hash, |holders| key_of(holders) == key).ok()?;
        let holders = found.get_mut();
        let at = holders.iter().position(|other| Rc::ptr_eq(&other.entry, entry))?;
        let before = who_serves(holders)?;
        holders.remove(at);
        let after = who_serves(holders);
        if after.is_none() {
            found.remove();
        }
        Some((before, after))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Holders)> {
        self.0.iter().map(|holders| (key_of(holders), holders))
    }
}

pub(super) fn who(holder: &Holder) -> Who {
    Who::from(&*holder.entry)
}

/// Who serves a name.
pub(super) fn who_serves(holders: &Holders) -> Option<Who> {
    holders.first().map(who)
}
