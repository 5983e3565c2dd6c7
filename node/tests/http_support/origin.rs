//! An HTTP server for tests: what it does is said by the path.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A running origin; it ends with the process.
pub struct Origin {
    pub port: u16,
    /// Connections that were ever made to it.
    pub connections: Arc<AtomicUsize>,
    /// Requests that it was ever sent.
    pub requests: Arc<AtomicUsize>,
    /// Connections that were closed, by either side.
    pub closed: Arc<AtomicUsize>,
    /// Answers to `/big` that the other side has taken as a whole.
    pub delivered: Arc<AtomicUsize>,
}

impl Origin {
    pub fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let origin = Self {
            port,
            connections: Arc::default(),
            requests: Arc::default(),
            closed: Arc::default(),
            delivered: Arc::default(),
        };
        let (connections, requests) = (Arc::clone(&origin.connections), Arc::clone(&origin.requests));
        let (closed, delivered) = (Arc::clone(&origin.closed), Arc::clone(&origin.delivered));
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, closed, delivered) =
                    (Arc::clone(&requests), Arc::clone(&closed), Arc::clone(&delivered));
                std::thread::spawn(move || {
                    let _ = serve(stream, &requests, &delivered);
                    closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        origin
    }
}

struct Request {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim_end().to_owned();
        if header.is_empty() {
            break;
        }
        headers.push(header);
    }
    let length = headers.iter().find_map(|header| {
        let (name, value) = header.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { line: line.trim_end().to_owned(), headers, body }))
}

fn serve(stream: TcpStream, requests: &AtomicUsize, delivered: &AtomicUsize) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut served = false;
    while let Some(request) = read(&mut reader)? {
        requests.fetch_add(1, Ordering::SeqCst);
        let path = request.line.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut parts = path.trim_start_matches('/').split(['/', '?']);
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        match parts.next().unwrap_or_default() {
            "status" => {
                let status = number(parts.next());
                write!(out, "HTTP/1.1 {status} Custom\r\nContent-Length: 2\r\n\r\nok")?;
            }
            "close" => return Ok(()),
            // Answers, and closes the idle connection some time later.
            "once" => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nonce")?;
                std::thread::sleep(Duration::from_millis(number(parts.next())));
                return Ok(());
            }
            // The first request of a connection is answered, the second one cut.
            "cut" => {
                if std::mem::replace(&mut served, true) {
                    return Ok(());
                }
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ncut")?;
            }
            "slow" => {
                std::thread::sleep(Duration::from_millis(number(parts.next())));
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")?;
            }
            "pause" => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")?;
                std::thread::sleep(Duration::from_millis(number(parts.next())));
                out.write_all(b"cd")?;
            }
            "chunked" => out.write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            )?,
            "lf" => out.write_all(b"HTTP/1.1 200 OK\nContent-Length: 2\nX-Lf: yes\n\nlf")?,
            "early" => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")?;
                return Ok(());
            }
            "half-head" => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-")?;
                return Ok(());
            }
            "nolen" => {
                out.write_all(b"HTTP/1.0 200 OK\r\nX-Old: yes\r\n\r\nuntil the end")?;
                return Ok(());
            }
            "headers" => out.write_all(
                b"HTTP/1.1 200 OK\r\nServer: origin/1\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Pad: p\r\nX-Accel-Expires: 1\r\nX-Accel-Limit-Rate: 0\r\nX-Powered-By: tests\r\nX-Keep: kept\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\nContent-Type: text/x-test\r\nContent-Length: 2\r\n\r\nok",
            )?,
            "redirect" => {
                let host = request.headers.iter().find_map(|it| it.strip_prefix("Host: ")).unwrap_or("-");
                write!(out, "HTTP/1.1 302 Found\r\nLocation: http://{host}/base/there\r\nContent-Length: 0\r\n\r\n")?;
            }
            "relative" => out.write_all(b"HTTP/1.1 301 Moved Permanently\r\nLocation: /over/there\r\nContent-Length: 0\r\n\r\n")?,
            "accel" => out.write_all(b"HTTP/1.1 200 OK\r\nX-Accel-Redirect: /internal/x?y=1\r\nContent-Length: 3\r\n\r\nold")?,
            "named" => out.write_all(b"HTTP/1.1 200 OK\r\nX-Accel-Redirect: @named\r\nContent-Length: 3\r\n\r\nold")?,
            "hints" => out.write_all(
                b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal",
            )?,
            "nocontent" => out.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
            "notmodified" => out.write_all(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n")?,
            "big" => {
                let length = number(parts.next());
                write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
                let chunk: Vec<u8> = (0..65536_u32).map(|i| (i % 251) as u8).collect();
                let mut left = length;
                while left > 0 {
                    let part = left.min(chunk.len() as u64) as usize;
                    out.write_all(&chunk[..part])?;
                    left -= part as u64;
                }
                delivered.fetch_add(1, Ordering::SeqCst);
            }
            "upgrade" => {
                out.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: test\r\nConnection: Upgrade\r\n\r\nhello\n")?;
                // Echoes lines in capitals until the other side ends.
                let mut line = String::new();
                while reader.read_line(&mut line)? > 0 {
                    out.write_all(line.to_uppercase().as_bytes())?;
                    line.clear();
                }
                out.write_all(b"bye\n")?;
                return Ok(());
            }
            _ => {
                let mut headers = request.headers.clone();
                headers.sort_by_key(|header| header.to_lowercase());
                let mut body = format!("{}\n", request.line).into_bytes();
                for header in &headers {
                    let (name, value) = header.split_once(':').unwrap_or((header, ""));
                    body.extend_from_slice(format!("{}: {}\n", name.to_lowercase(), value.trim()).as_bytes());
                }
                body.extend_from_slice(format!("({} bytes)\n", request.body.len()).as_bytes());
                if request.body.len() < 1000 {
                    body.extend_from_slice(&request.body);
                }
                write!(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len())?;
                let head_only = request.line.starts_with("HEAD ");
                if !head_only {
                    out.write_all(&body)?;
                }
            }
        }
    }
    Ok(())
}
