//! What the controller's tests share: etcd and controllers on free ports, agents that speak the Fleet protocol, waiting
//! for conditions.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod agent;
pub mod controller;
pub mod etcd;
pub mod process;

use std::future::Future;
use std::time::{Duration, Instant};

/// Longer than anything here should take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

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

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
