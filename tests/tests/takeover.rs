//! A master is killed. Its workers serve on; a new master takes their listening sockets over, and they leave when its own
//! workers serve: nobody who connects or asks meanwhile notices.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dysvr_tests::client::{self, Connection};
use dysvr_tests::comers::Comers;
use dysvr_tests::http::{Framing, read_body, read_head};
use dysvr_tests::node::Node;
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::{LIMIT, Proxy};
use dysvr_tests::task::Kind;
use dysvr_tests::{ports, process, procfs, signal, wait};
use nix::sys::signal::Signal;

/// Ends what is left of a prefix when a test fails between two masters.
struct Leftovers(std::path::PathBuf);

impl Drop for Leftovers {
    fn drop(&mut self) {
        process::end_all(&procfs::with_argument(&self.0));
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn ask_unix(path: &Path) -> Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n")?;
    let mut input = BufReader::new(stream);
    let head = read_head(&mut input)?.context("no answer")?;
    Ok(String::from_utf8(read_body(&mut input, Framing::of_response(&head, "GET")?)?)?)
}

fn kill(master: i32) -> Result<()> {
    signal::send(master, Signal::SIGKILL)?;
    wait::until("the master to go", LIMIT, || !procfs::alive(master))
}

fn gone(workers: &BTreeSet<i32>) -> Result<()> {
    wait::until("the former workers to leave", LIMIT, || workers.iter().all(|pid| !procfs::alive(*pid)))
}

#[test]
fn a_new_master_takes_the_sockets_of_a_killed_one() -> Result<()> {
    let origin = Origin::start("slow")?;
    let mut proxy = Proxy::start(&MainConf::default())?;
    let _leftovers = Leftovers(proxy.prefix.path().to_owned());
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    let (plain, shared) = (ports::free()?, ports::free()?);
    let socket = proxy.prefix.path().join("here.sock");
    let vhost = format!(
        "server {{\n    vsvc_id 1;\n    listen 127.0.0.1:{plain};\n    listen 127.0.0.1:{shared} reuseport;\n    listen \
         unix:{};\n    location / {{ return 200 here; }}\n    location /drip {{\n        proxy_http_version 1.1;\n        \
         proxy_buffering off;\n        proxy_pass http://{};\n    }}\n}}\n",
        socket.display(),
        origin.addr
    );
    proxy.prefix.write("auto_vhost/1.conf", &vhost)?;
    let verdict = proxy.task(Kind::Add, &["auto_vhost/1.conf"], &[1], &[], 1)?;
    ensure!(verdict.done, "{verdict:?}");

    let mut clients = Vec::new();
    for port in [plain, shared] {
        clients.push(Comers::start(local(port), 2, false)?);
        clients.push(Comers::start(local(port), 4, true)?);
    }
    // Twice: the second master takes over from the first one's heir.
    for round in 0..2 {
        let (master, workers) = (proxy.master(), proxy.workers());
        let mut drip = Connection::open(local(plain))?;
        drip.send("GET", "/drip?count=100&every_ms=20", &[("Host", "any.example")], b"")?;
        let head = drip.head()?;
        kill(master)?;
        for comers in &clients {
            comers.more().context("without a master")?;
        }
        proxy.start_again()?;
        wait::until("two new workers", LIMIT, || proxy.workers().len() == 2)?;
        for comers in &clients {
            comers.more().context("with a new master")?;
        }
        let body = read_body(drip.stream(), Framing::of_response(&head, "GET")?)?;
        ensure!(body.ends_with(b"drop 99\n"), "the answer that was under way was cut in round {round}");
        gone(&workers)?;
        for port in [plain, shared] {
            let answers = client::ask_every_worker(local(port), || proxy.workers(), "any.example", "/", LIMIT)?;
            ensure!(answers.values().all(|reply| reply.text() == "here"), "{answers:?}");
        }
        ensure!(ask_unix(&socket)? == "here");
        for comers in &clients {
            comers.more().context("without the old workers")?;
        }
    }
    for comers in clients {
        comers.stop()?;
    }
    // What was taken over is closed like any other.
    fs::remove_file(proxy.prefix.conf("auto_vhost/1.conf"))?;
    let verdict = proxy.task(Kind::Delete, &[], &[1], &[], 2)?;
    ensure!(verdict.done, "{verdict:?}");
    ensure!(Connection::open(local(plain)).is_err() && Connection::open(local(shared)).is_err() && !socket.exists());
    let log = proxy.prefix.error_log();
    ensure!(!log.contains("[alert]") && !log.contains("[crit]") && !log.contains("[emerg]"), "{log}");
    Ok(())
}

#[test]
fn orphans_serve_on_when_the_new_master_cannot_start() -> Result<()> {
    let mut proxy = Proxy::start(&MainConf::default())?;
    let _leftovers = Leftovers(proxy.prefix.path().to_owned());
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    let (master, workers) = (proxy.master(), proxy.workers());
    kill(master)?;
    let taken = std::net::TcpListener::bind(local(ports::free()?))?;
    for (text, reason) in [
        ("server { listn 80; }".to_owned(), "unknown directive \"listn\""),
        (format!("server {{ listen {}; }}", taken.local_addr()?), "98: Address already in use"),
    ] {
        proxy.prefix.write("auto_vhost/bad.conf", &text)?;
        let output = proxy.command_line(&[])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && said.contains(reason), "{said}");
        ensure!(workers.iter().all(|pid| procfs::alive(*pid)), "workers have left");
        ensure!(client::get(proxy.prefix.addr(), "any.example", "/")?.status == 404);
    }
    fs::remove_file(proxy.prefix.conf("auto_vhost/bad.conf"))?;
    proxy.start_again()?;
    gone(&workers)?;
    ensure!(client::get(proxy.prefix.addr(), "any.example", "/")?.status == 404);
    Ok(())
}

#[test]
fn a_master_that_led_no_process_group_has_an_heir_too() -> Result<()> {
    let conf = MainConf::default();
    let prefix = dysvr_tests::prefix::Prefix::new(&conf)?;
    let _leftovers = Leftovers(prefix.path().to_owned());
    let binary = dysvr_tests::proxy::dysvr_binary()?;
    // As a script in the first process of a container does.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "\"$@\" & wait; sleep 60", "sh"]).arg(&binary).arg("-p").arg(prefix.path());
    let mut script = process::Process::start("script", &mut command, &prefix.path().join("logs"))?;
    let master = script.wait_for("two workers", LIMIT, || {
        let master = prefix.master_pid()?;
        ensure!(procfs::live_children(master).len() == 2, "master {master}");
        Ok(master)
    })?;
    ensure!(master != script.pid());
    let workers = procfs::live_children(master);
    client::ask_every_worker(prefix.addr(), || workers.clone(), "any.example", "/", LIMIT)?;
    kill(master)?;
    let proxy = Proxy::start_from(&binary, prefix)?;
    gone(&workers)?;
    let heirs = proxy.workers();
    ensure!(heirs.len() == 2 && heirs.is_disjoint(&workers));
    client::ask_every_worker(proxy.prefix.addr(), || heirs.clone(), "any.example", "/", LIMIT)?;
    Ok(())
}

#[test]
fn where_sockets_cannot_be_taken_the_old_workers_leave_first() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can be without the capability and have workers of another user");
        return Ok(());
    }
    let origin = Origin::start("slow")?;
    let mut proxy = Proxy::start(&MainConf::default())?;
    let _leftovers = Leftovers(proxy.prefix.path().to_owned());
    let port = ports::free()?;
    let vhost = format!(
        "server {{ vsvc_id 1; listen 127.0.0.1:{port}; location / {{ return 200 here; }} location /drip {{ \
         proxy_http_version 1.1; proxy_buffering off; proxy_pass http://{}; }} }}\n",
        origin.addr
    );
    proxy.prefix.write("auto_vhost/1.conf", &vhost)?;
    let verdict = proxy.task(Kind::Add, &["auto_vhost/1.conf"], &[1], &[], 1)?;
    ensure!(verdict.done, "{verdict:?}");
    let (master, workers) = (proxy.master(), proxy.workers());
    let mut drip = Connection::open(local(port))?;
    drip.send("GET", "/drip?count=100&every_ms=20", &[("Host", "any.example")], b"")?;
    let head = drip.head()?;
    kill(master)?;
    let mut command = std::process::Command::new("setpriv");
    command.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]).arg(proxy.binary());
    proxy.start_again_by(command)?;
    wait::until("two new workers", LIMIT, || proxy.workers().len() == 2)?;
    let answers = client::ask_every_worker(local(port), || proxy.workers(), "any.example", "/", LIMIT)?;
    ensure!(answers.values().all(|reply| reply.text() == "here"), "{answers:?}");
    let body = read_body(drip.stream(), Framing::of_response(&head, "GET")?)?;
    ensure!(body.ends_with(b"drop 99\n"), "the answer that was under way was cut");
    gone(&workers)?;
    let log = proxy.prefix.error_log();
    ensure!(log.contains("cannot be taken over (13: Permission denied)"), "{log}");
    Ok(())
}

#[test]
fn a_second_master_takes_nothing_from_a_living_one() -> Result<()> {
    let proxy = Proxy::start(&MainConf::default())?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    let (master, workers) = (proxy.master(), proxy.workers());
    let output = proxy.command_line(&[])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains("98: Address already in use"), "{said}");
    ensure!(proxy.master() == master && proxy.workers() == workers);
    Ok(())
}

#[test]
fn an_agent_starts_the_master_that_takes_over() -> Result<()> {
    let node = Node::start("alone", &[], None, &MainConf::default(), &[])?;
    let port = ports::free()?;
    let incoming = node.prefix.path().join("incoming");
    fs::create_dir_all(&incoming)?;
    let file = incoming.join("1.conf");
    fs::write(&file, format!("server {{ vsvc_id 1; listen 127.0.0.1:{port}; return 200 here; }}\n"))?;
    let added = node.task(&["add", &file.display().to_string()])?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let clients = [Comers::start(local(port), 2, false)?, Comers::start(local(port), 4, true)?];
    let (master, workers) = (node.prefix.master_pid()?, node.workers());
    kill(master)?;
    wait::eventually("another master", LIMIT, || -> Result<()> {
        let now = node.prefix.master_pid()?;
        ensure!(now != master && procfs::alive(now) && procfs::live_children(now).len() == 2, "master {now}");
        Ok(())
    })?;
    gone(&workers)?;
    for comers in &clients {
        comers.more()?;
    }
    for comers in clients {
        comers.stop()?;
    }
    Ok(())
}
