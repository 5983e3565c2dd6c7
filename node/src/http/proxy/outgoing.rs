//! The request that a peer is sent.

use bytes::Bytes;
use dysvr_conf::http::proxy::Pass;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request as HttpRequest, Uri, Version};

use crate::http::request::Request;
use crate::http::request_body::RequestBody;
use crate::http::upstream::Outgoing;
use crate::http::{template, uri};

use super::target::Resolved;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Makes it; `None` if its URI or host cannot stand in a request.
pub(super) fn build(
    request: &Request,
    pass: &Pass,
    target: &Resolved,
    body: &RequestBody,
) -> Option<HttpRequest<Outgoing>> {
    let mut outgoing = HttpRequest::new(body.replay());
    *outgoing.method_mut() = request.method.clone();
    *outgoing.uri_mut() = make_uri(request, pass, target.uri.as_deref())?;
    *outgoing.version_mut() = if request.conf.proxy.http11 { Version::HTTP_11 } else { Version::HTTP_10 };
    *outgoing.headers_mut() = headers(request, target, body)?;
    Some(outgoing)
}

/// The path and arguments that the peer is asked for; `own` are those of a URL with variables.
pub(super) fn make_uri(request: &Request, pass: &Pass, own: Option<&[u8]>) -> Option<Uri> {
    if let Some(uri) = own {
        return parse(uri.to_vec());
    }
    if pass.uri.is_none() && request.unparsed_uri {
        if request.target.scheme().is_none() && request.target.authority().is_none() {
            return Some(request.target.clone());
        }
        return request.target.path_and_query().cloned().map(Uri::from);
    }
    let mut out = Vec::with_capacity(request.path().len() + 32);
    let skip = match &pass.uri {
        Some(prefix) if request.valid_location => {
            out.extend_from_slice(prefix.as_bytes());
            pass.replaced
        }
        _ => 0,
    };
    let rest = request.path().get(skip..).unwrap_or_default();
    if request.quoted || request.internal {
        uri::escape(&mut out, rest, uri::Escape::Path);
    } else {
        out.extend_from_slice(rest);
    }
    if !request.args().is_empty() {
        out.push(b'?');
        out.extend_from_slice(request.args());
    }
    parse(out)
}

/// For log lines: `http://ADDRESS/PATH`.
pub(super) fn url(request: &Request, pass: &Pass, own: Option<&[u8]>, peer: &str) -> String {
    let separator = if peer.starts_with("unix:") { ":" } else { "" };
    let uri = make_uri(request, pass, own).map(|uri| uri.to_string()).unwrap_or_default();
    format!("http://{peer}{separator}{uri}")
}

fn parse(uri: Vec<u8>) -> Option<Uri> {
    PathAndQuery::from_maybe_shared(Bytes::from(uri)).ok().map(Uri::from)
}

/// What the client sent but for what belongs to its connection, and `proxy_set_header` over nginx's defaults.
fn headers(request: &Request, target: &Resolved, body: &RequestBody) -> Option<HeaderMap> {
    let set = &*request.conf.proxy.set_headers;
    let is_set = |name: &HeaderName| set.iter().any(|(known, _)| known == name);
    let mut out = request.client.spare.take().unwrap_or_default();
    out.reserve(request.headers.len() + set.len() + 2);

    if !is_set(&header::HOST) {
        out.insert(header::HOST, template::make_header(&request.ctx.arena, target.host.as_bytes())?);
    }
    for (name, value) in set {
        // An empty value removes the header.
        if let Some(value) = template::header(request, value) {
            out.append(name.clone(), value);
        }
    }
    if !is_set(&header::CONNECTION) {
        out.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if !is_set(&header::CONTENT_LENGTH) && has_body(request, body) {
        let known = request.headers.get(header::CONTENT_LENGTH).filter(|_| request.content_length == Some(body.len()));
        out.insert(header::CONTENT_LENGTH, known.cloned().unwrap_or_else(|| HeaderValue::from(body.len())));
    }
    for (name, value) in &request.headers {
        if !belongs_to_connection(name) && !is_set(name) && is_valid_name(name) {
            out.append(name.clone(), value.clone());
        }
    }
    Some(out)
}

/// Whether the peer is told a length, be it 0.
fn has_body(request: &Request, body: &RequestBody) -> bool {
    request.content_length.is_some() || !body.is_empty() || request.headers.contains_key(header::TRANSFER_ENCODING)
}

/// The headers that nginx sets or removes unless told otherwise.
fn belongs_to_connection(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::CONNECTION
            | header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::TE
            | header::EXPECT
            | header::UPGRADE
    ) || *name == KEEP_ALIVE
}

/// Letters, digits and hyphens: `ignore_invalid_headers on`, `underscores_in_headers off`.
fn is_valid_name(name: &HeaderName) -> bool {
    name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
