//! The values of variables, worked out when something asks for them.

use std::io::Write as _;
use std::time::{Duration, Instant};

use dysvr_conf::variable::{Builtin, Variable};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::request::Request;
use super::upstream::Attempt;
use super::{map, template};

/// Appends the value of a variable. False if it has none, which logs show as `-`.
pub(super) fn append(request: &Request, variable: &Variable, out: &mut Vec<u8>) -> bool {
    let found = match variable {
        Variable::Builtin(builtin) => return append_builtin(request, *builtin, out),
        Variable::RequestHeader(name) => return append_header(&request.headers, name, out),
        Variable::SentHeader(name) => {
            return request.sent_headers.as_ref().is_some_and(|headers| append_header(headers, name, out));
        }
        Variable::UpstreamHeader(name) => {
            return request.upstream_headers.as_ref().is_some_and(|headers| append_header(headers, name, out));
        }
        Variable::Argument(name) => argument(request.args(), name.as_bytes()),
        Variable::Cookie(name) => cookie(&request.headers, name.as_bytes()),
        Variable::Capture(group) => request.captures.get(*group),
        Variable::Slot(slot) => {
            let value = request.slot(*slot);
            if value.is_none() {
                uninitialized(request, *slot);
                return true;
            }
            value
        }
        Variable::Map(index) => return map::append(request, *index, out),
        Variable::Named(name) => {
            let slot = request.vhost.conf.variables.iter().position(|known| known == name);
            slot.and_then(|slot| request.slot(slot as u16))
        }
    };
    match found {
        Some(value) => {
            out.extend_from_slice(value);
            true
        }
        None => false,
    }
}

fn uninitialized(request: &Request, slot: u16) {
    let name = request.vhost.conf.variables.get(usize::from(slot)).map_or("", |name| name);
    request.error(dysvr_conf::main_conf::Level::Warn, format_args!("using uninitialized \"{name}\" variable"));
}

/// The variable as it stands in a header of the request already, to be passed on without a copy.
pub(super) fn as_header<'a>(request: &'a Request, variable: &Variable) -> Option<&'a HeaderValue> {
    match variable {
        Variable::RequestHeader(name) => {
            let mut all = request.headers.get_all(name).iter();
            all.next().filter(|_| all.next().is_none())
        }
        _ => None,
    }
}

/// All values of a header, joined as nginx does.
fn append_header(headers: &HeaderMap, name: &HeaderName, out: &mut Vec<u8>) -> bool {
    let separator: &[u8] = if *name == header::COOKIE { b"; " } else { b", " };
    let mut found = false;
    for value in headers.get_all(name) {
        if found {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(value.as_bytes());
        found = true;
    }
    found
}

/// The first argument of a name.
fn argument<'a>(args: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    args.split(|byte| *byte == b'&').find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        pair[..at].eq_ignore_ascii_case(name).then(|| &pair[at + 1..])
    })
}

fn cookie<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<&'a [u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii_start).find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        pair[..at].eq_ignore_ascii_case(name).then(|| &pair[at + 1..])
    })
}

fn append_builtin(request: &Request, builtin: Builtin, out: &mut Vec<u8>) -> bool {
    use Builtin as B;
    let mut integer = itoa::Buffer::new();
    let client = &request.client;
    match builtin {
        B::Args | B::QueryString => {
            out.extend_from_slice(request.args());
            return request.has_args();
        }
        B::IsArgs => {
            if !request.args().is_empty() {
                out.push(b'?');
            }
        }
        // A path that leads above the root is known, but empty.
        B::Uri | B::DocumentUri if request.no_uri => return request.path().is_empty() && request.is_rooted(),
        B::RequestUri if request.no_uri => return false,
        B::Uri | B::DocumentUri => out.extend_from_slice(request.path()),
        B::RequestUri => out.extend_from_slice(request.request_uri()),
        B::Request => {
            if let Some(line) = &request.bad_line {
                out.extend_from_slice(line.as_bytes());
                return !line.is_empty();
            }
            let _ = write!(out, "{} {} {:?}", request.method, request.target, request.version);
        }
        B::RequestMethod => out.extend_from_slice(request.method.as_str().as_bytes()),
        B::ServerProtocol => drop(write!(out, "{:?}", request.version)),
        B::Scheme => out.extend_from_slice(if client.tls.get().is_some() { b"https" } else { b"http" }),
        B::Https => {
            if client.tls.get().is_some() {
                out.extend_from_slice(b"on");
            }
        }
        B::SslProtocol | B::SslCipher | B::SslServerName | B::SslSessionReused => {
            let Some(agreed) = client.tls.get() else { return false };
            let text = match builtin {
                B::SslProtocol => agreed.protocol,
                B::SslCipher => agreed.cipher,
                B::SslSessionReused => {
                    if agreed.reused {
                        "r"
                    } else {
                        "."
                    }
                }
                _ => agreed.server_name.as_deref().unwrap_or_default(),
            };
            out.extend_from_slice(text.as_bytes());
            return !text.is_empty();
        }
        B::Host => {
            if request.host.is_empty() || request.no_uri {
                out.extend_from_slice(request.server_name().as_bytes());
            } else {
                out.extend_from_slice(&request.host);
            }
        }
        B::Hostname => out.extend_from_slice(request.ctx.hostname.as_bytes()),
        B::ServerName => out.extend_from_slice(request.server_name().as_bytes()),
        B::ServerAddr => out.extend_from_slice(client.server_addr().as_bytes()),
        B::ServerPort => out.extend_from_slice(client.server_port().as_bytes()),
        B::RemoteAddr => out.extend_from_slice(client.remote_text.as_bytes()),
        B::RemotePort => out.extend_from_slice(client.remote_port().as_bytes()),
        B::BinaryRemoteAddr => match client.remote.map(|addr| addr.ip()) {
            Some(std::net::IpAddr::V4(ip)) => out.extend_from_slice(&ip.octets()),
            Some(std::net::IpAddr::V6(ip)) => out.extend_from_slice(&ip.octets()),
            None => out.extend_from_slice(client.remote_text.as_bytes()),
        },
        B::RemoteUser => return append_remote_user(request, out),
        B::ProxyAddXForwardedFor => {
            if append_header(&request.headers, &header::HeaderName::from_static("x-forwarded-for"), out) {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(client.remote_text.as_bytes());
        }
        B::ProxyHost | B::ProxyPort => {
            let Some((host, port)) = &request.proxy else { return false };
            let text = if builtin == B::ProxyHost { host } else { port };
            out.extend_from_slice(text.as_bytes());
        }
        B::ContentLength => match request.content_length {
            Some(length) => out.extend_from_slice(integer.format(length).as_bytes()),
            None => return false,
        },
        B::ContentType => return append_header(&request.headers, &header::CONTENT_TYPE, out),
        B::Connection => out.extend_from_slice(integer.format(client.number).as_bytes()),
        B::ConnectionRequests => out.extend_from_slice(integer.format(request.number).as_bytes()),
        B::Pid => out.extend_from_slice(integer.format(request.ctx.pid).as_bytes()),
        B::NginxVersion => out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes()),
        B::Msec => append_millis(request.ctx.clock.unix(), out),
        B::TimeIso8601 => append_iso8601(request, out),
        B::TimeLocal => append_time_local(request, out),
        B::RequestTime => append_millis(request.ctx.clock.now().saturating_duration_since(request.start), out),
        B::RequestLength => {
            let length = client.received.get().saturating_sub(request.received_before);
            out.extend_from_slice(integer.format(length).as_bytes());
        }
        B::RequestId => {
            for byte in request.id.unwrap_or_else(|| request.ctx.request_id(request)) {
                let _ = write!(out, "{byte:02x}");
            }
        }
        B::RequestCompletion => {
            if request.complete {
                out.extend_from_slice(b"OK");
            }
        }
        B::Status => drop(write!(out, "{:03}", request.status)),
        B::BytesSent => out.extend_from_slice(integer.format(client.response_bytes()).as_bytes()),
        B::BodyBytesSent => out.extend_from_slice(integer.format(client.response_body_bytes()).as_bytes()),
        B::UpstreamAddr => {
            return append_attempts(request, out, |attempt, out| out.extend_from_slice(attempt.name.as_bytes()));
        }
        B::UpstreamStatus => {
            return append_attempts(request, out, |attempt, out| match attempt.status {
                0 => out.push(b'-'),
                status => out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes()),
            });
        }
        B::UpstreamConnectTime => return append_attempts(request, out, |it, out| append_span(it, it.connect, out)),
        B::UpstreamHeaderTime => return append_attempts(request, out, |it, out| append_span(it, it.header, out)),
        B::UpstreamResponseTime => return append_attempts(request, out, |it, out| append_span(it, it.response, out)),
        B::UpstreamResponseLength => {
            return append_attempts(request, out, |attempt, out| {
                out.extend_from_slice(itoa::Buffer::new().format(attempt.body_bytes).as_bytes());
            });
        }
        B::UpstreamBytesReceived => {
            return append_attempts(request, out, |attempt, out| {
                out.extend_from_slice(itoa::Buffer::new().format(attempt.received).as_bytes());
            });
        }
        B::DysvrRevision => return append_number(request.vhost.stamp.revision, out),
        B::DysvrTaskId => return append_number(request.vhost.stamp.task_id, out),
        B::DysvrVsvcId => return append_number(request.vhost.conf.vsvc_id.map(|id| id.0), out),
    }
    true
}

fn append_number(number: Option<u64>, out: &mut Vec<u8>) -> bool {
    match number {
        Some(number) => {
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            true
        }
        None => false,
    }
}

/// Seconds with three digits behind the point.
fn append_millis(span: Duration, out: &mut Vec<u8>) {
    let _ = write!(out, "{}.{:03}", span.as_secs(), span.subsec_millis());
}

fn append_span(attempt: &Attempt, until: Option<Instant>, out: &mut Vec<u8>) {
    match until {
        Some(until) => append_millis(until.saturating_duration_since(attempt.start), out),
        None => out.push(b'-'),
    }
}

/// One value per try, separated by `, `.
fn append_attempts(request: &Request, out: &mut Vec<u8>, one: impl Fn(&Attempt, &mut Vec<u8>)) -> bool {
    for (index, attempt) in request.attempts.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        one(attempt, out);
    }
    !request.attempts.is_empty()
}

fn append_offset(offset: i32, colon: &str, out: &mut Vec<u8>) {
    let (sign, minutes) = if offset < 0 { ('-', -offset / 60) } else { ('+', offset / 60) };
    let _ = write!(out, "{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60);
}

fn append_iso8601(request: &Request, out: &mut Vec<u8>) {
    let t = request.ctx.clock.local();
    let _ = write!(out, "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", t.year, t.month, t.day, t.hour, t.minute, t.second);
    append_offset(t.offset, ":", out);
}

fn append_time_local(request: &Request, out: &mut Vec<u8>) {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let t = request.ctx.clock.local();
    let month = MONTHS.get(usize::from(t.month).wrapping_sub(1)).unwrap_or(&"Jan");
    let _ = write!(out, "{:02}/{month}/{:04}:{:02}:{:02}:{:02} ", t.day, t.year, t.hour, t.minute, t.second);
    append_offset(t.offset, "", out);
}

/// The user of `Authorization: Basic`, which nobody has checked.
fn append_remote_user(request: &Request, out: &mut Vec<u8>) -> bool {
    let Some(value) = request.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes) else { return false };
    let Some((scheme, coded)) = value.split_at_checked(6) else { return false };
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return false;
    }
    let Some(plain) = decode_base64(coded.trim_ascii()) else { return false };
    let Some(colon) = plain.iter().position(|byte| *byte == b':') else { return false };
    out.extend_from_slice(&plain[..colon]);
    colon > 0
}

fn decode_base64(coded: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(coded.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in coded.iter().take_while(|byte| **byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

/// A new `$request_id`.
pub(super) fn new_id() -> [u8; 16] {
    rand::random()
}

/// Whether a template can only be worked out from the headers of an answer, ours or the upstream's.
pub(super) fn needs_answer(
    template: &dysvr_conf::template::Template,
    maps: &[std::sync::Arc<dysvr_conf::http::map::Map>],
) -> bool {
    template.parts.iter().any(|part| match part {
        dysvr_conf::template::Part::Literal(_) => false,
        dysvr_conf::template::Part::Variable(variable) => match variable {
            Variable::SentHeader(_) | Variable::UpstreamHeader(_) => true,
            // A map that refers to itself is refused when it is read, so this ends.
            Variable::Map(index) => maps
                .get(usize::from(*index))
                .is_some_and(|map| map.values().chain([&map.source]).any(|value| needs_answer(value, maps))),
            _ => false,
        },
    })
}

/// Whether a value counts as true in `if=` and `if ($x)`.
pub(super) fn is_true(value: &[u8]) -> bool {
    !value.is_empty() && value != b"0"
}

/// The truth of a template.
pub(super) fn holds(request: &Request, condition: &dysvr_conf::template::Template) -> bool {
    is_true(&template::value(request, condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_cookies_are_found_by_name() {
        assert_eq!(argument(b"a=1&B=2&b=3&c", b"b"), Some(b"2".as_slice()));
        assert_eq!(argument(b"ab=1", b"b"), None);
        assert_eq!(argument(b"c", b"c"), None);
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("x=1; y=2"));
        headers.append(header::COOKIE, HeaderValue::from_static("z=3"));
        assert_eq!(cookie(&headers, b"y"), Some(b"2".as_slice()));
        assert_eq!(cookie(&headers, b"z"), Some(b"3".as_slice()));
        assert_eq!(cookie(&headers, b"w"), None);
    }

    #[test]
    fn base64_gives_the_user() {
        assert_eq!(decode_base64(b"dXNlcjpwYXNz").as_deref(), Some(b"user:pass".as_slice()));
        assert_eq!(decode_base64(b"YTpi").as_deref(), Some(b"a:b".as_slice()));
        assert_eq!(decode_base64(b"!").as_deref(), None);
    }
}
