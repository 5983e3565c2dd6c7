//! HTTP/1.1 on asynchronous streams, for thousands of requests a second on a corner of one core. As strict as
//! [`crate::http`]: what it does not understand is an error.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _};

/// A start line and a header, as text.
#[derive(Clone, Debug, Default)]
pub struct Head {
    text: String,
}

impl Head {
    /// Reads one; `None` when the stream ends before its first byte.
    ///
    /// # Errors
    /// When the stream fails or ends inside it.
    pub async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut text = String::with_capacity(512);
        loop {
            let before = text.len();
            if stream.read_line(&mut text).await? == 0 {
                return if before == 0 { Ok(None) } else { Err(ended("inside a head")) };
            }
            if matches!(&text[before..], "\r\n" | "\n") {
                return Ok(Some(Self { text }));
            }
        }
    }

    /// The first line.
    pub fn start(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// The status of a response; 0 when it is none.
    pub fn status(&self) -> u16 {
        self.start().strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
    }

    /// The value of a header that may stand there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The length of the body that follows, when a header says it.
    pub fn length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok()
    }
}

/// Reads a body of a known length.
///
/// # Errors
/// When the stream ends before it does.
pub async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Reads one chunk; `None` for the last one.
///
/// # Errors
/// When it is cut short or malformed.
pub async fn read_chunk(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(ended("before the last chunk"));
    }
    let size = line.trim_end().split(';').next().unwrap_or_default();
    let size =
        usize::from_str_radix(size, 16).map_err(|_| io::Error::other(format!("not a chunk's size: {line:?}")))?;
    let mut chunk = read_body(stream, size + 2).await?;
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}

fn ended(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection was closed {place}"))
}
