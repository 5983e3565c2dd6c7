//! The line to a controller: dials, says who the node is, passes tasks in and reports out; dials the next one when it
//! breaks. It decides nothing, and nothing that the node serves depends on it.

use std::time::Duration;

use dysvr_proto::wire::fleet::fleet_client::FleetClient;
use dysvr_proto::wire::fleet::{FromNode, Hello, Task, ToNode, from_node, to_node};
use rand::RngExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// The largest task: a whole configuration.
const MAX_MESSAGE: usize = 256 << 20;
/// Messages on their way out. A controller that does not read so many is not there.
const QUEUE: usize = 256;
/// How long a connection, and the first answer on it, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a silent connection is probed, and how long an answer to that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// The pause after all controllers were tried: doubled each time up to the second, and a random part of it is waited.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What comes from the line.
#[derive(Debug)]
pub enum Event {
    /// It wants to introduce the node.
    Introduce(oneshot::Sender<Hello>),
    /// A controller has taken the node in.
    Up {
        /// Its name.
        controller: String,
        /// How often it wants to hear of the node.
        beat: Duration,
        /// Where messages go.
        out: Out,
    },
    /// A task.
    Task(Task),
    /// The line is broken.
    Down,
}

/// The way out. Dropping it ends the stream.
#[derive(Clone, Debug)]
pub struct Out(mpsc::Sender<FromNode>);

impl Out {
    /// Sends, unless the controller has stopped reading; then the line is to be given up.
    pub fn send(&self, kind: from_node::Kind) -> bool {
        self.0.try_send(FromNode { kind: Some(kind) }).is_ok()
    }
}

/// Dials until nobody listens to the events any more.
pub async fn run(controllers: Vec<String>, events: mpsc::Sender<Event>) {
    let mut failures = 0u32;
    loop {
        for controller in &controllers {
            match attach(controller, &events).await {
                Ended::Served => failures = 0,
                Ended::Failed(why) => tracing::warn!(controller, %why, "no controller here"),
                Ended::NobodyListens => return,
            }
        }
        failures += 1;
        let most = PAUSE.0.saturating_mul(1 << failures.min(10)).min(PAUSE.1);
        // Nodes that lost one controller together do not come back together.
        let pause = most.mul_f64(rand::rng().random_range(0.3..1.0));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = events.closed() => return,
        }
    }
}

enum Ended {
    /// A controller had taken the node in.
    Served,
    Failed(String),
    NobodyListens,
}

async fn attach(controller: &str, events: &mpsc::Sender<Event>) -> Ended {
    let (out, messages) = mpsc::channel(QUEUE);
    let opened = tokio::select! {
        opened = tokio::time::timeout(PATIENCE, open(controller, events, &out, messages)) => opened,
        () = events.closed() => return Ended::NobodyListens,
    };
    let (mut inbound, name, beat) = match opened {
        Ok(Ok(Some(opened))) => opened,
        Ok(Ok(None)) => return Ended::NobodyListens,
        Ok(Err(why)) => return Ended::Failed(why),
        Err(_) => return Ended::Failed(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    tracing::info!(controller = name, "attached");
    if events.send(Event::Up { controller: name.clone(), beat, out: Out(out) }).await.is_err() {
        return Ended::NobodyListens;
    }
    let why = loop {
        let message = tokio::select! {
            message = inbound.message() => message,
            () = events.closed() => return Ended::NobodyListens,
        };
        match message {
            Ok(Some(ToNode { kind: Some(to_node::Kind::Task(task)) })) => {
                if events.send(Event::Task(task)).await.is_err() {
                    return Ended::NobodyListens;
                }
            }
            Ok(Some(ToNode { kind: Some(to_node::Kind::Refused(refused)) })) => break refused.reason,
            // A second welcome, or a message of a newer controller.
            Ok(Some(_)) => {}
            Ok(None) => break "the stream ended".to_owned(),
            Err(status) => break describe(&status),
        }
    };
    tracing::warn!(controller = name, %why, "detached; what is served stays");
    if events.send(Event::Down).await.is_err() { Ended::NobodyListens } else { Ended::Served }
}

/// Connects and introduces the node; `None` when nobody listens.
async fn open(
    controller: &str,
    events: &mpsc::Sender<Event>,
    out: &mpsc::Sender<FromNode>,
    messages: mpsc::Receiver<FromNode>,
) -> Result<Option<(Streaming<ToNode>, String, Duration)>, String> {
    let endpoint = Endpoint::from_shared(controller.to_owned()).map_err(|e| e.to_string())?;
    let endpoint = endpoint
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(|e| chain(&e))?;
    let mut client = FleetClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    // Read as late as can be: what it says must be true when the controller decides on it.
    let (answer, hello) = oneshot::channel();
    if events.send(Event::Introduce(answer)).await.is_err() {
        return Ok(None);
    }
    let Ok(hello) = hello.await else { return Ok(None) };
    let hello = FromNode { kind: Some(from_node::Kind::Hello(hello)) };
    out.send(hello).await.map_err(|_| "the stream ended".to_owned())?;
    let response = client.attach(ReceiverStream::new(messages)).await.map_err(|e| describe(&e))?;
    let mut inbound = response.into_inner();
    match inbound.message().await.map_err(|e| describe(&e))?.and_then(|message| message.kind) {
        Some(to_node::Kind::Welcome(welcome)) => {
            let beat = Duration::from_secs(welcome.beat_seconds.max(1).into());
            Ok(Some((inbound, welcome.controller, beat)))
        }
        Some(to_node::Kind::Refused(refused)) => Err(format!("refused: {}", refused.reason)),
        _ => Err("it did not welcome the node".into()),
    }
}

fn describe(status: &tonic::Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
