//! Listening sockets in place: a task opens the addresses that its vhosts need and closes those that nobody needs any
//! more, in every worker, without a reload and without a failed connection.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use dysvr_tests::client::{self, Connection};
use dysvr_tests::comers::Comers;
use dysvr_tests::http::{Framing, read_body, read_head};
use dysvr_tests::load::Load;
use dysvr_tests::node::Node;
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::{LIMIT, Proxy};
use dysvr_tests::task::{Kind, Verdict};
use dysvr_tests::verify::verify;
use dysvr_tests::{ports, signal, wait};
use nix::sys::signal::Signal;

/// A proxy with two workers, and the tasks that it is given.
struct Site {
    proxy: Proxy,
    workers: BTreeSet<i32>,
    task_id: u64,
    /// Clients take all of the processor, and a look, which yields to everybody, would take long.
    busy: bool,
}

impl Site {
    fn start() -> Result<Self> {
        let proxy = Proxy::start(&MainConf::default())?;
        wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
        Ok(Self { workers: proxy.workers(), proxy, task_id: 0, busy: false })
    }

    /// Writes the vhost of an id with these listens, and runs the task.
    fn put(&mut self, kind: Kind, id: u64, listens: &[&str]) -> Result<Verdict> {
        let file = file_of(id);
        self.proxy.prefix.write(&file, &vhost(id, listens))?;
        self.task_id += 1;
        self.proxy.task(kind, &[&file], &[id], &[], self.task_id)
    }

    fn add(&mut self, id: u64, listens: &[&str]) -> Result<()> {
        let verdict = self.put(Kind::Add, id, listens)?;
        self.done(&verdict)
    }

    fn modify(&mut self, id: u64, listens: &[&str]) -> Result<()> {
        let verdict = self.put(Kind::Modify, id, listens)?;
        self.done(&verdict)
    }

    fn delete(&mut self, id: u64) -> Result<()> {
        fs::remove_file(self.proxy.prefix.conf(&file_of(id)))?;
        self.task_id += 1;
        self.done(&self.proxy.task(Kind::Delete, &[], &[id], &[], self.task_id)?)
    }

    fn done(&self, verdict: &Verdict) -> Result<()> {
        ensure!(verdict.done, "the task failed: {}", verdict.line.reason());
        if !self.busy {
            verify(&self.proxy)?;
        }
        Ok(())
    }

    /// Every worker answers on the address with the vhost of this id.
    fn serves(&self, addr: SocketAddr, id: u64) -> Result<()> {
        let answers = client::ask_every_worker(addr, || self.proxy.workers(), "any.example", "/", LIMIT)
            .with_context(|| format!("asking {addr}"))?;
        for (pid, reply) in answers {
            let right = reply.status == 200 && reply.text() == format!("vhost {id}");
            ensure!(right, "worker {pid} on {addr} answers {} {:?}", reply.status, reply.text());
        }
        Ok(())
    }

    /// Nobody was replaced, and nothing of note was logged.
    fn undisturbed(&self) -> Result<()> {
        ensure!(self.proxy.workers() == self.workers, "{:?} have become {:?}", self.workers, self.proxy.workers());
        let log = self.proxy.prefix.error_log();
        ensure!(!log.contains("[alert]") && !log.contains("[crit]"), "{log}");
        Ok(())
    }
}

fn file_of(id: u64) -> String {
    format!("auto_vhost/{id}.conf")
}

fn vhost(id: u64, listens: &[&str]) -> String {
    let listens: String = listens.iter().map(|listen| format!("    listen {listen};\n")).collect();
    format!("server {{\n    vsvc_id {id};\n{listens}    return 200 \"vhost {id}\";\n}}\n")
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Another address of this machine that is not that of [`local`].
fn other(port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, 2), port).into()
}

fn refused(addr: SocketAddr) -> Result<()> {
    match TcpStream::connect(addr) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        got => Err(anyhow!("{addr}: {got:?}")),
    }
}

#[test]
fn a_port_opens_with_its_first_vhost_and_closes_with_its_last() -> Result<()> {
    let mut site = Site::start()?;
    let (one, two) = (ports::free()?, ports::free()?);
    refused(local(one))?;
    site.add(1, &[&format!("127.0.0.1:{one}")])?;
    site.serves(local(one), 1)?;
    site.add(2, &[&format!("127.0.0.1:{one}"), &format!("127.0.0.1:{two}")])?;
    site.serves(local(one), 1)?;
    site.serves(local(two), 2)?;
    // The first vhost leaves, the second one stays: it is the default server now.
    let mut held = client::pin_every_worker(local(one), "any.example", &site.workers, LIMIT)?;
    site.delete(1)?;
    for connection in held.values_mut() {
        ensure!(connection.get("any.example", "/")?.text() == "vhost 2");
    }
    // A port is changed, and the one that is left closes.
    site.modify(2, &[&format!("127.0.0.1:{one}")])?;
    refused(local(two))?;
    for _ in 0..10 {
        site.delete(2)?;
        refused(local(one))?;
        // Nobody holds it: it can be bound again by anybody, and then by us.
        drop(TcpListener::bind(local(one))?);
        site.add(2, &[&format!("127.0.0.1:{one}")])?;
        site.serves(local(one), 2)?;
    }
    site.undisturbed()
}

#[test]
fn connections_of_a_closed_port_end_politely() -> Result<()> {
    let mut site = Site::start()?;
    let origin = Origin::start("slow")?;
    let port = ports::free()?;
    let text = format!(
        "server {{\n    vsvc_id 1;\n    listen 127.0.0.1:{port};\n    location / {{\n        proxy_http_version 1.1;\n        \
         proxy_pass http://{};\n    }}\n}}\n",
        origin.addr
    );
    site.proxy.prefix.write(&file_of(1), &text)?;
    site.task_id = 1;
    site.done(&site.proxy.task(Kind::Add, &[&file_of(1)], &[1], &[], 1)?)?;
    let mut idle = client::pin_every_worker(local(port), "any.example", &site.workers, LIMIT)?;
    let mut running = Connection::open(local(port))?;
    running.send("GET", "/drip?count=60&every_ms=20", &[("Host", "any.example")], b"")?;
    let head = running.head()?;
    let mut silent = Connection::open(local(port))?;
    site.delete(1)?;
    refused(local(port))?;
    // The running answer comes whole, and the connection ends behind it.
    let body = read_body(running.stream(), Framing::of_response(&head, "GET")?)?;
    ensure!(body.ends_with(b"drop 59\n"), "{}", String::from_utf8_lossy(&body));
    ensure!(running.stream().read(&mut [0; 1])? == 0, "the connection goes on after its request");
    // Idle ones are closed, without a reset.
    for (pid, connection) in &mut idle {
        let read = connection.stream().read(&mut [0; 1]).with_context(|| format!("the connection to worker {pid}"))?;
        ensure!(read == 0, "worker {pid} says something");
    }
    // One that has not asked yet was accepted for the vhost that was there: it gets its answer, and no other.
    let reply = silent.get("any.example", "/")?;
    ensure!(reply.status == 200 && reply.text().starts_with("origin slow"), "{reply:?}");
    ensure!(reply.head.has_word("connection", "close"), "{reply:?}");
    site.undisturbed()
}

#[test]
fn a_port_that_cannot_be_bound_fails_the_task_and_nothing_is_opened() -> Result<()> {
    let mut site = Site::start()?;
    let taken = TcpListener::bind(local(ports::free()?))?;
    let free = ports::free()?;
    let socket = site.proxy.prefix.path().join("s.sock");
    let listens = [format!("127.0.0.1:{free}"), taken.local_addr()?.to_string(), format!("unix:{}", socket.display())];
    let listens: Vec<&str> = listens.iter().map(String::as_str).collect();
    for kind in [Kind::Add, Kind::Modify] {
        let verdict = site.put(kind, 1, &listens)?;
        let expected = format!("bind() to {} failed (98: Address already in use)", taken.local_addr()?);
        ensure!(!verdict.done && verdict.line.reason().contains(&expected), "{verdict:?}");
        refused(local(free))?;
        ensure!(!socket.exists(), "the unix socket was left");
        if kind == Kind::Add {
            site.add(1, &[&site.proxy.prefix.addr().to_string()])?;
        }
    }
    drop(taken);
    site.modify(1, &listens)?;
    site.serves(local(free), 1)?;
    site.undisturbed()
}

#[test]
fn many_ports_open_and_close_in_one_task() -> Result<()> {
    let mut site = Site::start()?;
    let all: Vec<u16> = (0..150).map(|_| ports::free()).collect::<Result<_>>()?;
    let listens: Vec<String> = all.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let listens: Vec<&str> = listens.iter().map(String::as_str).collect();
    site.add(1, &listens)?;
    for port in all.iter().step_by(10) {
        site.serves(local(*port), 1)?;
    }
    for port in &all {
        ensure!(client::get(local(*port), "any.example", "/")?.text() == "vhost 1");
    }
    site.delete(1)?;
    for port in all {
        refused(local(port))?;
    }
    site.undisturbed()
}

#[test]
fn ipv6_addresses_open_and_close() -> Result<()> {
    if !ports::has_ipv6() {
        return Ok(());
    }
    let mut site = Site::start()?;
    let (one, both) = (ports::free()?, ports::free()?);
    let v6 = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    site.add(1, &[&format!("[::]:{one}"), &format!("[::1]:{one}")])?;
    site.serves(v6(one), 1)?;
    refused(local(one))?;
    site.add(2, &[&format!("[::]:{both} ipv6only=off")])?;
    site.serves(v6(both), 2)?;
    site.serves(local(both), 2)?;
    let verdict = site.put(Kind::Modify, 2, &[&format!("[::]:{both}")])?;
    ensure!(!verdict.done && verdict.line.reason().contains("needs a reload: the listen options"), "{verdict:?}");
    // First the one whose file says what was refused.
    site.delete(2)?;
    site.delete(1)?;
    refused(v6(one))?;
    refused(v6(both))?;
    site.undisturbed()
}

#[test]
fn a_unix_socket_is_made_and_removed_but_never_somebody_else_s() -> Result<()> {
    let mut site = Site::start()?;
    let path = site.proxy.prefix.path().join("here.sock");
    let listen = format!("unix:{}", path.display());
    let ask = |path: &Path| -> Result<String> {
        let mut stream = UnixStream::connect(path)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n")?;
        let mut input = BufReader::new(stream);
        let head = read_head(&mut input)?.context("no answer")?;
        Ok(String::from_utf8(read_body(&mut input, Framing::of_response(&head, "GET")?)?)?)
    };
    for _ in 0..3 {
        site.add(1, &[&listen])?;
        let meta = fs::symlink_metadata(&path)?;
        ensure!(meta.file_type().is_socket() && meta.permissions().mode() & 0o777 == 0o666, "{meta:?}");
        ensure!(ask(&path)? == "vhost 1");
        site.delete(1)?;
        ensure!(!path.exists(), "the file was left");
    }
    // Somebody else listens there.
    let theirs = UnixListener::bind(&path)?;
    let verdict = site.put(Kind::Add, 1, &[&listen])?;
    ensure!(!verdict.done && verdict.line.reason().contains("98: Address already in use"), "{verdict:?}");
    ensure!(path.exists(), "somebody else's file was removed");
    // Somebody has gone and left it; and later somebody puts another one in its place.
    drop(theirs);
    site.add(1, &[&listen])?;
    ensure!(ask(&path)? == "vhost 1");
    let beside = path.with_extension("other");
    let _theirs = UnixListener::bind(&beside)?;
    fs::rename(&beside, &path)?;
    site.delete(1)?;
    ensure!(path.exists(), "somebody else's file was removed");
    site.undisturbed()
}

#[test]
fn a_wildcard_comes_and_goes_beside_an_exact_address() -> Result<()> {
    let mut site = Site::start()?;
    let port = ports::free()?;
    let (exact, wildcard) = (format!("127.0.0.1:{port}"), format!("{port}"));
    site.add(1, &[&exact])?;
    site.busy = true;
    let load = Load::start(local(port), 10, &["any.example"], "/")?;
    let comers = Comers::start(local(port), 4, false)?;
    for _ in 0..5 {
        // The exact address has a socket of its own.
        site.add(2, &[&wildcard])?;
        site.serves(local(port), 1)?;
        site.serves(other(port), 2)?;
        comers.more()?;
        site.delete(2)?;
        refused(other(port))?;
        site.serves(local(port), 1)?;
        comers.more()?;
    }
    // After a reload there is the wildcard's socket alone.
    site.add(2, &[&wildcard])?;
    comers.stop()?;
    let report = load.stop()?;
    ensure!(report.failures.is_empty(), "{:?}", report.failures);
    verify(&site.proxy)?;
    site.undisturbed()
}

#[test]
fn a_wildcard_goes_and_an_exact_address_that_it_covered_stays() -> Result<()> {
    let mut site = Site::start()?;
    let port = ports::free()?;
    let (exact, wildcard) = (format!("127.0.0.1:{port}"), format!("{port}"));
    site.add(2, &[&wildcard])?;
    site.add(1, &[&exact])?;
    site.busy = true;
    let load = Load::start(local(port), 10, &["any.example"], "/")?;
    let comers = Comers::start(local(port), 4, false)?;
    for _ in 0..5 {
        site.delete(2)?;
        wait::eventually("the wildcard to close", LIMIT, || refused(other(port)))?;
        site.serves(local(port), 1)?;
        comers.more()?;
        site.add(2, &[&wildcard])?;
        site.serves(other(port), 2)?;
        site.serves(local(port), 1)?;
        comers.more()?;
        // Another process' view: only the wildcard's socket is made anew.
        site.delete(1)?;
        site.serves(local(port), 2)?;
        site.add(1, &[&exact])?;
        site.serves(local(port), 1)?;
    }
    comers.stop()?;
    let report = load.stop()?;
    ensure!(report.failures.is_empty(), "{:?}", report.failures);
    site.busy = false;
    // One task changes a vhost from the wildcard to the exact address, and back.
    site.delete(1)?;
    for _ in 0..3 {
        site.modify(2, &[&exact])?;
        site.serves(local(port), 2)?;
        wait::eventually("the wildcard to close", LIMIT, || refused(other(port)))?;
        site.modify(2, &[&wildcard])?;
        site.serves(local(port), 2)?;
        site.serves(other(port), 2)?;
    }
    site.undisturbed()
}

#[test]
fn each_worker_has_its_own_socket_with_reuseport() -> Result<()> {
    let mut site = Site::start()?;
    let port = ports::free()?;
    site.add(1, &[&format!("127.0.0.1:{port} reuseport backlog=64")])?;
    site.serves(local(port), 1)?;
    // A new worker takes the socket of the one that it replaces: no connection is left with nobody to accept it.
    for victim in site.workers.clone() {
        signal::send(victim, Signal::SIGKILL)?;
        wait::until("another worker", LIMIT, || {
            let now = site.proxy.workers();
            now.len() == 2 && !now.contains(&victim)
        })?;
        site.serves(local(port), 1)?;
        for _ in 0..50 {
            ensure!(client::get(local(port), "any.example", "/")?.status == 200);
        }
    }
    let workers = site.proxy.workers();
    site.modify(1, &[&format!("127.0.0.1:{port} reuseport backlog=128")])?;
    site.serves(local(port), 1)?;
    let verdict = site.put(Kind::Modify, 1, &[&format!("127.0.0.1:{port}")])?;
    ensure!(!verdict.done && verdict.line.reason().contains("needs a reload: the listen options"), "{verdict:?}");
    site.delete(1)?;
    refused(local(port))?;
    site.add(1, &[&format!("127.0.0.1:{port}")])?;
    site.serves(local(port), 1)?;
    ensure!(site.proxy.workers() == workers, "workers were replaced");
    Ok(())
}

#[test]
fn a_replaced_worker_and_a_reload_have_the_ports_of_the_updates() -> Result<()> {
    let mut site = Site::start()?;
    let (port, gone) = (ports::free()?, ports::free()?);
    site.add(1, &[&format!("127.0.0.1:{port}")])?;
    site.add(2, &[&format!("127.0.0.1:{gone}")])?;
    site.delete(2)?;
    for victim in site.workers.clone() {
        signal::send(victim, Signal::SIGKILL)?;
        wait::until("another worker", LIMIT, || {
            let now = site.proxy.workers();
            now.len() == 2 && !now.contains(&victim)
        })?;
    }
    site.serves(local(port), 1)?;
    refused(local(gone))?;
    let before = site.proxy.workers();
    let comers = Comers::start(local(port), 2, false)?;
    site.proxy.signal(Signal::SIGHUP)?;
    wait::until("the reload", LIMIT, || site.proxy.workers().len() == 2 && site.proxy.workers().is_disjoint(&before))?;
    comers.stop()?;
    site.serves(local(port), 1)?;
    refused(local(gone))?;
    site.delete(1)?;
    refused(local(port))
}

#[test]
fn an_agent_opens_and_closes_ports_in_place() -> Result<()> {
    let node = Node::start("alone", &[], None, &MainConf::default(), &[])?;
    let workers = node.workers();
    let port = ports::free()?;
    let incoming = node.prefix.path().join("incoming");
    fs::create_dir_all(&incoming)?;
    let file = incoming.join("1.conf");
    fs::write(&file, vhost(1, &[&format!("127.0.0.1:{port}")]))?;
    let file = file.display().to_string();
    let said = |output: &std::process::Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let added = node.task(&["add", &file])?;
    ensure!(added.status.success() && !said(&added).contains("reload"), "{}", said(&added));
    verify(&node)?;
    let answers = client::ask_every_worker(local(port), || workers.clone(), "any.example", "/", LIMIT)?;
    ensure!(answers.values().all(|reply| reply.text() == "vhost 1"), "{answers:?}");
    let deleted = node.task(&["delete", "1"])?;
    ensure!(deleted.status.success() && !said(&deleted).contains("reload"), "{}", said(&deleted));
    verify(&node)?;
    refused(local(port))?;
    ensure!(node.workers() == workers, "workers were replaced");
    Ok(())
}

#[test]
fn a_plain_connection_ends_when_its_port_becomes_tls() -> Result<()> {
    let mut site = Site::start()?;
    let port = ports::free()?;
    let (pem, key) = (site.proxy.prefix.conf("c.pem"), site.proxy.prefix.conf("c.key"));
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=any.example", "-keyout"]).arg(&key).arg("-out").arg(&pem);
    let made = dysvr_tests::process::run(&mut openssl, LIMIT)?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    site.add(1, &[&format!("127.0.0.1:{port}")])?;
    let mut idle = client::pin_every_worker(local(port), "any.example", &site.workers, LIMIT)?;
    let mut silent = Connection::open(local(port))?;
    let tls = format!(
        "server {{\n    vsvc_id 1;\n    listen 127.0.0.1:{port} ssl;\n    ssl_certificate c.pem;\n    ssl_certificate_key \
         c.key;\n    return 200 \"secret\";\n}}\n"
    );
    // Accepted, before it is another port.
    site.serves(local(port), 1)?;
    site.proxy.prefix.write(&file_of(1), &tls)?;
    site.task_id += 1;
    site.done(&site.proxy.task(Kind::Modify, &[&file_of(1)], &[1], &[], site.task_id)?)?;
    for (pid, connection) in &mut idle {
        let read = connection.stream().read(&mut [0; 1]).with_context(|| format!("the connection to worker {pid}"))?;
        ensure!(read == 0, "worker {pid} says something");
    }
    let reply = silent.get("any.example", "/")?;
    ensure!(reply.text() == "vhost 1" && reply.head.has_word("connection", "close"), "{reply:?}");
    let plain = client::get(local(port), "any.example", "/")?;
    ensure!(plain.status == 400, "{plain:?}");
    site.undisturbed()
}

#[test]
fn sockets_that_do_not_reach_a_worker_fail_the_task() -> Result<()> {
    // Enough descriptors for a worker to serve, not for a hundred sockets more; the master has no such limit.
    let main = "worker_rlimit_nofile 60;\n".to_owned();
    let proxy = Proxy::start(&MainConf { main, ..MainConf::default() })?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    let mut site = Site { workers: proxy.workers(), proxy, task_id: 0, busy: false };
    let all: Vec<u16> = (0..100).map(|_| ports::free()).collect::<Result<_>>()?;
    let listens: Vec<String> = all.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let listens: Vec<&str> = listens.iter().map(String::as_str).collect();
    let verdict = site.put(Kind::Add, 1, &listens)?;
    ensure!(!verdict.done && verdict.line.reason().contains("no socket of 127.0.0.1:"), "{verdict:?}");
    for port in &all {
        wait::eventually("the port to close", LIMIT, || refused(local(*port)))?;
    }
    site.add(1, &listens[..5])?;
    site.serves(local(all[0]), 1)?;
    ensure!(site.proxy.workers() == site.workers, "workers were replaced");
    Ok(())
}

#[test]
fn a_reload_changes_what_updates_cannot() -> Result<()> {
    let mut site = Site::start()?;
    let port = ports::free()?;
    site.add(1, &[&format!("127.0.0.1:{port}")])?;
    let comers = Comers::start(local(port), 4, true)?;
    // The kernel would refuse to bind each of these beside the one before it.
    for listen in [format!("127.0.0.1:{port} reuseport"), format!("{port}"), format!("127.0.0.1:{port}")] {
        let before = site.proxy.workers();
        site.proxy.prefix.write(&file_of(1), &vhost(1, &[&listen]))?;
        site.proxy.signal(Signal::SIGHUP)?;
        wait::until("the reload", LIMIT, || {
            site.proxy.workers().len() == 2 && site.proxy.workers().is_disjoint(&before)
        })?;
        comers.more()?;
        site.serves(local(port), 1).with_context(|| listen.clone())?;
    }
    comers.stop()?;
    let log = site.proxy.prefix.error_log();
    ensure!(!log.contains("[emerg]") && !log.contains("[alert]"), "{log}");
    refused(other(port))
}
