//! What the tests of the request path share: an origin that misbehaves on demand, our worker's request path in a thread,
//! a real nginx, and a client that speaks raw bytes.

#![allow(dead_code)] // each test program uses a part of it

pub mod client;
pub mod nginx;
pub mod origin;
pub mod ours;
#[path = "../../../tests/src/ports.rs"]
mod ports;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long anything may take, on a machine that stands still for seconds at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nobody listens on, and that nobody else is given or takes by chance.
pub fn free_port() -> u16 {
    ports::free().unwrap()
}

/// Waits until a condition holds.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A proxy that was started with a configuration.
pub struct Proxy {
    /// Its port.
    pub port: u16,
    /// Its folder: logs are in it.
    pub dir: PathBuf,
    running: Box<dyn std::any::Any>,
}

impl Proxy {
    /// Lines of a log once there are at least `count` of them.
    pub fn log(&self, name: &str, count: usize) -> Vec<String> {
        let read = || std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        wait_for(&format!("{count} lines in {name}"), || read().lines().count() >= count);
        read().lines().map(str::to_owned).collect()
    }
}

/// Fills in a configuration: `PORT` (ours), `DIR`, and the given words.
fn fill(text: &str, port: u16, dir: &Path, words: &[(&str, String)]) -> String {
    let mut text = text.replace("{PORT}", &port.to_string()).replace("{DIR}", &dir.to_string_lossy());
    for (word, value) in words {
        text = text.replace(&format!("{{{word}}}"), value);
    }
    text
}
