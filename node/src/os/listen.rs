//! Listening sockets.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use dysvr_conf::model::ListenAddr;
use socket2::{Domain, SockAddr, Socket, Type};

/// nginx's NGX_LISTEN_BACKLOG on Linux.
pub const BACKLOG: i32 = 511;

/// What a socket is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Of `listen(2)`.
    pub backlog: i32,
    /// `SO_REUSEPORT`: the address has a socket per worker.
    pub reuseport: bool,
    /// `IPV6_V6ONLY`.
    pub ipv6only: bool,
}

/// Binds and listens; the socket does not block and is not inherited by programs that are executed.
pub fn listen(addr: &ListenAddr, options: Options) -> io::Result<OwnedFd> {
    let (domain, name) = match addr {
        ListenAddr::Inet(inet) => (Domain::for_address(*inet), SockAddr::from(*inet)),
        ListenAddr::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if options.reuseport {
        socket.set_reuse_port(true)?;
    }
    if domain == Domain::IPV6 {
        socket.set_only_v6(options.ipv6only)?;
    }
    if let ListenAddr::Unix(path) = addr {
        remove_stale(path)?;
    }
    socket.bind(&name)?;
    if let ListenAddr::Unix(path) = addr {
        // As nginx: everybody may connect.
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    }
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// Removes the file of a unix socket on which nobody listens any more: what a killed process leaves behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Changes the backlog of a socket that listens already.
pub fn set_backlog(fd: RawFd, backlog: i32) -> io::Result<()> {
    // SAFETY: listen has no memory effects.
    if unsafe { libc::listen(fd, backlog) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Another descriptor of the same socket.
pub fn duplicate(fd: &impl AsRawFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: F_DUPFD_CLOEXEC has no memory effects.
    let new = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fcntl gave a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}
