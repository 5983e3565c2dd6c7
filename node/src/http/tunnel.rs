//! Bytes in both directions after a switch of protocols (websocket).

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::client::Client;
use super::stream::Stream;

/// The peer's side of a tunnel.
pub(super) struct Switch {
    /// The socket.
    pub stream: Stream,
    /// What the peer sent behind its head.
    pub early: Bytes,
    /// Nothing in either direction for so long ends the tunnel.
    pub timeout: Duration,
}

/// Passes bytes on until one side ends both, or nothing moves for too long.
pub(super) async fn run(client: &Rc<Client>, downstream: Stream, early: Bytes, switch: Switch) {
    let Switch { stream: upstream, early: answer, timeout } = switch;
    let moved = std::cell::Cell::new(Instant::now());
    let (mut client_read, mut client_write) = tokio::io::split(downstream);
    let (mut peer_read, mut peer_write) = tokio::io::split(upstream);
    let both = async {
        let up = copy(&mut client_read, &mut peer_write, early, &moved, |bytes| {
            client.received.set(client.received.get() + bytes);
        });
        let down = copy(&mut peer_read, &mut client_write, answer, &moved, |bytes| {
            client.sent.set(client.sent.get() + bytes);
        });
        tokio::join!(up, down)
    };
    let idle = async {
        loop {
            let due = moved.get() + timeout;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    };
    tokio::select! {
        _ = both => {}
        () = idle => {}
    }
    client.ctx.clock.tick();
}

/// One direction; its end is passed on as an end of writing.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    early: Bytes,
    moved: &std::cell::Cell<Instant>,
    count: impl Fn(u64),
) -> std::io::Result<()> {
    if !early.is_empty() {
        to.write_all(&early).await?;
        to.flush().await?;
        count(early.len() as u64);
    }
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        moved.set(Instant::now());
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        moved.set(Instant::now());
        count(read as u64);
    }
}
