//! Workers that fail in the middle of an in-place update. Before the commit: `F`, and nothing has changed anywhere; after
//! it: `D`, and whoever failed is replaced by one that has the change. The next task works, whatever the last one met.
//!
//! A task of which a worker has to find out something by itself is prepared by all of them before it is committed
//! ([`PREPARED`]); others are committed from the beginning.

use anyhow::{Context as _, Result, ensure};
use dysvr_tests::load::Load;
use dysvr_tests::poison::Rig;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::LIMIT;
use dysvr_tests::task::Kind;
use dysvr_tests::{procfs, signal, wait};
use nix::sys::signal::Signal;

/// Nobody is to be replaced for being slow on a busy machine.
fn patient() -> Result<Rig> {
    Rig::start(&MainConf { http: "dysvr_task_timeout 100s;".into(), ..MainConf::default() })
}

/// A worker that does not answer is waited for so long: others may take their time, but not this long.
fn impatient() -> Result<Rig> {
    Rig::start(&MainConf { http: "dysvr_task_timeout 8s; dysvr_watchdog 2s;".into(), ..MainConf::default() })
}

/// A log file of its own: a worker may be unable to open it.
const PREPARED: &str = "access_log logs/own.log;";

const STEPS: [&str; 5] = ["prepare", "locked", "prepared", "commit", "committed"];

#[test]
fn a_worker_dies_at_each_step() -> Result<()> {
    let faults: Vec<_> =
        STEPS.map(|step| (step, "kill")).into_iter().chain([("prepared", "exit"), ("commit", "abort")]).collect();
    fail_at(&patient()?, &faults, PREPARED)
}

#[test]
fn a_worker_dies_at_each_step_of_what_is_committed_at_once() -> Result<()> {
    fail_at(&patient()?, &STEPS.map(|step| (step, "kill")), "")
}

#[test]
fn a_worker_stops_at_each_step() -> Result<()> {
    fail_at(&impatient()?, &STEPS.map(|step| (step, "stop")), PREPARED)
}

#[test]
fn a_worker_stops_at_each_step_of_what_is_committed_at_once() -> Result<()> {
    fail_at(&impatient()?, &STEPS.map(|step| (step, "stop")), "")
}

/// One worker meets a fault at a step of a task whose location says `extra`, for each of these.
fn fail_at(rig: &Rig, faults: &[(&str, &str)], extra: &str) -> Result<()> {
    for ((step, what), id) in faults.iter().zip(2..) {
        let name = format!("v{id}.example");
        let before = rig.proxy.workers();
        rig.poison(step, what)?;
        let verdict = rig.task(Kind::Add, id, &name, extra)?;
        let context = || format!("{what} at {step}: {}\n{}", verdict.line.reason(), rig.proxy.prefix.error_log());
        ensure!(rig.taken(step), "nobody came by {step}: {}", context());
        let committed = extra != PREPARED || step.starts_with("commit");
        ensure!(verdict.done == committed, "done: {}: {}", verdict.done, context());
        // The one that failed goes, or (stopped) stays behind without work; another one takes its place.
        let gone = || {
            let now = rig.proxy.workers();
            before.iter().any(|pid| !now.contains(pid) || procfs::state(*pid) == Some('T'))
        };
        wait::until("the worker to go", LIMIT, gone).with_context(context)?;
        for pid in rig.proxy.workers() {
            if procfs::state(pid) == Some('T') {
                signal::send(pid, Signal::SIGKILL)?;
                // Until then it counts as one of all.
                wait::until("the stopped worker to end", LIMIT, || !procfs::alive(pid))?;
            }
        }
        rig.all_workers().with_context(context)?;
        rig.everywhere(&name, if committed { 200 } else { 404 }).with_context(context)?;
        rig.everywhere("good.example", 200).with_context(context)?;
        // The next task works.
        let kind = if committed { Kind::Modify } else { Kind::Add };
        rig.done(kind, id, &format!("{name} again.{name}"), extra).with_context(context)?;
        rig.everywhere(&format!("again.{name}"), 200).with_context(context)?;
    }
    let log = rig.proxy.prefix.error_log();
    ensure!(!log.contains("quarantine"), "no vhost is to blame: {log}");
    Ok(())
}

#[test]
fn a_panic_while_reading_refuses_the_task_and_costs_nothing() -> Result<()> {
    let rig = patient()?;
    let workers = rig.proxy.workers();
    for step in ["parse", "prepare"] {
        rig.poison(step, "panic")?;
        let verdict = rig.task(Kind::Add, 2, "a.example", PREPARED)?;
        ensure!(!verdict.done && verdict.line.reason().contains("panic"), "{verdict:?}");
        rig.proxy.wait_log("[alert]")?;
        rig.everywhere("a.example", 404)?;
    }
    ensure!(rig.proxy.workers() == workers, "workers were replaced");
    rig.done(Kind::Add, 2, "a.example", "")?;
    rig.everywhere("a.example", 200)
}

#[test]
fn garbage_in_a_slot_is_nobody_elses_trouble() -> Result<()> {
    let rig = patient()?;
    let workers = rig.proxy.workers();
    for step in ["prepare", "locked", "prepared", "commit", "committed"] {
        rig.poison(step, "scribble")?;
        let id = rig.next_task() + 10;
        rig.done(Kind::Add, id, &format!("v{id}.example"), "").context(step)?;
        ensure!(rig.taken(step));
        rig.everywhere(&format!("v{id}.example"), 200)?;
    }
    ensure!(rig.proxy.workers() == workers, "workers were replaced: {}", rig.proxy.prefix.error_log());
    Ok(())
}

#[test]
fn a_stopped_worker_fails_one_task_and_not_the_next() -> Result<()> {
    let updates: u64 = std::env::var("DYSVR_UPDATES").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let rig = impatient()?;
    let before = rig.proxy.workers();
    let stopped = *before.first().context("no worker")?;
    signal::send(stopped, Signal::SIGSTOP)?;
    wait::until("the worker to stop", LIMIT, || procfs::state(stopped) == Some('T'))?;
    let first = rig.task(Kind::Add, 2, "a.example", PREPARED)?;
    ensure!(!first.done && first.line.reason().contains("did not prepare within"), "{first:?}");
    for round in 0..updates {
        let kind = if round == 0 { Kind::Add } else { Kind::Modify };
        rig.done(kind, 2, &format!("a.example r{round}.example"), "").with_context(|| format!("update {round}"))?;
    }
    let now = rig.proxy.workers();
    ensure!(now.contains(&stopped), "a stopped worker may be stopped for a good reason");
    // It wakes up, finds that it was replaced, and leaves in good order.
    signal::send(stopped, Signal::SIGCONT)?;
    wait::until("the stopped worker to leave", LIMIT, || !procfs::alive(stopped))?;
    ensure!(rig.proxy.workers().len() == before.len());
    let log = rig.proxy.prefix.error_log();
    ensure!(log.contains(&format!("worker {stopped} did not prepare in time: replaced")), "{log}");
    rig.proxy.wait_log(&format!("worker process {stopped} exited with code 0"))?;
    rig.everywhere(&format!("r{}.example", updates - 1), 200)
}

#[test]
fn a_stopped_worker_holds_up_one_task_that_is_committed_at_once_and_fails_none() -> Result<()> {
    let rig = impatient()?;
    let stopped = *rig.proxy.workers().first().context("no worker")?;
    signal::send(stopped, Signal::SIGSTOP)?;
    wait::until("the worker to stop", LIMIT, || procfs::state(stopped) == Some('T'))?;
    rig.done(Kind::Add, 2, "a.example", "")?;
    for round in 0..20 {
        rig.done(Kind::Modify, 2, &format!("a.example r{round}.example"), "")
            .with_context(|| format!("update {round}"))?;
    }
    rig.proxy.wait_log(&format!("worker {stopped} did not commit: replaced"))?;
    // What it has missed it does not serve.
    signal::send(stopped, Signal::SIGCONT)?;
    rig.proxy.wait_log(&format!("worker process {stopped} exited with code 0"))?;
    rig.all_workers()?;
    rig.everywhere("r19.example", 200)
}

#[test]
fn killed_workers_are_replaced_but_not_in_a_storm() -> Result<()> {
    let kills: usize = std::env::var("DYSVR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let rig = patient()?;
    // New connections all the time: one worker always accepts.
    let addr = rig.proxy.prefix.addr();
    let ending = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let asking = scope.spawn(|| {
            let (mut asked, mut refused) = (0, Vec::new());
            while !ending.load(std::sync::atomic::Ordering::Relaxed) {
                match dysvr_tests::client::Connection::open(addr) {
                    // What a killed worker had taken is lost with it: only the connection counts.
                    Ok(mut connection) => drop(connection.get("good.example", "/")),
                    Err(error) => refused.push(error.to_string()),
                }
                asked += 1;
            }
            (asked, refused)
        });
        let storm = || -> Result<()> {
            for round in 0..kills {
                rig.done(Kind::Modify, 1, &format!("good.example k{round}.example"), "").or_else(|error| {
                    // A worker that dies before the commit is a reason to fail, and the only one.
                    if format!("{error:#}").contains("ended before the commit") { Ok(()) } else { Err(error) }
                })?;
                let victim = *rig.proxy.workers().first().context("no worker")?;
                signal::send(victim, Signal::SIGKILL)?;
                wait::until("the victim to go", LIMIT, || !procfs::alive(victim))?;
                wait::until("a worker", LIMIT, || !rig.proxy.workers().is_empty())?;
            }
            Ok(())
        };
        let stormed = storm();
        ending.store(true, std::sync::atomic::Ordering::Relaxed);
        let (asked, refused) = asking.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        stormed?;
        ensure!(refused.is_empty(), "{} of {asked} refused: {refused:?}", refused.len());
        Ok(())
    })?;
    rig.all_workers()?;
    rig.done(Kind::Modify, 1, "good.example end.example", "")?;
    rig.everywhere("end.example", 200)?;
    let log = rig.proxy.prefix.error_log();
    ensure!(!log.contains("quarantine"), "who kills a worker does not accuse a vhost: {log}");
    let born = log.matches("start worker process ").count();
    ensure!(born <= 2 + kills, "{born} births for {kills} deaths");
    Ok(())
}

#[test]
fn a_worker_that_hangs_in_a_task_is_killed_and_a_stop_ends_all() -> Result<()> {
    let mut rig = impatient()?;
    rig.poison("prepare", "loop")?;
    ensure!(!rig.task(Kind::Add, 2, "a.example", PREPARED)?.done);
    // What is committed already goes on without it.
    rig.all_workers()?;
    rig.poison("prepare", "loop")?;
    rig.done(Kind::Add, 3, "b.example", "")?;
    rig.proxy.wait_log("has been in one step")?;
    rig.all_workers()?;
    // A stopped worker does not keep a master from ending at once.
    let stopped = *rig.proxy.workers().first().context("no worker")?;
    signal::send(stopped, Signal::SIGSTOP)?;
    rig.proxy.signal(Signal::SIGTERM)?;
    ensure!(rig.proxy.process().wait(LIMIT)?.success());
    ensure!(!procfs::alive(stopped));
    Ok(())
}

#[test]
fn a_master_that_is_killed_leaves_workers_that_serve() -> Result<()> {
    let mut rig = patient()?;
    let workers = rig.proxy.workers();
    let load = Load::start(rig.proxy.prefix.addr(), 20, &["good.example"], "/bytes?n=1024")?;
    rig.proxy.process().crash();
    let before = load.answered();
    wait::until("a thousand answers without a master", LIMIT, || load.answered() > before + 1000)?;
    let report = load.stop()?;
    ensure!(report.failures.is_empty(), "{:?}", report.failures);
    // New connections too.
    for _ in 0..20 {
        ensure!(rig.get("good.example")?.status == 200);
    }
    ensure!(workers.iter().all(|pid| procfs::alive(*pid)));
    dysvr_tests::process::end_all(&workers);
    Ok(())
}
