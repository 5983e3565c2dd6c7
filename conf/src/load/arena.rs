//! A place that values are put into and borrowed from while more are put in: the texts and trees of one load.

use std::cell::{Cell, OnceCell};

/// Doubles with each chunk; 2³² values need no more.
const CHUNKS: usize = 32;

/// Append-only storage with stable addresses.
pub(crate) struct Arena<T> {
    chunks: [OnceCell<Box<[OnceCell<T>]>>; CHUNKS],
    len: Cell<usize>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { chunks: [const { OnceCell::new() }; CHUNKS], len: Cell::new(0) }
    }
}

impl<T> Arena<T> {
    /// Keeps a value for as long as the arena lives.
    pub(crate) fn keep(&self, value: T) -> &T {
        let index = self.len.get() + 1;
        self.len.set(index);
        // Chunk k holds the values 2ᵏ … 2ᵏ⁺¹-1.
        let chunk = index.ilog2() as usize;
        let cells = self.chunks[chunk].get_or_init(|| (0..1usize << chunk).map(|_| OnceCell::new()).collect());
        cells[index - (1 << chunk)].get_or_init(|| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay() {
        let arena = Arena::default();
        let kept: Vec<&String> = (0..1000).map(|n| arena.keep(n.to_string())).collect();
        assert!(kept.iter().enumerate().all(|(n, text)| **text == n.to_string()));
    }
}
