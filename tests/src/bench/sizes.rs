//! What many vhosts cost before anything changes: memory of all processes, and the time from exec until every worker
//! serves. Files on a tmpfs, read once before they are measured.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::corpus::{self, Vhost, WHO};
use super::goals::Goal;
use super::part::Part;
use super::plot::{Line, Panel, Shape};
use super::print::{self, kib, millis};
use super::spent::pss_kib;
use super::{Peer, figures, progress, reload};
use crate::client;
use crate::prefix::Prefix;
use crate::proxy::Proxy;
use crate::wait;

/// No start takes longer.
const LIMIT: Duration = Duration::from_secs(300);

/// One size.
#[derive(Clone, Debug)]
pub struct Size {
    /// How many vhosts.
    pub vhosts: usize,
    /// exec → every worker has answered for the last vhost, in ms, one per start.
    pub start_ms: Vec<f64>,
    /// Memory of all processes, in KiB, right after the start.
    pub memory_kib: f64,
}

/// All sizes.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    /// Memory without any vhost but the default one.
    pub empty_kib: f64,
    /// In the order of their size.
    pub sizes: Vec<Size>,
    /// What peers have, from the part of updates.
    pub peers: Vec<reload::Figures>,
}

/// Measures `starts` starts at each size.
///
/// # Errors
/// When a proxy does not serve.
pub fn measure(sizes: &[usize], starts: usize) -> Result<Sizes> {
    let bar = progress("cold starts".to_owned(), (sizes.len() * starts) as u64);
    let mut all = Sizes { empty_kib: start(corpus::many_vhosts(Peer::Dysvr, 0)?, 0)?.2, ..Sizes::default() };
    for &vhosts in sizes {
        let mut size = Size { vhosts, start_ms: Vec::new(), memory_kib: 0.0 };
        let mut prefix = corpus::many_vhosts(Peer::Dysvr, vhosts)?;
        for _ in 0..starts {
            let (again, ms, memory_kib) = start(prefix, vhosts).with_context(|| format!("{vhosts} vhosts"))?;
            prefix = again;
            size.start_ms.push(ms);
            size.memory_kib = memory_kib;
            bar.inc(1);
        }
        all.sizes.push(size);
    }
    bar.finish();
    Ok(all)
}

/// One start and its end.
fn start(prefix: Prefix, vhosts: usize) -> Result<(Prefix, f64, f64)> {
    let begin = Instant::now();
    let proxy = Proxy::start_from(&Peer::Dysvr.binary()?, prefix)?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    let (workers, last) = (proxy.workers(), Vhost::first(vhosts.saturating_sub(1)));
    let mut pinned = client::pin_every_worker(proxy.prefix.addr(), &last.name(), &workers, LIMIT)?;
    let ms = begin.elapsed().as_secs_f64() * 1e3;
    for (pid, connection) in pinned.iter_mut().filter(|_| vhosts > 0) {
        let reply = connection.get(&last.name(), WHO)?;
        ensure!(reply.text() == last.who(), "worker {pid} answers {:?} for {}", reply.text(), last.name());
    }
    let processes: BTreeSet<i32> = workers.into_iter().chain([proxy.master()]).collect();
    let memory_kib = pss_kib(&processes);
    Ok((proxy.into_prefix(), ms, memory_kib))
}

impl Sizes {
    fn each(&self, size: &Size) -> f64 {
        size.memory_kib / size.vhosts.max(1) as f64
    }

    fn marginal(&self, size: &Size) -> f64 {
        (size.memory_kib - self.empty_kib) / size.vhosts.max(1) as f64
    }
}

impl Part for Sizes {
    fn name(&self) -> &'static str {
        "sizes"
    }

    fn table(&self) -> String {
        let ours = self.sizes.iter().map(|size| {
            vec![
                print::count(size.vhosts),
                "dysvr".to_owned(),
                kib(size.memory_kib),
                kib(self.each(size)),
                kib(self.marginal(size)),
                millis(figures::median(&size.start_ms)),
            ]
        });
        let peers = self.peers.iter().filter(|peer| peer.memory_kib > 0.0).map(|peer| {
            vec![
                print::count(peer.vhosts),
                peer.peer.name().to_owned(),
                kib(peer.memory_kib),
                kib(peer.memory_kib / peer.vhosts.max(1) as f64),
                String::new(),
                millis(peer.start_ms),
            ]
        });
        print::table(
            &format!(
                "Memory of all processes (PSS; {} without a vhost) and cold start, files on a tmpfs",
                kib(self.empty_kib)
            ),
            &["vhosts", "proxy", "memory", "per vhost", "beyond the empty one", "start"],
            ours.chain(peers).collect::<Vec<Vec<String>>>(),
        )
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for size in &self.sizes {
            let count = print::count(size.vhosts);
            goals.push(Goal::at_most(format!("memory per vhost (PSS / vhosts), {count}"), self.each(size), 4.0, kib));
            let start = figures::median(&size.start_ms);
            goals.push(match size.vhosts {
                // The goal is one of 100,000.
                100_000 => Goal::at_most(format!("cold start, {count}"), start, 1500.0, millis),
                _ => Goal::beside(format!("cold start, {count}"), millis(start)),
            });
        }
        goals
    }

    fn panels(&self) -> Vec<Panel> {
        let points = |figure: &dyn Fn(&Size) -> f64| {
            self.sizes.iter().map(|size| (size.vhosts as f64, figure(size))).collect::<Vec<(f64, f64)>>()
        };
        let peers = |peer: Peer, figure: &dyn Fn(&reload::Figures) -> f64| {
            let of = self.peers.iter().filter(|one| one.peer == peer && figure(one) > 0.0);
            Line::new(peer.name(), of.map(|one| (one.vhosts as f64, figure(one))).collect())
        };
        let panel = |title: &str, ours: Vec<(f64, f64)>, figure: &dyn Fn(&reload::Figures) -> f64| Panel {
            title: title.to_owned(),
            shape: Shape::Decades {
                x: "vhosts".to_owned(),
                lines: vec![Line::new("dysvr", ours), peers(Peer::Nginx, figure), peers(Peer::Haproxy, figure)],
            },
        };
        vec![
            panel("memory (PSS), MiB", points(&|size| size.memory_kib / 1024.0), &|peer| peer.memory_kib / 1024.0),
            panel("cold start, ms", points(&|size| figures::median(&size.start_ms)), &|peer| peer.start_ms),
        ]
    }

    fn json(&self) -> Value {
        let sizes = self.sizes.iter().map(|size| {
            json!({
                "vhosts": size.vhosts, "start_ms": size.start_ms, "memory_kib": size.memory_kib,
                "per_vhost_kib": self.each(size), "marginal_kib": self.marginal(size),
            })
        });
        json!({"empty_kib": self.empty_kib, "sizes": sizes.collect::<Vec<Value>>()})
    }
}
