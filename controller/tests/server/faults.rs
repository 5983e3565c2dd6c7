//! Controllers that die, stores that are silent, nodes that go away or come twice.

use std::time::{Duration, Instant};

use dysvr_controller::store;
use dysvr_proto::wire::operator::operator_client::OperatorClient;
use dysvr_proto::wire::operator::{ListRequest, Strategy};
use tempfile::TempDir;
use tonic::Code;

use crate::support::agent::{Agent, Journal, Manner};
use crate::support::controller::{Controller, change, waves};
use crate::support::etcd::Etcd;
use crate::support::process::Process;
use crate::support::{free_port, until};
use crate::{agents, file_store, vhost};

/// The controller dies in the second of three waves; its successor finishes the rollout. Nobody is told twice.
async fn a_successor_goes_on(store: &str, kill: bool) {
    let address = format!("127.0.0.1:{}", free_port());
    let controller = Process::start(&address, store);
    let operator = controller.operator().await;
    let journal = Journal::default();
    let agents = agents(3, &address, &journal);
    operator.connected(3).await;
    agents[1].set(Manner::Wait);
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], waves(&["1"])).await;
    until("the second wave's task", async || {
        journal.lock().unwrap().iter().any(|deed| deed.node == "n1").then_some(())
    })
    .await;
    match kill {
        true => controller.kill(),
        false => assert_eq!(controller.term().await, 0),
    }
    // Without a controller everybody keeps what he has.
    assert_eq!(agents[0].revision(), 1);
    let controller = Process::start(&address, store);
    let operator = controller.operator().await;
    agents[1].set(Manner::Obey);
    let end = operator.watch(reply.rollout).await.1;
    assert_eq!((end.phase.as_str(), end.failed_nodes), ("done", 0));
    operator.converged(1).await;
    let deeds = journal.lock().unwrap().clone();
    for agent in &agents {
        let done = deeds.iter().filter(|deed| deed.node == agent.name && deed.what == "done").count();
        assert_eq!(done, 1, "{}: {deeds:?}", agent.name);
    }
}

#[tokio::test]
async fn a_successor_goes_on_from_the_file() {
    for kill in [false, true] {
        let dir = TempDir::new().unwrap();
        a_successor_goes_on(&format!("file:{}", dir.path().join("c.redb").display()), kill).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_goes_on_from_etcd() {
    for kill in [false, true] {
        let etcd = Etcd::start().await;
        a_successor_goes_on(&etcd.address(), kill).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_controller_leads_and_the_other_one_says_who() {
    let etcd = Etcd::start().await;
    let open = async || store::open(&etcd.address()).await.unwrap();
    let first = Controller::start(open().await).await;
    let operator = first.operator().await;
    operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], Strategy::default()).await;
    let second = Controller::start(open().await).await;
    let refused = until("the second controller to refuse", async || {
        OperatorClient::new(second.channel()).list_nodes(ListRequest::default()).await.err()
    })
    .await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains(&first.address), "{}", refused.message());
    assert_eq!(refused.metadata().get("dysvr-leader").unwrap().to_str().unwrap(), first.address);
    // It takes over, with what the first one stored, and its tasks carry a higher epoch.
    let agent = Agent::start("n0", &second.address, &Journal::default());
    first.stop().await;
    let operator = second.operator().await;
    operator.connected(1).await;
    operator.converged(1).await;
    assert_eq!(agent.disk.lock().unwrap().epoch, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_store_freezes_the_rollout_and_the_api_says_so_in_time() {
    let etcd = Etcd::start().await;
    let controller = Controller::start(store::open(&etcd.address()).await.unwrap()).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    let agents = agents(3, &controller.address, &journal);
    operator.connected(3).await;
    agents[0].set(Manner::Wait);
    let strategy = Strategy { node_deadline_seconds: 300, ..waves(&["1"]) };
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], strategy).await;
    until("the first task", async || (!journal.lock().unwrap().is_empty()).then_some(())).await;
    etcd.signal("STOP");
    agents[0].set(Manner::Obey);
    until("the first node to be done", async || (agents[0].revision() == 1).then_some(())).await;
    let began = Instant::now();
    let refused =
        operator.0.clone().apply(change(&[("auto_vhost/b.conf", "")], Strategy::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{}", refused.message());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(journal.lock().unwrap().iter().filter(|deed| deed.what == "begin").count(), 1, "a wave began");
    etcd.signal("CONT");
    // The same leader or the next one goes on.
    let operator = controller.operator().await;
    until("the rollout to be done", async || {
        let list = operator.0.clone().list_rollouts(ListRequest::default()).await.ok()?.into_inner();
        list.items.iter().any(|rollout| rollout.id == reply.rollout && rollout.phase == "done").then_some(())
    })
    .await;
    assert!(agents.iter().all(|agent| agent.revision() == 1));
}

#[tokio::test]
async fn a_node_that_goes_away_in_its_wave_fails_and_follows_when_it_returns() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    let mut agents = agents(3, &controller.address, &journal);
    operator.connected(3).await;
    agents[0].set(Manner::Wait);
    let strategy = Strategy { failure_budget: "1".into(), node_deadline_seconds: 10, ..waves(&["1"]) };
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], strategy).await;
    until("the first task", async || (!journal.lock().unwrap().is_empty()).then_some(())).await;
    let disk = agents.remove(0).kill();
    let end = operator.watch(reply.rollout).await.1;
    assert_eq!((end.phase.as_str(), end.failed_nodes), ("done", 1));
    let failed = &end.waves[0].nodes[0];
    assert!(failed.state == "failed" && failed.reason.starts_with("away"), "{failed:?}");
    let nodes = operator.nodes().await;
    assert_eq!(nodes.iter().find(|node| node.name == "n0").unwrap().state, "away");
    agents.push(Agent::start_with("n0", &controller.address, &journal, disk, &[], 2));
    operator.connected(3).await;
    operator.converged(1).await;
}

#[tokio::test]
async fn a_node_that_never_answers_fails_at_its_deadline() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let agents = agents(2, &controller.address, &Journal::default());
    operator.connected(2).await;
    agents[1].set(Manner::Silent);
    let strategy = Strategy { node_deadline_seconds: 5, ..waves(&["1"]) };
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], strategy).await;
    let end = operator.watch(reply.rollout).await.1;
    assert_eq!(end.phase, "rolled-back");
    assert!(end.reason.contains("n1: no verdict within 5 s"), "{}", end.reason);
    assert_eq!(agents[0].revision(), 0);
}

#[tokio::test]
async fn a_soak_watches_the_health_of_what_has_moved() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let agents = agents(2, &controller.address, &Journal::default());
    operator.connected(2).await;
    let strategy = Strategy { soak_seconds: 30, ..waves(&["1"]) };
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], strategy).await;
    operator.phase(reply.rollout, "soaking").await;
    agents[0].disk.lock().unwrap().proxy_down = true;
    agents[0].observe();
    let end = operator.watch(reply.rollout).await.1;
    assert_eq!(end.phase, "rolled-back");
    assert!(end.reason.contains("n0: its proxy is not running"), "{}", end.reason);
    assert_eq!(agents.iter().map(Agent::revision).collect::<Vec<_>>(), [0, 0]);
}

#[tokio::test]
async fn two_agents_with_one_identity() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    let first = Agent::start("n0", &controller.address, &journal);
    operator.connected(1).await;
    let second = Agent::start_with("n0", &controller.address, &journal, Default::default(), &[], 2);
    until("the second one to be refused", async || (!second.refusals.lock().unwrap().is_empty()).then_some(())).await;
    assert!(second.refusals.lock().unwrap()[0].contains("connected already"));
    operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], waves(&["1"])).await;
    until("the first one to be served", async || (first.revision() == 1).then_some(())).await;
    assert_eq!(second.revision(), 0);
    drop(first);
    until("the second one to be served", async || (second.revision() == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_slept_past_its_lease_cannot_steer() {
    let etcd = Etcd::start().await;
    let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let first = Process::start(&addresses[0], &etcd.address());
    let operator = first.operator().await;
    operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], Strategy::default()).await;
    let second = Process::start(&addresses[1], &etcd.address());
    first.signal("STOP");
    let successor = second.operator().await;
    let reply = successor.apply(&[("auto_vhost/b.conf", &vhost("b", 204))], Strategy::default()).await;
    assert_eq!(reply.revision, 2);
    first.signal("CONT");
    // Whatever it still believes: what it says now is refused by the store or by itself.
    let stale = operator.0.clone().apply(change(&[("auto_vhost/c.conf", &vhost("c", 204))], Strategy::default())).await;
    assert_eq!(stale.unwrap_err().code(), Code::Unavailable);
    let revisions = successor.0.clone().list_revisions(ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(revisions.items.len(), 2);
}
