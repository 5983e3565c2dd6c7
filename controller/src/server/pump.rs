//! One node's stream: what comes in goes to the fleet, what the fleet wants of the node goes out, one task at a time.
//! The newest desired revision replaces older ones by itself: a task is made only when the node is free for it.

use std::sync::Arc;
use std::time::Duration;

use dysvr_proto::wire::fleet::{FromNode, Hello, Refused, ToNode, Welcome, from_node, to_node};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tonic::Status;

use super::lead::Lead;
use super::node::Link;

/// How often a node says that it is there, seconds.
pub(super) const BEAT_SECONDS: u32 = 5;

/// A node that is silent for that long is gone.
const SILENCE: Duration = Duration::from_secs(3 * BEAT_SECONDS as u64);

/// A node that does not read for that long is gone.
const DEAF: Duration = Duration::from_secs(15);

/// Messages that wait to be read by the node.
pub(super) const QUEUE: usize = 4;

/// The pause before the store is asked again for what a task needs.
const RETRY: Duration = Duration::from_secs(1);

/// Where a stream's messages go.
pub(super) type Outbound = mpsc::Sender<Result<ToNode, Status>>;

/// Runs a stream from its Hello to its end.
pub(super) async fn run(
    lead: Arc<Lead>,
    controller: String,
    hello: Hello,
    mut inbound: impl Stream<Item = Result<FromNode, Status>> + Unpin,
    out: Outbound,
) {
    let name = hello.node.clone();
    let link = match lead.with(|fleet| fleet.attach(hello, lead.clock.unix_ms())) {
        Ok(link) => link,
        Err(refused) => {
            tracing::error!(node = name, "{refused}: two agents with one identity?");
            let _ = send(&out, to_node::Kind::Refused(Refused { reason: refused.to_string() })).await;
            return;
        }
    };
    tracing::info!(node = name, "node attached");
    let welcome = Welcome { controller, epoch: lead.reign.epoch.0, beat_seconds: BEAT_SECONDS };
    let end = match send(&out, to_node::Kind::Welcome(welcome)).await {
        Ok(()) => {
            let remember = lead.remember(&name);
            tokio::join!(remember, serve(&lead, &name, &link, &mut inbound, &out)).1
        }
        Err(end) => end,
    };
    lead.with(|fleet| fleet.detach(&name, link.serial, lead.clock.now()));
    tracing::info!(node = name, reason = end, "node gone");
}

/// Serves until the stream ends; why it did.
async fn serve(
    lead: &Lead,
    name: &str,
    link: &Link,
    inbound: &mut (impl Stream<Item = Result<FromNode, Status>> + Unpin),
    out: &Outbound,
) -> &'static str {
    // The memory of the task that is out.
    let mut room = None;
    loop {
        if lead.with(|fleet| !fleet.is_busy(name)) {
            room = None;
        }
        let mut again = None;
        if let Err(error) = lead.recognise(name).await {
            tracing::warn!(node = name, %error, "the store does not say what the node has");
            again = Some(RETRY);
        } else if let Some(sent) = next_task(lead, name, link, out, &mut room).await {
            match sent {
                Ok(true) => {}
                Ok(false) => again = Some(RETRY),
                Err(end) => return end,
            }
        }
        let look = lead.with(|fleet| fleet.tick(name, link.serial, lead.clock.now()));
        let retry = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => lead.sleep_until(look).await,
            }
        };
        tokio::select! {
            message = timeout(SILENCE, inbound.next()) => match message {
                Err(_) => return "silent",
                Ok(None) => return "stream ended",
                Ok(Some(Err(status))) => {
                    tracing::debug!(node = name, %status, "stream broke");
                    return "stream broke";
                }
                Ok(Some(Ok(message))) => take(lead, name, link, message),
            },
            () = link.wake.notified() => {}
            () = link.evict.notified() => return "replaced by a newer stream of the same agent",
            () = lead.over() => return "this controller does not lead any more",
            () = retry => {}
        }
    }
}

fn take(lead: &Lead, name: &str, link: &Link, message: FromNode) {
    let now = lead.clock.now();
    match message.kind {
        Some(from_node::Kind::Report(report)) => {
            tracing::debug!(node = name, task = report.id, status = report.status().as_str_name(), "report");
            lead.with(|fleet| fleet.report(name, link.serial, report, now));
        }
        Some(from_node::Kind::Observed(observed)) => {
            lead.with(|fleet| fleet.observed(name, link.serial, observed, now));
        }
        Some(from_node::Kind::Beat(_)) => lead.with(|fleet| fleet.beat(name, link.serial, now)),
        // A second Hello says nothing new; a kind of a newer agent says nothing that this side knows.
        Some(from_node::Kind::Hello(_)) | None => {}
    }
}

/// Builds and sends the next task, if it is time for one. `Ok(false)`: it could not be built now.
async fn next_task(
    lead: &Lead,
    name: &str,
    link: &Link,
    out: &Outbound,
    room: &mut Option<OwnedSemaphorePermit>,
) -> Option<Result<bool, &'static str>> {
    let order = lead.with(|fleet| fleet.order(name, link.serial, lead.clock.now()))?;
    let task = match lead.build(&order).await {
        Ok(Some((task, taken))) => {
            *room = Some(taken);
            task
        }
        Ok(None) => {
            lead.with(|fleet| fleet.unsent(name, link.serial, &order.id, lead.clock.now()));
            return Some(Ok(false));
        }
        Err(error) => {
            tracing::warn!(node = name, task = order.id, %error, "a task could not be built");
            lead.with(|fleet| fleet.unsent(name, link.serial, &order.id, lead.clock.now()));
            return Some(Ok(false));
        }
    };
    tracing::info!(
        node = name,
        task = task.id,
        from = task.from_revision,
        to = task.to_revision,
        whole = task.whole,
        files = task.files.len(),
        removed = task.remove.len(),
        "task sent"
    );
    Some(send(out, to_node::Kind::Task(task)).await.map(|()| true))
}

async fn send(out: &Outbound, kind: to_node::Kind) -> Result<(), &'static str> {
    match timeout(DEAF, out.send(Ok(ToNode { kind: Some(kind) }))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("stream ended"),
        Err(_) => Err("it does not read"),
    }
}
