//! Accepting connections on the sockets that a worker inherited or was sent.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{self, Poll};
use std::time::Duration;

use dysvr_conf::model::ListenAddr;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;

use crate::cycle::{Listener, unserved};
use crate::http::{Context, Stream, serve};
use crate::log::Level;
use crate::os::{errno, listen};

/// How long a worker that is out of descriptors or memory leaves a socket alone, as nginx does.
const BACK_OFF: Duration = Duration::from_millis(500);

/// A socket of tokio's.
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    /// A connection and its other side's address, which a unix socket does not have.
    fn poll_accept(&self, cx: &mut task::Context<'_>) -> Poll<io::Result<(Stream, Option<SocketAddr>)>> {
        match self {
            Self::Tcp(socket) => socket.poll_accept(cx).map_ok(|(stream, remote)| (Stream::Tcp(stream), Some(remote))),
            Self::Unix(socket) => socket.poll_accept(cx).map_ok(|(stream, _)| (Stream::Unix(stream), None)),
        }
    }

    /// One that waits already, whatever the runtime knows of it; `WouldBlock` when there is none.
    fn accept_waiting(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        Ok(match self {
            Self::Tcp(socket) => {
                let (stream, remote) = listen::accept_waiting(socket)?;
                (Stream::Tcp(TcpStream::from_std(stream.into())?), remote.as_socket())
            }
            Self::Unix(socket) => {
                let (stream, _) = listen::accept_waiting(socket)?;
                (Stream::Unix(UnixStream::from_std(stream.into())?), None)
            }
        })
    }
}

/// How many connections there may be: `worker_connections`. A worker that is full leaves new ones to its siblings and to
/// the backlog.
struct Room {
    limit: u32,
    taken: Cell<u32>,
    freed: Notify,
}

/// A connection's place.
struct Place(Rc<Room>);

impl Room {
    async fn place(self: &Rc<Self>) -> Place {
        while self.taken.get() >= self.limit {
            self.freed.notified().await;
        }
        self.take()
    }

    fn take(self: &Rc<Self>) -> Place {
        self.taken.set(self.taken.get() + 1);
        Place(Rc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.freed.notify_one();
    }
}

/// A socket that this worker has, with the loop that accepts on it.
struct Open {
    socket: Rc<RefCell<Option<Socket>>>,
    accepting: tokio::task::JoinHandle<()>,
}

/// A socket that is ready to accept on, for an address that is not served yet.
pub struct Ready {
    addr: ListenAddr,
    socket: Socket,
}

impl Ready {
    /// Enters a socket into the runtime.
    pub fn new(addr: ListenAddr, fd: OwnedFd) -> io::Result<Self> {
        let socket = match &addr {
            ListenAddr::Inet(_) => Socket::Tcp(TcpListener::from_std(fd.into())?),
            ListenAddr::Unix(_) => Socket::Unix(UnixListener::from_std(fd.into())?),
        };
        Ok(Self { addr, socket })
    }

    /// Where it is bound.
    pub fn addr(&self) -> &ListenAddr {
        &self.addr
    }
}

/// The accept loops of a worker.
pub struct Accepts {
    room: Rc<Room>,
    open: RefCell<BTreeMap<ListenAddr, Open>>,
}

impl Accepts {
    /// For a worker that may have `limit` connections.
    pub fn new(limit: u32) -> Self {
        let room = Room { limit, taken: Cell::new(0), freed: Notify::new() };
        Self { room: Rc::new(room), open: RefCell::default() }
    }

    /// Whether there is a socket of this address.
    pub fn has(&self, addr: &ListenAddr) -> bool {
        self.open.borrow().contains_key(addr)
    }

    /// Begins to accept on a socket.
    pub fn begin(&self, context: &Rc<Context>, ready: Ready) {
        let Ready { addr, socket } = ready;
        let socket = Rc::new(RefCell::new(Some(socket)));
        let task = accept(Rc::clone(context), Rc::clone(&self.room), addr.clone(), Rc::clone(&socket));
        let accepting = tokio::task::spawn_local(task);
        if let Some(old) = self.open.borrow_mut().insert(addr, Open { socket, accepting }) {
            old.end();
        }
    }

    /// Closes the sockets of addresses that the cycle serves no more, after the listeners in `closed` have gone.
    /// Connections that wait in their queues are served by the listener that they came for, as far as nobody else does.
    pub fn close_unserved(&self, context: &Rc<Context>, closed: &[Rc<Listener>]) {
        for listener in closed {
            let gone = unserved(&context.cycle, &listener.addr, self.open.borrow().keys());
            for addr in gone {
                let open = self.open.borrow_mut().remove(&addr);
                if let Some(open) = open
                    && let Some(socket) = open.end()
                {
                    self.serve_waiting(context, &socket, listener);
                }
            }
        }
    }

    fn serve_waiting(&self, context: &Rc<Context>, socket: &Socket, closed: &Rc<Listener>) {
        loop {
            match socket.accept_waiting() {
                Ok((stream, remote)) => {
                    // Beyond the limit if need be: nobody else will take it.
                    let place = self.room.take();
                    let listener = stream.local_addr().and_then(|at| context.cycle.listener_at(&ListenAddr::Inet(at)));
                    let listener = listener.unwrap_or_else(|| Rc::clone(closed));
                    begin_to_serve(context, stream, remote, listener, place);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::ECONNABORTED) => {}
                    Some(libc::EAGAIN) => return,
                    _ => return log!(Level::Crit, "accept4() failed ({})", errno(&error)),
                },
            }
        }
    }

    /// Accepts no more, and closes the sockets.
    pub fn stop(&self) {
        for (_, open) in self.open.take() {
            open.end();
        }
    }
}

impl Open {
    /// Ends the loop and gives its socket, which is closed now and not when the runtime gets round to it: the address
    /// may be bound anew as soon as the master hears of it.
    fn end(self) -> Option<Socket> {
        self.accepting.abort();
        self.socket.take()
    }
}

async fn accept(context: Rc<Context>, room: Rc<Room>, addr: ListenAddr, socket: Rc<RefCell<Option<Socket>>>) {
    loop {
        let place = room.place().await;
        let accepted = poll_fn(|cx| match &*socket.borrow() {
            Some(socket) => socket.poll_accept(cx),
            None => Poll::Pending,
        });
        match accepted.await {
            Ok((stream, remote)) => {
                // Looked up anew: the listener is there as long as its socket is, whatever vhosts come and go.
                let Some(bound) = context.cycle.listener_at(&addr) else { continue };
                let listener = context.cycle.route(&bound, || stream.local_addr());
                begin_to_serve(&context, stream, remote, listener, place);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                    log!(Level::Crit, "accept4() failed ({})", errno(&error));
                    tokio::time::sleep(BACK_OFF).await;
                }
                // The client was gone before it was accepted: nothing of note.
                _ => log!(Level::Info, "accept4() failed ({})", errno(&error)),
            },
        }
    }
}

fn begin_to_serve(
    context: &Rc<Context>,
    stream: Stream,
    remote: Option<SocketAddr>,
    listener: Rc<Listener>,
    place: Place,
) {
    let served = serve(Rc::clone(context), stream, remote, listener);
    tokio::task::spawn_local(async move {
        served.await;
        drop(place);
    });
}
