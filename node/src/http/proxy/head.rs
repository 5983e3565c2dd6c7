//! From a peer's head to ours: what is hidden, what is rewritten, how the body goes on.

use std::rc::Rc;
use std::sync::Arc;
use std::task;

use dysvr_conf::http::proxy::Pass;
use dysvr_conf::template::Part;
use dysvr_conf::variable::Variable;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use hyper::body::Body as _;
use hyper::ext::ReasonPhrase;
use smallvec::SmallVec;

use super::exchange::Exchange;
use super::relay::Relay;
use crate::http::body::Body;
use crate::http::handler::Content;
use crate::http::request::{Request, Shared};
use crate::http::response::{self, Answer};
use crate::http::template;
use crate::http::tunnel::Switch;
use crate::log::Level;

/// Turns a head that came from a peer into an answer.
pub(super) fn accept(request: &Shared, pass: &Arc<Pass>, exchange: Exchange, cx: &mut task::Context<'_>) -> Content {
    let Exchange { target, connection, response: answer } = exchange;
    let (parts, incoming) = answer.into_parts();
    let mut headers = parts.headers;
    let mut borrowed = request.borrow_mut();
    let borrowed = &mut *borrowed;
    if wants_upstream_headers(borrowed) {
        borrowed.upstream_headers = Some(Box::new(headers.clone()));
    }
    let buffering = filter(borrowed, &mut headers) && borrowed.conf.proxy.buffering;
    rewrite_location(borrowed, pass, &mut headers);
    let reason = parts.extensions.get::<ReasonPhrase>().cloned();

    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        let wanted = borrowed.headers.contains_key(header::UPGRADE);
        let timeout = borrowed.conf.proxy.read_timeout;
        let socket = connection.into_upgraded(cx);
        let (true, Some((stream, early))) = (wanted, socket) else {
            borrowed.error(Level::Error, format_args!("upstream switched protocols without being asked"));
            return Content::Answer(response::page(borrowed, 502, None));
        };
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        borrowed.client.switch.replace(Some(Switch { stream, early, timeout }));
        return Content::Answer(Answer { status: 101, headers, body: Body::Empty, reason });
    }

    let status = parts.status.as_u16();
    let empty = incoming.is_end_stream() || borrowed.method == Method::HEAD;
    let body = if empty {
        let clock = &borrowed.ctx.clock;
        let now = clock.now();
        if let Some(attempt) = borrowed.attempts.last_mut() {
            attempt.response = Some(now);
        }
        target.upstream.state.pool(&target.upstream.conf).put(&borrowed.ctx.reaper, connection, now, cx);
        let length = headers.get(header::CONTENT_LENGTH).is_none();
        if length && borrowed.method != Method::HEAD && !matches!(status, 204 | 304) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Body::Empty
    } else {
        let relay = Relay::new(request, borrowed, (pass, target), connection, incoming, buffering);
        borrowed.client.relay.replace(Some(Rc::clone(&relay)));
        Body::Relay(relay)
    };
    Content::Answer(Answer { status, headers, body, reason })
}

/// Whether a log or `add_header` asks for `$upstream_http_…`.
fn wants_upstream_headers(request: &Request) -> bool {
    let is_it = |part: &Part| matches!(part, Part::Variable(Variable::UpstreamHeader(_) | Variable::Map(_)));
    request.conf.headers.add.iter().any(|add| add.value.parts.iter().any(is_it))
        || request.ctx.logs_headers(&request.main, &request.conf.log.access_logs)
}

/// Removes what belongs to the peer's connection and what nginx keeps for itself. False if the peer forbids buffering.
///
/// One pass over the names finds out what there is to remove: looking up each of them costs more than all the rest here.
fn filter(request: &Request, headers: &mut HeaderMap) -> bool {
    let mut buffering = true;
    let mut special: SmallVec<[HeaderName; 4]> = SmallVec::new();
    for name in headers.keys() {
        let hidden = match *name {
            header::CONNECTION | header::TRANSFER_ENCODING => true,
            header::CONTENT_TYPE | header::CONTENT_LENGTH | header::SERVER | header::DATE => false,
            _ => is_internal(name.as_str()),
        };
        if hidden {
            special.push(name.clone());
        }
    }
    for name in special {
        if let Some(value) = headers.remove(&name)
            && name.as_str() == "x-accel-buffering"
        {
            buffering = !value.as_bytes().eq_ignore_ascii_case(b"no");
        }
    }
    for name in request.conf.proxy.hide_headers.iter() {
        headers.remove(name);
    }
    buffering
}

fn is_internal(name: &str) -> bool {
    const ACCEL: [&str; 5] = ["expires", "redirect", "limit-rate", "buffering", "charset"];
    match name.strip_prefix("x-accel-") {
        Some(rest) => ACCEL.contains(&rest),
        None => name == "keep-alive" || name == "x-pad",
    }
}

/// Where `X-Accel-Redirect` leads, if there is one.
pub(super) fn internal_redirect(headers: &HeaderMap) -> Option<&HeaderValue> {
    let custom = |name: &HeaderName| name.as_str() == "x-accel-redirect";
    headers.keys().any(custom).then(|| headers.get("x-accel-redirect")).flatten()
}

/// `proxy_redirect default`: where the peer names itself, the client is told our location.
fn rewrite_location(request: &Request, pass: &Pass, headers: &mut HeaderMap) {
    for name in [header::LOCATION, header::REFRESH] {
        let Some(value) = headers.get_mut(&name) else { continue };
        let bytes = value.as_bytes();
        let start = match name == header::REFRESH {
            false => 0,
            true => match bytes.windows(4).position(|window| window.eq_ignore_ascii_case(b"url=")) {
                Some(at) => at + 4,
                None => continue,
            },
        };
        let (url, own) = match (&pass.uri, request.location_prefix()) {
            (Some(uri), Some(prefix)) => (format!("http://{}{uri}", pass.host), prefix),
            (None, _) => (format!("http://{}/", pass.host), "/"),
            (Some(_), None) => continue,
        };
        let Some(rest) = bytes[start..].strip_prefix(url.as_bytes()) else { continue };
        let changed = [&bytes[..start], own.as_bytes(), rest].concat();
        if let Some(changed) = template::make_header(&request.ctx.arena, &changed) {
            *value = changed;
            if name == header::LOCATION {
                response::make_location_absolute(request, headers);
            }
        }
    }
}
