//! Files that several vhosts share, through the agent: includes, maps and log formats that change in place for all that use
//! them, as one task; and what belongs to `http` as a whole, which goes by reload and says why.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use dysvr_tests::client::{self, Connection};
use dysvr_tests::node::Node;
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::{MainConf, Prefix};
use dysvr_tests::proxy::{self, LIMIT};
use dysvr_tests::{process, wait};

const COMMON: &str = "common_location.conf";

fn start() -> Result<Node> {
    let http = "    include http.d/*.conf;\n".to_owned();
    let conf = MainConf { http, ..MainConf::default() };
    let node = Node::start("n1", &[], None, &conf, &[])?;
    fs::create_dir(node.prefix.conf("http.d"))?;
    fs::create_dir(node.prefix.conf("deep"))?;
    Ok(node)
}

fn vhost(prefix: &Prefix, id: u64, inside: &str) -> Result<String> {
    let file = format!("auto_vhost/v{id}.conf");
    let (port, head) = (prefix.port, format!("server {{\n    vsvc_id {id};\n"));
    prefix
        .write(&file, &format!("{head}    listen 127.0.0.1:{port};\n    server_name v{id}.example;\n{inside}\n}}\n"))?;
    Ok(file)
}

/// `dysvr-node task …` on files below conf/; gives what it said.
fn task(node: &Node, verb: &str, files: &[&str]) -> Result<(bool, String)> {
    let paths: Vec<String> = files.iter().map(|file| node.prefix.conf(file).display().to_string()).collect();
    let mut args = vec![verb];
    args.extend(paths.iter().map(String::as_str));
    let output = node.task(&args)?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Ok((output.status.success(), said))
}

fn done(node: &Node, verb: &str, files: &[&str]) -> Result<()> {
    let (success, said) = task(node, verb, files)?;
    ensure!(success, "{verb} {files:?}: {said}{}", process::tail(&node.prefix.error_log()));
    Ok(())
}

/// The only line of the task file is done in this mode and names these ids.
fn line(node: &Node, mode: &str, key: &str, ids: Option<&str>) -> Result<()> {
    let lines = node.prefix.task_file().lines();
    ensure!(lines.len() == 1, "{lines:?}");
    let fields = &lines[0].fields;
    let right = fields["status"] == "D" && fields["mode"] == mode && fields.get(key).map(String::as_str) == ids;
    ensure!(right, "{lines:?}");
    Ok(())
}

fn everywhere(node: &Node, host: &str, text: &str) -> Result<()> {
    for reply in node.ask_every_worker(host, "/")? {
        ensure!(reply.text() == text, "{host}: {:?} instead of {text:?}", reply.text());
    }
    Ok(())
}

fn starts(prefix: &Prefix) -> Result<()> {
    let tested = proxy::run(&proxy::dysvr_binary()?, prefix, &["-t"])?;
    ensure!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    Ok(())
}

#[test]
fn a_shared_include_changes_every_vhost_that_uses_it_or_none() -> Result<()> {
    let node = start()?;
    let (prefix, workers) = (&node.prefix, node.workers());
    prefix.write(COMMON, "location / { return 200 one; }\n")?;
    prefix.write("deep/more.conf", &format!("include {COMMON};\n"))?;
    let files = [
        vhost(prefix, 1, &format!("    include {COMMON};"))?,
        vhost(prefix, 2, &format!("    include ./{COMMON};"))?,
        vhost(prefix, 3, "    include deep/*.conf;")?,
        vhost(prefix, 4, "    location / { return 200 alone; }")?,
    ];
    done(&node, "add", &files.each_ref().map(String::as_str))?;
    let mut held = client::pin_every_worker(prefix.addr(), "v4.example", &workers, LIMIT)?;
    prefix.write(COMMON, "location / { return 200 two; }\n")?;
    done(&node, "modify", &[COMMON])?;
    line(&node, "in_place", "vsvc_ids", Some("1,2,3"))?;
    for id in 1..=3 {
        everywhere(&node, &format!("v{id}.example"), "two")?;
    }

    // One of them cannot take it: none does.
    let file = vhost(prefix, 3, "    location /x { return 404; }\n    include deep/*.conf;")?;
    done(&node, "modify", &[&file])?;
    prefix.write(COMMON, "location / { return 200 three; }\nlocation /x { return 200; }\n")?;
    let (success, said) = task(&node, "modify", &[COMMON])?;
    ensure!(!success && said.contains("duplicate location \"/x\""), "{said}");
    for id in 1..=3 {
        everywhere(&node, &format!("v{id}.example"), "two")?;
    }
    // A file that a pattern inside a vhost finds.
    prefix.write(COMMON, "location / { return 200 two; }\n")?;
    prefix.write("deep/new.conf", "location /y { return 200 new; }\n")?;
    done(&node, "add", &["deep/new.conf"]).or_else(|_| done(&node, "modify", &["deep/new.conf"]))?;
    line(&node, "in_place", "vsvc_ids", Some("3"))?;
    ensure!(node.ask_every_worker("v3.example", "/y")?.iter().all(|reply| reply.text() == "new"));

    for (pid, connection) in &mut held {
        let reply = connection.get("v4.example", "/")?;
        ensure!(reply.text() == "alone" && reply.worker() == Some(*pid), "{reply:?}");
    }
    ensure!(node.workers() == workers, "workers were replaced");
    starts(prefix)
}

#[test]
fn maps_and_log_formats_change_under_those_who_use_them() -> Result<()> {
    let node = start()?;
    let (prefix, workers) = (&node.prefix, node.workers());
    let origin = Origin::start("one")?;
    let log = prefix.path().join("logs/v1.log");
    let shared =
        |value: &str| format!("map $host $who {{ default {value}; }}\nlog_format mine \"{value} $who $uri\";\n");
    prefix.write("http.d/shared.conf", &shared("one"))?;
    done(&node, "add", &["http.d/shared.conf"])?;
    line(&node, "in_place", "maps", Some("who"))?;
    let users = [
        vhost(
            prefix,
            1,
            &format!(
                "    access_log {} mine;\n    location /drip {{ proxy_pass http://{}; }}\n    \
                 location / {{ return 200 $who; }}",
                log.display(),
                origin.addr
            ),
        )?,
        vhost(prefix, 2, "    location / { return 200 \"also $who\"; }")?,
    ];
    done(&node, "add", &users.each_ref().map(String::as_str))?;
    everywhere(&node, "v1.example", "one")?;

    // A request that runs ends with the map and the format that it began with.
    let mut slow = Connection::open(prefix.addr())?;
    let headers = [("Host", "v1.example"), ("Content-Length", "4"), ("Expect", "100-continue")];
    slow.send("POST", "/drip?count=1", &headers, b"")?;
    // The proxy asks for the body once it has chosen the vhost, and waits for it.
    ensure!(slow.head()?.status()? == 100);
    prefix.write("http.d/shared.conf", &shared("two"))?;
    done(&node, "modify", &["http.d/shared.conf"])?;
    line(&node, "in_place", "vsvc_ids", None)?;
    let lines = |text: &str| fs::read_to_string(&log).unwrap_or_default().matches(text).count();
    ensure!(lines("one one /drip") == 0, "the slow request is over");
    everywhere(&node, "v1.example", "two")?;
    everywhere(&node, "v2.example", "also two")?;
    slow.stream().get_mut().write_all(b"body")?;
    ensure!(slow.reply("POST")?.status == 200);
    wait::until("the slow request's line", LIMIT, || lines("one one /drip") == 1)?;
    ensure!(lines("two two /\n") >= workers.len() && lines("two two /drip") == 0, "{}", fs::read_to_string(&log)?);
    ensure!(node.workers() == workers, "workers were replaced");
    starts(prefix)?;

    // What is used stays, and what is not may go.
    prefix.write("http.d/shared.conf", "log_format mine \"$uri\";\n")?;
    let (success, said) = task(&node, "modify", &["http.d/shared.conf"])?;
    ensure!(success || said.contains("unknown \"who\" variable"), "{said}");
    Ok(())
}

#[test]
fn what_belongs_to_http_goes_by_reload_and_says_why() -> Result<()> {
    let node = start()?;
    let (prefix, workers) = (&node.prefix, node.workers());
    prefix.write("http.d/set.conf", "\nadd_header X-Set one always;\n")?;
    done(&node, "add", &["http.d/set.conf"])?;
    let reason = format!("\"add_header\" in {}:2 changes http as a whole", prefix.conf("http.d/set.conf").display());
    let (success, said) = task(&node, "modify", &["http.d/set.conf"])?;
    ensure!(success && said.contains(&reason), "{said}");
    line(&node, "reload", "vsvc_ids", None)?;
    wait::until("other workers", LIMIT, || node.workers().is_disjoint(&workers))?;
    let headers: BTreeSet<String> = node
        .ask_every_worker("none.example", "/")?
        .iter()
        .map(|reply| reply.head.header("x-set").map(str::to_owned).context("no X-Set"))
        .collect::<Result<_>>()?;
    ensure!(headers == BTreeSet::from(["one".to_owned()]), "{headers:?}");
    // So does a shared include that http itself uses.
    prefix.write("http.d/common.conf", &format!("include {COMMON};\n"))?;
    prefix.write(COMMON, "add_header X-Common here always;\n")?;
    done(&node, "add", &["http.d/common.conf"])?;
    let (success, said) = task(&node, "modify", &[COMMON])?;
    let reason = format!("\"add_header\" in {}:1 changes http as a whole", prefix.conf(COMMON).display());
    ensure!(success && said.contains(&reason), "{said}");
    Ok(())
}
