//! From a status, headers and a body to what hyper sends: the headers that every answer has, and the header filters.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::ext::ReasonPhrase;

use super::body::Body;
use super::request::Request;
use super::{HEADER_FILTERS, error_page, template};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// An answer before the header filters.
pub(super) struct Answer {
    /// May be one that is only known inside.
    pub status: u16,
    /// Its own headers. `Content-Length` only for an answer whose body is not sent.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Body,
    /// The text of the status line where it is not the standard's.
    pub reason: Option<ReasonPhrase>,
}

/// A text of our own: of `return`, or a page.
pub(super) fn text(request: &Request, status: u16, content_type: &[u8], text: Bytes) -> Answer {
    let mut headers = HeaderMap::with_capacity(8);
    if may_have_body(status)
        && let Some(value) = template::make_header(&request.ctx.arena, content_type)
    {
        headers.insert(header::CONTENT_TYPE, value);
    }
    let body = if request.method == Method::HEAD || !may_have_body(status) {
        if may_have_body(status) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        }
        Body::Empty
    } else {
        Body::Text(Rc::clone(&request.client), text)
    };
    Answer { status, headers, body, reason: error_page::reason(status) }
}

/// The page of a status, and for a redirect its `Location`.
pub(super) fn page(request: &mut Request, status: u16, location: Option<&[u8]>) -> Answer {
    if error_page::closes(status) {
        request.keepalive = false;
    }
    let page = error_page::for_request(request, status);
    let content_type: &[u8] = if page.is_some() { b"text/html" } else { b"" };
    let mut answer = text(request, error_page::outward(status), content_type, page.unwrap_or_default().into());
    if let Some(location) = location.and_then(|url| template::make_header(&request.ctx.arena, url)) {
        answer.headers.insert(header::LOCATION, location);
        make_location_absolute(request, &mut answer.headers);
    }
    if status == HTTP_TOO_LARGE || status == error_page::HEADER_TOO_LARGE {
        request.client.linger.set(true);
    }
    answer
}

const HTTP_TOO_LARGE: u16 = 413;

fn may_have_body(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}

/// Runs the header filters and adds what every answer has.
pub(super) fn finish(request: &mut Request, answer: Answer) -> Response<Body> {
    let Answer { status, mut headers, body, reason } = answer;
    let client = Rc::clone(&request.client);
    request.status = status;
    for filter in HEADER_FILTERS {
        filter(request, &mut headers);
    }
    headers.insert(header::SERVER, HeaderValue::from_static(error_page::PRODUCT));
    headers.insert(header::DATE, request.ctx.clock.date());

    let known = matches!(body, Body::Empty) || http_body::Body::size_hint(&body).exact().is_some();
    let chunked = !known && request.version >= Version::HTTP_11;
    let switches = status == 101;
    if !switches {
        if !known && !chunked {
            request.keepalive = false;
        }
        if request.ctx.is_draining() || request.client.is_homeless() {
            request.keepalive = false;
        }
        let connection = if request.keepalive { "keep-alive" } else { "close" };
        headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
        if request.keepalive
            && let Some(seconds) = request.conf.core.keepalive_header
        {
            let text = format!("timeout={seconds}");
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(KEEP_ALIVE, value);
            }
        }
    }
    client.keepalive.set(request.conf.core.keepalive_timeout);
    if request.ctx.logs_headers(&request.main, &request.conf.log.access_logs) {
        request.sent_headers = Some(Box::new(headers.clone()));
    }
    client.answer(matches!(body, Body::Empty) || http_body::Body::is_end_stream(&body), chunked);

    let mut response = Response::new(body);
    if let Some(reason) = reason {
        response.extensions_mut().insert(reason);
    }
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    if request.version < Version::HTTP_11 && !request.keepalive {
        // hyper keeps a connection with an old client by itself unless the answer is as old.
        *response.version_mut() = Version::HTTP_10;
    }
    response
}

/// Completes a `Location` that is a path: `absolute_redirect on`, `server_name_in_redirect off`, `port_in_redirect on`.
pub(crate) fn make_location_absolute(request: &Request, headers: &mut HeaderMap) {
    let Some(location) = headers.get_mut(header::LOCATION) else { return };
    if location.as_bytes().first() != Some(&b'/') {
        return;
    }
    let mut url = Vec::with_capacity(64);
    let tls = request.client.tls.get().is_some();
    url.extend_from_slice(if tls { b"https://" } else { b"http://" });
    if request.host.is_empty() {
        url.extend_from_slice(request.client.server_addr().as_bytes());
    } else {
        url.extend_from_slice(&request.host);
    }
    let port = request.client.port();
    if port != if tls { 443 } else { 80 } && port != 0 {
        url.push(b':');
        url.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    url.extend_from_slice(location.as_bytes());
    if let Some(url) = template::make_header(&request.ctx.arena, &url) {
        *location = url;
    }
}

/// The type of a text that a `return` makes: by the extension of the path as with nginx's built-in `types`, else
/// `default_type`.
pub(super) fn content_type(request: &Request) -> Vec<u8> {
    let path = request.path();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let extension = name.iter().rposition(|byte| *byte == b'.').map(|dot| name[dot + 1..].to_ascii_lowercase());
    match extension.as_deref() {
        Some(b"html") => b"text/html".to_vec(),
        Some(b"gif") => b"image/gif".to_vec(),
        Some(b"jpg") => b"image/jpeg".to_vec(),
        _ => request.conf.core.default_type.as_bytes().to_vec(),
    }
}
