//! The channel between master and worker: a socket pair that keeps message boundaries and can carry descriptors.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What one message holds: a command, the version that it is about, and descriptors that travel along.
#[derive(Debug)]
pub struct Message {
    /// What is asked or answered.
    pub command: Command,
    /// Of the zone's message slot; 0 where it does not matter.
    pub version: u64,
    /// Received descriptors, ours now.
    pub fds: Vec<OwnedFd>,
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// The command of a [`Message`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Command { $($(#[$doc])* $name = $number,)* }

        impl Command {
            fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

commands! {
    /// To a worker: parse and check the message slot's task, change nothing yet.
    Prepare = 1,
    /// To a worker: make the prepared task so.
    Commit = 2,
    /// To a worker: forget the prepared task.
    Abort = 3,
    /// To a worker: no new connections, end the ones that there are, then leave.
    Quit = 4,
    /// To a worker: leave now.
    Terminate = 5,
    /// To a worker: open the log files anew.
    Reopen = 6,
    /// To a worker: the vhost of this mark (in place of a version) answers 503 from now on.
    Quarantine = 7,
    /// To a worker: listening sockets for the version that it will be told to prepare. Any number of these messages
    /// comes before that.
    Sockets = 8,
    /// To a worker: the message of the version that it will be told to prepare, which is too large for the zone.
    Text = 9,
    /// To a worker: a log file that the version opens, which it may be unable to open itself: its path (sealed) and the file.
    Log = 10,
    /// To a worker: prepare the message slot's task and make it so at once. The master has.
    Apply = 11,
    /// From a worker: it serves.
    Ready = 16,
    /// From a worker: prepared.
    Prepared = 17,
    /// From a worker: it cannot prepare; the reason is in its slot.
    Refused = 18,
    /// From a worker: committed.
    Committed = 19,
    /// From a worker: it has missed a version and must be replaced.
    Lost = 20,
    /// From a worker: one more of its requests has panicked (its number in place of a version); whose is in its slot.
    Panicked = 21,
}

const SIZE: usize = 9;
/// Descriptors that one message may carry. The kernel's own limit is 253.
pub const MAX_FDS: usize = 64;

/// One end.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// A connected pair: the master's end and the worker's. Neither blocks.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Sends a message. `WouldBlock` when the other side does not read.
    pub fn send(&self, command: Command, version: u64, fds: &[RawFd]) -> io::Result<()> {
        let mut bytes = [0; SIZE];
        bytes[0] = command as u8;
        bytes[1..].copy_from_slice(&version.to_le_bytes());
        let rights = [ControlMessage::ScmRights(fds)];
        let control: &[ControlMessage] = if fds.is_empty() { &[] } else { &rights };
        sendmsg::<()>(self.fd.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// The next message; `None` when the other side is gone, `WouldBlock` when there is none.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        let mut bytes = [0_u8; SIZE];
        let (length, fds) = receive_with_fds(self.fd.as_raw_fd(), &mut bytes)?;
        if length == 0 {
            return Ok(None);
        }
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not a channel message");
        let command = Command::from_number(bytes[0]).filter(|_| length == SIZE).ok_or_else(invalid)?;
        let version = u64::from_le_bytes(bytes[1..].try_into().map_err(|_| invalid())?);
        Ok(Some(Message { command, version, fds }))
    }
}

/// A message of a socket, and its descriptors. A process that may not have so many is given as many as it may: they are
/// owned here like any others, so that none stays open without an owner.
fn receive_with_fds(socket: RawFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    const FD: usize = size_of::<RawFd>();
    // Aligned for a header; room for one and MAX_FDS descriptors.
    let mut control = [0_u64; (size_of::<libc::cmsghdr>() + MAX_FDS * FD).div_ceil(8)];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a msghdr of zeros is valid: no name, no parts.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header points to buffers of the lengths that it says, alive until the end of this function.
    let length = unsafe { libc::recvmsg(socket, &mut header, libc::MSG_CMSG_CLOEXEC) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled the control buffer of this header.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&header) };
    // SAFETY: what CMSG_FIRSTHDR and CMSG_NXTHDR give is null or a header inside the control buffer.
    while let Some(message) = unsafe { next.as_ref() } {
        if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN does arithmetic only.
            let count = message.cmsg_len.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize) / FD;
            for index in 0..count {
                use std::os::fd::FromRawFd as _;
                // SAFETY: the header says that `count` descriptors lie behind it, perhaps not aligned, which the kernel has
                // just made for us.
                fds.push(unsafe {
                    let at = libc::CMSG_DATA(next).cast::<RawFd>().add(index);
                    OwnedFd::from_raw_fd(at.read_unaligned())
                });
            }
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(&header, next) };
    }
    Ok((length, fds))
}

impl Channel {
    /// For a task that waits until it can be read.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the channel is owned by the value that moves in, and closed with it.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE)? })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_carry_descriptors() {
        let (master, worker) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        master.send(Command::Prepare, 7, &[]).unwrap();
        master.send(Command::Commit, 8, &[file.as_raw_fd(); MAX_FDS]).unwrap();
        let first = worker.receive().unwrap().unwrap();
        assert_eq!((first.command, first.version, first.fds.len()), (Command::Prepare, 7, 0));
        let second = worker.receive().unwrap().unwrap();
        assert_eq!((second.command, second.version, second.fds.len()), (Command::Commit, 8, MAX_FDS));
        assert_eq!(worker.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(master);
        assert!(worker.receive().unwrap().is_none());
    }

    #[test]
    fn foreign_bytes_are_an_error() {
        let (a, b) = Channel::pair().unwrap();
        nix::sys::socket::send(a.as_raw_fd(), b"\x63hello world", MsgFlags::empty()).unwrap();
        assert_eq!(b.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
