//! The slot of a worker: what it says to the master, written by that worker alone.

use super::atomic::{AtomicU64, Ordering};
use super::words::{self, WORD};

/// Longest reason that a slot holds, bytes.
const REASON: usize = 240;

/// Panics that a slot remembers: more than a worker can have before the master takes its messages in, short of a storm.
const PANICS: usize = 8;

/// What a worker says of the last task that it met, before it acknowledges on its channel; and whose request it runs at this
/// moment, which stays behind when it dies.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Slot {
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
    reason_length: AtomicU64,
    reason: [AtomicU64; REASON / WORD],
}

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

/// What a worker does, as its slot says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The mark of the vhost whose request it runs; `None` between requests.
    pub running: Option<u64>,
    /// How often it has polled a connection.
    pub polls: u64,
}

/// What the master does with a slot. After the worker's message on the channel it finds all that was said before that; at
/// any other moment the worker may be writing, and parts of two sayings stand side by side.
impl Slot {
    /// Clears it for a new worker.
    pub fn claim(&self) {
        self.running.store(0, Ordering::Relaxed);
        self.polls.store(0, Ordering::Relaxed);
        self.version.store(0, Ordering::Release);
    }

    /// What was said.
    pub fn said(&self) -> Said {
        let version = self.version.load(Ordering::Acquire);
        let length = usize::try_from(self.reason_length.load(Ordering::Relaxed)).map_or(REASON, |n| n.min(REASON));
        Said {
            version,
            prepare_us: self.prepare_us.load(Ordering::Relaxed),
            commit_us: self.commit_us.load(Ordering::Relaxed),
            // A worker that breaks the rules can only garble this text.
            reason: String::from_utf8_lossy(&words::get(&self.reason, length)).into_owned(),
        }
    }

    /// The digest that the worker has entered last.
    pub fn proof(&self) -> u128 {
        let [low, high] = &self.proof;
        u128::from(high.load(Ordering::Acquire)) << 64 | u128::from(low.load(Ordering::Acquire))
    }

    /// What the worker does at this moment; what it did when it died.
    pub fn beat(&self) -> Beat {
        let running = self.running.load(Ordering::Acquire);
        Beat { running: (running != 0).then_some(running), polls: self.polls.load(Ordering::Relaxed) }
    }

    /// The mark of the vhost whose request was the worker's `number`th to panic.
    pub fn panicked(&self, number: u64) -> Option<u64> {
        let mark = self.panics[(number % PANICS as u64) as usize].load(Ordering::Acquire);
        (mark != 0).then_some(mark)
    }
}

/// What its worker does with it.
impl Slot {
    /// Writes what the worker has to say.
    pub fn say(&self, said: &Said) {
        let mut length = said.reason.len().min(REASON);
        while !said.reason.is_char_boundary(length) {
            length -= 1;
        }
        words::put(&self.reason, &said.reason.as_bytes()[..length]);
        self.reason_length.store(length as u64, Ordering::Relaxed);
        self.prepare_us.store(said.prepare_us, Ordering::Relaxed);
        self.commit_us.store(said.commit_us, Ordering::Relaxed);
        self.version.store(said.version, Ordering::Release);
    }

    /// Enters the digest of the worker's cycle.
    pub fn prove(&self, digest: u128) {
        let [low, high] = &self.proof;
        low.store(digest as u64, Ordering::Release);
        high.store((digest >> 64) as u64, Ordering::Release);
    }

    /// A connection is polled.
    pub fn poll(&self) {
        // Only this worker writes: no read-modify-write needed.
        self.polls.store(self.polls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The request of another vhost runs from here on; 0 while its vhost is not known.
    pub fn turn(&self, mark: u64) {
        self.running.store(mark, Ordering::Release);
    }

    /// The mark of what runs.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Leaves the mark of a vhost whose request has panicked, the worker's `number`th.
    pub fn panic(&self, number: u64, mark: u64) {
        self.panics[(number % PANICS as u64) as usize].store(mark, Ordering::Release);
    }
}
