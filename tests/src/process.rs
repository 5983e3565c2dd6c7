//! A real process: started with its output in files, waited for with deadlines, and gone, with everything that it
//! started, when its owner lets go.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::{procfs, signal, wait};

/// How long a process may take to end after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(60);

/// The environment entry that every process started by this program carries, so that even one that has left its parent
/// and its session is found again.
fn mark() -> &'static (String, String) {
    static MARK: OnceLock<(String, String)> = OnceLock::new();
    MARK.get_or_init(|| ("DYSVR_HARNESS".to_owned(), format!("{}", std::process::id())))
}

/// A started process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in a process group of its own; output goes to `logs/NAME.out` and `logs/NAME.err` (appended, so
    /// that a second start keeps the first one's).
    ///
    /// # Errors
    /// When the files or the process cannot be made.
    pub fn start(name: &str, command: &mut Command, logs: &Path) -> Result<Self> {
        fs::create_dir_all(logs).with_context(|| format!("making {}", logs.display()))?;
        let stdout = logs.join(format!("{name}.out"));
        let stderr = logs.join(format!("{name}.err"));
        let open = |path: &Path| {
            File::options().create(true).append(true).open(path).with_context(|| format!("opening {}", path.display()))
        };
        let (key, value) = mark();
        let child = command
            .env(key, value)
            .stdin(Stdio::null())
            .stdout(open(&stdout)?)
            .stderr(open(&stderr)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, stdout, stderr, ended: None })
    }

    /// Its id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it has written so far: output, then errors.
    pub fn output(&self) -> String {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        format!("{}{}", read(&self.stdout), read(&self.stderr))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// As kill(2).
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::send(self.pid(), signal)
    }

    /// Its exit status when it has ended.
    ///
    /// # Errors
    /// As waitpid(2).
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("waiting for {}", self.name))?;
        }
        Ok(self.ended)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// After `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} ({}) to end", self.name, self.pid());
        wait::eventually(&what, limit, || self.ended()?.with_context(|| format!("it runs; it said: {}", self.output())))
    }

    /// Waits until `probe` succeeds, but not longer than the process lives.
    ///
    /// # Errors
    /// After `limit`, or when the process has ended: with what it wrote.
    pub fn wait_for<T>(&mut self, what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
        let mut last = None;
        let what = format!("{what} from {}", self.name);
        let found = wait::eventually(&what, limit, || match probe() {
            Ok(found) => Ok(Some(found)),
            Err(seen) => match self.ended() {
                Ok(Some(status)) => {
                    last = Some(status);
                    Ok(None)
                }
                _ => Err(seen),
            },
        });
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => anyhow::bail!("{} ended with {}: {}", self.name, last.unwrap_or_default(), self.output()),
            Err(error) => Err(error.context(format!("{} said: {}", self.name, tail(&self.output())))),
        }
    }

    /// SIGKILL for this process alone, as a crash would be; what it started lives on.
    pub fn crash(&mut self) {
        let _ = self.child.kill();
        if let Ok(status) = self.child.wait() {
            self.ended = Some(status);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let below = procfs::descendants(self.pid());
        self.crash();
        end_all(&below);
    }
}

/// Ends processes and all that they have started, and waits until they are gone.
pub fn end_all(pids: &BTreeSet<i32>) {
    let mut left: BTreeSet<i32> = pids.clone();
    for pid in pids {
        left.extend(procfs::descendants(*pid));
    }
    left.retain(|pid| procfs::alive(*pid));
    for pid in &left {
        let _ = signal::send(*pid, Signal::SIGKILL);
    }
    let _ = wait::until("killed processes to go", KILL_LIMIT, || left.iter().all(|pid| !procfs::alive(*pid)));
}

/// Ends whatever this program has started and not yet ended. For programs that leave; tests rely on drop.
pub fn end_everything() {
    let (key, value) = mark();
    let mut left = procfs::with_environment(&format!("{key}={value}"));
    left.extend(procfs::descendants(std::process::id().cast_signed()));
    left.remove(&std::process::id().cast_signed());
    end_all(&left);
}

/// Runs a command to its end and gives what it wrote.
///
/// # Errors
/// When it does not start, or does not end within `limit` (it is killed then).
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let (key, value) = mark();
    let logs = tempfile::tempdir().context("making a directory for output")?;
    let stdout = logs.path().join("out");
    let stderr = logs.path().join("err");
    let mut child = command
        .env(key, value)
        .stdin(Stdio::null())
        .stdout(File::create(&stdout)?)
        .stderr(File::create(&stderr)?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let what = format!("{command:?} to end");
    let status = wait::eventually(&what, limit, || child.try_wait()?.context("it runs"));
    if status.is_err() {
        let below = procfs::descendants(child.id().cast_signed());
        let _ = child.kill();
        let _ = child.wait();
        end_all(&below);
    }
    let status = status.with_context(|| {
        let said = fs::read_to_string(&stdout).unwrap_or_default() + &fs::read_to_string(&stderr).unwrap_or_default();
        format!("it said: {}", tail(&said))
    })?;
    Ok(Output { status, stdout: fs::read(stdout)?, stderr: fs::read(stderr)? })
}

/// The last lines of a text: enough to see why.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_takes_along_what_it_started() {
        let logs = tempfile::tempdir().unwrap();
        let script = "sleep 600 & setsid sleep 601 & wait";
        let process = Process::start("nest", Command::new("sh").args(["-c", script]), logs.path()).unwrap();
        let pid = process.pid();
        wait::until("two sleepers", KILL_LIMIT, || procfs::descendants(pid).len() == 2).unwrap();
        let all = procfs::descendants(pid);
        drop(process);
        assert!(!procfs::alive(pid));
        assert!(all.iter().all(|pid| !procfs::alive(*pid)), "still there: {all:?}");
    }

    #[test]
    fn a_command_that_does_not_end_is_killed() {
        let error = run(Command::new("sleep").arg("602"), Duration::from_millis(20)).unwrap_err();
        assert!(format!("{error:#}").contains("to end"), "{error:#}");
    }
}
