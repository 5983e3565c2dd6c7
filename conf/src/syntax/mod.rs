//! Text to a tree of directives with their places, by nginx's lexical rules.
//!
//! Nothing here knows a directive by name: a directive is its words and perhaps a block. Parsing never fails as a whole;
//! what is wrong stands in [`Tree::errors`] and the tree holds what could be understood around it, so that all errors of
//! a file are found at once. Words borrow from the text unless they hold escapes; all else of a tree lies in an [`Arena`] of
//! the caller, who so takes it down in one piece.

mod lexer;
mod parse;
#[cfg(test)]
mod tests;

pub use bumpalo::Bump as Arena;
pub use parse::parse;

/// Blocks may be nested this deep; real files stay below 10, and walking the tree is recursive.
pub const MAX_DEPTH: usize = 100;

/// nginx reads through a buffer of this size, so no word can be longer.
pub const MAX_WORD: usize = 4096;

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tree<'a> {
    /// Outside every block.
    pub directives: &'a [Directive<'a>],
    /// In the order of the text.
    pub errors: Vec<SyntaxError>,
}

/// A directive: words, and a block if it ends in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directive<'a> {
    /// The name and the arguments; never empty.
    pub words: &'a [Word<'a>],
    /// Of the `;` or the `{`: where nginx sees what is wrong with it.
    pub end: Position,
    /// What stands between `{` and `}`.
    pub block: Option<Block<'a>>,
}

impl<'a> Directive<'a> {
    /// The first word.
    pub fn name(&self) -> &'a str {
        self.words[0].text
    }

    /// Where the first word begins.
    pub fn start(&self) -> Position {
        self.words[0].at
    }

    /// The words behind the name.
    pub fn arguments(&self) -> &'a [Word<'a>] {
        &self.words[1..]
    }
}

/// The inside of `{}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Its directives.
    pub directives: &'a [Directive<'a>],
    /// Of the `}` (or of the end of the file): where nginx sees what is wrong with the whole block.
    pub close: Position,
}

/// A word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// Without its quotes and with its escapes resolved.
    pub text: &'a str,
    /// Where it begins (its quote, if it has one).
    pub at: Position,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// In bytes.
    pub offset: u32,
    /// From 1.
    pub line: u32,
}

/// What is wrong with the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where nginx would say so.
    pub at: Position,
    /// In nginx's words.
    pub text: String,
}
