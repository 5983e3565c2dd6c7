//! A vhost that crashes or hangs workers when it is asked: the second crash quarantines it alone, a task that modifies it
//! lifts that, and nobody else is accused.

use anyhow::{Context as _, Result, ensure};
use dysvr_tests::client;
use dysvr_tests::poison::Rig;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::LIMIT;
use dysvr_tests::task::Kind;
use dysvr_tests::wait;
use nix::sys::signal::Signal;

fn rig() -> Result<Rig> {
    Rig::start(&MainConf { http: "dysvr_watchdog 1s;".into(), ..MainConf::default() })
}

/// The file beside the task file.
fn quarantine(rig: &Rig) -> String {
    std::fs::read_to_string(rig.proxy.prefix.task_file().path.with_file_name("dysvr_quarantine")).unwrap_or_default()
}

/// Asks until the vhost is under quarantine; gives how many connections were lost before.
fn ask_until_quarantine(rig: &Rig, host: &str) -> Result<usize> {
    let crashes = || rig.proxy.prefix.error_log().matches("within 10 min").count();
    for lost in 0..4 {
        match client::get(rig.proxy.prefix.addr(), host, "/") {
            Ok(reply) if reply.status == 503 => return Ok(lost),
            Ok(reply) => anyhow::bail!("{} {}", reply.status, reply.text()),
            // Until the master has seen the crash the next question would not be the next one.
            Err(_) => wait::until("the master to see a crash", LIMIT * 3, || crashes() > lost)?,
        }
        if lost == 1 {
            rig.proxy.wait_log("quarantine of")?;
        }
    }
    anyhow::bail!("no quarantine: {}", rig.proxy.prefix.error_log())
}

#[test]
fn a_vhost_that_crashes_workers_is_quarantined_alone() -> Result<()> {
    for what in ["abort", "overflow", "loop", "sleep", "panic"] {
        let rig = rig()?;
        let poison = format!("set $poison poison:{what};");
        rig.done(Kind::Add, 2, "bad.example", &poison).context(what)?;
        rig.done(Kind::Add, 3, "bad.other.example", "").context(what)?;
        let context = || format!("{what}: {}", rig.proxy.prefix.error_log());
        let lost = ask_until_quarantine(&rig, "bad.example").with_context(context)?;
        ensure!(lost == 2, "{lost} lost: {}", context());
        rig.all_workers().with_context(context)?;
        rig.everywhere("bad.example", 503).with_context(context)?;
        rig.everywhere("good.example", 200).with_context(context)?;
        rig.everywhere("bad.other.example", 200).with_context(context)?;
        let reply = rig.get("bad.example")?;
        ensure!(reply.text().contains("503 Service Temporarily Unavailable"), "{reply:?}");
        let file = quarantine(&rig);
        ensure!(file.starts_with("vsvc_id=2 server_name=\"bad.example\" in ") && file.lines().count() == 1, "{file:?}");
        rig.proxy.wait_log("[alert]").with_context(context)?;

        // A worker that is born now knows it, a reload does not forget it, a task for another one does not touch it.
        let workers = rig.proxy.workers();
        dysvr_tests::signal::send(*workers.first().context("no worker")?, Signal::SIGKILL)?;
        wait::until("another worker", LIMIT, || rig.proxy.workers() != workers && rig.proxy.workers().len() == 2)?;
        rig.everywhere("bad.example", 503).context("after a birth")?;
        rig.done(Kind::Modify, 3, "bad.other.example x.example", "")?;
        if what == "abort" {
            let workers = rig.proxy.workers();
            rig.proxy.signal(Signal::SIGHUP)?;
            wait::until("the reload", LIMIT, || {
                let now = rig.proxy.workers();
                now.is_disjoint(&workers) && now.len() == 2
            })?;
        }
        rig.everywhere("bad.example", 503).context("after others' changes")?;
        ensure!(quarantine(&rig) == file);

        rig.done(Kind::Modify, 2, "bad.example", "")?;
        rig.everywhere("bad.example", 200).with_context(context)?;
        ensure!(quarantine(&rig).is_empty());
        rig.proxy.wait_log("quarantine lifted")?;
    }
    Ok(())
}

#[test]
fn a_panic_costs_its_own_connection_alone() -> Result<()> {
    let rig = rig()?;
    let workers = rig.proxy.workers();
    rig.done(Kind::Add, 2, "bad.example", "set $poison poison:panic;")?;
    let mut held = client::pin_every_worker(rig.proxy.prefix.addr(), "good.example", &workers, LIMIT)?;
    ensure!(client::get(rig.proxy.prefix.addr(), "bad.example", "/").is_err());
    rig.proxy.wait_log("a request panicked")?;
    rig.proxy.wait_log("crash 1 within")?;
    for connection in held.values_mut() {
        ensure!(connection.get("good.example", "/")?.status == 200);
    }
    ensure!(rig.proxy.workers() == workers, "workers were replaced");
    // One is an accident.
    ensure!(quarantine(&rig).is_empty());
    // A modified vhost begins anew.
    rig.done(Kind::Modify, 2, "bad.example", "set $other poison:panic;")?;
    ensure!(client::get(rig.proxy.prefix.addr(), "bad.example", "/").is_err());
    wait::until("the second panic", LIMIT, || rig.proxy.prefix.error_log().matches("crash 1 within").count() == 2)?;
    ensure!(quarantine(&rig).is_empty());
    Ok(())
}

#[test]
fn a_vhost_without_an_id_is_quarantined_too_and_the_default_one_may_be() -> Result<()> {
    let http = |port: u16| {
        format!(
            "server {{ listen 127.0.0.1:{port}; server_name noid.example; location / {{ set $p poison:abort; return 200; }} }}"
        )
    };
    let rig = rig()?;
    let port = rig.proxy.prefix.port;
    rig.proxy.prefix.write("auto_vhost/noid.conf", &http(port))?;
    let workers = rig.proxy.workers();
    rig.proxy.signal(Signal::SIGHUP)?;
    wait::until("the reload", LIMIT, || rig.proxy.workers().is_disjoint(&workers) && rig.proxy.workers().len() == 2)?;
    ask_until_quarantine(&rig, "noid.example")?;
    rig.all_workers()?;
    rig.everywhere("noid.example", 503)?;
    rig.everywhere("good.example", 200)?;
    ensure!(quarantine(&rig).starts_with("vsvc_id=none server_name=\"noid.example\""), "{}", quarantine(&rig));
    Ok(())
}

#[test]
fn who_needs_long_or_is_stopped_is_not_stuck() -> Result<()> {
    let rig = rig()?;
    let workers = rig.proxy.workers();
    // Two and a half seconds of an answer that drips: many short polls.
    let reply = client::get(rig.proxy.prefix.addr(), "good.example", "/drip?count=25&every_ms=100")?;
    ensure!(reply.status == 200 && reply.text().contains("drop 24"));
    ensure!(rig.proxy.workers() == workers, "{}", rig.proxy.prefix.error_log());
    Ok(())
}
