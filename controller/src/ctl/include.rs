//! The `include`s of a file, found without understanding the rest of it: a file with mistakes has includes, too.
//!
//! Only words, quotes, comments and the three marks `;`, `{` and `}` are told apart here; whether the text means
//! anything is for `dysvr_conf` to say.

/// An `include`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// Where it stands, from 1.
    pub line: u32,
    /// What it names, unquoted.
    pub path: String,
}

impl Include {
    /// Whether it names many files, perhaps none.
    pub fn is_pattern(&self) -> bool {
        self.path.contains(['*', '?', '['])
    }

    /// Whether it is relative to the configuration's directory.
    pub fn is_relative(&self) -> bool {
        !self.path.starts_with('/')
    }
}

/// All of them, in order.
pub fn includes(content: &[u8]) -> Vec<Include> {
    let mut found = Vec::new();
    let mut words: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut reader = Reader { rest: content, line: 1 };
    while let Some(token) = reader.next() {
        match token {
            Token::Word(line, word) => words.push((line, word)),
            Token::Mark(mark) => {
                if let (b';', [(line, first), (_, path)]) = (mark, words.as_slice())
                    && first == b"include"
                {
                    found.push(Include { line: *line, path: String::from_utf8_lossy(path).into_owned() });
                }
                words.clear();
            }
        }
    }
    found
}

enum Token {
    Word(u32, Vec<u8>),
    Mark(u8),
}

struct Reader<'a> {
    rest: &'a [u8],
    line: u32,
}

impl Reader<'_> {
    fn bump(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += u32::from(*first == b'\n');
        Some(*first)
    }

    fn next(&mut self) -> Option<Token> {
        loop {
            match *self.rest.first()? {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    self.bump();
                }
                b'#' => while self.bump().is_some_and(|byte| byte != b'\n') {},
                mark @ (b';' | b'{' | b'}') => {
                    self.bump();
                    return Some(Token::Mark(mark));
                }
                quote @ (b'"' | b'\'') => {
                    let line = self.line;
                    self.bump();
                    return Some(Token::Word(line, self.word(|byte| byte == quote, true)));
                }
                _ => {
                    let line = self.line;
                    let ends = |byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{');
                    return Some(Token::Word(line, self.word(ends, false)));
                }
            }
        }
    }

    /// Up to a byte that ends it, which is only taken from a quoted word.
    fn word(&mut self, ends: impl Fn(u8) -> bool, quoted: bool) -> Vec<u8> {
        let mut word = Vec::new();
        while let Some(&byte) = self.rest.first() {
            if ends(byte) {
                if quoted {
                    self.bump();
                }
                break;
            }
            self.bump();
            match (byte, self.rest.first()) {
                (b'\\', Some(&next @ (b'"' | b'\'' | b'\\'))) => {
                    self.bump();
                    word.push(next);
                }
                (b'\\', Some(&next)) => {
                    self.bump();
                    word.extend([byte, next]);
                }
                _ => word.push(byte),
            }
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_found_wherever_a_directive_may_stand() {
        let text = br##"
include auto_upstream/a.conf;
# include commented.conf;
server {
    listen 80; include "with space.conf";
    set $x "include not.conf;"; add_header X 'it\'s include no.conf;';
    include
        common_location.conf ;   # include late.conf;
    location ~ ^/include$ { include /etc/nginx/abs.conf; }
    include; include two words;
    return 200 a\;b; include *.inc;
"##;
        let found: Vec<(u32, String)> = includes(text).into_iter().map(|i| (i.line, i.path)).collect();
        let wanted = [
            (2, "auto_upstream/a.conf"),
            (5, "with space.conf"),
            (7, "common_location.conf"),
            (9, "/etc/nginx/abs.conf"),
            (11, "*.inc"),
        ];
        assert_eq!(found, wanted.map(|(line, path)| (line, path.to_owned())));
    }

    #[test]
    fn broken_text_neither_panics_nor_hangs() {
        for text in ["include", "include \"a", "include a", "\\", "include a\\", "{{{}}};;;'", "include 'a'b;"] {
            let _ = includes(text.as_bytes());
        }
        assert_eq!(includes(b"include a\xff.conf;").len(), 1);
    }
}
