//! The updates of a soak: at a steady rate, each of a random vhost, each proved by `D`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::load::Shared;
use super::site;
use super::state::State;
use crate::bench::driver::Driver;
use crate::client;
use crate::prefix::Prefix;
use crate::task::Kind;

/// What was changed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Vhosts added.
    pub adds: u64,
    /// Vhosts modified, half of them together with their upstream.
    pub modifies: u64,
    /// Vhosts deleted.
    pub deletes: u64,
    /// Upstreams modified alone.
    pub upstreams: u64,
    /// Of adds and modifies, those that opened a port.
    pub ports: u64,
    /// Signal to `D` of each, ms.
    pub took_ms: Vec<f64>,
}

impl Changes {
    /// How many.
    pub fn count(&self) -> u64 {
        self.adds + self.modifies + self.deletes + self.upstreams
    }
}

/// Changes vhosts `rate` times a second until so many are done or it is over, and tells of each.
///
/// # Errors
/// When a task does not end in `D`.
pub fn run(
    shared: &Arc<Shared>,
    prefix: &Prefix,
    driver: &mut Driver,
    (rate, limit): (f64, u64),
    seed: u64,
    mut done: impl FnMut(),
) -> Result<Changes> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut changes = Changes::default();
    let pause = Duration::from_secs_f64(1.0 / rate.max(0.001));
    let mut due = Instant::now() + pause;
    while !shared.ending() && changes.count() < limit {
        let now = Instant::now();
        if due > now {
            std::thread::sleep(due - now);
        }
        due += pause;
        change(shared, prefix, driver, &mut random, &mut changes)?;
        done();
    }
    Ok(changes)
}

fn change(
    shared: &Shared,
    prefix: &Prefix,
    driver: &mut Driver,
    random: &mut StdRng,
    changes: &mut Changes,
) -> Result<()> {
    let number = random.random_range(0..shared.changing.max(1));
    let before = shared.site.history(number).last();
    let (vhost_file, upstream_file) = (site::vhost_file(number), site::upstream_file(number));
    let mut whole = true;
    let (kind, after) = match before {
        // A vhost that comes back has revisions that were never seen before.
        State::Absent => {
            changes.adds += 1;
            let revision = changes.count() + 1_000;
            (Kind::Add, State::Present { vhost: revision, upstream: revision })
        }
        State::Present { vhost, upstream } => match random.random_range(0..100) {
            0..20 => {
                changes.deletes += 1;
                (Kind::Delete, State::Absent)
            }
            20..40 => {
                changes.modifies += 1;
                (Kind::Modify, State::Present { vhost: vhost + 1, upstream })
            }
            40..60 => {
                changes.modifies += 1;
                (Kind::Modify, State::Present { vhost: vhost + 1, upstream: upstream + 1 })
            }
            _ => {
                changes.upstreams += 1;
                whole = false;
                (Kind::Modify, State::Present { vhost, upstream: upstream + 1 })
            }
        },
    };
    shared.site.write(prefix, number, after)?;
    let files = match (kind, whole) {
        (Kind::Delete, _) => Vec::new(),
        (_, true) => vec![vhost_file],
        (_, false) => vec![upstream_file],
    };
    let ids = if whole { vec![site::vsvc_id(number)] } else { Vec::new() };
    shared.site.history(number).begin(after, Instant::now());
    let ran = driver.run(prefix, kind, &files, &ids, &[&site::name(number)]);
    let ran = ran.with_context(|| format!("{kind:?} of {} from {before} to {after}", site::name(number)))?;
    shared.site.history(number).done(ran.done);
    changes.took_ms.push(ran.ms());
    if let State::Present { vhost, .. } = after
        && whole
        && let Some(port) = shared.site.own_port(number, vhost)
    {
        changes.ports += 1;
        let reply = client::get((Ipv4Addr::LOCALHOST, port).into(), &site::host(number), "/own");
        let reply = reply.with_context(|| format!("port {port} of {} after D", site::name(number)))?;
        let revision = reply.head.header("x-rev").and_then(|revision| revision.parse().ok());
        let right = reply.status == 200 && revision == Some(vhost);
        ensure!(right, "port {port} of {} answers {:?} after D of r{vhost}", site::name(number), reply.head);
    }
    Ok(())
}
