//! Tokens to a tree. An explicit stack of open blocks, so that depth costs no call stack.

use std::borrow::Cow;

use super::lexer::{self, Token};
use super::{Block, Directive, MAX_DEPTH, MAX_WORD, Position, SyntaxError, Tree, Word};

/// Parses a file. Any bytes are fine; what is wrong with them is in [`Tree::errors`].
pub fn parse(text: &[u8]) -> Tree<'_> {
    if u32::try_from(text.len()).is_err() {
        let at = Position { offset: 0, line: 1 };
        return Tree { directives: Vec::new(), errors: vec![SyntaxError { at, text: "file is too large".into() }] };
    }
    let mut parser = Parser {
        rest: text,
        at: Position { offset: 0, line: 1 },
        words: Vec::with_capacity(8),
        open: Vec::new(),
        directives: Vec::new(),
        errors: Vec::new(),
    };
    parser.run();
    Tree { directives: parser.directives, errors: parser.errors }
}

struct Parser<'a> {
    rest: &'a [u8],
    at: Position,
    /// Of the directive that has begun.
    words: Vec<Word<'a>>,
    /// The blocks around the place, outermost first.
    open: Vec<Opened<'a>>,
    /// Of the innermost open block.
    directives: Vec<Directive<'a>>,
    errors: Vec<SyntaxError>,
}

/// A block whose `}` is still to come.
struct Opened<'a> {
    words: Box<[Word<'a>]>,
    end: Position,
    /// What stood before it in the block around it.
    before: Vec<Directive<'a>>,
}

impl<'a> Parser<'a> {
    fn run(&mut self) {
        loop {
            if let Ok((rest, _)) = lexer::gap(self.rest) {
                self.advance_to(rest);
            }
            let start = self.at;
            let Ok((rest, token)) = lexer::token(self.rest) else {
                return self.end_of_file();
            };
            let raw = &self.rest[..self.rest.len() - rest.len()];
            if raw.len() > MAX_WORD {
                return self.too_long(raw, start);
            }
            self.advance_to(rest);
            match token {
                Token::Bare(text) => {
                    self.word(text, start);
                    // A word that only the end of the file ends is not a word yet; `end_of_file` says so.
                }
                Token::Quoted(text) => {
                    self.word(text, start);
                    self.after_quotes();
                }
                Token::Unclosed(_) => {
                    self.error(self.at, "unexpected end of file, expecting \";\" or \"}\"");
                    self.words.clear();
                    return self.close_all();
                }
                Token::Semicolon if self.words.is_empty() => self.error(start, "unexpected \";\""),
                Token::Semicolon => {
                    let words = self.words.drain(..).collect();
                    self.directives.push(Directive { words, end: start, block: None });
                }
                Token::Open => {
                    if self.words.is_empty() {
                        self.error(start, "unexpected \"{\"");
                    }
                    if self.open.len() == MAX_DEPTH {
                        self.error(start, "blocks are nested too deeply");
                        self.words.clear();
                        return self.close_all();
                    }
                    let words = self.words.drain(..).collect();
                    let before = std::mem::take(&mut self.directives);
                    self.open.push(Opened { words, end: start, before });
                }
                Token::Close => {
                    if !self.words.is_empty() {
                        self.error(start, "unexpected \"}\"");
                        self.words.clear();
                    } else if self.open.is_empty() {
                        self.error(start, "unexpected \"}\"");
                    }
                    self.close(start);
                }
            }
        }
    }

    /// Moves to `rest`, a suffix of the text, and counts the lines on the way.
    fn advance_to(&mut self, rest: &'a [u8]) {
        let passed = &self.rest[..self.rest.len() - rest.len()];
        self.at.line += passed.iter().filter(|byte| **byte == b'\n').count() as u32;
        self.at.offset += passed.len() as u32;
        self.rest = rest;
    }

    fn word(&mut self, raw: &'a [u8], at: Position) {
        let text = match lexer::unescape(raw) {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        };
        let text = text.unwrap_or_else(|| {
            let lossy = String::from_utf8_lossy(raw).into_owned();
            self.error(self.at, format!("\"{lossy}\" is not UTF-8, which is not supported"));
            Cow::Owned(lossy)
        });
        self.words.push(Word { text, at });
    }

    /// Behind a closing quote only a blank, `;`, `{` or `)` may stand.
    fn after_quotes(&mut self) {
        match self.rest.first() {
            None | Some(b';' | b'{' | b')') => {}
            Some(byte) if lexer::is_blank(*byte) => {}
            Some(byte) => {
                let found = String::from_utf8_lossy(std::slice::from_ref(byte)).into_owned();
                self.error(self.at, format!("unexpected \"{found}\""));
            }
        }
    }

    fn end_of_file(&mut self) {
        if !self.words.is_empty() {
            self.error(self.at, "unexpected end of file, expecting \";\" or \"}\"");
            self.words.clear();
        } else if !self.open.is_empty() {
            self.error(self.at, "unexpected end of file, expecting \"}\"");
        }
        self.close_all();
    }

    fn too_long(&mut self, raw: &[u8], start: Position) {
        let text = match raw[0] {
            quote @ (b'"' | b'\'') => {
                format!("too long parameter, probably missing terminating \"{}\" character", char::from(quote))
            }
            _ => format!("too long parameter \"{}...\" started", String::from_utf8_lossy(&raw[..10])),
        };
        self.error(start, text);
        self.words.clear();
        self.close_all();
    }

    fn close_all(&mut self) {
        while !self.open.is_empty() {
            self.close(self.at);
        }
    }

    fn close(&mut self, close: Position) {
        let Some(Opened { words, end, before }) = self.open.pop() else { return };
        let directives = std::mem::replace(&mut self.directives, before);
        if !words.is_empty() {
            self.directives.push(Directive { words, end, block: Some(Block { directives, close }) });
        }
    }

    fn error(&mut self, at: Position, text: impl Into<String>) {
        self.errors.push(SyntaxError { at, text: text.into() });
    }
}
