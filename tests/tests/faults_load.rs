//! Vhosts that are poison to whoever reads them: too many, too deep, too long, endless. Each is refused before anything
//! has changed, within a bound, while everybody else is served; and expressions that never end are cut off when they run.

use std::ffi::CString;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dysvr_tests::client;
use dysvr_tests::load::Load;
use dysvr_tests::poison::Rig;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::task::{Kind, Line};

/// Far above what any of these takes, far below forever.
const BOUND: Duration = Duration::from_secs(300);

#[test]
fn no_vhost_is_too_much_to_read() -> Result<()> {
    // Nobody is to be replaced for being slow on a busy machine.
    let patient = "dysvr_task_timeout 100s; dysvr_watchdog 100s;";
    // What takes more memory than this ends who reads it, and the test with it.
    let rig = Rig::start_by(&MainConf { http: patient.into(), ..MainConf::default() }, |binary| {
        let mut command = std::process::Command::new("prlimit");
        command.arg("--as=4000000000").arg(binary);
        command
    })?;
    let prefix = &rig.proxy.prefix;
    let workers = rig.proxy.workers();
    let server = |inner: &str| format!("server {{ vsvc_id 2; listen 127.0.0.1:{}; {inner} }}\n", prefix.port);
    let many = |count: usize, what: &dyn Fn(usize) -> String| (0..count).map(what).collect::<String>();
    let fifo = prefix.path().join("fifo");
    let name = CString::new(fifo.to_str().context("no text")?)?;
    nix::unistd::mkfifo(name.as_c_str(), nix::sys::stat::Mode::S_IRWXU)?;
    let me = prefix.conf("auto_vhost/2.conf").display().to_string();
    let load = Load::start(prefix.addr(), 4, &["good.example"], "/bytes?n=64")?;
    // Most of a reason; `None`: it is fine, or too large for the zone.
    let table: Vec<(&str, String, Option<&str>)> = vec![
        ("100,000 locations", server(&many(100_000, &|n| format!("location /l{n} {{ return 204; }}\n"))), None),
        ("100,000 expressions", server(&many(100_000, &|n| format!("location ~ ^/l{n}$ {{ return 204; }}\n"))), None),
        ("deep nesting", server(&("location /a { ".repeat(100_000) + &"}".repeat(100_000))), Some("nested too deeply")),
        ("deep nesting that never ends", server(&"if ($a) { ".repeat(100_000)), Some("nested too deeply")),
        ("a name of a megabyte", server(&format!("server_name {}.example;", "x".repeat(1 << 20))), Some("too long")),
        (
            "100,000 names",
            server(&format!("server_name {};", many(100_000, &|n| format!("n{n}.x ")))),
            Some("too many names"),
        ),
        ("30,000 names", server(&format!("server_name {};", many(30_000, &|n| format!("n{n}.x ")))), None),
        (
            "an expression that explodes",
            server(r#"location ~ "(((((a{1,900}){1,900}){1,900}){1,900}){1,900})" { }"#),
            Some("pcre2_compile() failed"),
        ),
        ("unclosed groups", server(&format!("location ~ {} {{ }}", "(".repeat(3000))), Some("pcre2_compile() failed")),
        ("itself", server(&format!("include {me};")), Some("")),
        ("a FIFO", server(&format!("include {}; server_name fifo.example; return 204;", fifo.display())), None),
        ("a log that nobody reads", server(&format!("access_log {};", fifo.display())), Some("open()")),
        ("a device without end", server("include /dev/zero;"), Some("")),
        ("zeroes", "\0".repeat(1 << 20), Some("")),
        ("variables in a circle", server("set $a $b; set $b $a; return 200 $a;"), None),
    ];
    for (what, text, reason) in &table {
        prefix.write("auto_vhost/2.conf", text)?;
        run(&rig, what, *reason)?;
    }
    // A file of a hundred megabytes that takes no room on the disk.
    fs::File::create(prefix.conf("auto_vhost/2.conf"))?.set_len(100 << 20)?;
    run(&rig, "100 MB", Some(""))?;
    fs::remove_file(prefix.conf("auto_vhost/2.conf"))?;
    let report = load.stop()?;
    ensure!(report.failures.is_empty(), "{:?}", report.failures);
    ensure!(rig.proxy.workers() == workers, "workers were replaced: {}", rig.proxy.prefix.error_log());
    rig.done(Kind::Add, 3, "after.example", "")?;
    rig.everywhere("after.example", 200)
}

/// Adds `auto_vhost/2.conf`: with a reason it must be refused, without one it may, as long as it is one or the other.
fn run(rig: &Rig, what: &str, reason: Option<&str>) -> Result<()> {
    let prefix = &rig.proxy.prefix;
    let task = rig.next_task();
    let file = prefix.task_file();
    let conf = file.path.with_file_name(format!("dysvr_{task}.conf"));
    fs::write(&conf, format!("include {};\n", prefix.conf("auto_vhost/2.conf").display()))?;
    let mut watch = file.watch()?;
    file.write(&(Line::text(Kind::Add, &conf, &[2], &[], task) + "\n"))?;
    dysvr_tests::signal::send_dysvr(rig.proxy.master())?;
    let began = std::time::Instant::now();
    let verdict = watch.verdict(task, BOUND).with_context(|| what.to_owned())?;
    let said = verdict.line.reason();
    let short: String = said.chars().take(200).collect();
    println!("{what}: {} after {:?}: {short}", if verdict.done { "D" } else { "F" }, began.elapsed());
    if let Some(reason) = reason {
        ensure!(!verdict.done && said.contains(reason), "{what}: {short}");
    }
    if verdict.done {
        let verdict = rig.proxy.task(Kind::Delete, &[], &[2], &[], rig.next_task())?;
        ensure!(verdict.done, "{what}: {verdict:?}");
    }
    ensure!(rig.get("good.example")?.status == 200, "{what}");
    Ok(())
}

#[test]
fn an_expression_that_never_ends_is_cut_off_when_it_runs() -> Result<()> {
    let rig = Rig::start(&MainConf::default())?;
    let workers = rig.proxy.workers();
    let port = rig.proxy.prefix.port;
    let places = [
        ("location.example", "location ~ ^/(a+)+$ { return 204; }", 500),
        ("if.example", "location / { if ($uri ~ ^/(a+)+$) { return 204; } return 200; }", 500),
        ("rewrite.example", "location / { rewrite ^/(a+)+$ /b; return 200; }", 500),
    ];
    for ((host, inner, _), id) in places.iter().zip(2..) {
        let text = format!("server {{ vsvc_id {id}; listen 127.0.0.1:{port}; server_name {host}; {inner} }}\n");
        let file = format!("auto_vhost/{id}.conf");
        rig.proxy.prefix.write(&file, &text)?;
        ensure!(rig.proxy.task(Kind::Add, &[&file], &[id], &[], rig.next_task())?.done);
    }
    let bomb = format!("/{}!", "a".repeat(60));
    for (host, _, status) in places {
        let began = std::time::Instant::now();
        let reply = client::get(rig.proxy.prefix.addr(), host, &bomb)?;
        println!("{host}: {} after {:?}", reply.status, began.elapsed());
        ensure!(reply.status == status, "{host}: {reply:?}");
        ensure!(client::get(rig.proxy.prefix.addr(), host, "/aaaa")?.status < 300, "{host}");
    }
    rig.proxy.wait_log("match limit")?;
    ensure!(rig.proxy.workers() == workers, "workers were replaced");
    Ok(())
}
