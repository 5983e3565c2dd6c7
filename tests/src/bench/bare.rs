//! The limit of an update on this machine: its wake-ups without its work. One thread is told, as the master is by a signal;
//! it tells two others and hears them, twice, as the master does its workers; then it writes a letter into a file and closes
//! it, for which whoever told it waits as for a verdict.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::corpus;
use super::driver::Watch;

/// As many as the proxies that are measured beside have workers.
const WORKERS: usize = 2;
/// As often the master hears all of its workers in an update: they have prepared, they have committed.
const PHASES: usize = 2;
/// No round takes longer.
const LIMIT: Duration = Duration::from_secs(20);

/// The threads of the rounds; they end with it.
#[derive(Debug)]
pub struct Bare {
    master: UnixStream,
    file: PathBuf,
    watch: Watch,
    _directory: tempfile::TempDir,
}

impl Bare {
    /// Starts the threads.
    ///
    /// # Errors
    /// When there are no sockets, or no directory for the file.
    pub fn start() -> Result<Self> {
        let directory = tempfile::tempdir_in(corpus::tmpfs()).context("making a directory")?;
        let file = directory.path().join("verdict");
        let watch = Watch::new(directory.path())?;
        let (master, told) = UnixStream::pair().context("making a socket pair")?;
        let mut workers = Vec::with_capacity(WORKERS);
        for _ in 0..WORKERS {
            let (channel, worker) = UnixStream::pair().context("making a socket pair")?;
            thread::spawn(move || echo(worker));
            workers.push(channel);
        }
        let path = file.clone();
        thread::spawn(move || rounds(told, &workers, &path));
        Ok(Self { master, file, watch, _directory: directory })
    }

    /// One round, in ms.
    ///
    /// # Errors
    /// When it does not end.
    pub fn round(&mut self) -> Result<f64> {
        fs::write(&self.file, "I").context("writing the file")?;
        self.watch.forget()?;
        let begin = Instant::now();
        self.master.write_all(b"x").context("telling the thread")?;
        while fs::read(&self.file).context("reading the file")? != b"D" {
            ensure!(begin.elapsed() < LIMIT, "a round of wake-ups has not ended after {LIMIT:?}");
            self.watch.moved(LIMIT)?;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}

/// A worker: answers each byte. An end of the channel, or whatever else goes wrong, ends it, and with it the round.
fn echo(mut channel: UnixStream) {
    let mut byte = [0];
    while channel.read_exact(&mut byte).is_ok() && channel.write_all(&byte).is_ok() {}
}

/// The master.
fn rounds(mut told: UnixStream, workers: &[UnixStream], file: &Path) {
    let mut byte = [0];
    while told.read_exact(&mut byte).is_ok() {
        let round = || {
            let mut verdict = File::options().write(true).open(file)?;
            for _ in 0..PHASES {
                workers.iter().try_for_each(|mut worker| worker.write_all(b"x"))?;
                workers.iter().try_for_each(|mut worker| worker.read_exact(&mut [0]))?;
            }
            verdict.write_all(b"D")
        };
        if round().is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_round_ends_and_takes_time() {
        let mut bare = super::Bare::start().unwrap();
        for _ in 0..3 {
            let ms = bare.round().unwrap();
            assert!(ms > 0.0 && ms < 20_000.0, "{ms}");
        }
    }
}
