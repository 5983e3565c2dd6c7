//! The shared memory between master and workers: one message that the master alone writes, one slot per worker that the
//! worker alone writes, and a process-shared mutex that survives the death of its holder.
//!
//! The processor sees to who writes what: after [`Zone::confine`] a worker's stray write to anything but its own slot and
//! the mutex is its end. Who finds the mutex held by a process that does not go on (a stopped worker) gives
//! up after a [second](mutex::PATIENCE).
//!
//! Nothing read from here is trusted: lengths are checked against the zone, and the message carries a digest.
//!
//! What is written and read in which order ([`message`], [`slot`]) knows no memory mapping: `node/tests/protocol_*.rs` compile
//! the same files with the atomics of a model checker.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic;

pub mod message;
pub mod mutex;
pub mod pulse;
pub mod slot;
mod words;

use self::message::{Board, Head};
use self::mutex::{Guard, Mutex};
use self::slot::Slot;
use super::sealed::Sealed;

pub use self::message::{InvalidMessage, MAX_MESSAGE, NotPublished, Published};
pub use self::pulse::{Pulse, TASK};
pub use self::slot::{Beat, Said};

/// Slots for workers, old generations included.
pub const SLOTS: usize = 256;

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
    mutex: Page<Mutex>,
    /// A page that no worker has touched costs no memory.
    slots: [Page<Slot>; SLOTS],
    head: Page<Head>,
    // the message's bytes follow
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
        zone.header().mutex.0.reset()?;
        zone.header().head.0.begin(version);
        Ok(zone)
    }

    /// Gives up the right to write anything but a slot and the mutex: in the worker that has the slot.
    pub fn confine(&self, slot: usize) -> io::Result<()> {
        let whole = (self.base.as_ptr().cast::<libc::c_void>(), self.size);
        let mutex = (std::ptr::from_ref(&self.header().mutex).cast_mut().cast(), size_of::<Page<Mutex>>());
        let own = (std::ptr::from_ref(&self.header().slots[slot]).cast_mut().cast(), size_of::<Page<Slot>>());
        let both = libc::PROT_READ | libc::PROT_WRITE;
        for ((start, length), rights) in [(whole, libc::PROT_READ), (mutex, both), (own, both)] {
            // SAFETY: these are whole pages of our mapping, which stay readable; what is written afterwards is atomics of the
            // slot and the mutex alone.
            if unsafe { libc::mprotect(start, length, rights) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping lives as long as `self` and begins with the header; all its fields are atomics or cells, for
        // which zeros are valid.
        unsafe { self.base.as_ref() }
    }

    fn board(&self) -> Board<'_> {
        let Header { mutex, head, .. } = self.header();
        let length = (self.size - size_of::<Header>()) / words::WORD;
        // SAFETY: behind the header, whose size is a multiple of a page, there are that many words up to the end of the
        // mapping.
        let room = unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(1).cast(), length) };
        Board { mutex: &mutex.0, head: &head.0, room }
    }

    /// Whether it has the room that [`Self::new`] gives for `room`.
    pub fn is_for(&self, room: usize) -> bool {
        self.capacity() == room.max(Self::MIN).next_multiple_of(4096)
    }

    /// Room for a message, bytes.
    pub fn capacity(&self) -> usize {
        self.board().capacity()
    }

    /// Takes the mutex, see [`Mutex::lock`].
    pub fn lock(&self, try_only: bool) -> Option<Guard<'_>> {
        self.board().lock(try_only)
    }

    /// Replaces the message, see [`Board::publish`].
    pub fn publish(&self, bytes: &[u8], try_only: bool) -> Result<Published, NotPublished> {
        self.board().publish(bytes, try_only)
    }

    /// The version of the message that stands in the zone.
    pub fn version(&self) -> u64 {
        self.header().head.0.version()
    }

    /// A copy of the message of `version`, see [`Board::read`].
    pub fn read(&self, version: u64) -> Result<Vec<u8>, InvalidMessage> {
        self.board().read(version)
    }

    /// The message of `version` when it was too large for the zone and came by itself: it must be what the zone says of it.
    pub fn read_sealed(&self, version: u64, text: &Sealed) -> Result<Vec<u8>, InvalidMessage> {
        self.board().check(version, |length| text.read(length).map_err(|_| InvalidMessage::Damaged))
    }

    /// The slot of a worker.
    pub fn slot(&self, slot: usize) -> &Slot {
        &self.header().slots[slot].0
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

impl Drop for Zone {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this size; no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.size) };
    }
}

#[cfg(test)]
mod tests;
