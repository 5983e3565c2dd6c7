//! The one message of the zone: a head and words, which the master alone writes.
//!
//! The mutex keeps the master from writing while a worker reads. It is given up on when its holder does not go on, so nothing
//! that is read relies on it: the sum covers the version too, and tells a torn message and a later one from what it should be.

use dysvr_proto::planted::{Bug, planted};

use super::atomic::{AtomicU64, Ordering};
use super::mutex::{Guard, Mutex};
use super::words;

/// Longest message, bytes, in the zone or beside it: a hundred times what a node's first sync of 10,000 vhosts takes.
pub const MAX_MESSAGE: usize = 1 << 30;

/// What the master says of its message.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Head {
    version: AtomicU64,
    pub(super) length: AtomicU64,
    sum: AtomicU64,
}

/// The message as it stands in the zone, with the mutex that guards it.
#[derive(Clone, Copy, Debug)]
pub struct Board<'a> {
    /// Taken by the master to write, by a worker to read.
    pub mutex: &'a Mutex,
    /// What is said of the message.
    pub head: &'a Head,
    /// Room for its bytes.
    pub room: &'a [AtomicU64],
}

/// A message was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its version.
    pub version: u64,
    /// The mutex was made anew: its holder does not go on.
    pub anew: bool,
}

/// Why a message could not be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPublished {
    /// Another holds the mutex.
    Taken,
    /// Larger than [`MAX_MESSAGE`].
    TooLarge,
}

/// Why a message could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// The zone holds another version than the channel spoke of.
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

impl Head {
    /// The version of the message.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Lets versions go on from `version`; before anybody reads.
    pub fn begin(&self, version: u64) {
        self.version.store(version, Ordering::Release);
    }
}

impl<'a> Board<'a> {
    /// Takes the mutex, see [`Mutex::lock`].
    pub fn lock(&self, try_only: bool) -> Option<Guard<'a>> {
        self.mutex.lock(try_only)
    }

    /// Replaces the message and raises the version. Of a message that is larger than the room only length and sum stand
    /// here: its bytes travel by themselves. A holder of the mutex that does not go on is not waited for any longer; with
    /// `try_only` none is.
    pub fn publish(&self, bytes: &[u8], try_only: bool) -> Result<Published, NotPublished> {
        if bytes.len() > MAX_MESSAGE {
            return Err(NotPublished::TooLarge);
        }
        let (_guard, anew) = match self.lock(try_only) {
            Some(guard) => (guard, false),
            None if try_only => return Err(NotPublished::Taken),
            None => {
                self.mutex.reset().map_err(|_| NotPublished::Taken)?;
                (self.lock(true).ok_or(NotPublished::Taken)?, true)
            }
        };
        if bytes.len() <= self.capacity() {
            words::put(self.room, bytes);
        }
        let version = self.head.version.load(Ordering::Relaxed) + 1;
        self.head.length.store(bytes.len() as u64, Ordering::Relaxed);
        self.head.sum.store(sum(version, bytes), Ordering::Relaxed);
        // Whoever sees the version sees what was written before it.
        self.head.version.store(version, Ordering::Release);
        Ok(Published { version, anew })
    }

    /// A copy of the message of `version`.
    pub fn read(&self, version: u64) -> Result<Vec<u8>, InvalidMessage> {
        self.check(version, |length| {
            if length > self.capacity() {
                return Err(InvalidMessage::Absent);
            }
            Ok(words::get(self.room, length))
        })
    }

    /// The bytes that `read` gives for a length, if they are what the zone says of the message of `version`.
    pub fn check(
        &self,
        version: u64,
        read: impl FnOnce(usize) -> Result<Vec<u8>, InvalidMessage>,
    ) -> Result<Vec<u8>, InvalidMessage> {
        let found = self.head.version();
        if found != version {
            return Err(InvalidMessage::Version { found, wanted: version });
        }
        let length = usize::try_from(self.head.length.load(Ordering::Relaxed)).map_err(|_| InvalidMessage::Damaged)?;
        if length > MAX_MESSAGE {
            return Err(InvalidMessage::Damaged);
        }
        let sum_of_it = self.head.sum.load(Ordering::Relaxed);
        let bytes = read(length)?;
        let whole = sum(version, &bytes) == sum_of_it || planted(Bug::SumUnchecked);
        if whole { Ok(bytes) } else { Err(InvalidMessage::Damaged) }
    }

    /// Room for a message, bytes.
    pub fn capacity(&self) -> usize {
        self.room.len() * words::WORD
    }
}

/// Notices bytes that are torn, scribbled or of another version; not meant against an adversary, who could write the sum as
/// well.
fn sum(version: u64, bytes: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write_u64(if planted(Bug::SumWithoutVersion) { 0 } else { version });
    hasher.write(bytes);
    hasher.write_usize(bytes.len());
    hasher.finish()
}
