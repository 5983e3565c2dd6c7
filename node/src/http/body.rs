//! The body of an answer on its way to hyper's server.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::client::Client;
use super::proxy::Relay;

/// The connection is to be closed right away: by `return 444`, or because the answer cannot be finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abort;

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is closed without an answer")
    }
}

impl std::error::Error for Abort {}

/// See the module.
pub(super) enum Body {
    /// Nothing.
    Empty,
    /// Our own text.
    Text(Rc<Client>, Bytes),
    /// What the upstream sends.
    Relay(Rc<Relay>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Abort;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Abort>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Text(client, text) => {
                if text.is_empty() {
                    return Poll::Ready(None);
                }
                let text = std::mem::take(text);
                client.generate(text.len() as u64);
                client.generated_all();
                Poll::Ready(Some(Ok(Frame::data(text))))
            }
            Self::Relay(relay) => relay.poll_frame(cx).map(|frame| frame.map(|data| data.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(_, text) => text.is_empty(),
            Self::Relay(relay) => relay.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(_, text) => SizeHint::with_exact(text.len() as u64),
            Self::Relay(relay) => relay.remaining().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
