//! Patterns of file names as glob(3) reads them, on the text alone: what an `include` reaches.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether nginx takes an `include` for a pattern at all; anything else is one file, which must exist.
pub fn is_pattern(path: &Path) -> bool {
    path.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte))
}

/// Whether a pattern matches a path: `*`, `?` and `[…]` do not match `/`, nor a `.` at the start of a name.
pub fn matches(pattern: &Path, path: &Path) -> bool {
    let mut names = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
    let mut patterns = pattern.as_os_str().as_bytes().split(|byte| *byte == b'/');
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if name_matches(pattern, name) => {}
            _ => return false,
        }
    }
}

/// Whether a pattern without `/` matches a name without `/`.
pub fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') && !pattern.starts_with(b"\\.") {
        return false;
    }
    // A mismatch goes back to the last `*`, which takes one more byte: no recursion, at most length² steps.
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, n));
            p += 1;
            continue;
        }
        match one(&pattern[p..], name[n]) {
            Some(width) => {
                p += width;
                n += 1;
            }
            None => match star {
                Some((after, at)) => {
                    star = Some((after, at + 1));
                    (p, n) = (after, at + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The width of the pattern's first element if it matches the byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => match class(pattern, byte) {
            Some((true, width)) => Some(width),
            Some((false, _)) => None,
            None => (byte == b'[').then_some(1),
        },
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        literal => (literal == byte).then_some(1),
    }
}

/// Whether `[…]` holds the byte, and its width; `None` if nothing closes it.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, usize)> {
    let mut at = 1;
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(negated);
    let first = at;
    let mut found = false;
    loop {
        match *pattern.get(at)? {
            b']' if at > first => return Some((found != negated, at + 1)),
            low if pattern.get(at + 1) == Some(&b'-') && pattern.get(at + 2).is_some_and(|high| *high != b']') => {
                found |= (low..=pattern[at + 2]).contains(&byte);
                at += 3;
            }
            literal => {
                found |= literal == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("/a/*.conf", "/a/b.conf", true),
            ("/a/*.conf", "/a/.conf", false),
            ("/a/*.conf", "/a/.b.conf", false),
            ("/a/.*", "/a/.b", true),
            ("/a/*.conf", "/a/b/c.conf", false),
            ("/a/*/c.conf", "/a/b/c.conf", true),
            ("/a/*", "/a", false),
            ("/a/b?.conf", "/a/bc.conf", true),
            ("/a/[a-c]x[!0-9]", "/a/bxz", true),
            ("/a/[a-c]x[!0-9]", "/a/bx1", false),
            ("/a/[]x]", "/a/]", true),
            ("/a/[x", "/a/[x", true),
            ("/a/*a*b*c", "/a/xaxbxbxc", true),
            ("/a/*a*b*c", "/a/xaxbxbx", false),
            ("/a/\\*", "/a/*", true),
            ("/a/\\*", "/a/b", false),
            ("/a/**", "/a/b", true),
        ] {
            assert_eq!(matches(Path::new(pattern), Path::new(path)), expected, "{pattern} {path}");
        }
    }
}
