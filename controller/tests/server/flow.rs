//! Changes on their way through the fleet: waves, nodes that come later, budgets, the way back.

use dysvr_proto::wire::operator::{ChangeRequest, ListRequest, RolloutRequest, Strategy, TaskListRequest};
use tempfile::TempDir;

use crate::support::agent::{Agent, Journal, Manner};
use crate::support::controller::{Controller, change, waves};
use crate::support::until;
use crate::{agents, file_store, vhost};

#[tokio::test]
async fn a_change_reaches_every_node_wave_by_wave_and_nodes_that_come_later_too() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    let agents = agents(5, &controller.address, &journal);
    operator.connected(5).await;

    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a.example", 204))], waves(&["1", "2"])).await;
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
    let again = operator.apply(&[("auto_vhost/a.conf", &vhost("a.example", 204))], waves(&["1"])).await;
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

#[tokio::test]
async fn a_spent_budget_takes_everything_back() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    let agents = agents(6, &controller.address, &journal);
    operator.connected(6).await;
    let first = operator.apply(&[("auto_vhost/a.conf", &vhost("a.example", 204))], waves(&["100%"])).await;
    assert_eq!(operator.watch(first.rollout).await.1.phase, "done");

    agents[2].set(Manner::Refuse(2, "[emerg] no".into()));
    let second = operator.apply(&[("auto_vhost/b.conf", &vhost("b.example", 204))], waves(&["2"])).await;
    assert_eq!((second.revision, second.rollout), (2, 2));
    let (phases, end) = operator.watch(2).await;
    assert_eq!(end.phase, "rolled-back", "{phases:?}");
    assert!(end.reason.contains("n2: [emerg] no"), "{}", end.reason);
    assert_eq!((end.wave, end.failed_nodes, end.failure_budget), (1, 1, 0));
    operator.converged(1).await;
    let deeds = journal.lock().unwrap().clone();
    for late in ["n4", "n5"] {
        assert!(!deeds.iter().any(|deed| deed.node == late && deed.to == 2), "{late} is in a wave that never began");
    }
    let state = |node: &str| {
        let all = end.waves.iter().flat_map(|wave| &wave.nodes);
        all.clone().find(|progress| progress.node == node).unwrap().state.clone()
    };
    assert_eq!(["n0", "n1", "n2", "n3", "n4"].map(state), ["undone", "undone", "failed", "undone", "waiting"]);

    // The next change builds on what the fleet runs, not on what was taken back.
    let third = operator.apply(&[("auto_vhost/c.conf", &vhost("c.example", 204))], waves(&["100%"])).await;
    assert_eq!((third.revision, third.plan.unwrap().base_revision), (3, 1));
    assert_eq!(operator.watch(third.rollout).await.1.phase, "done");
    operator.converged(3).await;
    let files: Vec<_> = agents[0].disk.lock().unwrap().files.keys().cloned().collect();
    assert_eq!(files, ["auto_vhost/a.conf", "auto_vhost/c.conf"]);

    // Every task is on record, with its verdict.
    let tasks = operator.0.clone().list_tasks(TaskListRequest { rollout: 2, node: "n2".into(), limit: 0 }).await;
    let tasks = tasks.unwrap().into_inner().items;
    assert!(
        tasks.iter().any(|task| task.report.as_ref().is_some_and(|report| report.reason == "[emerg] no")),
        "{tasks:?}"
    );
}

#[tokio::test]
async fn a_budget_tolerates_what_it_says_and_the_failed_node_is_tried_again_later() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let agents = agents(4, &controller.address, &Journal::default());
    operator.connected(4).await;
    agents[1].set(Manner::Refuse(1, "memory".into()));
    let strategy = Strategy { failure_budget: "25%".into(), ..waves(&["1"]) };
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a.example", 204))], strategy).await;
    let (_, end) = operator.watch(reply.rollout).await;
    assert_eq!((end.phase.as_str(), end.failed_nodes, end.failure_budget), ("done", 1, 1));
    let nodes = operator.nodes().await;
    let failed = nodes.iter().find(|node| node.name == "n1").unwrap();
    assert_eq!((failed.state.as_str(), failed.reason.as_str(), failed.desired_revision), ("failed", "memory", 1));
    agents[1].set(Manner::Obey);
    operator.converged(1).await;
}

#[tokio::test]
async fn a_failed_rollout_stays_where_it_is_when_nobody_wants_it_undone() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let agents = agents(3, &controller.address, &Journal::default());
    operator.connected(3).await;
    agents[1].set(Manner::Refuse(1, "no".into()));
    let strategy = Strategy { no_auto_undo: true, ..waves(&["1"]) };
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a.example", 204))], strategy).await;
    let (_, end) = operator.watch(reply.rollout).await;
    assert_eq!(end.phase, "failed");
    assert_eq!(agents.iter().map(Agent::revision).collect::<Vec<_>>(), [1, 0, 0]);
    let desired: Vec<_> = operator.nodes().await.iter().map(|node| node.desired_revision).collect();
    assert_eq!(desired, [1, 0, 0]);
}

#[tokio::test]
async fn rollouts_run_one_after_the_other_and_fall_with_the_one_that_they_build_on() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let agents = agents(2, &controller.address, &Journal::default());
    operator.connected(2).await;
    agents[0].set(Manner::Wait);
    for (n, name) in (1..).zip(["a", "b", "c"]) {
        let file = format!("auto_vhost/{name}.conf");
        let reply = operator.apply(&[(&file, &vhost(name, 204))], waves(&["1"])).await;
        assert_eq!((reply.revision, reply.rollout), (n, n));
    }
    assert_eq!(operator.phase(3, "queued").await.waves.len(), 0);
    agents[0].set(Manner::Refuse(2, "no".into()));
    assert_eq!(operator.watch(1).await.1.phase, "done");
    assert_eq!(operator.watch(2).await.1.phase, "rolled-back");
    let third = operator.phase(3, "aborted").await;
    assert!(third.reason.contains("revision 3 builds on revision 2"), "{}", third.reason);
    operator.converged(1).await;
}

#[tokio::test]
async fn a_selector_moves_only_its_nodes_and_later_nodes_follow_it() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    let start = |name: &str, zone: &str| {
        Agent::start_with(name, &controller.address, &journal, Default::default(), &[("zone", zone)], 1)
    };
    let (a, b) = (start("a0", "a"), start("b0", "b"));
    operator.connected(2).await;
    let strategy = Strategy { selector: [("zone".to_owned(), "a".to_owned())].into(), ..waves(&["1"]) };
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a.example", 204))], strategy).await;
    assert_eq!(operator.watch(reply.rollout).await.1.phase, "done");
    let late = start("a1", "a");
    until("the late node to follow", async || (late.revision() == 1).then_some(())).await;
    assert_eq!((a.revision(), b.revision()), (1, 0));
    let all = operator.apply(&[("auto_vhost/b.conf", &vhost("b.example", 204))], waves(&["100%"])).await;
    assert_eq!(operator.watch(all.rollout).await.1.phase, "done");
    operator.converged(2).await;
    assert_eq!(b.disk.lock().unwrap().files.len(), 2);
}

#[tokio::test]
async fn nodes_that_join_in_the_middle_run_what_the_fleet_ran_before() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let journal = Journal::default();
    let agents = agents(2, &controller.address, &journal);
    operator.connected(2).await;
    let first = operator.apply(&[("auto_vhost/a.conf", &vhost("a.example", 204))], waves(&["100%"])).await;
    operator.watch(first.rollout).await;
    agents[1].set(Manner::Wait);
    let second = operator.apply(&[("auto_vhost/b.conf", &vhost("b.example", 204))], waves(&["1"])).await;
    until("the second wave", async || (operator.rollout(second.rollout).await.wave == 1).then_some(())).await;
    let late = Agent::start("n9", &controller.address, &journal);
    until("the late node to run revision 1", async || (late.revision() == 1).then_some(())).await;
    agents[1].set(Manner::Obey);
    assert_eq!(operator.watch(second.rollout).await.1.phase, "done");
    operator.converged(2).await;
}

#[tokio::test]
async fn a_change_without_nodes_needs_no_rollout() {
    let dir = TempDir::new().unwrap();
    let controller = Controller::start(file_store(&dir).await).await;
    let operator = controller.operator().await;
    let reply = operator.apply(&[("auto_vhost/a.conf", &vhost("a.example", 204))], Strategy::default()).await;
    assert_eq!((reply.revision, reply.rollout), (1, 0));
    let none = operator.0.clone().watch_rollout(RolloutRequest { id: 0 }).await.unwrap_err();
    assert_eq!(none.code(), tonic::Code::NotFound);
    let _agents = agents(1, &controller.address, &Journal::default());
    operator.connected(1).await;
    operator.converged(1).await;
    // A dry run stores nothing.
    let asked = ChangeRequest { dry_run: true, ..change(&[("auto_vhost/b.conf", "")], Strategy::default()) };
    let dry = operator.0.clone().apply(asked).await.unwrap().into_inner();
    assert_eq!((dry.revision, dry.plan.unwrap().changes.len()), (0, 1));
    let revisions = operator.0.clone().list_revisions(ListRequest::default()).await.unwrap().into_inner();
    assert_eq!((revisions.items.len(), revisions.head), (1, 1));
}
