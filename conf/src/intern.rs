//! One copy of equal strings and expressions for as long as any configuration uses it.
//!
//! Kept by the cycle between loads. It holds its entries weakly and sweeps the dead ones when their number may have
//! reached that of the living, so its size follows what is in use whatever the number of updates, at constant cost per
//! entry.

use std::hash::BuildHasher;
use std::sync::{Arc, Weak};

use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;

use crate::digest::Digest;
use crate::http::ssl::{InvalidPair, Pair};
use crate::regex::{Regex, WeakRegex};

/// See the module.
#[derive(Debug)]
pub struct Interner {
    /// By hash of the text; equal hashes are rare.
    strings: FxHashMap<u64, SmallVec<[Weak<str>; 1]>>,
    regexes: FxHashMap<u64, SmallVec<[WeakRegex; 1]>>,
    pairs: FxHashMap<Digest, Weak<Pair>>,
    entries: usize,
    /// The number of entries at which the next sweep comes.
    sweep_at: usize,
}

/// Below this many entries a sweep is not worth it.
const SWEEP_MIN: usize = 1024;

impl Default for Interner {
    fn default() -> Self {
        Self {
            strings: FxHashMap::default(),
            regexes: FxHashMap::default(),
            pairs: FxHashMap::default(),
            entries: 0,
            sweep_at: SWEEP_MIN,
        }
    }
}

impl Interner {
    /// The one copy of a string.
    pub fn string(&mut self, text: &str) -> Arc<str> {
        let slot = self.strings.entry(FxBuildHasher.hash_one(text)).or_default();
        if let Some(found) = slot.iter().filter_map(Weak::upgrade).find(|known| **known == *text) {
            return found;
        }
        let new: Arc<str> = text.into();
        slot.push(Arc::downgrade(&new));
        self.added();
        new
    }

    /// The one compiled form of an expression. The error is in nginx's words.
    pub fn regex(&mut self, pattern: &str, caseless: bool) -> Result<Regex, String> {
        let slot = self.regexes.entry(FxBuildHasher.hash_one((pattern, caseless))).or_default();
        let known = slot.iter().filter_map(WeakRegex::upgrade);
        if let Some(found) = known.into_iter().find(|known| known.pattern() == pattern && known.caseless() == caseless)
        {
            return Ok(found);
        }
        let new = Regex::new(pattern, caseless)?;
        slot.push(new.downgrade());
        self.added();
        Ok(new)
    }

    /// The one pair of a certificate's and a key's contents.
    pub fn pair(&mut self, certificate: &[u8], key: &[u8]) -> Result<Arc<Pair>, InvalidPair> {
        let digest = Pair::digest_of(certificate, key);
        if let Some(known) = self.pairs.get(&digest).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let new = Arc::new(Pair::new(certificate, key)?);
        if self.pairs.insert(digest, Arc::downgrade(&new)).is_none() {
            self.added();
        }
        Ok(new)
    }

    /// How many entries there are, dead ones included.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn added(&mut self) {
        self.entries += 1;
        if self.entries < self.sweep_at {
            return;
        }
        self.entries = 0;
        self.strings.retain(|_, slot| {
            slot.retain(|weak| weak.strong_count() > 0);
            self.entries += slot.len();
            !slot.is_empty()
        });
        self.regexes.retain(|_, slot| {
            slot.retain(|weak| weak.upgrade().is_some());
            self.entries += slot.len();
            !slot.is_empty()
        });
        self.pairs.retain(|_, weak| weak.strong_count() > 0);
        self.entries += self.pairs.len();
        self.sweep_at = (self.entries * 2).max(SWEEP_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_are_one() {
        let mut interner = Interner::default();
        let first = interner.string("a");
        assert!(Arc::ptr_eq(&first, &interner.string("a")));
        let regex = interner.regex("^a", false).unwrap();
        assert_eq!(regex, interner.regex("^a", false).unwrap());
        assert_ne!(regex, interner.regex("^a", true).unwrap());
        assert_eq!(interner.len(), 3);
    }

    #[test]
    fn dead_entries_do_not_pile_up() {
        let mut interner = Interner::default();
        let kept: Vec<_> = (0..100).map(|n| interner.string(&format!("kept{n}"))).collect();
        for n in 0..100_000 {
            interner.string(&n.to_string());
        }
        assert!(interner.len() <= SWEEP_MIN, "{}", interner.len());
        for text in &kept {
            assert!(Arc::ptr_eq(text, &interner.string(text)));
        }
    }
}
