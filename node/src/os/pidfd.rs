//! A process held by a descriptor: the number of a process that ended is given to strangers, its descriptor is not.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process. The descriptor is readable once it has ended.
#[derive(Debug)]
pub struct PidFd {
    pid: u32,
    fd: OwnedFd,
}

impl PidFd {
    /// Takes hold of the process that has this number now. Who it is must be asked afterwards: if the descriptor is
    /// [alive](Self::is_alive) after the questions, all answers were about the process that it holds.
    pub fn open(pid: u32) -> io::Result<Self> {
        let number = libc::pid_t::try_from(pid).ok().filter(|&pid| pid > 0);
        let number = number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))?;
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call gave a new descriptor (close-on-exec by itself) that nobody else owns.
        Ok(Self { pid, fd: unsafe { OwnedFd::from_raw_fd(fd as i32) } })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal. `ESRCH` when it has ended, never a signal to a successor of its number.
    pub fn send(&self, signal: i32) -> io::Result<()> {
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: without a siginfo the call takes integers only.
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal, info, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Another descriptor of what its descriptor `number` is. Takes the right to trace it: the same user, or root with
    /// `CAP_SYS_PTRACE`.
    pub fn descriptor(&self, number: i32) -> io::Result<OwnedFd> {
        // SAFETY: pidfd_getfd takes three integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.fd.as_raw_fd(), number, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call gave a new descriptor (close-on-exec by itself) that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Sends it a signal and a number with it, as sigqueue(3) does.
    pub fn send_value(&self, signal: i32, value: u32) -> io::Result<()> {
        /// The part of the kernel's siginfo that says who sends what.
        #[repr(C)]
        struct Info {
            signo: i32,
            errno: i32,
            code: i32,
            pad: i32,
            pid: i32,
            uid: u32,
            value: usize,
            rest: [u64; 12],
        }
        const { assert!(size_of::<Info>() == size_of::<libc::siginfo_t>()) };
        let info = Info {
            signo: signal,
            errno: 0,
            code: libc::SI_QUEUE,
            pad: 0,
            pid: std::process::id() as i32,
            uid: nix::unistd::getuid().as_raw(),
            value: value as usize,
            rest: [0; 12],
        };
        // SAFETY: the structure has the size and the layout of the kernel's on 64-bit machines and lives through the call.
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal, &info, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether it has not ended yet. A zombie has ended.
    pub fn is_alive(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry, and no waiting.
        unsafe { libc::poll(&mut poll, 1, 0) == 0 }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// A process whose end is waited for.
#[derive(Debug)]
pub struct Ending {
    /// Never given out mutably: its descriptor stays the one that is registered.
    process: AsyncFd<PidFd>,
}

impl Ending {
    /// Waits for this process from now on. Needs a tokio runtime.
    pub fn of(process: PidFd) -> io::Result<Self> {
        // SAFETY: PidFd owns its descriptor and always answers with it; nothing replaces it within the AsyncFd.
        let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE)? };
        Ok(Self { process })
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.process.get_ref().pid()
    }

    /// Comes back when the process has ended. Cancelling it loses nothing.
    pub async fn wait(&self) -> io::Result<()> {
        self.process.readable().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn holds_a_process_to_its_end() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = PidFd::open(child.id()).unwrap();
        assert!(process.is_alive());
        process.send(0).unwrap();
        process.send(libc::SIGTERM).unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
        assert_eq!(process.send(0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn its_end_wakes_who_waits() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let ending = Ending::of(PidFd::open(child.id()).unwrap()).unwrap();
        assert_eq!(ending.pid(), child.id());
        child.kill().unwrap();
        ending.wait().await.unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn odd_numbers_are_nobody() {
        assert!(PidFd::open(0).is_err());
        assert!(PidFd::open(u32::MAX).is_err());
    }
}
