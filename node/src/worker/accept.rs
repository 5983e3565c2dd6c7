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

/// How long a wildcard's socket is left open when exact addresses that it covered stay: who is just connecting to one of
/// them, by a handshake that began before it had a socket of its own, is not refused. Newcomers are turned away. A round
/// trip takes less.
pub const LINGER: Duration = Duration::from_secs(1);

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
    slot: Rc<Slot>,
    accepting: tokio::task::JoinHandle<()>,
}

/// What a loop works on.
struct Slot {
    addr: ListenAddr,
    /// `None`: closed.
    socket: RefCell<Option<Socket>>,
    /// The listener that has gone, while the socket is left open for a moment.
    closed: RefCell<Option<Rc<Listener>>>,
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
        let slot = Slot { addr: addr.clone(), socket: RefCell::new(Some(socket)), closed: RefCell::default() };
        let slot = Rc::new(slot);
        let task = accept(Rc::clone(context), Rc::clone(&self.room), Rc::clone(&slot));
        let accepting = tokio::task::spawn_local(task);
        if let Some(old) = self.open.borrow_mut().insert(addr, Open { slot, accepting }) {
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
                let Some(open) = open else { continue };
                open.slot.closed.replace(Some(Rc::clone(listener)));
                let lingers = context.cycle.has_exact(&addr);
                let (context, room) = (Rc::clone(context), Rc::clone(&self.room));
                if !lingers {
                    open.close(&context, &room);
                    continue;
                }
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(LINGER).await;
                    open.close(&context, &room);
                });
            }
        }
    }

    /// Accepts no more, and closes the sockets. Those whose newcomers are turned away have nobody else to empty their
    /// queues.
    pub fn stop(&self, context: &Rc<Context>) {
        for (_, open) in self.open.take() {
            if open.slot.turns_away() {
                open.close(context, &self.room);
            } else {
                open.end();
            }
        }
    }
}

impl Open {
    /// Ends the loop and gives its socket, which is closed now and not when the runtime gets round to it: the address
    /// may be bound anew as soon as the master hears of it.
    fn end(self) -> Option<Socket> {
        self.accepting.abort();
        self.slot.socket.take()
    }

    /// Serves who waits in the queue and closes the socket.
    fn close(self, context: &Rc<Context>, room: &Rc<Room>) {
        let slot = Rc::clone(&self.slot);
        let Some(socket) = self.end() else { return };
        loop {
            match socket.accept_waiting() {
                // Beyond the limit if need be: nobody else will take it.
                Ok((stream, remote)) => slot.serve(context, stream, remote, room.take()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::ECONNABORTED) => {}
                    Some(libc::EAGAIN) => return,
                    _ => return log!(Level::Crit, "accept4() failed ({})", errno(&error)),
                },
            }
        }
    }
}

impl Slot {
    fn turns_away(&self) -> bool {
        self.socket.borrow().as_ref().is_some_and(|socket| match socket {
            Socket::Tcp(socket) => listen::turns_away(socket),
            Socket::Unix(_) => false,
        })
    }

    /// Serves a connection that has come in here.
    fn serve(&self, context: &Rc<Context>, stream: Stream, remote: Option<SocketAddr>, place: Place) {
        let Some(listener) = self.listener_of(context, &stream) else { return };
        let served = serve(Rc::clone(context), stream, remote, listener);
        tokio::task::spawn_local(async move {
            served.await;
            drop(place);
        });
    }

    /// Looked up anew for each: vhosts come and go.
    fn listener_of(&self, context: &Context, stream: &Stream) -> Option<Rc<Listener>> {
        let cycle = &context.cycle;
        if let Some(bound) = cycle.listener_at(&self.addr) {
            return Some(cycle.route(&bound, || stream.local_addr()));
        }
        // A wildcard that has gone: an exact address that it covered may be there.
        let exact = || cycle.listener_at(&ListenAddr::Inet(stream.local_addr()?));
        exact().or_else(|| self.closed.borrow().clone())
    }
}

async fn accept(context: Rc<Context>, room: Rc<Room>, slot: Rc<Slot>) {
    loop {
        let place = room.place().await;
        let accepted = poll_fn(|cx| match &*slot.socket.borrow() {
            Some(socket) => socket.poll_accept(cx),
            None => Poll::Pending,
        });
        match accepted.await {
            Ok((stream, remote)) => {
                slot.serve(&context, stream, remote, place);
                // One at a time, as nginx without multi_accept: whoever wakes first must not take all that wait, or its
                // siblings get none.
                tokio::task::yield_now().await;
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
