//! The real `dysvrctl` against the real `dysvr-controller`, without nodes: what is stored, shown, refused and undone.

#[path = "ctl_support/controller.rs"]
mod controller;
mod ctl_support;

use controller::Controller;
use ctl_support::{Ctl, Run, write};
use serde_json::Value;

const VHOST: &str = "include auto_upstream/a.upstream.conf;\n\nserver {\n    vsvc_id 131942;\n    listen 80;\n    listen [::]:80;\n    \
                     server_name a.example;\n    location / {\n        proxy_pass http://1074728;\n    }\n    \
                     include common_location.conf;\n}\n";
const UPSTREAM: &str = "upstream 1074728 {\n    server 127.0.0.1:8081 max_fails=3 fail_timeout=15s;\n}\n";
const COMMON: &str = "location /common {\n    return 204;\n}\n";

/// A controller, and a directory whose `site` is a configuration with one vhost.
struct Scene {
    ctl: Ctl,
    dir: tempfile::TempDir,
    controller: Option<Controller>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let controller = Controller::start(dir.path());
        let ctl = Ctl::new(controller.url.as_str(), dir.path());
        write(
            dir.path(),
            &[
                ("site/auto_vhost/a.conf", VHOST),
                ("site/auto_upstream/a.upstream.conf", UPSTREAM),
                ("site/common_location.conf", COMMON),
            ],
        );
        Self { ctl, dir, controller: Some(controller) }
    }

    fn write(&self, name: &str, text: &str) {
        write(self.dir.path(), &[(name, text)]);
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ctl.ok(&[args, &["-o", "json"]].concat())).expect("JSON")
    }

    #[track_caller]
    fn run(&self, args: &[&str], code: i32) -> Run {
        let run = self.ctl.run(args);
        assert_eq!(run.code, code, "dysvrctl {args:?}: {run:?}");
        run
    }

    /// How many revisions there are.
    #[track_caller]
    fn revisions(&self) -> usize {
        self.json(&["get", "revisions"])["items"].as_array().map_or(0, Vec::len)
    }
}

#[test]
fn a_vhost_is_applied_shown_changed_undone_and_deleted() {
    let mut scene = Scene::new();
    let ctl = scene.ctl.clone();
    assert_eq!(scene.run(&["get", "vhosts"], 0).stderr, "No vhosts found.\n");
    let before = scene.revisions();

    // Looking changes nothing.
    scene.run(&["validate", "-f", "site"], 0);
    let diff = scene.run(&["diff", "-f", "site"], 1);
    assert!(diff.stdout.contains("--- /dev/null\n+++ site/auto_vhost/a.conf\n"), "{diff:?}");
    assert!(diff.stdout.contains("+    vsvc_id 131942;\n"), "{diff:?}");
    let dry = ctl.ok(&["apply", "-f", "site", "--dry-run"]);
    assert!(dry.contains("vhost/131942 created (dry run)\n") && !dry.contains("revision/"), "{dry}");
    assert_eq!(scene.revisions(), before);

    // Add.
    let said = ctl.ok(&["apply", "-f", "site", "--wait", "-m", "add a"]);
    let wanted = "upstream/1074728 created\nvhost/131942 created\nfile/common_location.conf created\n";
    assert!(said.starts_with(wanted) && said.contains("revision/"), "{said}");
    let vhost = scene.json(&["get", "vhost", "131942"]);
    assert_eq!(vhost["server_names"], serde_json::json!(["a.example"]));
    assert_eq!(vhost["listens"], serde_json::json!(["80", "[::]:80"]));
    assert_eq!((&vhost["upstreams"][0], &vhost["file"]), (&"1074728".into(), &"auto_vhost/a.conf".into()));
    assert_eq!(scene.json(&["get", "ups", "1074728"])["vhosts"], serde_json::json!([131_942]));
    assert!(ctl.ok(&["describe", "vhost", "a.example"]).contains("  include common_location.conf;\n"));
    let page = ctl.ok(&["describe", "upstream/1074728"]);
    assert!(page.contains("server 127.0.0.1:8081 max_fails=3 fail_timeout=15s;"), "{page}");
    let first = vhost["revision"].to_string();
    let revision = scene.json(&["get", "revision", &first]);
    assert_eq!((&revision["author"], &revision["message"]), (&"tester".into(), &"add a".into()));

    // The same again.
    let again = ctl.ok(&["apply", "-f", "site", "--wait"]);
    assert!(again.contains("vhost/131942 unchanged\n") && !again.contains("revision/"), "{again}");
    assert_eq!(ctl.ok(&["diff", "-f", "site"]), "");

    // Modify.
    scene.write("site/auto_upstream/a.upstream.conf", &UPSTREAM.replace("8081", "8082"));
    let diff = scene.run(&["diff", "-f", "site/auto_vhost/a.conf"], 1);
    assert!(diff.stdout.contains("-    server 127.0.0.1:8081"), "{diff:?}");
    assert!(ctl.ok(&["apply", "-f", "site"]).starts_with("upstream/1074728 configured\n"));
    let second = scene.json(&["get", "ups", "1074728"])["revision"].to_string();
    let page = ctl.ok(&["describe", "revision", &second]);
    assert!(page.contains("-    server 127.0.0.1:8081") && page.contains("+    server 127.0.0.1:8082"), "{page}");

    // Undo, and what was there survives the controller.
    assert!(ctl.ok(&["rollout", "undo", "--to-revision", &first]).contains("upstream/1074728 configured\n"));
    scene.controller = None;
    let restarted = Controller::start(scene.dir.path());
    let ctl = Ctl::new(restarted.url.as_str(), scene.dir.path());
    scene.ctl = ctl.clone();
    scene.controller = Some(restarted);
    assert!(ctl.ok(&["get", "ups", "-o", "wide"]).contains("127.0.0.1:8081"));

    // Delete.
    let said = ctl.ok(&["delete", "vhost", "a.example", "--wait"]);
    assert!(said.contains("vhost/131942 deleted\n"), "{said}");
    let gone = scene.run(&["get", "vhost", "131942"], 1);
    assert_eq!(gone.stderr, "Error from server (NotFound): vhosts \"131942\" not found\n");
    scene.run(&["delete", "vhost", "131942"], 3);
}

#[test]
fn a_bad_file_is_refused_with_all_its_problems_and_nothing_is_stored() {
    let scene = Scene::new();
    let before = scene.revisions();
    scene.write("bad.conf", "server {\n    vsvc_id 2;\n    listn 80;\n    server_name;\n    include gone.conf;\n}\n");
    for verb in ["validate", "apply", "diff"] {
        let run = scene.run(&[verb, "-f", "bad.conf"], 3);
        assert!(run.stderr.contains("bad.conf:3: unknown directive \"listn\"\n"), "{verb}: {run:?}");
        assert!(run.stderr.contains("bad.conf:4: invalid number of arguments in \"server_name\""), "{verb}: {run:?}");
        assert!(run.stderr.contains("bad.conf:5: ") && run.stderr.contains("gone.conf"), "{verb}: {run:?}");
    }
    let run = scene.ctl.run_with_stdin(&["apply", "-f", "-", "--name", "in.conf"], "listen 80;\n");
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("in.conf:1: \"listen\" directive is not allowed here"), "{run:?}");
    assert_eq!(scene.revisions(), before);
}

#[test]
fn a_vhost_without_an_id_is_given_one_and_keeps_it() {
    let scene = Scene::new();
    scene.write("b.conf", "server {\n    listen 81;\n    server_name b.example;\n    return 204;\n}\n");
    let said = scene.ctl.ok(&["apply", "-f", "b.conf"]);
    let id = scene.json(&["get", "vhost", "b.example"])["vsvc_id"].to_string();
    assert!(said.contains(&format!("vhost/{id} created\n")), "{said}");
    assert!(scene.ctl.ok(&["describe", "vhost", &id]).contains(&format!("vsvc_id {id};")));
    let again = scene.ctl.ok(&["apply", "-f", "b.conf"]);
    assert_eq!(again, format!("vhost/{id} unchanged\n"));
    assert!(scene.ctl.ok(&["delete", "-f", "b.conf"]).contains(&format!("vhost/{id} deleted\n")));
}

#[test]
fn includes_that_only_the_fleet_has_are_found_there() {
    let scene = Scene::new();
    scene.ctl.ok(&["apply", "-f", "site"]);
    scene.write("c.conf", "server {\n    vsvc_id 7;\n    listen 82;\n    include common_location.conf;\n}\n");
    scene.run(&["validate", "-f", "c.conf"], 0);
    let offline = scene.run(&["validate", "-f", "c.conf", "--offline"], 3);
    assert!(offline.stderr.contains("c.conf:4: "), "{offline:?}");
    assert!(scene.ctl.ok(&["apply", "-f", "c.conf"]).starts_with("vhost/7 created\n"));
    let taken =
        scene.ctl.run_with_stdin(&["apply", "-f", "-", "--name", "d"], "server {\n  vsvc_id 7;\n  listen 83;\n}\n");
    assert!(taken.code == 3 && taken.stderr.contains('7'), "a vsvc_id that another vhost has: {taken:?}");
}

#[test]
fn verbs_without_a_rollout_say_that_there_is_none() {
    let scene = Scene::new();
    for args in [&["rollout", "status"][..], &["rollout", "watch"], &["rollout", "pause"], &["rollout", "undo"]] {
        let run = scene.run(args, 1);
        assert!(run.stderr.starts_with("Error from server (NotFound): "), "{args:?}: {run:?}");
    }
    assert!(scene.ctl.ok(&["rollout", "history"]).starts_with("ROLLOUT "));
    let run = scene.run(&["node", "revert", "n1"], 1);
    assert!(run.stderr.contains("n1"), "{run:?}");
    for kind in ["nodes", "rollouts", "tasks"] {
        assert_eq!(scene.run(&["get", kind], 0).stderr, format!("No {kind} found.\n"));
        assert_eq!(scene.json(&["get", kind])["items"], serde_json::json!([]));
    }
}
