//! A real etcd in a temporary directory.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// One member, killed when dropped.
pub struct Etcd {
    child: Child,
    pub port: u16,
    _data: TempDir,
}

impl Etcd {
    /// Starts it and waits until it answers.
    pub async fn start() -> Self {
        let data = TempDir::new().unwrap();
        let (port, peer) = (super::free_port(), super::free_port());
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer}");
        let child = Command::new("etcd")
            .args(["--name", "one", "--data-dir"])
            .arg(data.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}"), "--log-level", "error"])
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed (apt-get install etcd-server)");
        let etcd = Self { child, port, _data: data };
        super::until("etcd to answer", async || {
            let store = dysvr_controller::store::open(&etcd.address()).await.ok()?;
            store.get("x").await.ok().map(drop)
        })
        .await;
        etcd
    }

    /// As `--store` takes it.
    pub fn address(&self) -> String {
        format!("etcd://127.0.0.1:{}", self.port)
    }

    /// Stops or continues its process.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
