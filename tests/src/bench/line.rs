//! The controller's end of a node's stream, so that a task's way through the agent is measured from both sides. It sends
//! what a controller sends and nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dysvr_proto::wire::fleet::fleet_server::{Fleet, FleetServer};
use dysvr_proto::wire::fleet::{FromNode, Status, Task, TaskReport, ToNode, Welcome, from_node, to_node};
use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Streaming};

/// No task takes longer.
const LIMIT: Duration = Duration::from_secs(60);

type Out = mpsc::Sender<Result<ToNode, tonic::Status>>;

enum Event {
    Attached(Out),
    Report(Box<TaskReport>, Instant),
}

/// A listening controller for one node; it ends when this is dropped.
#[derive(Debug)]
pub struct Line {
    /// Where the node dials it.
    pub addr: SocketAddr,
    events: Receiver<Event>,
    out: Option<Out>,
    _ending: oneshot::Sender<()>,
}

struct End {
    events: Sender<Event>,
}

#[tonic::async_trait]
impl Fleet for End {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ToNode, tonic::Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<FromNode>>,
    ) -> Result<Response<Self::AttachStream>, tonic::Status> {
        let (out, answers) = mpsc::channel(16);
        let (events, mut inbound) = (self.events.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut out = Some(out);
            while let Some(Ok(FromNode { kind: Some(kind) })) = inbound.next().await {
                let now = Instant::now();
                let event = match kind {
                    from_node::Kind::Hello(_) => {
                        let Some(out) = out.take() else { break };
                        let welcome = Welcome { controller: "bench".into(), epoch: 1, beat_seconds: 5 };
                        let welcome = ToNode { kind: Some(to_node::Kind::Welcome(welcome)) };
                        if out.send(Ok(welcome)).await.is_err() {
                            break;
                        }
                        Event::Attached(out)
                    }
                    from_node::Kind::Report(report) => Event::Report(Box::new(report), now),
                    _ => continue,
                };
                if events.send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Attached(_) => "Attached",
            Self::Report(..) => "Report",
        })
    }
}

impl Line {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot.
    pub fn listen() -> Result<Self> {
        let (events, received) = channel();
        let (ending, ended) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let addr = listener.local_addr()?;
        std::thread::Builder::new().name("controller".to_owned()).spawn(move || {
            let server = tonic::transport::Server::builder().tcp_nodelay(true);
            let mut server = server;
            let served = server.add_service(FleetServer::new(End { events })).serve_with_incoming_shutdown(
                TcpListenerStream::new(listener),
                async {
                    let _ = ended.await;
                },
            );
            // A server that fails sends no events, and who waits for them says so.
            let _ = runtime.block_on(served);
        })?;
        Ok(Self { addr, events: received, out: None, _ending: ending })
    }

    /// Waits for the node to dial in.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn attached(&mut self) -> Result<()> {
        loop {
            if let Event::Attached(out) = self.events.recv_timeout(LIMIT).context("waiting for the node to dial in")? {
                self.out = Some(out);
                return Ok(());
            }
        }
    }

    /// Sends a task and waits for its verdict; how long that took from here.
    ///
    /// # Errors
    /// When it does not end in `D`.
    pub fn done(&mut self, task: Task) -> Result<(TaskReport, Duration)> {
        let id = task.id.clone();
        let out = self.out.as_ref().context("no node has dialled in")?;
        let begin = Instant::now();
        out.blocking_send(Ok(ToNode { kind: Some(to_node::Kind::Task(task)) })).context("sending a task")?;
        loop {
            let event = self.events.recv_timeout(LIMIT).with_context(|| format!("waiting for the verdict of {id}"))?;
            let Event::Report(report, at) = event else { continue };
            if report.id != id {
                continue;
            }
            match report.status() {
                Status::Done => return Ok((*report, at - begin)),
                Status::Failed => anyhow::bail!("task {id} failed: {}", report.reason),
                _ => {}
            }
        }
    }
}
