//! A client that keeps hold of its connection, so that a test knows which worker it talks to, and the way to ask every
//! worker by its pid.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::http::{Framing, Head, read_body, read_head};
use crate::proxy::LIMIT;
use crate::wait;

/// No answer of a test takes longer than this without a byte.
const READ_LIMIT: Duration = LIMIT;

/// The header by which a worker says its pid: see [`crate::prefix`].
pub const WORKER_HEADER: &str = "X-Worker";

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status line and header.
    pub head: Head,
    /// 200 and so on.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The pid of the worker that answered.
    pub fn worker(&self) -> Option<i32> {
        self.head.header(WORKER_HEADER)?.parse().ok()
    }
}

/// One open connection.
#[derive(Debug)]
pub struct Connection {
    input: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self { input: BufReader::new(connect(addr)?) })
    }

    /// GET with nothing but a host.
    ///
    /// # Errors
    /// When the connection fails or the answer is none.
    pub fn get(&mut self, host: &str, target: &str) -> io::Result<Reply> {
        self.request("GET", target, &[("Host", host)], b"")
    }

    /// Any request; a body gets its length.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Reply> {
        self.send(method, target, headers, body)?;
        self.reply(method)
    }

    /// The next answer, to a request that was sent.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn reply(&mut self, method: &str) -> io::Result<Reply> {
        let head = self.head()?;
        let framing = Framing::of_response(&head, method)?;
        let body = read_body(&mut self.input, framing)?;
        Ok(Reply { status: head.status()?, head, body })
    }

    /// Sends a request and does not wait.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut message = format!("{method} {target} HTTP/1.1\r\n");
        for (name, value) in headers {
            message.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            message.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        message.push_str("\r\n");
        let mut message = message.into_bytes();
        message.extend_from_slice(body);
        self.input.get_mut().write_all(&message)
    }

    /// The head of the next answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn head(&mut self) -> io::Result<Head> {
        read_head(&mut self.input)?.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "closed"))
    }

    /// The stream after a head: for dripping answers and upgraded connections.
    pub fn stream(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.input
    }
}

/// A socket that waits no longer than a test should.
pub(crate) fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    Ok(stream)
}

/// One request on a connection of its own.
///
/// # Errors
/// As [`Connection::get`].
pub fn get(addr: SocketAddr, host: &str, target: &str) -> io::Result<Reply> {
    Connection::open(addr)?.get(host, target)
}

/// A connection to every worker of `pids`, by pid. Workers share their listeners, so connections are opened, many at
/// once, until each worker has taken one.
///
/// # Errors
/// After `limit`, with those that never answered.
pub fn pin_every_worker(
    addr: SocketAddr,
    host: &str,
    pids: &BTreeSet<i32>,
    limit: Duration,
) -> Result<BTreeMap<i32, Connection>> {
    pin(addr, host, pids, limit, || true)?.context("the workers have become others")
}

/// As [`pin_every_worker`]; `None` as soon as `same` says that these are not the workers any more.
fn pin(
    addr: SocketAddr,
    host: &str,
    pids: &BTreeSet<i32>,
    limit: Duration,
    same: impl Fn() -> bool,
) -> Result<Option<BTreeMap<i32, Connection>>> {
    // More each time, within what a test may have open: on a busy machine whoever runs takes all that there are, and a
    // worker whose turn comes late must still find some.
    const MOST: usize = 128;
    let mut count = 8;
    let mut pinned = BTreeMap::new();
    let all = wait::eventually("every worker to take a connection", limit, || -> Result<bool> {
        if !same() {
            return Ok(false);
        }
        // All have asked before any answer is read: who has accepted has work to do, and leaves the rest to the others.
        let asked = (0..count).map(|_| {
            let mut connection = Connection::open(addr)?;
            connection.send("GET", "/", &[("Host", host)], b"")?;
            Ok(connection)
        });
        let batch: Vec<Connection> = asked.collect::<io::Result<_>>()?;
        count = (count * 2).min(MOST);
        for mut connection in batch {
            let reply = connection.reply("GET")?;
            let pid = reply.worker().with_context(|| format!("no {WORKER_HEADER} in the answer"))?;
            if pids.contains(&pid) {
                pinned.entry(pid).or_insert(connection);
            }
        }
        let missing: Vec<&i32> = pids.iter().filter(|pid| !pinned.contains_key(pid)).collect();
        ensure!(missing.is_empty(), "workers {missing:?} have not answered");
        Ok(true)
    })?;
    Ok(all.then_some(pinned))
}

/// The answer of every worker that there is, by pid. Workers that come or go meanwhile (those before a reload may
/// still be there behind it) are nobody's fault: then all are asked again.
///
/// # Errors
/// As [`pin_every_worker`], or when a request fails, while the workers stay the same.
pub fn ask_every_worker(
    addr: SocketAddr,
    workers: impl Fn() -> BTreeSet<i32>,
    host: &str,
    target: &str,
    limit: Duration,
) -> Result<BTreeMap<i32, Reply>> {
    let begin = Instant::now();
    let left = || limit.saturating_sub(begin.elapsed());
    loop {
        let some = || Some(workers()).filter(|pids| !pids.is_empty());
        let pids = wait::eventually("workers", left(), || some().ok_or("there are none"))?;
        let same = || workers() == pids;
        let pinned = pin(addr, host, &pids, left(), same)?;
        let answers = pinned.into_iter().flatten().map(|(pid, mut connection)| {
            let reply = connection.get(host, target).with_context(|| format!("asking worker {pid}"))?;
            Ok((pid, reply))
        });
        let answers = answers.collect::<Result<BTreeMap<i32, Reply>>>();
        if same() && answers.as_ref().map_or(true, |answers| answers.len() == pids.len()) {
            return answers;
        }
        ensure!(!left().is_zero(), "the workers do not stay the same: {pids:?} have become {:?}", workers());
    }
}
