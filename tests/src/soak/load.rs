//! Requests at a steady rate that does not wait for answers (an open loop: when the proxy stalls, what was due meanwhile is
//! late and counts as such), each checked for where it went and which revision answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::site::{self, Site};
use super::state::State;
use super::tally::Tally;
use super::wire::{Head, read_body};

/// No answer takes longer.
pub const LIMIT: Duration = crate::proxy::LIMIT;

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// The proxy.
    pub addr: SocketAddr,
    /// What may be answered.
    pub site: Arc<Site>,
    /// How many of the vhosts change.
    pub changing: usize,
    /// Whether clients sometimes stop between head and body: not where it is counted how long answers take.
    pub pauses: bool,
    /// What was seen.
    pub tally: Tally,
    /// Set when it is over.
    pub ending: AtomicBool,
}

/// A connection whose other end is the proxy.
pub type Stream = BufReader<TcpStream>;

impl Shared {
    /// Whether it is over.
    pub fn ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Connects.
    ///
    /// # Errors
    /// When the proxy does not take it.
    pub async fn connect(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }

    /// Which vhost an answer's head shows, against what it may show; whether that is none.
    ///
    /// # Errors
    /// With what is wrong, in words.
    pub fn check(&self, number: usize, head: &Head, from: Instant, to: Instant) -> Result<bool, String> {
        let allowed: Vec<State> = self.site.history(number).allowed(from, to).collect();
        let may = || allowed.iter().map(State::to_string).collect::<Vec<String>>().join(" ");
        if head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Err("the answer closes the connection".to_owned());
        }
        let header = |name: &str| head.header(name).unwrap_or("-");
        match head.status() {
            404 if head.header("x-vhost").is_none() => {
                if allowed.contains(&State::Absent) {
                    Ok(true)
                } else {
                    Err(format!("not found, may be {}", may()))
                }
            }
            200 | 101 => {
                let (name, host) = (site::name(number), site::host(number));
                if header("x-vhost") != name || header("x-seen-vhost") != name || header("x-seen-host") != host {
                    return Err(format!("misrouted: {head:?}"));
                }
                let (vhost, seen): (Option<u64>, Option<u64>) =
                    (header("x-rev").parse().ok(), header("x-seen-rev").parse().ok());
                let origin: Option<usize> = header("x-origin").parse().ok();
                if vhost.is_none() || vhost != seen {
                    return Err(format!("mixed: the headers of revision {vhost:?}, the request of {seen:?}"));
                }
                let of = |state: &State| match *state {
                    State::Present { vhost: revision, upstream } => {
                        Some(revision) == vhost && Some(self.site.origin(number, upstream)) == origin
                    }
                    State::Absent => false,
                };
                if allowed.iter().any(of) {
                    return Ok(false);
                }
                Err(format!("revision {vhost:?} from origin {origin:?}, may be {}", may()))
            }
            _ => Err(format!("failed: {}", head.start())),
        }
    }
}

/// One keepalive connection that asks every `mean` on average until it is over.
pub async fn connection(shared: Arc<Shared>, number: usize, mean: Duration, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut open: Option<Stream> = None;
    let mut sequence = 0_u64;
    let mut due = Instant::now() + mean.mul_f64(random.random_range(0.0..1.0));
    while !shared.ending() {
        let free = Instant::now();
        if due > free {
            tokio::time::sleep_until(due.into()).await;
        }
        let mut stream = match open.take() {
            Some(stream) => stream,
            None => match shared.connect().await {
                Ok(stream) => stream,
                Err(error) => {
                    shared.tally.violation(format!("connection {number}: no connection: {error}"));
                    due = Instant::now() + Duration::from_millis(100);
                    continue;
                }
            },
        };
        // Late through an earlier answer: it counts from when it was due.
        let begin = if free > due { due } else { Instant::now() };
        due += mean.mul_f64(-random.random_range(f64::EPSILON..1.0).ln());
        sequence += 1;
        let ask = Ask::random(&shared, format!("/q/{number}/{sequence}"), &mut random);
        let asked = tokio::time::timeout(LIMIT, ask.run(&shared, &mut stream));
        let outcome = asked.await.unwrap_or_else(|_| Err(format!("no answer in {LIMIT:?}")));
        match outcome {
            Ok(absent) => {
                shared.tally.answer(begin.elapsed(), absent);
                open = Some(stream);
            }
            Err(words) => {
                let host = site::host(ask.vhost);
                shared.tally.violation(format!("connection {number}, request {sequence} for {host}: {words}"));
            }
        }
    }
}

/// One request.
struct Ask {
    vhost: usize,
    target: String,
    body: Option<Vec<u8>>,
    /// Between head and body.
    pause: Option<Duration>,
}

impl Ask {
    fn random(shared: &Shared, target: String, random: &mut StdRng) -> Self {
        let all = shared.site.len().max(1);
        // Most go where things change.
        let range = if random.random_bool(0.75) { shared.changing.clamp(1, all) } else { all };
        let body = random.random_bool(0.1).then(|| vec![b'b'; random.random_range(1..2000)]);
        let pauses = shared.pauses && body.is_some() && random.random_bool(0.2);
        let pause = pauses.then(|| Duration::from_millis(20));
        Self { vhost: random.random_range(0..range), target, body, pause }
    }

    async fn run(&self, shared: &Shared, stream: &mut Stream) -> Result<bool, String> {
        let from = Instant::now();
        let (head, body) = self.exchange(stream).await.map_err(|error| format!("failed: {error}"))?;
        let absent = shared.check(self.vhost, &head, from, Instant::now())?;
        let sent = self.body.as_deref().unwrap_or_default();
        let whole = body.strip_prefix(self.target.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n")) == Some(sent);
        if !absent && !whole {
            return Err(format!("the body is not that of {}: {:?}", self.target, String::from_utf8_lossy(&body)));
        }
        Ok(absent)
    }

    async fn exchange(&self, stream: &mut Stream) -> io::Result<(Head, Vec<u8>)> {
        let (target, host) = (&self.target, site::host(self.vhost));
        match &self.body {
            None => stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?,
            Some(body) => {
                let length = body.len();
                let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                if let Some(pause) = self.pause {
                    tokio::time::sleep(pause).await;
                }
                stream.write_all(body).await?;
            }
        }
        let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed");
        let head = Head::read(stream).await?.ok_or_else(closed)?;
        let length = head.length().ok_or_else(|| io::Error::other(format!("no length: {head:?}")))?;
        let body = read_body(stream, length).await?;
        Ok((head, body))
    }
}
