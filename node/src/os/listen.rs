//! Listening sockets: made, put beside others of their port, closed to newcomers before they are closed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use dysvr_conf::model::ListenAddr;
use socket2::{Domain, SockAddr, SockFilter, SockRef, Socket, Type};

use super::socket_file;

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
    let fd = bind(addr, options, &[])?;
    begin(&fd, options, &[])?;
    Ok(fd)
}

/// Binds a socket that does not listen yet. `beside` are our own sockets of its port with which it would conflict: the
/// kernel lets the wildcard address and an exact one stand side by side, but binds the second of them only while both
/// are marked as sharing.
pub fn bind(addr: &ListenAddr, options: Options, beside: &[&OwnedFd]) -> io::Result<OwnedFd> {
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
        socket_file::remove_stale(path)?;
    }
    {
        let _sharing = Sharing::mark(&socket, beside)?;
        socket.bind(&name)?;
    }
    if let ListenAddr::Unix(path) = addr {
        open_to_all(path)?;
    }
    Ok(socket.into())
}

/// As nginx: everybody may connect.
fn open_to_all(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
}

/// Lets a bound socket listen. The kernel looks for conflicts once more: `beside` as for [`bind`].
pub fn begin(fd: &OwnedFd, options: Options, beside: &[&OwnedFd]) -> io::Result<()> {
    let _sharing = Sharing::mark(fd, beside)?;
    SockRef::from(fd).listen(options.backlog)
}

/// Sockets that are marked as sharing their port for a moment. The mark is taken away again: with it any program of the
/// same user could bind the port too.
struct Sharing<'a> {
    marked: Vec<BorrowedFd<'a>>,
}

impl<'a> Sharing<'a> {
    fn mark(new: &'a impl AsFd, beside: &'a [&OwnedFd]) -> io::Result<Self> {
        let mut sharing = Self { marked: Vec::new() };
        if beside.is_empty() {
            return Ok(sharing);
        }
        for fd in std::iter::once(new.as_fd()).chain(beside.iter().map(|fd| fd.as_fd())) {
            let socket = SockRef::from(&fd);
            // One that shares for good keeps its mark.
            if !socket.reuse_port()? {
                socket.set_reuse_port(true)?;
                sharing.marked.push(fd);
            }
        }
        Ok(sharing)
    }
}

impl Drop for Sharing<'_> {
    fn drop(&mut self) {
        for fd in &self.marked {
            let _ = SockRef::from(fd).set_reuse_port(false);
        }
    }
}

/// Drops what asks for a new connection, and lets pass what belongs to one that is being made: a socket that is to be
/// closed gets rid of its queue without a reset. Who asks meanwhile asks again, and is refused when it is closed.
pub fn turn_away(fd: &impl AsFd) -> io::Result<()> {
    const OFFSET_OF_FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let load = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let mask = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    let jump = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let give = libc::BPF_RET | libc::BPF_K;
    SockRef::from(fd).attach_filter(&[
        SockFilter::new(load as u16, 0, 0, OFFSET_OF_FLAGS),
        SockFilter::new(mask as u16, 0, 0, SYN | ACK),
        SockFilter::new(jump as u16, 0, 1, SYN),
        SockFilter::new(give as u16, 0, 0, 0),
        SockFilter::new(give as u16, 0, 0, u32::MAX),
    ])
}

/// Whether newcomers are turned away.
pub fn turns_away(fd: &impl AsFd) -> bool {
    let mut instructions: libc::socklen_t = 0;
    // SAFETY: with a length of 0 the kernel only counts the filter's instructions, into that length.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            std::ptr::null_mut(),
            &mut instructions,
        )
    };
    result == 0 && instructions > 0
}

/// Takes back what [`turn_away`] did.
pub fn welcome(fd: &impl AsFd) -> io::Result<()> {
    SockRef::from(fd).detach_filter()
}

/// A connection that waits in a socket's queue; `WouldBlock` when there is none.
pub fn accept_waiting(fd: &impl AsFd) -> io::Result<(Socket, SockAddr)> {
    SockRef::from(fd).accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
}

/// Changes the backlog of a socket that listens already.
pub fn set_backlog(fd: RawFd, backlog: i32) -> io::Result<()> {
    // SAFETY: listen has no memory effects.
    if unsafe { libc::listen(fd, backlog) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The address that a socket is bound to.
pub fn address_of(fd: &impl AsFd) -> io::Result<ListenAddr> {
    let name = SockRef::from(fd).local_addr()?;
    let inet = name.as_socket().map(ListenAddr::Inet);
    let unix = || name.as_pathname().map(|path| ListenAddr::Unix(path.to_owned()));
    inet.or_else(unix).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a socket without a name"))
}

/// The options of a socket that listens; its backlog cannot be read and is given as 0.
pub fn options_of(fd: &impl AsFd) -> io::Result<Options> {
    let socket = SockRef::from(fd);
    let ipv6only = match socket.domain()? {
        Domain::IPV6 => socket.only_v6()?,
        _ => true,
    };
    let reuseport = socket.domain()? != Domain::UNIX && socket.reuse_port()?;
    Ok(Options { backlog: 0, reuseport, ipv6only })
}

/// Whether it is a stream socket that listens.
pub fn is_listening(fd: &impl AsFd) -> bool {
    let socket = SockRef::from(fd);
    socket.is_listener().unwrap_or(false) && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::io::Write as _;
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};
    use std::time::Duration;

    use super::*;

    const OPTIONS: Options = Options { backlog: BACKLOG, reuseport: false, ipv6only: true };

    fn inet(ip: Ipv4Addr, port: u16) -> ListenAddr {
        ListenAddr::Inet((ip, port).into())
    }

    fn port_of(fd: &OwnedFd) -> u16 {
        match address_of(fd).unwrap() {
            ListenAddr::Inet(addr) => addr.port(),
            ListenAddr::Unix(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn a_wildcard_and_an_exact_address_stand_side_by_side_in_both_orders() {
        for (first, second) in
            [(Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST)]
        {
            let old = listen(&inet(first, 0), OPTIONS).unwrap();
            let addr = inet(second, port_of(&old));
            assert_eq!(listen(&addr, OPTIONS).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            let new = bind(&addr, OPTIONS, &[&old]).unwrap();
            assert!(!is_listening(&new));
            begin(&new, OPTIONS, &[&old]).unwrap();
            assert!(is_listening(&new) && address_of(&new).unwrap() == addr);
            for fd in [&old, &new] {
                assert!(!options_of(fd).unwrap().reuseport, "the mark was left");
            }
            let _client = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port_of(&old)))).unwrap();
            let (exact, wide) = if first == Ipv4Addr::LOCALHOST { (&old, &new) } else { (&new, &old) };
            accept_waiting(exact).unwrap();
            assert_eq!(accept_waiting(wide).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn who_waits_is_served_and_who_comes_is_turned_away() {
        let fd = listen(&inet(Ipv4Addr::LOCALHOST, 0), OPTIONS).unwrap();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port_of(&fd)));
        let mut waiting = TcpStream::connect(addr).unwrap();
        assert!(!turns_away(&fd));
        turn_away(&fd).unwrap();
        assert!(turns_away(&fd));
        assert!(TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_err());
        let (stream, _) = accept_waiting(&fd).unwrap();
        let mut stream = TcpStream::from(stream);
        stream.set_nonblocking(false).unwrap();
        waiting.write_all(b"?").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        welcome(&fd).unwrap();
        assert!(!turns_away(&fd));
        TcpStream::connect(addr).unwrap();
    }
}
