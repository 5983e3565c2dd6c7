//! The master panics where nothing is allowed to fail any more. The workers have the change, no connection is lost, and
//! the master loads its files anew, since it cannot trust what it has in memory.

use anyhow::{Context as _, Result, ensure};
use dysvr_node::dysvr::verify::Outcome;
use dysvr_tests::client;
use dysvr_tests::comers::Comers;
use dysvr_tests::poison::Rig;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::LIMIT;
use dysvr_tests::task::Kind;
use dysvr_tests::{ports, signal, verify, wait};
use nix::sys::signal::Signal;

#[test]
fn a_panic_in_the_masters_commit_is_healed_by_a_reload() -> Result<()> {
    let rig = Rig::start(&MainConf::default())?;
    let (master, workers, addr) = (rig.proxy.master(), rig.proxy.workers(), rig.proxy.prefix.addr());
    let port = ports::free()?;
    rig.proxy
        .prefix
        .write("auto_vhost/9.conf", &format!("server {{ vsvc_id 9; listen 127.0.0.1:{port}; return 200; }}\n"))?;
    ensure!(rig.proxy.task(Kind::Add, &["auto_vhost/9.conf"], &[9], &[], rig.next_task())?.done);
    let others = (std::net::Ipv4Addr::LOCALHOST, port).into();
    let comers = [Comers::start(others, 2, false)?, Comers::start(others, 4, true)?];
    let mut held = client::pin_every_worker(addr, "good.example", &workers, LIMIT)?;
    let mut dripping = held.pop_first().context("no connection")?.1;
    dripping.send("GET", "/drip?count=100&every_ms=20", &[("Host", "good.example")], b"")?;
    let head = dripping.head()?;
    rig.poison("master-commit", "panic")?;
    rig.done(Kind::Add, 2, "a.example", "")?;
    ensure!(rig.taken("master-commit"));
    let context = || rig.proxy.prefix.error_log();
    wait::until("other workers", LIMIT, || rig.proxy.workers().is_disjoint(&workers)).with_context(context)?;
    rig.all_workers().with_context(context)?;
    rig.everywhere("a.example", 200).with_context(context)?;
    let framing = dysvr_tests::http::Framing::of_response(&head, "GET")?;
    let body = dysvr_tests::http::read_body(dripping.stream(), framing)?;
    ensure!(body.ends_with(b"drop 99\n"), "the answer that was under way was cut");
    // The next task goes in place, and whoever is born now has both.
    let heirs = rig.proxy.workers();
    rig.done(Kind::Modify, 2, "a.example b.example", "")?;
    ensure!(rig.proxy.workers() == heirs && rig.proxy.master() == master, "{}", context());
    // Whoever asks the one that is killed next gets no answer.
    for comers in comers {
        comers.stop()?;
    }
    let victim = *heirs.first().context("no worker")?;
    signal::send(victim, Signal::SIGKILL)?;
    wait::until("another worker", LIMIT, || !rig.proxy.workers().contains(&victim))?;
    rig.all_workers()?;
    rig.everywhere("b.example", 200)?;
    Ok(())
}

#[test]
fn a_damaged_master_whose_files_do_not_load_leaves_its_workers_alone() -> Result<()> {
    let rig = Rig::start(&MainConf::default())?;
    let workers = rig.proxy.workers();
    rig.proxy.prefix.write("auto_vhost/bad.conf", "server { listn 80; }\n")?;
    rig.poison("master-commit", "panic")?;
    rig.done(Kind::Add, 2, "a.example", "")?;
    rig.proxy.wait_log("unknown directive \"listn\"")?;
    rig.everywhere("a.example", 200)?;
    let refused = rig.task(Kind::Modify, 2, "b.example", "")?;
    ensure!(!refused.done && refused.line.reason().contains("a commit has panicked"), "{refused:?}");
    let look = verify::look(&rig.proxy)?;
    ensure!(look.outcome == Outcome::Unknown && look.reason.contains("a commit has panicked"), "{look:?}");
    ensure!(rig.proxy.workers() == workers);
    // The files load again: all is well.
    std::fs::remove_file(rig.proxy.prefix.conf("auto_vhost/bad.conf"))?;
    rig.proxy.signal(Signal::SIGHUP)?;
    wait::until("other workers", LIMIT, || rig.proxy.workers().is_disjoint(&workers))?;
    rig.all_workers()?;
    rig.everywhere("b.example", 200)?;
    rig.done(Kind::Modify, 2, "c.example", "")?;
    rig.everywhere("c.example", 200)
}
