//! TLS at its edges, nginx beside it where it says what is right: which of several certificates a client gets, whether its
//! session goes on after the key of tickets has changed, ports that turn from plain to TLS and back under their clients,
//! and handshakes that get stuck.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dysvr_tests::bench::installed;
use dysvr_tests::client::{self, Connection};
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::{MainConf, Prefix};
use dysvr_tests::proxy::{self, LIMIT, Proxy};
use dysvr_tests::task::Kind;
use dysvr_tests::tls::{Client, Pair};
use dysvr_tests::verify::done;
use dysvr_tests::{ports, procfs, wait};
use nix::sys::signal::Signal;
use rustls::SignatureScheme as Scheme;
use rustls::version::{TLS12, TLS13};

/// What is ours by default, and newer nginx's.
const BOTH: &str = "ssl_protocols TLSv1.2 TLSv1.3;";

/// nginx and ours, with the name of each.
fn programs() -> Result<[(PathBuf, bool); 2]> {
    Ok([(installed("nginx")?, false), (proxy::dysvr_binary()?, true)])
}

/// A proxy of one worker with these files, on a port of TLS.
fn start(binary: &Path, ours: bool, files: impl Fn(&Prefix, SocketAddr) -> Result<()>) -> Result<(Proxy, SocketAddr)> {
    let prefix = Prefix::new(&MainConf { workers: 1, ours, ..MainConf::default() })?;
    let addr: SocketAddr = (Ipv4Addr::LOCALHOST, ports::free()?).into();
    files(&prefix, addr)?;
    let proxy = Proxy::start_from(binary, prefix)?;
    wait::until("a worker", LIMIT, || proxy.workers().len() == 1)?;
    Ok((proxy, addr))
}

/// Signals a reload and waits until the worker is another one.
fn reload(proxy: &Proxy) -> Result<()> {
    let before = proxy.workers();
    proxy.signal(Signal::SIGHUP)?;
    wait::until("the reload", LIMIT, || proxy.workers().len() == 1 && proxy.workers().is_disjoint(&before))
}

fn vhost(id: u64, listen: &str, name: &str, rest: &str) -> String {
    format!("server {{\n    vsvc_id {id};\n    listen {listen};\n    server_name {name};\n    {rest}\n}}\n")
}

/// For nginx, which does not know ours.
fn written_for(ours: bool, text: &str) -> String {
    let ours_alone = |line: &&str| line.trim_start().starts_with("vsvc_id");
    text.lines().filter(|line| ours || !ours_alone(line)).map(|line| format!("{line}\n")).collect()
}

fn pair(name: &str) -> String {
    format!("ssl_certificate certs/{name}.pem; ssl_certificate_key certs/{name}.key;")
}

#[test]
fn the_client_s_signatures_pick_between_rsa_and_ecdsa() -> Result<()> {
    let (rsa, ecdsa) = (Pair::rsa("a.example")?, Pair::new("a.example")?);
    const PSS: Scheme = Scheme::RSA_PSS_SHA256;
    const PKCS1: Scheme = Scheme::RSA_PKCS1_SHA256;
    const P256: Scheme = Scheme::ECDSA_NISTP256_SHA256;
    let mut clients = Vec::new();
    for version in [&TLS12, &TLS13] {
        for schemes in [&[PSS][..], &[PKCS1], &[P256], &[P256, PSS], &[PSS, P256], &[PKCS1, P256]] {
            let client = Client::asking_for(&[version], schemes)?;
            clients.push((format!("{:?} {schemes:?}", version.version), client));
        }
        for takes in ["ECDSA", "RSA"] {
            clients.push((
                format!("{:?} {takes}", version.version),
                Client::with(&[version], |name| name.starts_with("TLS13") || name.contains(takes))?,
            ));
        }
    }
    let mut said = Vec::new();
    for (binary, ours) in programs()? {
        let (_proxy, addr) = start(&binary, ours, |prefix, addr| {
            rsa.write(prefix, "rsa")?;
            ecdsa.write(prefix, "ecdsa")?;
            let rest = format!("{BOTH} {} {} return 200;", pair("rsa"), pair("ecdsa"));
            prefix.write("auto_vhost/1.conf", &written_for(ours, &vhost(1, &format!("{addr} ssl"), "a.example", &rest)))
        })?;
        let shown = |client: &Client| match client.connect(addr, "a.example") {
            Ok(session) if session.certificate() == rsa.der => "RSA",
            Ok(session) if session.certificate() == ecdsa.der => "ECDSA",
            Ok(_) => "another one",
            Err(_) => "refused",
        };
        said.push(clients.iter().map(|(what, client)| format!("{what}: {}", shown(client))).collect::<Vec<_>>());
    }
    let differ: Vec<_> = said[0].iter().zip(&said[1]).filter(|(nginx, ours)| nginx != ours).collect();
    // In TLSv1.3 nginx follows the client's order; here ECDSA is preferred, unless the client names ciphers of TLSv1.2 and
    // none of those goes with it.
    let known = [
        (
            "TLSv1_3 [RSA_PSS_SHA256, ECDSA_NISTP256_SHA256]: RSA",
            "TLSv1_3 [RSA_PSS_SHA256, ECDSA_NISTP256_SHA256]: ECDSA",
        ),
        ("TLSv1_3 RSA: ECDSA", "TLSv1_3 RSA: RSA"),
    ];
    ensure!(
        differ.len() == known.len() && differ.iter().zip(known).all(|((n, o), known)| (&***n, &***o) == known),
        "nginx, ours: {differ:#?}"
    );
    for part in [": RSA", ": ECDSA", ": refused"] {
        ensure!(said[1].iter().any(|line| line.ends_with(part)), "{:#?}", said[1]);
    }
    Ok(())
}

#[test]
fn a_ticket_goes_on_as_long_as_its_key_is_there() -> Result<()> {
    let names = ["one", "two", "three"];
    let keys = |names: &[&str]| -> String {
        names.iter().map(|name| format!("ssl_session_ticket_key certs/{name}.tickets; ")).collect()
    };
    let write_key = |prefix: &Prefix, name: &str, byte: char| {
        prefix.write(&format!("certs/{name}.tickets"), &byte.to_string().repeat(80))
    };
    let text = |addr: SocketAddr, more: &str| vhost(1, &format!("{addr} ssl"), "a.example", more);
    // By a reload in nginx and in ours, by a task in ours alone.
    let [nginx, ours] = programs()?;
    for (program, (binary, ours), by_task) in
        [("nginx", &nginx, false), ("reload", &ours, false), ("task", &ours, true)]
    {
        let body = |names: &[&str]| format!("{BOTH} {} {}return 200 \"$ssl_session_reused\";", pair("a"), keys(names));
        let (proxy, addr) = start(binary, *ours, |prefix, addr| {
            Pair::made(prefix, "a")?;
            names.iter().zip('a'..).try_for_each(|(name, byte)| write_key(prefix, name, byte))?;
            prefix.write("auto_vhost/1.conf", &written_for(*ours, &text(addr, &body(&["one"]))))
        })?;
        for version in [&TLS12, &TLS13] {
            let mut task_id = if version.version == rustls::ProtocolVersion::TLSv1_2 { 10 } else { 20 };
            let mut set = |names: &[&str]| -> Result<()> {
                proxy.prefix.write("auto_vhost/1.conf", &written_for(*ours, &text(addr, &body(names))))?;
                if !by_task {
                    return reload(&proxy);
                }
                task_id += 1;
                done(&proxy, &proxy.task(Kind::Modify, &["auto_vhost/1.conf"], &[1], &[], task_id)?)
            };
            set(&["one"])?;
            let client = Client::with(&[version], |_| true)?;
            let resumes = |client: &Client| -> Result<bool> {
                let mut session = client.connect(addr, "a.example")?;
                // The ticket comes with the answer.
                let text = session.get("a.example", "/")?.text();
                ensure!((text == "r") == session.resumed(), "{text:?}");
                Ok(session.resumed())
            };
            let step = |what: &str| format!("{program} {:?}: {what}", version.version);
            ensure!(!resumes(&client)? && resumes(&client)?, step("the first ticket"));
            // A newer key before the old one: tickets of the old one go on, and are replaced.
            set(&["two", "one"])?;
            ensure!(resumes(&client)?, step("a ticket of the older key"));
            set(&["two"])?;
            ensure!(resumes(&client)?, step("its successor, of the newer key"));
            // Without it there is a full handshake.
            set(&["three"])?;
            ensure!(!resumes(&client)? && resumes(&client)?, step("a ticket of a key that is gone"));
            // Another key in the file of the same name.
            write_key(&proxy.prefix, "three", 'x')?;
            set(&["three"])?;
            ensure!(!resumes(&client)? && resumes(&client)?, step("a ticket of a key that was replaced"));
            write_key(&proxy.prefix, "three", 'c')?;
        }
    }
    Ok(())
}

#[test]
fn a_port_turns_to_tls_and_back_with_all_its_vhosts_in_one_task() -> Result<()> {
    let origin = Origin::start("one")?;
    let proxy = Proxy::start(&MainConf::default())?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    let workers = proxy.workers();
    let addr: SocketAddr = (Ipv4Addr::LOCALHOST, ports::free()?).into();
    let pairs = [Pair::made(&proxy.prefix, "a")?, Pair::made(&proxy.prefix, "b")?];
    let files = ["auto_vhost/a.conf", "auto_vhost/b.conf"];
    let text = |which: usize, tls: bool| {
        let name = ["a", "b"][which];
        let (listen, pair) = if tls { (format!("{addr} ssl"), pair(name)) } else { (addr.to_string(), String::new()) };
        let rest = format!(
            "add_header X-Worker $pid; add_header X-Scheme $scheme; {pair} location / {{ proxy_pass http://{}; }}",
            origin.addr
        );
        vhost(which as u64 + 1, &listen, &format!("{name}.example"), &rest)
    };
    let write = |tls: bool| (0..2).try_for_each(|which| proxy.prefix.write(files[which], &text(which, tls)));
    write(false)?;
    done(&proxy, &proxy.task(Kind::Add, &files, &[1, 2], &[], 1)?)?;
    let mut idle = client::pin_every_worker(addr, "a.example", &workers, LIMIT)?;
    let mut slow = Connection::open(addr)?;
    slow.send("GET", "/drip?count=100&every_ms=10", &[("Host", "b.example")], b"")?;
    ensure!(slow.head()?.header("x-scheme") == Some("http"));

    // One of them alone: both are named.
    proxy.prefix.write(files[1], &text(1, true))?;
    let verdict = proxy.task(Kind::Modify, &files[1..], &[2], &[], 2)?;
    let reason = verdict.line.reason();
    for part in ["\"b.example\" (vsvc_id 2)", "with \"ssl\"", "\"a.example\" (vsvc_id 1)", "without"] {
        ensure!(!verdict.done && reason.contains(part), "{part:?} is not in {reason:?}");
    }
    // Two that disagree in one task.
    let verdict = proxy.task(Kind::Modify, &files, &[1, 2], &[], 3)?;
    ensure!(!verdict.done && verdict.line.reason().contains("\"a.example\" (vsvc_id 1)"), "{verdict:?}");
    ensure!(
        idle.values_mut().all(|connection| connection.get("b.example", "/").is_ok_and(|reply| reply.status == 200))
    );

    write(true)?;
    done(&proxy, &proxy.task(Kind::Modify, &files, &[1, 2], &[], 4)?)?;
    for (pid, connection) in &mut idle {
        let read = connection.stream().read(&mut [0; 1]).with_context(|| format!("the connection to worker {pid}"))?;
        ensure!(read == 0, "worker {pid} says something");
    }
    let client = Client::new()?;
    for (pair, name) in pairs.iter().zip(["a.example", "b.example"]) {
        let mut session = client.connect(addr, name)?;
        let reply = session.get(name, "/")?;
        ensure!(session.certificate() == pair.der && reply.head.header("x-scheme") == Some("https"), "{reply:?}");
    }
    // What was under way ends as it began.
    let mut body = String::new();
    while !body.contains("drop 99\n") {
        let mut piece = [0; 4096];
        let read = slow.stream().read(&mut piece)?;
        ensure!(read > 0, "the answer was cut: {body:?}");
        body += &String::from_utf8_lossy(&piece[..read]);
    }

    let mut held = client.connect(addr, "a.example")?;
    ensure!(held.get("a.example", "/")?.status == 200);
    write(false)?;
    done(&proxy, &proxy.task(Kind::Modify, &files, &[1, 2], &[], 5)?)?;
    ensure!(held.get("a.example", "/").is_err(), "a connection of TLS outlives its port");
    let replies = client::ask_every_worker(addr, || workers.clone(), "b.example", "/", LIMIT)?;
    ensure!(replies.values().all(|reply| reply.head.header("x-scheme") == Some("http")), "{replies:?}");
    ensure!(proxy.workers() == workers, "workers were replaced");
    Ok(())
}

#[test]
fn handshakes_that_get_stuck_hold_nothing_up_and_leave_nothing() -> Result<()> {
    let (proxy, addr) = start(&proxy::dysvr_binary()?, true, |prefix, addr| {
        Pair::made(prefix, "a")?;
        let rest = format!("{} return 200 one;", pair("a"));
        prefix.write("auto_vhost/1.conf", &vhost(1, &format!("{addr} ssl"), "a.example", &rest))
    })?;
    let worker = *proxy.workers().first().context("no worker")?;
    let client = Client::new()?;
    ensure!(client.connect(addr, "a.example")?.get("a.example", "/")?.text() == "one");
    let before = procfs::descriptors(worker).context("no worker")?;
    let begin = |bytes: &[u8]| -> Result<TcpStream> {
        let mut stream = TcpStream::connect(addr)?;
        stream.write_all(bytes)?;
        Ok(stream)
    };
    // Silent, in the middle of a record's head, of its body; the record of an alert; and one that is no hello.
    let beginnings: [&[u8]; 5] = [
        b"",
        b"\x16\x03",
        b"\x16\x03\x01\x02\x00\x01",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x04\x00\x00\x00\x00",
    ];
    let mut stuck = Vec::new();
    // Three of five stay: some more than are waited for, since what was counted may have been on its way out.
    for _ in 0..25 {
        for beginning in beginnings {
            stuck.push(begin(beginning)?);
        }
    }
    wait::until("the worker to have taken them", LIMIT, || {
        procfs::descriptors(worker).is_some_and(|now| now >= before + 60)
    })?;
    // They are in nobody's way: requests, tasks.
    ensure!(client.connect(addr, "a.example")?.get("a.example", "/")?.text() == "one");
    let text = fs::read_to_string(proxy.prefix.conf("auto_vhost/1.conf"))?.replace("200 one", "200 two");
    proxy.prefix.write("auto_vhost/1.conf", &text)?;
    done(&proxy, &proxy.task(Kind::Modify, &["auto_vhost/1.conf"], &[1], &[], 1)?)?;
    ensure!(client.connect(addr, "a.example")?.get("a.example", "/")?.text() == "two");
    // And when they have gone nothing is left of them.
    drop(stuck);
    wait::eventually("the worker to let go of them", LIMIT, || match procfs::descriptors(worker) {
        Some(now) if now <= before => Ok(()),
        now => Err(format!("{now:?} descriptors instead of {before}")),
    })?;
    ensure!(proxy.workers().contains(&worker));
    Ok(())
}
