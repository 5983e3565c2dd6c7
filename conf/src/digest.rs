//! What a vhost or an upstream says, as a number: equal digests are equal directives.
//!
//! Over the words of the block with its includes expanded, so that comments, blanks, quoting and the cut into files do
//! not count. What is inherited from `http` does not count either: that changes by a reload only.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A SHA-256.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of bytes as they are.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    /// In hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Gathers the words of directives.
#[derive(Default)]
pub(crate) struct Words(Vec<u8>);

impl Words {
    /// A word; its length goes with it, so that no two sequences of words are equal bytes.
    pub(crate) fn word(&mut self, text: &str) {
        self.0.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// The end of a directive: `;`, `{`, or `}` for the end of a block.
    pub(crate) fn mark(&mut self, mark: u8) {
        self.0.extend_from_slice(&u32::MAX.to_le_bytes());
        self.0.push(mark);
    }

    /// All in one number.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}
