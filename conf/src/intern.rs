//! One copy of equal strings, values with variables, settings, expressions and certificates for as long as any
//! configuration uses it.
//!
//! Kept by the cycle between loads. It holds its entries weakly. Each new entry looks after a few old ones and drops those
//! that have died, so that its size follows what is in use whatever the number of updates, at a constant cost per entry:
//! no update ever pays for all of them.

use std::any::{Any, TypeId};
use std::fmt::Debug;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Weak};

use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;

use crate::http::ssl::{InvalidPair, Pair};
use crate::regex::{Regex, WeakRegex};
use crate::template::{Part, Template};

/// See the module.
#[derive(Debug, Default)]
pub struct Interner {
    strings: Kept<Weak<str>>,
    templates: Kept<Weak<[Part]>>,
    regexes: Kept<WeakRegex>,
    pairs: Kept<Weak<Pair>>,
    /// A [`Kept`] for each type of settings.
    values: FxHashMap<TypeId, Box<dyn Values>>,
}

/// A [`Kept`] of any type of settings.
trait Values: Any + Debug {
    fn forget_dead(&mut self);
}

impl<T: Debug + 'static> Values for Kept<Weak<T>> {
    fn forget_dead(&mut self) {
        Kept::forget_dead(self);
    }
}

impl Interner {
    /// The one copy of a string.
    pub fn string(&mut self, text: &str) -> Arc<str> {
        self.strings.get(FxBuildHasher.hash_one(text), |known| **known == *text, || text.into())
    }

    /// The one copy of a value with variables.
    pub(crate) fn template(&mut self, parts: impl IntoIterator<Item = Part> + AsRef<[Part]>) -> Template {
        let slice = parts.as_ref();
        if slice.is_empty() {
            return Template::default();
        }
        let hash = FxBuildHasher.hash_one(slice);
        match self.templates.find(hash, |known| **known == *slice) {
            Some(parts) => Template { parts },
            None => Template { parts: self.templates.add(hash, parts.into_iter().collect()) },
        }
    }

    /// The one copy of some settings.
    pub(crate) fn value<T: Eq + Hash + Debug + 'static>(&mut self, value: Arc<T>) -> Arc<T> {
        let hash = FxBuildHasher.hash_one(&value);
        let kept = self.values.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(Kept::<Weak<T>>::default()));
        let kept: &mut dyn Any = &mut **kept;
        match kept.downcast_mut::<Kept<Weak<T>>>() {
            Some(kept) => kept.get(hash, |known| **known == *value, || Arc::clone(&value)),
            None => value,
        }
    }

    /// The one compiled form of an expression. The error is in nginx's words.
    pub fn regex(&mut self, pattern: &str, caseless: bool) -> Result<Regex, String> {
        let hash = FxBuildHasher.hash_one((pattern, caseless));
        let is_it = |known: &Regex| known.pattern() == pattern && known.caseless() == caseless;
        match self.regexes.find(hash, is_it) {
            Some(found) => Ok(found),
            None => Ok(self.regexes.add(hash, Regex::new(pattern, caseless)?)),
        }
    }

    /// The one pair of a certificate's and a key's contents.
    pub fn pair(&mut self, certificate: &[u8], key: &[u8]) -> Result<Arc<Pair>, InvalidPair> {
        let digest = Pair::digest_of(certificate, key);
        let hash = FxBuildHasher.hash_one(digest);
        match self.pairs.find(hash, |known| known.digest == digest) {
            Some(known) => Ok(known),
            None => Ok(self.pairs.add(hash, Arc::new(Pair::new(certificate, key)?))),
        }
    }

    /// Forgets all that nothing uses any more, and gives back the room: what a large load has made may be gone as a whole.
    pub fn forget_dead(&mut self) {
        self.strings.forget_dead();
        self.templates.forget_dead();
        self.regexes.forget_dead();
        self.pairs.forget_dead();
        self.values.values_mut().for_each(|kept| kept.forget_dead());
    }

    /// How many strings, values and expressions there are, dead ones included.
    pub fn len(&self) -> usize {
        self.strings.ring.len() + self.templates.ring.len() + self.regexes.ring.len() + self.pairs.ring.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A reference that does not keep what it is to.
trait Handle: Sized {
    type Whole;

    fn of(whole: &Self::Whole) -> Self;
    fn whole(&self) -> Option<Self::Whole>;

    /// Whether there is something that it refers to. Looks and does not touch: each worker goes round all entries, and what
    /// it writes to it shares with its master no longer.
    fn is_alive(&self) -> bool;
}

impl<T: ?Sized> Handle for Weak<T> {
    type Whole = Arc<T>;

    fn of(whole: &Arc<T>) -> Self {
        Arc::downgrade(whole)
    }

    fn whole(&self) -> Option<Arc<T>> {
        self.upgrade()
    }

    fn is_alive(&self) -> bool {
        self.strong_count() > 0
    }
}

impl Handle for WeakRegex {
    type Whole = Regex;

    fn of(whole: &Regex) -> Self {
        whole.downgrade()
    }

    fn whole(&self) -> Option<Regex> {
        self.upgrade()
    }

    fn is_alive(&self) -> bool {
        self.is_alive()
    }
}

/// How many old entries each new one looks after: with two, the dead never outnumber the living for long.
const LOOKED_AFTER: usize = 2;

/// Equal things of one kind.
#[derive(Debug)]
struct Kept<H> {
    /// By hash; equal hashes are rare.
    slots: FxHashMap<u64, SmallVec<[H; 1]>>,
    /// The hash of each entry: what `hand` goes round.
    ring: Vec<u64>,
    hand: usize,
}

impl<H> Default for Kept<H> {
    fn default() -> Self {
        Self { slots: FxHashMap::default(), ring: Vec::new(), hand: 0 }
    }
}

impl<H: Handle> Kept<H> {
    fn get(&mut self, hash: u64, is_it: impl Fn(&H::Whole) -> bool, make: impl FnOnce() -> H::Whole) -> H::Whole {
        match self.find(hash, is_it) {
            Some(known) => known,
            None => self.add(hash, make()),
        }
    }

    fn find(&self, hash: u64, is_it: impl Fn(&H::Whole) -> bool) -> Option<H::Whole> {
        self.slots.get(&hash)?.iter().filter_map(H::whole).find(is_it)
    }

    fn add(&mut self, hash: u64, new: H::Whole) -> H::Whole {
        for _ in 0..LOOKED_AFTER {
            self.look_after_one();
        }
        self.slots.entry(hash).or_default().push(H::of(&new));
        self.ring.push(hash);
        new
    }

    fn forget_dead(&mut self) {
        self.slots.retain(|_, slot| {
            slot.retain(|handle| handle.is_alive());
            !slot.is_empty()
        });
        self.slots.shrink_to_fit();
        self.ring = self.slots.iter().flat_map(|(hash, slot)| std::iter::repeat_n(*hash, slot.len())).collect();
        self.hand = 0;
    }

    fn look_after_one(&mut self) {
        let Some(hash) = self.ring.get(self.hand) else {
            self.hand = 0;
            return;
        };
        // One entry for one turn of the ring, so that the two stay of one size.
        let dead = self.slots.get(hash).map(|slot| slot.iter().position(|handle| !handle.is_alive()));
        if dead == Some(None) {
            self.hand += 1;
            return;
        }
        if let (Some(Some(dead)), Some(slot)) = (dead, self.slots.get_mut(hash)) {
            slot.swap_remove(dead);
        }
        if self.slots.get(hash).is_some_and(SmallVec::is_empty) {
            self.slots.remove(hash);
        }
        self.ring.swap_remove(self.hand);
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
        let template = interner.template([Part::Literal("x".into())]);
        assert!(Arc::ptr_eq(&template.parts, &interner.template([Part::Literal("x".into())]).parts));
        assert_ne!(template, interner.template([Part::Literal("y".into())]));
        assert_eq!(interner.len(), 5);
        let (five, more) = (interner.value(Arc::new(5)), interner.value(Arc::new("5")));
        assert!(Arc::ptr_eq(&five, &interner.value(Arc::new(5))) && Arc::ptr_eq(&more, &interner.value(Arc::new("5"))));
    }

    #[test]
    fn dead_entries_do_not_pile_up() {
        let mut interner = Interner::default();
        let kept: Vec<_> = (0..100).map(|n| interner.string(&format!("kept{n}"))).collect();
        for n in 0..100_000 {
            interner.string(&n.to_string());
            assert!(interner.len() <= 200, "{}", interner.len());
        }
        for text in &kept {
            assert!(Arc::ptr_eq(text, &interner.string(text)));
        }
        assert_eq!(interner.strings.ring.len(), interner.strings.slots.values().map(SmallVec::len).sum::<usize>());
    }

    #[test]
    fn what_is_dead_is_forgotten_at_once_when_asked_for() {
        let mut interner = Interner::default();
        let kept: Vec<_> = (0..100).map(|n| interner.string(&format!("kept{n}"))).collect();
        let value = interner.value(Arc::new(7));
        for n in 0..100_000 {
            interner.value(Arc::new(n));
        }
        let dropped: Vec<_> = (0..100_000).map(|n| interner.string(&n.to_string())).collect();
        drop(dropped);
        assert!(interner.len() > 100_000);
        interner.forget_dead();
        assert_eq!(interner.len(), 100);
        assert!(kept.iter().all(|text| Arc::ptr_eq(text, &interner.string(text))));
        assert!(Arc::ptr_eq(&value, &interner.value(Arc::new(7))));
        interner.string("one more");
        assert_eq!(interner.len(), 101);
    }
}
