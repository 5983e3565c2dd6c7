//! A node's agent without any controller: tasks from a shell, the memory guard, a crash, a proxy that it finds running.

use std::fs;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use dysvr_tests::node::Node;
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::seed;

/// A machine with a fifth of its memory free, less one page.
const LOW: &str = "MemTotal: 1000000 kB\nMemFree: 150000 kB\nBuffers: 10000 kB\nCached: 40000 kB\nSwapCached: 0 kB\n\
                   Shmem: 10000 kB\nSReclaimable: 9996 kB\n";

fn start(options: &[&str]) -> Result<(Node, Origin)> {
    Ok((Node::start("alone", &[], None, &MainConf::default(), options)?, Origin::start("seed")?))
}

/// The seed's vhost, its upstream and the shared include, in a directory beside the node's configuration.
fn seed_files(node: &Node, origin: &Origin) -> Result<Vec<String>> {
    let dir = node.prefix.path().join("incoming");
    fs::create_dir_all(&dir)?;
    node.prefix.write(seed::COMMON_FILE, seed::COMMON)?;
    let mut paths = Vec::new();
    for (name, text) in [(seed::UPSTREAM_FILE, seed::upstream(origin.addr)), (seed::VHOST_FILE, seed::vhost_of_fleet())]
    {
        let path = dir.join(name.rsplit('/').next().context("a name")?);
        fs::write(&path, text)?;
        paths.push(path.display().to_string());
    }
    Ok(paths)
}

fn task(node: &Node, verb: &str, what: &[String], more: &[&str]) -> Result<Output> {
    let what: Vec<&str> = what.iter().map(String::as_str).collect();
    node.task(&[&[verb], what.as_slice(), more].concat())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn everywhere(node: &Node, status: u16, text: &str) -> Result<()> {
    for reply in node.ask_every_worker(seed::HOST, "/")? {
        ensure!(reply.status == status && reply.text().contains(text), "{reply:?}");
    }
    Ok(())
}

#[test]
fn a_shell_adds_modifies_and_deletes() -> Result<()> {
    let (node, origin) = start(&[])?;
    let (files, workers) = (seed_files(&node, &origin)?, node.workers());
    let added = task(&node, "add", &files, &[])?;
    ensure!(added.status.success(), "{}", said(&added));
    everywhere(&node, 200, "origin seed")?;

    let other = Origin::start("other")?;
    fs::write(&files[0], seed::upstream(other.addr))?;
    let modified = task(&node, "modify", &files, &[])?;
    ensure!(modified.status.success(), "{}", said(&modified));
    everywhere(&node, 200, "origin other")?;

    let deleted = task(&node, "delete", &[seed::VSVC_ID.to_string()], &[])?;
    ensure!(deleted.status.success(), "{}", said(&deleted));
    everywhere(&node, 404, "no such vhost")?;
    ensure!(!node.prefix.conf(seed::VHOST_FILE).exists() && !node.prefix.conf(seed::UPSTREAM_FILE).exists());
    ensure!(node.workers() == workers, "workers were replaced");
    Ok(())
}

#[test]
fn a_task_that_fails_leaves_the_files_as_they_were() -> Result<()> {
    let (node, origin) = start(&[])?;
    let files = seed_files(&node, &origin)?;
    ensure!(task(&node, "add", &files, &[])?.status.success());
    let before = fs::read_to_string(node.prefix.conf(seed::VHOST_FILE))?;
    let bad = seed::vhost_of_fleet().replace("proxy_pass http://1074728;", "proxy_pass http://no-such-host.invalid;");
    fs::write(&files[1], bad)?;
    let refused = task(&node, "modify", &files[1..], &[])?;
    ensure!(refused.status.code() == Some(1), "{}", said(&refused));
    ensure!(said(&refused).contains("host not found in upstream \"no-such-host.invalid\""), "{}", said(&refused));
    ensure!(fs::read_to_string(node.prefix.conf(seed::VHOST_FILE))? == before, "the vhost's file was left changed");
    everywhere(&node, 200, "origin seed")
}

#[test]
fn low_memory_refuses_with_its_own_reason() -> Result<()> {
    let (node, origin) = start(&[])?;
    let files = seed_files(&node, &origin)?;
    let meminfo = node.prefix.path().join("meminfo");
    fs::write(&meminfo, LOW)?;
    let option = meminfo.display().to_string();
    let refused = task(&node, "add", &files, &["--meminfo", &option])?;
    ensure!(refused.status.code() == Some(1), "{}", said(&refused));
    ensure!(said(&refused).contains("low memory: 19 %"), "{}", said(&refused));
    ensure!(!node.prefix.conf(seed::VHOST_FILE).exists(), "the vhost's file was left");
    everywhere(&node, 404, "no such vhost")?;
    // One page more is enough.
    fs::write(&meminfo, LOW.replace("9996", "10000"))?;
    let added = task(&node, "add", &files, &["--meminfo", &option])?;
    ensure!(added.status.success(), "{}", said(&added));
    everywhere(&node, 200, "origin seed")
}

#[test]
fn an_agent_that_dies_finds_its_proxy_again() -> Result<()> {
    let (mut node, origin) = start(&[])?;
    let files = seed_files(&node, &origin)?;
    ensure!(task(&node, "add", &files, &[])?.status.success());
    let (master, workers) = (node.prefix.master_pid()?, node.workers());
    node.crash_agent();
    everywhere(&node, 200, "origin seed")?;
    // Without an agent a shell's task works, too.
    let other = Origin::start("other")?;
    fs::write(&files[0], seed::upstream(other.addr))?;
    let modified = task(&node, "modify", &files, &[])?;
    ensure!(modified.status.success(), "{}", said(&modified));
    everywhere(&node, 200, "origin other")?;

    node.start_agent()?;
    ensure!(node.prefix.master_pid()? == master && node.workers() == workers, "another proxy was started");
    let deleted = task(&node, "delete", &[seed::VSVC_ID.to_string()], &[])?;
    ensure!(deleted.status.success(), "{}", said(&deleted));
    everywhere(&node, 404, "no such vhost")
}
