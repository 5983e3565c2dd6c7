//! Fork and wait.

use std::io;

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one; with the new one's pid.
    Parent(i32),
}

/// Forks. Only for a process that has one thread and never built a tokio runtime: neither survives a fork.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the callers are single-threaded (the master, or the process before it becomes one), so no lock of
    // another thread is left held in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            super::process::forget_id();
            Ok(Fork::Child)
        }
        pid => Ok(Fork::Parent(pid)),
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By `exit(code)`.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// The next child that has ended, without waiting for one.
pub fn reap() -> Option<(i32, Exit)> {
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    };
    Some((pid, exit))
}

/// The way to tell the program that was started that its daemon serves; see [`daemonize`].
#[derive(Debug)]
pub struct Starter(std::io::PipeWriter);

impl Starter {
    /// The daemon serves: the program that was started ends with success.
    pub fn release(mut self) {
        use std::io::Write as _;
        // Nobody may be waiting any more; the daemon goes on all the same.
        let _ = self.0.write_all(b"1");
    }
}

/// Detaches from the terminal as nginx's `daemon on` does: the child goes on in a new session with standard input and
/// output on /dev/null (standard error stays until the logs are open). Other than nginx's, the program that was started
/// ends only when the daemon says so, and with an error when it dies before, so that whoever waits for it finds a pid
/// file.
pub fn daemonize() -> io::Result<Starter> {
    use std::io::Read as _;
    let (mut reader, writer) = io::pipe()?;
    if let Fork::Parent(_) = fork()? {
        drop(writer);
        let mut byte = [0];
        let code = if reader.read_exact(&mut byte).is_ok() { 0 } else { 1 };
        super::process::exit_now(code);
    }
    // SAFETY: setsid and umask have no memory effects.
    unsafe {
        if libc::setsid() < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::umask(0);
    }
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for fd in 0..2 {
        redirect(&null, fd)?;
    }
    Ok(Starter(writer))
}

/// Makes descriptor `onto` (0, 1 or 2) another name of `file`.
pub fn redirect(file: &std::fs::File, onto: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: dup2 onto a standard descriptor; nothing owns those as an OwnedFd.
    if unsafe { libc::dup2(file.as_raw_fd(), onto) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
