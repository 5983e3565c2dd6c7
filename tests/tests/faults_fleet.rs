//! A quarantine is heard of where rollouts are steered: the wave that brought the vhost fails and rolls back, which mends it.

use anyhow::{Context as _, Result, ensure};
use dysvr_tests::fleet::{Fleet, LIMIT, Store, items};
use dysvr_tests::prefix::MainConf;
use dysvr_tests::{binaries, client, wait};

#[test]
fn a_wave_that_brings_a_vhost_which_crashes_workers_rolls_back() -> Result<()> {
    let mut fleet = Fleet::without_nodes(Store::Embedded, |_| {})?;
    let proxy = binaries::poisoned()?.display().to_string();
    fleet.add_node("node-1", &MainConf::default(), &["--proxy", &proxy])?;
    fleet.wait_connected(1)?;
    let file = "auto_vhost/a.conf";
    let vhost = |extra: &str| {
        format!(
            "server {{\n    vsvc_id 7;\n    include listen.d/*.conf;\n    server_name a.example;\n    \
             location / {{ {extra} return 200 \"fine\"; }}\n}}\n"
        )
    };
    let files = fleet.files_arg();
    fleet.write(file, &vhost(""))?;
    fleet.ctl().ok(&["apply", "-f", &files, "--wait", "--soak", "0s"])?;
    fleet.check_every_worker("a.example", 200, "fine")?;

    fleet.write(file, &vhost("set $poison poison:abort;"))?;
    // Longer than the test: only a failure ends it.
    fleet.ctl().ok(&["apply", "-f", &files, "--soak", "10m"])?;
    let node = || -> Result<serde_json::Value> { fleet.seen_nodes()?.pop().context("no node") };
    wait::eventually("the wave to soak", LIMIT, || -> Result<()> {
        let node = node()?;
        ensure!(node["observed"]["revision"] == 2, "{node}");
        Ok(())
    })?;
    let prefix = &fleet.nodes[0].prefix;
    for crash in 1..=2 {
        ensure!(client::get(prefix.addr(), "a.example", "/").is_err(), "it answered");
        wait::until("the master to see a crash", LIMIT, || {
            prefix.error_log().contains(&format!("crash {crash} within"))
        })?;
    }
    wait::eventually("the way back", LIMIT * 2, || -> Result<()> {
        let rollouts = items(&fleet.ctl().json(&["get", "rollouts"])?)?;
        let newest = rollouts.iter().max_by_key(|rollout| rollout["rollout"].as_u64()).context("no rollout")?;
        ensure!(newest["phase"] == "rolled-back", "{newest}");
        Ok(())
    })?;
    let said = fleet.ctl().ok(&["get", "rollouts", "-o", "json"])?;
    ensure!(said.contains("quarantined a vhost: vsvc_id=7"), "{said}");
    // The former text took the place of the one that crashed, and with it the quarantine went.
    wait::eventually("the node to be well", LIMIT, || -> Result<()> {
        let node = node()?;
        ensure!(
            node["state"] == "current" && node["observed"]["proxy"]["quarantined"] == serde_json::json!([]),
            "{node}"
        );
        Ok(())
    })?;
    wait::until("all workers", LIMIT, || fleet.nodes[0].workers().len() == 2)?;
    fleet.check_every_worker("a.example", 200, "fine")
}

#[test]
fn a_quarantine_that_was_there_before_is_shown_and_stops_no_rollout() -> Result<()> {
    let fleet = Fleet::start(1, Store::Embedded, |_| {})?;
    let list = fleet.nodes[0].prefix.task_file().path.with_file_name("dysvr_quarantine");
    std::fs::write(&list, "vsvc_id=9 server_name=\"z.example\" in z.conf:1 crashes=2 since=1 reason=\"x\"\n")?;
    wait::eventually("the node to be degraded", LIMIT, || -> Result<()> {
        let node = fleet.seen_nodes()?.pop().context("no node")?;
        ensure!(node["state"] == "degraded", "{node}");
        ensure!(node["reason"].as_str().is_some_and(|reason| reason.contains("vsvc_id=9")), "{node}");
        Ok(())
    })?;
    ensure!(fleet.ctl().ok(&["describe", "node", "node-1"])?.contains("Quarantined:"));
    fleet.write_seed()?;
    fleet.ctl().ok(&["apply", "-f", &fleet.files_arg(), "--wait", "--soak", "1s"])?;
    std::fs::remove_file(list)?;
    wait::eventually("the node to be well", LIMIT, || -> Result<()> {
        let node = fleet.seen_nodes()?.pop().context("no node")?;
        ensure!(node["state"] == "current", "{node}");
        Ok(())
    })
}
