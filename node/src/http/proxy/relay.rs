//! The body of a peer's answer on its way to the client.
//!
//! While the client keeps up, hyper's server asks for a piece, the connection to the peer is polled, and the piece goes
//! through without being kept. When hyper stops asking because the client is slow, and `proxy_buffering` is on,
//! [`Relay::read_ahead`] goes on reading so that the peer is soon free.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dysvr_conf::http::proxy::Pass;
use hyper::body::{Body as _, Incoming};

use super::ahead::Ahead;
use super::outgoing;
use super::target::Resolved;
use crate::http::body::Abort;
use crate::http::client::Client;
use crate::http::request::{Request, Shared};
use crate::http::timer::Deadline;
use crate::http::upstream::PeerConnection;
use crate::log::Level;

/// See the module.
pub(crate) struct Relay {
    client: Rc<Client>,
    request: Shared,
    pass: Arc<Pass>,
    target: Resolved,
    source: RefCell<Option<Source>>,
    ahead: RefCell<Ahead>,
    length: Option<u64>,
    read_timeout: Duration,
    buffering: bool,
    passed: Cell<u64>,
    state: Cell<State>,
    /// hyper has asked and been told to wait since the last look at reading ahead.
    waits: Cell<bool>,
    aborting: Cell<bool>,
}

struct Source {
    connection: Box<PeerConnection>,
    incoming: Incoming,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The peer has more.
    Open,
    /// All of it has come.
    Ended,
    /// Less than all of it has come.
    Failed,
}

impl Relay {
    /// A body of which nothing has been read.
    pub(super) fn new(
        shared: &Shared,
        request: &Request,
        (pass, target): (&Arc<Pass>, Resolved),
        connection: Box<PeerConnection>,
        incoming: Incoming,
        buffering: bool,
    ) -> Rc<Self> {
        Rc::new(Self {
            client: Rc::clone(&request.client),
            request: Rc::clone(shared),
            pass: Arc::clone(pass),
            target,
            length: incoming.size_hint().exact(),
            source: RefCell::new(Some(Source { connection, incoming })),
            ahead: RefCell::default(),
            read_timeout: request.conf.proxy.read_timeout,
            buffering,
            passed: Cell::new(0),
            state: Cell::new(State::Open),
            waits: Cell::new(false),
            aborting: Cell::new(false),
        })
    }

    /// Its length, if the peer has said it.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.length
    }

    /// Whether all of it has been handed out.
    pub(crate) fn is_done(&self) -> bool {
        self.state.get() == State::Ended && self.ahead.borrow().is_empty()
    }

    /// The next piece for the client.
    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Abort>>> {
        let kept = self.ahead.borrow_mut().pop();
        let data = match kept {
            Ok(Some(data)) => data,
            Err(_) => return Poll::Ready(Some(Err(Abort))),
            Ok(None) => match self.state.get() {
                State::Ended => return Poll::Ready(None),
                State::Failed => return self.poll_abort(cx),
                State::Open => match self.poll_source(cx) {
                    Poll::Ready(Some(data)) => data,
                    Poll::Ready(None) if self.state.get() == State::Failed => return self.poll_abort(cx),
                    Poll::Ready(None) => {
                        self.handed_out(0);
                        return Poll::Ready(None);
                    }
                    Poll::Pending => {
                        self.waits.set(true);
                        return Poll::Pending;
                    }
                },
            },
        };
        self.handed_out(data.len() as u64);
        Poll::Ready(Some(Ok(data)))
    }

    /// Ends the answer in the middle, but not before the client has what there was of it: hyper throws away what it has
    /// not written when the body fails.
    fn poll_abort(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Abort>>> {
        if self.client.is_flushed() {
            return Poll::Ready(Some(Err(Abort)));
        }
        if !self.aborting.replace(true) {
            cx.waker().wake_by_ref();
        }
        self.waits.set(true);
        Poll::Pending
    }

    fn handed_out(&self, bytes: u64) {
        self.client.generate(bytes);
        if self.is_done() {
            self.client.generated_all();
            self.client.relay.take();
        }
    }

    /// Reads on while hyper does not ask. To be called after each poll of the server.
    pub(crate) fn read_ahead(&self, cx: &mut Context<'_>) {
        if self.waits.replace(false) || self.state.get() != State::Open {
            return;
        }
        if !self.buffering {
            self.client.timer.set(Deadline::Peer, None);
            return;
        }
        loop {
            if !self.ahead.borrow().has_room() {
                self.client.timer.set(Deadline::Peer, None);
                return;
            }
            let Poll::Ready(Some(data)) = self.poll_source(cx) else { return };
            let stored = self.ahead.borrow_mut().push(data, || self.client.ctx.temp_file());
            if let Err(error) = stored {
                self.fail(Level::Crit, &format!("a temporary file for the response failed ({error})"));
                return;
            }
        }
    }

    /// The next piece from the peer; `None` when there is no more, for better or worse.
    fn poll_source(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut slot = self.source.borrow_mut();
        let Some(source) = &mut *slot else { return Poll::Ready(None) };
        let timer = &self.client.timer;
        match source.connection.poll_body(&mut source.incoming, cx) {
            Poll::Ready(Some(Ok(data))) => {
                timer.set(Deadline::Peer, None);
                self.passed.set(self.passed.get() + data.len() as u64);
                if source.incoming.is_end_stream() {
                    drop(slot);
                    self.end(cx);
                }
                Poll::Ready(Some(data))
            }
            Poll::Ready(None) => {
                drop(slot);
                self.end(cx);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                drop(slot);
                let io = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
                let text = match io {
                    Some(io) if io.raw_os_error().is_some() => {
                        format!("recv() failed ({}) while reading upstream", super::exchange::describe(io))
                    }
                    _ => "upstream prematurely closed connection while reading upstream".to_owned(),
                };
                self.fail(Level::Error, &text);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let now = self.client.ctx.clock.now();
                if timer.expired(Deadline::Peer, now) {
                    drop(slot);
                    self.fail(Level::Error, "upstream timed out (110: Connection timed out) while reading upstream");
                    return Poll::Ready(None);
                }
                if timer.get(Deadline::Peer).is_none() {
                    timer.set(Deadline::Peer, Some(now + self.read_timeout));
                }
                Poll::Pending
            }
        }
    }

    /// The peer has sent all of it: its connection goes back.
    fn end(&self, cx: &mut Context<'_>) {
        self.state.set(State::Ended);
        self.client.timer.set(Deadline::Peer, None);
        let Some(source) = self.source.borrow_mut().take() else { return };
        self.account(&source);
        let (ctx, upstream) = (&self.client.ctx, &self.target.upstream);
        upstream.state.pool(&upstream.conf).put(&ctx.reaper, source.connection, ctx.clock.now(), cx);
    }

    fn fail(&self, level: Level, text: &str) {
        self.state.set(State::Failed);
        self.client.timer.set(Deadline::Peer, None);
        if let Some(source) = self.source.borrow_mut().take() {
            self.account(&source);
        }
        if let Ok(request) = self.request.try_borrow() {
            let name = request.attempts.last().map(|attempt| attempt.name.to_string()).unwrap_or_default();
            let url = outgoing::url(&request, &self.pass, self.target.uri.as_deref(), &name);
            request.error_about(level, format_args!("{text}"), Some(&url));
        }
    }

    fn account(&self, source: &Source) {
        let now = self.client.ctx.clock.now();
        if let Ok(mut request) = self.request.try_borrow_mut()
            && let Some(attempt) = request.attempts.last_mut()
        {
            attempt.received = source.connection.received();
            attempt.body_bytes = self.passed.get();
            attempt.response = Some(now);
        }
    }
}
