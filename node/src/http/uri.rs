//! The path of a request as locations see it: percent-decoded, `//`, `/./` and `/../` resolved, as nginx does it; and the
//! escaping that makes a request line or a `Location` of it again.

use std::fmt::Write as _;

/// What is wrong with a path: a bad escape, a zero byte, or more `..` than there are segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

/// Whether normalisation would change nothing: the usual case, found out in one pass without a copy.
pub(super) fn is_plain(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let mut after_slash = true;
    for &byte in &path[1..] {
        match byte {
            b'%' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Usual,
    Slash,
    Dot,
    DotDot,
}

/// Decodes and resolves a path (without arguments), with `merge_slashes on`.
pub(super) fn normalize(raw: &[u8]) -> Result<Vec<u8>, Invalid> {
    let mut out: Vec<u8> = Vec::with_capacity(raw.len());
    let mut state = State::Usual;
    let mut at = 0;
    while at < raw.len() {
        let mut byte = raw[at];
        at += 1;
        if byte == b'%' {
            let (Some(high), Some(low)) = (hex(raw.get(at)), hex(raw.get(at + 1))) else { return Err(Invalid) };
            at += 2;
            byte = high << 4 | low;
            match byte {
                0 => return Err(Invalid),
                // These do not mean anything special once they are decoded; `/` and `.` do.
                b'%' | b'#' | b'?' => {
                    out.push(byte);
                    state = State::Usual;
                    continue;
                }
                _ => {}
            }
        }
        state = match (state, byte) {
            (State::Usual, b'/') => {
                out.push(byte);
                State::Slash
            }
            (State::Usual, _) => {
                out.push(byte);
                State::Usual
            }
            (State::Slash, b'/') => State::Slash,
            (State::Slash, b'.') => {
                out.push(byte);
                State::Dot
            }
            (State::Dot, b'/') => {
                out.pop();
                State::Slash
            }
            (State::Dot, b'.') => {
                out.push(byte);
                State::DotDot
            }
            (State::DotDot, b'/') => {
                up(&mut out)?;
                State::Slash
            }
            (State::Slash | State::Dot | State::DotDot, _) => {
                out.push(byte);
                State::Usual
            }
        };
    }
    match state {
        State::Dot => drop(out.pop()),
        State::DotDot => up(&mut out)?,
        State::Usual | State::Slash => {}
    }
    Ok(out)
}

/// Takes `/segment/..` back to `/`.
fn up(out: &mut Vec<u8>) -> Result<(), Invalid> {
    let end = out.len().checked_sub(3).ok_or(Invalid)?;
    let slash = out[..end].iter().rposition(|byte| *byte == b'/').ok_or(Invalid)?;
    out.truncate(slash + 1);
    Ok(())
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    (*byte? as char).to_digit(16).map(|digit| digit as u8)
}

/// What is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// A path: what cannot stand in a request line, and `%`, `?`, `#`.
    Path,
    /// A value among arguments: `&`, `+` and `;` too.
    Arguments,
}

fn must_escape(byte: u8, escape: Escape) -> bool {
    match byte {
        0..=b' ' | 0x7f.. => true,
        b'"' | b'#' | b'%' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => true,
        b'&' | b'+' | b';' => escape == Escape::Arguments,
        _ => false,
    }
}

/// Appends `text` escaped.
pub(super) fn escape(out: &mut Vec<u8>, text: &[u8], kind: Escape) {
    for &byte in text {
        if must_escape(byte, kind) {
            let mut hex = String::with_capacity(3);
            let _ = write!(hex, "%{byte:02X}");
            out.extend_from_slice(hex.as_bytes());
        } else {
            out.push(byte);
        }
    }
}

/// Decodes what a redirect of `rewrite` may show plainly: escapes of visible ASCII above `%`, up to the first `?`.
pub(super) fn unescape_redirect(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if byte == b'?' {
            break;
        }
        if byte == b'%'
            && let (Some(high), Some(low)) = (hex(text.get(at + 1)), hex(text.get(at + 2)))
        {
            let decoded = high << 4 | low;
            if decoded == b'?' {
                out.push(b'?');
                at += 3;
                break;
            }
            if decoded > b'%' && decoded < 0x7f {
                out.push(decoded);
            } else {
                out.extend_from_slice(&text[at..at + 3]);
            }
            at += 3;
            continue;
        }
        out.push(byte);
        at += 1;
    }
    out.extend_from_slice(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_resolve_as_in_nginx() {
        let table: &[(&str, Option<&str>)] = &[
            ("/", Some("/")),
            ("/a//b///c", Some("/a/b/c")),
            ("/a/./b/.", Some("/a/b/")),
            ("/a/../b", Some("/b")),
            ("/a/b/..", Some("/a/")),
            ("/a/..", Some("/")),
            ("/..", None),
            ("/a/../..", None),
            ("/%2e%2e/", None),
            ("/a%2f..%2Fb", Some("/b")),
            ("/.a/..b/...", Some("/.a/..b/...")),
            ("/%41%3f%23%25", Some("/A?#%")),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
            ("/%00", None),
            ("/a+b", Some("/a+b")),
        ];
        for (raw, expected) in table {
            let got = normalize(raw.as_bytes()).ok().map(|path| String::from_utf8(path).unwrap());
            assert_eq!(got.as_deref(), *expected, "{raw}");
            if is_plain(raw.as_bytes()) {
                assert_eq!(got.as_deref(), Some(*raw), "{raw} is plain");
            }
        }
        assert!(is_plain(b"/a/b.html") && !is_plain(b"/a//b") && !is_plain(b"/.x") && !is_plain(b"/a%20"));
    }

    #[test]
    fn escapes() {
        let mut out = Vec::new();
        escape(&mut out, b"/a b%?\xff&+", Escape::Path);
        assert_eq!(out, b"/a%20b%25%3F%FF&+");
        out.clear();
        escape(&mut out, b"a&b+c;d e", Escape::Arguments);
        assert_eq!(out, b"a%26b%2Bc%3Bd%20e");
        assert_eq!(unescape_redirect(b"/%41%20%3f%41?%41"), b"/A%20?%41?%41");
    }
}
