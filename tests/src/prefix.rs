//! A directory laid out as nginx's (conf/, logs/), of one test, with its own port and its own task file on a tmpfs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::ports;
use crate::task::TaskFile;

/// A prefix; its directories are removed when this is dropped.
#[derive(Debug)]
pub struct Prefix {
    dir: TempDir,
    shm: TempDir,
    /// Where its first vhost listens, on 127.0.0.1.
    pub port: u16,
}

/// What stands in the main configuration of a prefix.
#[derive(Clone, Debug)]
pub struct MainConf {
    /// `worker_processes`.
    pub workers: usize,
    /// More at the top, before `events`.
    pub main: String,
    /// More in `http`, before the vhosts.
    pub http: String,
    /// Whether our own directives stand in it: nginx takes the rest.
    pub ours: bool,
    /// Whether the default vhost listens on all addresses of its port, IPv6 too, as the seed's vhost does; otherwise on
    /// 127.0.0.1.
    pub wide: bool,
    /// `daemon on`.
    pub daemon: bool,
}

impl Default for MainConf {
    fn default() -> Self {
        Self { workers: 2, main: String::new(), http: String::new(), ours: true, wide: false, daemon: false }
    }
}

impl Prefix {
    /// Makes the directories and the main configuration: a default vhost that answers 404 on a free port, and the
    /// include of `auto_vhost/`. Every answer says the worker's pid.
    ///
    /// # Errors
    /// When directories or files cannot be made.
    pub fn new(conf: &MainConf) -> Result<Self> {
        Self::new_in(&std::env::temp_dir(), conf)
    }

    /// As [`Self::new`], below a directory of the caller's choice: on a disk or on a tmpfs.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn new_in(parent: &Path, conf: &MainConf) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("dysvr-prefix-").tempdir_in(parent).context("making a prefix")?;
        // Workers that have given up root must reach into it, as they reach into /etc/nginx.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let shm =
            tempfile::Builder::new().prefix("dysvr-task-").tempdir_in(parent).context("making a task directory")?;
        let prefix = Self { dir, shm, port: ports::free()? };
        for name in ["conf/auto_vhost", "conf/auto_upstream", "conf/listen.d", "logs"] {
            fs::create_dir_all(prefix.path().join(name)).with_context(|| format!("making {name}"))?;
        }
        prefix.write("nginx.conf", &prefix.main_conf(conf))?;
        prefix.write("listen.d/here.conf", &format!("listen 127.0.0.1:{};\n", prefix.port))?;
        Ok(prefix)
    }

    /// The text of the main configuration.
    pub fn main_conf(&self, conf: &MainConf) -> String {
        let MainConf { workers, main, http, ours, wide, daemon } = conf;
        let port = self.port;
        let daemon = if *daemon { "on" } else { "off" };
        let listen = match (*wide, ports::has_ipv6()) {
            (false, _) => format!("listen 127.0.0.1:{port} default_server;"),
            (true, false) => format!("listen {port} default_server;"),
            (true, true) => format!("listen {port} default_server; listen [::]:{port} default_server;"),
        };
        let own = if *ours {
            let file = self.task_file().path;
            format!(
                "    dysvr on;\n    dysvr_reload_conf {};\n    add_header X-Vsvc $dysvr_vsvc_id always;\n    \
                 add_header X-Task $dysvr_task_id always;\n",
                file.display()
            )
        } else {
            String::new()
        };
        format!(
            "worker_processes {workers};\ndaemon {daemon};\npid logs/nginx.pid;\nerror_log logs/error.log info;\n{main}\
             events {{\n    worker_connections 4096;\n}}\nhttp {{\n    access_log off;\n    \
             keepalive_requests 1000000;\n    keepalive_timeout 600s;\n    add_header X-Worker $pid always;\n{own}{http}\
             \x20   server {{\n        {listen}\n        server_name _;\n        \
             return 404 \"no such vhost\\n\";\n    }}\n    include auto_vhost/*.conf;\n}}\n"
        )
    }

    /// `worker_processes` of the main configuration, if it says a number.
    pub fn worker_processes(&self) -> Option<usize> {
        let text = fs::read_to_string(self.conf("nginx.conf")).ok()?;
        text.split_once("worker_processes ")?.1.split(';').next()?.trim().parse().ok()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file below conf/.
    pub fn conf(&self, name: &str) -> PathBuf {
        self.path().join("conf").join(name)
    }

    /// Writes a file below conf/, whole at once: a reload may read it at any moment.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.conf(name);
        let own = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(format!(".{own}.new"));
        let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path));
        written.with_context(|| format!("writing {}", path.display()))
    }

    /// Where the first vhost listens.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The task file.
    pub fn task_file(&self) -> TaskFile {
        TaskFile { path: self.shm.path().join("dy_update_server.conf") }
    }

    /// The pid file.
    pub fn pid_file(&self) -> PathBuf {
        self.path().join("logs/nginx.pid")
    }

    /// The pid of the master, from the pid file.
    ///
    /// # Errors
    /// When there is none.
    pub fn master_pid(&self) -> Result<i32> {
        let path = self.pid_file();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        text.trim().parse().with_context(|| format!("{text:?} in {} is no pid", path.display()))
    }

    /// The error log so far.
    pub fn error_log(&self) -> String {
        fs::read_to_string(self.path().join("logs/error.log")).unwrap_or_default()
    }
}
