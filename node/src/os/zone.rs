//! The shared memory between master and workers: one message that the master alone writes, one slot per worker that the
//! worker alone writes, and a process-shared mutex that survives the death of its holder.
//!
//! The processor sees to who writes what: after [`Zone::confine`] a worker's stray write to anything but its own slot and
//! the mutex is its end. A holder of the mutex that does not go on (a stopped worker) is waited for [`PATIENCE`].
//!
//! Nothing read from here is trusted: lengths are checked against the zone, and the message carries a digest.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use super::sealed::Sealed;

/// Slots for workers, old generations included.
pub const SLOTS: usize = 256;
/// Longest reason that a slot holds, bytes.
const REASON: usize = 240;

/// Longest message, bytes, in the zone or beside it: a hundred times what a node's first sync of 10,000 vhosts takes.
pub const MAX_MESSAGE: usize = 1 << 30;

/// How long [`Zone::lock`] waits. Whoever holds the mutex copies a message: milliseconds.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// The zone, mapped before the workers are forked, so that it stands at the same address in all of them.
pub struct Zone {
    base: NonNull<Header>,
    size: usize,
}

/// Something with memory pages of its own. (Where pages are larger, [`Zone::confine`] is refused.)
#[repr(C, align(4096))]
struct Page<T>(T);

#[repr(C)]
struct Header {
    mutex: Page<UnsafeCell<libc::pthread_mutex_t>>,
    /// A page that no worker has touched costs no memory.
    slots: [Page<Slot>; SLOTS],
    head: Page<Head>,
    // the message's bytes follow
}

/// What the master says of its message.
#[repr(C)]
struct Head {
    version: AtomicU64,
    length: AtomicU64,
    sum: AtomicU64,
}

/// What a worker says of the last task that it met, written by that worker before it acknowledges on its channel; and
/// whose request it runs at this moment, which stays behind when it dies.
#[repr(C)]
struct Slot {
    pid: AtomicI32,
    reason_length: AtomicU32,
    version: AtomicU64,
    prepare_us: AtomicU64,
    commit_us: AtomicU64,
    /// The digest of its cycle: low half, high half.
    proof: [AtomicU64; 2],
    /// The mark of the vhost whose request runs, 0 between requests.
    running: AtomicU64,
    /// How often a connection was polled: two looks at one long poll see one number.
    polls: AtomicU64,
    /// The marks of the vhosts whose requests have panicked, the newest [`PANICS`] of them.
    panics: [AtomicU64; PANICS],
    reason: UnsafeCell<[u8; REASON]>,
}

/// Panics that a slot remembers: more than a worker can have before the master takes its messages in, short of a storm.
const PANICS: usize = 8;

/// A slot as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The version that it is about.
    pub version: u64,
    /// Duration of its prepare phase, µs.
    pub prepare_us: u64,
    /// Duration of its commit phase, µs.
    pub commit_us: u64,
    /// Why it refused; empty if it did not.
    pub reason: String,
}

/// Why a message could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// The slot holds another version than the channel spoke of.
    #[error("the zone holds version {found}, not {wanted}")]
    Version {
        /// The one in the zone.
        found: u64,
        /// The one asked for.
        wanted: u64,
    },
    /// It was too large for the zone, and has not come over the channel.
    #[error("the message is larger than the zone and has not come")]
    Absent,
    /// The length or the sum does not fit the bytes.
    #[error("the message in the zone is damaged")]
    Damaged,
}

impl std::fmt::Debug for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zone").field("size", &self.size).finish()
    }
}

impl Zone {
    /// The smallest useful room, bytes.
    pub const MIN: usize = 4096;

    /// Maps a zone with room for a message of `room` bytes (at least [`Self::MIN`]), shared with every process that is
    /// forked from this one. Its versions go on from `version`.
    pub fn new(room: usize, version: u64) -> io::Result<Self> {
        let size = size_of::<Header>() + room.max(Self::MIN).next_multiple_of(4096);
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<Header>()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        let zone = Self { base, size };
        zone.reset()?;
        zone.head().version.store(version, Ordering::Release);
        Ok(zone)
    }

    /// Makes the mutex anew: at the beginning, and when [`Self::lock`] has given up on its holder. That one may still read
    /// the message; it finds out by the sum when it has changed.
    pub fn reset(&self) -> io::Result<()> {
        // SAFETY: the mapping is large enough for the header and zeroed at first. A holder that is thrown out unlocks what
        // it does not own, which is refused.
        unsafe {
            let mut attr = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
            libc::pthread_mutexattr_init(attr.as_mut_ptr());
            libc::pthread_mutexattr_setpshared(attr.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(attr.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST);
            let rc = libc::pthread_mutex_init(self.header().mutex.0.get(), attr.as_ptr());
            libc::pthread_mutexattr_destroy(attr.as_mut_ptr());
            if rc == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(rc)) }
        }
    }

    /// Gives up the right to write anything but a slot and the mutex: in the worker that has the slot.
    pub fn confine(&self, slot: usize) -> io::Result<()> {
        let whole = (self.base.as_ptr().cast::<libc::c_void>(), self.size);
        let mutex = (self.header().mutex.0.get().cast(), size_of::<Page<libc::pthread_mutex_t>>());
        let own = (std::ptr::from_ref(&self.header().slots[slot]).cast_mut().cast(), size_of::<Page<Slot>>());
        let both = libc::PROT_READ | libc::PROT_WRITE;
        for ((start, length), rights) in [(whole, libc::PROT_READ), (mutex, both), (own, both)] {
            // SAFETY: these are whole pages of our mapping, which stay readable; what is written afterwards is atomics and
            // cells of the slot and the mutex alone.
            if unsafe { libc::mprotect(start, length, rights) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping lives as long as `self` and begins with the header; all its fields are atomics or cells.
        unsafe { self.base.as_ref() }
    }

    fn head(&self) -> &Head {
        &self.header().head.0
    }

    fn slot(&self, slot: usize) -> &Slot {
        &self.header().slots[slot].0
    }

    /// Whether it has the room that [`Self::new`] gives for `room`.
    pub fn is_for(&self, room: usize) -> bool {
        self.capacity() == room.max(Self::MIN).next_multiple_of(4096)
    }

    /// Room for a message, bytes.
    pub fn capacity(&self) -> usize {
        self.size - size_of::<Header>()
    }

    fn room(&self) -> *mut u8 {
        // SAFETY: the zone is larger than the header.
        unsafe { self.base.as_ptr().add(1).cast() }
    }

    /// Takes the mutex; gives up (`None`) when another holds it, at once with `try_only`, else after [`PATIENCE`]. A holder
    /// that died releases it.
    pub fn lock(&self, try_only: bool) -> Option<Guard<'_>> {
        let mutex = self.header().mutex.0.get();
        // SAFETY: the mutex was initialised in `new` and is never moved; the time is valid for the call.
        let rc = unsafe {
            match libc::pthread_mutex_trylock(mutex) {
                libc::EBUSY if !try_only => {
                    let until = super::time::unix() + PATIENCE;
                    let until =
                        libc::timespec { tv_sec: until.as_secs().cast_signed(), tv_nsec: until.subsec_nanos().into() };
                    libc::pthread_mutex_timedlock(mutex, &until)
                }
                rc => rc,
            }
        };
        match rc {
            0 => Some(Guard { zone: self }),
            libc::EOWNERDEAD => {
                // What it protects is checked by version and sum, so the state is consistent whatever the dead did.
                // SAFETY: we hold the mutex in its inconsistent state.
                unsafe { libc::pthread_mutex_consistent(mutex) };
                Some(Guard { zone: self })
            }
            _ => None,
        }
    }

    /// The version of the message that stands in the zone.
    pub fn version(&self) -> u64 {
        self.head().version.load(Ordering::Acquire)
    }

    /// A copy of the message of `version`. The mutex keeps the master from writing meanwhile; without it (its holder does not
    /// go on, see [`Self::lock`]) a message that was written meanwhile is found out by its sum.
    pub fn read(&self, version: u64) -> Result<Vec<u8>, InvalidMessage> {
        let (length, sum_of_it) = self.described(version)?;
        if length > self.capacity() {
            return Err(InvalidMessage::Absent);
        }
        // SAFETY: `length` bytes lie within the mapping.
        let bytes = unsafe { std::slice::from_raw_parts(self.room(), length) }.to_vec();
        if sum(&bytes) == sum_of_it { Ok(bytes) } else { Err(InvalidMessage::Damaged) }
    }

    /// The message of `version` when it was too large for the zone and came by itself: it must be what the zone says of it.
    pub fn read_sealed(&self, version: u64, text: &Sealed) -> Result<Vec<u8>, InvalidMessage> {
        let (length, sum_of_it) = self.described(version)?;
        let bytes = text.read(length).map_err(|_| InvalidMessage::Damaged)?;
        if sum(&bytes) == sum_of_it { Ok(bytes) } else { Err(InvalidMessage::Damaged) }
    }

    /// What the zone says of the message of `version`: its length and its sum.
    fn described(&self, version: u64) -> Result<(usize, u64), InvalidMessage> {
        let head = self.head();
        let found = head.version.load(Ordering::Acquire);
        if found != version {
            return Err(InvalidMessage::Version { found, wanted: version });
        }
        let length = usize::try_from(head.length.load(Ordering::Relaxed)).map_err(|_| InvalidMessage::Damaged)?;
        if length > MAX_MESSAGE {
            return Err(InvalidMessage::Damaged);
        }
        Ok((length, head.sum.load(Ordering::Relaxed)))
    }

    /// Clears a slot for a new worker.
    pub fn claim(&self, slot: usize, pid: i32) {
        let slot = self.slot(slot);
        slot.pid.store(pid, Ordering::Relaxed);
        slot.running.store(0, Ordering::Relaxed);
        slot.polls.store(0, Ordering::Relaxed);
        slot.version.store(0, Ordering::Release);
    }

    /// What a worker does at this moment; what it did when it died.
    pub fn beat(&self, slot: usize) -> Beat {
        let slot = self.slot(slot);
        let running = slot.running.load(Ordering::Acquire);
        Beat { running: (running != 0).then_some(running), polls: slot.polls.load(Ordering::Relaxed) }
    }

    /// The mark of the vhost whose request was the worker's `number`th to panic.
    pub fn panicked(&self, slot: usize, number: u64) -> Option<u64> {
        let mark = self.slot(slot).panics[(number % PANICS as u64) as usize].load(Ordering::Acquire);
        (mark != 0).then_some(mark)
    }

    /// Writes what this worker has to say into its own slot.
    pub fn say(&self, slot: usize, said: &Said) {
        let slot = self.slot(slot);
        let mut length = said.reason.len().min(REASON);
        while !said.reason.is_char_boundary(length) {
            length -= 1;
        }
        // SAFETY: only the worker that owns the slot writes it, and the master reads it only after that worker's
        // message on the channel, which orders the two.
        unsafe { (&mut *slot.reason.get())[..length].copy_from_slice(&said.reason.as_bytes()[..length]) };
        slot.reason_length.store(length as u32, Ordering::Relaxed);
        slot.prepare_us.store(said.prepare_us, Ordering::Relaxed);
        slot.commit_us.store(said.commit_us, Ordering::Relaxed);
        slot.version.store(said.version, Ordering::Release);
    }

    /// Enters the digest of this worker's cycle into its own slot, before it acknowledges on its channel.
    pub fn prove(&self, slot: usize, digest: u128) {
        let [low, high] = &self.slot(slot).proof;
        low.store(digest as u64, Ordering::Release);
        high.store((digest >> 64) as u64, Ordering::Release);
    }

    /// What the worker of a slot has entered last; read after its message on the channel, which orders the two.
    pub fn proof(&self, slot: usize) -> u128 {
        let [low, high] = &self.slot(slot).proof;
        u128::from(high.load(Ordering::Acquire)) << 64 | u128::from(low.load(Ordering::Acquire))
    }

    /// Reads a slot.
    pub fn said(&self, slot: usize) -> Said {
        let slot = self.slot(slot);
        let version = slot.version.load(Ordering::Acquire);
        let length = (slot.reason_length.load(Ordering::Relaxed) as usize).min(REASON);
        // SAFETY: see `say`; a worker that breaks the rule can only garble this text.
        let reason = unsafe { std::ptr::read_volatile(slot.reason.get()) };
        Said {
            version,
            prepare_us: slot.prepare_us.load(Ordering::Relaxed),
            commit_us: slot.commit_us.load(Ordering::Relaxed),
            reason: String::from_utf8_lossy(&reason[..length]).into_owned(),
        }
    }
}

#[cfg(feature = "poison")]
impl Zone {
    /// Garbage over a worker's own slot, which is all that it can write; for tests.
    pub fn scribble(&self, slot: usize) {
        let page = std::ptr::from_ref(&self.header().slots[slot]).cast_mut().cast::<u8>();
        for at in 0..size_of::<Slot>() {
            // SAFETY: within the slot's page; every bit pattern is a valid slot.
            unsafe { page.add(at).write_volatile((at as u8).wrapping_mul(37) ^ 0xa5) };
        }
    }
}

/// What a worker does, as its slot says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The mark of the vhost whose request it runs; `None` between requests.
    pub running: Option<u64>,
    /// How often it has polled a connection.
    pub polls: u64,
}

/// The mark of a step of a task, which is no vhost's.
pub const TASK: u64 = u64::MAX;

/// A worker's way to say in its slot whose request it runs. Plain stores into its own memory: no system call, no lock.
#[derive(Debug, Default)]
pub struct Pulse {
    /// `None`: nobody looks.
    slot: Option<(Rc<Zone>, usize)>,
}

impl Pulse {
    /// Of the worker that has `slot`.
    pub fn new(zone: &Rc<Zone>, slot: usize) -> Self {
        Self { slot: Some((Rc::clone(zone), slot)) }
    }

    fn slot(&self) -> Option<&Slot> {
        self.slot.as_ref().map(|(zone, slot)| zone.slot(*slot))
    }

    /// A connection is polled; `mark` is its request's vhost, 0 while that is not known.
    pub fn enter(&self, mark: u64) {
        if let Some(slot) = self.slot() {
            // Only this worker writes: no read-modify-write needed.
            slot.polls.store(slot.polls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            slot.running.store(mark, Ordering::Release);
        }
    }

    /// Another vhost's request runs from here on, within the same poll.
    pub fn turn(&self, mark: u64) {
        if let Some(slot) = self.slot() {
            slot.running.store(mark, Ordering::Release);
        }
    }

    /// The mark of what runs.
    pub fn running(&self) -> u64 {
        self.slot().map_or(0, |slot| slot.running.load(Ordering::Relaxed))
    }

    /// Leaves the mark of a vhost whose request has panicked, the worker's `number`th.
    pub fn panicked(&self, number: u64, mark: u64) {
        if let Some(slot) = self.slot() {
            slot.panics[(number % PANICS as u64) as usize].store(mark, Ordering::Release);
        }
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this size; no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.size) };
    }
}

/// The mutex is held.
pub struct Guard<'a> {
    zone: &'a Zone,
}

impl Guard<'_> {
    /// Replaces the message and raises the version, which it returns. Of one that is larger than [`Zone::capacity`] only
    /// length and sum stand here: its bytes travel [sealed](Sealed). `None`: larger than [`MAX_MESSAGE`].
    pub fn publish(&self, bytes: &[u8]) -> Option<u64> {
        if bytes.len() > MAX_MESSAGE {
            return None;
        }
        let head = self.zone.head();
        if bytes.len() <= self.zone.capacity() {
            // SAFETY: the room has `capacity` bytes, nobody reads it without the mutex.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.zone.room(), bytes.len()) };
        }
        head.length.store(bytes.len() as u64, Ordering::Relaxed);
        head.sum.store(sum(bytes), Ordering::Relaxed);
        let version = head.version.load(Ordering::Relaxed) + 1;
        head.version.store(version, Ordering::Release);
        Some(version)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: this guard holds the mutex.
        unsafe { libc::pthread_mutex_unlock(self.zone.header().mutex.0.get()) };
    }
}

/// Notices torn or scribbled bytes; not meant against an adversary, who could write the sum as well.
fn sum(bytes: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(bytes);
    hasher.write_usize(bytes.len());
    hasher.finish()
}

#[cfg(test)]
mod tests;
