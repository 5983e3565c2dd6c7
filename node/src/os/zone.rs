//! The shared memory between master and workers: one message that the master alone writes, one slot per worker that the
//! worker alone writes, and a process-shared mutex that survives the death of its holder.
//!
//! Nothing read from here is trusted: lengths are checked against the zone, and the message carries a digest.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// Slots for workers, old generations included.
pub const SLOTS: usize = 256;
/// Longest reason that a slot holds, bytes.
const REASON: usize = 240;

/// The zone, mapped before the workers are forked, so that it stands at the same address in all of them.
pub struct Zone {
    base: NonNull<Header>,
    size: usize,
}

#[repr(C)]
struct Header {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    version: AtomicU64,
    length: AtomicU64,
    sum: AtomicU64,
    slots: [Slot; SLOTS],
    // the message's bytes follow
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
    /// The smallest useful size, bytes: the header and some room.
    pub const MIN: usize = size_of::<Header>() + 4096;

    /// Maps a zone of `size` bytes (at least [`Self::MIN`]), shared with every process that is forked from this one. Its
    /// versions go on from `version`.
    pub fn new(size: usize, version: u64) -> io::Result<Self> {
        let size = size.max(Self::MIN);
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
        // SAFETY: the mapping is zeroed and large enough for the header; zeroes are valid atomics. The mutex is
        // initialised once, here, before any other process exists.
        unsafe {
            let mut attr = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
            libc::pthread_mutexattr_init(attr.as_mut_ptr());
            libc::pthread_mutexattr_setpshared(attr.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(attr.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST);
            let rc = libc::pthread_mutex_init(zone.header().mutex.get(), attr.as_ptr());
            libc::pthread_mutexattr_destroy(attr.as_mut_ptr());
            if rc != 0 {
                return Err(io::Error::from_raw_os_error(rc));
            }
        }
        zone.header().version.store(version, Ordering::Release);
        Ok(zone)
    }

    /// Its size, bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping lives as long as `self` and begins with the header; all its fields are atomics or cells.
        unsafe { self.base.as_ref() }
    }

    /// Room for a message, bytes.
    pub fn capacity(&self) -> usize {
        self.size - size_of::<Header>()
    }

    fn room(&self) -> *mut u8 {
        // SAFETY: the zone is larger than the header.
        unsafe { self.base.as_ptr().add(1).cast() }
    }

    /// Takes the mutex; with `try_only` gives up (`None`) when another holds it. A holder that died releases it.
    pub fn lock(&self, try_only: bool) -> Option<Guard<'_>> {
        let mutex = self.header().mutex.get();
        // SAFETY: the mutex was initialised in `new` and is never moved.
        let rc = unsafe { if try_only { libc::pthread_mutex_trylock(mutex) } else { libc::pthread_mutex_lock(mutex) } };
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
        self.header().version.load(Ordering::Acquire)
    }

    /// Clears a slot for a new worker.
    pub fn claim(&self, slot: usize, pid: i32) {
        let slot = &self.header().slots[slot];
        slot.pid.store(pid, Ordering::Relaxed);
        slot.running.store(0, Ordering::Relaxed);
        slot.polls.store(0, Ordering::Relaxed);
        slot.version.store(0, Ordering::Release);
    }

    /// What a worker does at this moment; what it did when it died.
    pub fn beat(&self, slot: usize) -> Beat {
        let slot = &self.header().slots[slot];
        let running = slot.running.load(Ordering::Acquire);
        Beat { running: (running != 0).then_some(running), polls: slot.polls.load(Ordering::Relaxed) }
    }

    /// The mark of the vhost whose request was the worker's `number`th to panic.
    pub fn panicked(&self, slot: usize, number: u64) -> Option<u64> {
        let mark = self.header().slots[slot].panics[(number % PANICS as u64) as usize].load(Ordering::Acquire);
        (mark != 0).then_some(mark)
    }

    /// Writes what this worker has to say into its own slot.
    pub fn say(&self, slot: usize, said: &Said) {
        let slot = &self.header().slots[slot];
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

    /// Reads a slot.
    pub fn said(&self, slot: usize) -> Said {
        let slot = &self.header().slots[slot];
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

/// What a worker does, as its slot says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The mark of the vhost whose request it runs; `None` between requests.
    pub running: Option<u64>,
    /// How often it has polled a connection.
    pub polls: u64,
}

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
        self.slot.as_ref().map(|(zone, slot)| &zone.header().slots[*slot])
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
    /// Replaces the message and raises the version, which it returns. `None`: larger than [`Zone::capacity`].
    pub fn publish(&self, bytes: &[u8]) -> Option<u64> {
        if bytes.len() > self.zone.capacity() {
            return None;
        }
        let header = self.zone.header();
        // SAFETY: the room has `capacity` bytes, nobody reads it without the mutex.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.zone.room(), bytes.len()) };
        header.length.store(bytes.len() as u64, Ordering::Relaxed);
        header.sum.store(sum(bytes), Ordering::Relaxed);
        let version = header.version.load(Ordering::Relaxed) + 1;
        header.version.store(version, Ordering::Release);
        Some(version)
    }

    /// A copy of the message of `version`.
    pub fn read(&self, version: u64) -> Result<Vec<u8>, InvalidMessage> {
        let header = self.zone.header();
        let found = header.version.load(Ordering::Acquire);
        if found != version {
            return Err(InvalidMessage::Version { found, wanted: version });
        }
        let length = usize::try_from(header.length.load(Ordering::Relaxed)).map_err(|_| InvalidMessage::Damaged)?;
        if length > self.zone.capacity() {
            return Err(InvalidMessage::Damaged);
        }
        // SAFETY: `length` bytes lie within the mapping.
        let bytes = unsafe { std::slice::from_raw_parts(self.zone.room(), length) }.to_vec();
        if sum(&bytes) == header.sum.load(Ordering::Relaxed) { Ok(bytes) } else { Err(InvalidMessage::Damaged) }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: this guard holds the mutex.
        unsafe { libc::pthread_mutex_unlock(self.zone.header().mutex.get()) };
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
mod tests {
    use super::*;
    use crate::os::fork::{Fork, fork};

    #[test]
    fn a_child_reads_what_the_parent_published_and_answers_in_its_slot() {
        let zone = Zone::new(64 << 10, 0).unwrap();
        let version = zone.lock(false).unwrap().publish(b"a task").unwrap();
        match fork().unwrap() {
            Fork::Child => {
                let text = zone.lock(false).and_then(|guard| guard.read(version).ok());
                let reason = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
                zone.say(3, &Said { version, prepare_us: 5, commit_us: 6, reason });
                crate::os::process::exit_now(0);
            }
            Fork::Parent(pid) => {
                nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
                assert_eq!(zone.said(3), Said { version: 1, prepare_us: 5, commit_us: 6, reason: "a task".into() });
            }
        }
    }

    #[test]
    fn what_a_worker_ran_stays_behind_when_it_dies() {
        let zone = Rc::new(Zone::new(0, 0).unwrap());
        match fork().unwrap() {
            Fork::Child => {
                let pulse = Pulse::new(&zone, 2);
                pulse.enter(0);
                pulse.turn(0);
                pulse.enter(7);
                pulse.turn(8);
                pulse.panicked(9, pulse.running());
                crate::os::process::exit_now(0);
            }
            Fork::Parent(pid) => {
                nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
                assert_eq!(zone.beat(2), Beat { running: Some(8), polls: 2 });
                assert_eq!((zone.panicked(2, 9), zone.panicked(2, 8)), (Some(8), None));
                zone.claim(2, 0);
                assert_eq!(zone.beat(2), Beat::default());
            }
        }
    }

    #[test]
    fn a_dead_holder_does_not_keep_the_mutex() {
        let zone = Zone::new(0, 0).unwrap();
        match fork().unwrap() {
            Fork::Child => {
                std::mem::forget(zone.lock(false));
                crate::os::process::exit_now(0);
            }
            Fork::Parent(pid) => {
                nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
                let guard = zone.lock(true).expect("released by the death of its holder");
                assert!(zone.lock(true).is_none(), "held now");
                drop(guard);
                assert!(zone.lock(true).is_some());
            }
        }
    }

    #[test]
    fn other_versions_and_damage_are_noticed() {
        let zone = Zone::new(0, 0).unwrap();
        let guard = zone.lock(false).unwrap();
        let version = guard.publish(b"0123456789").unwrap();
        assert_eq!(guard.read(version + 1), Err(InvalidMessage::Version { found: 1, wanted: 2 }));
        // SAFETY: within the room; this is the damage.
        unsafe { *zone.room().add(4) ^= 1 };
        assert_eq!(guard.read(version), Err(InvalidMessage::Damaged));
        zone.header().length.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(guard.read(version), Err(InvalidMessage::Damaged));
        assert_eq!(guard.publish(&vec![0; zone.capacity() + 1]), None);
    }
}
