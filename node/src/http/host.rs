//! The name that a request asks for: `Host` or the authority of an absolute request line, checked and reduced to what
//! `server_name` compares with.

use smallvec::SmallVec;

/// A host in lower case, without port and trailing dot.
pub(super) type Host = SmallVec<[u8; 40]>;

/// Checks and normalises a host as nginx does; `None` is answered with 400.
pub(super) fn normalize(host: &[u8]) -> Option<Host> {
    #[derive(PartialEq)]
    enum State {
        Usual,
        Literal,
        Rest,
    }
    let mut state = State::Usual;
    let mut len = host.len();
    let mut last_dot = usize::MAX;
    for (at, &byte) in host.iter().enumerate() {
        match byte {
            b'.' => {
                if at > 0 && last_dot == at - 1 {
                    return None;
                }
                last_dot = at;
            }
            b':' if state == State::Usual => {
                len = at;
                state = State::Rest;
            }
            b'[' if at == 0 => state = State::Literal,
            b']' if state == State::Literal => {
                len = at + 1;
                state = State::Rest;
            }
            b'/' | 0..=b' ' | 0x7f => return None,
            _ => {}
        }
    }
    if len > 0 && last_dot == len - 1 {
        len -= 1;
    }
    if len == 0 {
        return None;
    }
    Some(host[..len].iter().map(u8::to_ascii_lowercase).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let table: &[(&str, Option<&str>)] = &[
            ("Example.COM", Some("example.com")),
            ("a.b:8080", Some("a.b")),
            ("a.b.", Some("a.b")),
            ("a.b.:80", Some("a.b")),
            ("[::1]:80", Some("[::1]")),
            ("a..b", None),
            ("", None),
            (".", None),
            (":80", None),
            ("a/b", None),
            ("a b", None),
        ];
        for (host, expected) in table {
            let got = normalize(host.as_bytes()).map(|host| String::from_utf8(host.to_vec()).unwrap());
            assert_eq!(got.as_deref(), *expected, "{host}");
        }
    }
}
