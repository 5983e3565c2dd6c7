//! A connection to a peer, driven by the task of the request that uses it.
//!
//! hyper's client wants its connection polled by somebody. A task of its own would cost two wake-ups per request; instead
//! the request polls it, and [`Wake`] stands between the two: what hyper wakes while we are inside it is not passed on
//! (we are awake), what the socket wakes goes to the request, and while nobody uses the connection to the reaper, so
//! that a peer that closes is noticed.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use dysvr_conf::model::ListenAddr;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, Parts, SendRequest};
use hyper::rt::ReadBufCursor;
use tokio::io::AsyncWrite as _;
use tokio::net::{TcpStream, UnixStream};

use super::PeerState;
use crate::http::request_body::Replay;
use crate::http::stream::Stream;
use crate::os::socket_io;

/// The body of a request that is sent to a peer.
pub type Outgoing = Replay;

type Head = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>>>>;

/// See the module.
pub struct PeerConnection {
    sender: SendRequest<Outgoing>,
    /// `None` once it has ended.
    connection: Option<Connection<PeerIo, Outgoing>>,
    head: Option<Head>,
    upgraded: Option<Parts<PeerIo>>,
    wake: Arc<Wake>,
    waker: Waker,
    received: Rc<Cell<u64>>,
    /// Whose connection it is.
    pub peer: Rc<PeerState>,
    /// Requests that it has carried.
    pub requests: u32,
    /// When it became idle, or was made.
    pub since: Instant,
}

/// What hyper and the socket wake.
#[derive(Default)]
pub(super) struct Wake {
    /// Its user is awake and will look at it.
    attended: AtomicBool,
    /// It was woken meanwhile.
    again: AtomicBool,
    /// Who else is to be woken.
    user: Mutex<Option<Waker>>,
}

impl task::Wake for Wake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.attended.load(Relaxed) {
            self.again.store(true, Relaxed);
        } else if let Some(user) = &*self.user.lock().unwrap_or_else(PoisonError::into_inner) {
            user.wake_by_ref();
        }
    }
}

/// A socket that counts what is read.
pub(super) struct PeerIo {
    stream: Stream,
    received: Rc<Cell<u64>>,
}

impl PeerIo {
    /// The socket itself, for a tunnel.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl hyper::rt::Read for PeerIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        socket_io::poll_read(Pin::new(&mut self.stream), cx, buf).map_ok(|read| {
            self.received.set(self.received.get() + read as u64);
        })
    }
}

impl hyper::rt::Write for PeerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connects to a peer.
pub async fn connect(addr: &ListenAddr) -> io::Result<Stream> {
    let stream = match addr {
        ListenAddr::Inet(addr) => Stream::Tcp(TcpStream::connect(addr).await?),
        ListenAddr::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
    };
    stream.set_nodelay();
    Ok(stream)
}

impl PeerConnection {
    /// HTTP on a fresh socket.
    pub async fn new(stream: Stream, peer: &Rc<PeerState>, now: Instant) -> hyper::Result<Self> {
        let received = Rc::new(Cell::new(0));
        let io = PeerIo { stream, received: Rc::clone(&received) };
        let (sender, connection) =
            Builder::new().writev(false).title_case_headers(true).http09_responses(false).handshake(io).await?;
        let wake = Arc::new(Wake::default());
        Ok(Self {
            sender,
            connection: Some(connection),
            upgraded: None,
            head: None,
            waker: Waker::from(Arc::clone(&wake)),
            wake,
            received,
            peer: Rc::clone(peer),
            requests: 0,
            since: now,
        })
    }

    /// Begins a request; [`Self::poll_head`] sends it.
    pub fn send(&mut self, request: Request<Outgoing>) {
        // hyper wakes the connection for the request; whoever calls this polls it next anyway.
        self.wake.attended.store(true, Relaxed);
        self.requests += 1;
        self.received.set(0);
        self.head = Some(Box::pin(self.sender.send_request(request)));
    }

    /// Bytes read since the request began.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Lets hyper work; the user's task is woken when there is more to do.
    fn drive(&mut self, cx: &mut task::Context<'_>) {
        let Some(connection) = &mut self.connection else { return };
        {
            let mut user = self.wake.user.lock().unwrap_or_else(PoisonError::into_inner);
            if !user.as_ref().is_some_and(|user| user.will_wake(cx.waker())) {
                *user = Some(cx.waker().clone());
            }
        }
        self.wake.attended.store(true, Relaxed);
        self.wake.again.store(false, Relaxed);
        let done = connection.poll_without_shutdown(&mut task::Context::from_waker(&self.waker)).is_ready();
        self.wake.attended.store(false, Relaxed);
        if done {
            // An error has gone to the request or the body that waits for it. The socket stays until it is taken
            // for a tunnel or dropped.
            self.finished();
        } else if self.wake.again.load(Relaxed) {
            cx.waker().wake_by_ref();
        }
    }

    fn finished(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.upgraded = Some(connection.into_parts());
        }
    }

    /// The head of the answer.
    pub fn poll_head(&mut self, cx: &mut task::Context<'_>) -> Poll<hyper::Result<Response<Incoming>>> {
        self.drive(cx);
        let Some(head) = &mut self.head else { return Poll::Pending };
        // Only the connection itself can complete it, and we have just looked.
        let answer = head.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
        if answer.is_ready() {
            self.head = None;
        }
        answer
    }

    /// The next piece of the body; `None` at its end.
    pub fn poll_body(&mut self, body: &mut Incoming, cx: &mut task::Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
        use hyper::body::Body as _;
        for driven in [false, true] {
            if driven {
                self.drive(cx);
            } else {
                self.wake.attended.store(true, Relaxed);
            }
            loop {
                let frame = Pin::new(&mut *body).poll_frame(&mut task::Context::from_waker(Waker::noop()));
                match frame {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => return Poll::Ready(Some(Ok(data))),
                        // Trailers are not passed on, as in nginx.
                        Err(_) => continue,
                    },
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => break,
                }
            }
        }
        Poll::Pending
    }

    /// Whether it can carry another request. To be asked when an answer has been read to its end.
    pub fn is_reusable(&mut self, cx: &mut task::Context<'_>) -> bool {
        if !self.sender.is_ready() {
            self.drive(cx);
        }
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Nobody uses it from now on; `reaper` is woken when its peer closes it or says something.
    pub(super) fn rest(&mut self, reaper: &Waker, now: Instant) {
        self.since = now;
        *self.wake.user.lock().unwrap_or_else(PoisonError::into_inner) = Some(reaper.clone());
        self.wake.attended.store(false, Relaxed);
    }

    /// Whether an idle connection is still open.
    pub(super) fn is_alive(&mut self, cx: &mut task::Context<'_>) -> bool {
        self.drive(cx);
        self.connection.is_some() && self.sender.is_ready()
    }

    /// The socket after a switch of protocols, and what was read beyond the head.
    pub fn into_upgraded(mut self, cx: &mut task::Context<'_>) -> Option<(Stream, Bytes)> {
        self.drive(cx);
        let parts = match (self.upgraded.take(), self.connection.take()) {
            (Some(parts), _) => parts,
            (None, Some(connection)) => connection.into_parts(),
            (None, None) => return None,
        };
        Some((parts.io.into_stream(), parts.read_buf))
    }
}
