//! Sockets as hyper wants them: one read straight into hyper's own buffer, without a copy and without zeroing it first.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, ReadBuf};

/// Reads into the unfilled part of hyper's buffer; gives the number of bytes read, 0 at the end.
pub fn poll_read<T: AsyncRead>(
    io: Pin<&mut T>,
    cx: &mut Context<'_>,
    mut buf: ReadBufCursor<'_>,
) -> Poll<io::Result<usize>> {
    // SAFETY: `ReadBuf` never de-initializes what it is given, and nothing else writes to the slice.
    let mut filled = ReadBuf::uninit(unsafe { buf.as_mut() });
    let read = match io.poll_read(cx, &mut filled) {
        Poll::Ready(Ok(())) => filled.filled().len(),
        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
        Poll::Pending => return Poll::Pending,
    };
    // SAFETY: `ReadBuf` counts as filled only bytes that were initialized, from the beginning of the slice on.
    unsafe { buf.advance(read) };
    Poll::Ready(Ok(read))
}
