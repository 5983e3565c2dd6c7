//! Heads that hyper does not understand. hyper answers them by itself with bare lines, which the connection's socket keeps
//! back; here they get nginx's answers and log lines.

use std::rc::Rc;

use bytes::Bytes;

use super::client::Client;
use super::connection::write_and_close;
use super::error_page;
use super::stream::Stream;
use crate::log::Level;

/// The longest request line; nginx's `large_client_header_buffers`.
const MAX_LINE: usize = 8 << 10;

/// Answers and closes. `head` is what hyper has not consumed.
pub(super) async fn answer(client: &Rc<Client>, stream: Stream, head: &[u8], error: &hyper::Error) {
    let (status, problem) = judge(head, error);
    client.log(Level::Info, format_args!("{problem}"));
    let page = error_page::page(status, None).unwrap_or_default();
    let outward = error_page::outward(status);
    let reason = match error_page::reason(outward) {
        Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        None => http::StatusCode::from_u16(outward).ok().and_then(|it| it.canonical_reason()).unwrap_or("").to_owned(),
    };
    let date = client.ctx.clock.date();
    let date = date.to_str().unwrap_or_default();
    let bytes = format!(
        "HTTP/1.1 {outward} {reason}\r\nServer: {}\r\nDate: {date}\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        error_page::PRODUCT,
        page.len(),
    );
    log(client, outward, head, bytes.len(), page.len());
    write_and_close(stream, Bytes::from(bytes)).await;
}

/// A head that did not come in time: nothing is answered.
pub(super) fn log_timeout(client: &Rc<Client>) {
    client.log(
        Level::Info,
        format_args!("client timed out (110: Connection timed out) while reading client request headers"),
    );
    log(client, 408, b"", 0, 0);
}

fn judge(head: &[u8], error: &hyper::Error) -> (u16, &'static str) {
    let line_end = head.iter().position(|byte| *byte == b'\n');
    if error.is_parse_too_large() {
        return match line_end {
            Some(end) if end <= MAX_LINE => {
                (error_page::HEADER_TOO_LARGE, "client sent too large request while reading client request headers")
            }
            _ => (414, "client sent too long URI while reading client request line"),
        };
    }
    let line = head.get(..line_end.unwrap_or(head.len())).unwrap_or_default().trim_ascii_end();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    if let Some(number) = version.strip_prefix(b"HTTP/")
        && number.first().is_some_and(|major| (b'2'..=b'9').contains(major))
    {
        return (505, "client sent invalid version while reading client request line");
    }
    if error.to_string().contains("transfer-encoding") {
        return (501, "client sent unknown \"Transfer-Encoding\"");
    }
    (400, "client sent invalid request while reading client request headers")
}

/// The access log's line, with the default server's configuration.
fn log(client: &Rc<Client>, status: u16, head: &[u8], sent: usize, body: usize) {
    let Some(found) = client.listener().find(&client.ctx.cycle, b"") else { return };
    client.begin();
    client.answer(true, false);
    client.sent.set(client.sent.get() + sent as u64);
    super::request::log_bad(client, found, status, head, body as u64);
}
