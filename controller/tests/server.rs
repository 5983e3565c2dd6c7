//! The controller behind real sockets, with agents that speak the Fleet protocol.

mod support;

use std::sync::Arc;

use dysvr_controller::store::{self, Store};
use dysvr_proto::wire::operator::ListRequest;
use tempfile::TempDir;

use support::agent::{Agent, Journal};
use support::controller::{Controller, waves};

const VHOST: &str = "server {\n    listen 80;\n    server_name a.example;\n    return 204;\n}\n";

async fn file_store(dir: &TempDir) -> Arc<dyn Store> {
    store::open(&format!("file:{}", dir.path().join("c.redb").display())).await.unwrap()
}

#[tokio::test]
async fn a_change_reaches_every_node_wave_by_wave_and_nodes_that_come_later_too() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    let agents: Vec<_> = (0..5).map(|n| Agent::start(&format!("n{n}"), &controller.address, &journal)).collect();
    operator.connected(5).await;

    let reply = operator.apply(&[("auto_vhost/a.conf", VHOST)], waves(&["1", "2"])).await;
    assert_eq!((reply.revision, reply.rollout), (1, 1), "{reply:?}");
    let (phases, end) = operator.watch(1).await;
    assert_eq!(end.phase, "done", "{phases:?} {end:?}");
    let sizes: Vec<_> = end.waves.iter().map(|wave| wave.nodes.len()).collect();
    assert_eq!(sizes, [1, 2, 2]);
    operator.converged(1).await;
    assert!(agents.iter().all(|agent| agent.revision() == 1));

    // No wave begins before the one before it is done.
    let deeds = journal.lock().unwrap().clone();
    for (n, deed) in deeds.iter().enumerate().filter(|(_, deed)| deed.what == "begin") {
        let wave = end.waves.iter().position(|wave| wave.nodes.iter().any(|node| node.node == deed.node)).unwrap();
        for node in end.waves[..wave].iter().flat_map(|wave| &wave.nodes) {
            assert!(
                deeds[..n].iter().any(|earlier| earlier.node == node.node && earlier.what == "done"),
                "{deed:?} began before {} was done",
                node.node
            );
        }
    }

    // The id that was given is in the file that nodes have, and the same file again changes nothing.
    let text = String::from_utf8(agents[0].disk.lock().unwrap().files["auto_vhost/a.conf"].clone()).unwrap();
    assert!(text.contains("vsvc_id 1;"), "{text}");
    let again = operator.apply(&[("auto_vhost/a.conf", VHOST)], waves(&["1"])).await;
    assert_eq!((again.revision, again.rollout), (0, 0));
    assert!(again.plan.unwrap().nothing);

    let late = Agent::start("n9", &controller.address, &journal);
    operator.connected(6).await;
    operator.converged(1).await;
    assert_eq!(late.disk.lock().unwrap().whole, 1);

    let vhosts = operator.0.clone().list_vhosts(ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(vhosts.items[0].vsvc_id, 1);
    assert_eq!(vhosts.items[0].server_names, ["a.example"]);
    controller.stop().await;
}
