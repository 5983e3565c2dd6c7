//! A small fleet, for the tests of what is shown.

use std::collections::BTreeMap;

use super::view::{
    Change, ChangeKind, Instant, Node, NodeProgress, Observed, Proxy, Revision, Rollout, Task, Timings, Upstream,
    Vhost, Wave, WorkerTiming,
};

/// The time at which everything is looked at.
pub(super) const NOW_MS: i64 = 1_658_904_251_114;

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Three, one with many names.
pub(super) fn vhosts() -> Vec<Vhost> {
    let vhost = |vsvc_id, names: &[&str], listens: &[&str], upstreams: &[&str], file: &str, revision| Vhost {
        vsvc_id,
        server_names: strings(names),
        listens: strings(listens),
        upstreams: strings(upstreams),
        file: file.into(),
        revision,
    };
    vec![
        vhost(131_942, &["lucas.example"], &["80", "[::]:80"], &["1074728"], "auto_vhost/lucas.conf", 5),
        vhost(131_943, &["a.example", "b.example", "c.example"], &["80"], &[], "auto_vhost/a.conf", 6),
        vhost(131_944, &["n0", "n1", "n2", "n3", "n4", "n5"], &["80"], &["u"], "auto_vhost/n.conf", 7),
    ]
}

/// One in use, one not.
pub(super) fn upstreams() -> Vec<Upstream> {
    vec![
        Upstream {
            ups_id: "1074728".into(),
            servers: strings(&["127.0.0.1:8081"]),
            vhosts: vec![131_942],
            file: "auto_upstream/lucas.upstream.conf".into(),
            revision: 5,
        },
        Upstream {
            ups_id: "spare".into(),
            servers: strings(&["127.0.0.1:1", "[::1]:2"]),
            vhosts: vec![],
            file: "auto_vhost/spare.conf".into(),
            revision: 4,
        },
    ]
}

/// A good one, a failed one, one that was never seen.
pub(super) fn nodes() -> Vec<Node> {
    let observed = |revision, running| Observed {
        revision,
        epoch: 3,
        digest: Some("e3b0c442".into()),
        drift: false,
        drifted: vec![],
        proxy: Some(Proxy {
            running,
            master_pid: 7111,
            worker_pids: vec![20301, 20292],
            updates: 40,
            version: "0.1.0".into(),
            quarantined: vec![],
            verified: None,
        }),
    };
    let node = |name: &str, state: &str, observed, seen, reason: &str| Node {
        name: name.into(),
        labels: BTreeMap::new(),
        state: state.into(),
        reason: reason.into(),
        connected: state != "away",
        desired_revision: 7,
        observed,
        agent_version: "0.1.0".into(),
        seen: Instant(seen),
    };
    let mut first = node("n1", "current", Some(observed(7, true)), NOW_MS - 2_000, "");
    first.labels = BTreeMap::from([("zone".into(), "a".into()), ("rack".into(), "3".into())]);
    let reason = "unknown directive \"x\" in auto_vhost/a.conf:3";
    let second = node("n2", "failed", Some(observed(6, false)), NOW_MS - 240_000, reason);
    vec![first, second, node("n3", "away", None, 0, "")]
}

/// One on its way, one that was rolled back.
pub(super) fn rollouts() -> Vec<Rollout> {
    let progress = |node: &str, state: &str, reason: &str| NodeProgress {
        node: node.into(),
        state: state.into(),
        reason: reason.into(),
        changed: Instant(NOW_MS - 1_000),
    };
    let running = Rollout {
        rollout: 7,
        from_revision: 6,
        to_revision: 7,
        phase: "running".into(),
        reason: String::new(),
        wave: 2,
        waves: vec![
            Wave { nodes: vec![progress("n1", "done", "")] },
            Wave { nodes: vec![progress("n2", "updating", ""), progress("n3", "waiting", "")] },
        ],
        failed_nodes: 0,
        failure_budget: 0,
        created: Instant(NOW_MS - 10_000),
        changed: Instant(NOW_MS - 1_000),
        ended: Instant(0),
    };
    let undone = Rollout {
        rollout: 6,
        from_revision: 5,
        to_revision: 6,
        phase: "rolled-back".into(),
        reason: "n1: no such upstream".into(),
        wave: 1,
        waves: vec![
            Wave { nodes: vec![progress("n1", "failed", "no such upstream")] },
            Wave { nodes: vec![progress("n2", "waiting", ""), progress("n3", "waiting", "")] },
        ],
        failed_nodes: 1,
        created: Instant(NOW_MS - 60_000),
        ended: Instant(NOW_MS - 58_600),
        ..running.clone()
    };
    vec![running, undone]
}

/// Two.
pub(super) fn revisions() -> Vec<Revision> {
    let change = |file: &str, change, vsvc_ids: &[u64], ups_ids: &[&str]| Change {
        file: file.into(),
        change,
        vsvc_ids: vsvc_ids.to_vec(),
        ups_ids: strings(ups_ids),
    };
    vec![
        Revision {
            revision: 7,
            parent: 6,
            digest: Some("e3b0c442".into()),
            author: "ops".into(),
            message: "add lucas".into(),
            created: Instant(NOW_MS - 10_000),
            changes: vec![
                change("auto_upstream/lucas.upstream.conf", ChangeKind::Modify, &[], &["1074728"]),
                change("auto_vhost/lucas.conf", ChangeKind::Add, &[131_942], &[]),
            ],
            rollout: Some(7),
        },
        Revision {
            revision: 6,
            parent: 5,
            digest: None,
            author: String::new(),
            message: String::new(),
            created: Instant(NOW_MS - 60_000),
            changes: vec![change("auto_vhost/a.conf", ChangeKind::Delete, &[131_943], &[])],
            rollout: None,
        },
    ]
}

/// One done, one failed.
pub(super) fn tasks() -> Vec<Task> {
    let worker = |pid, prepare_us, commit_us| WorkerTiming { pid, prepare_us, commit_us };
    let done = Task {
        task: "7/n1".into(),
        node: "n1".into(),
        local_task_id: 25_208,
        rollout: Some(7),
        to_revision: 7,
        status: 'D',
        mode: "in_place",
        reason: String::new(),
        timings: Timings {
            files_us: 412,
            guard_us: 80,
            ready_us: 300,
            loading_us: 100,
            done_us: 250,
            total_us: 1_142,
            master_us: 150,
            workers: vec![worker(20_301, 210, 12), worker(20_292, 180, 15)],
        },
        at: Instant(NOW_MS - 1_000),
    };
    let failed = Task {
        task: "7/n2".into(),
        node: "n2".into(),
        status: 'F',
        mode: "",
        reason: "low memory: 12 %".into(),
        timings: Timings { files_us: 400, total_us: 400, ..Timings::default() },
        ..done.clone()
    };
    vec![done, failed]
}
