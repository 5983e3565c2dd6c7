//! haproxy with the same vhosts: one frontend whose map leads each name to a backend of its own. Measured by its reload (a
//! signal to its master) and by its runtime API, which takes a server of a backend and an entry of the map and nothing
//! else: no new backend, no rule.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::corpus::{self, Vhost, WHO};
use super::reload::Figures;
use super::spent::pss_kib;
use super::{Peer, progress};
use crate::client::Connection;
use crate::process::Process;
use crate::{ports, procfs, signal, wait};

/// No start and no reload takes longer.
const LIMIT: Duration = Duration::from_secs(300);
/// Answers in a row that show that no old process takes connections any more.
const IN_A_ROW: usize = 8;

/// A running haproxy: a master and one worker process of two threads.
#[derive(Debug)]
struct Haproxy {
    process: Process,
    dir: TempDir,
    port: u16,
}

/// Measures `reloads` reloads, and the runtime API as often as makes a median.
///
/// # Errors
/// When haproxy does not do what is asked.
pub fn measure(vhosts: usize, reloads: usize) -> Result<Vec<Figures>> {
    let bar = progress(format!("haproxy at {vhosts} vhosts"), reloads as u64 + 1);
    let begin = Instant::now();
    let haproxy = Haproxy::start(vhosts)?;
    haproxy.served(&Vhost::first(vhosts.saturating_sub(1)))?;
    let start_ms = begin.elapsed().as_secs_f64() * 1e3;
    let figures = |way: &'static str, memory_kib: f64, start_ms: f64| Figures {
        peer: Peer::Haproxy,
        way,
        vhosts,
        served_ms: Vec::new(),
        cpu_ms: Vec::new(),
        memory_kib,
        start_ms,
    };
    let mut by_reload = figures("reload", pss_kib(&haproxy.processes()), start_ms);
    let mut by_api = figures("runtime API", 0.0, 0.0);

    for number in vhosts..vhosts + 100 {
        let before = haproxy.cpu_ms();
        let begin = Instant::now();
        haproxy.runtime(number)?;
        by_api.served_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        by_api.cpu_ms.push(haproxy.cpu_ms() - before);
    }
    bar.inc(1);
    for round in 0..reloads {
        let (before, old) = (haproxy.cpu_ms(), haproxy.workers());
        fs::write(haproxy.conf(), haproxy.text(vhosts + round + 1))?;
        fs::write(haproxy.map(), map(vhosts + round + 1))?;
        let begin = Instant::now();
        signal::send(haproxy.process.pid(), Signal::SIGUSR2)?;
        haproxy.served(&Vhost::first(vhosts + round))?;
        by_reload.served_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        let mut old_last = 0.0_f64;
        wait::until("the old process to go", LIMIT, || {
            old_last = old_last.max(cpu(&old));
            haproxy.workers().is_disjoint(&old)
        })?;
        by_reload.cpu_ms.push(haproxy.cpu_ms() + old_last - before);
        bar.inc(1);
    }
    bar.finish();
    Ok(vec![by_reload, by_api])
}

fn cpu(pids: &BTreeSet<i32>) -> f64 {
    pids.iter().filter_map(|pid| procfs::cpu_ns(*pid)).sum::<u64>() as f64 / 1e6
}

fn map(vhosts: usize) -> String {
    (0..vhosts).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "{} be_{number}", Vhost::first(number).name());
        text
    })
}

impl Haproxy {
    fn start(vhosts: usize) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("dysvr-haproxy-").tempdir_in(corpus::tmpfs())?;
        let port = ports::free()?;
        let (conf, logs) = (dir.path().join("haproxy.cfg"), dir.path().join("logs"));
        fs::write(&conf, text(dir.path(), port, vhosts))?;
        fs::write(dir.path().join("hosts.map"), map(vhosts))?;
        let mut command = Command::new(Peer::Haproxy.binary()?);
        command.args(["-W", "-db", "-f"]).arg(&conf);
        let mut process = Process::start("haproxy", &mut command, &logs)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        process.wait_for("a listening port", LIMIT, || Connection::open(addr).map(drop).context("connecting"))?;
        Ok(Self { process, dir, port })
    }

    fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn conf(&self) -> PathBuf {
        self.dir.path().join("haproxy.cfg")
    }

    fn map(&self) -> PathBuf {
        self.dir.path().join("hosts.map")
    }

    fn text(&self, vhosts: usize) -> String {
        text(self.dir.path(), self.port, vhosts)
    }

    fn workers(&self) -> BTreeSet<i32> {
        procfs::live_children(self.process.pid())
    }

    fn processes(&self) -> BTreeSet<i32> {
        self.workers().into_iter().chain([self.process.pid()]).collect()
    }

    fn cpu_ms(&self) -> f64 {
        cpu(&self.processes())
    }

    /// Waits until new connections are answered for a vhost.
    fn served(&self, vhost: &Vhost) -> Result<()> {
        wait::eventually("haproxy to serve", LIMIT, || -> Result<()> {
            for _ in 0..IN_A_ROW {
                let reply = Connection::open(self.addr())?.get(&vhost.name(), WHO)?;
                ensure!(reply.text() == vhost.who(), "{} {:?}", reply.status, reply.text());
            }
            Ok(())
        })
    }

    /// One more server in a backend that is there, and one more entry of the map, each with its answer.
    fn runtime(&self, number: usize) -> Result<()> {
        let vhost = Vhost::first(number);
        let commands = [
            format!("add server be_0/s{number} {}", vhost.peer()),
            format!("enable server be_0/s{number}"),
            format!("add map {} {} be_0", self.map().display(), vhost.name()),
        ];
        for command in &commands {
            let mut socket = UnixStream::connect(self.dir.path().join("api.sock")).context("haproxy's runtime API")?;
            writeln!(socket, "{command}")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            let fine = answer.trim().is_empty() || answer.contains("New server registered");
            ensure!(fine, "haproxy answers {answer:?} to {command:?}");
        }
        Ok(())
    }
}

/// The whole configuration, the same features as the vhosts of the others have.
fn text(dir: &Path, port: u16, vhosts: usize) -> String {
    let (socket, map) = (dir.join("api.sock"), dir.join("hosts.map"));
    let mut text = format!(
        "global\n    nbthread 2\n    maxconn 4096\n    stats socket {} level admin expose-fd listeners\n\
         defaults\n    mode http\n    timeout connect 60s\n    timeout client 600s\n    timeout server 60s\n\
         frontend all\n    bind 127.0.0.1:{port}\n    use_backend %[req.hdr(host),lower,map({},be_none)]\n\
         backend be_none\n    http-request return status 404 content-type text/plain string \"no such vhost\"\n",
        socket.display(),
        map.display()
    );
    for number in 0..vhosts {
        let vhost = Vhost::first(number);
        let _ = write!(
            text,
            "backend be_{number}\n    balance roundrobin\n    \
             http-request return status 200 content-type text/plain string \"{}\" if {{ path {WHO} }}\n    server s {}\n",
            vhost.who(),
            vhost.peer()
        );
    }
    text
}
