//! What `dysvrctl` makes of a controller's answers, said by a controller that follows a script: fleets, failures and
//! losses that a real one would need machines and accidents for.

mod ctl_support;
#[path = "../../tests/src/ports.rs"]
mod ports;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ctl_support::{Ctl, write};
use dysvr_proto::wire::fleet;
use dysvr_proto::wire::operator::operator_server::{Operator, OperatorServer};
use dysvr_proto::wire::operator::*;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

/// What the controller says, and what it was asked.
#[derive(Default)]
struct Script {
    plan: ChangePlan,
    reply: ApplyReply,
    vhosts: Vec<Vhost>,
    upstreams: Vec<Upstream>,
    nodes: Vec<Node>,
    rollouts: Vec<Rollout>,
    revisions: Vec<Revision>,
    tasks: Vec<TaskRecord>,
    files: HashMap<(String, u64), &'static str>,
    /// One list per stream: what it says before it ends.
    streams: Mutex<VecDeque<Vec<Result<Rollout, Status>>>>,
    /// What every question but the streams is answered with.
    refuse: Option<(Code, &'static str)>,
    asked: Mutex<Vec<ChangeRequest>>,
    undone: Mutex<Vec<UndoRequest>>,
    drift: Mutex<Vec<DriftRequest>>,
}

impl Script {
    fn answer<T>(&self, reply: T) -> Result<Response<T>, Status> {
        match self.refuse {
            Some((code, text)) => Err(Status::new(code, text)),
            None => Ok(Response::new(reply)),
        }
    }

    fn rollout(&self, id: u64, phase: &str) -> Result<Response<Rollout>, Status> {
        let found = self.rollouts.iter().find(|rollout| id == 0 || rollout.id == id);
        let found = found.cloned().ok_or_else(|| Status::not_found("no such rollout"))?;
        self.answer(Rollout { phase: phase.to_owned(), ..found })
    }
}

/// The script, as a service.
struct Actor(Arc<Script>);

#[async_trait]
impl Operator for Actor {
    async fn validate(&self, _: Request<ChangeRequest>) -> Result<Response<ChangePlan>, Status> {
        self.0.answer(self.0.plan.clone())
    }

    async fn apply(&self, request: Request<ChangeRequest>) -> Result<Response<ApplyReply>, Status> {
        self.0.asked.lock().expect("no panic").push(request.into_inner());
        self.0.answer(self.0.reply.clone())
    }

    async fn list_vhosts(&self, _: Request<ListRequest>) -> Result<Response<VhostList>, Status> {
        self.0.answer(VhostList { items: self.0.vhosts.clone(), revision: 7 })
    }

    async fn list_upstreams(&self, _: Request<ListRequest>) -> Result<Response<UpstreamList>, Status> {
        self.0.answer(UpstreamList { items: self.0.upstreams.clone(), revision: 7 })
    }

    async fn list_nodes(&self, _: Request<ListRequest>) -> Result<Response<NodeList>, Status> {
        self.0.answer(NodeList { items: self.0.nodes.clone() })
    }

    async fn list_rollouts(&self, _: Request<ListRequest>) -> Result<Response<RolloutList>, Status> {
        self.0.answer(RolloutList { items: self.0.rollouts.clone() })
    }

    async fn list_revisions(&self, _: Request<ListRequest>) -> Result<Response<RevisionList>, Status> {
        self.0.answer(RevisionList { items: self.0.revisions.clone(), head: 7 })
    }

    async fn list_tasks(&self, _: Request<TaskListRequest>) -> Result<Response<TaskList>, Status> {
        self.0.answer(TaskList { items: self.0.tasks.clone() })
    }

    async fn get_file(&self, request: Request<FileRequest>) -> Result<Response<FileReply>, Status> {
        let FileRequest { name, revision } = request.into_inner();
        let Some(text) = self.0.files.get(&(name.clone(), revision)) else {
            return Err(Status::not_found("no such file"));
        };
        let file = Some(fleet::File { name, content: text.as_bytes().to_vec() });
        self.0.answer(FileReply { file, revision })
    }

    type WatchRolloutStream = tokio_stream::Iter<std::vec::IntoIter<Result<Rollout, Status>>>;

    async fn watch_rollout(&self, _: Request<RolloutRequest>) -> Result<Response<Self::WatchRolloutStream>, Status> {
        let next = self.0.streams.lock().expect("no panic").pop_front();
        Ok(Response::new(tokio_stream::iter(next.ok_or_else(|| Status::not_found("no such rollout"))?)))
    }

    async fn pause_rollout(&self, request: Request<RolloutRequest>) -> Result<Response<Rollout>, Status> {
        self.0.rollout(request.into_inner().id, "paused")
    }

    async fn resume_rollout(&self, request: Request<RolloutRequest>) -> Result<Response<Rollout>, Status> {
        self.0.rollout(request.into_inner().id, "running")
    }

    async fn abort_rollout(&self, request: Request<RolloutRequest>) -> Result<Response<Rollout>, Status> {
        self.0.rollout(request.into_inner().id, "aborted")
    }

    async fn undo(&self, request: Request<UndoRequest>) -> Result<Response<ApplyReply>, Status> {
        self.0.undone.lock().expect("no panic").push(request.into_inner());
        self.0.answer(self.0.reply.clone())
    }

    async fn resolve_drift(&self, request: Request<DriftRequest>) -> Result<Response<Node>, Status> {
        let request = request.into_inner();
        self.0.drift.lock().expect("no panic").push(request.clone());
        self.0.answer(Node { name: request.node, ..Node::default() })
    }
}

/// A controller of a script, until it is dropped, and a directory to work in.
struct Stage {
    script: Arc<Script>,
    ctl: Ctl,
    dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

fn stage(script: Script) -> Stage {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let script = Arc::new(script);
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let addr: SocketAddr = listener.local_addr().expect("an address");
    let service = OperatorServer::new(Actor(script.clone())).max_decoding_message_size(usize::MAX);
    let server = tonic::transport::Server::builder().add_service(service);
    runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let dir = tempfile::tempdir().expect("a directory");
    Stage { script, ctl: Ctl::new(format!("http://{addr}"), dir.path()), dir, _runtime: runtime }
}

fn node_progress(node: &str, state: &str, reason: &str) -> NodeProgress {
    NodeProgress { node: node.into(), state: state.into(), reason: reason.into(), changed_unix_ms: 1 }
}

fn rollout(phase: &str, states: [&str; 2]) -> Rollout {
    Rollout {
        id: 7,
        from_revision: 6,
        to_revision: 7,
        phase: phase.into(),
        waves: vec![
            Wave { nodes: vec![node_progress("n1", states[0], "")] },
            Wave { nodes: vec![node_progress("n2", states[1], "")] },
        ],
        wave: u32::from(states[0] == "done"),
        created_unix_ms: 1_658_904_251_114,
        ended_unix_ms: if matches!(phase, "done" | "rolled-back") { 1_658_904_252_514 } else { 0 },
        ..Rollout::default()
    }
}

fn change(name: &str, kind: file_change::Kind, vsvc_ids: &[u64]) -> FileChange {
    FileChange { name: name.into(), kind: kind.into(), vsvc_ids: vsvc_ids.to_vec(), ..FileChange::default() }
}

fn applied() -> ApplyReply {
    let changes = vec![change("auto_vhost/a.conf", file_change::Kind::Add, &[131_942])];
    ApplyReply {
        revision: 7,
        rollout: 7,
        plan: Some(ChangePlan { base_revision: 6, changes, ..ChangePlan::default() }),
    }
}

#[test]
fn apply_sends_the_files_and_the_strategy_and_waits_for_the_end() {
    let stage = stage(Script {
        reply: applied(),
        streams: Mutex::new(VecDeque::from([vec![
            Ok(rollout("running", ["updating", "waiting"])),
            Ok(rollout("running", ["done", "updating"])),
            Ok(rollout("done", ["done", "done"])),
        ]])),
        vhosts: vec![Vhost { vsvc_id: 5, file: "auto_vhost/b.conf".into(), ..Vhost::default() }],
        ..Script::default()
    });
    write(
        stage.dir.path(),
        &[("conf/auto_vhost/a.conf", "server {}\n"), ("conf/auto_vhost/b.conf", "server { #b\n}\n")],
    );
    let args = ["apply", "-f", "conf", "--wait", "-m", "why", "--waves", "1,50%", "--failure-budget", "2"];
    let more = ["--soak", "1500ms", "--node-deadline", "1m", "-l", "zone=a", "--no-auto-undo"];
    let said = stage.ctl.ok(&[&args[..], &more[..]].concat());
    let wanted = "\
vhost/131942 created
vhost/5 unchanged
revision/7 created
rollout/7 started
rollout/7: revision 6 -> 7, 2 nodes in 2 waves
rollout/7 wave 1/2: n1 updating
rollout/7 wave 1/2: n1 done
rollout/7 wave 2/2: n2 updating
rollout/7 wave 2/2: n2 done
rollout/7 done: 2 of 2 nodes at revision 7 in 1.4s
";
    assert_eq!(said, wanted);
    let asked = stage.script.asked.lock().expect("no panic").remove(0);
    let names: Vec<&str> = asked.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["auto_vhost/a.conf", "auto_vhost/b.conf"]);
    assert_eq!((asked.message.as_str(), asked.author.as_str(), asked.dry_run), ("why", "tester", false));
    let strategy = asked.strategy.expect("a strategy");
    assert_eq!(strategy.waves, ["1", "50%"]);
    assert_eq!((strategy.failure_budget.as_str(), strategy.soak_seconds), ("2", 2));
    assert_eq!((strategy.node_deadline_seconds, strategy.no_auto_undo), (60, true));
    assert_eq!(strategy.selector, HashMap::from([("zone".to_owned(), "a".to_owned())]));
}

#[test]
fn a_rollout_that_does_not_succeed_exits_with_1() {
    for phase in ["rolled-back", "failed", "aborted"] {
        let mut end = rollout(phase, ["failed", "waiting"]);
        end.reason = "failure budget spent".into();
        end.waves[0].nodes[0].reason = "low memory: 12 %".into();
        let streams = Mutex::new(VecDeque::from([vec![Ok(end.clone())], vec![Ok(end.clone())]]));
        let stage = stage(Script { reply: applied(), streams, rollouts: vec![end], ..Script::default() });
        write(stage.dir.path(), &[("a.conf", "server {}\n")]);
        for args in [&["rollout", "watch"][..], &["apply", "-f", "a.conf", "--wait"], &["rollout", "status", "7"]] {
            let run = stage.ctl.run(args);
            assert_eq!(run.code, 1, "{args:?}: {run:?}");
            assert!(run.stdout.contains("low memory: 12 %"), "{args:?}: {run:?}");
            assert!(run.stderr.starts_with("error: rollout/7 ") && run.stderr.contains(phase), "{args:?}: {run:?}");
        }
    }
}

#[test]
fn following_survives_streams_that_break_off() {
    let streams = VecDeque::from([
        vec![Ok(rollout("running", ["updating", "waiting"]))],
        vec![Ok(rollout("running", ["done", "waiting"])), Err(Status::unavailable("shutting down"))],
        vec![Ok(rollout("done", ["done", "done"]))],
    ]);
    let stage = stage(Script { streams: Mutex::new(streams), ..Script::default() });
    let said = stage.ctl.ok(&["rollout", "watch"]);
    assert_eq!(said.lines().filter(|line| line.contains("n1 done")).count(), 1, "{said}");
    assert!(said.ends_with("rollout/7 done: 2 of 2 nodes at revision 7 in 1.4s\n"), "{said}");
}

#[test]
fn waiting_ends_with_the_timeout_and_does_not_stop_the_rollout() {
    let same = || vec![Ok(rollout("running", ["updating", "waiting"]))];
    let streams = Mutex::new((0..50).map(|_| same()).collect());
    let stage = stage(Script { streams, ..Script::default() });
    let run = stage.ctl.run(&["rollout", "watch", "7", "--timeout", "4s"]);
    assert_eq!(run.code, 4, "{run:?}");
    assert_eq!(run.stderr, "error: timed out after 4s waiting for the rollout; it goes on\n");
}

#[test]
fn problems_are_printed_with_the_operators_paths() {
    let problem = |file: &str, line, text: &str| Problem { file: file.into(), line, text: text.into() };
    let problems = vec![
        problem("auto_vhost/a.conf", 2, "unknown directive \"listn\""),
        problem("auto_vhost/a.conf", 0, "no \"server\" in it"),
    ];
    let plan = ChangePlan { problems, ..ChangePlan::default() };
    let reply = ApplyReply { plan: Some(plan.clone()), ..ApplyReply::default() };
    let stage = stage(Script { plan, reply, ..Script::default() });
    write(stage.dir.path(), &[("sites/a.conf", "include gone.conf;\nlistn 80;\n")]);
    let wanted = "\
sites/a.conf:2: unknown directive \"listn\"
sites/a.conf: no \"server\" in it
error: 2 problems, nothing was stored
";
    for verb in ["apply", "diff", "validate"] {
        let run = stage.ctl.run(&[verb, "-f", "sites/a.conf"]);
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (3, "", wanted), "{verb}");
    }
    let run = stage.ctl.run_with_stdin(&["apply", "-f", "-", "--name", "a"], "listn 80;\n");
    assert_eq!((run.code, run.stderr.lines().next()), (3, Some("a:2: unknown directive \"listn\"")));
}

#[test]
fn diff_exits_with_1_for_differences_and_above_for_failures() {
    let mut modified = change("auto_vhost/a.conf", file_change::Kind::Modify, &[1]);
    modified.before = b"server {\n  listen 80;\n}\n".to_vec();
    modified.after = b"server {\n  listen 81;\n}\n".to_vec();
    let plan = ChangePlan { base_revision: 6, changes: vec![modified], ..ChangePlan::default() };
    let different = stage(Script { plan, ..Script::default() });
    write(different.dir.path(), &[("a.conf", "server {\n  listen 81;\n}\n")]);
    let run = different.ctl.run(&["diff", "-f", "a.conf"]);
    let wanted = "\
--- revision/6/auto_vhost/a.conf
+++ a.conf
@@ -1,3 +1,3 @@
 server {
-  listen 80;
+  listen 81;
 }
";
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (1, wanted, ""));

    let same = stage(Script { plan: ChangePlan { nothing: true, ..ChangePlan::default() }, ..Script::default() });
    write(same.dir.path(), &[("a.conf", "server {}\n")]);
    assert_eq!(same.ctl.ok(&["diff", "-f", "a.conf"]), "");

    let refusing = stage(Script { refuse: Some((Code::Internal, "the store is corrupt")), ..Script::default() });
    write(refusing.dir.path(), &[("a.conf", "server {}\n")]);
    let run = refusing.ctl.run(&["diff", "-f", "a.conf"]);
    assert_eq!((run.code, run.stderr.as_str()), (2, "error: Error from server (Internal): the store is corrupt\n"));
}

#[test]
fn answers_of_the_server_have_kubectls_form_and_their_codes() {
    for (code, exit) in
        [(Code::NotFound, 1), (Code::FailedPrecondition, 1), (Code::InvalidArgument, 3), (Code::Unavailable, 4)]
    {
        let stage = stage(Script { refuse: Some((code, "so it is")), ..Script::default() });
        let run = stage.ctl.run(&["get", "nodes", "--request-timeout", "5s"]);
        assert_eq!(
            (run.code, run.stderr.as_str()),
            (exit, format!("Error from server ({code:?}): so it is\n").as_str())
        );
    }
}

#[test]
fn a_read_goes_to_the_next_controller_when_the_first_is_gone_or_refuses() {
    let down = stage(Script { refuse: Some((Code::Unavailable, "etcd has no quorum")), ..Script::default() });
    let up = stage(Script { nodes: vec![Node { name: "n1".into(), ..Node::default() }], ..Script::default() });
    let closed = ports::free().expect("a port");
    let urls = format!("http://127.0.0.1:{closed},{},{}", down.ctl.controller, up.ctl.controller);
    let ctl = Ctl::new(urls, up.dir.path());
    assert_eq!(ctl.ok(&["get", "no", "-o", "name"]), "node/n1\n");
}

#[test]
fn a_change_goes_on_to_the_controller_that_leads() {
    let follows =
        stage(Script { refuse: Some((Code::Unavailable, "this controller does not lead")), ..Script::default() });
    let leads = stage(Script { reply: applied(), ..Script::default() });
    let ctl = Ctl::new(format!("{},{}", follows.ctl.controller, leads.ctl.controller), leads.dir.path());
    assert!(ctl.ok(&["delete", "vhost", "131942"]).ends_with("rollout/7 started\n"));
    assert_eq!(leads.script.asked.lock().expect("no panic").len(), 1);
}

#[test]
fn lists_have_tables_documents_and_names() {
    let node = |name: &str, zone: &str| Node {
        name: name.into(),
        labels: HashMap::from([("zone".to_owned(), zone.to_owned())]),
        state: "current".into(),
        connected: true,
        desired_revision: 7,
        ..Node::default()
    };
    let stage = stage(Script { nodes: vec![node("n1", "a"), node("n2", "b")], ..Script::default() });
    let ctl = &stage.ctl;
    assert_eq!(ctl.ok(&["get", "nodes", "-o", "name"]), "node/n1\nnode/n2\n");
    assert_eq!(ctl.ok(&["get", "nodes", "-l", "zone=b", "-o", "name"]), "node/n2\n");
    assert!(ctl.ok(&["get", "nodes"]).starts_with("NAME   STATE"));
    assert_eq!(ctl.ok(&["get", "nodes", "--no-headers"]).lines().count(), 2);
    let list: serde_json::Value = serde_json::from_str(&ctl.ok(&["get", "no", "-o", "json"])).expect("JSON");
    assert_eq!((&list["kind"], &list["items"][1]["labels"]["zone"]), (&"NodeList".into(), &"b".into()));
    let one: serde_json::Value = serde_json::from_str(&ctl.ok(&["get", "node/n1", "-o", "json"])).expect("JSON");
    assert_eq!((&one["desired_revision"], &one["seen"]), (&7.into(), &serde_json::Value::Null));
    assert!(ctl.ok(&["get", "nodes", "n2", "-o", "yaml"]).starts_with("name: n2\n"));
    let run = ctl.run(&["get", "nodes", "n1", "n9"]);
    assert!(run.code == 1 && run.stdout.contains("n1"), "{run:?}");
    assert_eq!(run.stderr, "Error from server (NotFound): nodes \"n9\" not found\n");
    let run = ctl.run(&["get", "vhosts"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", "No vhosts found.\n"));
    let empty: serde_json::Value = serde_json::from_str(&ctl.ok(&["get", "vhosts", "-o", "json"])).expect("JSON");
    assert_eq!(empty["items"], serde_json::json!([]));
}

#[test]
fn verbs_that_steer_say_what_came_of_it() {
    let stage = stage(Script {
        reply: applied(),
        rollouts: vec![rollout("running", ["done", "updating"])],
        ..Script::default()
    });
    let ctl = &stage.ctl;
    let wanted = "rollout/7 paused: wave 2 of 2, 1 of 2 nodes at revision 7\n";
    assert_eq!(ctl.ok(&["rollout", "pause"]), wanted);
    assert_eq!(ctl.ok(&["rollout", "resume", "rollout/7"]), wanted.replace("paused", "running"));
    assert!(ctl.ok(&["rollout", "abort", "7"]).starts_with("rollout/7 aborted"));
    assert_eq!(ctl.run(&["rollout", "pause", "8"]).code, 1);
    let undone = ctl.ok(&["rollout", "undo", "--to-revision", "3", "-m", "back"]);
    assert_eq!(undone, "vhost/131942 created\nrevision/7 created\nrollout/7 started\n");
    let undo = stage.script.undone.lock().expect("no panic").remove(0);
    assert_eq!((undo.rollout, undo.to_revision, undo.message.as_str()), (0, 3, "back"));
    assert_eq!(ctl.ok(&["node", "revert", "node/n1"]), "node/n1 reverting\n");
    assert_eq!(ctl.ok(&["node", "hold", "n1"]), "node/n1 held\n");
    let drift = stage.script.drift.lock().expect("no panic");
    assert_eq!(
        drift.iter().map(DriftRequest::choice).collect::<Vec<_>>(),
        [drift_request::Choice::Revert, drift_request::Choice::Hold]
    );
}

#[test]
fn delete_names_vhosts_by_whatever_they_are_called() {
    let stage = stage(Script { reply: applied(), ..Script::default() });
    write(stage.dir.path(), &[("conf/auto_vhost/a.conf", "server {}\n")]);
    for (args, wanted) in [
        (&["delete", "vhost", "131942", "a.example"][..], &["131942", "a.example"][..]),
        (&["delete", "vhost/131942"], &["131942"]),
        (&["delete", "-f", "conf"], &["auto_vhost/a.conf"]),
        (&["delete", "-f", "conf/auto_vhost/a.conf", "--dry-run"], &["auto_vhost/a.conf"]),
    ] {
        stage.ctl.ok(args);
        let asked = stage.script.asked.lock().expect("no panic").remove(0);
        assert_eq!(asked.delete_vhosts, wanted, "{args:?}");
        assert_eq!(asked.dry_run, args.contains(&"--dry-run"));
        assert!(asked.files.is_empty());
    }
}

#[test]
fn descriptions_hold_everything() {
    let timings = fleet::Timings {
        total_us: 1_142,
        workers: vec![fleet::WorkerTiming { pid: 20_301, prepare_us: 210, commit_us: 12 }],
        ..fleet::Timings::default()
    };
    let report = fleet::TaskReport {
        id: "7/n1".into(),
        rollout: 7,
        status: fleet::Status::Done.into(),
        mode: fleet::Mode::InPlace.into(),
        local_task_id: 25_208,
        timings: Some(timings),
        ..fleet::TaskReport::default()
    };
    let name = "auto_vhost/a.conf".to_owned();
    let mut changed = change(&name, file_change::Kind::Modify, &[131_942]);
    changed.ups_ids = vec![];
    let stage = stage(Script {
        vhosts: vec![Vhost {
            vsvc_id: 131_942,
            server_names: vec!["a.example".into()],
            listens: vec!["80".into(), "[::]:80".into()],
            ups_ids: vec!["1074728".into()],
            file: name.clone(),
            revision: 7,
        }],
        upstreams: vec![Upstream {
            ups_id: "1074728".into(),
            servers: vec!["127.0.0.1:81".into()],
            ..Upstream::default()
        }],
        nodes: vec![Node { name: "n1".into(), state: "current".into(), ..Node::default() }],
        rollouts: vec![rollout("running", ["done", "updating"])],
        revisions: vec![Revision {
            number: 7,
            parent: 6,
            changes: vec![changed],
            message: "why".into(),
            ..Revision::default()
        }],
        tasks: vec![TaskRecord { node: "n1".into(), report: Some(report), at_unix_ms: 1 }],
        files: HashMap::from([
            ((name.clone(), 0), "server {\n    listen 80;\n}\n"),
            ((name.clone(), 7), "server {\n    listen 80;\n}\n"),
            ((name, 6), "server {\n    listen 8080;\n}\n"),
        ]),
        ..Script::default()
    });
    let ctl = &stage.ctl;
    let vhost = "\
Vsvc ID:       131942
Server Names:  a.example
Listen:        80
               [::]:80
File:          auto_vhost/a.conf
Revision:      7
Upstreams:
  UPS_ID    SERVERS        FILE
  1074728   127.0.0.1:81   <none>
Configuration:
  server {
      listen 80;
  }
";
    assert_eq!(ctl.ok(&["describe", "vhost", "a.example"]), vhost);
    for (args, parts) in [
        (["describe", "upstream", "1074728"], &["Ups ID:", "127.0.0.1:81"][..]),
        (
            ["describe", "node", "n1"],
            &["State:", "current", "25208", "1.142", "Workers of Task 25208:", "20301", "0.210"],
        ),
        (
            ["describe", "rollout", "7"],
            &["Wave 1 (1 node):", "n1     done", "Wave 2 (1 node):", "updating", "20301", "why"],
        ),
        (["describe", "revision", "7"], &["Message:   why", "modify", "-    listen 8080;", "+    listen 80;"]),
    ] {
        let page = ctl.ok(&args);
        for part in parts {
            assert!(page.contains(part), "{args:?} lacks {part:?}:\n{page}");
        }
    }
    assert_eq!(ctl.run(&["describe", "node", "n9"]).code, 1);
    let tasks: serde_json::Value = serde_json::from_str(&ctl.ok(&["get", "tasks", "-o", "json"])).expect("JSON");
    let task = &tasks["items"][0];
    assert_eq!((&task["status"], &task["mode"]), (&"D".into(), &"in_place".into()));
    assert_eq!((&task["timings"]["total_us"], &task["timings"]["workers"][0]["pid"]), (&1142.into(), &20_301.into()));
    let history = ctl.ok(&["rollout", "history"]);
    assert!(history.starts_with("ROLLOUT ") && history.contains("running") && history.contains("why"), "{history}");
}
