//! Signals as readable events: blocked for the process and read from a descriptor, so no handler ever runs.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The signal of the in-place update: SIGRTMIN+9, 43 with glibc. Computed, since the C library decides what SIGRTMIN is.
pub fn dysvr() -> i32 {
    libc::SIGRTMIN() + 9
}

/// A set of blocked signals that are read as events.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

/// One delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// Who sent it, 0 for the kernel.
    pub pid: i32,
    /// The number that sigqueue(3) sent along, 0 when it came otherwise.
    pub value: u32,
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set; sigaddset only refuses numbers that do not exist.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

impl Signals {
    /// Blocks exactly `signals` in this thread (and all that it will start) and reads them from now on.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals);
        // SAFETY: the set is initialised; the old mask is not asked for.
        let fd = unsafe {
            if libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()) < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd gave a new descriptor that nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next pending signal, if there is one.
    pub fn next(&self) -> io::Result<Option<Received>> {
        let mut info = [MaybeUninit::uninit()];
        Ok(self.read(&mut info)?.first().copied())
    }

    /// All pending signals, with as few calls as can be.
    pub fn pending(&self) -> io::Result<Vec<Received>> {
        let mut all = Vec::new();
        let mut infos = [MaybeUninit::uninit(); 8];
        loop {
            let read = self.read(&mut infos)?;
            all.extend_from_slice(&read);
            // One that comes later makes the descriptor readable again.
            if read.len() < infos.len() {
                return Ok(all);
            }
        }
    }

    fn read(&self, infos: &mut [MaybeUninit<libc::signalfd_siginfo>]) -> io::Result<Vec<Received>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is valid for its size.
        let n = unsafe { libc::read(self.fd.as_raw_fd(), infos.as_mut_ptr().cast(), size_of_val(infos)) };
        if n < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(Vec::new()) } else { Err(error) };
        }
        if !(n as usize).is_multiple_of(SIZE) {
            return Err(io::Error::other("short read of a signal"));
        }
        let read = infos.iter().take(n as usize / SIZE).map(|info| {
            // SAFETY: the kernel filled this many whole structures.
            let info = unsafe { info.assume_init_ref() };
            let value = if info.ssi_code == libc::SI_QUEUE { info.ssi_int as u32 } else { 0 };
            Received { signal: info.ssi_signo as i32, pid: info.ssi_pid as i32, value }
        });
        Ok(read.collect())
    }
}

impl Signals {
    /// For a task that waits until it can be read.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor of the signals is owned by the value that moves in, and closed with it.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE)? })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// Sends a signal to a process by number. For processes that this one started, or that a pid file names and that the
/// operator chose; see `pidfd` for the agent's way.
pub fn send(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill has no memory effects.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ignores SIGPIPE, so that a closed peer is an error of the write.
pub fn ignore_pipe() {
    // SAFETY: SIG_IGN needs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_time_signal_is_read_with_its_sender() {
        std::thread::spawn(|| {
            let signals = Signals::block(&[dysvr()]).unwrap();
            assert_eq!(signals.next().unwrap(), None);
            // SAFETY: raise to the calling thread only, where the signal is blocked.
            unsafe { libc::pthread_kill(libc::pthread_self(), dysvr()) };
            let got = signals.next().unwrap().unwrap();
            assert_eq!(got.signal, libc::SIGRTMIN() + 9);
            assert_eq!(got.pid, std::process::id() as i32);
            // Real-time signals queue: a burst is as many deliveries, more than one call takes.
            for _ in 0..20 {
                // SAFETY: as above.
                unsafe { libc::pthread_kill(libc::pthread_self(), dysvr()) };
            }
            assert_eq!(signals.pending().unwrap().len(), 20);
            assert_eq!(signals.pending().unwrap(), []);
        })
        .join()
        .unwrap();
    }
}
