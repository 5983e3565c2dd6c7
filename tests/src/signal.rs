//! Sending signals, the one of the in-place update included.
//!
//! Real-time signals have no name in the safe wrappers, so they go the way an operator's do: through a shell's `kill`.
//! One shell stays open for a run, so that a signal costs a pipe write and not a new process.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The number of SIGRTMIN+9 with this C library: 43 with glibc.
pub fn dysvr_signal() -> i32 {
    libc::SIGRTMIN() + 9
}

/// Sends an ordinary signal.
///
/// # Errors
/// As kill(2).
pub fn send(pid: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {pid}"))
}

/// A shell that sends signals.
#[derive(Debug)]
pub struct SignalShell {
    shell: Child,
    commands: ChildStdin,
}

impl SignalShell {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no /bin/sh.
    pub fn start() -> Result<Self> {
        let mut shell = Command::new("/bin/sh").stdin(Stdio::piped()).spawn().context("starting /bin/sh")?;
        let commands = shell.stdin.take().context("the shell has no input")?;
        Ok(Self { shell, commands })
    }

    /// `kill -(SIGRTMIN+9) pid`; the shell runs it right after this returns.
    ///
    /// # Errors
    /// When the shell is gone.
    pub fn dysvr(&mut self, pid: i32) -> Result<()> {
        writeln!(self.commands, "kill -{} {pid}", dysvr_signal()).context("asking the shell to send the signal")
    }
}

impl Drop for SignalShell {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// `kill -(SIGRTMIN+9) pid` by hand.
///
/// # Errors
/// When the shell or the signal fails.
pub fn send_dysvr(pid: i32) -> Result<()> {
    let script = format!("kill -{} {pid}", dysvr_signal());
    let status = Command::new("/bin/sh").arg("-c").arg(&script).status().with_context(|| script.clone())?;
    anyhow::ensure!(status.success(), "`{script}` ended with {status}");
    Ok(())
}
