//! One client connection from accept to close: hyper's server, what happens beside it, and how it ends.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1::{Builder, Connection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::bad_head;
use super::client::{Client, ClientIo, Stage};
use super::context::Context;
use super::handler::Service;
use super::ssl;
use super::stream::Stream;
use super::timer::Deadline;
use super::tunnel;
use crate::cycle::Listener;
use crate::log::Level;

/// nginx's `large_client_header_buffers` as a whole, and what hyper may hold back of an answer before the socket takes it.
const BUFFER: usize = 32 << 10;
/// nginx's `lingering_time` and `lingering_timeout`.
const LINGER: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_secs(30), std::time::Duration::from_secs(5));

type Http = Connection<ClientIo, Service>;

/// Why hyper's part ended.
enum End {
    /// hyper says so.
    Hyper(hyper::Result<()>),
    /// A deadline of the client.
    Timeout,
    /// Nothing is going on, and nothing shall begin.
    Idle,
    /// The client has closed while its request was handled.
    Gone,
}

/// Serves a connection until it is closed. To be spawned for each one that `listener` accepts. It is on the worker's list
/// from the call on: a drain that begins before the task runs waits for it.
pub fn serve(
    ctx: Rc<Context>,
    stream: Stream,
    remote: Option<SocketAddr>,
    listener: Rc<Listener>,
) -> impl Future<Output = ()> {
    let local = if matches!(&listener.addr, dysvr_conf::model::ListenAddr::Inet(addr) if addr.ip().is_unspecified()) {
        stream.local_addr()
    } else {
        None
    };
    stream.set_nodelay();
    ctx.clock.tick();
    let client = Client::new(&ctx, listener, remote, local);
    let entered = Entered { place: ctx.enter(&client), client };
    async move { super::watched::run(&entered.client, begin(&entered.client, stream)).await }
}

async fn begin(client: &Rc<Client>, stream: Stream) {
    let stream = match client.listener().is_ssl() {
        // In a box: plain connections need not carry the room that a handshake takes.
        true => match Box::pin(ssl::handshake(client, stream)).await {
            Some(stream) => stream,
            None => return,
        },
        false => stream,
    };
    run(client, stream).await;
}

/// A connection on the worker's list. It leaves it however its task ends, a panic included: a drain must not wait for it.
struct Entered {
    client: Rc<Client>,
    place: usize,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Self { client, place } = self;
        client.ctx.clock.tick();
        if client.current.try_borrow().is_ok_and(|current| current.is_some()) {
            client.finish(false);
        }
        if let Ok(mut relay) = client.relay.try_borrow_mut() {
            relay.take();
        }
        client.ctx.leave(*place);
    }
}

async fn run(client: &Rc<Client>, stream: Stream) {
    let stream = Rc::new(RefCell::new(stream));
    let io = ClientIo { stream: Rc::clone(&stream), client: Rc::clone(client) };
    let service = Service { client: Rc::clone(client) };
    client.timer.set(Deadline::Client, Some(client.ctx.clock.now() + super::client::HEADER_TIMEOUT));
    let mut http = Builder::new()
        .writev(false)
        // Otherwise hyper reads while a request is handled, into a buffer that it has to allocate for it; we look ourselves.
        .half_close(true)
        .title_case_headers(true)
        .auto_date_header(false)
        .header_read_timeout(None)
        .ignore_invalid_headers(true)
        .max_buf_size(BUFFER)
        .max_header_size(BUFFER)
        .serve_connection(io, service);
    let end = poll_fn(|cx| poll(&mut http, client, &stream, cx)).await;
    drop(stream);
    let stage = client.stage.get();
    match end {
        End::Idle => {}
        End::Gone => log_gone(client),
        End::Timeout => {
            if stage == Stage::Head {
                bad_head::log_timeout(client);
            } else if stage != Stage::Idle {
                client.log(Level::Info, format_args!("client timed out (110: Connection timed out)"));
            }
        }
        End::Hyper(result) => {
            let switch = client.switch.take();
            let parts = http.into_parts();
            let Ok(stream) = Rc::try_unwrap(parts.io.stream).map(RefCell::into_inner) else { return };
            if let Some(switch) = switch {
                tunnel::run(client, stream, parts.read_buf, switch).await;
                client.finish(true);
                return;
            }
            if let Err(error) = &result
                && stage == Stage::Head
                && (error.is_parse() || error.is_parse_too_large())
            {
                bad_head::answer(client, stream, &parts.read_buf, error).await;
                return;
            }
            if result.is_ok() && client.linger.get() {
                linger(stream).await;
            }
        }
    }
}

fn poll(http: &mut Http, client: &Rc<Client>, stream: &RefCell<Stream>, cx: &mut TaskContext<'_>) -> Poll<End> {
    let ctx = &client.ctx;
    ctx.clock.tick();
    client.register(cx);
    if is_over(client) {
        return Poll::Ready(End::Idle);
    }
    if let Poll::Ready(result) = http.poll_without_shutdown(cx) {
        return Poll::Ready(End::Hyper(result));
    }
    // An answer that had promised to keep the connection has just ended.
    if is_over(client) {
        return Poll::Ready(End::Idle);
    }
    if client.stage.get() == Stage::Active && stream.borrow_mut().is_closed(cx) {
        return Poll::Ready(End::Gone);
    }
    read_ahead(client, cx);
    discard(client);
    let now = ctx.clock.now();
    if client.timer.expired(Deadline::Client, now) && client.stage.get() != Stage::Active {
        return Poll::Ready(End::Timeout);
    }
    client.timer.arm(cx, now);
    Poll::Pending
}

/// Whether a connection on which nothing is going on shall not go on.
fn is_over(client: &Client) -> bool {
    (client.ctx.is_draining() || client.is_homeless()) && client.stage.get() == Stage::Idle && client.requests.get() > 0
}

/// As nginx says it; the access log shows 499.
fn log_gone(client: &Client) {
    let request = client.current.borrow().clone();
    if let Some(request) = request
        && let Ok(request) = request.try_borrow()
    {
        let text = "client prematurely closed connection, so upstream connection is closed too while sending request to upstream";
        request.error(Level::Info, format_args!("{text}"));
    }
}

/// Reads on from the upstream while the client is slow.
fn read_ahead(client: &Client, cx: &mut TaskContext<'_>) {
    let relay = client.relay.borrow().clone();
    if let Some(relay) = relay {
        relay.read_ahead(cx);
    }
}

/// Reads on what nobody wants. hyper, which runs in this task, fills the channel and polls us by its own wake-ups.
fn discard(client: &Client) {
    let mut slot = client.discard.borrow_mut();
    let Some(incoming) = &mut *slot else { return };
    let mut cx = TaskContext::from_waker(Waker::noop());
    while let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(&mut cx) {
        if !matches!(frame, Some(Ok(_))) {
            *slot = None;
            return;
        }
        let _: &Incoming = incoming;
    }
}

/// Ends our side and reads for a while what the client still sends, so that it can read our answer before it learns that
/// nobody listens.
pub(super) async fn linger(mut stream: Stream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = vec![0; 4096];
    let all = async {
        while let Ok(Ok(read)) = tokio::time::timeout(LINGER.1, stream.read(&mut rest)).await {
            if read == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER.0, all).await;
}

/// Writes our own bytes behind hyper's back and closes slowly.
pub(super) async fn write_and_close(mut stream: Stream, bytes: Bytes) {
    let write = async {
        if stream.write_all(&bytes).await.is_ok() {
            linger(stream).await;
        }
    };
    let _ = tokio::time::timeout(LINGER.0 * 2, write).await;
}
