//! A connected socket, TCP or unix, and TLS over one.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// See the module.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS, after its handshake.
    Tls(Box<Tls>),
}

/// A TLS connection, which says goodbye however it ends.
#[derive(Debug)]
pub struct Tls(TlsStream<Stream>);

impl Drop for Tls {
    /// Without it a client could not tell the end from an attack. What the socket does not take at once is not worth
    /// waiting for: whoever wanted to be sure has shut the stream down.
    fn drop(&mut self) {
        let (stream, session) = self.0.get_mut();
        session.send_close_notify();
        let _ = session.write_tls(&mut AtOnce(stream));
    }
}

/// Writes what a socket takes without waiting.
struct AtOnce<'s>(&'s Stream);

impl Write for AtOnce<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.0 {
            Stream::Tcp(tcp) => tcp.try_write(buf),
            Stream::Unix(unix) => unix.try_write(buf),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what a socket has; the task is woken when there is more.
struct Now<'s, 'c, 'w>(&'s mut Stream, &'c mut Context<'w>);

impl Read for Now<'_, '_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        match Pin::new(&mut *self.0).poll_read(self.1, &mut buf) {
            Poll::Ready(Ok(())) => Ok(buf.filled().len()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Stream {
    /// The other side's address; `None` for a unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr().ok(),
            Self::Unix(_) => None,
            Self::Tls(tls) => tls.0.get_ref().0.peer_addr(),
        }
    }

    /// Our address; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok(),
            Self::Unix(_) => None,
            Self::Tls(tls) => tls.0.get_ref().0.local_addr(),
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
    /// TLS over a socket, after its handshake.
    pub fn tls(stream: TlsStream<Stream>) -> Self {
        Self::Tls(Box::new(Tls(stream)))
    }

    /// Whether the other side has closed: nothing is left to read, and nothing will come. Takes nothing away; the task is
    /// woken when that may have changed.
    pub fn is_closed(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Tls(tls) => tls.is_closed(cx),
            socket => match socket.poll_peek(cx) {
                Poll::Ready(Ok(first)) => first.is_none(),
                Poll::Ready(Err(_)) => true,
                Poll::Pending => false,
            },
        }
    }

    /// The next byte of a socket, which stays there; `None` at its end.
    pub fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        loop {
            let ready = match self {
                Self::Tcp(tcp) => tcp.poll_read_ready(cx),
                Self::Unix(unix) => unix.poll_read_ready(cx),
                Self::Tls(tls) => return tls.0.get_ref().0.poll_peek(cx),
            };
            if ready?.is_pending() {
                return Poll::Pending;
            }
            let mut byte = [0];
            let peeked = match self {
                Self::Tcp(tcp) => tcp.try_io(Interest::READABLE, || peek(tcp.as_raw_fd(), &mut byte)),
                Self::Unix(unix) => unix.try_io(Interest::READABLE, || peek(unix.as_raw_fd(), &mut byte)),
                Self::Tls(_) => return Poll::Pending,
            };
            match peeked {
                Ok(0) => return Poll::Ready(Ok(None)),
                Ok(_) => return Poll::Ready(Ok(Some(byte[0]))),
                // Now the runtime knows that there was nothing, too.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn peek(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    recv(fd, buf, MsgFlags::MSG_PEEK).map_err(io::Error::from)
}

impl Tls {
    /// What has come is decrypted, as far as there is room for it, to find the end behind it.
    fn is_closed(&mut self, cx: &mut Context<'_>) -> bool {
        let (stream, session) = self.0.get_mut();
        loop {
            match session.process_new_packets() {
                Err(_) => return true,
                Ok(state) if state.plaintext_bytes_to_read() > 0 => return false,
                Ok(state) if state.peer_has_closed() => return true,
                Ok(_) => {}
            }
            match session.read_tls(&mut Now(stream, cx)) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}

macro_rules! delegate {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($io) => $call,
            Stream::Unix($io) => $call,
            Stream::Tls(tls) => {
                let $io = &mut tls.0;
                $call
            }
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

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(&mut tls.0).poll_flush(cx),
            // Sockets hold nothing back.
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}
