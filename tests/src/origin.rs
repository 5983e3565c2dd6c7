//! A small real origin server: says its name and what it was asked, drips long answers, upgrades connections.
//!
//! | path | answer |
//! | --- | --- |
//! | `/bytes?n=N` | N bytes |
//! | `/status?code=N` | that status |
//! | `/drip?count=N&every_ms=M` | N chunks, one each M ms |
//! | any, with `Upgrade` | 101, then each line comes back |
//! | any other | its own name, the request line and the request's header, as text |

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::{Framing, Head, read_body, read_head};

/// A running origin; it ends when this is dropped.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    ending: AtomicBool,
    requests: AtomicU64,
    connections: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Origin {
    /// Starts it on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(name: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening for the origin")?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            ending: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name(format!("origin {name}"))
            .spawn(move || accept(&listener, &accepting))
            .context("starting the origin")?;
        Ok(Self { addr, shared, acceptor: Some(acceptor) })
    }

    /// How many requests it has answered.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many connections to it are open.
    pub fn open(&self) -> usize {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.ending.load(Ordering::SeqCst) {
            return;
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let _ = stream.set_nodelay(true);
        if let Ok(twin) = stream.try_clone() {
            shared.open.lock().unwrap_or_else(PoisonError::into_inner).push(twin);
        }
        let serving = Arc::clone(shared);
        // A connection that breaks is the peer's business: the tests look at what the proxy's client sees.
        let _ = std::thread::Builder::new().name("origin connection".to_owned()).spawn(move || {
            let twin = stream.try_clone();
            let _ = serve(stream, &serving);
            if let Ok(twin) = twin {
                let _ = twin.shutdown(Shutdown::Both);
                let mut open = serving.open.lock().unwrap_or_else(PoisonError::into_inner);
                open.retain(|one| one.peer_addr().is_ok());
            }
        });
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while let Some(head) = read_head(&mut input)? {
        let body = read_body(&mut input, Framing::of_request(&head)?)?;
        shared.requests.fetch_add(1, Ordering::Relaxed);
        if head.header("upgrade").is_some() {
            return echo_lines(&mut input, &mut output, shared);
        }
        answer(&mut output, &head, &body, shared)?;
        let last = head.start.ends_with("HTTP/1.0") && !head.has_word("connection", "keep-alive");
        if last || head.has_word("connection", "close") {
            return output.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

fn answer(output: &mut TcpStream, head: &Head, body: &[u8], shared: &Shared) -> io::Result<()> {
    let target = head.start.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let argument =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok());
    match path {
        "/drip" => drip(output, head, argument("count").unwrap_or(10), argument("every_ms").unwrap_or(10), shared),
        "/bytes" => {
            let length = usize::try_from(argument("n").unwrap_or(1024)).unwrap_or(1024);
            send(output, "200 OK", shared, &vec![b'x'; length])
        }
        "/status" => send(output, &format!("{} Asked For", argument("code").unwrap_or(200)), shared, b"as asked\n"),
        _ => {
            let mut text = format!("origin {}\n{}\n", shared.name, head.start);
            for (name, value) in &head.headers {
                text.push_str(&format!("{name}: {value}\n"));
            }
            if !body.is_empty() {
                text.push_str(&format!("\n{}", String::from_utf8_lossy(body)));
            }
            send(output, "200 OK", shared, text.as_bytes())
        }
    }
}

fn send(output: &mut TcpStream, status: &str, shared: &Shared, body: &[u8]) -> io::Result<()> {
    let mut message = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nX-Origin: {}\r\nContent-Length: {}\r\n\r\n",
        shared.name,
        body.len()
    )
    .into_bytes();
    message.extend_from_slice(body);
    output.write_all(&message)
}

/// Chunked for HTTP/1.1, ended by closing for HTTP/1.0 (which is what nginx speaks to an origin unless told otherwise).
fn drip(output: &mut TcpStream, head: &Head, count: u64, every_ms: u64, shared: &Shared) -> io::Result<()> {
    let chunked = head.start.ends_with("HTTP/1.1");
    let framing = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
    output.write_all(format!("HTTP/1.1 200 OK\r\nX-Origin: {}\r\n{framing}\r\n", shared.name).as_bytes())?;
    for number in 0..count {
        let drop = format!("drop {number}\n");
        let piece = if chunked { format!("{:x}\r\n{drop}\r\n", drop.len()) } else { drop };
        output.write_all(piece.as_bytes())?;
        // The pause is the behaviour that is asked for, not a wait for anything.
        std::thread::sleep(Duration::from_millis(every_ms));
        if shared.ending.load(Ordering::SeqCst) {
            break;
        }
    }
    if chunked {
        output.write_all(b"0\r\n\r\n")?;
    } else {
        output.shutdown(Shutdown::Both)?;
    }
    Ok(())
}

fn echo_lines(input: &mut impl BufRead, output: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let name = &shared.name;
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: lines\r\nConnection: Upgrade\r\nX-Origin: {name}\r\n\r\n"
    );
    output.write_all(switch.as_bytes())?;
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        output.write_all(line.as_bytes())?;
        line.clear();
    }
    Ok(())
}
