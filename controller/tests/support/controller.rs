//! A controller inside the test's process, behind a real socket.

use std::sync::Arc;

use dysvr_conf::bundle::Assumptions;
use dysvr_controller::server;
use dysvr_controller::store::{Candidate, Store};
use dysvr_proto::wire::fleet::File;
use dysvr_proto::wire::operator::operator_client::OperatorClient;
use dysvr_proto::wire::operator::{ApplyReply, ChangeRequest, ListRequest, Node, Rollout, RolloutRequest, Strategy};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// A running controller.
pub struct Controller {
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Controller {
    /// On a port of its own.
    pub async fn start(store: Arc<dyn Store>) -> Self {
        Self::start_on(store, "127.0.0.1:0").await
    }

    /// On a given address.
    pub async fn start_on(store: Arc<dyn Store>, address: &str) -> Self {
        let listener = super::until("the port to be free", async || TcpListener::bind(address).await.ok()).await;
        let address = listener.local_addr().unwrap().to_string();
        let me = Candidate { name: format!("c-{address}"), address: address.clone() };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server::serve(store, me, Assumptions::default(), listener, async move {
            let _ = stopped.await;
        }));
        Self { address, stop: Some(stop), task }
    }

    /// Stops it as TERM does.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap().unwrap();
    }

    /// A connection of an operator.
    pub fn channel(&self) -> Channel {
        channel(&self.address)
    }

    /// An operator, once the controller leads.
    pub async fn operator(&self) -> Operator {
        operator_at(&self.address).await
    }
}

fn channel(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().timeout(super::PATIENCE).connect_lazy()
}

/// An operator of the controller at an address, once it leads.
pub async fn operator_at(address: &str) -> Operator {
    let client = OperatorClient::new(channel(address));
    super::until("the controller to lead", async || {
        client.clone().list_nodes(ListRequest::default()).await.ok().map(drop)
    })
    .await;
    Operator(client)
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An operator's client with the words that the tests need.
#[derive(Clone)]
pub struct Operator(pub OperatorClient<Channel>);

impl Operator {
    /// Applies files; the answer must not be an error.
    pub async fn apply(&self, files: &[(&str, &str)], strategy: Strategy) -> ApplyReply {
        self.0.clone().apply(change(files, strategy)).await.unwrap().into_inner()
    }

    /// All nodes.
    pub async fn nodes(&self) -> Vec<Node> {
        self.0.clone().list_nodes(ListRequest::default()).await.unwrap().into_inner().items
    }

    /// Waits until that many nodes are connected.
    pub async fn connected(&self, count: usize) {
        super::until("nodes to connect", async || {
            let nodes = self.nodes().await;
            (nodes.iter().filter(|node| node.connected && node.state != "behind").count() == count).then_some(())
        })
        .await;
    }

    /// Waits until every connected node is at that revision.
    pub async fn converged(&self, revision: u64) {
        super::until(&format!("all nodes to run revision {revision}"), async || {
            let nodes = self.nodes().await;
            nodes
                .iter()
                .filter(|node| node.connected)
                .all(|node| node.state == "current" && node.observed.as_ref().is_some_and(|o| o.revision == revision))
                .then_some(())
        })
        .await;
    }

    /// The rollout now.
    pub async fn rollout(&self, id: u64) -> Rollout {
        let list =
            self.0.clone().list_rollouts(ListRequest { names: vec![id.to_string()] }).await.unwrap().into_inner();
        list.items.into_iter().next().unwrap()
    }

    /// Watches a rollout to its end; all phases that were seen, and the last message.
    pub async fn watch(&self, id: u64) -> (Vec<String>, Rollout) {
        let mut stream = self.0.clone().watch_rollout(RolloutRequest { id }).await.unwrap().into_inner();
        let mut phases: Vec<String> = Vec::new();
        let mut last = None;
        while let Some(rollout) = tokio::time::timeout(super::PATIENCE, stream.message()).await.unwrap().unwrap() {
            if phases.last() != Some(&rollout.phase) {
                phases.push(rollout.phase.clone());
            }
            last = Some(rollout);
        }
        (phases, last.unwrap())
    }

    /// Waits until a rollout is in a phase.
    pub async fn phase(&self, id: u64, phase: &str) -> Rollout {
        super::until(&format!("rollout {id} to be {phase}"), async || {
            let rollout = self.rollout(id).await;
            (rollout.phase == phase).then_some(rollout)
        })
        .await
    }
}

/// A change that writes files.
pub fn change(files: &[(&str, &str)], strategy: Strategy) -> ChangeRequest {
    let file = |(name, text): &(&str, &str)| File { name: (*name).to_owned(), content: text.as_bytes().to_vec() };
    ChangeRequest {
        files: files.iter().map(file).collect(),
        author: "tester".into(),
        strategy: Some(strategy),
        ..ChangeRequest::default()
    }
}

/// A strategy with these waves.
pub fn waves(sizes: &[&str]) -> Strategy {
    Strategy {
        waves: sizes.iter().map(|size| (*size).to_owned()).collect(),
        node_deadline_seconds: 60,
        ..Strategy::default()
    }
}
