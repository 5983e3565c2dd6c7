//! How peers take one vhost more: nginx by a reload, from the signal until every new worker serves it, and the processor
//! time of all its processes until the old ones are gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::corpus::{self, Vhost, WHO};
use super::spent::{Spent, pss_kib};
use super::{Peer, figures, progress};
use crate::client::{self, Connection};
use crate::proxy::Proxy;
use crate::{procfs, signal, wait};

/// No reload takes longer.
const LIMIT: Duration = Duration::from_secs(300);

/// What was measured for one peer at one size.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Which.
    pub peer: Peer,
    /// By which way.
    pub way: &'static str,
    /// How many vhosts there were at the start.
    pub vhosts: usize,
    /// Until every worker serves, in ms, one per update.
    pub served_ms: Vec<f64>,
    /// Processor time per update of all its processes, in ms, one per update.
    pub cpu_ms: Vec<f64>,
    /// Memory of all its processes before the first update, in KiB.
    pub memory_kib: f64,
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

/// Measures nginx: `reloads` for latency and as many for processor time (who asks for the one disturbs the other).
///
/// # Errors
/// When nginx does not do what is asked.
pub fn nginx(vhosts: usize, reloads: usize) -> Result<Figures> {
    let bar = progress(format!("nginx: reload at {vhosts} vhosts"), reloads as u64 * 2);
    let prefix = corpus::many_vhosts(Peer::Nginx, vhosts)?;
    let begin = Instant::now();
    let proxy = Proxy::start_from(&Peer::Nginx.binary()?, prefix)?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    client::pin_every_worker(proxy.prefix.addr(), &Vhost::first(0).name(), &proxy.workers(), LIMIT)?;
    let start_ms = begin.elapsed().as_secs_f64() * 1e3;
    let memory_kib = pss_kib(&proxy.workers().into_iter().chain([proxy.master()]).collect());
    let (mut served_ms, mut cpu_ms) = (Vec::new(), Vec::new());
    for (number, round) in (vhosts..).zip(0..reloads * 2) {
        let vhost = Vhost { number, place: number, revision: 0 };
        if round % 2 == 0 {
            served_ms.push(reload(&proxy, &vhost, true)?.0);
        } else {
            cpu_ms.push(reload(&proxy, &vhost, false)?.1);
        }
        bar.inc(1);
    }
    bar.finish();
    Ok(Figures { peer: Peer::Nginx, way: "reload", vhosts, served_ms, cpu_ms, memory_kib, start_ms })
}

/// One reload: how long until every new worker answers for the vhost (0 when nobody asks), and what it cost, in ms.
fn reload(proxy: &Proxy, vhost: &Vhost, ask: bool) -> Result<(f64, f64)> {
    let (master, old) = (proxy.master(), proxy.workers());
    let before = Spent::by(&old.iter().copied().chain([master]).collect())?.cpu_ms;
    let cpu = |pids: &BTreeSet<i32>| pids.iter().filter_map(|pid| procfs::cpu_ns(*pid)).sum::<u64>() as f64 / 1e6;
    vhost.write(Peer::Nginx, &proxy.prefix)?;
    let begin = Instant::now();
    signal::send(master, Signal::SIGHUP)?;
    // What the old workers spend until they are gone counts; the last look before their end is all that there is.
    let mut old_last = 0.0_f64;
    let new = wait::eventually("new workers", LIMIT, || {
        old_last = old_last.max(cpu(&old));
        let new: BTreeSet<i32> = proxy.workers().difference(&old).copied().collect();
        if new.len() == old.len() { Ok(new) } else { Err("not all are there") }
    })?;
    let mut served = 0.0;
    if ask {
        let mut asked: BTreeSet<i32> = BTreeSet::new();
        wait::eventually("every new worker to serve the new vhost", LIMIT, || -> Result<()> {
            let mut batch: Vec<Connection> =
                (0..8).map(|_| Connection::open(proxy.prefix.addr())).collect::<std::io::Result<_>>()?;
            for connection in &mut batch {
                let reply = connection.get(&vhost.name(), WHO)?;
                if reply.status == 200 && reply.text() == vhost.who() {
                    asked.extend(reply.worker());
                }
            }
            ensure!(new.is_subset(&asked), "{asked:?} of {new:?}");
            Ok(())
        })?;
        served = begin.elapsed().as_secs_f64() * 1e3;
    }
    wait::until("the old workers to go", LIMIT, || {
        old_last = old_last.max(cpu(&old));
        proxy.workers() == new
    })?;
    Ok((served, cpu(&new) + cpu(&BTreeSet::from([master])) + old_last - before))
}
