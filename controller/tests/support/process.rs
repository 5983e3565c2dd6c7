//! The real `dysvr-controller`, which can be killed at any moment.

use std::process::{Child, Command, Stdio};

use super::controller::{Operator, operator_at};

/// A process, killed when dropped.
pub struct Process {
    child: Child,
    pub address: String,
}

impl Process {
    /// Starts it on an address.
    pub fn start(address: &str, store: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_dysvr-controller"))
            .args(["--listen", address, "--store", store, "--name", "process", "--log", "warn"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address: address.to_owned() }
    }

    /// An operator, once the controller leads.
    pub async fn operator(&self) -> Operator {
        operator_at(&self.address).await
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    /// TERM, and the exit status.
    pub async fn term(mut self) -> i32 {
        super::signal(self.child.id(), "TERM");
        let began = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(began.elapsed() < super::PATIENCE, "it does not end");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Stops or continues it.
    pub fn signal(&self, name: &str) {
        super::signal(self.child.id(), name);
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
