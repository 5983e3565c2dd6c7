//! What a vhost or an upstream says, as a number: equal digests are equal directives.
//!
//! Over the words of the block with its includes expanded, so that comments, blanks, quoting and the cut into files do
//! not count. What is inherited from `http` does not count either: that changes by a reload only, and stands in a text
//! of its own ([`crate::model::Config::outside`]).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::syntax::{MAX_DEPTH, Word};

/// A SHA-256.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

    /// Forgets them, and keeps the room for the next ones.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Gathers directives as a canonical text: one on a line, indented, words quoted where they must be.
#[derive(Default)]
pub(crate) struct Canonical {
    text: String,
    depth: usize,
}

/// Bytes of text and nested blocks that make sense: a configuration that goes beyond them (files that include each other
/// many times over) is refused for what it is elsewhere, and must not fill memory or the stack here.
const MAX_TEXT: usize = 64 << 20;

impl Canonical {
    /// Whether no more goes in.
    pub(crate) fn is_full(&self) -> bool {
        self.text.len() > MAX_TEXT || self.depth > MAX_DEPTH
    }

    /// A directive that ends in `;`.
    pub(crate) fn line(&mut self, words: &[Word<'_>]) {
        self.words(words.iter().map(|word| word.text));
        self.text.push_str(";\n");
    }

    /// An `include`, by its pattern.
    pub(crate) fn include(&mut self, pattern: &std::path::Path) {
        self.words(["include", &*pattern.to_string_lossy()]);
        self.text.push_str(";\n");
    }

    /// The head of a block.
    pub(crate) fn open<'w>(&mut self, words: impl IntoIterator<Item = &'w str>) {
        self.words(words);
        self.text.push_str(" {\n");
        self.depth += 1;
    }

    /// The end of a block.
    pub(crate) fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.indent();
        self.text.push_str("}\n");
    }

    /// All of it.
    pub(crate) fn finish(self) -> Box<str> {
        self.text.into()
    }

    fn indent(&mut self) {
        self.text.extend(std::iter::repeat_n("    ", self.depth));
    }

    fn words<'w>(&mut self, words: impl IntoIterator<Item = &'w str>) {
        self.indent();
        for (index, word) in words.into_iter().enumerate() {
            if index > 0 {
                self.text.push(' ');
            }
            let bare = |c: char| {
                !(c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '\\' | ';' | '{' | '}' | '#'))
            };
            if !word.is_empty() && word.chars().all(bare) {
                self.text.push_str(word);
            } else {
                // With escapes, so that no two sequences of words are one text.
                let _ = fmt::Write::write_fmt(&mut self.text, format_args!("{word:?}"));
            }
        }
    }
}
