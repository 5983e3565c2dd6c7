//! The pages that nginx makes itself, for errors and redirects.

use http::HeaderValue;
use hyper::ext::ReasonPhrase;

use super::request::Request;

/// What `Server` and the foot of pages say.
pub const PRODUCT: &str = concat!("dysvr/", env!("CARGO_PKG_VERSION"));

/// `Request Header Or Cookie Too Large`: goes out as 400.
pub(super) const HEADER_TOO_LARGE: u16 = 494;
/// Plain HTTP came to an address that is TLS: goes out as 400.
pub(super) const TO_HTTPS: u16 = 497;
/// The client closed before there was an answer: for the log alone.
pub(super) const CLIENT_CLOSED: u16 = 499;
/// `return 444`: closes without an answer.
pub(super) const CLOSE: u16 = 444;

/// The title of a page; `None`: there is no page for that status.
fn title(status: u16) -> Option<&'static str> {
    Some(match status {
        301 => "301 Moved Permanently",
        302 => "302 Found",
        303 => "303 See Other",
        307 => "307 Temporary Redirect",
        308 => "308 Permanent Redirect",
        400 => "400 Bad Request",
        401 => "401 Authorization Required",
        402 => "402 Payment Required",
        403 => "403 Forbidden",
        404 => "404 Not Found",
        405 => "405 Not Allowed",
        406 => "406 Not Acceptable",
        408 => "408 Request Time-out",
        409 => "409 Conflict",
        410 => "410 Gone",
        411 => "411 Length Required",
        412 => "412 Precondition Failed",
        413 => "413 Request Entity Too Large",
        414 => "414 Request-URI Too Large",
        415 => "415 Unsupported Media Type",
        416 => "416 Requested Range Not Satisfiable",
        421 => "421 Misdirected Request",
        429 => "429 Too Many Requests",
        494 => "400 Request Header Or Cookie Too Large",
        497 => "400 The plain HTTP request was sent to HTTPS port",
        500 => "500 Internal Server Error",
        501 => "501 Not Implemented",
        502 => "502 Bad Gateway",
        503 => "503 Service Temporarily Unavailable",
        504 => "504 Gateway Time-out",
        505 => "505 HTTP Version Not Supported",
        507 => "507 Insufficient Storage",
        _ => return None,
    })
}

/// The text of a status line where nginx's is not the one of the standard.
pub(super) fn reason(status: u16) -> Option<ReasonPhrase> {
    let text: &[u8] = match status {
        302 => b"Moved Temporarily",
        405 => b"Not Allowed",
        408 => b"Request Time-out",
        413 => b"Request Entity Too Large",
        414 => b"Request-URI Too Large",
        416 => b"Requested Range Not Satisfiable",
        503 => b"Service Temporarily Unavailable",
        504 => b"Gateway Time-out",
        200
        | 201
        | 202
        | 204
        | 206
        | 301
        | 303
        | 304
        | 307
        | 308
        | 400..=404
        | 406
        | 409..=412
        | 415
        | 421
        | 429
        | 500..=502
        | 505
        | 507 => return None,
        _ => b"",
    };
    ReasonPhrase::try_from(text).ok()
}

/// The page of a status, if there is one.
pub(super) fn page(status: u16, user_agent: Option<&HeaderValue>) -> Option<String> {
    let title = title(status)?;
    // What is only known inside goes out as 400, and says more below.
    let more = if outward(status) == status { None } else { title.strip_prefix("400 ") };
    let mut page = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{}</h1></center>\r\n{}<hr><center>{PRODUCT}</center>\r\n</body>\r\n</html>\r\n",
        if more.is_some() { "400 Bad Request" } else { title },
        more.map_or_else(String::new, |more| format!("<center>{more}</center>\r\n")),
    );
    if status >= 400 && user_agent.is_some_and(wants_padding) {
        for _ in 0..6 {
            page.push_str("<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n");
        }
    }
    Some(page)
}

/// These browsers show a page of their own in place of a short one.
fn wants_padding(user_agent: &HeaderValue) -> bool {
    let contains = |text: &[u8]| user_agent.as_bytes().windows(text.len()).any(|window| window == text);
    !contains(b"Opera") && (contains(b"MSIE ") || (!contains(b"Gecko/") && contains(b"Chrome/")))
}

/// Whether an answer with this status ends the connection.
pub(super) fn closes(status: u16) -> bool {
    matches!(status, 400 | 413 | 414 | 494..=497 | 500 | 501)
}

/// The status that goes out for one that is only known inside.
pub(super) fn outward(status: u16) -> u16 {
    if matches!(status, HEADER_TOO_LARGE | TO_HTTPS) { 400 } else { status }
}

/// The page for a request.
pub(super) fn for_request(request: &Request, status: u16) -> Option<String> {
    page(status, request.headers.get(http::header::USER_AGENT))
}
