//! HTTP/1.1 messages as bytes on a stream, for the harness's own client and origin. Small and strict on purpose: what
//! it does not understand is an error, so that a test sees it.

use std::io::{self, BufRead, Read};

/// The start line and the header of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Without its line end.
    pub start: String,
    /// In order, names as they came.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a comma-separated header holds a word.
    pub fn has_word(&self, name: &str, word: &str) -> bool {
        self.headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .any(|(_, value)| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(word)))
    }

    /// The status of a response.
    ///
    /// # Errors
    /// When the start line is not that of one.
    pub fn status(&self) -> io::Result<u16> {
        let status = self.start.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        status.ok_or_else(|| bad(format!("not a status line: {:?}", self.start)))
    }
}

/// Reads a head; `None` when the stream ends before its first byte.
///
/// # Errors
/// When the stream fails, ends inside the head, or holds no head.
pub fn read_head(stream: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut start = String::new();
    if stream.read_line(&mut start)? == 0 {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ends inside a head"));
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(Some(Head { start: start.trim_end().to_owned(), headers }));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(format!("not a header line: {line:?}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By its length.
    Length(u64),
    /// By a last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Framing {
    /// Of a request: without a length there is no body.
    ///
    /// # Errors
    /// When the length is no number.
    pub fn of_request(head: &Head) -> io::Result<Self> {
        if head.has_word("transfer-encoding", "chunked") {
            return Ok(Self::Chunked);
        }
        head.header("content-length").map_or(Ok(Self::Length(0)), |value| Ok(Self::Length(number(value, 10)?)))
    }

    /// Of a response to `method`.
    ///
    /// # Errors
    /// When the length is no number or the status line is none.
    pub fn of_response(head: &Head, method: &str) -> io::Result<Self> {
        if method == "HEAD" || matches!(head.status()?, 100..=199 | 204 | 304) {
            return Ok(Self::Length(0));
        }
        if head.has_word("transfer-encoding", "chunked") {
            return Ok(Self::Chunked);
        }
        head.header("content-length").map_or(Ok(Self::Close), |value| Ok(Self::Length(number(value, 10)?)))
    }
}

/// Reads a whole body.
///
/// # Errors
/// When it is cut short.
pub fn read_body(stream: &mut impl BufRead, framing: Framing) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match framing {
        Framing::Length(length) => {
            stream.take(length).read_to_end(&mut body)?;
            if body.len() as u64 != length {
                return Err(cut(format!("the body ends after {} of {length} bytes", body.len())));
            }
        }
        Framing::Chunked => {
            while let Some(chunk) = read_chunk(stream)? {
                body.extend_from_slice(&chunk);
            }
        }
        Framing::Close => {
            stream.read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

/// Reads one chunk; `None` for the last one.
///
/// # Errors
/// When it is cut short or malformed.
pub fn read_chunk(stream: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let size = number(read_line(stream)?.split(';').next().unwrap_or_default(), 16)?;
    if size == 0 {
        while !read_line(stream)?.is_empty() {}
        return Ok(None);
    }
    let mut chunk = Vec::new();
    stream.take(size).read_to_end(&mut chunk)?;
    if chunk.len() as u64 != size || !read_line(stream)?.is_empty() {
        return Err(cut(format!("a chunk of {size} bytes is cut short")));
    }
    Ok(Some(chunk))
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(cut("the stream ends inside a body".to_owned()));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn number(text: &str, radix: u32) -> io::Result<u64> {
    u64::from_str_radix(text.trim(), radix).map_err(|_| bad(format!("not a length: {text:?}")))
}

fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn cut(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_to_its_end_and_no_further() {
        let table: [(&str, &str, &str); 3] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcNEXT", "abc", "NEXT"),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nab\n1;x=y\nc\n0\n\nNEXT", "abc", "NEXT"),
            ("HTTP/1.1 200 OK\r\n\r\nabcNEXT", "abcNEXT", ""),
        ];
        for (text, body, rest) in table {
            let mut stream = text.as_bytes();
            let head = read_head(&mut stream).unwrap().unwrap();
            let framing = Framing::of_response(&head, "GET").unwrap();
            assert_eq!(read_body(&mut stream, framing).unwrap(), body.as_bytes(), "{text:?}");
            assert_eq!(stream, rest.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn a_body_that_is_cut_short_is_an_error() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab",
        ] {
            let mut stream = text.as_bytes();
            let head = read_head(&mut stream).unwrap().unwrap();
            let framing = Framing::of_response(&head, "GET").unwrap();
            assert_eq!(read_body(&mut stream, framing).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{text:?}");
        }
    }
}
