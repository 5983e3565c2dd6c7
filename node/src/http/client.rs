//! A client's connection: what is known about it, where its request stands, what went over its socket.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use dysvr_conf::model::ListenAddr;
use http::HeaderMap;
use hyper::rt::ReadBufCursor;
use tokio::io::AsyncWrite as _;

use super::context::Context;
use super::proxy::Relay;
use super::request::Shared;
use super::ssl::Agreed;
use super::stream::Stream;
use super::timer::{Deadline, Timer};
use super::tunnel::Switch;
use crate::cycle::Listener;
use crate::log::Level;
use crate::os::socket_io;

/// nginx's `client_header_timeout`.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// nginx's `send_timeout`.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the request of a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing of the next request has come.
    Idle,
    /// A part of its head has come.
    Head,
    /// It is being handled.
    Active,
    /// Its answer is on the way to hyper.
    Answering,
    /// hyper has all of the answer; it is finished when the socket has it.
    Flushing,
}

/// See the module.
pub(super) struct Client {
    /// The worker.
    pub ctx: Rc<Context>,
    /// Serial number in the worker, as logs show it.
    pub number: u64,
    /// Where the connection came in; who serves that address now, if there is anybody.
    listener: RefCell<Rc<Listener>>,
    /// The layout of the cycle's listeners for which `listener` is right.
    layout: Cell<u64>,
    /// Nobody serves the address any more.
    homeless: Cell<bool>,
    /// The client's address; `None` on a unix socket.
    pub remote: Option<SocketAddr>,
    /// `$remote_addr`.
    pub remote_text: Box<str>,
    local: Cell<Option<SocketAddr>>,
    /// Its deadlines.
    pub timer: Timer,
    /// Where its request stands.
    pub stage: Cell<Stage>,
    /// Requests so far, the current one included.
    pub requests: Cell<u64>,
    /// Bytes read from the socket.
    pub received: Cell<u64>,
    /// Bytes written to the socket.
    pub sent: Cell<u64>,
    /// `received` when the current request began.
    pub request_began: Cell<u64>,
    /// `sent` when the current answer began.
    answer_began: Cell<u64>,
    /// Bytes of the answer's head; 0 until it is known.
    head_len: Cell<u64>,
    /// Bytes behind the head that were handed to hyper for the current answer, chunk framing included.
    pub generated: Cell<u64>,
    /// The current answer is chunked.
    pub chunked: Cell<bool>,
    /// The request that the next flush may end.
    pub current: RefCell<Option<Shared>>,
    /// The upstream's answer that is being passed on.
    pub relay: RefCell<Option<Rc<Relay>>>,
    /// Both sides agreed to switch protocols.
    pub switch: RefCell<Option<Switch>>,
    /// How long the connection may stay idle now.
    pub keepalive: Cell<Duration>,
    /// A body that nobody wants, read while the answer is sent.
    pub discard: RefCell<Option<hyper::body::Incoming>>,
    /// The client still sends a body that nobody wants: close slowly.
    pub linger: Cell<bool>,
    /// What the handshake has agreed on; empty on a plain connection.
    pub tls: OnceCell<Box<Agreed>>,
    /// The client speaks plain HTTP to an address that is TLS.
    pub plain_on_ssl: Cell<bool>,
    /// A header map of an earlier request, empty, for the next one.
    pub spare: RefCell<Option<HeaderMap>>,
    /// The mark of the vhost whose request it is, 0 between requests.
    pub mark: Cell<u64>,
    blocked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    /// A connection that has just been accepted.
    pub(super) fn new(
        ctx: &Rc<Context>,
        listener: Rc<Listener>,
        remote: Option<SocketAddr>,
        local: Option<SocketAddr>,
    ) -> Rc<Self> {
        let remote_text = remote.map_or_else(|| "unix:".to_owned(), |addr| addr.ip().to_string());
        Rc::new(Self {
            ctx: Rc::clone(ctx),
            number: ctx.next_connection(),
            layout: Cell::new(ctx.cycle.layout()),
            homeless: Cell::new(listener.is_closed()),
            listener: RefCell::new(listener),
            remote,
            remote_text: remote_text.into(),
            local: Cell::new(local),
            timer: Timer::default(),
            stage: Cell::new(Stage::Idle),
            requests: Cell::new(0),
            received: Cell::new(0),
            sent: Cell::new(0),
            request_began: Cell::new(0),
            answer_began: Cell::new(0),
            head_len: Cell::new(0),
            generated: Cell::new(0),
            chunked: Cell::new(false),
            current: RefCell::default(),
            relay: RefCell::default(),
            switch: RefCell::default(),
            keepalive: Cell::new(HEADER_TIMEOUT),
            discard: RefCell::default(),
            linger: Cell::new(false),
            tls: OnceCell::new(),
            plain_on_ssl: Cell::new(false),
            spare: RefCell::default(),
            mark: Cell::new(0),
            blocked: Cell::new(false),
            waker: RefCell::default(),
        })
    }

    /// Where the connection came in.
    pub(super) fn listener(&self) -> Rc<Listener> {
        Rc::clone(&self.listener.borrow())
    }

    /// Finds out who serves the connection's address when listeners have come or gone since it was last asked. One whose
    /// address nobody serves any more stays with the listener that it came for, for the request that it may be about to
    /// make, and closes after that.
    pub(super) fn route(&self) {
        let cycle = &self.ctx.cycle;
        if self.layout.replace(cycle.layout()) == cycle.layout() {
            return;
        }
        let old = self.listener();
        let at = match (&old.addr, self.local.get()) {
            (_, Some(local)) => ListenAddr::Inet(local),
            (addr, None) => addr.clone(),
        };
        // One that speaks TLS where this connection does not, or the other way round, is not for it.
        let now = cycle.listener_at(&at).filter(|now| now.is_ssl() == old.is_ssl());
        self.homeless.set(now.is_none());
        if let ListenAddr::Inet(at) = at {
            self.local.set(Some(at));
        }
        if let Some(now) = now {
            self.listener.replace(now);
        }
    }

    /// Whether nobody serves the address that it came to any more: it closes after its request, or now if it has none.
    pub(super) fn is_homeless(&self) -> bool {
        self.homeless.get()
    }

    /// Remembers whom to wake when the worker drains.
    pub(super) fn register(&self, cx: &task::Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes its task.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// A request begins.
    pub(super) fn begin(&self) -> u64 {
        if self.stage.get() == Stage::Flushing {
            self.finish(true);
        }
        self.stage.set(Stage::Active);
        self.timer.set(Deadline::Client, None);
        self.requests.set(self.requests.get() + 1);
        self.requests.get()
    }

    /// The vhost of the request that has begun is known: what goes wrong from here on is its doing.
    pub(super) fn enter(&self, vhost: &crate::cycle::Vhost) {
        let mark = vhost.mark();
        self.mark.set(mark);
        self.ctx.pulse.turn(mark);
    }

    /// Its answer begins; `empty` if it has no body that will be asked for.
    pub(super) fn answer(&self, empty: bool, chunked: bool) {
        self.answer_began.set(self.sent.get());
        self.head_len.set(0);
        self.generated.set(0);
        self.chunked.set(chunked);
        self.stage.set(if empty { Stage::Flushing } else { Stage::Answering });
    }

    /// An answer was written without hyper: how much of it is body.
    pub(super) fn answered_raw(&self, body: u64) {
        let sent = self.sent.get();
        self.head_len.set(sent - self.answer_began.get().min(sent) - body.min(sent));
    }

    /// A piece of the body goes to hyper.
    pub(super) fn generate(&self, payload: u64) {
        let framing = if self.chunked.get() && payload > 0 { hex_digits(payload) + 4 } else { 0 };
        self.generated.set(self.generated.get() + payload + framing);
    }

    /// The body has ended.
    pub(super) fn generated_all(&self) {
        if self.chunked.get() {
            self.generated.set(self.generated.get() + 5);
        }
        self.stage.set(Stage::Flushing);
    }

    /// The request is over: it is logged, and the connection waits for the next one.
    pub(super) fn finish(&self, complete: bool) {
        let request = self.current.take();
        if let Some(request) = request {
            if let Ok(mut request) = request.try_borrow_mut() {
                request.complete = complete;
                if request.status == 0 {
                    request.status = super::error_page::CLIENT_CLOSED;
                }
                super::log_request(&mut request);
            }
            self.ctx.request_ended();
        }
        self.mark.set(0);
        self.stage.set(Stage::Idle);
        self.request_began.set(self.received.get());
        self.timer.set(Deadline::Client, Some(self.ctx.clock.now() + self.keepalive.get()));
        self.timer.set(Deadline::Peer, None);
    }

    /// The socket takes nothing, or takes something again.
    fn block(&self, blocked: bool) {
        match (self.blocked.replace(blocked), blocked) {
            (false, true) => self.timer.set(Deadline::Client, Some(self.ctx.clock.now() + SEND_TIMEOUT)),
            (true, false) => self.timer.set(Deadline::Client, None),
            _ => {}
        }
    }

    /// A line of the error log about the connection, outside any request.
    pub(super) fn log(&self, level: Level, text: std::fmt::Arguments<'_>) {
        let listener = self.listener();
        let server = listener.default_server().and_then(|server| self.ctx.cycle.compile(&server));
        let log = match server {
            Some(server) => self.ctx.error_log(&server.conf.loc.core.error_logs),
            None => crate::log::current(),
        };
        log.write(level, self.number, format_args!("{text}, client: {}, server: {}", self.remote_text, listener.addr));
    }

    /// Whether the socket has taken all that was made of the current answer.
    pub(crate) fn is_flushed(&self) -> bool {
        let head = self.head_len.get();
        head > 0 && self.sent.get() == self.answer_began.get() + head + self.generated.get()
    }

    /// `$bytes_sent`.
    pub(super) fn response_bytes(&self) -> u64 {
        self.sent.get() - self.answer_began.get().min(self.sent.get())
    }

    /// `$body_bytes_sent`.
    pub(super) fn response_body_bytes(&self) -> u64 {
        self.response_bytes().saturating_sub(self.head_len.get())
    }

    /// `$server_addr`.
    pub(super) fn server_addr(&self) -> String {
        match (&self.listener.borrow().addr, self.local.get()) {
            (_, Some(local)) => local.ip().to_string(),
            (ListenAddr::Inet(addr), None) => addr.ip().to_string(),
            (ListenAddr::Unix(path), None) => format!("unix:{}", path.display()),
        }
    }

    /// The port that the client came to; 0 on a unix socket.
    pub(super) fn port(&self) -> u16 {
        match &self.listener.borrow().addr {
            ListenAddr::Inet(addr) => addr.port(),
            ListenAddr::Unix(_) => 0,
        }
    }

    /// `$server_port`.
    pub(super) fn server_port(&self) -> String {
        match self.port() {
            0 => String::new(),
            port => port.to_string(),
        }
    }

    /// `$remote_port`.
    pub(super) fn remote_port(&self) -> String {
        self.remote.map(|addr| addr.port().to_string()).unwrap_or_default()
    }
}

fn hex_digits(number: u64) -> u64 {
    u64::from((u64::BITS - number.leading_zeros()).div_ceil(4))
}

/// The socket as hyper's server sees it.
pub(super) struct ClientIo {
    /// The socket. Shared with the connection, which looks for the client's end while a request is handled.
    pub stream: Rc<RefCell<Stream>>,
    /// Whose it is.
    pub client: Rc<Client>,
}

impl hyper::rt::Read for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = match socket_io::poll_read(Pin::new(&mut *self.stream.borrow_mut()), cx, buf) {
            Poll::Ready(Ok(read)) => read,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        let client = &self.client;
        client.received.set(client.received.get() + read as u64);
        if read > 0 && client.stage.get() == Stage::Idle {
            client.stage.set(Stage::Head);
            client.timer.set(Deadline::Client, Some(client.ctx.clock.now() + HEADER_TIMEOUT));
        }
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let stage = self.client.stage.get();
        if matches!(stage, Stage::Idle | Stage::Head) {
            // hyper's own bare answer to a head that it does not understand; ours follows when it gives up.
            return Poll::Ready(Ok(buf.len()));
        }
        let begins = self.client.head_len.get() == 0 && matches!(stage, Stage::Answering | Stage::Flushing);
        let written = match buf.strip_prefix(b"HTTP/1.0") {
            // hyper answers HTTP/1.0 with its own version, nginx with 1.1.
            Some(rest) if begins => {
                let parts = [IoSlice::new(b"HTTP/1.1"), IoSlice::new(rest)];
                Pin::new(&mut *self.stream.borrow_mut()).poll_write_vectored(cx, &parts)
            }
            _ => Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, buf),
        };
        if begins && matches!(written, Poll::Ready(Ok(_))) {
            self.client.head_len.set((buf.len() as u64).saturating_sub(self.client.generated.get()));
        }
        let client = &self.client;
        match &written {
            Poll::Ready(Ok(written)) => {
                client.sent.set(client.sent.get() + *written as u64);
                client.block(false);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => client.block(true),
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        if self.client.tls.get().is_some() {
            // What was written is in the session; the socket must take it before the answer counts as sent.
            let flushed = Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx);
            self.client.block(flushed.is_pending());
            match flushed {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        // A tunnel is a part of its request.
        if self.client.stage.get() == Stage::Flushing && self.client.switch.borrow().is_none() {
            self.client.finish(true);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }
}
