//! The shape of a configuration file, as far as the history needs it: its blocks, words and includes. Whether it means
//! anything is `dysvr_conf`'s business.

use std::collections::BTreeMap;

/// A directive with the line that it begins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its words; the first one is its name.
    pub(super) words: Vec<String>,
    /// From 1.
    pub(super) line: u32,
    /// What stands in its block, if it has one.
    pub(super) block: Option<Vec<Directive>>,
    /// Byte offset after the `{` of its block, or of its end.
    pub(super) open: usize,
}

impl Directive {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }
}

/// Reads a file; `Err` is the line and what is wrong.
pub(super) fn scan(text: &str) -> Result<Vec<Directive>, (u32, String)> {
    let mut levels: Vec<(Vec<String>, u32, Vec<Directive>, usize)> = vec![(Vec::new(), 0, Vec::new(), 0)];
    let mut words: Vec<String> = Vec::new();
    let mut began = 0;
    let mut line = 1;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if words.is_empty() {
            began = line;
        }
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            '#' => while chars.next_if(|(_, c)| *c != '\n').is_some() {},
            ';' => {
                let directive = Directive { words: std::mem::take(&mut words), line: began, block: None, open: at };
                levels.last_mut().ok_or((line, "unexpected \";\"".to_owned()))?.2.push(directive);
            }
            '{' => levels.push((std::mem::take(&mut words), began, Vec::new(), at + 1)),
            '}' => {
                let Some((words, line, block, open)) = levels.pop() else { break };
                let Some(parent) = levels.last_mut() else { return Err((line, "unexpected \"}\"".to_owned())) };
                parent.2.push(Directive { words, line, block: Some(block), open });
            }
            '"' | '\'' => {
                let mut word = String::new();
                loop {
                    match chars.next() {
                        None => return Err((began, "unexpected end of file, expecting a closing quote".to_owned())),
                        Some((_, end)) if end == c => break,
                        Some((_, '\\')) => word.extend(chars.next().map(|(_, c)| c)),
                        Some((_, other)) => {
                            line += u32::from(other == '\n');
                            word.push(other);
                        }
                    }
                }
                words.push(word);
            }
            _ => {
                let mut word = String::from(c);
                while let Some((_, next)) = chars.next_if(|(_, c)| !c.is_whitespace() && !matches!(c, ';' | '{')) {
                    word.push(next);
                    if next == '$'
                        && let Some((_, open)) = chars.next_if(|(_, c)| *c == '{')
                    {
                        word.push(open);
                    }
                }
                words.push(word);
            }
        }
    }
    match levels.pop() {
        Some((_, _, top, _)) if levels.is_empty() && words.is_empty() => Ok(top),
        _ => Err((line, "unexpected end of file, expecting \";\" or \"}\"".to_owned())),
    }
}

/// The managed files that `name` includes, directly and through others, itself left out. An include with a wildcard
/// reaches what it matches at the end of a directory.
pub(super) fn closure<'a>(includes: &'a BTreeMap<String, Vec<String>>, name: &str) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    let mut todo = vec![name];
    while let Some(next) = todo.pop() {
        for pattern in includes.get(next).into_iter().flatten() {
            let plain = includes.get_key_value(pattern).map(|(file, _)| file);
            let wild = includes.keys().filter(|file| pattern.contains(['*', '?']) && glob(pattern, file));
            for file in plain.into_iter().chain(wild) {
                if file != name && !found.contains(&file.as_str()) {
                    found.push(file);
                    todo.push(file);
                }
            }
        }
    }
    found
}

/// Whether a pattern with `*` and `?` covers a name; neither crosses a `/`.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(b'?') if name[n] != b'/' => (p, n) = (p + 1, n + 1),
            Some(c) if *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) if name[from] != b'/' => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_words_and_lines() {
        let text = "include a/*.conf; # no\nserver {\n  listen 80 ;\n  set $x \"a;b\\\"\";\n  location ~ ^/${y} { return 200; }\n}\n";
        let top = scan(text).unwrap();
        assert_eq!(top[0].words, ["include", "a/*.conf"]);
        let server = top[1].block.as_ref().unwrap();
        assert_eq!((top[1].name(), top[1].line), ("server", 2));
        assert_eq!(server[0].words, ["listen", "80"]);
        assert_eq!(server[1].words, ["set", "$x", "a;b\""]);
        assert_eq!(server[2].words, ["location", "~", "^/${y}"]);
        assert_eq!(server[2].block.as_ref().unwrap()[0].line, 5);
        assert_eq!(scan("server {").unwrap_err().0, 1);
        assert!(scan("}").is_err());
        assert!(scan("a \"b").is_err());
    }

    #[test]
    fn closures_follow_includes() {
        let includes = BTreeMap::from([
            ("v/a.conf".to_owned(), vec!["u/a.*.conf".to_owned(), "c.conf".to_owned()]),
            ("c.conf".to_owned(), vec!["d.conf".to_owned(), "c.conf".to_owned()]),
            ("d.conf".to_owned(), vec![]),
            ("u/a.1.conf".to_owned(), vec![]),
            ("u/b.1.conf".to_owned(), vec![]),
        ]);
        let mut found = closure(&includes, "v/a.conf");
        found.sort_unstable();
        assert_eq!(found, ["c.conf", "d.conf", "u/a.1.conf"]);
        assert!(glob("*.conf", "a.conf") && !glob("*.conf", "v/a.conf") && glob("v/?.c*f", "v/a.conf"));
    }
}
