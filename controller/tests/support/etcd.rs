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
    /// Starts one alone and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more arguments.
    pub async fn start_with(args: &[&str]) -> Self {
        let peer = super::free_port();
        let etcd = Self::member("one", peer, &format!("one=http://127.0.0.1:{peer}"), args);
        answers(&etcd.address()).await;
        etcd
    }

    /// Starts a cluster and waits until it answers; its members, and its address.
    pub async fn cluster(size: usize) -> (Vec<Self>, String) {
        let peers: Vec<_> = (0..size).map(|n| (format!("m{n}"), super::free_port())).collect();
        let list: Vec<_> = peers.iter().map(|(name, port)| format!("{name}=http://127.0.0.1:{port}")).collect();
        let members: Vec<_> =
            peers.iter().map(|(name, port)| Self::member(name, *port, &list.join(","), &[])).collect();
        let ports: Vec<_> = members.iter().map(|member| format!("127.0.0.1:{}", member.port)).collect();
        let address = format!("etcd://{}", ports.join(","));
        answers(&address).await;
        (members, address)
    }

    fn member(name: &str, peer: u16, cluster: &str, args: &[&str]) -> Self {
        let data = TempDir::new().unwrap();
        let port = super::free_port();
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer}");
        let child = Command::new("etcd")
            .args(["--name", name, "--data-dir"])
            .arg(data.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", cluster, "--log-level", "error"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed (apt-get install etcd-server)");
        Self { child, port, _data: data }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// As `--store` takes it.
    pub fn address(&self) -> String {
        format!("etcd://127.0.0.1:{}", self.port)
    }

    /// Stops or continues its process.
    pub fn signal(&self, name: &str) {
        super::signal(self.child.id(), name);
    }
}

async fn answers(address: &str) {
    super::until("etcd to answer", async || {
        let store = dysvr_controller::store::open(address).await.ok()?;
        store.get("x").await.ok().map(drop)
    })
    .await;
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
