//! Nodes whose files were changed by hand, or belong to another history.

use dysvr_proto::wire::operator::{DriftRequest, Node, Strategy, drift_request::Choice};
use tempfile::TempDir;
use tonic::Code;

use crate::support::agent::{Agent, Disk, Journal, Manner};
use crate::support::controller::{Controller, Operator, waves};
use crate::support::until;
use crate::{agents, file_store, vhost};

async fn resolve(operator: &Operator, node: &str, choice: Choice) -> Result<Node, tonic::Status> {
    let request = DriftRequest { node: node.into(), choice: choice.into() };
    operator.0.clone().resolve_drift(request).await.map(tonic::Response::into_inner)
}

async fn state(operator: &Operator, node: &str, wanted: &str) -> Node {
    until(&format!("{node} to be {wanted}"), async || {
        operator.nodes().await.into_iter().find(|held| held.name == node && held.state == wanted)
    })
    .await
}

#[tokio::test]
async fn what_was_changed_by_hand_is_not_overwritten_until_an_operator_says_so() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let agents = agents(2, &controller.address, &Journal::default());
    operator.connected(2).await;
    let first = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], waves(&["100%"])).await;
    operator.watch(first.rollout).await;

    agents[0].disk.lock().unwrap().files.insert("auto_vhost/by-hand.conf".into(), b"#".to_vec());
    agents[0].observe();
    let drifted = state(&operator, "n0", "drifted").await;
    assert!(drifted.reason.contains("by-hand.conf"), "{}", drifted.reason);
    assert!(resolve(&operator, "n1", Choice::Revert).await.is_err_and(|e| e.code() == Code::FailedPrecondition));
    assert!(resolve(&operator, "n0", Choice::Adopt).await.is_err_and(|e| e.code() == Code::Unimplemented));
    let held = resolve(&operator, "n0", Choice::Hold).await.unwrap();
    assert!(held.reason.starts_with("held: "), "{}", held.reason);

    // It has no part in the next rollout.
    let second = operator.apply(&[("auto_vhost/b.conf", &vhost("b", 204))], waves(&["1"])).await;
    let end = operator.watch(second.rollout).await.1;
    assert_eq!((end.phase.as_str(), end.waves.len()), ("done", 1));
    assert!(agents[0].disk.lock().unwrap().files.contains_key("auto_vhost/by-hand.conf"));
    assert_eq!(agents[0].revision(), 1);

    resolve(&operator, "n0", Choice::Revert).await.unwrap();
    operator.converged(2).await;
    let disk = agents[0].disk.lock().unwrap().clone();
    assert_eq!(disk.files.keys().collect::<Vec<_>>(), ["auto_vhost/a.conf", "auto_vhost/b.conf"]);

    // A new drift is a new question.
    agents[0].disk.lock().unwrap().files.insert("auto_vhost/again.conf".into(), b"#".to_vec());
    agents[0].observe();
    state(&operator, "n0", "drifted").await;
}

#[tokio::test]
async fn a_node_of_another_history_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], waves(&["1"])).await;
    let stranger = |revision: u64, epoch: u64| {
        let mut disk = Disk { revision, epoch, ..Disk::default() };
        disk.files.insert("auto_vhost/other.conf".into(), b"#".to_vec());
        disk.left = disk.digest();
        disk
    };
    let start = |name: &str, disk: Disk| Agent::start_with(name, &controller.address, &journal, disk, &[], 1);
    // A revision that this store never had; its own number with other files; an epoch of a later reign.
    let agents = [start("ahead", stranger(9, 1)), start("other", stranger(1, 1)), start("later", stranger(1, 99))];
    let ahead = state(&operator, "ahead", "drifted").await;
    assert!(ahead.reason.contains("revision 9, which this store does not know"), "{}", ahead.reason);
    state(&operator, "other", "drifted").await;
    let later = state(&operator, "later", "failed").await;
    assert!(later.reason.contains("epoch 99"), "{}", later.reason);
    assert!(journal.lock().unwrap().is_empty(), "a task was sent");
    resolve(&operator, "ahead", Choice::Revert).await.unwrap();
    until("it to follow", async || (agents[0].revision() == 1).then_some(())).await;
}

#[tokio::test]
async fn a_node_that_drifts_before_its_wave_fails_it_at_once() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let agents = agents(2, &controller.address, &Journal::default());
    operator.connected(2).await;
    agents[0].set(Manner::Wait);
    let strategy = Strategy { node_deadline_seconds: 300, ..waves(&["1"]) };
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], strategy).await;
    // A node that has drifted already when the plan is made is not in it.
    until("the plan", async || (operator.rollout(reply.rollout).await.waves.len() == 2).then_some(())).await;
    agents[1].disk.lock().unwrap().files.insert("auto_vhost/by-hand.conf".into(), b"#".to_vec());
    agents[1].observe();
    state(&operator, "n1", "drifted").await;
    agents[0].set(Manner::Obey);
    let end = operator.watch(reply.rollout).await.1;
    assert_eq!(end.phase, "rolled-back");
    assert!(end.reason.contains("n1: changed by hand"), "{}", end.reason);
    assert_eq!(agents[1].revision(), 0);
}
