//! Large fleets and large configurations. The numbers are printed (`-- size --include-ignored --nocapture`); what is
//! asserted is that everybody gets everything.

use std::time::Instant;

use dysvr_proto::wire::operator::Strategy;
use tempfile::TempDir;

use crate::support::agent::Journal;
use crate::support::controller::{Controller, waves};
use crate::{agents, file_store, vhost};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute; for numbers"]
async fn ten_thousand_vhosts() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let agents = agents(3, &controller.address, &Journal::default());
    operator.connected(3).await;
    let all: Vec<_> =
        (0..10_000).map(|n| (format!("auto_vhost/v{n}.conf"), vhost(&format!("v{n}.example"), 204))).collect();
    let all: Vec<_> = all.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let began = Instant::now();
    let reply = operator.apply(&all, waves(&["1"])).await;
    eprintln!("10,000 vhosts: stored in {:?}", began.elapsed());
    assert_eq!(operator.watch(reply.rollout).await.1.phase, "done");
    eprintln!("10,000 vhosts: rolled out in {:?}", began.elapsed());
    let began = Instant::now();
    for status in 0..10 {
        let text = vhost("v7.example", 200 + status);
        let reply = operator.apply(&[("auto_vhost/v7.conf", &text)], waves(&["1"])).await;
        assert_eq!(operator.watch(reply.rollout).await.1.phase, "done");
    }
    eprintln!("one vhost of 10,000, with its rollout to 3 nodes: {:?}", began.elapsed() / 10);
    assert!(agents.iter().all(|agent| agent.disk.lock().unwrap().files.len() == 10_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes() {
    const NODES: usize = 300;
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let began = Instant::now();
    let agents = agents(NODES, &controller.address, &Journal::default());
    operator.connected(NODES).await;
    eprintln!("{NODES} nodes: connected in {:?}", began.elapsed());
    let began = Instant::now();
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], waves(&["1", "10%", "100%"])).await;
    let (_, end) = operator.watch(reply.rollout).await;
    assert_eq!((end.phase.as_str(), end.waves.len()), ("done", 3));
    eprintln!("{NODES} nodes: rolled out in {:?}", began.elapsed());
    assert!(agents.iter().all(|agent| agent.revision() == 1));
    controller.stop().await;
    // All of them come back at once.
    let began = Instant::now();
    let address = agents[0].address.clone();
    let controller = Controller::start_on(file_store(&dir).await, &address).await;
    let operator = controller.operator().await;
    operator.apply(&[("auto_vhost/b.conf", &vhost("b", 204))], Strategy::default()).await;
    operator.connected(NODES).await;
    operator.converged(2).await;
    eprintln!("{NODES} nodes: came back and converged in {:?}", began.elapsed());
}
