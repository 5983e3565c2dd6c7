//! A real nginx with a configuration: what the behaviour is compared with.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Proxy, fill, free_port, wait_for};

const PROGRAM: &str = "/usr/sbin/nginx";

/// Whether this machine has it.
pub fn is_installed() -> bool {
    Path::new(PROGRAM).exists()
}

struct Running {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        // TERM lets the master take its worker along.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.child.wait();
    }
}

/// Starts it with an `http` block.
pub fn start(http: &str, words: &[(&str, String)]) -> Proxy {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    std::fs::create_dir(path.join("logs")).unwrap();
    let port = free_port();
    let text = format!(
        "worker_processes 1; daemon off; pid {{DIR}}/pid; error_log {{DIR}}/error.log info;\n\
         events {{ worker_connections 512; }}\n\
         http {{ client_body_temp_path {{DIR}}/b; proxy_temp_path {{DIR}}/p; fastcgi_temp_path {{DIR}}/f; \
         uwsgi_temp_path {{DIR}}/u; scgi_temp_path {{DIR}}/s;\n{http}\n}}\n"
    );
    std::fs::write(path.join("nginx.conf"), fill(&text, port, &path, words)).unwrap();
    let child = Command::new(PROGRAM)
        .args(["-c", "nginx.conf", "-e", "error.log", "-p"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running { child, _dir: dir };
    wait_for("nginx", || {
        if let Ok(Some(status)) = running.child.try_wait() {
            let log = std::fs::read_to_string(path.join("error.log")).unwrap_or_default();
            panic!("nginx ended with {status}: {log}");
        }
        path.join("pid").exists()
    });
    Proxy { port, dir: path, running: Box::new(running) }
}
