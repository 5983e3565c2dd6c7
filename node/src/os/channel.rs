//! The channel between master and worker: a socket pair that keeps message boundaries and can carry descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
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
const MAX_FDS: usize = 16;

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
        let mut bytes = [0; SIZE];
        let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let got = recvmsg::<()>(self.fd.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let length = got.bytes;
        let mut fds = Vec::new();
        for message in got.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = message {
                for fd in received {
                    use std::os::fd::FromRawFd as _;
                    // SAFETY: the kernel has just made this descriptor for us.
                    fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        if length == 0 {
            return Ok(None);
        }
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not a channel message");
        let command = Command::from_number(bytes[0]).filter(|_| length == SIZE).ok_or_else(invalid)?;
        let version = u64::from_le_bytes(bytes[1..].try_into().map_err(|_| invalid())?);
        Ok(Some(Message { command, version, fds }))
    }
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
        master.send(Command::Commit, 8, &[file.as_raw_fd()]).unwrap();
        let first = worker.receive().unwrap().unwrap();
        assert_eq!((first.command, first.version, first.fds.len()), (Command::Prepare, 7, 0));
        let second = worker.receive().unwrap().unwrap();
        assert_eq!((second.command, second.version, second.fds.len()), (Command::Commit, 8, 1));
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
