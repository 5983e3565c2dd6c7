//! One node of the agent's tests: a prefix, the real proxy, the real agent, on loopback and free ports.

#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../../../tests/src/ports.rs"]
mod ports;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything may take, on a machine that stands still for seconds at times.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A node; when it is dropped its agent and its proxy are gone.
pub struct Node {
    dir: TempDir,
    /// Where its first vhost listens.
    pub port: u16,
    /// Options of each command.
    pub options: Vec<String>,
    agent: Option<Child>,
    proxy: Option<Child>,
}

impl Node {
    /// Makes the files of a node.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("dysvr-agent-").tempdir().unwrap();
        let port = free_port();
        for name in ["conf/auto_vhost", "conf/auto_upstream", "logs", "in", "shm"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let node = Self { dir, port, options: Vec::new(), agent: None, proxy: None };
        let task_file = node.task_file();
        node.write(
            "conf/nginx.conf",
            &format!(
                "worker_processes 2;\nerror_log logs/error.log info;\nevents {{ }}\nhttp {{\n    access_log off;\n    \
                 dysvr_reload_conf {};\n    add_header X-Worker $pid always;\n    server {{\n        \
                 listen 127.0.0.1:{port} default_server;\n        return 404 \"none\\n\";\n    }}\n    \
                 include auto_vhost/*.conf;\n}}\n",
                task_file.display()
            ),
        );
        node
    }

    /// The prefix.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The task file.
    pub fn task_file(&self) -> PathBuf {
        self.path("shm/dy_update_server.conf")
    }

    /// Writes a file below the prefix.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The text of a vhost that answers with a word.
    pub fn vhost(&self, id: u64, name: &str, word: &str) -> String {
        self.vhost_on(self.port, id, name, word)
    }

    /// The same on another port.
    pub fn vhost_on(&self, port: u16, id: u64, name: &str, word: &str) -> String {
        format!(
            "server {{\n    vsvc_id {id};\n    listen 127.0.0.1:{port};\n    server_name {name};\n    return 200 \"{word}\";\n}}\n"
        )
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dysvr-node"));
        command.args(words).arg("--prefix").arg(self.dir.path()).args(&self.options).stdin(Stdio::null());
        if words[0] != "probe" {
            command.args(["--proxy", env!("CARGO_BIN_EXE_dysvr-proxy")]);
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Starts the proxy alone and waits until it serves.
    pub fn start_proxy(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dysvr-proxy"));
        command.arg("-p").arg(self.dir.path()).args(["-g", "daemon off;"]).stdin(Stdio::null());
        self.proxy = Some(command.spawn().unwrap());
        self.wait_served();
    }

    /// Starts the agent and waits until its proxy serves.
    pub fn start_agent(&mut self, more: &[&str]) {
        let starts = |node: &Self| node.agent_log().matches("agent started").count();
        let before = starts(self);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("logs/agent.log")).unwrap();
        let mut command = self.command(&["run"]);
        command.args(["--id", "node-1"]).args(more).stderr(log);
        self.agent = Some(command.spawn().unwrap());
        wait("the agent", || (starts(self) > before).then_some(()));
        self.wait_served();
    }

    fn wait_served(&self) {
        wait("the proxy", || self.master().and_then(|_| self.get("x", "/").ok()));
        wait("both workers", || (self.workers().len() == 2).then_some(()));
    }

    /// The pid of the master, once there is one that lives.
    pub fn master(&self) -> Option<i32> {
        let pid = fs::read_to_string(self.path("logs/nginx.pid")).ok()?.trim().parse().ok()?;
        kill(Pid::from_raw(pid), None).ok().map(|()| pid)
    }

    /// The workers.
    pub fn workers(&self) -> Vec<u32> {
        self.master().map(|pid| dysvr_node::agent::proxy::children(pid as u32)).unwrap_or_default()
    }

    /// Ends the agent with a signal; its exit code unless it was killed.
    pub fn end_agent(&mut self, signal: Signal) -> Option<i32> {
        let mut agent = self.agent.take().unwrap();
        kill(Pid::from_raw(agent.id() as i32), signal).unwrap();
        agent.wait().unwrap().code()
    }

    /// Ends the proxy with a signal; it is no child of a living agent.
    pub fn end_proxy(&mut self, signal: Signal) {
        if let Some(pid) = self.master() {
            kill(Pid::from_raw(pid), signal).unwrap();
        }
        if let Some(mut proxy) = self.proxy.take() {
            proxy.wait().unwrap();
        }
    }

    /// Asks for a page: status and body.
    pub fn get(&self, host: &str, target: &str) -> io::Result<(u16, String)> {
        get((Ipv4Addr::LOCALHOST, self.port).into(), host, target)
    }

    /// The body that a vhost answers with; empty if there is none.
    pub fn word(&self, host: &str) -> String {
        let (status, body) = self.get(host, "/").unwrap();
        if status == 200 { body } else { String::new() }
    }

    /// What the agent said.
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.path("logs/agent.log")).unwrap_or_default()
    }

    /// The names below a directory.
    pub fn list(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The agent first, or it would start another proxy.
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let master = self.master();
        let ours = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with("dysvr-proxy"));
        if let Some(pid) = master.filter(|pid| ours(*pid)) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if let Some(mut proxy) = self.proxy.take() {
            let _ = proxy.wait();
        } else {
            let gone = Instant::now() + LIMIT;
            while self.master().is_some() && Instant::now() < gone {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if std::thread::panicking() {
            eprintln!("agent: {}", self.agent_log());
            eprintln!("proxy: {}", fs::read_to_string(self.path("logs/error.log")).unwrap_or_default());
            eprintln!("task file: {}", fs::read_to_string(self.task_file()).unwrap_or_default());
        }
    }
}

/// A port that nobody else is given or takes by chance.
pub fn free_port() -> u16 {
    ports::free().unwrap()
}

/// Asks for a page: status and body.
pub fn get(addr: SocketAddr, host: &str, target: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| io::Error::other(format!("not an answer: {text:?}")))
}

/// Waits until there is something.
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A value of the table that a command printed.
pub fn cell(output: &Output, name: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("  "));
    line.unwrap_or_else(|| panic!("no {name} in {output:?}")).trim().to_owned()
}

/// A path as a word of a command.
pub fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}
