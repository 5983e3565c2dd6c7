//! A steady load: keepalive connections that ask again and again and write down everything that goes wrong.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::client::Connection;
use crate::proxy::LIMIT;
use crate::wait;

/// How long one connection rests between two requests: the load is to be steady, not to fill the machine.
const PAUSE: Duration = Duration::from_millis(10);

/// A running load.
#[derive(Debug)]
pub struct Load {
    ending: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    connections: Vec<JoinHandle<Seen>>,
}

/// What one connection saw.
#[derive(Debug, Default)]
struct Seen {
    requests: u64,
    failures: Vec<String>,
    workers: BTreeMap<i32, u64>,
    longest: Duration,
}

/// What all connections of a load saw.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Requests that were answered.
    pub requests: u64,
    /// Answers other than 200, failed requests, closed connections: in words.
    pub failures: Vec<String>,
    /// Answers by worker pid.
    pub workers: BTreeMap<i32, u64>,
    /// The longest time that an answer took.
    pub longest: Duration,
}

impl Load {
    /// Opens `connections` connections, each of which asks for `target` of one of `hosts` in turn.
    ///
    /// # Errors
    /// When threads or connections cannot be made, or when not every connection had its first answer in time.
    pub fn start(addr: SocketAddr, connections: usize, hosts: &[&str], target: &str) -> Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let mut load = Self { ending, answered, connections: Vec::new() };
        for number in 0..connections {
            let connection = Connection::open(addr).context("opening a connection of the load")?;
            let (ending, answered) = (Arc::clone(&load.ending), Arc::clone(&load.answered));
            let host = hosts.get(number % hosts.len().max(1)).copied().unwrap_or("localhost").to_owned();
            let target = target.to_owned();
            let thread = std::thread::Builder::new()
                .name(format!("load {number}"))
                .spawn(move || run(connection, number, &host, &target, &ending, &answered))?;
            load.connections.push(thread);
        }
        let all = connections as u64;
        wait::until("the first answers of the load", LIMIT, || load.answered() >= all)?;
        Ok(load)
    }

    /// How many requests have been answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends the load and gives what it saw.
    ///
    /// # Errors
    /// When a thread has panicked.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.ending.store(true, Ordering::Relaxed);
        let mut report = LoadReport::default();
        for thread in self.connections.drain(..) {
            let seen = thread.join().map_err(|_| anyhow!("a thread of the load panicked"))?;
            report.requests += seen.requests;
            report.failures.extend(seen.failures);
            report.longest = report.longest.max(seen.longest);
            for (pid, count) in seen.workers {
                *report.workers.entry(pid).or_default() += count;
            }
        }
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.connections.drain(..) {
            let _ = thread.join();
        }
    }
}

fn run(
    mut connection: Connection,
    number: usize,
    host: &str,
    target: &str,
    ending: &AtomicBool,
    answered: &AtomicU64,
) -> Seen {
    let mut seen = Seen::default();
    while !ending.load(Ordering::Relaxed) {
        let begin = Instant::now();
        match one(&mut connection, host, target) {
            Ok(worker) => {
                seen.requests += 1;
                seen.longest = seen.longest.max(begin.elapsed());
                if let Some(pid) = worker {
                    *seen.workers.entry(pid).or_default() += 1;
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
            // One failure ends this connection's part: the report says which and why.
            Err(error) => {
                seen.failures.push(format!("connection {number}, after {} requests: {error}", seen.requests));
                return seen;
            }
        }
        std::thread::sleep(PAUSE);
    }
    seen
}

fn one(connection: &mut Connection, host: &str, target: &str) -> io::Result<Option<i32>> {
    let reply = connection.get(host, target)?;
    if reply.status != 200 {
        return Err(io::Error::other(format!("{}: {}", reply.head.start, reply.text())));
    }
    if reply.head.has_word("connection", "close") {
        return Err(io::Error::other("the answer says that the connection closes"));
    }
    Ok(reply.worker())
}
