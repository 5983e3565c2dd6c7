//! What operators say to a running rollout: pause, resume, abort, undo.

use dysvr_proto::wire::operator::{RolloutRequest, UndoRequest};
use tempfile::TempDir;
use tonic::Code;

use crate::support::agent::{Agent, Journal, Manner};
use crate::support::controller::{Controller, waves};
use crate::support::until;
use crate::{agents, file_store, vhost};

#[tokio::test]
async fn a_paused_rollout_begins_no_wave_until_it_is_resumed() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    let agents = agents(3, &controller.address, &journal);
    operator.connected(3).await;
    agents[0].set(Manner::Wait);
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], waves(&["1"])).await;
    let id = RolloutRequest { id: reply.rollout };
    until("the first task", async || (!journal.lock().unwrap().is_empty()).then_some(())).await;
    let paused = operator.0.clone().pause_rollout(id).await.unwrap().into_inner();
    assert_eq!(paused.phase, "paused");
    // The task that was sent ends; nothing follows it.
    agents[0].set(Manner::Obey);
    until("the task to end", async || (agents[0].revision() == 1).then_some(())).await;
    until("the verdict to arrive", async || {
        (operator.rollout(1).await.waves[0].nodes[0].state == "done").then_some(())
    })
    .await;
    assert_eq!(operator.rollout(1).await.phase, "paused");
    assert_eq!(journal.lock().unwrap().iter().filter(|deed| deed.what == "begin").count(), 1);
    let again = operator.0.clone().pause_rollout(id).await.unwrap().into_inner();
    assert_eq!(again.phase, "paused");
    operator.0.clone().resume_rollout(id).await.unwrap();
    assert_eq!(operator.watch(1).await.1.phase, "done");
    let late = operator.0.clone().resume_rollout(id).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert!(late.message().contains("rollout 1 is done"), "{}", late.message());
}

#[tokio::test]
async fn an_aborted_rollout_leaves_nodes_where_they_are_and_undo_brings_them_back() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    let agents = agents(3, &controller.address, &journal);
    operator.connected(3).await;
    let first = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 204))], waves(&["100%"])).await;
    operator.watch(first.rollout).await;
    agents[1].set(Manner::Wait);
    let second = operator.apply(&[("auto_vhost/a.conf", &vhost("a", 205))], waves(&["1"])).await;
    until("the second wave", async || (operator.rollout(second.rollout).await.wave == 1).then_some(())).await;
    let aborted = operator.0.clone().abort_rollout(RolloutRequest { id: 0 }).await.unwrap().into_inner();
    assert_eq!((aborted.id, aborted.phase.as_str()), (2, "aborted"));
    agents[1].set(Manner::Obey);
    until("the task that was out to end", async || (agents[1].revision() == 2).then_some(())).await;
    // A node that comes again stays where it was left.
    let disk = agents.into_iter().map(Agent::kill).collect::<Vec<_>>();
    assert_eq!(disk.iter().map(|disk| disk.revision).collect::<Vec<_>>(), [2, 2, 1]);
    let agents: Vec<_> = (0..)
        .zip(disk)
        .map(|(n, disk)| Agent::start_with(&format!("n{n}"), &controller.address, &journal, disk, &[], 2))
        .collect();
    operator.connected(3).await;
    assert_eq!(agents.iter().map(Agent::revision).collect::<Vec<_>>(), [2, 2, 1]);

    let undo = UndoRequest { author: "op".into(), ..UndoRequest::default() };
    let undone = operator.0.clone().undo(undo).await.unwrap().into_inner();
    assert_eq!((undone.revision, undone.rollout), (3, 3));
    assert_eq!(operator.watch(3).await.1.phase, "done");
    operator.converged(3).await;
    let text = agents[0].disk.lock().unwrap().files["auto_vhost/a.conf"].clone();
    assert!(String::from_utf8(text).unwrap().contains("return 204"));
}

#[tokio::test]
async fn undo_of_a_running_rollout_aborts_it_first_and_any_revision_can_be_the_goal() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let agents = agents(3, &controller.address, &Journal::default());
    operator.connected(3).await;
    for status in [201, 202] {
        let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a", status))], waves(&["100%"])).await;
        operator.watch(reply.rollout).await;
    }
    agents[1].set(Manner::Wait);
    operator.apply(&[("auto_vhost/a.conf", &vhost("a", 203))], waves(&["1"])).await;
    until("the second wave", async || (operator.rollout(3).await.wave == 1).then_some(())).await;
    let undo = UndoRequest { rollout: 3, to_revision: 1, ..UndoRequest::default() };
    let undone = operator.0.clone().undo(undo).await.unwrap().into_inner();
    assert_eq!((undone.revision, undone.rollout), (4, 4));
    assert_eq!(operator.rollout(3).await.phase, "aborted");
    agents[1].set(Manner::Obey);
    assert_eq!(operator.watch(4).await.1.phase, "done");
    operator.converged(4).await;
    for agent in &agents {
        let text = agent.disk.lock().unwrap().files["auto_vhost/a.conf"].clone();
        assert!(String::from_utf8(text).unwrap().contains("return 201"));
    }
    let unknown = UndoRequest { to_revision: 99, ..UndoRequest::default() };
    assert_eq!(operator.0.clone().undo(unknown).await.unwrap_err().code(), Code::NotFound);
}
