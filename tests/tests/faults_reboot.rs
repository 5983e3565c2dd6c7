//! A machine reboots while there is no control plane: it starts from its own files and serves what it served, the changes
//! of the last moment among them; its agent goes on alone.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use dysvr_tests::client;
use dysvr_tests::fleet::{Fleet, Store};
use dysvr_tests::node::Node;
use dysvr_tests::proxy::LIMIT;
use dysvr_tests::{ports, process, procfs, wait};

/// All processes of the node end at once, and what is on no disk is gone.
fn reboot(node: &mut Node) -> Result<()> {
    let all = procfs::with_argument(node.prefix.path());
    ensure!(all.len() >= 4, "an agent, a master and two workers: {all:?}");
    // The agent first, or it might start another master; and whoever is born meanwhile, too.
    node.crash_agent();
    wait::until("all processes to end", LIMIT, || {
        let all = procfs::with_argument(node.prefix.path());
        process::end_all(&all);
        all.is_empty()
    })?;
    let tasks = node.prefix.task_file().path;
    fs::remove_dir_all(tasks.parent().context("no folder")?)?;
    for entry in fs::read_dir(node.prefix.path().join("logs"))? {
        let path = entry?.path();
        if path.display().to_string().contains("nginx.pid") {
            fs::remove_file(path)?;
        }
    }
    node.start_agent()
}

fn vhost(id: u64, port: u16, word: &str) -> String {
    format!("server {{ vsvc_id {id}; listen 127.0.0.1:{port}; server_name v{id}.example; return 200 \"{word}\"; }}\n")
}

#[test]
fn a_node_that_reboots_without_a_controller_serves_what_it_served() -> Result<()> {
    let mut fleet = Fleet::start(1, Store::Embedded, |_| ())?;
    let own = ports::free()?;
    let port = fleet.node("node-1")?.prefix.port;
    let apply = |fleet: &Fleet| fleet.ctl().ok(&["apply", "-f", &fleet.files_arg(), "-m", "x", "--wait"]).map(drop);
    for id in 1..=20 {
        fleet.write(&format!("auto_vhost/{id}.conf"), &vhost(id, port, "first"))?;
    }
    apply(&fleet)?;
    // The last moment: one is changed in place, one comes on a port of its own.
    fleet.write("auto_vhost/2.conf", &vhost(2, port, "second"))?;
    fleet.write("auto_vhost/21.conf", &vhost(21, own, "its own"))?;
    apply(&fleet)?;
    fleet.controller.crash();

    let node = fleet.node("node-1")?;
    let word = |id: u64| match id {
        2 => "second",
        21 => "its own",
        _ => "first",
    };
    let serves = |node: &Node, but: Option<(u64, &str)>| -> Result<()> {
        for id in 1..=21 {
            let addr = (std::net::Ipv4Addr::LOCALHOST, if id == 21 { own } else { port }).into();
            let wanted = but.filter(|(changed, _)| *changed == id).map_or(word(id), |(_, word)| word);
            for reply in
                client::ask_every_worker(addr, || node.workers(), &format!("v{id}.example"), "/", LIMIT)?.values()
            {
                ensure!(reply.status == 200 && reply.text() == wanted, "{id}: {reply:?}");
            }
        }
        Ok(())
    };
    reboot(node)?;
    serves(node, None)?;
    // The agent goes on without a controller, by hand, and what it did then outlives the next reboot.
    node.prefix.write("auto_vhost/3.conf", &vhost(3, port, "by hand"))?;
    let done = node.task(&["modify", &node.prefix.conf("auto_vhost/3.conf").display().to_string()])?;
    ensure!(done.status.success(), "{done:?}");
    reboot(node)?;
    serves(node, Some((3, "by hand")))?;

    // With its controller it is found as it is: nothing is overwritten.
    fleet.controller.start_again()?;
    wait::eventually("the drift to be reported", LIMIT, || -> Result<()> {
        let nodes = fleet.seen_nodes()?;
        ensure!(nodes.iter().any(|node| node["observed"]["drift"] == true), "{nodes:?}");
        Ok(())
    })?;
    serves(&fleet.nodes[0], Some((3, "by hand")))
}
