//! What a cycle is, as a number that is kept up to date in O(change): a sum of hashes, one for each thing that could
//! differ between this cycle and one that is loaded afresh from the same files.
//!
//! Summands come and go by addition and subtraction, so their order does not count and a change costs what it touches. They
//! are read off the tables that serve requests, not off the vhosts that were put in: a name that a delete has left behind is
//! a difference. What counts is what decides an answer:
//!
//! - the text outside vhosts, upstreams, maps and log formats;
//! - each map and each log format, by the words of its block, and how many vhosts set each variable that `http` uses;
//! - each vhost and each upstream, by the words of its block;
//! - each listener with its socket options, its default server, who serves each of its names, and its vhosts and
//!   expressions in order. The order is summed as pairs of neighbours: byte offsets would make a difference of a comment.
//!
//! Addresses that host names lead to do not count: names may lead elsewhere tomorrow.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{AddAssign, SubAssign};
use std::rc::Rc;

use dysvr_conf::model::{ListenAddr, UpstreamRef};

use super::{Cycle, Entry};

/// The sum: 128 bits, so that two different cycles of any life do not meet by chance. Nothing protects it against somebody
/// who looks for two files that meet; whoever writes the files needs no such trick.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Sum(pub u128);

impl Sum {
    /// The hash of one thing; `kind` keeps things of different kinds apart.
    pub fn of(kind: Kind, thing: impl Hash) -> Self {
        let mut state = Mixer::new(kind as u64);
        thing.hash(&mut state);
        state.sum()
    }
}

impl Sum {
    /// As many times.
    pub(super) fn times(self, count: u32) -> Self {
        Self(self.0.wrapping_mul(count.into()))
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl SubAssign for Sum {
    fn sub_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_sub(other.0);
    }
}

impl std::iter::Sum for Sum {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), |mut sum, item| {
            sum += item;
            sum
        })
    }
}

impl fmt::Display for Sum {
    /// In hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a summand is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as what they are about")]
pub enum Kind {
    Outside = 1,
    Vhost,
    Upstream,
    Use,
    Listener,
    Name,
    Regex,
    Default,
    Order,
    Definition,
    Lost,
    Compiled,
    Whole,
    Text,
}

/// Who a vhost is, for what refers to it: its id, or what it says when it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Id(u64),
    Nameless([u8; 32]),
}

impl From<&Entry> for Who {
    fn from(entry: &Entry) -> Self {
        entry.id().map_or_else(|| Self::Nameless(entry.digest().0), |id| Self::Id(id.0))
    }
}

impl Entry {
    /// Its part of the cycle's digest.
    pub fn sum(&self) -> Sum {
        Sum::of(Kind::Vhost, (Who::from(self), self.digest().0))
    }
}

impl Cycle {
    /// The digest of all that this cycle is.
    pub fn digest(&self) -> Sum {
        self.whole(self.sum.get(), self.definitions.borrow().digest())
    }

    /// The same, counted from the tables: what [`Self::digest`] gives unless its upkeep is wrong.
    pub fn counted_digest(&self) -> Sum {
        let (listeners, upstreams) = (self.listeners.borrow(), self.upstreams.borrow());
        let mut sum: Sum = listeners.values().map(|listener| listener.summed()).sum();
        sum += upstreams.named.values().map(|cell| cell.sum()).sum();
        self.each_vhost(|vhost| {
            sum += vhost.sum();
            // A vhost that passes to an upstream which the cycle knows no more: never right.
            let Some(compiled) = vhost.compiled() else { return };
            for (used, cell) in compiled.conf.upstreams.iter().zip(&compiled.upstreams) {
                if let UpstreamRef::Named(name) = used
                    && upstreams.named.get(name).is_none_or(|known| !Rc::ptr_eq(known, cell))
                {
                    sum += Sum::of(Kind::Lost, (Who::from(vhost), name));
                }
            }
        });
        self.whole(sum, self.definitions.borrow().counted_digest())
    }

    /// Calls for each vhost, in no order.
    pub(super) fn each_vhost(&self, mut visit: impl FnMut(&Entry)) {
        self.vhosts.borrow().values().for_each(|vhost| visit(vhost));
        // Those without an id are known to their listeners alone.
        let mut seen = HashSet::new();
        for listener in self.listeners.borrow().values() {
            let names = listener.names.borrow();
            let nameless = names.iter().filter(|vhost| vhost.id().is_none());
            nameless.filter(|vhost| seen.insert(Rc::as_ptr(vhost))).for_each(|vhost| visit(vhost));
        }
    }

    /// With what needs no upkeep: it is small, or never changes.
    fn whole(&self, sum: Sum, definitions: Sum) -> Sum {
        Sum::of(Kind::Whole, (self.conf_sum, self.count.get(), definitions, sum))
    }

    /// The listeners of these addresses, as far as there are any.
    pub(super) fn sum_of(&self, listeners: &[ListenAddr]) -> Sum {
        let known = self.listeners.borrow();
        listeners.iter().filter_map(|addr| known.get(addr)).map(|listener| listener.sum()).sum()
    }

    /// Counts what has come.
    pub(super) fn count_in(&self, sum: Sum) {
        let mut all = self.sum.get();
        all += sum;
        self.sum.set(all);
    }

    /// Counts what goes.
    pub(super) fn count_out(&self, sum: Sum) {
        let mut all = self.sum.get();
        all -= sum;
        self.sum.set(all);
    }
}

/// Two lanes of multiplications whose halves are folded together: a handful of nanoseconds for what is summed here, where a
/// cryptographic hash would cost as much as the rest of an update.
pub(super) struct Mixer {
    one: u64,
    two: u64,
}

/// Odd constants without a pattern (digits of π).
const KEYS: [u64; 4] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1, 0x082e_fa98_ec4e_6c89];

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

impl Mixer {
    pub(super) fn new(kind: u64) -> Self {
        Self { one: kind ^ KEYS[0], two: kind.rotate_left(32) ^ KEYS[1] }
    }

    fn word(&mut self, word: u64) {
        self.one = fold(self.one ^ word, KEYS[2]).wrapping_add(KEYS[1]);
        self.two = fold(self.two.rotate_left(23) ^ word, KEYS[3]).wrapping_add(KEYS[0]);
    }

    pub(super) fn sum(&self) -> Sum {
        let (high, low) = (fold(self.one ^ KEYS[3], self.two | 1), fold(self.two ^ KEYS[2], self.one | 1));
        Sum(u128::from(high) << 64 | u128::from(low))
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.word(u64::from_le_bytes(word.try_into().unwrap_or_default()));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    fn write_u8(&mut self, n: u8) {
        self.word(n.into());
    }

    fn write_u16(&mut self, n: u16) {
        self.word(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.word(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    /// Not asked for: a sum has 128 bits.
    fn finish(&self) -> u64 {
        self.sum().0 as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn small_changes_of_small_things_make_other_sums() {
        let mut seen = HashSet::new();
        let mut halves = [HashSet::new(), HashSet::new()];
        for n in 0..200_000u64 {
            for sum in [Sum::of(Kind::Vhost, n), Sum::of(Kind::Name, n), Sum::of(Kind::Name, n.to_string())] {
                assert!(seen.insert(sum), "{n}");
                halves[0].insert(sum.0 as u64);
                halves[1].insert((sum.0 >> 64) as u64);
            }
        }
        assert!(halves.iter().all(|half| half.len() == seen.len()), "each half alone tells them apart");
        assert_ne!(Sum::of(Kind::Name, ("ab", "c")), Sum::of(Kind::Name, ("a", "bc")));
        assert_ne!(Sum::of(Kind::Name, "a\0"), Sum::of(Kind::Name, "a"));
    }

    #[test]
    fn a_bit_of_the_input_turns_half_of_the_output() {
        let mut turned = [0u32; 128];
        let rounds = 2_000u64;
        for n in 0..rounds {
            let change = Sum::of(Kind::Order, n).0 ^ Sum::of(Kind::Order, n ^ 1 << (n % 64)).0;
            for (bit, count) in turned.iter_mut().enumerate() {
                *count += (change >> bit) as u32 & 1;
            }
        }
        assert!(turned.iter().all(|&count| (800..1200).contains(&count)), "{turned:?}");
    }

    #[test]
    fn sums_forget_what_was_taken_out() {
        let mut sum = Sum::default();
        let things: Vec<Sum> = (0..100u32).map(|n| Sum::of(Kind::Name, n)).collect();
        things.iter().for_each(|thing| sum += *thing);
        assert_eq!(sum, things.iter().rev().copied().sum());
        things.iter().for_each(|thing| sum -= *thing);
        assert_eq!(sum, Sum::default());
    }
}
