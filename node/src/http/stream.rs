//! A connected socket, TCP or unix.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// See the module.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// The other side's address; `None` for a unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Our address; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Sends small writes at once.
    pub fn set_nodelay(&self) {
        if let Self::Tcp(tcp) = self {
            let _ = tcp.set_nodelay(true);
        }
    }
}

impl Stream {
    /// Whether the other side has closed: nothing is left to read, and nothing will come. Reads nothing; the task is
    /// woken when that may have changed.
    pub fn is_closed(&self, cx: &mut Context<'_>) -> bool {
        loop {
            let ready = match self {
                Self::Tcp(tcp) => tcp.poll_read_ready(cx),
                Self::Unix(unix) => unix.poll_read_ready(cx),
            };
            if ready.is_pending() {
                return false;
            }
            let mut byte = [MaybeUninit::uninit()];
            let peeked = match self {
                Self::Tcp(tcp) => tcp.try_io(Interest::READABLE, || SockRef::from(tcp).peek(&mut byte)),
                Self::Unix(unix) => unix.try_io(Interest::READABLE, || SockRef::from(unix).peek(&mut byte)),
            };
            match peeked {
                Ok(bytes) => return bytes == 0,
                // Now the runtime knows that there was nothing, too.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return true,
            }
        }
    }
}

macro_rules! delegate {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($io) => $call,
            Stream::Unix($io) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
