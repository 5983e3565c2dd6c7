//! Accepting connections on the sockets that a worker inherited.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use dysvr_conf::model::ListenAddr;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;

use crate::http::{Context, Stream, serve};
use crate::log::Level;
use crate::os::errno;

/// How long a worker that is out of descriptors or memory leaves a socket alone, as nginx does.
const BACK_OFF: Duration = Duration::from_millis(500);

/// A socket of tokio's.
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    /// A connection and its other side's address, which a unix socket does not have.
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        Ok(match self {
            Self::Tcp(socket) => {
                let (stream, remote) = socket.accept().await?;
                (Stream::Tcp(stream), Some(remote))
            }
            Self::Unix(socket) => (Stream::Unix(socket.accept().await?.0), None),
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

/// The accept loops of a worker.
pub struct Accepts {
    room: Rc<Room>,
    loops: RefCell<Vec<tokio::task::JoinHandle<()>>>,
}

impl Accepts {
    /// For a worker that may have `limit` connections.
    pub fn new(limit: u32) -> Self {
        let room = Room { limit, taken: Cell::new(0), freed: Notify::new() };
        Self { room: Rc::new(room), loops: RefCell::default() }
    }

    /// Begins to accept on a socket.
    pub fn begin(&self, context: &Rc<Context>, addr: ListenAddr, fd: OwnedFd) -> io::Result<()> {
        let socket = match &addr {
            ListenAddr::Inet(_) => Socket::Tcp(TcpListener::from_std(fd.into())?),
            ListenAddr::Unix(_) => Socket::Unix(UnixListener::from_std(fd.into())?),
        };
        let task = accept(Rc::clone(context), Rc::clone(&self.room), addr, socket);
        self.loops.borrow_mut().push(tokio::task::spawn_local(task));
        Ok(())
    }

    /// Accepts no more, and closes the sockets.
    pub fn stop(&self) {
        for task in self.loops.take() {
            task.abort();
        }
    }
}

async fn accept(context: Rc<Context>, room: Rc<Room>, addr: ListenAddr, socket: Socket) {
    loop {
        let place = room.place().await;
        match socket.accept().await {
            Ok((stream, remote)) => {
                // Looked up anew: the listener is there as long as its socket is, whatever vhosts come and go.
                let Some(bound) = context.cycle.listener(&addr) else { continue };
                let listener = context.cycle.route(&bound, || stream.local_addr());
                let served = serve(Rc::clone(&context), stream, remote, listener);
                tokio::task::spawn_local(async move {
                    served.await;
                    drop(place);
                });
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
