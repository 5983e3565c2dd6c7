//! Connections that live long: upgraded ones on which lines go to and fro, answers that drip, and long answers that are
//! read slowly. Half of each kind stay for the whole soak, whatever becomes of their vhost; the others come again and
//! again.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

use super::load::{LIMIT, Shared, Stream};
use super::origin::pattern;
use super::site;
use super::tally::Lasted;
use super::wire::{Head, read_chunk};

/// Between two lines, drops or reads.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one of those that come again stays.
const LIFE: Duration = Duration::from_secs(5);
/// A long answer, and how much of it is read at once: more than the proxy keeps in memory.
const LOAD: usize = 4 << 20;
const PIECE: usize = 16 << 10;

#[derive(Clone, Copy, Debug)]
enum Way {
    Tunnel,
    Drip,
    Slow,
}

/// One after the other until it is over. Half of all numbers are tunnels.
pub async fn connections(shared: Arc<Shared>, number: usize, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let way = match number % 4 {
        0 | 2 => Way::Tunnel,
        1 => Way::Drip,
        _ => Way::Slow,
    };
    let life = (number / 4 % 2 == 1).then_some(LIFE);
    while !shared.ending() {
        let vhost = random.random_range(0..shared.changing.max(1));
        match one(&shared, way, vhost, life).await {
            Ok(true) => {}
            // Its vhost was absent: another one, not at once.
            Ok(false) => tokio::time::sleep(PAUSE).await,
            Err(words) => {
                shared.tally.violation(format!("{way:?} {number} at {}: {words}", site::host(vhost)));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Opens one and stays; whether its vhost was there.
async fn one(shared: &Shared, way: Way, vhost: usize, life: Option<Duration>) -> Result<bool, String> {
    let failed = |error: io::Error| format!("failed: {error}");
    let mut stream = shared.connect().await.map_err(failed)?;
    let host = site::host(vhost);
    let (target, upgrade) = match way {
        Way::Tunnel => ("/live".to_owned(), "Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        Way::Drip => (format!("/drip?{}", PAUSE.as_millis()), ""),
        Way::Slow => (format!("/load?{LOAD}"), ""),
    };
    let from = Instant::now();
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let head = within(async { Head::read(&mut stream).await?.ok_or_else(closed) }).await.map_err(failed)?;
    if shared.check(vhost, &head, from, Instant::now())? {
        return Ok(false);
    }
    let until = life.map(|life| from + life);
    let over = || shared.ending() || until.is_some_and(|until| Instant::now() >= until);
    let stayed = match way {
        Way::Tunnel if head.status() != 101 => Err(io::Error::other(format!("not upgraded: {}", head.start()))),
        Way::Tunnel => tunnel(shared, &mut stream, over).await,
        Way::Drip => drip(shared, &mut stream, over).await,
        Way::Slow => slow(shared, &mut stream, over).await,
    };
    stayed.map_err(failed)?;
    Ok(true)
}

async fn tunnel(shared: &Shared, stream: &mut Stream, over: impl Fn() -> bool) -> io::Result<()> {
    let mut line = String::new();
    let mut number = 0_u64;
    while !over() {
        let sent = format!("line {number}\n");
        stream.write_all(sent.as_bytes()).await?;
        line.clear();
        within(async { if stream.read_line(&mut line).await? == 0 { Err(closed()) } else { Ok(()) } }).await?;
        if line != sent {
            return Err(io::Error::other(format!("{sent:?} came back as {line:?}")));
        }
        shared.tally.lasted(Lasted::Echoed);
        number += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn drip(shared: &Shared, stream: &mut Stream, over: impl Fn() -> bool) -> io::Result<()> {
    let mut number = 0_u64;
    let mut open = String::new();
    while !over() {
        let chunk = within(read_chunk(stream)).await?.ok_or_else(closed)?;
        // The proxy may send several drops as one chunk.
        open.push_str(&String::from_utf8_lossy(&chunk));
        while let Some((drop, rest)) = open.split_once('\n') {
            if drop.parse() != Ok(number) {
                return Err(io::Error::other(format!("drop {number} came as {drop:?}")));
            }
            open = rest.to_owned();
            shared.tally.lasted(Lasted::Drop);
            number += 1;
        }
    }
    Ok(())
}

async fn slow(shared: &Shared, stream: &mut Stream, over: impl Fn() -> bool) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while !over() && at < LOAD {
        let count = within(stream.read(&mut buffer)).await?;
        if count == 0 {
            return Err(closed());
        }
        if let Some(wrong) = (at..).zip(&buffer[..count]).find(|(at, byte)| pattern(*at) != **byte) {
            return Err(io::Error::other(format!("the byte at {} of a long answer is wrong", wrong.0)));
        }
        at += count;
        shared.tally.lasted(Lasted::Loaded(count as u64));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn within<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("nothing came in {LIMIT:?}"));
    tokio::time::timeout(LIMIT, what).await.map_err(late)?
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")
}
