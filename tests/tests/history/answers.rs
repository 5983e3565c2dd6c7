//! What each worker of a proxy answers, on every port and for every host, over TLS with the certificate that it shows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use dysvr_tests::client::{self, Reply};
use dysvr_tests::proxy::{LIMIT, Proxy};
use dysvr_tests::tls::Client;
use dysvr_tests::wait;

use super::world::World;

const HOSTS: [&str; 6] = ["a.example", "b.example", "x.b.example", "www.test", "c.test", "nobody"];

const TARGETS: [&str; 4] = ["/", "/map", "/up?x=1", "/away"];

/// Line by line, by worker: the same lines in the same order for all proxies of a world.
pub fn answers(proxy: &Proxy, ip: &str, world: &World) -> Result<BTreeMap<i32, Vec<String>>> {
    let workers = proxy.workers();
    let mut all: BTreeMap<i32, Vec<String>> = workers.iter().map(|pid| (*pid, Vec::new())).collect();
    for port in world.ports {
        let addr: SocketAddr = format!("{ip}:{port}").parse()?;
        let by_worker = match kind(addr)? {
            Kind::Closed => workers.iter().map(|pid| (*pid, vec!["closed".to_owned()])).collect(),
            Kind::Plain => plain(addr, &workers)?,
            Kind::Tls => tls(addr, &workers, world)?,
        };
        for (pid, lines) in by_worker {
            all.entry(pid).or_default().extend(lines.into_iter().map(|line| format!("{port} {line}")));
        }
    }
    Ok(all)
}

enum Kind {
    Closed,
    Plain,
    Tls,
}

fn kind(addr: SocketAddr) -> Result<Kind> {
    match client::get(addr, HOSTS[0], "/") {
        Ok(reply) if reply.text().contains("sent to HTTPS port") => Ok(Kind::Tls),
        Ok(_) => Ok(Kind::Plain),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Kind::Closed),
        Err(error) => bail!("asking {addr}: {error}"),
    }
}

fn plain(addr: SocketAddr, workers: &BTreeSet<i32>) -> Result<BTreeMap<i32, Vec<String>>> {
    let mut all = BTreeMap::new();
    for (pid, mut connection) in client::pin_every_worker(addr, HOSTS[0], workers, LIMIT)? {
        let one = |(host, target)| Ok(format!("{host} {target}: {}", said(&connection.get(host, target)?)));
        all.insert(pid, asked().map(one).collect::<Result<_>>()?);
    }
    Ok(all)
}

fn tls(addr: SocketAddr, workers: &BTreeSet<i32>, world: &World) -> Result<BTreeMap<i32, Vec<String>>> {
    let mut all: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let client = Client::new()?;
    for name in HOSTS {
        let mut missing = workers.clone();
        wait::eventually("a handshake with every worker", LIMIT, || -> Result<()> {
            for session in client.connect_many(addr, name, 8)? {
                let mut session = session?;
                let pid = session.get(name, "/")?.worker().context("no worker")?;
                if missing.remove(&pid) {
                    let lines = all.entry(pid).or_default();
                    lines.push(format!("{name}: certificate {:?}", world.shown(session.certificate())));
                    for target in TARGETS {
                        lines.push(format!("{name} {target}: {}", said(&session.get(name, target)?)));
                    }
                }
            }
            ensure!(missing.is_empty(), "workers {missing:?} have not answered");
            Ok(())
        })?;
    }
    Ok(all)
}

fn asked() -> impl Iterator<Item = (&'static str, &'static str)> {
    HOSTS.into_iter().flat_map(|host| TARGETS.into_iter().map(move |target| (host, target)))
}

/// All of an answer that does not say who gave it and when.
fn said(reply: &Reply) -> String {
    let headers = reply.head.headers.iter().filter(|(name, _)| {
        let mine = ["date", "x-worker", "x-task"];
        !mine.iter().any(|one| name.eq_ignore_ascii_case(one))
    });
    format!("{} {:?} {:?}", reply.status, headers.collect::<Vec<_>>(), reply.text())
}
