//! Bytes in memory that another process may read or write at the same moment: words, each stored and loaded for itself.
//!
//! A plain copy would be a data race, of which nothing may be expected, not even that a sum finds it. A relaxed load or store
//! of a word is a plain instruction, so this costs nothing.

use super::atomic::{AtomicU64, Ordering};

/// Bytes of a word.
pub const WORD: usize = size_of::<u64>();

/// Writes as many of `bytes` as there is room for.
pub fn put(words: &[AtomicU64], bytes: &[u8]) {
    for (word, part) in words.iter().zip(bytes.chunks(WORD)) {
        let mut whole = [0; WORD];
        whole[..part.len()].copy_from_slice(part);
        word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
    }
}

/// The first `length` bytes, or as many as there are.
pub fn get(words: &[AtomicU64], length: usize) -> Vec<u8> {
    let words = &words[..length.div_ceil(WORD).min(words.len())];
    let mut bytes = Vec::with_capacity(words.len() * WORD);
    for word in words {
        bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    bytes.truncate(length);
    bytes
}
