//! What the agent has written is on the disk before anybody acts on it: the real program under strace, whose calls are
//! looked at in their order.

mod agent_node;

use std::fs;
use std::process::{Command, Stdio};

use agent_node::{Node, word};

#[test]
fn a_file_is_on_the_disk_before_its_name_and_both_before_the_master_is_told() {
    let mut node = Node::new();
    node.start_proxy();
    let file = node.write("in/a.conf", &node.vhost(11, "a.test", "one"));
    let trace = node.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qq", "-s", "4096", "-o", word(&trace)]);
    command.args(["-e", "trace=openat,write,fsync,fdatasync,rename,pidfd_send_signal", "--"]);
    command.arg(env!("CARGO_BIN_EXE_dysvr-node")).args(["task", "add", word(&file), "--prefix"]).arg(node.path(""));
    command.args(["--proxy", env!("CARGO_BIN_EXE_dysvr-proxy")]).stdin(Stdio::null());
    let output = command.output().expect("strace runs");
    assert!(output.status.success(), "{output:?}");

    let trace = fs::read_to_string(trace).unwrap();
    let folder = node.path("conf/auto_vhost");
    let (folder, written) = (word(&folder), node.path("conf/auto_vhost/a.conf"));
    // Calls in their order; one that another thread came between is where it began.
    let at = |what: &str, is: &dyn Fn(&str) -> bool| {
        trace.lines().position(is).unwrap_or_else(|| panic!("no call to see: {what}\n{trace}"))
    };
    let synced =
        |line: &str, path: &str| line.split_once("sync(").is_some_and(|(_, call)| call.contains(&format!("<{path}")));
    let content = at("the content reaches the disk", &|line| synced(line, &format!("{folder}/.a.conf.")));
    let name = at("the file gets its name", &|line| {
        line.contains(" rename(\"") && line.contains(&format!("\"{}\"", word(&written)))
    });
    let entry = at("the name reaches the disk", &|line| synced(line, &format!("{folder}>")));
    let state = node.path("state");
    let kept = at("what is undone reaches the disk", &|line| synced(line, &format!("{}/undo>", word(&state))));
    let begun = at("the journal is told what begins", &|line| {
        line.contains(" write(") && line.contains(&format!("<{}/journal>", word(&state)))
    });
    let journal = at("the journal reaches the disk", &|line| synced(line, &format!("{}/journal>", word(&state))));
    let told = at("the master is told", &|line| line.contains(" pidfd_send_signal("));
    assert!(kept < begun, "the journal speaks of what is not there to be undone\n{trace}");
    let lists = |line: &str| synced(line, &format!("{}>", word(&state)));
    assert!(trace.lines().take(begun).skip(kept).any(lists), "the file may be without a name\n{trace}");
    assert!(content < name && name < entry && entry < told, "{trace}");
    assert!(journal < name, "nothing is written before the journal says what\n{trace}");
}
