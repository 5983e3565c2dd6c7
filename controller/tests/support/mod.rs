//! What the controller's tests share: etcd and controllers on free ports, agents that speak the Fleet protocol, waiting
//! for conditions.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod agent;
pub mod controller;
pub mod etcd;
#[path = "../../../tests/src/ports.rs"]
mod ports;
pub mod process;

use std::future::Future;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longer than anything here should take, on a machine that stands still for seconds at times.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `look` answers something.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends a signal by its name. Whoever is told to stop has stopped when this returns, with all threads.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success());
    let stopped = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat"));
        stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T')))
    };
    let began = Instant::now();
    while name == "STOP" && !std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(stopped) {
        assert!(began.elapsed() < PATIENCE, "{pid} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A port that nobody listens on, and that nobody else is given or takes by chance.
pub fn free_port() -> u16 {
    ports::free().unwrap()
}
