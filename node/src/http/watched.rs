//! What stands around a connection while it is polled: its slot in the zone says whose request runs, so that the master
//! knows it when the worker dies or hangs; and a panic ends this connection alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use super::client::Client;
use crate::log::Level;

/// Runs a connection's part to its end.
pub(super) async fn run(client: &Client, connection: impl Future<Output = ()>) {
    let mut connection = pin!(connection);
    std::future::poll_fn(|cx| {
        let pulse = &client.ctx.pulse;
        pulse.enter(client.mark.get());
        // Nothing of the connection is used again after a panic but what `Entered` puts in order, and what connections
        // share is changed by single steps.
        let polled = catch_unwind(AssertUnwindSafe(|| connection.as_mut().poll(cx)));
        if polled.is_err() {
            panicked(client);
        }
        pulse.turn(0);
        polled.unwrap_or(Poll::Ready(()))
    })
    .await;
}

/// The panic's own words are in the log already.
fn panicked(client: &Client) {
    let ctx = &client.ctx;
    let mark = client.mark.get();
    ctx.pulse.panicked(ctx.panics.add(), mark);
    let request = client.current.try_borrow().ok().and_then(|current| current.clone());
    match request.as_ref().and_then(|request| request.try_borrow().ok()) {
        Some(request) => request.error(Level::Alert, format_args!("a request panicked, its connection is closed")),
        None => client.log(Level::Alert, format_args!("a request panicked, its connection is closed")),
    }
}
