//! A client that sends raw bytes and reads one answer at a time.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use super::PATIENCE;

/// A connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub line: String,
    /// Names in lower case, sorted.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // A server may close before it has read all of a bad request.
        let _ = self.stream.write_all(bytes);
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 65536];
        let read = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read)
    }

    /// Everything until the other side closes.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while matches!(self.fill(), Ok(1..)) {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the other side closes without sending anything more.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !matches!(self.fill(), Ok(1..))
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if !matches!(self.fill(), Ok(1..)) {
                return None;
            }
        }
    }

    /// The next answer to a request of that method; `None` if the connection is closed first.
    pub fn answer(&mut self, method: &str) -> Option<Answer> {
        let line = self.line()?;
        let mut headers = Vec::new();
        loop {
            let header = self.line()?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap_or((&header, ""));
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        headers.sort();
        let mut answer = Answer { line, headers, body: Vec::new() };
        let status = answer.status();
        if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
            return Some(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).ok()?;
                let mut chunk = self.take(size)?;
                answer.body.append(&mut chunk);
                self.line()?;
                if size == 0 {
                    return Some(answer);
                }
            }
        }
        match answer.header("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => answer.body = self.take(length)?,
            None => answer.body = self.read_to_end(),
        }
        Some(answer)
    }

    /// Exactly so many bytes; fewer only at the end.
    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !matches!(self.fill(), Ok(1..)) {
                return Some(std::mem::take(&mut self.buffer));
            }
        }
        Some(self.buffer.drain(..count).collect())
    }
}

/// One request on a connection of its own.
pub fn ask(port: u16, request: &str) -> Option<Answer> {
    let mut client = Client::connect(port);
    client.send(request.as_bytes());
    client.answer(request.split(' ').next().unwrap_or_default())
}

/// `GET path` with a host, on a connection of its own.
pub fn get(port: u16, host: &str, path: &str) -> Answer {
    ask(port, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).expect("an answer")
}
