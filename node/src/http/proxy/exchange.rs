//! The tries: one peer after the other until one gives a head that may be passed on.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use dysvr_conf::http::proxy::{NextUpstream, Pass};
use dysvr_conf::main_conf::Level;
use http::{Method, Response, Version};
use hyper::body::Incoming;

use super::target::Resolved;
use super::{head, outgoing};
use crate::http::client::Client;
use crate::http::request::Shared;
use crate::http::request_body::RequestBody;
use crate::http::timer::Deadline;
use crate::http::upstream::{Attempt, Choice, Outcome, PeerConnection, Turn, connect};

/// A head and the connection that its body comes from.
pub(super) struct Exchange {
    pub(super) target: Resolved,
    pub(super) connection: Box<PeerConnection>,
    pub(super) response: Response<Incoming>,
}

const CONNECTING: &str = "connecting to upstream";
const READING: &str = "reading response header from upstream";

/// How the tries ended.
pub(super) enum Done {
    /// With a head.
    Head(Box<Exchange>),
    /// With an answer of our own.
    Status(u16),
    /// The upstream wants another location of ours to answer.
    Redirect(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Error,
    Timeout,
    InvalidHeader,
}

/// A try that failed.
struct Failure {
    kind: Kind,
    text: String,
    /// What was being done.
    step: &'static str,
    /// A part of the request may have reached the peer.
    sent: bool,
    /// It was a kept connection.
    cached: bool,
}

/// See [`Done`].
pub(super) async fn run(request: &Shared, pass: &Pass, target: Result<Resolved, u16>, body: &RequestBody) -> Done {
    let target = match target {
        Ok(target) => target,
        Err(status) => return Done::Status(status),
    };
    let (client, conf) = {
        let mut request = request.borrow_mut();
        request.proxy = Some((target.host.clone(), target.port.clone()));
        (Rc::clone(&request.client), std::sync::Arc::clone(&request.conf.proxy))
    };
    let upstream = Rc::clone(&target.upstream);
    let mut turn = Turn::new(&upstream.conf);
    loop {
        let now = client.ctx.clock.now();
        let second = client.ctx.clock.unix().as_secs();
        let Some(choice) = upstream.state.choose(&upstream.conf, &mut turn, second) else {
            let mut request = request.borrow_mut();
            let mut attempt = Attempt::new(&upstream.conf.name, now);
            attempt.status = 502;
            attempt.response = Some(now);
            request.attempts.push(attempt);
            let url = outgoing::url(&request, pass, target.uri.as_deref(), &upstream.conf.name);
            request.error_about(
                Level::Error,
                format_args!("no live upstreams while connecting to upstream"),
                Some(&url),
            );
            return Done::Status(502);
        };
        request.borrow_mut().attempts.push(Attempt::new(&upstream.conf.peers[choice.index].name, now));
        match try_peer(request, &client, pass, &target, &choice, body).await {
            Ok((connection, response)) => {
                let status = response.status().as_u16();
                if wanted_elsewhere(&conf.next_upstream, status) && turn.has_others() {
                    let outcome = if matches!(status, 403 | 404) { Outcome::Next } else { Outcome::Failed };
                    end(request, pass, &target, &choice, &mut turn, (outcome, status, READING));
                    if may_repeat(&request.borrow().method, &conf.next_upstream) {
                        continue;
                    }
                    return Done::Status(status);
                }
                let seconds = client.ctx.clock.unix().as_secs();
                upstream.state.end(&upstream.conf, &choice, &mut turn, Outcome::Alive, seconds);
                if let Some(to) = head::internal_redirect(response.headers()) {
                    return Done::Redirect(to.as_bytes().to_vec());
                }
                return Done::Head(Box::new(Exchange { target, connection, response }));
            }
            Err(failure) => {
                let url = url_of(request, pass, &target, &choice);
                request.borrow().error_about(Level::Error, format_args!("{}", failure.text), Some(&url));
                let status = if failure.kind == Kind::Timeout { 504 } else { 502 };
                end(request, pass, &target, &choice, &mut turn, (Outcome::Failed, status, failure.step));
                if failure.cached && failure.kind == Kind::Error {
                    turn.give_back();
                }
                let allowed = match failure.kind {
                    Kind::Error => conf.next_upstream.error,
                    Kind::Timeout => conf.next_upstream.timeout,
                    Kind::InvalidHeader => conf.next_upstream.invalid_header,
                };
                let repeatable = !failure.sent || may_repeat(&request.borrow().method, &conf.next_upstream);
                if !turn.may_try() || !allowed || !repeatable {
                    return Done::Status(status);
                }
            }
        }
    }
}

/// Ends the current try; `step` is what it was at, for the log.
fn end(
    request: &Shared,
    pass: &Pass,
    target: &Resolved,
    choice: &Choice,
    turn: &mut Turn,
    (outcome, status, step): (Outcome, u16, &str),
) {
    let upstream = &target.upstream;
    let second = {
        let mut request = request.borrow_mut();
        let clock = &request.ctx.clock;
        let (now, second) = (clock.now(), clock.unix().as_secs());
        if let Some(attempt) = request.attempts.last_mut() {
            attempt.status = status;
            attempt.response = Some(now);
        }
        second
    };
    if upstream.state.end(&upstream.conf, choice, turn, outcome, second) {
        let url = url_of(request, pass, target, choice);
        let text = format_args!("upstream server temporarily disabled while {step}");
        request.borrow().error_about(Level::Warn, text, Some(&url));
    }
}

fn url_of(request: &Shared, pass: &Pass, target: &Resolved, choice: &Choice) -> String {
    let peer = &target.upstream.conf.peers[choice.index].name;
    outgoing::url(&request.borrow(), pass, target.uri.as_deref(), peer)
}

/// Whether a request may be sent again when it may have reached a peer.
fn may_repeat(method: &Method, next: &NextUpstream) -> bool {
    next.non_idempotent || !(*method == Method::POST || *method == Method::PATCH || method.as_str() == "LOCK")
}

fn wanted_elsewhere(next: &NextUpstream, status: u16) -> bool {
    match status {
        500 => next.http_500,
        502 => next.http_502,
        503 => next.http_503,
        504 => next.http_504,
        403 => next.http_403,
        404 => next.http_404,
        429 => next.http_429,
        _ => false,
    }
}

/// Runs something until a deadline of the peer; `None` if that comes first.
async fn before<T>(client: &Client, timeout: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    client.timer.set(Deadline::Peer, Some(client.ctx.clock.now() + timeout));
    let result = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if client.timer.expired(Deadline::Peer, client.ctx.clock.now()) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await;
    client.timer.set(Deadline::Peer, None);
    result
}

async fn try_peer(
    request: &Shared,
    client: &Rc<Client>,
    pass: &Pass,
    target: &Resolved,
    choice: &Choice,
    body: &RequestBody,
) -> Result<(Box<PeerConnection>, Response<Incoming>), Failure> {
    let upstream = &target.upstream;
    let conf = std::sync::Arc::clone(&request.borrow().conf.proxy);
    let now = client.ctx.clock.now();
    let kept = upstream.state.pool(&upstream.conf).take(&choice.peer, now);
    let cached = kept.is_some();
    let mut connection = match kept {
        Some(connection) => connection,
        // Boxed because it is rare: its state would make each request's larger.
        None => Box::new(Box::pin(open(client, upstream, choice, conf.connect_timeout)).await?),
    };
    let now = client.ctx.clock.now();
    if let Some(attempt) = request.borrow_mut().attempts.last_mut() {
        attempt.connect = Some(now);
    }
    let Some(outgoing) = outgoing::build(&request.borrow(), pass, target, body) else {
        return Err(Failure {
            kind: Kind::InvalidHeader,
            text: "the request for the upstream cannot be written".to_owned(),
            step: CONNECTING,
            sent: false,
            cached: false,
        });
    };
    connection.send(outgoing);
    let timeout = if matches!(body, RequestBody::File(..)) {
        conf.read_timeout.max(conf.send_timeout)
    } else {
        conf.read_timeout
    };
    let answer = before(client, timeout, poll_fn(|cx| connection.poll_head(cx))).await;
    let now = client.ctx.clock.now();
    if let Some(attempt) = request.borrow_mut().attempts.last_mut() {
        attempt.received = connection.received();
    }
    let response = match answer {
        Some(Ok(response)) => response,
        Some(Err(error)) => return Err(failure_of(&error, cached)),
        None => {
            return Err(Failure {
                kind: Kind::Timeout,
                text: format!("upstream timed out (110: Connection timed out) while {READING}"),
                step: READING,
                sent: true,
                cached,
            });
        }
    };
    if let Some(attempt) = request.borrow_mut().attempts.last_mut() {
        attempt.header = Some(now);
        attempt.status = response.status().as_u16();
    }
    if response.version() == Version::HTTP_09 {
        let url = url_of(request, pass, target, choice);
        request.borrow().error_about(
            Level::Error,
            format_args!("upstream sent no valid HTTP/1.0 header while reading response header from upstream"),
            Some(&url),
        );
    }
    Ok((connection, response))
}

async fn open(
    client: &Client,
    upstream: &crate::cycle::Upstream,
    choice: &Choice,
    timeout: Duration,
) -> Result<PeerConnection, Failure> {
    let failure = |kind, text| Failure { kind, text, step: CONNECTING, sent: false, cached: false };
    match before(client, timeout, connect(&upstream.conf.peers[choice.index].addr)).await {
        Some(Ok(stream)) => PeerConnection::new(stream, &choice.peer, client.ctx.clock.now())
            .await
            .map_err(|error| failure(Kind::Error, format!("{error} while connecting to upstream"))),
        Some(Err(error)) => {
            Err(failure(Kind::Error, format!("connect() failed ({}) while connecting to upstream", describe(&error))))
        }
        None => Err(failure(
            Kind::Timeout,
            "upstream timed out (110: Connection timed out) while connecting to upstream".to_owned(),
        )),
    }
}

/// `111: Connection refused`.
pub(super) fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{number}: {}", nix::errno::Errno::from_raw(number).desc()),
        None => error.to_string(),
    }
}

fn failure_of(error: &hyper::Error, cached: bool) -> Failure {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let (kind, text) = if error.is_parse_too_large() {
        (Kind::InvalidHeader, format!("upstream sent too big header while {READING}"))
    } else if error.is_parse() {
        (Kind::InvalidHeader, format!("upstream sent invalid header ({error}) while {READING}"))
    } else if let Some(io) = io {
        let call = if error.is_body_write_aborted() { "writev()" } else { "recv()" };
        (Kind::Error, format!("{call} failed ({}) while {READING}", describe(io)))
    } else {
        (Kind::Error, format!("upstream prematurely closed connection while {READING}"))
    };
    // What hyper gives back has not been written.
    Failure { kind, text, step: READING, sent: !error.is_canceled(), cached }
}
