//! The real `dysvr-controller` with a store in a file.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A running controller; it is killed when it is dropped.
pub(crate) struct Controller {
    child: Child,
    pub(crate) url: String,
}

impl Controller {
    /// Starts one on a port of its own and waits until it listens.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_on(dir, "127.0.0.1:0")
    }

    /// Starts one on an address, again.
    pub(crate) fn start_on(dir: &Path, address: &str) -> Self {
        let store = format!("file:{}", dir.join("store.redb").display());
        let mut child = Command::new(env!("CARGO_BIN_EXE_dysvr-controller"))
            .args(["--listen", address, "--store", &store, "--name", "test"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dysvr-controller starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (found, address) = mpsc::channel();
        // Reads to the end, so that the controller never waits for somebody to read its log.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let words = line.contains("listening").then(|| line.split_whitespace()).into_iter().flatten();
                if let Some(address) = words.filter_map(|word| word.strip_prefix("address=")).next() {
                    let _ = found.send(address.to_owned());
                }
                eprintln!("controller: {line}");
            }
        });
        let address = address.recv_timeout(Duration::from_secs(120)).expect("the controller listens in time");
        Self { child, url: format!("http://{address}") }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
