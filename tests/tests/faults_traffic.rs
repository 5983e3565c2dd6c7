//! Traffic under faults: old connections of vhosts that have changed, no descriptors, no memory, upstreams that misbehave.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dysvr_tests::client::{self, Connection};
use dysvr_tests::poison::Rig;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::LIMIT;
use dysvr_tests::task::Kind;
use dysvr_tests::{ports, procfs, wait};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn old_connections_finish_on_what_they_began_with_and_memory_returns() -> Result<()> {
    let (downloads, updates) = (number("DYSVR_DOWNLOADS", 100), number("DYSVR_UPDATES", 200));
    let rig = Rig::start(&MainConf::default())?;
    let addr = rig.proxy.prefix.addr();
    let header = |round: u64| format!("add_header X-Round {round};");
    rig.done(Kind::Add, 2, "moving.example", &header(0))?;
    let memory = || rig.proxy.workers().into_iter().filter_map(procfs::pss_kib).sum::<u64>();
    let mut open = Vec::new();
    let mut before = 0;
    for round in 1..=updates {
        if round * downloads / updates > (round - 1) * downloads / updates {
            let mut connection = Connection::open(addr)?;
            // It drips until the origin is gone, which is long after the last update.
            connection.send("GET", "/drip?count=60&every_ms=100", &[("Host", "moving.example")], b"")?;
            let head = connection.head()?;
            ensure!(head.header("x-round") == Some(&(round - 1).to_string()), "{head:?}");
            open.push(connection);
        }
        if round % 10 == 0 {
            rig.done(Kind::Delete, 2, "", "")?;
            ensure!(rig.get("moving.example")?.status == 404);
            rig.done(Kind::Add, 2, "moving.example", &header(round))?;
        } else {
            rig.done(Kind::Modify, 2, "moving.example", &header(round))?;
        }
        let reply = rig.get("moving.example")?;
        ensure!(reply.head.header("x-round") == Some(&round.to_string()), "{reply:?}");
        if round == updates / 10 {
            before = memory();
        }
    }
    let count = open.len();
    for (number, mut connection) in open.into_iter().enumerate() {
        let mut text = String::new();
        let stream = connection.stream();
        while !text.ends_with("0\r\n\r\n") && !text.contains("drop 59") {
            ensure!(stream.read_line(&mut text).with_context(|| format!("download {number}"))? > 0, "{number}: {text}");
        }
    }
    wait::eventually("memory to return", LIMIT, || -> Result<()> {
        let now = memory();
        // What a dripping answer holds is far more than this in sum; the allocator keeps a little.
        ensure!(now <= before + before / 2 + 8192, "{before} KiB have become {now}");
        Ok(())
    })?;
    println!("{count} downloads over {updates} updates; {before} KiB have become {}", memory());
    Ok(())
}

#[test]
fn out_of_descriptors_the_worker_waits_and_still_obeys() -> Result<()> {
    let conf = MainConf { workers: 1, main: "worker_rlimit_nofile 40;".into(), ..MainConf::default() };
    let rig = Rig::start(&conf)?;
    let worker = *rig.proxy.workers().first().context("no worker")?;
    let idle: Vec<Connection> =
        (0..100).map(|_| Connection::open(rig.proxy.prefix.addr())).collect::<Result<_, _>>()?;
    rig.proxy.wait_log("accept4() failed (24: Too many open files)")?;
    // Backing off is to wait: in two seconds of the clock it uses a fraction of one on the processor.
    let (began, used) = (Instant::now(), procfs::cpu_ns(worker).context("no worker")?);
    rig.done(Kind::Add, 2, "a.example", "")?;
    rig.done(Kind::Modify, 2, "a.example b.example", "")?;
    wait::until("two seconds", LIMIT, || began.elapsed() > Duration::from_secs(2))?;
    let used = procfs::cpu_ns(worker).context("no worker")? - used;
    ensure!(u128::from(used) < began.elapsed().as_nanos() / 4, "{used} ns in {:?}", began.elapsed());
    drop(idle);
    wait::eventually("room again", LIMIT, || -> Result<()> {
        let reply = client::get(rig.proxy.prefix.addr(), "b.example", "/")?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(())
    })?;
    ensure!(rig.proxy.workers().contains(&worker), "the worker was replaced");
    Ok(())
}

#[test]
fn a_vhost_that_eats_all_memory_is_quarantined_and_the_others_served() -> Result<()> {
    // 64 MiB a request, until the system says no.
    let rig = Rig::start_by(&MainConf { workers: 1, ..MainConf::default() }, |binary| {
        let mut command = Command::new("prlimit");
        command.arg("--as=1600000000").arg(binary);
        command
    })?;
    rig.done(Kind::Add, 2, "leak.example", "set $poison poison:leak;")?;
    wait::eventually("the quarantine", LIMIT * 3, || -> Result<()> {
        let reply = client::get(rig.proxy.prefix.addr(), "leak.example", "/")?;
        ensure!(reply.status == 503, "{}", reply.status);
        Ok(())
    })?;
    rig.proxy.wait_log("quarantine of vsvc_id=2")?;
    rig.all_workers()?;
    ensure!(rig.get("good.example")?.status == 200);
    rig.done(Kind::Modify, 2, "leak.example", "")?;
    rig.everywhere("leak.example", 200)
}

/// A peer that does one thing to every request; counts what it was asked.
fn peer(answer: &'static [u8], read: bool) -> Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if read {
                let mut head = BufReader::new(&stream);
                let mut line = String::new();
                while head.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                // What is left unread would make the close a reset, and the test a race.
                let left = head.buffer().len();
                drop(head.read_exact(&mut vec![0; left]));
                count.fetch_add(1, Ordering::SeqCst);
                drop(stream.write_all(answer));
            }
        }
    });
    Ok((addr, asked))
}

#[test]
fn misbehaving_upstreams_are_left_as_nginx_leaves_them() -> Result<()> {
    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood";
    let rig = Rig::start(&MainConf { workers: 1, ..MainConf::default() })?;
    let dead = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
    // What the first peer does; then for GET and POST: the status, and how often the second peer was asked.
    type Row = (&'static str, &'static [u8], bool, (u16, usize), (u16, usize));
    let table: [Row; 6] = [
        ("closes without an answer", b"", true, (200, 1), (502, 0)),
        // Not an error of the connection, so not one for the next peer (`error timeout`).
        ("answers garbage", b"what?\r\n\r\n", true, (502, 0), (502, 0)),
        ("closes in its head", b"HTTP/1.1 200 OK\r\nContent-Le", true, (200, 1), (502, 0)),
        ("closes in its body", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", true, (200, 0), (200, 0)),
        ("fails", b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", true, (500, 0), (500, 0)),
        ("is dead", b"", false, (200, 1), (200, 1)),
    ];
    for ((what, answer, read, get, post), id) in table.into_iter().zip(2_u64..) {
        for (method, (status, second_asked)) in [("GET", get), ("POST", post)] {
            let (bad, first) = peer(answer, true)?;
            let bad = if read { bad } else { dead };
            let (good, second) = peer(GOOD, true)?;
            let id = id * 10 + u64::from(method == "POST");
            let port = rig.proxy.prefix.port;
            let text = format!(
                "upstream t{id} {{ server {bad} max_fails=0; server {good} backup; }}\nserver {{ vsvc_id {id}; listen 127.0.0.1:{port}; \
                 server_name t{id}.example; location / {{ proxy_pass http://t{id}; }} }}\n"
            );
            let file = format!("auto_vhost/{id}.conf");
            rig.proxy.prefix.write(&file, &text)?;
            let verdict = rig.proxy.task(Kind::Add, &[&file], &[id], &[&format!("t{id}")], rig.next_task())?;
            ensure!(verdict.done, "{verdict:?}");
            let host = format!("t{id}.example");
            let mut connection = Connection::open(rig.proxy.prefix.addr())?;
            connection.send(method, "/", &[("Host", &host)], if method == "POST" { b"body" } else { b"" })?;
            let head = connection.head().with_context(|| format!("{what}, {method}"))?;
            ensure!(head.status()? == status, "{what}, {method}: {head:?}");
            if what == "closes in its body" {
                let mut rest = Vec::new();
                drop(connection.stream().read_to_end(&mut rest));
                ensure!(rest == b"half", "what the peer did not finish is not finished: {rest:?}");
            }
            let asked = (first.load(Ordering::SeqCst), second.load(Ordering::SeqCst));
            ensure!(asked == (usize::from(read), second_asked), "{what}, {method}: asked {asked:?}");
        }
    }
    Ok(())
}
