//! The request path of a worker.
//!
//! One file per nginx module (the runtime half of `conf/src/http`), and the machinery between them: [`connection`] runs
//! hyper's server on a client's socket, `handler` takes a request through the phases, `proxy` asks an upstream,
//! `response` makes the head of the answer, and when the socket has taken all of it the log phase ends the request.
//!
//! Everything that belongs to one client connection (hyper's server, the handler, the connection to the peer, the body
//! that is passed on) runs in one task of one thread: nothing is woken but by a socket or a deadline.

mod bad_head;
mod body;
mod captures;
mod client;
mod clock;
pub mod connection;
mod context;
mod error_page;
mod handler;
mod headers;
mod host;
mod location;
mod log;
mod map;
mod proxy;
mod request;
mod request_body;
mod response;
mod rewrite;
mod ssl;
mod stream;
mod template;
mod timer;
mod tunnel;
pub mod upstream;
mod uri;
mod variable;
mod watched;

pub use connection::serve;
pub use context::{Context, Counters, Panics};
pub use error_page::PRODUCT;
pub use stream::Stream;

use ::http::HeaderMap;
use request::Request;
use rewrite::Step;

/// The access phase: who may not pass.
const ACCESS: &[fn(&mut Request) -> Step] = &[];
/// What is done to the head of every answer, in order.
const HEADER_FILTERS: &[fn(&mut Request, &mut HeaderMap)] = &[headers::filter];
/// What is done when a request is over.
const LOG: &[fn(&Request)] = &[log::write];

fn log_request(request: &mut Request) {
    for write in LOG {
        write(request);
    }
    let mut headers = std::mem::take(&mut request.headers);
    headers.clear();
    request.client.spare.replace(Some(headers));
}
