//! TLS with real handshakes: vhosts and certificates that come and change in place, who is picked by the name that a
//! client asks for, what is agreed on, sessions that go on in another worker, and what is refused.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use dysvr_tests::client::Connection;
use dysvr_tests::fleet::{Fleet, Store, items};
use dysvr_tests::node::Node;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::{LIMIT, Proxy};
use dysvr_tests::task::{Kind, Verdict};
use dysvr_tests::tls::{Client, Handshakes, Pair};
use dysvr_tests::verify::{done, verify};
use dysvr_tests::{ports, process, wait};
use rustls::version::{TLS12, TLS13};

/// A vhost that answers with its id, with the pair of its name.
fn vhost(id: u64, port: u16, names: &str, pair: &str, more: &str) -> String {
    format!(
        "server {{\n    vsvc_id {id};\n    listen 127.0.0.1:{port} ssl;\n    server_name {names};\n    \
         ssl_certificate certs/{pair}.pem;\n    ssl_certificate_key certs/{pair}.key;\n    {more}\n    \
         location / {{ return 200 \"{id} $scheme $https $ssl_protocol $ssl_cipher $ssl_server_name $ssl_session_reused\"; }}\n}}\n"
    )
}

fn start() -> Result<(Proxy, SocketAddr)> {
    let proxy = Proxy::start(&MainConf::default())?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    Ok((proxy, (Ipv4Addr::LOCALHOST, ports::free()?).into()))
}

/// Adds a vhost by a task of its id.
fn add(proxy: &Proxy, id: u64, text: &str) -> Result<Verdict> {
    let name = format!("auto_vhost/{id}.conf");
    proxy.prefix.write(&name, text)?;
    proxy.task(Kind::Add, &[&name], &[id], &[], id)
}

/// Asks on new connections until both workers have answered as wanted.
fn both_workers(proxy: &Proxy, addr: SocketAddr, client: &Client, name: &str, pair: &Pair, text: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    wait::eventually("an answer of every worker", LIMIT, || {
        for session in client.connect_many(addr, name, 8).map_err(|error| error.to_string())? {
            let mut session = session.map_err(|error| error.to_string())?;
            let reply = session.get(name, "/").map_err(|error| error.to_string())?;
            if session.certificate() != pair.der || !reply.text().starts_with(text) {
                return Err(format!(
                    "{:?} for {name}, another certificate: {}",
                    reply.text(),
                    session.certificate() != pair.der
                ));
            }
            seen.extend(reply.worker());
        }
        if seen.len() == proxy.workers().len() { Ok(()) } else { Err("not yet".into()) }
    })
    .with_context(|| process::tail(&proxy.prefix.error_log()))
}

#[test]
fn https_vhosts_come_and_go_in_place() -> Result<()> {
    let (proxy, addr) = start()?;
    let workers = proxy.workers();
    let (a, b) = (Pair::made(&proxy.prefix, "a")?, Pair::made(&proxy.prefix, "b")?);
    let client = Client::new()?;
    // On a new port, then on one that is there.
    done(&proxy, &add(&proxy, 1, &vhost(1, addr.port(), "a.example", "a", ""))?)?;
    both_workers(&proxy, addr, &client, "a.example", &a, "1 https on TLSv1.3 TLS_AES_256_GCM_SHA384 a.example")?;
    done(&proxy, &add(&proxy, 2, &vhost(2, addr.port(), "b.example", "b", ""))?)?;
    both_workers(&proxy, addr, &client, "b.example", &b, "2 https")?;
    let mut held = client.connect(addr, "b.example")?;
    ensure!(held.get("b.example", "/")?.text().starts_with("2 "));

    fs::remove_file(proxy.prefix.conf("auto_vhost/2.conf"))?;
    done(&proxy, &proxy.task(Kind::Delete, &[], &[2], &[], 3)?)?;
    // New handshakes get the default server, the old connection lives on.
    both_workers(&proxy, addr, &client, "b.example", &a, "1 ")?;
    ensure!(held.get("a.example", "/")?.text().starts_with("1 "), "the connection is not tied to its vhost");
    ensure!(held.certificate() == b.der);

    // Who does not say hello gets an answer that he understands.
    let reply = Connection::open(addr)?.get("a.example", "/")?;
    ensure!(reply.status == 400 && reply.text().contains("The plain HTTP request was sent to HTTPS port"), "{reply:?}");
    ensure!(proxy.workers() == workers, "workers were replaced");
    let log = proxy.prefix.error_log();
    ensure!(!log.contains("PRIVATE") && !log.contains(&a.key[40..80]), "a key in the log");
    Ok(())
}

#[test]
fn a_certificate_is_replaced_under_load() -> Result<()> {
    let (proxy, addr) = start()?;
    let old = Pair::made(&proxy.prefix, "a")?;
    done(&proxy, &add(&proxy, 1, &vhost(1, addr.port(), "a.example", "a", ""))?)?;
    let client = Client::new()?;
    let mut held = client.connect(addr, "a.example")?;
    ensure!(held.get("a.example", "/")?.status == 200);
    let load = Handshakes::start(addr, "a.example", 3)?;
    wait::until("handshakes", LIMIT, || load.seen(&old.der) > 10)?;

    let new = Pair::made(&proxy.prefix, "a")?;
    let verdict = proxy.task(Kind::Modify, &["auto_vhost/1.conf"], &[1], &[], 2)?;
    ensure!(verdict.done, "the task failed: {}", verdict.line.reason());
    // From D on everybody has the new one; a session of the old one is not gone on with.
    both_workers(&proxy, addr, &client, "a.example", &new, "1 ")?;
    wait::until("handshakes with the new certificate", LIMIT, || load.seen(&new.der) > 10)?;
    load.stop()?;
    // The look yields to everything else: not under the load.
    verify(&proxy)?;
    ensure!(held.get("a.example", "/")?.status == 200 && held.certificate() == old.der);
    Ok(())
}

#[test]
fn the_name_picks_the_vhost_as_host_does() -> Result<()> {
    let (proxy, addr) = start()?;
    let mut pairs = Vec::new();
    let names = ["default.example", "exact.example", "*.example", "www.*", "~^re[0-9]+\\.test$"];
    let mut text = String::new();
    for (id, names) in (1..).zip(names) {
        pairs.push(Pair::made(&proxy.prefix, &id.to_string())?);
        text += &vhost(id, addr.port(), names, &id.to_string(), "");
    }
    // One without a certificate has the default server's.
    text += &format!(
        "server {{ vsvc_id 9; listen 127.0.0.1:{} ssl; server_name bare.test; return 200 9; }}\n",
        addr.port()
    );
    proxy.prefix.write("auto_vhost/all.conf", &text)?;
    done(&proxy, &proxy.task(Kind::Add, &["auto_vhost/all.conf"], &[1, 2, 3, 4, 5, 9], &[], 1)?)?;
    let client = Client::new()?;
    for (name, certificate, vhost) in [
        ("exact.example", 2, "2 "),
        ("EXACT.example", 2, "2 "),
        ("other.example", 3, "3 "),
        ("a.b.example", 3, "3 "),
        ("www.foo", 4, "4 "),
        ("re7.test", 5, "5 "),
        ("nobody.test", 1, "1 "),
        ("bare.test", 1, "9"),
    ] {
        let mut session = client.connect(addr, name).with_context(|| name.to_owned())?;
        ensure!(session.certificate() == pairs[certificate - 1].der, "{name} gets another certificate");
        let text = session.get(name, "/")?.text();
        ensure!(text.starts_with(vhost), "{name} gets {text:?}");
    }
    let mut nameless = client.nameless().connect(addr, "exact.example")?;
    ensure!(nameless.certificate() == pairs[0].der);
    // A request goes to the vhost of its Host, whatever name the handshake had.
    ensure!(nameless.get("exact.example", "/")?.text().starts_with("2 "));
    Ok(())
}

#[test]
fn only_what_is_configured_is_agreed_on() -> Result<()> {
    let (proxy, addr) = start()?;
    Pair::made(&proxy.prefix, "a")?;
    let all = |_: &str| true;
    let chacha = |name: &str| name.contains("CHACHA20");
    let aes128 = |name: &str| name.contains("AES_128");
    type Takes<'t> = &'t dyn Fn(&str) -> bool;
    type Offer<'t> = (&'t [&'static rustls::SupportedProtocolVersion], Takes<'t>, Option<&'t str>);
    let rows: [(&str, &[Offer<'_>]); 4] = [
        (
            "",
            &[
                (&[&TLS13], &all, Some("TLSv1.3 TLS_AES_256_GCM_SHA384")),
                (&[&TLS12], &all, Some("TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384")),
                (&[&TLS12], &chacha, Some("TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305")),
            ],
        ),
        (
            "ssl_protocols TLSv1.2;",
            &[(&[&TLS13], &all, None), (&[&TLS12, &TLS13], &all, Some("TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384"))],
        ),
        (
            "ssl_protocols TLSv1.3;",
            &[(&[&TLS12], &all, None), (&[&TLS13], &aes128, Some("TLSv1.3 TLS_AES_128_GCM_SHA256"))],
        ),
        (
            "ssl_ciphers ECDHE+AES128:ECDHE+AES256; ssl_prefer_server_ciphers on;",
            &[(&[&TLS12], &all, Some("TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256")), (&[&TLS12], &chacha, None)],
        ),
    ];
    for (number, (more, clients)) in (1..).zip(rows) {
        let kind = if number == 1 { Kind::Add } else { Kind::Modify };
        proxy.prefix.write("auto_vhost/1.conf", &vhost(1, addr.port(), "a.example", "a", more))?;
        done(&proxy, &proxy.task(kind, &["auto_vhost/1.conf"], &[1], &[], number)?)?;
        for (versions, takes, agreed) in clients {
            let session = Client::with(versions, takes)?.connect(addr, "a.example");
            match agreed {
                Some(agreed) => {
                    let text = session.with_context(|| format!("{more} {agreed}"))?.get("a.example", "/")?.text();
                    ensure!(text.contains(agreed), "{more}: {text:?}, not {agreed:?}");
                }
                None => ensure!(session.is_err(), "{more}: agreed"),
            }
        }
    }
    wait::eventually("the failed handshakes in the log", LIMIT, || {
        let log = proxy.prefix.error_log();
        let text = "SSL_do_handshake() failed (SSL: peer is incompatible";
        if log.contains(text) && log.contains("while SSL handshaking, client: 127.0.0.1") {
            Ok(())
        } else {
            Err(process::tail(&log))
        }
    })
}

#[test]
fn a_session_goes_on_in_any_worker() -> Result<()> {
    let (proxy, addr) = start()?;
    Pair::made(&proxy.prefix, "a")?;
    done(&proxy, &add(&proxy, 1, &vhost(1, addr.port(), "a.example", "a", ""))?)?;
    for version in [&TLS12, &TLS13] {
        let client = Client::with(&[version], |_| true)?;
        let first = client.connect(addr, "a.example")?.get("a.example", "/")?;
        ensure!(first.text().ends_with(" ."), "{:?}", first.text());
        let mut workers = BTreeSet::from_iter(first.worker());
        wait::eventually("a session that goes on in the other worker", LIMIT, || {
            for session in client.connect_many(addr, "a.example", 8).map_err(|error| error.to_string())? {
                let mut session = session.map_err(|error| error.to_string())?;
                let reply = session.get("a.example", "/").map_err(|error| error.to_string())?;
                if !session.resumed() || !reply.text().ends_with(" r") {
                    return Err(format!("a full handshake: {:?}", reply.text()));
                }
                workers.extend(reply.worker());
            }
            if workers.len() == 2 { Ok(()) } else { Err("one worker so far".into()) }
        })?;
    }
    // Without tickets and cache nothing is gone on with.
    let more = "ssl_session_tickets off;";
    proxy.prefix.write("auto_vhost/1.conf", &vhost(1, addr.port(), "a.example", "a", more))?;
    done(&proxy, &proxy.task(Kind::Modify, &["auto_vhost/1.conf"], &[1], &[], 2)?)?;
    let client = Client::new()?;
    for _ in 0..4 {
        let mut session = client.connect(addr, "a.example")?;
        ensure!(session.get("a.example", "/")?.text().ends_with(" .") && !session.resumed());
    }
    Ok(())
}

#[test]
fn what_is_wrong_is_refused_and_changes_nothing() -> Result<()> {
    let (proxy, addr) = start()?;
    let a = Pair::made(&proxy.prefix, "a")?;
    Pair::made(&proxy.prefix, "other")?;
    proxy.prefix.write("certs/junk.pem", "junk\n")?;
    done(&proxy, &add(&proxy, 1, &vhost(1, addr.port(), "a.example", "a", ""))?)?;
    let port = addr.port();
    let plain = proxy.prefix.port;
    let pair =
        |certificate: &str, key: &str| format!("ssl_certificate certs/{certificate}; ssl_certificate_key certs/{key};");
    let server = |listen: &str, more: &str| {
        format!("server {{ vsvc_id 2; {listen} server_name b.example; {more} return 200 b; }}\n")
    };
    let tls = format!("listen 127.0.0.1:{port} ssl;");
    let new = format!("listen 127.0.0.1:{} ssl;", ports::free()?);
    for (number, (text, reason)) in (10..).zip([
        (server(&tls, &pair("absent.pem", "a.key")), "cannot load certificate \""),
        (server(&tls, &pair("junk.pem", "a.key")), "PEM_read_bio_X509_AUX() failed"),
        (server(&tls, &pair("a.pem", "junk.pem")), "PEM_read_bio_PrivateKey() failed"),
        (server(&tls, &pair("a.pem", "other.key")), "key values mismatch"),
        (server(&tls, "ssl_certificate certs/a.pem;"), "no \"ssl_certificate_key\" is defined for certificate"),
        (server(&new, ""), "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in"),
        (server(&tls, "ssl_protocols TLSv1.1;"), "\"TLSv1.1\" in \"ssl_protocols\" directive is not supported"),
        (server(&format!("listen 127.0.0.1:{port};"), ""), "vhost \"b.example\" (vsvc_id 2) listens on 127.0.0.1:"),
        (
            server(&format!("listen 127.0.0.1:{plain} ssl;"), &pair("a.pem", "a.key")),
            " with \"ssl\", vhost \"_\" without in ",
        ),
    ]) {
        proxy.prefix.write("auto_vhost/2.conf", &text)?;
        let verdict = proxy.task(Kind::Add, &["auto_vhost/2.conf"], &[2], &[], number)?;
        ensure!(!verdict.done && verdict.line.reason().contains(reason), "{text}: {:?}", verdict.line.reason());
        let tested = proxy.command_line(&["-t"])?;
        let said = String::from_utf8_lossy(&tested.stderr).into_owned();
        ensure!(!tested.status.success(), "{text}: a full load accepts it");
        ensure!(!said.contains("PRIVATE") && !verdict.line.reason().contains("PRIVATE"));
    }
    // The last vhost with a certificate is the default server: it must not leave those behind that have none.
    proxy.prefix.write("auto_vhost/2.conf", &server(&tls, ""))?;
    done(&proxy, &proxy.task(Kind::Add, &["auto_vhost/2.conf"], &[2], &[], 30)?)?;
    let verdict = proxy.task(Kind::Delete, &[], &[1], &[], 31)?;
    ensure!(!verdict.done && verdict.line.reason().contains("no \"ssl_certificate\" is defined"), "{:?}", verdict.line);
    both_workers(&proxy, addr, &Client::new()?, "a.example", &a, "1 ")?;

    // All vhosts of an address together may become plain.
    fs::remove_file(proxy.prefix.conf("auto_vhost/2.conf"))?;
    done(&proxy, &proxy.task(Kind::Delete, &[], &[2], &[], 32)?)?;
    let turned = format!("server {{ vsvc_id 1; listen 127.0.0.1:{port}; return 200 \"plain $scheme\"; }}\n");
    proxy.prefix.write("auto_vhost/1.conf", &turned)?;
    done(&proxy, &proxy.task(Kind::Modify, &["auto_vhost/1.conf"], &[1], &[], 33)?)?;
    let reply = Connection::open(addr)?.get("a.example", "/")?;
    ensure!(reply.text() == "plain http", "{reply:?}");
    Ok(())
}

#[test]
fn keys_are_not_dumped() -> Result<()> {
    let (proxy, addr) = start()?;
    let a = Pair::made(&proxy.prefix, "a")?;
    done(&proxy, &add(&proxy, 1, &vhost(1, addr.port(), "a.example", "a", ""))?)?;
    let dump = proxy.command_line(&["-T"])?;
    let text = String::from_utf8_lossy(&dump.stdout);
    ensure!(dump.status.success() && text.contains("ssl_certificate_key certs/a.key"));
    ensure!(!text.contains("PRIVATE") && !text.contains(&a.key[40..80]));
    Ok(())
}

#[test]
fn an_agent_replaces_a_certificate_alone() -> Result<()> {
    let node = Node::start("tls", &[], None, &MainConf::default(), &[])?;
    wait::until("two workers", LIMIT, || node.workers().len() == 2)?;
    let addr: SocketAddr = (Ipv4Addr::LOCALHOST, ports::free()?).into();
    let old = Pair::made(&node.prefix, "a")?;
    let workers = node.workers();
    for id in [1, 2] {
        let text = vhost(id, addr.port(), &format!("{id}.example"), "a", "");
        let path = node.prefix.path().join(format!("{id}.conf"));
        fs::write(&path, text)?;
        let added = node.task(&["add", &path.display().to_string()])?;
        ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    }
    let client = Client::new()?;
    let certificate = |name: &str| -> Result<Vec<u8>> { Ok(client.connect(addr, name)?.certificate().to_vec()) };
    ensure!(certificate("1.example")? == old.der && certificate("2.example")? == old.der);

    // Both halves at once, and nothing else: every vhost that names them is made anew.
    let new = Pair::new("a.example")?;
    new.write(&node.prefix, "a")?;
    let files = ["pem", "key"].map(|ending| node.prefix.conf(&format!("certs/a.{ending}")).display().to_string());
    let modified = node.task(&["modify", &files[0], &files[1]])?;
    ensure!(modified.status.success(), "{}", String::from_utf8_lossy(&modified.stderr));
    ensure!(certificate("1.example")? == new.der && certificate("2.example")? == new.der);
    ensure!(node.workers() == workers, "not in place");
    Ok(())
}

#[test]
fn a_controller_rolls_certificates_out() -> Result<()> {
    let fleet = Fleet::start(1, Store::Embedded, |_| ())?;
    let addr: SocketAddr = (Ipv4Addr::LOCALHOST, ports::free()?).into();
    let workers = fleet.nodes[0].workers();
    let files = fleet.files_arg();
    fs::create_dir_all(std::path::Path::new(&files).join("certs"))?;
    let (old, new) = (Pair::new("a.example")?, Pair::new("a.example")?);
    let run = |args: &[&str], code: i32| -> Result<String> {
        let said = fleet.ctl().run(args)?;
        let all = format!("{}{}", said.stdout, said.stderr);
        ensure!(said.code == Some(code), "{args:?} ended with {:?}: {all}", said.code);
        ensure!(!all.contains(&old.key[40..80]) && !all.contains(&new.key[40..80]), "a key is shown: {all}");
        Ok(all)
    };
    fleet.write("auto_vhost/a.conf", &vhost(1, addr.port(), "a.example", "a", ""))?;
    fleet.write("certs/a.pem", &old.certificate)?;
    fleet.write("certs/a.key", &new.key)?;
    for verb in ["validate", "apply"] {
        let said = run(&[verb, "-f", &files], 3)?;
        ensure!(said.contains("key values mismatch"), "{verb}: {said}");
    }
    fleet.write("certs/a.key", &old.key)?;
    run(&["apply", "-f", &files, "--wait"], 0)?;
    let client = Client::new()?;
    ensure!(client.connect(addr, "a.example")?.certificate() == old.der);
    let key = fleet.nodes[0].prefix.conf("certs/a.key");
    ensure!(fs::metadata(key)?.permissions().mode() & 0o777 == 0o600, "everybody may read the key");

    // The certificate alone: its vhosts are made anew in place.
    fleet.write("certs/a.pem", &new.certificate)?;
    fleet.write("certs/a.key", &new.key)?;
    run(&["diff", "-f", &files], 1)?;
    run(&["apply", "-f", &files, "--wait"], 0)?;
    ensure!(client.connect(addr, "a.example")?.certificate() == new.der);
    ensure!(fleet.nodes[0].workers() == workers, "not in place");
    for task in items(&fleet.ctl().json(&["get", "tasks"])?)? {
        ensure!(task["status"] == "D" && task["mode"] == "in_place", "{task}");
    }
    Ok(())
}
