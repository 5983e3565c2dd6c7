//! Laws 1 and 4 from outside: a random history of tasks through the task file, with reloads, restarts and killed workers in
//! between. After each step what runs is what its files would start (the twin says so); after some, every worker answers
//! as a second proxy does that was started from a copy of the files. `DYSVR_SEED` repeats a history, `DYSVR_STEPS` makes it
//! longer.

mod answers;
mod world;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dysvr_tests::prefix::{MainConf, Prefix};
use dysvr_tests::proxy::{self, LIMIT, Proxy};
use dysvr_tests::task::Line;
use dysvr_tests::verify::verify;
use dysvr_tests::{process, signal, wait};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use answers::answers;
use world::{Files, Task, World};

/// Steps of the short form: some ten seconds. A machine that has none to spare for the twin's looks takes fewer steps in
/// no more than a minute.
const STEPS: u64 = 60;
const MOST: Duration = Duration::from_secs(60);

/// Where the second proxy listens.
const THERE: &str = "127.0.0.2";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Makes the files of a prefix these, from those.
fn write(prefix: &Prefix, old: &Files, new: &Files) -> Result<()> {
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        std::fs::remove_file(prefix.conf(name)).with_context(|| name.clone())?;
    }
    new.iter().filter(|(name, text)| old.get(*name) != Some(text)).try_for_each(|(name, text)| prefix.write(name, text))
}

/// A proxy of these files, which waits for all of its workers.
fn start(workers: usize, files: &Files) -> Result<Proxy> {
    let prefix = Prefix::new(&MainConf { workers, ..MainConf::default() })?;
    std::fs::create_dir(prefix.conf("certs"))?;
    write(&prefix, &Files::new(), files)?;
    started(Proxy::start_from(&proxy::dysvr_binary()?, prefix)?, workers)
}

fn started(proxy: Proxy, workers: usize) -> Result<Proxy> {
    wait::until("all workers", LIMIT, || proxy.workers().len() == workers)?;
    Ok(proxy)
}

/// Runs a task; the files become what it makes of them, or stay what they were when it is refused.
fn run(proxy: &Proxy, files: &mut Files, task: &Task, task_id: u64) -> Result<bool> {
    let after = task.after(files);
    write(&proxy.prefix, files, &after)?;
    let conf = proxy.prefix.task_file().path.with_file_name(format!("dysvr_{task_id}.conf"));
    let includes = task.includes(&after).map(|name| format!("include {};\n", proxy.prefix.conf(name).display()));
    std::fs::write(&conf, includes.collect::<String>())?;
    let ups: Vec<&str> = task.ups.iter().map(String::as_str).collect();
    let vsvc: Vec<u64> = task.vsvc.iter().copied().collect();
    let mut line = Line::text(task.kind, &conf, &vsvc, &ups, task_id);
    if !task.maps.is_empty() {
        line = line.replace(" task_id=", &format!(" maps={} task_id=", task.maps.join(",")));
    }
    let verdict = proxy.line(&line, task_id)?;
    if verdict.done {
        *files = after;
        return Ok(true);
    }
    let (reason, tested) = (verdict.line.reason(), proxy.command_line(&["-t"])?);
    ensure!(!tested.status.success(), "refused in place ({reason}), but it would start: {task:#?}");
    write(&proxy.prefix, &after, files)?;
    Ok(false)
}

/// What may happen to a proxy between tasks.
fn disturb(rng: &mut StdRng, mut proxy: Proxy) -> Result<Proxy> {
    let before = proxy.workers();
    match rng.random_range(0..4) {
        0 => {
            proxy.signal(Signal::SIGHUP)?;
            wait::until("the reload", LIMIT, || {
                proxy.workers().len() == before.len() && proxy.workers().is_disjoint(&before)
            })?;
            Ok(proxy)
        }
        1 => started(Proxy::start_from(&proxy::dysvr_binary()?, proxy.into_prefix())?, before.len()),
        2 => {
            let victim = *before.first().context("no worker")?;
            signal::send(victim, Signal::SIGKILL)?;
            wait::until("another worker", LIMIT, || {
                proxy.workers().len() == before.len() && !proxy.workers().contains(&victim)
            })?;
            Ok(proxy)
        }
        _ => {
            // The next master takes over from its workers.
            proxy.process().crash();
            proxy.start_again()?;
            let proxy = started(proxy, before.len())?;
            let gone = || before.iter().all(|pid| !dysvr_tests::procfs::alive(*pid));
            wait::until("the old workers to leave", LIMIT, gone)?;
            Ok(proxy)
        }
    }
}

/// Every worker against a fresh start.
fn compare(proxy: &Proxy, world: &World, files: &Files) -> Result<()> {
    let copy =
        files.iter().map(|(name, text)| (name.clone(), text.replace("listen 127.0.0.1:", &format!("listen {THERE}:"))));
    let fresh = start(1, &copy.collect())?;
    let expected = answers(&fresh, THERE, world)?.into_values().next().context("no worker")?;
    for (pid, ours) in answers(proxy, "127.0.0.1", world)? {
        let differ = ours.iter().zip(&expected).find(|(ours, fresh)| ours != fresh);
        ensure!(differ.is_none() && ours.len() == expected.len(), "worker {pid}, a fresh start: {differ:#?}");
    }
    Ok(())
}

#[test]
fn any_history_with_restarts_is_served_as_a_fresh_start_serves_it() -> Result<()> {
    let seed = number("DYSVR_SEED").unwrap_or_else(rand::random::<u64>);
    let (steps, most) = number("DYSVR_STEPS").map_or((STEPS, MOST), |steps| (steps, Duration::MAX));
    println!("DYSVR_SEED={seed} DYSVR_STEPS={steps}");
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new()?;
    let mut files = world.first_files();
    let mut proxy = start(2, &files)?;
    let (mut done, mut refused) = (0, 0);
    let begin = Instant::now();
    for step in (1..=steps).take_while(|_| begin.elapsed() < most) {
        let task = world.random_task(&mut rng, &files);
        let what = format!("DYSVR_SEED={seed} step {step}: {task:#?}");
        let is_done = run(&proxy, &mut files, &task, step)
            .with_context(|| process::tail(&proxy.prefix.error_log()))
            .with_context(|| what.clone())?;
        if is_done {
            done += 1
        } else {
            refused += 1
        }
        verify(&proxy).with_context(|| what.clone())?;
        let disturbs = rng.random_bool(0.1);
        if disturbs {
            proxy = disturb(&mut rng, proxy).with_context(|| what.clone())?;
            verify(&proxy).with_context(|| what.clone())?;
        }
        if disturbs || step % 10 == 0 {
            compare(&proxy, &world, &files).with_context(|| format!("{files:#?}")).with_context(|| what.clone())?;
        }
    }
    println!("{done} done, {refused} refused");
    // A machine that had time for a few steps only has drawn too few for a proportion.
    ensure!(done + refused < 20 || done > refused, "{done} done, {refused} refused");
    ensure!(done + refused < steps || done > 0, "none of {steps} steps was done");
    Ok(())
}
