//! Two hundred in-place updates under a steady load: nobody who talks to the proxy may notice any of them.

use std::io::{BufRead, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use dysvr_tests::client::{self, Connection};
use dysvr_tests::load::Load;
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::{LIMIT, Proxy};
use dysvr_tests::task::Kind;
use dysvr_tests::verify::verify;
use dysvr_tests::wait;

/// How many updates.
const UPDATES: u64 = 200;

#[test]
fn two_hundred_updates_disturb_nobody() -> Result<()> {
    let origin = Origin::start("steady")?;
    let proxy = Proxy::start(&MainConf::default())?;
    let prefix = &proxy.prefix;
    let port = prefix.port;
    let vhost = |id: u64, name: &str| {
        format!(
            "upstream u{id} {{ server {}; keepalive 8; }}\nserver {{\n    vsvc_id {id};\n    listen 127.0.0.1:{port};\n    \
             server_name {name};\n    location / {{\n        proxy_http_version 1.1;\n        proxy_set_header Connection \
             \"\";\n        proxy_pass http://u{id};\n        \
             proxy_buffering off;\n    }}\n    location /live {{\n        proxy_http_version 1.1;\n        \
             proxy_set_header Upgrade $http_upgrade;\n        proxy_set_header Connection upgrade;\n        proxy_pass \
             http://u{id};\n    }}\n}}\n",
            origin.addr
        )
    };
    let mut task_id = 0;
    let mut run = |kind: Kind, files: &[&str], id: u64, ups: &[&str]| -> Result<()> {
        task_id += 1;
        let verdict = proxy.task(kind, files, &[id], ups, task_id)?;
        ensure!(verdict.done, "task {task_id} ({kind:?}) failed: {}", verdict.line.reason());
        verify(&proxy).map(drop)
    };
    // One vhost that is never touched, one that changes all the time; both are asked all the time.
    for (id, name) in [(1, "still.example"), (2, "moving.example")] {
        let file = format!("auto_vhost/{id}.conf");
        prefix.write(&file, &vhost(id, name))?;
        run(Kind::Add, &[&file], id, &[&format!("u{id}")])?;
    }
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    let workers = proxy.workers();

    let ending = Arc::new(AtomicBool::new(false));
    let upgraded = upgraded(prefix.addr(), "moving.example", &ending)?;
    let dripping = dripping(prefix.addr(), "moving.example", &ending)?;
    let load = Load::start(prefix.addr(), 50, &["still.example", "moving.example"], "/bytes?n=1024")?;
    let mut pinned = client::pin_every_worker(prefix.addr(), "still.example", &workers, LIMIT)?;

    // Add, modify and delete in turn, on a third vhost and on the one that is being asked.
    for round in 0..UPDATES / 4 {
        let file = "auto_vhost/3.conf";
        prefix.write(file, &vhost(3, "third.example"))?;
        run(Kind::Add, &[file], 3, &["u3"])?;
        prefix.write(file, &vhost(3, &format!("third.example r{round}.example")))?;
        run(Kind::Modify, &[file], 3, &["u3"])?;
        prefix.write("auto_vhost/2.conf", &vhost(2, &format!("moving.example m{round}.example")))?;
        run(Kind::Modify, &["auto_vhost/2.conf"], 2, &["u2"])?;
        for (pid, connection) in &mut pinned {
            for host in [format!("r{round}.example"), format!("m{round}.example")] {
                let reply = connection.get(&host, "/bytes?n=10").with_context(|| format!("worker {pid}"))?;
                ensure!(reply.status == 200, "worker {pid} does not serve {host} after D: {reply:?}");
            }
        }
        std::fs::remove_file(prefix.conf(file))?;
        run(Kind::Delete, &[], 3, &["u3"])?;
        for (pid, connection) in &mut pinned {
            let reply = connection.get("third.example", "/").with_context(|| format!("worker {pid}"))?;
            ensure!(reply.status == 404, "worker {pid} still serves what was deleted: {reply:?}");
        }
    }

    let report = load.stop()?;
    ensure!(report.failures.is_empty(), "{} of 50: {:#?}", report.failures.len(), report.failures);
    ensure!(report.requests > 50 * 10, "only {} requests: that is no load", report.requests);
    ending.store(true, Ordering::Relaxed);
    let echoed = upgraded.join().map_err(|_| anyhow!("the upgraded connection's thread panicked"))??;
    ensure!(echoed > 10, "only {echoed} lines came back");
    let drops = dripping.join().map_err(|_| anyhow!("the dripping answer's thread panicked"))??;
    ensure!(drops > 10, "only {drops} drops came");
    ensure!(proxy.workers() == workers, "{workers:?} have become {:?}", proxy.workers());
    let log = prefix.error_log();
    ensure!(!log.contains("[alert]") && !log.contains("[crit]"), "{log}");
    println!("{} requests, the longest {:?}, {echoed} lines, {drops} drops", report.requests, report.longest);
    Ok(())
}

/// A vhost and its upstream change together while the body of a request is still on its way.
#[test]
fn a_request_with_a_slow_body_goes_where_it_began() -> Result<()> {
    let (before, after) = (Origin::start("before")?, Origin::start("after")?);
    let proxy = Proxy::start(&MainConf { workers: 1, ..MainConf::default() })?;
    let prefix = &proxy.prefix;
    let port = prefix.port;
    let write = |revision: &str, origin: &Origin| {
        let text = format!(
            "upstream u {{ server {}; }}\nserver {{\n    vsvc_id 1;\n    listen 127.0.0.1:{port};\n    server_name \
             slow.example;\n    location / {{\n        add_header X-Rev {revision} always;\n        \
             proxy_set_header X-Rev {revision};\n        proxy_pass http://u;\n    }}\n}}\n",
            origin.addr
        );
        prefix.write("auto_vhost/slow.conf", &text)
    };
    write("before", &before)?;
    let added = proxy.task(Kind::Add, &["auto_vhost/slow.conf"], &[1], &["u"], 1)?;
    ensure!(added.done, "{}", added.line.reason());

    let mut slow = Connection::open(prefix.addr())?;
    slow.send("POST", "/", &[("Host", "slow.example"), ("Content-Length", "4"), ("Expect", "100-continue")], b"")?;
    // The proxy asks for the body once it has chosen the vhost.
    ensure!(slow.head()?.status()? == 100);
    write("after", &after)?;
    let modified = proxy.task(Kind::Modify, &["auto_vhost/slow.conf"], &[1], &["u"], 2)?;
    ensure!(modified.done, "{}", modified.line.reason());
    slow.stream().get_mut().write_all(b"body")?;
    let head = slow.head()?;
    let seen = (head.header("x-rev"), head.header("x-origin"));
    ensure!(seen == (Some("before"), Some("before")), "{head:?}");
    let next = client::get(prefix.addr(), "slow.example", "/")?;
    let seen = (next.head.header("x-rev"), next.head.header("x-origin"));
    ensure!(seen == (Some("after"), Some("after")), "{next:?}");
    Ok(())
}

type Counter = std::thread::JoinHandle<Result<u64>>;

/// An upgraded connection on which lines go to and fro until `ending`.
fn upgraded(addr: std::net::SocketAddr, host: &str, ending: &Arc<AtomicBool>) -> Result<Counter> {
    let mut connection = Connection::open(addr)?;
    connection.send("GET", "/live", &[("Host", host), ("Upgrade", "lines"), ("Connection", "Upgrade")], b"")?;
    let head = connection.head()?;
    ensure!(head.status()? == 101, "{head:?}");
    let ending = Arc::clone(ending);
    Ok(std::thread::spawn(move || {
        let mut count = 0_u64;
        let mut line = String::new();
        while !ending.load(Ordering::Relaxed) {
            let sent = format!("line {count}\n");
            let stream = connection.stream();
            stream.get_mut().write_all(sent.as_bytes()).context("the upgraded connection")?;
            line.clear();
            stream.read_line(&mut line).context("the upgraded connection")?;
            ensure!(line == sent, "line {count} came back as {line:?}");
            count += 1;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(count)
    }))
}

/// One long answer that drips until `ending`; it may not end before.
fn dripping(addr: std::net::SocketAddr, host: &str, ending: &Arc<AtomicBool>) -> Result<Counter> {
    let mut connection = Connection::open(addr)?;
    connection.send("GET", "/drip?count=1000000&every_ms=5", &[("Host", host)], b"")?;
    let head = connection.head()?;
    ensure!(head.status()? == 200, "{head:?}");
    let ending = Arc::clone(ending);
    Ok(std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut drops = 0;
        while !ending.load(Ordering::Relaxed) {
            let count = connection.stream().read(&mut buffer).context("the dripping answer")?;
            ensure!(count > 0, "the dripping answer ended");
            drops += buffer[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        Ok(drops)
    }))
}
