//! The body of a request, read as a whole before the upstream is asked: up to 16 KiB in memory, more in a file that has
//! no name. Being whole, it can be sent again to another peer.

use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::client::Client;
use super::timer::Deadline;

/// nginx's `client_body_buffer_size`.
const MEMORY: usize = 16 << 10;
/// What is read from a file at once.
const CHUNK: usize = 32 << 10;
/// nginx's `client_body_timeout`.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// A whole body.
#[derive(Clone, Debug, Default)]
pub(super) enum RequestBody {
    /// There is none.
    #[default]
    None,
    /// In memory.
    Memory(Bytes),
    /// In a file, with its length.
    File(Rc<File>, u64),
}

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum Failure {
    /// Longer than `client_max_body_size`.
    TooLarge {
        /// What had come before.
        received: u64,
        /// What came then.
        more: u64,
    },
    /// The client was too slow.
    Timeout,
    /// The client is gone, or what it sent is no body.
    Gone,
    /// It could not be stored.
    Store(io::Error),
}

impl RequestBody {
    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// To be sent to a peer.
    pub(super) fn replay(&self) -> Replay {
        Replay { body: self.clone(), sent: 0 }
    }

    /// Reads a body to its end; `limit` 0 is none.
    pub(super) async fn read(incoming: &mut Incoming, limit: u64, client: &Client) -> Result<Self, Failure> {
        let mut stored = Storing::default();
        let ended = loop {
            if incoming.is_end_stream() {
                break Ok(());
            }
            client.timer.set(Deadline::Client, Some(client.ctx.clock.now() + TIMEOUT));
            let frame = poll_fn(|cx| poll_frame(incoming, client, cx)).await;
            match frame {
                Err(failure) => break Err(failure),
                Ok(None) => break Ok(()),
                Ok(Some(data)) => {
                    if limit > 0 && stored.len + data.len() as u64 > limit {
                        break Err(Failure::TooLarge { received: stored.len, more: data.len() as u64 });
                    }
                    if let Err(error) = stored.push(data, client) {
                        break Err(Failure::Store(error));
                    }
                }
            }
        };
        client.timer.set(Deadline::Client, None);
        ended?;
        stored.finish().map_err(Failure::Store)
    }
}

fn poll_frame(incoming: &mut Incoming, client: &Client, _: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
    if client.timer.expired(Deadline::Client, client.ctx.clock.now()) {
        return Poll::Ready(Err(Failure::Timeout));
    }
    // The connection that fills `incoming` runs in this task and polls us after each read: no waker is needed.
    match Pin::new(incoming).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => Poll::Ready(Ok(Some(frame.into_data().unwrap_or_default()))),
        Poll::Ready(Some(Err(_))) => Poll::Ready(Err(Failure::Gone)),
        Poll::Ready(None) => Poll::Ready(Ok(None)),
        Poll::Pending => Poll::Pending,
    }
}

/// A body on its way into memory or a file.
#[derive(Default)]
struct Storing {
    first: Bytes,
    memory: BytesMut,
    file: Option<File>,
    len: u64,
}

impl Storing {
    fn push(&mut self, data: Bytes, client: &Client) -> io::Result<()> {
        self.len += data.len() as u64;
        if let Some(file) = &mut self.file {
            return file.write_all(&data);
        }
        if self.len as usize == data.len() && data.len() <= MEMORY {
            self.first = data;
            return Ok(());
        }
        if self.memory.is_empty() {
            self.memory.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        if self.memory.len() + data.len() <= MEMORY {
            self.memory.extend_from_slice(&data);
            return Ok(());
        }
        let mut file = client.ctx.temp_file()?;
        file.write_all(&self.memory)?;
        file.write_all(&data)?;
        self.memory = BytesMut::new();
        self.file = Some(file);
        Ok(())
    }

    fn finish(self) -> io::Result<RequestBody> {
        Ok(match self.file {
            Some(file) => RequestBody::File(Rc::new(file), self.len),
            None if self.len == 0 => RequestBody::None,
            None if self.memory.is_empty() => RequestBody::Memory(self.first),
            None => RequestBody::Memory(self.memory.freeze()),
        })
    }
}

/// A whole body on its way to a peer.
#[derive(Debug)]
pub struct Replay {
    body: RequestBody,
    sent: u64,
}

impl Body for Replay {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let left = self.body.len() - self.sent;
        if left == 0 {
            return Poll::Ready(None);
        }
        let chunk = match &self.body {
            RequestBody::None => return Poll::Ready(None),
            RequestBody::Memory(bytes) => bytes.slice(self.sent as usize..),
            RequestBody::File(file, _) => {
                let mut chunk = BytesMut::zeroed(left.min(CHUNK as u64) as usize);
                if let Err(error) = file.read_exact_at(&mut chunk, self.sent) {
                    return Poll::Ready(Some(Err(error)));
                }
                chunk.freeze()
            }
        };
        self.sent += chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.body.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.len() - self.sent)
    }
}
