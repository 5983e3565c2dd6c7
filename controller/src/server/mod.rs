//! The controller as a server: nodes and operators over gRPC, one leader at a time.
//!
//! `fleet` is what the leader knows, in memory and without waiting; `lead` is everything that waits for the store; `pump`
//! is one node's stream; `steer` moves rollouts. A controller that does not lead answers UNAVAILABLE and says who does.

mod attach;
mod change;
mod clock;
mod fleet;
mod health;
mod lead;
mod node;
mod operator;
mod pump;
mod record;
mod steer;
mod throne;
mod wire;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use dysvr_conf::bundle::Assumptions;
use dysvr_proto::wire::fleet::fleet_server::FleetServer;
use dysvr_proto::wire::operator::operator_server::OperatorServer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use self::attach::FleetService;
use self::clock::Clock;
use self::lead::Lead;
use self::operator::OperatorService;
use self::throne::Throne;
use crate::store::{Candidate, Store};

/// The largest message: a whole configuration.
pub const MAX_MESSAGE: usize = 256 << 20;

/// How often a connection is asked whether its other end is there, and how long the answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// The pause before standing for election again.
const RETRY: Duration = Duration::from_secs(1);

/// Streams that do not end by themselves are cut when a controller that was told to stop has waited that long.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until `stop` resolves. Changes are checked in what nodes are assumed to have around the managed files.
pub async fn serve(
    store: Arc<dyn Store>,
    me: Candidate,
    assumptions: Assumptions,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let throne = Throne::new(Arc::clone(&store), me);
    let (reporter, health) = tonic_health::server::health_reporter();
    let (stopping, mut stopped) = tokio::sync::watch::channel(false);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(dysvr_proto::wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let fleet = FleetServer::new(FleetService::new(throne.clone())).max_decoding_message_size(MAX_MESSAGE);
    let operator = OperatorServer::new(OperatorService::new(throne.clone())).max_decoding_message_size(MAX_MESSAGE);
    // Ends with this function, however it ends.
    let mut beside = JoinSet::new();
    beside.spawn(health::keep(reporter, throne.clone()));
    let reign_loop = beside.spawn(reign(throne.clone(), Arc::new(assumptions)));

    let mut ending = stopped.clone();
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .tcp_nodelay(true)
        .add_service(health)
        .add_service(reflection)
        .add_service(fleet)
        .add_service(operator)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
            let _ = ending.wait_for(|stop| *stop).await;
        });
    beside.spawn(async move {
        stop.await;
        stopping.send_replace(true);
    });
    let mut end = None;
    let overdue = async {
        let _ = stopped.wait_for(|stop| *stop).await;
        // Leaving the throne ends every node's stream and every watch.
        reign_loop.abort();
        end = throne.leave();
        tokio::time::sleep(GRACE).await;
    };
    let outcome = tokio::select! {
        outcome = server => outcome.map_err(anyhow::Error::from),
        () = overdue => Ok(()),
    };
    // The lease is given back once nobody holds the reign: the next leader need not wait for its end.
    if let Some(mut end) = end.or_else(|| throne.leave()) {
        let _ = tokio::time::timeout(GRACE, end.wait_for(|ended| *ended)).await;
    }
    outcome
}

/// Stands for election again and again, and steers while it leads.
async fn reign(throne: Throne, assumptions: Arc<Assumptions>) {
    loop {
        let lead = async {
            let reign = throne.store().campaign(throne.candidate()).await?;
            tracing::info!(epoch = reign.epoch.0, "this controller leads");
            Lead::begin(Arc::clone(throne.store()), Arc::clone(&assumptions), reign, Clock::start()).await
        };
        match lead.await {
            Ok(lead) => {
                let lead = Arc::new(lead);
                let epoch = lead.reign.epoch;
                throne.take(Arc::clone(&lead));
                steer::steer(lead).await;
                throne.leave();
                tracing::warn!(epoch = epoch.0, "this controller does not lead any more");
            }
            Err(error) => {
                tracing::warn!(%error, "this controller cannot lead");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
