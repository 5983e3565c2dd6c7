//! One vhost more: from the signal until every worker serves it, and the processor time that all processes of the proxy
//! spend on it. For dysvr in place, for nginx by reload.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::corpus::{self, WHO};
use super::{Peer, figures, progress};
use crate::client::{self, Connection};
use crate::proxy::Proxy;
use crate::task::{Kind, Line};
use crate::{procfs, signal, wait};

/// No update of any peer takes longer.
const LIMIT: Duration = Duration::from_secs(300);

/// What was measured for one peer at one size.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Which.
    pub peer: Peer,
    /// How many vhosts there were at the start.
    pub vhosts: usize,
    /// Signal → every worker serves, in ms, one per update. For dysvr: → `D` in the task file, by inotify.
    pub served_ms: Vec<f64>,
    /// Signal → every worker has been asked by its pid and has answered, in ms; includes the asking.
    pub asked_ms: Vec<f64>,
    /// Processor time per update of master and workers, in ms; one for dysvr's whole series, one per reload for nginx.
    pub cpu_ms: Vec<f64>,
    /// Memory of all its processes before the first update, in MiB.
    pub memory_mib: f64,
    /// Start until it serves, in ms.
    pub start_ms: f64,
}

impl Figures {
    /// Median of [`Self::served_ms`].
    pub fn served(&self) -> f64 {
        figures::median(&self.served_ms)
    }

    /// Median of [`Self::cpu_ms`].
    pub fn cpu(&self) -> f64 {
        figures::median(&self.cpu_ms)
    }
}

/// Measures one peer: `updates` for latency and as many for processor time.
///
/// # Errors
/// When the peer does not do what is asked: a figure without a proof is none.
pub fn measure(peer: Peer, vhosts: usize, updates: usize) -> Result<Figures> {
    let prefix = corpus::many_vhosts(peer, vhosts)?;
    let begin = Instant::now();
    let proxy = Proxy::start_from(&peer.binary()?, prefix)?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    client::pin_every_worker(proxy.prefix.addr(), &corpus::name(0), &proxy.workers(), LIMIT)?;
    let start_ms = ms(begin.elapsed());
    let pids = proxy.workers().into_iter().chain([proxy.master()]);
    let memory_kib: u64 = pids.filter_map(procfs::pss_kib).sum();
    let figures = Figures {
        peer,
        vhosts,
        served_ms: Vec::new(),
        asked_ms: Vec::new(),
        cpu_ms: Vec::new(),
        memory_mib: memory_kib as f64 / 1024.0,
        start_ms,
    };
    let bar = progress(format!("{} update at {vhosts} vhosts", peer.name()), updates as u64 * 2);
    let figures = match peer {
        Peer::Dysvr => in_place(&proxy, figures, updates, &bar),
        Peer::Nginx => reloads(&proxy, figures, updates, &bar),
    };
    bar.finish();
    figures
}

fn in_place(proxy: &Proxy, mut figures: Figures, updates: usize, bar: &indicatif::ProgressBar) -> Result<Figures> {
    let (master, workers) = (proxy.master(), proxy.workers());
    let all: BTreeSet<i32> = workers.iter().copied().chain([master]).collect();
    let mut next = figures.vhosts;
    let mut update = || -> Result<(usize, Instant, Instant)> {
        let number = next;
        next += 1;
        corpus::write_vhost(Peer::Dysvr, &proxy.prefix, number)?;
        let file = proxy.prefix.task_file();
        let task_id = number as u64 + 1;
        let conf = file.path.with_file_name(format!("dysvr_{task_id}.conf"));
        std::fs::write(&conf, format!("include {};\n", proxy.prefix.conf(&corpus::file(number)).display()))?;
        let ups_id = corpus::ups_id(number);
        file.write(&Line::text(Kind::Add, &conf, &[corpus::vsvc_id(number)], &[&ups_id], task_id))?;
        let mut watch = file.watch()?;
        let begin = Instant::now();
        signal::send_dysvr(master)?;
        let verdict = watch.verdict(task_id, LIMIT)?;
        ensure!(verdict.done, "task {task_id} failed: {:?}", verdict.line);
        Ok((number, begin, verdict.at))
    };

    // Processor time in a series of its own: nobody asks in between, so all of it belongs to the updates.
    let before = cpu_ns(&all)?;
    for _ in 0..updates {
        update()?;
        bar.inc(1);
    }
    let after = cpu_ns(&all)?;
    figures.cpu_ms.push((after - before) as f64 / 1e6 / updates as f64);

    let mut pinned = client::pin_every_worker(proxy.prefix.addr(), &corpus::name(0), &workers, LIMIT)?;
    for _ in 0..updates {
        let (number, begin, done) = update()?;
        for (pid, connection) in &mut pinned {
            let reply = connection.get(&corpus::name(number), WHO).with_context(|| format!("asking worker {pid}"))?;
            let right = reply.status == 200 && reply.text() == corpus::name(number) && reply.worker() == Some(*pid);
            ensure!(right, "worker {pid} answers {} {:?} after D", reply.status, reply.text());
        }
        figures.asked_ms.push(ms(begin.elapsed()));
        figures.served_ms.push(ms(done - begin));
        bar.inc(1);
    }
    ensure!(proxy.workers() == workers, "workers were replaced: {workers:?} are now {:?}", proxy.workers());
    Ok(figures)
}

fn reloads(proxy: &Proxy, mut figures: Figures, updates: usize, bar: &indicatif::ProgressBar) -> Result<Figures> {
    let master = proxy.master();
    for (number, round) in (figures.vhosts..).zip(0..updates * 2) {
        let old = proxy.workers();
        let before = cpu_ns(&old.iter().copied().chain([master]).collect())?;
        let old_before = cpu_ns(&old)?;
        corpus::write_vhost(Peer::Nginx, &proxy.prefix, number)?;
        let begin = Instant::now();
        signal::send(master, Signal::SIGHUP)?;
        // What the old workers spend until they are gone counts; the last look before their end is all that there is.
        let mut old_last = old_before;
        let new = wait::eventually("new workers", LIMIT, || {
            old_last = cpu_ns(&old).unwrap_or(old_last).max(old_last);
            let new: BTreeSet<i32> = proxy.workers().difference(&old).copied().collect();
            if new.len() == old.len() { Ok(new) } else { Err("not all are there") }
        })?;
        if round % 2 == 0 {
            let name = corpus::name(number);
            let mut asked: BTreeSet<i32> = BTreeSet::new();
            wait::eventually("every new worker to serve the new vhost", LIMIT, || -> Result<()> {
                let mut batch: Vec<Connection> =
                    (0..8).map(|_| Connection::open(proxy.prefix.addr())).collect::<std::io::Result<_>>()?;
                for connection in &mut batch {
                    let reply = connection.get(&name, WHO)?;
                    if reply.status == 200 && reply.text() == name {
                        asked.extend(reply.worker());
                    }
                }
                ensure!(new.is_subset(&asked), "{asked:?} of {new:?}");
                Ok(())
            })?;
            figures.served_ms.push(ms(begin.elapsed()));
            figures.asked_ms.push(ms(begin.elapsed()));
        }
        wait::until("the old workers to go", LIMIT, || {
            old_last = cpu_ns(&old).unwrap_or(old_last).max(old_last);
            proxy.workers() == new
        })?;
        if round % 2 == 1 {
            let after = cpu_ns(&new.iter().copied().chain([master]).collect())?;
            let spent = (after + old_last).saturating_sub(before);
            figures.cpu_ms.push(spent as f64 / 1e6);
        }
        bar.inc(1);
    }
    Ok(figures)
}

fn cpu_ns(pids: &BTreeSet<i32>) -> Result<u64> {
    pids.iter().map(|pid| procfs::cpu_ns(*pid).with_context(|| format!("process {pid} is gone"))).sum()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
