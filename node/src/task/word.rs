//! The words of a task line: `key=value` and `key="quoted value"`.

use std::fmt::Write as _;

/// One word, unquoted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: String,
}

/// Whether a character needs no quotes.
fn is_bare(c: char) -> bool {
    !(c.is_control() || matches!(c, ' ' | '"' | '\\'))
}

/// Whether all of a value, of which there is some, is ASCII that needs no quotes: what nearly all are, of which some are long.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\'))
}

/// Takes the next word off `rest`; `None` at the end of the line.
pub(crate) fn next<'a>(rest: &mut &'a str) -> Result<Option<Word<'a>>, String> {
    let text = rest.trim_start_matches([' ', '\t']);
    if text.is_empty() {
        *rest = text;
        return Ok(None);
    }
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c: char| !is_key(c)).unwrap_or(text.len());
    let (key, tail) = text.split_at(end);
    let Some(tail) = tail.strip_prefix('=').filter(|_| !key.is_empty()) else {
        let end = text.find([' ', '\t']).unwrap_or(text.len());
        return Err(format!("\"{}\" is not key=value", text[..end].escape_debug()));
    };
    let (value, tail) = match tail.strip_prefix('"') {
        Some(quoted) => unquote(quoted).map_err(|why| format!("the value of {key} {why}"))?,
        None => {
            let end = tail.bytes().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(tail.len());
            let (value, tail) = tail.split_at(end);
            let odd = || value.chars().find(|c| !is_bare(*c));
            if let Some(odd) = if is_plain(value) { None } else { odd() } {
                return Err(format!("the value of {key} has a '{}' outside quotes", odd.escape_default()));
            }
            (value.to_owned(), tail)
        }
    };
    if !(tail.is_empty() || tail.starts_with([' ', '\t'])) {
        return Err(format!("the value of {key} goes on behind its closing quote"));
    }
    *rest = tail;
    Ok(Some(Word { key, value }))
}

/// The text up to the closing quote, and what stands behind it.
fn unquote(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match chars.next().map(|(_, c)| c) {
                Some(c @ ('"' | '\\')) => c,
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('x') => {
                    let mut digit = || chars.next().and_then(|(_, c)| c.to_digit(16));
                    match (digit(), digit()) {
                        (Some(high), Some(low)) if high * 16 + low < 0x80 => char::from((high * 16 + low) as u8),
                        _ => return Err("has a bad \\x escape"),
                    }
                }
                _ => return Err("has an unknown escape"),
            }),
            c if c.is_control() => return Err("has a control character"),
            c => value.push(c),
        }
    }
    Err("has no closing quote")
}

/// Appends ` key=value`, quoted where it must be; the blank only between words.
pub(crate) fn push(line: &mut String, key: &str, value: &str) {
    if !line.is_empty() {
        line.push(' ');
    }
    line.push_str(key);
    line.push('=');
    if is_plain(value) || !value.is_empty() && value.chars().all(is_bare) {
        line.push_str(value);
        return;
    }
    line.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_ascii_control() => {
                let _ = write!(line, "\\x{:02x}", u32::from(c));
            }
            // The controls above ASCII (U+0080 to U+009F) say nothing that a reader misses.
            c if c.is_control() => line.push('\u{fffd}'),
            c => line.push(c),
        }
    }
    line.push('"');
}
