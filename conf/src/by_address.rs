//! Something for each address of many vhosts, most of which listen on the same one.

use rustc_hash::FxHashMap;

use crate::model::ListenAddr;

/// See the module.
#[derive(Debug)]
pub struct ByAddress<T> {
    all: Vec<(ListenAddr, T)>,
    places: FxHashMap<ListenAddr, usize>,
    /// The place of the address that was asked for last, which is asked for again before others.
    last: usize,
}

impl<T> Default for ByAddress<T> {
    fn default() -> Self {
        Self { all: Vec::new(), places: FxHashMap::default(), last: 0 }
    }
}

impl<T> ByAddress<T> {
    /// What there is for an address, or `new`.
    pub fn entry(&mut self, addr: &ListenAddr, new: impl FnOnce() -> T) -> &mut T {
        if self.all.get(self.last).is_none_or(|(last, _)| last != addr) {
            self.last = self.places.get(addr).copied().unwrap_or_else(|| {
                self.places.insert(addr.clone(), self.all.len());
                self.all.push((addr.clone(), new()));
                self.all.len() - 1
            });
        }
        &mut self.all[self.last].1
    }

    /// What there is for an address.
    pub fn get(&self, addr: &ListenAddr) -> Option<&T> {
        self.places.get(addr).map(|place| &self.all[*place].1)
    }

    /// All of it, in the order in which it came.
    pub fn iter(&self) -> impl Iterator<Item = (&ListenAddr, &T)> {
        self.all.iter().map(|(addr, it)| (addr, it))
    }
}

/// All of it, in the order in which it came.
impl<T> IntoIterator for ByAddress<T> {
    type Item = (ListenAddr, T);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}
