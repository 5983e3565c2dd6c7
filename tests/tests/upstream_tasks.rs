//! Tasks that change upstreams and no vhost: what the peers that stay have been through (health, turns, connections)
//! stays with them, and what goes ends in good order. The origins count their connections.

use std::fs;
use std::io::Read as _;

use anyhow::{Context, Result, ensure};
use dysvr_tests::client::Connection;
use dysvr_tests::node::Node;
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::{MainConf, Prefix};
use dysvr_tests::proxy::{LIMIT, Proxy};
use dysvr_tests::task::{Kind, Verdict};
use dysvr_tests::verify::{done, verify};
use dysvr_tests::{ports, wait};

const VHOST: &str = "auto_vhost/a.conf";
const UPSTREAM: &str = "auto_upstream/u.conf";
const HOST: &str = "a.example";

/// The vhost keeps its upstream in a file of its own, as the seed's does.
fn vhost(port: u16) -> String {
    format!(
        "include {UPSTREAM};\nserver {{\n    vsvc_id 1;\n    listen 127.0.0.1:{port};\n    server_name {HOST};\n    \
         add_header X-Tries $upstream_addr always;\n    location / {{\n        proxy_pass http://u;\n        \
         proxy_http_version 1.1;\n        proxy_set_header Connection \"\";\n    }}\n}}\n"
    )
}

fn write(prefix: &Prefix, servers: &[String]) -> Result<()> {
    let servers: String = servers.iter().map(|server| format!("    server {server};\n")).collect();
    prefix.write(UPSTREAM, &format!("upstream u {{\n{servers}    keepalive 8;\n}}\n"))
}

/// A proxy of one worker, whose turns are known, with the vhost.
fn start(servers: &[String]) -> Result<Proxy> {
    let proxy = Proxy::start(&MainConf { workers: 1, ..MainConf::default() })?;
    write(&proxy.prefix, servers)?;
    proxy.prefix.write(VHOST, &vhost(proxy.prefix.port))?;
    done(&proxy, &proxy.task(Kind::Add, &[VHOST], &[1], &["u"], 1)?)?;
    Ok(proxy)
}

/// The upstream alone becomes what its file says.
fn update(proxy: &Proxy, servers: &[String], task_id: u64) -> Result<()> {
    write(&proxy.prefix, servers)?;
    done(proxy, &proxy.task(Kind::Modify, &[UPSTREAM], &[], &["u"], task_id)?)
}

/// The peers that each of so many requests has tried, one after the other on one connection.
fn tries(connection: &mut Connection, count: usize) -> Result<Vec<String>> {
    let one = |_| -> Result<String> {
        let reply = connection.get(HOST, "/")?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(reply.head.header("x-tries").context("no X-Tries")?.to_owned())
    };
    (0..count).map(one).collect()
}

fn with(tries: &[String], peer: &str) -> usize {
    tries.iter().filter(|tries| tries.contains(peer)).count()
}

#[test]
fn peers_that_stay_keep_their_connections_and_those_of_a_removed_one_are_closed() -> Result<()> {
    let (one, two, three) = (Origin::start("one")?, Origin::start("two")?, Origin::start("three")?);
    let addr = |origin: &Origin| origin.addr.to_string();
    let proxy = start(&[addr(&one), addr(&two)])?;
    let mut client = Connection::open(proxy.prefix.addr())?;
    tries(&mut client, 4)?;
    ensure!((one.connections(), two.connections()) == (1, 1), "{} {}", one.connections(), two.connections());

    // Another weight, and another peer.
    update(&proxy, &[format!("{} weight=3", addr(&one)), addr(&two), addr(&three)], 2)?;
    let tried = tries(&mut client, 10)?;
    let shares = (with(&tried, &addr(&one)), with(&tried, &addr(&two)), with(&tried, &addr(&three)));
    ensure!(shares == (6, 2, 2), "{tried:?}");
    ensure!((one.connections(), two.connections()) == (1, 1), "{} {}", one.connections(), two.connections());

    // One that is marked down gets nothing, and comes back to its old connection.
    update(&proxy, &[addr(&one), format!("{} down", addr(&two)), addr(&three)], 3)?;
    ensure!(with(&tries(&mut client, 6)?, &addr(&two)) == 0);
    update(&proxy, &[addr(&one), addr(&two), addr(&three)], 4)?;
    ensure!(with(&tries(&mut client, 6)?, &addr(&two)) == 2);
    ensure!((one.connections(), two.connections()) == (1, 1), "{} {}", one.connections(), two.connections());

    // A running request outlives its peer; what waits is closed at once.
    let mut slow = Connection::open(proxy.prefix.addr())?;
    let mut dripping = loop {
        slow.send("GET", "/drip?count=200&every_ms=10", &[("Host", HOST)], b"")?;
        let head = slow.head()?;
        if head.header("x-origin") == Some("two") {
            break slow;
        }
        slow = Connection::open(proxy.prefix.addr())?;
    };
    update(&proxy, &[addr(&one), addr(&three)], 5)?;
    ensure!(with(&tries(&mut client, 6)?, &addr(&two)) == 0);
    let mut body = Vec::new();
    let mut piece = [0; 4096];
    while !body.ends_with(b"0\r\n\r\n") {
        let read = dripping.stream().read(&mut piece)?;
        ensure!(read > 0, "the answer was cut: {:?}", String::from_utf8_lossy(&body));
        body.extend_from_slice(&piece[..read]);
    }
    ensure!(String::from_utf8_lossy(&body).contains("drop 199\n"));
    wait::until("the removed peer's connections to close", LIMIT, || two.open() == 0)?;
    Ok(())
}

#[test]
fn what_a_peer_has_failed_stays_with_it() -> Result<()> {
    let one = Origin::start("one")?;
    let (good, dead) = (one.addr.to_string(), format!("127.0.0.1:{}", ports::free()?));
    let failing = |weight: u32| format!("{dead} weight={weight} max_fails=2 fail_timeout=600s");
    let proxy = start(&[good.clone(), failing(1)])?;
    let mut client = Connection::open(proxy.prefix.addr())?;
    ensure!(with(&tries(&mut client, 2)?, &dead) == 1, "it is tried once");
    update(&proxy, &[format!("{good} weight=2"), failing(2)], 2)?;
    let tried = tries(&mut client, 10)?;
    ensure!(with(&tried, &dead) == 1, "one failure more and it is marked: {tried:?}");
    // Marked it stays, whatever else becomes of it and the others.
    for (task_id, weight) in [(3, 1), (4, 9)] {
        update(&proxy, &[good.clone(), format!("{good} backup"), failing(weight)], task_id)?;
        let tried = tries(&mut client, 10)?;
        ensure!(with(&tried, &dead) == 0, "{tried:?}");
    }
    ensure!(one.connections() <= 2, "{}", one.connections());
    Ok(())
}

#[test]
fn upstreams_alone_are_added_and_deleted_and_refused_for_their_reasons() -> Result<()> {
    let one = Origin::start("one")?;
    let http = "    include shared/*.conf;\n".to_owned();
    let proxy = Proxy::start(&MainConf { workers: 1, http, ..MainConf::default() })?;
    let prefix = &proxy.prefix;
    fs::create_dir(prefix.conf("shared"))?;
    let text = format!("upstream U {{ server {}; }}\n", one.addr);
    prefix.write("shared/u.conf", &text)?;
    prefix.write("elsewhere.conf", &text)?;
    let refused = |verdict: Verdict, reason: &str| -> Result<()> {
        let said = verdict.line.reason();
        ensure!(!verdict.done && said.contains(reason), "{said:?} instead of {reason:?}");
        Ok(())
    };
    let lost = "is reached by no include of nginx.conf: it would be lost at the next start";
    refused(proxy.task(Kind::Add, &["elsewhere.conf"], &[], &["U"], 1)?, lost)?;
    done(&proxy, &proxy.task(Kind::Add, &["shared/u.conf"], &[], &["U"], 2)?)?;
    refused(proxy.task(Kind::Modify, &["elsewhere.conf"], &[], &["U"], 3)?, lost)?;
    refused(proxy.task(Kind::Add, &["shared/u.conf"], &[], &["U"], 4)?, "duplicate upstream \"U\"")?;
    refused(proxy.task(Kind::Modify, &["shared/u.conf"], &[], &[], 5)?, "neither vsvc_ids nor ups_ids")?;
    refused(proxy.task(Kind::Delete, &[], &[], &["absent"], 6)?, "no upstream is named \"absent\"")?;

    // Names have no case.
    let port = prefix.port;
    let user = format!(
        "server {{ vsvc_id 7; listen 127.0.0.1:{port}; server_name {HOST}; location / {{ proxy_pass http://u; }} }}\n"
    );
    prefix.write(VHOST, &user)?;
    done(&proxy, &proxy.task(Kind::Add, &[VHOST], &[7], &[], 7)?)?;
    ensure!(proxy.ask_every_worker(HOST, "/")?.iter().all(|reply| reply.text().contains("origin one")));
    refused(proxy.task(Kind::Delete, &[], &[], &["u"], 8)?, "upstream \"u\" is still used by 1 other vhost(s)")?;
    fs::remove_file(prefix.conf(VHOST))?;
    fs::remove_file(prefix.conf("shared/u.conf"))?;
    done(&proxy, &proxy.task(Kind::Delete, &[], &[7], &["u"], 9)?)?;

    // What vhosts pass to a host of that name would go to the upstream after the next start.
    let by_host = user.replace("http://u;", &format!("http://localhost:{};", one.addr.port()));
    prefix.write(VHOST, &by_host)?;
    done(&proxy, &proxy.task(Kind::Add, &[VHOST], &[7], &[], 10)?)?;
    prefix.write("shared/u.conf", &text.replace("upstream U", "upstream LocalHost"))?;
    let takes_over = "needs a reload: 1 other vhost(s) pass to the host \"localhost\", which becomes an upstream";
    refused(proxy.task(Kind::Add, &["shared/u.conf"], &[], &["LocalHost"], 11)?, takes_over)
}

#[test]
fn the_agent_changes_upstreams_without_their_vhosts() -> Result<()> {
    let (one, two) = (Origin::start("one")?, Origin::start("two")?);
    let node = Node::start("n1", &[], None, &MainConf { workers: 1, ..MainConf::default() }, &[])?;
    let prefix = &node.prefix;
    write(prefix, &[one.addr.to_string()])?;
    prefix.write(VHOST, &vhost(prefix.port))?;
    let task = |verb: &str, file: &str| -> Result<()> {
        let output = node.task(&[verb, &prefix.conf(file).display().to_string()])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        verify(&node).map(drop)
    };
    task("add", VHOST)?;
    let mut client = Connection::open(prefix.addr())?;
    tries(&mut client, 2)?;
    write(prefix, &[one.addr.to_string(), two.addr.to_string()])?;
    task("modify", UPSTREAM)?;
    let lines = prefix.task_file().lines();
    let fields = &lines[0].fields;
    ensure!(fields["ups_ids"] == "u" && !fields.contains_key("vsvc_ids"), "{lines:?}");
    ensure!(fields["status"] == "D" && fields["mode"] == "in_place", "{lines:?}");
    let tried = tries(&mut client, 4)?;
    ensure!(with(&tried, &two.addr.to_string()) == 2, "{tried:?}");
    ensure!(one.connections() == 1, "{}", one.connections());
    Ok(())
}
