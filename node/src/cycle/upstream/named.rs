//! Upstreams by name; names have no case.

use std::hash::BuildHasher as _;
use std::rc::Rc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::FxBuildHasher;

use super::{UpstreamCell, lower};

/// See the module.
#[derive(Debug, Default)]
pub(in crate::cycle) struct Named(HashTable<Rc<UpstreamCell>>);

fn hash_of(name: &str) -> u64 {
    FxBuildHasher.hash_one(&*lower(name))
}

fn hash_of_cell(cell: &Rc<UpstreamCell>) -> u64 {
    cell.with_name(hash_of)
}

impl Named {
    pub(in crate::cycle) fn get(&self, name: &str) -> Option<&Rc<UpstreamCell>> {
        self.0.find(hash_of(name), |cell| cell.is_named(name))
    }

    pub(in crate::cycle) fn values(&self) -> impl Iterator<Item = &Rc<UpstreamCell>> {
        self.0.iter()
    }

    pub(in crate::cycle) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.0.reserve(more, hash_of_cell);
    }

    /// Adds one; false if another one has its name.
    pub(super) fn add(&mut self, cell: Rc<UpstreamCell>) -> bool {
        let entry = cell.with_name(|name| self.0.entry(hash_of(name), |other| other.is_named(name), hash_of_cell));
        match entry {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(cell);
                true
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Rc<UpstreamCell>> {
        let found = self.0.find_entry(hash_of(name), |cell| cell.is_named(name)).ok()?;
        Some(found.remove().0)
    }

    /// Takes in others, none of whose names it has.
    pub(super) fn append(&mut self, others: Self) {
        if self.0.is_empty() {
            *self = others;
            return;
        }
        self.reserve(others.len());
        for cell in others.0 {
            self.0.insert_unique(hash_of_cell(&cell), cell, hash_of_cell);
        }
    }
}
