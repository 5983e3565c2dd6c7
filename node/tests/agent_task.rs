//! `dysvr-node task` and the agent beside it, with real processes.

#[path = "agent_node/mod.rs"]
mod agent_node;

use std::fs;
use std::time::Instant;

use agent_node::{LIMIT, Node, cell, free_port, wait, word};
use dysvr_node::agent::journal::Journal;
use dysvr_node::agent::ledger::{Begun, Entry};
use dysvr_node::agent::managed::{ContentDigest, FileName};
use dysvr_node::agent::undo;
use dysvr_node::task::{Kind, TaskFile, TaskLine};
use dysvr_proto::id::TaskId;
use nix::sys::signal::Signal;

#[test]
fn vhosts_come_change_and_go_from_the_shell() {
    let mut node = Node::new();
    node.start_proxy();
    let workers = node.workers();
    let file = node.write("in/a.conf", &node.vhost(11, "a.test", "one"));

    let added = node.run(&["task", "add", word(&file)]);
    assert!(added.status.success(), "{added:?}");
    assert_eq!((cell(&added, "status"), cell(&added, "mode")), ("D".into(), "in_place".into()));
    assert!(cell(&added, "total").ends_with(" ms") && cell(&added, "master").ends_with(" ms"));
    assert_eq!(node.word("a.test"), "one");
    let line = fs::read_to_string(node.task_file()).unwrap();
    assert!(line.starts_with("type=0 conf=") && line.contains("vsvc_ids=11") && line.contains("status=D"), "{line}");

    fs::write(&file, node.vhost(11, "a.test", "two")).unwrap();
    assert!(node.run(&["task", "modify", word(&file)]).status.success());
    assert_eq!(node.word("a.test"), "two");

    let deleted = node.run(&["task", "delete", "11"]);
    assert!(deleted.status.success(), "{deleted:?}");
    assert_eq!(node.word("a.test"), "");
    assert_eq!(node.list("conf/auto_vhost"), [""; 0]);
    assert_eq!(node.workers(), workers, "all of it in place");
    // Of four tasks one configuration file is left: that of the last.
    assert_eq!(node.list("shm"), ["dy_update_server.conf", "dysvr_3.conf"]);
}

#[test]
fn what_fails_has_changed_nothing() {
    let mut node = Node::new();
    node.start_proxy();
    let good = node.write("in/a.conf", &node.vhost(11, "a.test", "one"));
    assert!(node.run(&["task", "add", word(&good)]).status.success());
    let before = fs::read(node.path("conf/auto_vhost/a.conf")).unwrap();

    for (verb, text, reason) in [
        ("modify", node.vhost(11, "a.test", "two").replace("return", "retrun"), "unknown directive \"retrun\""),
        ("modify", "server { vsvc_id 11; listen 1; proxy_pass http://x; }".into(), "not allowed here"),
        ("modify", node.vhost(12, "a.test", "two"), "no vhost has vsvc_id 12"),
        ("modify", "server { vsvc_id 11;".into(), "unexpected end of file"),
    ] {
        let file = node.write("in/a.conf", &text);
        let failed = node.run(&["task", verb, word(&file)]);
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert_eq!(cell(&failed, "status"), "F");
        assert!(cell(&failed, "reason").contains(reason), "{failed:?}");
        assert_eq!(fs::read(node.path("conf/auto_vhost/a.conf")).unwrap(), before);
        assert_eq!(node.word("a.test"), "one");
    }
    let new = node.write("in/b.conf", &node.vhost(11, "b.test", "two"));
    let failed = node.run(&["task", "add", word(&new)]);
    assert!(cell(&failed, "reason").starts_with("duplicate vsvc_id 11 in "), "{failed:?}");
    assert_eq!(node.list("conf/auto_vhost"), ["a.conf"]);
}

#[test]
fn short_of_memory_nothing_is_signalled() {
    let mut node = Node::new();
    node.start_proxy();
    let meminfo =
        "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 10 kB\nCached: 10 kB\nShmem: 0 kB\nSReclaimable: 0 kB\n";
    let meminfo = node.write("in/meminfo", meminfo);
    let file = node.write("in/a.conf", &node.vhost(11, "a.test", "one"));
    let failed = node.run(&["task", "add", word(&file), "--meminfo", word(&meminfo)]);
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(cell(&failed, "reason"), "low memory: 12 % is free or can be freed, 20 % is needed");
    assert!(!node.task_file().exists() && node.list("conf/auto_vhost").is_empty());
}

#[test]
fn what_cannot_go_in_place_goes_by_reload_and_says_why() {
    let mut node = Node::new();
    node.start_proxy();
    let workers = node.workers();
    let port = free_port();
    let text = format!("keepalive_timeout 5s;\n{}", node.vhost_on(port, 11, "a.test", "one"));
    let file = node.write("in/a.conf", &text);
    let added = node.run(&["task", "add", word(&file)]);
    assert!(added.status.success(), "{added:?}");
    assert_eq!(cell(&added, "mode"), "reload");
    assert!(cell(&added, "reason").contains("\"keepalive_timeout\" in "), "{added:?}");
    assert_eq!(agent_node::get(([127, 0, 0, 1], port).into(), "a.test", "/").unwrap().1, "one");
    wait("other workers", || node.workers().iter().all(|worker| !workers.contains(worker)).then_some(()));

    // One that the full load refuses is found out before the reload, and undone.
    let file = node.write("in/b.conf", "log_format x '$nothing_here';\nserver { listen 127.0.0.1:1; }\n");
    let failed = node.run(&["task", "add", word(&file)]);
    assert_eq!((failed.status.code(), cell(&failed, "mode")), (Some(1), "reload".into()));
    assert!(cell(&failed, "reason").contains("nothing_here"), "{failed:?}");
    assert_eq!(node.list("conf/auto_vhost"), ["a.conf"]);
}

#[test]
fn without_a_master_nothing_is_left_behind() {
    let node = Node::new();
    let file = node.write("in/a.conf", &node.vhost(11, "a.test", "one"));
    let failed = node.run(&["task", "add", word(&file)]);
    assert!(cell(&failed, "reason").starts_with("no master runs: "), "{failed:?}");
    assert_eq!(node.list("conf/auto_vhost"), [""; 0]);
    // A stranger's number in the pid file is never signalled.
    node.write("logs/nginx.pid", &format!("{}\n", std::process::id()));
    let failed = node.run(&["task", "add", word(&file)]);
    assert!(cell(&failed, "reason").contains("is not our master: it is "), "{failed:?}");
    fs::remove_file(node.path("logs/nginx.pid")).unwrap();
}

#[test]
fn the_agent_starts_its_proxy_again_and_ends_it_with_itself() {
    let mut node = Node::new();
    node.start_agent(&[]);
    let first = node.master().unwrap();
    assert!(node.run(&["probe", "live"]).status.success());
    wait("readiness", || node.run(&["probe", "ready"]).status.success().then_some(()));
    node.end_proxy(Signal::SIGKILL);
    wait("another master", || node.master().filter(|pid| *pid != first));
    wait("its answer", || node.get("x", "/").ok());

    // Commands work beside the agent, several at once, one after the other.
    let files: Vec<_> =
        (1..=4).map(|id| node.write(&format!("in/{id}.conf"), &node.vhost(id, &format!("{id}.test"), "yes"))).collect();
    std::thread::scope(|scope| {
        for file in &files {
            let node = &node;
            scope.spawn(move || {
                let added = node.run(&["task", "add", word(file)]);
                assert!(added.status.success(), "{added:?}");
            });
        }
    });
    for id in 1..=4 {
        assert_eq!(node.word(&format!("{id}.test")), "yes");
    }
    wait("drift in the log", || node.agent_log().contains("drift").then_some(()));
    let status = node.run(&["status"]);
    assert!(cell(&status, "drift").contains("auto_vhost/1.conf"), "{status:?}");

    assert_eq!(node.end_agent(Signal::SIGTERM), Some(0));
    assert_eq!(node.master(), None, "the proxy ends with its agent");
    assert!(!node.run(&["probe", "live"]).status.success());
}

#[test]
fn a_killed_agent_leaves_the_proxy_and_its_successor_takes_it_over() {
    let mut node = Node::new();
    node.start_agent(&[]);
    let (master, workers) = (node.master(), node.workers());
    node.end_agent(Signal::SIGKILL);
    assert_eq!(node.get("x", "/").unwrap().0, 404);
    node.start_agent(&[]);
    wait("the takeover", || node.agent_log().contains("a master runs").then_some(()));
    assert_eq!((node.master(), node.workers()), (master, workers));
    let second = node.run(&["run", "--id", "node-1"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another agent uses the state directory"));
    // Attached, the proxy is somebody else's.
    node.end_agent(Signal::SIGKILL);
    node.start_agent(&["--attach"]);
    assert_eq!(node.end_agent(Signal::SIGTERM), Some(0));
    assert_eq!(node.master(), master);
}

/// Puts a node where a killed agent left it: files of a task written, its journal entry there, its line at a status.
fn left_behind(node: &Node, lines: &[TaskLine]) {
    let state = node.path("state");
    fs::create_dir_all(&state).unwrap();
    let name = FileName::new("auto_vhost/a.conf").unwrap();
    let content = node.vhost(11, "a.test", "one");
    let (mut journal, mut ledger, _) = Journal::open(&state).unwrap();
    let begun = Begun {
        id: "hand-x".into(),
        step: None,
        tasks: vec![TaskId(1)],
        reload: None,
        changes: [(name.clone(), Some(ContentDigest::of(content.as_bytes())))].into(),
        former: undo::keep(&state, &node.path("conf"), [&name].into_iter()).unwrap().in_journal,
        touched: false,
        reverting: None,
    };
    journal.append(&mut ledger, Entry::Begin(begun)).unwrap();
    fs::write(name.path(&node.path("conf")), content).unwrap();
    let conf = node.path("shm/dysvr_1.conf");
    fs::write(&conf, format!("include {};\n", node.path("conf/auto_vhost/a.conf").display())).unwrap();
    fs::write(node.task_file(), TaskFile(lines.to_vec()).encode()).unwrap();
}

#[test]
fn a_task_that_was_under_way_ends_soon_after_the_restart() {
    let line = |node: &Node| TaskLine {
        vsvc_ids: vec![11],
        ..TaskLine::new(Kind::Add, TaskId(1), node.path("shm/dysvr_1.conf"))
    };
    // Never signalled; refused; written but not signalled: each with what must come of it.
    for (what, present, failed, served) in
        [("before its line", false, false, ""), ("refused", true, true, ""), ("before the signal", true, false, "one")]
    {
        let mut node = Node::new();
        node.start_proxy();
        let mut task = line(&node);
        if failed {
            task.fail("no");
        }
        // A line of another task: the file itself is there.
        let mut lines = vec![];
        if present {
            lines.push(task);
        } else {
            let mut other = TaskLine::new(Kind::Delete, TaskId(9), node.path("shm/dysvr_9.conf"));
            other.fail("other");
            lines.push(other);
        }
        left_behind(&node, &lines);
        let began = Instant::now();
        node.start_agent(&["--attach"]);
        wait("the verdict", || {
            let ledger = Journal::peek(&node.path("state")).unwrap().unwrap();
            ledger.in_flight.is_none().then_some(())
        });
        assert!(began.elapsed() < LIMIT, "{what}");
        assert_eq!(node.word("a.test"), served, "{what}");
        assert_eq!(node.list("conf/auto_vhost").len(), usize::from(!served.is_empty()), "{what}");
    }
}
