//! The whole chain with real processes: `dysvrctl apply` to every worker of every node, with the embedded store and with
//! a real etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use dysvr_tests::ctl::Said;
use dysvr_tests::etcd::Etcd;
use dysvr_tests::fleet::{Fleet, LIMIT, Store, items};
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::task::{Kind, Line};
use dysvr_tests::{seed, signal, wait};
use serde_json::Value;

/// Runs a test with each store.
macro_rules! with_each_store {
    ($($test:ident,)*) => {
        mod embedded {
            $(#[test] fn $test() -> anyhow::Result<()> { super::$test(super::Store::Embedded) })*
        }
        mod etcd {
            $(#[test] fn $test() -> anyhow::Result<()> {
                anyhow::ensure!(super::Etcd::installed(), "etcd is not installed: apt-get install etcd-server");
                super::$test(super::Store::Etcd)
            })*
        }
    };
}

with_each_store! {
    a_vhost_lives,
    a_failing_vhost_stops_at_its_wave,
    a_controller_that_dies_finishes_its_rollout,
}

/// A vhost of the fleet with its upstream in one file.
fn vhost(vsvc_id: u64, name: &str, upstream: &str, origin: &Origin) -> String {
    format!(
        "upstream {upstream} {{ server {}; }}\nserver {{\n    vsvc_id {vsvc_id};\n    include listen.d/*.conf;\n    \
         server_name {name};\n    location / {{ proxy_pass http://{upstream}; }}\n}}\n",
        origin.addr
    )
}

fn apply(fleet: &Fleet, more: &[&str]) -> Result<Said> {
    fleet.ctl().run(&[&["apply", "-f", &fleet.files_arg()], more].concat())
}

fn expect(said: &Said, code: i32) -> Result<()> {
    ensure!(said.code == Some(code), "ended with {:?}, not {code}: {}{}", said.code, said.stdout, said.stderr);
    Ok(())
}

fn workers(fleet: &Fleet) -> BTreeMap<String, BTreeSet<i32>> {
    fleet.nodes.iter().map(|node| (node.id.clone(), node.workers())).collect()
}

/// Every node says that it has the revision and that nothing is amiss.
fn all_current(fleet: &Fleet, revision: u64) -> Result<()> {
    wait::eventually(&format!("every node at revision {revision}"), LIMIT, || -> Result<()> {
        for node in fleet.seen_nodes()? {
            let there = node["observed"]["revision"] == revision && node["observed"]["drift"] == false;
            ensure!(there && node["state"] == "current", "{node}");
        }
        Ok(())
    })
}

fn head(fleet: &Fleet) -> Result<u64> {
    let revisions = items(&fleet.ctl().json(&["get", "revisions"])?)?;
    Ok(revisions.iter().filter_map(|revision| revision["revision"].as_u64()).max().unwrap_or(0))
}

fn newest_rollout(fleet: &Fleet) -> Result<Value> {
    let rollouts = items(&fleet.ctl().json(&["get", "rollouts"])?)?;
    rollouts.into_iter().max_by_key(|rollout| rollout["rollout"].as_u64()).context("there is no rollout")
}

fn a_vhost_lives(store: Store) -> Result<()> {
    let fleet = Fleet::start(3, store, |_| ())?;
    let before = workers(&fleet);
    fleet.check_every_worker(seed::HOST, 404, "no such vhost")?;

    // Add.
    fleet.write_seed()?;
    expect(&fleet.ctl().run(&["validate", "-f", &fleet.files_arg()])?, 0)?;
    let diff = fleet.ctl().run(&["diff", "-f", &fleet.files_arg()])?;
    expect(&diff, 1)?;
    ensure!(diff.stdout.contains("+    vsvc_id 131942;"), "{}", diff.stdout);
    ensure!(head(&fleet)? == 0, "a diff has stored something");
    expect(&apply(&fleet, &["--waves", "1,100%", "--wait", "-m", "add"])?, 0)?;
    fleet.check_every_worker(seed::HOST, 200, "origin demo")?;
    let first = head(&fleet)?;
    all_current(&fleet, first)?;
    let vhosts = items(&fleet.ctl().json(&["get", "vhosts"])?)?;
    ensure!(
        vhosts.len() == 1 && vhosts[0]["vsvc_id"] == seed::VSVC_ID && vhosts[0]["upstreams"][0] == seed::UPS_ID,
        "{vhosts:?}"
    );
    let tasks = items(&fleet.ctl().json(&["get", "tasks"])?)?;
    ensure!(tasks.len() == 3, "{tasks:?}");
    for task in &tasks {
        let timings = &task["timings"];
        ensure!(task["status"] == "D" && task["mode"] == "in_place", "{task}");
        ensure!(
            timings["total_us"].as_u64() > Some(0) && timings["workers"].as_array().map(Vec::len) == Some(2),
            "{task}"
        );
    }
    let rollout = newest_rollout(&fleet)?;
    let sizes: Vec<usize> = rollout["waves"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|wave| wave["nodes"].as_array().map(Vec::len))
        .collect();
    ensure!(rollout["phase"] == "done" && sizes == [1, 2], "{rollout}");
    // The same again changes nothing.
    expect(&apply(&fleet, &["--wait"])?, 0)?;
    ensure!(head(&fleet)? == first, "the same files made a revision");
    expect(&fleet.ctl().run(&["diff", "-f", &fleet.files_arg()])?, 0)?;

    // Modify.
    let other = Origin::start("other")?;
    fleet.write(seed::UPSTREAM_FILE, &seed::upstream(other.addr))?;
    expect(&apply(&fleet, &["--wait", "-m", "modify"])?, 0)?;
    fleet.check_every_worker(seed::HOST, 200, "origin other")?;

    // Undo.
    expect(&fleet.ctl().run(&["rollout", "undo", "--wait"])?, 0)?;
    fleet.check_every_worker(seed::HOST, 200, "origin demo")?;

    // Delete, and undo that.
    expect(&fleet.ctl().run(&["delete", "vhost", &seed::VSVC_ID.to_string(), "--wait", "-m", "delete"])?, 0)?;
    fleet.check_every_worker(seed::HOST, 404, "no such vhost")?;
    ensure!(items(&fleet.ctl().json(&["get", "vhosts"])?)?.is_empty());
    for node in &fleet.nodes {
        ensure!(!node.prefix.conf(seed::VHOST_FILE).exists(), "{}: the vhost's file is still there", node.id);
    }
    expect(&fleet.ctl().run(&["rollout", "undo", "--wait"])?, 0)?;
    fleet.check_every_worker(seed::HOST, 200, "origin demo")?;
    all_current(&fleet, head(&fleet)?)?;

    // Not one of these was a reload.
    ensure!(workers(&fleet) == before, "{before:?} have become {:?}", workers(&fleet));
    for task in items(&fleet.ctl().json(&["get", "tasks"])?)? {
        ensure!(task["status"] == "D" && task["mode"] != "reload", "{task}");
    }
    Ok(())
}

fn a_failing_vhost_stops_at_its_wave(store: Store) -> Result<()> {
    let mut fleet = Fleet::without_nodes(store, |_| ())?;
    // One node has an upstream of its own by that name: the controller cannot know, the node must refuse.
    let own = "    upstream clash { server 127.0.0.1:9; }\n".to_owned();
    for (id, http) in [("node-1", String::new()), ("node-2", own), ("node-3", String::new())] {
        fleet.add_node(id, &MainConf { http, ..MainConf::default() }, &[])?;
    }
    fleet.wait_connected(3)?;
    fleet.write("auto_vhost/good.conf", &vhost(1, "good.example", "good", &fleet.origin))?;
    expect(&apply(&fleet, &["--wait"])?, 0)?;
    let good = head(&fleet)?;
    all_current(&fleet, good)?;
    let before = workers(&fleet);

    fleet.write("auto_vhost/clash.conf", &vhost(2, "clash.example", "clash", &fleet.origin))?;
    let said = apply(&fleet, &["--waves", "1", "--wait"])?;
    expect(&said, 1)?;
    let rollout = newest_rollout(&fleet)?;
    ensure!(rollout["phase"] == "rolled-back" && rollout["failed_nodes"] == 1, "{rollout}");
    let waves: Vec<&Value> = rollout["waves"].as_array().into_iter().flatten().collect();
    let failed = waves.iter().position(|wave| wave["nodes"][0]["state"] == "failed").context("no node has failed")?;
    ensure!(waves[failed]["nodes"][0]["node"] == "node-2", "{rollout}");
    let reason = waves[failed]["nodes"][0]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("clash"), "the reason does not say what clashes: {reason:?}");
    for (number, wave) in waves.iter().enumerate() {
        let wanted = if number < failed {
            "undone"
        } else if number > failed {
            "waiting"
        } else {
            "failed"
        };
        ensure!(wave["nodes"][0]["state"] == wanted, "wave {number} should be {wanted}: {rollout}");
    }
    fleet.check_every_worker("clash.example", 404, "no such vhost")?;
    fleet.check_every_worker("good.example", 200, "origin demo")?;
    for node in &fleet.nodes {
        ensure!(!node.prefix.conf("auto_vhost/clash.conf").exists(), "{}: the file is still there", node.id);
    }
    ensure!(workers(&fleet) == before, "{before:?} have become {:?}", workers(&fleet));

    // The fleet is as it was and takes the next change.
    fs::remove_file(fleet.files.join("auto_vhost/clash.conf"))?;
    fleet.write("auto_vhost/next.conf", &vhost(3, "next.example", "next", &fleet.origin))?;
    expect(&apply(&fleet, &["--wait"])?, 0)?;
    fleet.check_every_worker("next.example", 200, "origin demo")?;
    fleet.check_every_worker("clash.example", 404, "no such vhost")
}

fn a_controller_that_dies_finishes_its_rollout(store: Store) -> Result<()> {
    let mut fleet = Fleet::start(3, store, |_| ())?;
    fleet.write_seed()?;
    // Each wave soaks for long enough to be seen on a slow machine.
    expect(&apply(&fleet, &["--waves", "1", "--soak", "10s"])?, 0)?;
    wait::eventually("the first wave", LIMIT, || -> Result<()> {
        let rollout = newest_rollout(&fleet)?;
        ensure!(rollout["waves"][0]["nodes"][0]["state"] == "done", "{rollout}");
        Ok(())
    })?;
    fleet.controller.crash();

    // Nobody steers, everybody serves: the first node the new vhost, the others what they had.
    let mut serving = 0;
    for node in &fleet.nodes {
        for reply in node.ask_every_worker(seed::HOST, "/")? {
            ensure!(matches!(reply.status, 200 | 404), "{} answers {reply:?}", node.id);
            serving += usize::from(reply.status == 200);
        }
    }
    ensure!((2..6).contains(&serving), "{serving} of 6 workers serve: the rollout was not in the middle");

    fleet.controller.start_again()?;
    let watched = wait::eventually("the controller to answer", LIMIT, || {
        let said = fleet.ctl().run(&["rollout", "watch", "--timeout", "300s"])?;
        ensure!(said.code != Some(4), "{}", said.stderr);
        Ok::<Said, anyhow::Error>(said)
    })?;
    expect(&watched, 0)?;
    fleet.check_every_worker(seed::HOST, 200, "origin demo")?;
    all_current(&fleet, head(&fleet)?)?;
    let rollouts = items(&fleet.ctl().json(&["get", "rollouts"])?)?;
    ensure!(rollouts.len() == 1 && rollouts[0]["phase"] == "done", "{rollouts:?}");
    Ok(())
}

#[test]
fn a_change_by_hand_works_without_a_controller_and_is_reported_on_return() -> Result<()> {
    let mut fleet = Fleet::start(3, Store::Embedded, |_| ())?;
    fleet.write_seed()?;
    expect(&apply(&fleet, &["--wait"])?, 0)?;
    let revision = head(&fleet)?;
    fleet.controller.crash();
    fleet.check_every_worker(seed::HOST, 200, "origin demo")?;

    // A line by hand and the signal, on the first node.
    let by_hand = vhost(777, "hand.example", "hand", &fleet.origin);
    let node = fleet.node("node-1")?;
    node.prefix.write("auto_vhost/hand.conf", &by_hand)?;
    let file = node.prefix.task_file();
    let last = file.lines().iter().filter_map(Line::task_id).max().unwrap_or(0);
    let conf = file.path.with_file_name(format!("dysvr_{}.conf", last + 1));
    fs::write(&conf, format!("include {};\n", node.prefix.conf("auto_vhost/hand.conf").display()))?;
    file.write(&(Line::text(Kind::Add, &conf, &[777], &["hand"], last + 1) + "\n"))?;
    let mut watch = file.watch()?;
    signal::kill_by_hand(node.prefix.master_pid()?)?;
    let verdict = watch.verdict(last + 1, LIMIT)?;
    ensure!(verdict.done, "{}", verdict.line.reason());
    for reply in node.ask_every_worker("hand.example", "/")? {
        ensure!(reply.status == 200, "{reply:?}");
    }
    // The same by the agent's command, on the second.
    let node = fleet.node("node-2")?;
    let elsewhere = node.prefix.path().join("hand.conf");
    fs::write(&elsewhere, &by_hand)?;
    let output = node.task(&["add", &elsewhere.display().to_string()])?;
    ensure!(output.status.success(), "{output:?}");
    for reply in node.ask_every_worker("hand.example", "/")? {
        ensure!(reply.status == 200, "{reply:?}");
    }

    fleet.controller.start_again()?;
    wait::eventually("the drift to be reported", LIMIT, || -> Result<()> {
        let nodes = fleet.seen_nodes()?;
        ensure!(nodes.len() == 3, "{nodes:?}");
        for node in nodes {
            let by_hand = node["name"] != "node-3";
            let observed = &node["observed"];
            ensure!(
                node["connected"] == true && observed["drift"] == by_hand && observed["revision"] == revision,
                "{node}"
            );
            let wanted = if by_hand { "drifted" } else { "current" };
            ensure!(node["state"] == wanted, "{node}");
            let names = observed["drifted"].to_string();
            ensure!(!by_hand || names.contains("auto_vhost/hand.conf"), "{names}");
        }
        Ok(())
    })?;
    // Nothing was overwritten; the operator decides.
    for id in ["node-1", "node-2"] {
        for reply in fleet.node(id)?.ask_every_worker("hand.example", "/")? {
            ensure!(reply.status == 200, "{id}: {reply:?}");
        }
    }
    for id in ["node-1", "node-2"] {
        fleet.ctl().ok(&["node", "revert", id])?;
    }
    all_current(&fleet, revision)?;
    fleet.check_every_worker("hand.example", 404, "no such vhost")?;
    fleet.check_every_worker(seed::HOST, 200, "origin demo")
}

#[test]
fn bad_files_are_refused_before_anything_is_stored() -> Result<()> {
    let fleet = Fleet::start(1, Store::Embedded, |_| ())?;
    fleet.write("auto_vhost/good.conf", &vhost(1, "good.example", "good", &fleet.origin))?;
    expect(&apply(&fleet, &["--wait"])?, 0)?;
    let before = head(&fleet)?;
    let origin = &fleet.origin;
    let table: [(&str, String, &[&str]); 7] = [
        (
            "unknown directive",
            "server {\n    vsvc_id 2;\n    listn 80;\n}\n".into(),
            &[":3: unknown directive \"listn\""],
        ),
        ("wrong context", "listen 80;\n".into(), &[":1: \"listen\" directive is not allowed here"]),
        ("two at once", "server {\n    vsvc_id 2;\n    listn 80;\n    server_name;\n}\n".into(), &[":3: ", ":4: "]),
        ("duplicate vsvc_id", vhost(1, "bad.example", "bad", origin), &["1"]),
        (
            "upstream missing",
            vhost(2, "bad.example", "bad", origin).lines().skip(1).collect::<Vec<_>>().join("\n") + "\n",
            &["bad"],
        ),
        ("duplicate upstream", vhost(2, "bad.example", "good", origin), &["good"]),
        ("unterminated", "server {\n    vsvc_id 2;\n".into(), &["unexpected end of file"]),
    ];
    for (what, text, problems) in table {
        fleet.write("auto_vhost/bad.conf", &text)?;
        for verb in ["validate", "apply"] {
            let said = fleet.ctl().run(&[verb, "-f", &fleet.files_arg()])?;
            expect(&said, 3).with_context(|| format!("{verb}: {what}"))?;
            for problem in problems {
                let all = format!("{}{}", said.stdout, said.stderr);
                let line = all.lines().find(|line| line.contains(".conf") && line.contains(problem));
                ensure!(line.is_some(), "{verb}: {what}: no line with {problem:?} in {all:?}");
            }
        }
        ensure!(head(&fleet)? == before, "{what}: something was stored");
    }
    Ok(())
}
