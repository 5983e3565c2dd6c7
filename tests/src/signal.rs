//! Sending signals, the one of the in-place update included.

use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The number of SIGRTMIN+9 with this C library: 43 with glibc.
pub fn dysvr_signal() -> i32 {
    dysvr_node::os::signal::dysvr()
}

/// Sends an ordinary signal.
///
/// # Errors
/// As kill(2).
pub fn send(pid: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {pid}"))
}

/// Sends SIGRTMIN+9: for measurements, where a shell would cost more than what is measured.
///
/// # Errors
/// As kill(2).
pub fn send_dysvr(pid: i32) -> Result<()> {
    dysvr_node::os::signal::send(pid, dysvr_signal()).with_context(|| format!("sending SIGRTMIN+9 to {pid}"))
}

/// `kill -43 PID`, with the number that SIGRTMIN+9 has here, by a shell: as the original's script does.
///
/// # Errors
/// When the shell or the signal fails.
pub fn kill_by_hand(pid: i32) -> Result<()> {
    let script = format!("kill -{} {pid}", dysvr_signal());
    let status = Command::new("/bin/sh").arg("-c").arg(&script).status().with_context(|| script.clone())?;
    anyhow::ensure!(status.success(), "`{script}` ended with {status}");
    Ok(())
}
