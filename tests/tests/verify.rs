//! The twin: what runs is compared with what the files would start; a difference is found, said with both sides, told on the
//! command line and healed; what is on its way is no difference; the child's death is no silence.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use dysvr_node::dysvr::verify::{Finding, Outcome, finding_file, metrics_file};
use dysvr_tests::fleet::{Fleet, Store, items};
use dysvr_tests::origin::Origin;
use dysvr_tests::poison::Rig;
use dysvr_tests::prefix::{MainConf, Prefix};
use dysvr_tests::proxy::{LIMIT, Proxy};
use dysvr_tests::task::Kind;
use dysvr_tests::verify::{look, verify};
use dysvr_tests::{binaries, process, procfs, wait};
use nix::sys::signal::Signal;

fn vhost(id: u64, port: u16, name: &str, origin: &Origin) -> String {
    format!(
        "upstream u{id} {{ server {}; }}\nserver {{\n    vsvc_id {id};\n    listen 127.0.0.1:{port};\n    \
         server_name {name};\n    location / {{ proxy_pass http://u{id}; }}\n}}\n",
        origin.addr
    )
}

/// A proxy with a vhost that came by a task.
fn start(http: &str) -> Result<(Proxy, Origin)> {
    let origin = Origin::start("one")?;
    let proxy = Proxy::start(&MainConf { http: http.into(), ..MainConf::default() })?;
    let prefix = &proxy.prefix;
    prefix.write("auto_vhost/a.conf", &vhost(1, prefix.port, "a.example", &origin))?;
    let verdict = proxy.task(Kind::Add, &["auto_vhost/a.conf"], &[1], &["u1"], 1)?;
    ensure!(verdict.done, "{}", verdict.line.reason());
    Ok((proxy, origin))
}

fn command(prefix: &Prefix) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binaries::path("dysvr-node")?);
    command.arg("verify").arg("--prefix").arg(prefix.path()).args(["--conf", "conf/nginx.conf"]);
    let done = process::run(&mut command, LIMIT * 6)?;
    Ok((done.status.code(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()))
}

fn found(prefix: &Prefix) -> Result<Finding> {
    let path = finding_file(&prefix.task_file().path);
    Ok(Finding::decode(&std::fs::read(&path).with_context(|| path.display().to_string())?)?)
}

#[test]
fn what_differs_is_found_and_both_sides_are_told() -> Result<()> {
    let (proxy, origin) = start("    dysvr_verify off;\n")?;
    let prefix = &proxy.prefix;
    let equal = verify(&proxy)?;
    ensure!((equal.vhosts, equal.upstreams, equal.listeners, equal.version) == (2, 1, 1, 1), "{equal:?}");
    ensure!(equal.twin == Some(equal.digest) && equal.master.cast_signed() == proxy.master(), "{equal:?}");
    let (code, text) = command(prefix)?;
    ensure!(code == Some(0) && text.starts_with("equal: "), "{code:?}: {text}");
    // A comment, blanks and another file for the same words are no difference.
    let comment = "# a comment\n\n".to_owned() + &vhost(1, prefix.port, "a.example", &origin).replace("    ", "\t");
    prefix.write("auto_vhost/a.conf", &comment)?;
    verify(&proxy)?;

    // By hand, behind the master's back: in a vhost, a vhost more, and outside all of them.
    prefix.write("auto_vhost/a.conf", &vhost(1, prefix.port, "a.example b.example", &origin))?;
    prefix.write("auto_vhost/c.conf", &vhost(3, prefix.port, "c.example", &origin))?;
    let conf = prefix.main_conf(&MainConf { http: "    dysvr_verify off;\n".into(), ..MainConf::default() });
    prefix.write("nginx.conf", &conf.replace("keepalive_timeout 600s", "keepalive_timeout 601s"))?;
    let (code, text) = command(prefix)?;
    ensure!(code == Some(1) && text.starts_with("different: "), "{code:?}: {text}");
    for part in [
        "outside vhosts and upstreams",
        "-    keepalive_timeout 600s;",
        "+    keepalive_timeout 601s;",
        "\nvhost 1\n",
        "+server_name b.example",
        "\nvhost 3\n- nothing\n",
        "upstream u3\n- nothing\n",
        "+name b.example: vhost 1",
        "+behind vhost 1: vhost 3",
    ] {
        ensure!(text.contains(part), "{part:?} is not in {text}");
    }
    let log = prefix.error_log();
    ensure!(log.contains("[alert]") && log.contains("verify: +    keepalive_timeout 601s;"), "{log}");
    let finding = found(prefix)?;
    ensure!(finding.outcome == Outcome::Different && finding.alerts == 1, "{finding:?}");
    let metrics = std::fs::read_to_string(metrics_file(&prefix.task_file().path))?;
    let differ = format!("dysvr_verify_differences {}", finding.differences);
    for line in ["dysvr_verify_outcome{outcome=\"different\"} 1", "dysvr_verify_alerts_total 1", &differ] {
        ensure!(metrics.lines().any(|other| other == line), "{line:?} is not in {metrics}");
    }
    // It stays, and is said once.
    ensure!(look(&proxy)?.alerts == 1);
    ensure!(prefix.error_log().matches("keepalive_timeout 601s").count() == 1);

    prefix.write("auto_vhost/c.conf", "server {")?;
    let (code, text) = command(prefix)?;
    ensure!(
        code == Some(1) && text.contains("would not start at all") && text.contains("c.conf:1"),
        "{code:?}: {text}"
    );
    ensure!(prefix.error_log().matches("[alert]").count() > 1);
    // And back.
    std::fs::remove_file(prefix.conf("auto_vhost/c.conf"))?;
    prefix.write("auto_vhost/a.conf", &comment)?;
    prefix.write("nginx.conf", &conf)?;
    verify(&proxy)?;
    ensure!(proxy.workers().len() == 2, "the twin is counted as a worker");
    Ok(())
}

#[test]
fn at_the_interval_a_difference_is_found_and_healed() -> Result<()> {
    let (proxy, origin) = start("    dysvr_verify 1s heal;\n")?;
    let prefix = &proxy.prefix;
    wait::eventually("a look", LIMIT * 3, || {
        let finding = found(prefix)?;
        ensure!(finding.outcome == Outcome::Equal && finding.asked.is_empty(), "{finding:?}");
        Ok(())
    })?;
    let before = proxy.workers();
    prefix.write("auto_vhost/b.conf", &vhost(2, prefix.port, "b.example", &origin))?;
    wait::eventually("the reload", LIMIT * 3, || {
        let reply = dysvr_tests::client::get(prefix.addr(), "b.example", "/")?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(())
    })?;
    wait::until("new workers alone", LIMIT, || proxy.workers().len() == 2 && proxy.workers().is_disjoint(&before))?;
    let equal = verify(&proxy)?;
    ensure!(equal.alerts == 1 && equal.vhosts == 3, "{equal:?}");
    Ok(())
}

#[test]
fn a_task_on_its_way_is_no_difference() -> Result<()> {
    let (proxy, origin) = start("    dysvr_verify 1s;\n")?;
    let prefix = &proxy.prefix;
    for id in 2..12 {
        let file = format!("auto_vhost/{id}.conf");
        prefix.write(&file, &vhost(id, prefix.port, &format!("v{id}.example"), &origin))?;
        // Files first, as an agent does; a look begins here.
        let master = dysvr_node::os::pidfd::PidFd::open(proxy.master().unsigned_abs())?;
        master.send_value(dysvr_node::os::signal::dysvr(), 77)?;
        let verdict = proxy.task(Kind::Add, &[&file], &[id], &[&format!("u{id}")], id)?;
        ensure!(verdict.done, "{}", verdict.line.reason());
    }
    let equal = verify(&proxy)?;
    ensure!(equal.alerts == 0 && equal.vhosts == 12, "{equal:?}");
    ensure!(!prefix.error_log().contains("[alert]"), "{}", prefix.error_log());
    Ok(())
}

#[test]
fn a_twin_that_tasks_overtake_keeps_no_memory_and_reads_nothing_that_is_gone() -> Result<()> {
    // So many words that a twin can be stopped before it has loaded them.
    let map: String = (0..50_000).map(|number| format!("        v{number} \"{number}\";\n")).collect();
    let (proxy, origin) = start(&format!("    dysvr_verify off;\n    map $host $number {{\n{map}    }}\n"))?;
    let prefix = &proxy.prefix;
    // Each time longer than what was there, so that other records come to stand where the twin knows one.
    let mut change = |task: u64| {
        let long = format!("# {}\n    location", "x".repeat(200_000 + task as usize));
        let text = vhost(1, prefix.port, "a.example", &origin).replacen("location", &long, 1);
        prefix.write("auto_vhost/a.conf", &text)?;
        let verdict = proxy.task(Kind::Modify, &["auto_vhost/a.conf"], &[1], &["u1"], task)?;
        ensure!(verdict.done, "{}", verdict.line.reason());
        Ok(())
    };
    change(2)?;
    let shared = || procfs::shared_kib(proxy.master()).context("the master's shared memory");
    let before = shared()?;
    let finding = std::thread::scope(|scope| {
        let asked = scope.spawn(|| look(&proxy));
        let mut stopped = None;
        wait::until("a twin that is stopped before it has loaded", LIMIT, || {
            let twins = procfs::children(proxy.master()).into_iter().filter(|pid| procfs::is_twin(*pid));
            stopped = twins.into_iter().find(|pid| dysvr_tests::signal::send(*pid, Signal::SIGSTOP).is_ok());
            stopped.is_some() || asked.is_finished()
        })?;
        let twin = stopped.context("no twin was seen")?;
        let overtaken = (3..103).try_for_each(&mut change).and_then(|()| shared());
        dysvr_tests::signal::send(twin, Signal::SIGCONT)?;
        let after = overtaken?;
        ensure!(after < before + 4 * 200, "{before} to {after} KiB: the room of a hundred texts is kept for the twin");
        asked.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
    })?;
    // The one that was overtaken is worth nothing; another one came.
    ensure!(finding.outcome == Outcome::Equal && finding.version == 102, "{finding:?}");
    ensure!(finding.findings == 1 && finding.alerts == 0, "{finding:?}");
    Ok(())
}

#[test]
fn a_twin_that_dies_is_told_of() -> Result<()> {
    let (proxy, _origin) = start("    dysvr_verify off;\n")?;
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| look(&proxy));
        // The twin is found between its birth and its end, or another one is asked for.
        let mut killed = false;
        let end = std::time::Instant::now() + LIMIT;
        while !killed && !asked.is_finished() && std::time::Instant::now() < end {
            for pid in procfs::children(proxy.master()).into_iter().filter(|pid| procfs::is_twin(*pid)) {
                killed |= dysvr_tests::signal::send(pid, Signal::SIGKILL).is_ok();
            }
        }
        asked.join().map_err(|_| anyhow::anyhow!("the thread panicked"))
    })?;
    let finding = asked?;
    if finding.outcome == Outcome::Unknown {
        ensure!(finding.reason.contains("ended by signal 9"), "{finding:?}");
        proxy.wait_log("was ended by signal 9")?;
    }
    verify(&proxy)?;
    ensure!(procfs::children(proxy.master()).len() == 2, "a twin is left");
    Ok(())
}

#[test]
fn a_worker_that_serves_something_else_is_replaced() -> Result<()> {
    let rig = Rig::start(&MainConf { http: "    dysvr_verify off;\n".into(), ..MainConf::default() })?;
    // Each has shown what it was born with.
    rig.proxy.ask_every_worker("good.example", "/")?;
    let before = rig.proxy.workers();
    rig.poison("proof", "one bit of it")?;
    rig.done(Kind::Add, 2, "two.example", "")?;
    ensure!(rig.taken("proof"), "no worker has shown anything");
    rig.proxy.wait_log("did not commit: replaced")?;
    wait::until("one new worker beside an old one", LIMIT, || {
        rig.proxy.workers().len() == 2 && rig.proxy.workers().intersection(&before).count() == 1
    })?;
    for reply in rig.proxy.ask_every_worker("two.example", "/")? {
        ensure!(reply.status == 200, "{reply:?}");
    }
    let equal = verify(&rig.proxy)?;
    ensure!(equal.replaced == 1, "{equal:?}");
    // One that is born so is replaced, too.
    rig.poison("proof", "one bit of it")?;
    let victim = rig.proxy.workers().into_iter().next().context("no worker")?;
    dysvr_tests::signal::send(victim, Signal::SIGKILL)?;
    wait::until("the second replacement", LIMIT * 2, || verify(&rig.proxy).is_ok_and(|finding| finding.replaced == 2))?;
    rig.all_workers()
}

#[test]
fn the_controller_hears_of_a_difference() -> Result<()> {
    let fleet = Fleet::start(1, Store::Embedded, |_| {})?;
    let node = &fleet.nodes[0];
    let seen = || -> Result<serde_json::Value> {
        Ok(items(&fleet.ctl().json(&["get", "nodes"])?)?.first().context("no node")?.clone())
    };
    let text = |value: &serde_json::Value| value.to_string();
    ensure!(command(&node.prefix)?.0 == Some(0));
    wait::eventually("equal", LIMIT, || {
        let seen = seen()?;
        ensure!(seen["observed"]["proxy"]["verified"]["verdict"] == "equal", "{}", text(&seen));
        Ok(())
    })?;
    let conf = std::fs::read_to_string(node.prefix.conf("nginx.conf"))?;
    node.prefix.write("nginx.conf", &conf.replace("keepalive_timeout 600s", "keepalive_timeout 601s"))?;
    ensure!(command(&node.prefix)?.0 == Some(1));
    wait::eventually("degraded", LIMIT, || {
        let seen = seen()?;
        let reason = seen["reason"].as_str().unwrap_or_default().to_owned();
        ensure!(seen["state"] == "degraded" && reason.starts_with("different: "), "{}", text(&seen));
        Ok(())
    })?;
    let described = fleet.ctl().ok(&["describe", "node", &node.id])?;
    ensure!(described.contains("+    keepalive_timeout 601s;"), "{described}");
    Ok(())
}

#[test]
fn without_a_master_the_command_says_so() -> Result<()> {
    let prefix = Prefix::new(&MainConf::default())?;
    let (code, text) = command(&prefix)?;
    ensure!(code == Some(2) && text.contains("no master runs"), "{code:?}: {text}");
    Ok(())
}
