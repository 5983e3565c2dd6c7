//! Clients as browsers are: they come, ask, and may come again. Every request must be answered with 200; a connection may
//! end between two requests, as HTTP allows, but not within one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use crate::client::Connection;
use crate::proxy::LIMIT;
use crate::wait;

/// The pause between two requests of one client: a load, but not one that fills the machine.
const PAUSE: Duration = Duration::from_millis(2);

/// How many more answers show that clients are served.
const SOME: u64 = 50;

/// Running clients.
#[derive(Debug)]
pub struct Comers {
    ending: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Comers {
    /// Starts so many clients; with `keepalive` they keep their connections for as long as the other side does, otherwise
    /// each request has one of its own.
    ///
    /// # Errors
    /// When they are not answered.
    pub fn start(addr: SocketAddr, count: usize, keepalive: bool) -> Result<Self> {
        let (ending, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..count).map(|_| {
            let (ending, answered) = (Arc::clone(&ending), Arc::clone(&answered));
            std::thread::spawn(move || run(addr, keepalive, &ending, &answered))
        });
        let comers = Self { threads: threads.collect(), ending, answered };
        comers.more()?;
        Ok(comers)
    }

    /// Waits for some more answers.
    ///
    /// # Errors
    /// When they do not come.
    pub fn more(&self) -> Result<()> {
        let begin = self.answered.load(Ordering::Relaxed);
        wait::until("more answers", LIMIT, || self.answered.load(Ordering::Relaxed) > begin + SOME)
    }

    /// Ends them.
    ///
    /// # Errors
    /// When a request has failed.
    pub fn stop(mut self) -> Result<()> {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let failures = thread.join().map_err(|_| anyhow!("a client's thread panicked"))?;
            ensure!(failures.is_empty(), "{} failures: {:?}", failures.len(), &failures[..failures.len().min(5)]);
        }
        Ok(())
    }
}

impl Drop for Comers {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

fn run(addr: SocketAddr, keepalive: bool, ending: &AtomicBool, answered: &AtomicU64) -> Vec<String> {
    let mut failures = Vec::new();
    let mut kept: Option<Connection> = None;
    while !ending.load(Ordering::Relaxed) {
        let asked = match kept.take() {
            None => Connection::open(addr).and_then(|connection| ask(connection, false)),
            Some(connection) => ask(connection, true),
        };
        match asked {
            Ok(Asked::Answered(connection)) => {
                answered.fetch_add(1, Ordering::Relaxed);
                kept = connection.filter(|_| keepalive);
                std::thread::sleep(PAUSE);
            }
            // It was closed while nothing was going on: the same request again, on a new one.
            Ok(Asked::Closed) => {}
            Err(error) => failures.push(error.to_string()),
        }
    }
    failures
}

enum Asked {
    /// With the connection, if it goes on.
    Answered(Option<Connection>),
    /// The other side had closed before it saw the request.
    Closed,
}

fn ask(mut connection: Connection, reused: bool) -> std::io::Result<Asked> {
    use std::io::BufRead as _;
    let mut send = || {
        connection.send("GET", "/", &[("Host", "any.example")], b"")?;
        connection.stream().fill_buf().map(|bytes| bytes.is_empty())
    };
    match send() {
        Ok(false) => {}
        Ok(true) | Err(_) if reused => return Ok(Asked::Closed),
        Ok(true) => return Err(std::io::Error::other("closed without an answer")),
        Err(error) => return Err(error),
    }
    let reply = connection.reply("GET")?;
    if reply.status != 200 {
        return Err(std::io::Error::other(format!("{reply:?}")));
    }
    let closes = reply.head.has_word("connection", "close");
    Ok(Asked::Answered((!closes).then_some(connection)))
}
