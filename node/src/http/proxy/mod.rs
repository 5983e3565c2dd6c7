//! `proxy_pass`: finds the upstream, tries its peers until one answers, and hands the answer on.

mod ahead;
mod exchange;
mod head;
mod outgoing;
mod relay;
mod target;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use dysvr_conf::http::proxy::Pass;
use dysvr_conf::main_conf::Level;
use http::Response;
use hyper::body::{Body as _, Incoming};

pub(super) use relay::Relay;

use super::body::{Abort, Body};
use super::error_page::CLIENT_CLOSED;
use super::handler::{self, Content};
use super::request::Shared;
use super::request_body::{Failure, RequestBody};
use super::{location, response};
use exchange::Done;

/// Answers a request by its upstream. Redirects of the upstream to another location of ours (`X-Accel-Redirect`) are
/// followed here.
pub(super) async fn handle(request: Shared, pass: Arc<Pass>, mut incoming: Incoming) -> Result<Response<Body>, Abort> {
    request.borrow_mut().proxy = Some((Arc::clone(&pass.host), Arc::clone(&pass.port)));
    // Before a body that may take its time: the upstream is to be of the same configuration as the vhost. nginx evaluates
    // its `proxy_pass` here, too.
    let mut target = Some(target::resolve(&request.borrow(), &pass));
    let body = if incoming.is_end_stream() {
        RequestBody::None
    } else {
        match Box::pin(read_body(&request, &mut incoming)).await {
            Ok(body) => body,
            Err(status) => {
                let mut request = request.borrow_mut();
                if status == CLIENT_CLOSED {
                    return Err(Abort);
                }
                request.keepalive = false;
                let answer = response::page(&mut request, status, None);
                handler::discard(&mut request, incoming);
                return Ok(response::finish(&mut request, answer));
            }
        }
    };
    let mut content = Content::Proxy(pass);
    loop {
        let pass = match content {
            Content::Proxy(pass) => pass,
            Content::Answer(answer) => return Ok(response::finish(&mut request.borrow_mut(), answer)),
            Content::Close => return Err(Abort),
        };
        let target = target.take().unwrap_or_else(|| target::resolve(&request.borrow(), &pass));
        content = match exchange::run(&request, &pass, target, &body).await {
            Done::Status(status) => Content::Answer(response::page(&mut request.borrow_mut(), status, None)),
            Done::Head(exchange) => {
                let mut exchange = Some(exchange);
                let accept = |cx: &mut Context<'_>| match exchange.take() {
                    Some(exchange) => Poll::Ready(head::accept(&request, &pass, *exchange, cx)),
                    None => Poll::Pending,
                };
                poll_fn(accept).await
            }
            Done::Redirect(to) => redirect(&request, &to),
        };
    }
}

async fn read_body(request: &Shared, incoming: &mut Incoming) -> Result<RequestBody, u16> {
    let (client, limit) = {
        let request = request.borrow();
        (Rc::clone(&request.client), request.conf.core.client_max_body_size)
    };
    RequestBody::read(incoming, limit, &client).await.map_err(|failure| {
        let request = request.borrow();
        match failure {
            Failure::TooLarge { received, more } => {
                let text = format_args!("client intended to send too large chunked body: {received}+{more} bytes");
                request.error(Level::Error, text);
                413
            }
            Failure::Timeout => {
                request.error(
                    Level::Info,
                    format_args!("client timed out (110: Connection timed out) while reading client request body"),
                );
                408
            }
            Failure::Gone => {
                request.error(
                    Level::Info,
                    format_args!("client prematurely closed connection while reading client request body"),
                );
                400
            }
            Failure::Store(error) => {
                request.error(Level::Crit, format_args!("a temporary file for the request body failed ({error})"));
                500
            }
        }
    })
}

/// `X-Accel-Redirect`: to a path of this server, or to a named location.
fn redirect(request: &Shared, to: &[u8]) -> Content {
    let mut request = request.borrow_mut();
    let request = &mut *request;
    request.proxy = None;
    if !request.count_uri_change() {
        let to = String::from_utf8_lossy(to);
        request.error(
            Level::Error,
            format_args!("rewrite or internal redirection cycle while internally redirecting to \"{to}\""),
        );
        return Content::Answer(response::page(request, 500, None));
    }
    if to.first() == Some(&b'@') {
        let Some(found) = location::find_named(&request.vhost.conf.locations, to) else {
            let to = String::from_utf8_lossy(to);
            request.error(Level::Error, format_args!("could not find named location \"{to}\""));
            return Content::Answer(response::page(request, 500, None));
        };
        request.internal = true;
        request.conf = Arc::clone(&found.conf);
        request.location = Some(found);
        handler::location_changed(request);
        return handler::enter(request).unwrap_or_else(|| handler::locate(request));
    }
    let (path, args) = match to.iter().position(|byte| *byte == b'?') {
        Some(at) => (&to[..at], &to[at + 1..]),
        None => (to, b"".as_slice()),
    };
    request.redirect_internally(path.to_vec(), args.to_vec());
    handler::locate(request)
}
