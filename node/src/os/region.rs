//! Memory that a master shares with the workers it forks: byte strings ("blobs") that the master alone writes, and that
//! stand there once for all processes. A blob is told to another process by its [place](Blob::at), a number.
//!
//! Its bytes are written before its place is known to anyone, and do not change until [`Region::sweep`] gives its room to
//! others. What is free and what is not is known in the master's own memory alone, so that a worker can do no harm to it.
//!
//! A process that is forked to look at what stands there, and begins later, does not keep room from being used meanwhile: it
//! is [lent](Region::lend) the region, and learns from [`Region::begin`] whether it was too late.
//!
//! Each blob lies in the shortest free run that has room for it, and free runs that touch become one: there are no sizes
//! to which room is bound, so that blobs which all grow by a few bytes leave nothing behind that nobody can use. Pages of
//! long runs go back to the system.

mod ahead;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use ahead::Ahead;
use nix::sys::resource::{Resource, getrlimit};

/// Address space, bytes: what is not used costs nothing.
const MOST: usize = 16 << 30;
/// Address space below which it is not worth to begin, bytes.
const LEAST: usize = 64 << 20;
/// The same where memory is not promised beyond what there is.
const STRICT: usize = 512 << 20;
/// The unit of places, bytes: with 32 bits they reach 64 GiB.
const GRANULE: usize = 16;
/// In front of each blob, bytes: its length, and its place inverted, which is how a blob's beginning is known.
const HEAD: usize = size_of::<AtomicU64>();
/// Where blobs begin, bytes: no blob has place 0. In front of them stands whether the region is lent.
const FIRST: usize = 4096;
/// Nobody is lent the region, or who was has come too late.
const KEPT: u64 = 0;
/// Somebody is, and has not begun.
const LENT: u64 = 1;
/// Somebody reads.
const READ: u64 = 2;
/// Room is given in multiples of it, bytes: a line of the cache.
const STEP: usize = 64;
/// Free runs of this length give their pages back, bytes: what is freed and taken again all the time is shorter.
const LONG: usize = 64 << 10;

/// The region, mapped before the workers are forked, so that it stands at the same address in all of them.
pub struct Region {
    base: NonNull<u8>,
    size: usize,
    /// What the system takes back memory in, bytes.
    page: usize,
    /// None where the right to write has been given up.
    ledger: RefCell<Option<Ledger>>,
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("size", &self.size).finish()
    }
}

impl Region {
    /// Reserves address space, 16 GiB or what the system allows of it (of a limit on it a sixteenth), but not less than 64 MiB. No memory is used until
    /// blobs come.
    ///
    /// A forked process must [`confine`](Self::confine) itself or leave the region alone, unless it takes the place of the
    /// one that forked it: two that write would write over each other's blobs.
    pub fn new() -> io::Result<Rc<Self>> {
        // Where address space is rationed the rest of the process needs its part, and where the system promises no more memory
        // than it has, all of the reservation would count.
        let limit = getrlimit(Resource::RLIMIT_AS)?.0 / 16;
        let limit = usize::try_from(limit).unwrap_or(MOST).next_multiple_of(LEAST);
        let strict = std::fs::read("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.starts_with(b"2"));
        let limit = if strict { limit.min(STRICT) } else { limit };
        Self::reserve(limit.min(MOST), LEAST)
    }

    fn reserve(most: usize, least: usize) -> io::Result<Rc<Self>> {
        let mut size = most;
        let base = loop {
            match map(size) {
                Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && size / 2 >= least => size /= 2,
                base => break base?,
            }
        };
        // SAFETY: integers only.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let ledger = Ledger::new((size / STEP) as u32);
        let page = usize::try_from(page).unwrap_or(FIRST);
        Ok(Rc::new(Self { base, size, page, ledger: RefCell::new(Some(ledger)) }))
    }

    /// Gives up the right to write, in a forked process: from now on [`put`](Self::put) fails with `PermissionDenied`, and
    /// a stray write is the end of the process.
    pub fn confine(&self) -> io::Result<()> {
        // SAFETY: the whole mapping, which stays readable; only `put` writes to it, and finds no ledger any more.
        if unsafe { libc::mprotect(self.base.as_ptr().cast(), self.size, libc::PROT_READ) } < 0 {
            return Err(io::Error::last_os_error());
        }
        *self.ledger.borrow_mut() = None;
        Ok(())
    }

    /// Has the system make memory for blobs of these lengths at once, as far as free runs have no room for them: for many
    /// blobs, whose pages would be asked for one by one. Where the system cannot, they are.
    pub fn expect(&self, lengths: impl Iterator<Item = usize>) {
        /// Bytes below which it is not worth a call.
        const MANY: usize = 1 << 20;
        let ledger = self.ledger.borrow();
        let Some(ledger) = ledger.as_ref() else { return };
        let start = self.above(ledger);
        let made = ledger.made.saturating_sub(start);
        let bytes: usize = lengths.map(|length| (length + HEAD).next_multiple_of(STEP)).sum();
        let bytes = bytes.saturating_sub(ledger.runs.free() + made) / self.page * self.page;
        let start = start + made;
        // What there is no room for will not be put.
        if bytes >= MANY && bytes <= self.size.saturating_sub(start) {
            // SAFETY: inside the mapping; pages are made, and what stands in them does not change.
            unsafe {
                libc::madvise(self.base.as_ptr().add(start).cast(), bytes, libc::MADV_POPULATE_WRITE);
            }
        }
    }

    /// Copies the parts, one behind the other, into a new blob. Fails with `OutOfMemory`, and changes nothing, when the
    /// reservation has no room for it.
    pub fn put(self: &Rc<Self>, parts: &[&[u8]]) -> io::Result<Blob> {
        let mut ledger = self.ledger.borrow_mut();
        let ledger = ledger.as_mut().ok_or(io::ErrorKind::PermissionDenied)?;
        let length = parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(part.len()));
        let length = length.and_then(|length| u32::try_from(length).ok()).ok_or(io::ErrorKind::OutOfMemory)?;
        let at = ledger.take(steps(length)).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut to = self.bytes(at);
        for part in parts {
            // SAFETY: the room at `at` lies in the mapping, holds the head and the sum of all parts, and belongs to no
            // blob, so no part lies in it and, by the contract of `sweep`, nobody reads it.
            unsafe {
                to.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len());
                to = to.add(part.len());
            }
        }
        // Whoever sees the head sees the bytes.
        self.head(at).store(u64::from(!at) << 32 | u64::from(length), Ordering::Release);
        Ok(Blob { region: self.clone(), tag: at | Blob::OWN, length })
    }

    /// The blob that another process has put at `at`, see [`Blob::at`]. None if there is none: the place is outside, no
    /// place for a blob, or without a head that says of itself that it stands there and whose length fits.
    ///
    /// It must be dropped before the one that put it may [`sweep`](Self::sweep), and retires nothing itself.
    pub fn blob(self: &Rc<Self>, at: u32) -> Option<Blob> {
        let start = at as usize * GRANULE;
        if !start.is_multiple_of(STEP) || !(FIRST..self.size).contains(&start) {
            return None;
        }
        let head = self.head(at).load(Ordering::Acquire);
        let (length, inverted) = (head as u32, (head >> 32) as u32);
        let fits = length as usize <= self.size - start - HEAD;
        (fits && inverted == !at).then(|| Blob { region: self.clone(), tag: at, length })
    }

    /// Lets the process that is about to be forked [`begin`](Self::begin). One at a time, until [`take_back`](Self::take_back).
    pub fn lend(&self) {
        self.lent().store(LENT, Ordering::Release);
    }

    /// The process that the region was lent to has ended.
    pub fn take_back(&self) {
        self.lent().store(KEPT, Ordering::Release);
    }

    /// In a process that was forked behind [`lend`](Self::lend), before it reads any blob: whether all of them still stand
    /// as they did then, and do until it ends. If not, it must read none.
    pub fn begin(&self) -> bool {
        self.lent().compare_exchange(LENT, READ, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Gives the room of blobs that were dropped in this process to new ones, unless somebody reads who was
    /// [lent](Self::lend) the region. The caller has made sure that nobody else reads them any more: neither another process,
    /// that has them by [`blob`](Self::blob) or by a fork, nor this one by `blob`.
    pub fn sweep(&self) {
        let mut ledger = self.ledger.borrow_mut();
        let Some(ledger) = ledger.as_mut() else { return };
        if ledger.retired.is_empty() {
            return; // and whoever is lent it loses nothing
        }
        if self.lent().compare_exchange(LENT, KEPT, Ordering::AcqRel, Ordering::Acquire) == Err(READ) {
            return;
        }
        for (at, length) in std::mem::take(&mut ledger.retired) {
            // Nothing stands here any more, should anybody ask.
            self.head(at).store(0, Ordering::Relaxed);
            let (start, end) = ledger.give(at, steps(length));
            let (start, end) = (start.next_multiple_of(self.page), end / self.page * self.page);
            if start < end {
                let pages = self.base.as_ptr().wrapping_add(start);
                // SAFETY: whole pages of the mapping, in which only blobs have been that nobody reads any more. (If the
                // system does not take them, they are only held longer.)
                unsafe { libc::madvise(pages.cast(), end - start, libc::MADV_REMOVE) };
            }
        }
    }

    /// How many blobs were dropped and wait for [`sweep`](Self::sweep). None do in a process that may not write.
    pub fn retired(&self) -> usize {
        self.ledger.borrow().as_ref().map_or(0, |ledger| ledger.retired.len())
    }

    /// Bytes taken up by blobs with their heads and what their size is rounded up by, those that wait for
    /// [`sweep`](Self::sweep) included. 0 in a process that may not write: it does not know.
    pub fn used(&self) -> usize {
        self.ledger.borrow().as_ref().map_or(0, |ledger| ledger.used)
    }

    /// Where whole pages begin that no blob has, bytes from the beginning.
    fn above(&self, ledger: &Ledger) -> usize {
        (ledger.runs.top as usize * STEP).next_multiple_of(self.page)
    }

    /// Whether the region is lent.
    fn lent(&self) -> &AtomicU64 {
        // SAFETY: the beginning of the mapping, which lives as long as `self`; no blob lies there, and all accesses are atomic.
        unsafe { self.base.cast().as_ref() }
    }

    /// The head of the place, which lies in the region and at a multiple of [`STEP`].
    fn head(&self, at: u32) -> &AtomicU64 {
        // SAFETY: inside the mapping, which lives as long as `self`, and aligned, by the callers; all accesses to heads of
        // blobs are atomic.
        unsafe { self.base.add(at as usize * GRANULE).cast().as_ref() }
    }

    /// Where the bytes of the blob at this place, which lies in the region, begin.
    fn bytes(&self, at: u32) -> NonNull<u8> {
        // SAFETY: a place is at least `STEP` bytes away from the end of the mapping.
        unsafe { self.base.add(at as usize * GRANULE + HEAD) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped in `reserve` with this size; each blob holds the region.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.size) };
    }
}

fn map(size: usize) -> io::Result<NonNull<u8>> {
    let (rights, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: an anonymous mapping at an address of the kernel's choice.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), size, rights, kind, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at 0"))
}

/// Bytes in the region that do not change. The one that [`Region::put`] gave retires them when it is dropped.
#[derive(Debug)]
pub struct Blob {
    region: Rc<Region>,
    /// The place, which is a multiple of 4, and [`Blob::OWN`].
    tag: u32,
    /// Bytes. Known here, so that nothing that stands in the region is read twice.
    length: u32,
}

impl Blob {
    /// Set in the tag of what was put here: of several blobs for one place one alone may retire it.
    const OWN: u32 = 1;

    /// Its place, for [`Region::blob`] in another process: units of 16 bytes, never 0.
    pub fn at(&self) -> u32 {
        self.tag & !Self::OWN
    }

    /// Where it lies.
    pub fn region(&self) -> &Rc<Region> {
        &self.region
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.region.bytes(self.at());
        // SAFETY: inside the mapping, which lives as long as the region that we hold: `put` took room for it, or `blob` has
        // compared. The bytes were written before the head that gave us the length, and are not before they are swept, which is
        // after this blob is dropped: `sweep` knows no others here, and its caller vouches for the rest.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.length as usize) }
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if self.tag & Self::OWN != 0
            && let Some(ledger) = self.region.ledger.borrow_mut().as_mut()
        {
            ledger.retired.push((self.at(), self.length));
        }
    }
}

/// How many [`STEP`]s a blob of some length takes up.
fn steps(length: u32) -> u32 {
    (length as usize + HEAD).div_ceil(STEP) as u32
}

/// The place of a step.
fn place(step: u32) -> u32 {
    step * (STEP / GRANULE) as u32
}

/// What is free.
struct Ledger {
    runs: Runs,
    /// Places and lengths of dropped blobs.
    retired: Vec<(u32, u32)>,
    /// Bytes.
    used: usize,
    /// Up to here, bytes from the beginning, an [`Ahead`] makes pages.
    made: usize,
}

impl Ledger {
    fn new(steps: u32) -> Self {
        let first = (FIRST / STEP) as u32;
        let runs = Runs { by_start: BTreeMap::new(), by_length: BTreeSet::new(), top: first, end: steps };
        Self { runs, retired: Vec::new(), used: 0, made: 0 }
    }

    fn take(&mut self, steps: u32) -> Option<u32> {
        let at = self.runs.take(steps)?;
        self.used += steps as usize * STEP;
        Some(place(at))
    }

    /// Frees the room of a place. Gives the part of the run that it now belongs to whose pages may go back: byte offsets of
    /// its beginning and end.
    fn give(&mut self, at: u32, steps: u32) -> (usize, usize) {
        self.used -= steps as usize * STEP;
        let step = at / place(1);
        let (start, end) = self.runs.give(step, steps);
        let (start, end) = (start as usize * STEP, end as usize * STEP);
        if end - start < LONG {
            return (start, start);
        }
        // What was long before has been given back already.
        let (freed, length) = (step as usize * STEP, steps as usize * STEP);
        (start.max(freed.saturating_sub(LONG)), end.min(freed + length + LONG))
    }
}

/// Free runs of steps, none of which touches another or the top.
struct Runs {
    by_start: BTreeMap<u32, u32>,
    by_length: BTreeSet<(u32, u32)>,
    /// From here to the end everything is free.
    top: u32,
    end: u32,
}

impl Runs {
    /// The shortest run that is long enough, or what comes at the top.
    fn take(&mut self, steps: u32) -> Option<u32> {
        let Some(&(length, start)) = self.by_length.range((steps, 0)..).next() else {
            let start = self.top;
            self.top = start.checked_add(steps).filter(|top| *top <= self.end)?;
            return Some(start);
        };
        self.remove(start, length);
        if length > steps {
            self.insert(start + steps, length - steps);
        }
        Some(start)
    }

    /// Bytes below the top.
    fn free(&self) -> usize {
        self.by_length.iter().map(|(length, _)| *length as usize * STEP).sum()
    }

    /// Frees a run; gives the beginning and the end of the one that it is part of now.
    fn give(&mut self, mut start: u32, mut steps: u32) -> (u32, u32) {
        let before = self.by_start.range(..start).next_back().map(|(start, length)| (*start, *length));
        let behind = self.by_start.get(&(start + steps)).map(|length| (start + steps, *length));
        for (other, length) in before.filter(|(other, length)| other + length == start).into_iter().chain(behind) {
            self.remove(other, length);
            start = start.min(other);
            steps += length;
        }
        if start + steps == self.top {
            self.top = start
        } else {
            self.insert(start, steps)
        }
        (start, start + steps)
    }

    fn insert(&mut self, start: u32, length: u32) {
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn remove(&mut self, start: u32, length: u32) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests;
