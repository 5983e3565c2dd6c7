//! The controller behind real sockets, with agents that speak the Fleet protocol.

mod api;
mod drift;
mod faults;
mod flow;
mod size;
#[path = "../support/mod.rs"]
mod support;
mod verbs;

use std::sync::Arc;

use dysvr_controller::store::{self, Store};
use tempfile::TempDir;

use support::agent::{Agent, Journal};

/// A store in a file below a directory of the test.
async fn file_store(dir: &TempDir) -> Arc<dyn Store> {
    let address = format!("file:{}", dir.path().join("c.redb").display());
    support::until("the file to be free", async || store::open(&address).await.ok()).await
}

/// A vhost that answers with a status.
fn vhost(name: &str, status: u16) -> String {
    format!("server {{\n    listen 80;\n    server_name {name};\n    return {status};\n}}\n")
}

/// Agents n0, n1, …
fn agents(count: usize, address: &str, journal: &Journal) -> Vec<Agent> {
    (0..count).map(|n| Agent::start(&format!("n{n}"), address, journal)).collect()
}
