//! The Fleet service: nodes dial in.

use std::pin::Pin;
use std::time::Duration;

use dysvr_proto::wire::fleet::fleet_server::Fleet;
use dysvr_proto::wire::fleet::{FromNode, Hello, ToNode, from_node};
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::pump;
use super::throne::Throne;

/// How long a node may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);

/// The longest node name: a host name.
const MAX_NAME: usize = 253;

/// Serves nodes while this controller leads.
#[derive(Clone, Debug)]
pub(super) struct FleetService {
    throne: Throne,
}

impl FleetService {
    /// On the throne that may or may not be ours.
    pub(super) fn new(throne: Throne) -> Self {
        Self { throne }
    }
}

#[tonic::async_trait]
impl Fleet for FleetService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ToNode, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<FromNode>>) -> Result<Response<Self::AttachStream>, Status> {
        let lead = self.throne.lead().await?;
        let mut inbound = request.into_inner();
        let (out, answers) = mpsc::channel(pump::QUEUE);
        let controller = self.throne.name().to_owned();
        // The answer's head goes out before the Hello came in: a client may wait for it.
        tokio::spawn(async move {
            let hello = match timeout(HELLO, inbound.message()).await {
                Ok(Ok(Some(FromNode { kind: Some(from_node::Kind::Hello(hello)) }))) => check(hello),
                Ok(Ok(Some(_))) => Err(Status::invalid_argument("the first message of a node is Hello")),
                Ok(Ok(None)) => return,
                Ok(Err(status)) => Err(status),
                Err(_) => Err(Status::deadline_exceeded("no Hello within 10 s")),
            };
            match hello {
                Ok(hello) => pump::run(lead, controller, hello, inbound, out).await,
                Err(status) => drop(out.send(Err(status)).await),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// A node's name becomes a key of the store and a word on terminals.
fn check(hello: Hello) -> Result<Hello, Status> {
    let name = &hello.node;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        let text = format!("{name:?} is not the name of a node (1 to {MAX_NAME} of A-Z a-z 0-9 . - _ :)");
        return Err(Status::invalid_argument(text));
    }
    Ok(hello)
}
