//! The real `dysvrctl` and `dysvr-controller` with agents that keep their files in memory: rollouts as an operator
//! steers and watches them.

mod ctl_support;
mod support;
#[path = "ctl_support/controller.rs"]
mod watched;

use std::process::Stdio;
use std::time::{Duration, Instant};

use ctl_support::{Ctl, Run, write};
use serde_json::Value;
use support::PATIENCE;
use support::agent::{Agent, Disk, Journal, Manner};
use tokio::runtime::Runtime;
use watched::Controller;

/// A controller with agents in two zones, and a vhost file.
struct Scene {
    ctl: Ctl,
    agents: Vec<Agent>,
    dir: tempfile::TempDir,
    controller: Option<Controller>,
    _runtime: Runtime,
}

fn vhost(port: u16) -> String {
    format!("server {{\n    vsvc_id 1;\n    listen {port};\n    server_name a.example;\n    return 204;\n}}\n")
}

impl Scene {
    fn new(agents: usize) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let controller = Controller::start(dir.path());
        let ctl = Ctl::new(controller.url.as_str(), dir.path());
        let runtime = Runtime::new().expect("a runtime");
        let inside = runtime.enter();
        let journal = Journal::default();
        let address = controller.url.trim_start_matches("http://");
        let zones = [("zone", "a"), ("zone", "b")];
        let start = |n: usize| {
            Agent::start_with(&format!("n{n}"), address, &journal, Disk::default(), &[zones[(n + 1) % 2]], 1)
        };
        let agents = (1..=agents).map(start).collect::<Vec<_>>();
        drop(inside);
        write(dir.path(), &[("a.conf", &vhost(80))]);
        let scene = Self { ctl, agents, dir, controller: Some(controller), _runtime: runtime };
        let count = scene.agents.len();
        scene.until("the nodes to dial in", || {
            let nodes = scene.json(&["get", "nodes"]);
            let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
            nodes.iter().filter(|node| node["state"] == "current").count() == count
        });
        scene
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ctl.ok(&[args, &["-o", "json"]].concat())).expect("JSON")
    }

    #[track_caller]
    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        }
    }

    #[track_caller]
    fn run(&self, args: &[&str], code: i32) -> Run {
        let run = self.ctl.run(args);
        assert_eq!(run.code, code, "dysvrctl {args:?}: {run:?}");
        run
    }

    fn phase(&self, id: &str) -> String {
        self.json(&["get", "rollout", id])["phase"].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn a_rollout_is_followed_through_its_waves() {
    let scene = Scene::new(3);
    let said = scene.ctl.ok(&["apply", "-f", "a.conf", "--wait", "--waves", "1,100%", "-m", "first"]);
    assert!(said.starts_with("vhost/1 created\nrevision/1 created\nrollout/1 started\n"), "{said}");
    assert!(said.contains("rollout/1: revision 0 -> 1, 3 nodes in 2 waves\n"), "{said}");
    for node in ["1/2: n1 done", "2/2: n2 done", "2/2: n3 done"] {
        assert!(said.contains(&format!("rollout/1 wave {node}\n")), "{said}");
    }
    assert!(said.lines().last().is_some_and(|line| line.starts_with("rollout/1 done: 3 of 3 nodes at revision 1 in ")));
    assert!(scene.agents.iter().all(|agent| agent.revision() == 1));

    let table = scene.ctl.ok(&["get", "nodes"]);
    assert_eq!(table.matches("current").count(), 3, "{table}");
    let tasks = scene.ctl.ok(&["get", "tasks", "--rollout", "1", "--no-headers"]);
    assert_eq!((tasks.lines().count(), tasks.matches("1.500").count()), (3, 3), "{tasks}");
    assert_eq!(scene.ctl.ok(&["get", "tasks", "n2", "-o", "name"]).lines().count(), 1);
    let page = scene.ctl.ok(&["describe", "rollout", "1"]);
    for part in ["Phase:     done", "Message:   first", "Wave 2 (2 nodes):", "in_place"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(scene.ctl.ok(&["describe", "node", "n1"]).contains("Observed Revision:  1\n"));
    assert_eq!(scene.ctl.ok(&["get", "nodes", "-l", "zone=b", "-o", "name"]), "node/n2\n");

    // Once it has ended there is nothing to pause.
    assert!(scene.run(&["rollout", "pause"], 1).stderr.starts_with("Error from server (FailedPrecondition): "));
    scene.run(&["rollout", "watch", "1"], 0);
    scene.run(&["rollout", "status"], 0);
    scene.run(&["rollout", "status", "9"], 1);
}

#[test]
fn a_node_that_refuses_rolls_the_fleet_back_and_the_command_fails() {
    let scene = Scene::new(3);
    scene.ctl.ok(&["apply", "-f", "a.conf", "--wait"]);
    scene.agents[1].set(Manner::Refuse(2, "low memory: 12 %".into()));
    write(scene.dir.path(), &[("a.conf", &vhost(81))]);
    let run = scene.run(&["apply", "-f", "a.conf", "--wait", "--waves", "1"], 1);
    assert!(run.stdout.contains("rollout/2 wave 2/3: n2 failed: low memory: 12 %\n"), "{run:?}");
    assert!(run.stdout.contains("rollout/2 wave 1/3: n1 undone\n"), "{run:?}");
    assert!(run.stderr.starts_with("error: rollout/2 rolled-back: "), "{run:?}");
    assert!(scene.run(&["rollout", "status"], 1).stdout.contains("n2 failed: low memory: 12 %"));
    let history = scene.ctl.ok(&["rollout", "history"]);
    assert!(history.contains("rolled-back") && history.lines().count() == 3, "{history}");
    let task = scene.ctl.ok(&["get", "tasks", "--node", "n2", "--limit", "1"]);
    assert!(task.contains(" F ") && task.contains("low memory: 12 %"), "{task}");
}

#[test]
fn an_operator_pauses_resumes_aborts_and_undoes() {
    let scene = Scene::new(3);
    scene.agents[0].set(Manner::Wait);
    scene.ctl.ok(&["apply", "-f", "a.conf", "--waves", "1"]);
    scene.until("the rollout to start", || scene.phase("1") == "running");
    assert!(scene.ctl.ok(&["rollout", "pause"]).starts_with("rollout/1 paused"));
    scene.agents[0].set(Manner::Obey);
    scene.until("the node at work to finish", || scene.agents[0].revision() == 1);
    let run = scene.run(&["rollout", "watch", "--timeout", "5s"], 4);
    assert!(run.stdout.contains("paused"), "{run:?}");
    assert_eq!((scene.agents[1].revision(), scene.phase("1").as_str()), (0, "paused"));
    assert!(scene.ctl.ok(&["rollout", "resume", "rollout/1"]).starts_with("rollout/1 "));
    scene.run(&["rollout", "watch", "1"], 0);

    write(scene.dir.path(), &[("a.conf", &vhost(81))]);
    scene.agents[0].set(Manner::Wait);
    scene.ctl.ok(&["apply", "-f", "a.conf", "--waves", "1"]);
    scene.until("the rollout to start", || scene.phase("2") == "running");
    assert!(scene.ctl.ok(&["rollout", "abort"]).starts_with("rollout/2 aborted"));
    scene.agents[0].set(Manner::Obey);
    assert!(scene.run(&["rollout", "watch", "2"], 1).stderr.contains("rollout/2 aborted"));

    let said = scene.ctl.ok(&["rollout", "undo", "--to-revision", "1", "--wait", "--waves", "100%"]);
    assert!(said.contains("revision/3 created\n") && said.contains(" done: "), "{said}");
    let history = scene.json(&["rollout", "history"]);
    let phases: Vec<&str> =
        history["items"].as_array().into_iter().flatten().filter_map(|item| item["phase"].as_str()).collect();
    assert_eq!(phases, ["done", "aborted", "done"], "{history}");
}

#[test]
fn following_outlives_the_controller() {
    let mut scene = Scene::new(1);
    scene.agents[0].set(Manner::Wait);
    let address = scene.ctl.controller.trim_start_matches("http://").to_owned();
    let mut command = scene.ctl.command(&["apply", "-f", "a.conf", "--wait"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("dysvrctl starts");
    scene.until("the rollout to run", || {
        let rollouts = scene.json(&["get", "rollouts"]);
        rollouts["items"][0]["waves"][0]["nodes"][0]["state"] == "updating"
    });
    scene.controller = None;
    scene.agents[0].set(Manner::Obey);
    scene.controller = Some(Controller::start_on(scene.dir.path(), &address));
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("rollout/1 done: 1 of 1 node at revision 1"), "{said}");
}

#[test]
fn a_selector_moves_the_nodes_that_it_names() {
    let scene = Scene::new(2);
    scene.ctl.ok(&["apply", "-f", "a.conf", "--wait", "-l", "zone=a"]);
    assert_eq!((scene.agents[0].revision(), scene.agents[1].revision()), (1, 0));
}

#[test]
fn a_watch_prints_what_changes() {
    let scene = Scene::new(1);
    let mut command = scene.ctl.command(&["get", "rollouts", "-w"]);
    let log = scene.dir.path().join("watch.log");
    let file = std::fs::File::create(&log).expect("a file");
    let mut child = command.stdout(file).stderr(Stdio::null()).spawn().expect("dysvrctl starts");
    scene.ctl.ok(&["apply", "-f", "a.conf", "--wait"]);
    scene.until("the watch to show the end", || {
        std::thread::sleep(Duration::from_millis(20)); // between two looks at the file
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains(" done "))
    });
    child.kill().expect("it runs until it is interrupted");
    child.wait().expect("it ends");
}

#[test]
fn drift_is_held_or_reverted() {
    let scene = Scene::new(1);
    scene.ctl.ok(&["apply", "-f", "a.conf", "--wait"]);
    scene.run(&["node", "revert", "n1"], 1);
    let agent = &scene.agents[0];
    agent.disk.lock().expect("no panic").files.insert("auto_vhost/by-hand.conf".into(), b"server {}\n".to_vec());
    agent.observe();
    let state = |wanted: &str| scene.json(&["get", "node", "n1"])["state"] == wanted;
    scene.until("the drift to be seen", || state("drifted"));
    assert!(scene.ctl.ok(&["describe", "node", "n1"]).contains("by-hand.conf"));
    assert_eq!(scene.ctl.ok(&["node", "hold", "n1"]), "node/n1 held\n");
    assert!(state("drifted"));
    assert_eq!(scene.ctl.ok(&["node", "revert", "node/n1"]), "node/n1 reverting\n");
    scene.until("the files to be put back", || state("current"));
    assert!(!agent.disk.lock().expect("no panic").files.contains_key("auto_vhost/by-hand.conf"));
}
