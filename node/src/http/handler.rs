//! The phases of a request, as in nginx: server rewrite, find location, rewrite, access, content.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use dysvr_conf::http::Handler;
use dysvr_conf::http::proxy::Pass;
use http::{HeaderMap, HeaderValue, Method, Response, Version, header};
use hyper::body::{Body as _, Incoming};

use super::body::{Abort, Body};
use super::client::Client;
use super::host::{self, Host};
use super::request::Request;
use super::response::{self, Answer};
use super::rewrite::{self, Step};
use super::{ACCESS, error_page, location, proxy, uri};
use crate::log::Level;

/// nginx's `large_client_header_buffers`: no line of a head may be longer.
const MAX_LINE: usize = 8 << 10;

const BAD_LINE: &str = "client sent invalid request while reading client request line";

/// What hyper's server calls.
pub(super) struct Service {
    /// The connection.
    pub client: Rc<Client>,
}

impl hyper::service::Service<http::Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Abort;
    type Future = Handling;

    fn call(&self, request: http::Request<Incoming>) -> Handling {
        start(&self.client, request)
    }
}

/// A request that is being handled.
pub(super) enum Handling {
    /// Answered already.
    Ready(Option<Result<Response<Body>, Abort>>),
    /// Waits for something.
    Waiting(Pin<Box<dyn Future<Output = Result<Response<Body>, Abort>>>>),
}

impl Future for Handling {
    type Output = Result<Response<Body>, Abort>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Ready(answer) => Poll::Ready(answer.take().unwrap_or(Err(Abort))),
            Self::Waiting(future) => future.as_mut().poll(cx),
        }
    }
}

/// Who makes the answer.
pub(super) enum Content {
    /// It is there.
    Answer(Answer),
    /// An upstream.
    Proxy(Arc<Pass>),
    /// Nobody: the connection is closed.
    Close,
}

fn start(client: &Rc<Client>, request: http::Request<Incoming>) -> Handling {
    let number = client.begin();
    client.ctx.request_began();
    let (parts, incoming) = request.into_parts();
    let known = Known::of(&parts.headers);
    let host = find_host(&parts, &known);
    let name = host.as_ref().map_or(b"".as_slice(), |host| host);
    client.route();
    let Some(found) = client.listener().find(&client.ctx.cycle, name) else { return Handling::Ready(Some(Err(Abort))) };
    let quarantined = found.vhost.quarantined.get();
    if !quarantined {
        client.enter(&found.vhost);
    }
    let (problem, host) = match host {
        Ok(host) => (None, host),
        Err(problem) => (Some(problem), Host::new()),
    };
    let keepalive = if parts.version >= Version::HTTP_11 { !known.close } else { known.keep_alive };
    let content_length = known.content_length;
    let mut request = Request::new(client, parts, found, host, number);
    request.keepalive = keepalive;
    request.content_length = content_length;
    let checked = match problem {
        Some(problem) => Err((400, problem)),
        None => check(&mut request).and_then(|()| match client.plain_on_ssl.get() {
            true => Err((error_page::TO_HTTPS, "client sent plain HTTP request to HTTPS port")),
            false => Ok(()),
        }),
    };
    if quarantined && let Some(http) = request.ctx.cycle.http() {
        // Not even its headers and logs: any of its own directives may be what crashes.
        request.conf = Arc::clone(&http.loc);
    }
    let content = match checked {
        Ok(()) if quarantined => Content::Answer(response::page(&mut request, 503, None)),
        Ok(()) => run(&mut request),
        Err((status, problem)) => {
            request.error(Level::Info, format_args!("{problem}"));
            request.keepalive = false;
            Content::Answer(response::page(&mut request, status, None))
        }
    };
    match content {
        Content::Answer(answer) => {
            discard(&mut request, incoming);
            let response = response::finish(&mut request, answer);
            client.current.replace(Some(Rc::new(request.into())));
            Handling::Ready(Some(Ok(response)))
        }
        Content::Close => {
            request.status = error_page::CLOSE;
            client.current.replace(Some(Rc::new(request.into())));
            Handling::Ready(Some(Err(Abort)))
        }
        Content::Proxy(pass) => {
            let request = Rc::new(request.into());
            client.current.replace(Some(Rc::clone(&request)));
            Handling::Waiting(Box::pin(proxy::handle(request, pass, incoming)))
        }
    }
}

/// Reads a body that nobody wants to its end, so that the connection can go on; or closes slowly behind it.
pub(super) fn discard(request: &mut Request, incoming: Incoming) {
    if incoming.is_end_stream() {
        return;
    }
    if request.headers.contains_key(header::EXPECT) {
        // Reading would tell the client to send it.
        request.keepalive = false;
    }
    if request.keepalive {
        request.client.discard.replace(Some(incoming));
    } else {
        request.client.linger.set(true);
    }
}

/// What a head says about its message, found in one pass: that is cheaper than looking up each of them.
#[derive(Default)]
struct Known<'a> {
    host: Option<&'a HeaderValue>,
    hosts: usize,
    content_length: Option<u64>,
    close: bool,
    keep_alive: bool,
}

impl<'a> Known<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut known = Self::default();
        for (name, value) in headers {
            match *name {
                header::HOST => {
                    known.host = Some(value);
                    known.hosts += 1;
                }
                header::CONTENT_LENGTH => known.content_length = value.to_str().ok().and_then(|text| text.parse().ok()),
                header::CONNECTION => {
                    for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        known.close |= token.eq_ignore_ascii_case(b"close");
                        known.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                _ => {}
            }
        }
        known
    }
}

/// The name that the request asks for; empty if HTTP/1.0 has none.
fn find_host(parts: &http::request::Parts, known: &Known<'_>) -> Result<Host, &'static str> {
    if known.hosts > 1 {
        return Err("client sent duplicate host header");
    }
    if let Some(authority) = parts.uri.authority() {
        return host::normalize(authority.as_str().as_bytes()).ok_or("client sent invalid host in request line");
    }
    match known.host {
        Some(value) => host::normalize(value.as_bytes()).ok_or("client sent invalid host header"),
        None if parts.version >= Version::HTTP_11 => {
            Err("client sent HTTP/1.1 request without \"Host\" header while reading client request headers")
        }
        None => Ok(Host::new()),
    }
}

/// What nginx refuses before any configuration is asked. Sets the path.
fn check(request: &mut Request) -> Result<(), (u16, &'static str)> {
    if request.method == Method::TRACE {
        return Err((405, "client sent TRACE method"));
    }
    if !request.method.as_str().bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'_' | b'-')) {
        return Err((400, "client sent invalid method while reading client request line"));
    }
    let client = &request.client;
    if client.received.get() - client.request_began.get() > MAX_LINE as u64 {
        if request.method.as_str().len() + request.request_uri().len() + " HTTP/1.1\r\n ".len() > MAX_LINE {
            return Err((414, "client sent too long URI while reading client request line"));
        }
        let too_long =
            |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 4 > MAX_LINE;
        if request.headers.iter().any(too_long) {
            return Err((
                error_page::HEADER_TOO_LARGE,
                "client sent too long header line while reading client request headers",
            ));
        }
    }
    let raw = request.target.path().as_bytes();
    if raw.first() != Some(&b'/') || (request.method == Method::CONNECT && request.target.scheme().is_none()) {
        request.no_uri = true;
        return Err((400, BAD_LINE));
    }
    if request.target.scheme().is_some() {
        request.unparsed_uri = !request.request_uri().is_empty();
    }
    request.quoted = raw.iter().any(|byte| matches!(byte, b'%' | b'+'));
    if !uri::is_plain(raw) {
        match uri::normalize(raw) {
            Ok(path) => request.set_path(path),
            Err(uri::Invalid) => {
                request.set_path(Vec::new());
                request.no_uri = true;
                return Err((400, BAD_LINE));
            }
        }
    }
    Ok(())
}

/// From the server's rewrite directives to the content.
fn run(request: &mut Request) -> Content {
    let vhost = Rc::clone(&request.vhost);
    match rewrite::run(request, &vhost.conf.script) {
        Step::Next => locate(request),
        Step::Answer(answer) => Content::Answer(answer),
        Step::Close => Content::Close,
    }
}

/// From the search for a location to the content; again after each `rewrite`.
pub(super) fn locate(request: &mut Request) -> Content {
    let vhost = Rc::clone(&request.vhost);
    loop {
        request.uri_changed = false;
        let search = match location::find(&vhost.conf.locations, request.path()) {
            Ok(search) => search,
            Err(error) => {
                request.error(Level::Error, format_args!("{error}"));
                return Content::Answer(response::page(request, 500, None));
            }
        };
        if let Some((captures, found)) = search.captures
            && let dysvr_conf::model::Pattern::Regex { groups, .. } = &found.pattern
        {
            request.captured(captures, groups);
        }
        request.conf = Arc::clone(search.location.as_ref().map_or(&vhost.conf.loc, |location| &location.conf));
        request.location = search.location;
        location_changed(request);
        if request.conf.core.internal && !request.internal {
            return Content::Answer(response::page(request, 404, None));
        }
        let limit = request.conf.core.client_max_body_size;
        if let Some(length) = request.content_length
            && limit > 0
            && length > limit
        {
            request.error(Level::Error, format_args!("client intended to send too large body: {length} bytes"));
            return Content::Answer(response::page(request, 413, None));
        }
        if search.add_slash {
            let mut url = Vec::new();
            uri::escape(&mut url, request.path(), uri::Escape::Path);
            url.push(b'/');
            if !request.args().is_empty() {
                url.push(b'?');
                url.extend_from_slice(request.args());
            }
            return Content::Answer(response::page(request, 301, Some(&url)));
        }
        match enter(request) {
            Some(content) => return content,
            None => {
                request.conf = Arc::clone(&vhost.conf.loc);
                request.location = None;
            }
        }
    }
}

/// Runs a location's own directives and finds out who answers; `None` when the URI has changed.
pub(super) fn enter(request: &mut Request) -> Option<Content> {
    if let Some(location) = request.location.clone() {
        match rewrite::run(request, &location.script) {
            Step::Next => {}
            Step::Answer(answer) => return Some(Content::Answer(answer)),
            Step::Close => return Some(Content::Close),
        }
    }
    if request.uri_changed {
        if request.count_uri_change() {
            return None;
        }
        let path = String::from_utf8_lossy(request.path()).into_owned();
        request.error(Level::Error, format_args!("rewrite or internal redirection cycle while processing \"{path}\""));
        return Some(Content::Answer(response::page(request, 500, None)));
    }
    for check in ACCESS {
        match check(request) {
            Step::Next => {}
            Step::Answer(answer) => return Some(Content::Answer(answer)),
            Step::Close => return Some(Content::Close),
        }
    }
    Some(match &request.conf.handler {
        Some(Handler::Proxy(pass)) => Content::Proxy(Arc::clone(pass)),
        None => Content::Answer(response::page(request, 404, None)),
    })
}

/// A request has another configuration now: what it says about the connection holds.
pub(super) fn location_changed(request: &mut Request) {
    let core = &request.conf.core;
    if core.keepalive_timeout.is_zero() || request.number >= core.keepalive_requests {
        request.keepalive = false;
    }
}
