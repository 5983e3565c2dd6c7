//! Tokens to a tree. An explicit stack of open blocks, so that depth costs no call stack.

use smallvec::SmallVec;

use super::lexer::{self, Token};
use super::{Arena, Block, Directive, MAX_DEPTH, MAX_WORD, Position, SyntaxError, Tree, Word};

/// Parses a file into an arena. Any bytes are fine; what is wrong with them is in [`Tree::errors`].
pub fn parse<'a>(text: &'a [u8], arena: &'a Arena) -> Tree<'a> {
    if u32::try_from(text.len()).is_err() {
        let at = Position { offset: 0, line: 1 };
        return Tree { directives: &[], errors: vec![SyntaxError { at, text: "file is too large".into() }] };
    }
    let mut parser = Parser {
        text,
        utf8: std::str::from_utf8(text).ok(),
        arena,
        at: Position { offset: 0, line: 1 },
        words: SmallVec::new(),
        directives: SmallVec::new(),
        open: SmallVec::new(),
        errors: Vec::new(),
    };
    parser.run();
    Tree { directives: arena.alloc_slice_copy(&parser.directives), errors: parser.errors }
}

struct Parser<'a> {
    text: &'a [u8],
    /// The text, if it is UTF-8 as a whole: then so is each word.
    utf8: Option<&'a str>,
    arena: &'a Arena,
    at: Position,
    /// Of the directive that has begun.
    words: SmallVec<[Word<'a>; 8]>,
    /// The finished ones of all open blocks, those of the outermost first.
    directives: SmallVec<[Directive<'a>; 24]>,
    /// The blocks around the place, outermost first.
    open: SmallVec<[Opened<'a>; 4]>,
    errors: Vec<SyntaxError>,
}

/// A block whose `}` is still to come.
struct Opened<'a> {
    words: &'a [Word<'a>],
    end: Position,
    /// How many directives were there before it.
    before: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text[self.at.offset as usize..]
    }

    fn run(&mut self) {
        loop {
            if let Ok((rest, lines)) = lexer::gap(self.rest()) {
                self.advance_to(rest, lines);
            }
            let start = self.at;
            let Ok((rest, token)) = lexer::token(self.rest()) else {
                return self.end_of_file();
            };
            let raw = &self.text[start.offset as usize..self.text.len() - rest.len()];
            if raw.len() > MAX_WORD {
                return self.too_long(raw, start);
            }
            // Only a quote or a backslash takes the end of a line into a word.
            let lines = match token {
                Token::Word { quoted: false, escaped: false, .. } => 0,
                Token::Word { .. } | Token::Unclosed => raw.iter().filter(|byte| **byte == b'\n').count() as u32,
                Token::Semicolon | Token::Open | Token::Close => 0,
            };
            self.advance_to(rest, lines);
            match token {
                Token::Word { text, quoted, escaped } => {
                    // A word that only the end of the file ends is not a word yet; `end_of_file` says so.
                    self.word(text, escaped, start, u32::from(quoted));
                    if quoted {
                        self.after_quotes();
                    }
                }
                Token::Unclosed => {
                    self.error(self.at, "unexpected end of file, expecting \";\" or \"}\"");
                    self.words.clear();
                    return self.close_all();
                }
                Token::Semicolon if self.words.is_empty() => self.error(start, "unexpected \";\""),
                Token::Semicolon => {
                    let words = self.take_words();
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
                    let words = self.take_words();
                    self.open.push(Opened { words, end: start, before: self.directives.len() });
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

    /// Moves to `rest`, a suffix of the text, over the ends of `lines` lines.
    fn advance_to(&mut self, rest: &'a [u8], lines: u32) {
        self.at.line += lines;
        self.at.offset = (self.text.len() - rest.len()) as u32;
    }

    fn take_words(&mut self) -> &'a [Word<'a>] {
        let words = self.arena.alloc_slice_copy(&self.words);
        self.words.clear();
        words
    }

    /// `raw` begins `skipped` bytes behind `at`.
    fn word(&mut self, raw: &'a [u8], escaped: bool, at: Position, skipped: u32) {
        let begin = (at.offset + skipped) as usize;
        let text = match self.utf8.and_then(|text| text.get(begin..begin + raw.len())) {
            Some(text) if !escaped => text,
            _ => self.resolved(raw),
        };
        self.words.push(Word { text, at });
    }

    /// A word that holds escapes, or of a text that is not UTF-8.
    fn resolved(&mut self, raw: &'a [u8]) -> &'a str {
        match std::str::from_utf8(&lexer::unescape(raw)) {
            Ok(text) => self.arena.alloc_str(text),
            Err(_) => {
                let lossy = String::from_utf8_lossy(raw);
                self.error(self.at, format!("\"{lossy}\" is not UTF-8, which is not supported"));
                self.arena.alloc_str(&lossy)
            }
        }
    }

    /// Behind a closing quote only a blank, `;`, `{` or `)` may stand.
    fn after_quotes(&mut self) {
        match self.rest().first() {
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
        let directives = self.arena.alloc_slice_copy(&self.directives[before..]);
        self.directives.truncate(before);
        if !words.is_empty() {
            self.directives.push(Directive { words, end, block: Some(Block { directives, close }) });
        }
    }

    fn error(&mut self, at: Position, text: impl Into<String>) {
        self.errors.push(SyntaxError { at, text: text.into() });
    }
}
