//! What the agent has written is on the disk before anybody acts on it or is told of it: the real program under strace, whose
//! calls are looked at in their order.

mod agent_node;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use agent_node::{Node, cell, word};

#[test]
fn a_file_is_on_the_disk_before_its_name_and_both_before_the_verdict_is_told() {
    let mut node = Node::new();
    node.start_proxy();
    let file = node.write("in/a.conf", &node.vhost(11, "a.test", "one"));
    assert!(node.run(&["task", "add", word(&file)]).status.success());
    // Small, its former content goes with the journal's entry; large, it has a file of its own, which is made here and
    // written over the next time.
    for (what, filler, is_large) in
        [("one", 0, false), ("two", 40_000, false), ("three", 0, true), ("four", 40_000, false), ("five", 0, true)]
    {
        let text = format!("# {}\n{}", "x".repeat(filler), node.vhost(11, "a.test", what));
        let trace = modify(&node, &text);
        assert_eq!(node.word("a.test"), what);
        assert_order(&node, &trace, is_large);
    }
}

/// Modifies the vhost and gives the calls that it took.
fn modify(node: &Node, text: &str) -> String {
    let (file, trace) = (node.write("in/a.conf", text), node.path("trace"));
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qq", "-s", "65536", "-o", word(&trace)]);
    command.args(["-e", "trace=openat,write,pwrite64,fsync,fdatasync,rename,unlink,pidfd_send_signal", "--"]);
    command.arg(env!("CARGO_BIN_EXE_dysvr-node")).args(["task", "modify", word(&file), "--prefix"]);
    command.arg(node.path("")).args(["--proxy", env!("CARGO_BIN_EXE_dysvr-proxy")]).stdin(Stdio::null());
    let output = command.output().expect("strace runs");
    assert!(output.status.success() && cell(&output, "status").contains('D'), "{output:?}");
    fs::read_to_string(trace).unwrap()
}

/// The lines of a trace, those of a sync that another thread came between put together where it ended.
fn whole_syncs(trace: &str) -> String {
    let (mut lines, mut begun) = (String::new(), BTreeMap::new());
    for line in trace.lines() {
        let thread = line.split(' ').next().unwrap_or_default();
        match line.strip_suffix(" <unfinished ...>") {
            Some(call) if call.contains("sync(") => drop(begun.insert(thread, call)),
            _ if line.contains("sync resumed>") => {
                let (call, (_, end)) = (begun[thread], line.split_once(" resumed>").unwrap());
                lines += &format!("{call}{end}\n");
            }
            _ => lines += &format!("{line}\n"),
        }
    }
    lines
}

fn assert_order(node: &Node, trace: &str, is_large: bool) {
    let (folder, written, state) =
        (node.path("conf/auto_vhost"), node.path("conf/auto_vhost/a.conf"), node.path("state"));
    let (folder, state) = (word(&folder), word(&state));
    // Calls in their order. One that another thread came between is where it began, but a sync is where it ended.
    let trace = &whole_syncs(trace);
    let after = |from: usize, what: &str, is: &dyn Fn(&str) -> bool| {
        let at = trace.lines().skip(from).position(is);
        from + at.unwrap_or_else(|| panic!("no call to see: {what}\n{trace}"))
    };
    let at = |what: &str, is: &dyn Fn(&str) -> bool| after(0, what, is);
    let synced =
        |line: &str, path: &str| line.split_once("sync(").is_some_and(|(_, call)| call.contains(&format!("<{path}")));
    let entry = |line: &str, kind: &str| {
        line.contains(" pwrite64(") && line.contains(&format!("<{state}/journal>")) && line.contains(kind)
    };
    let journal_synced = |line: &str| synced(line, &format!("{state}/journal>"));

    let content = at("the content reaches the disk", &|line| synced(line, &format!("{folder}/.a.conf.")));
    let begun = at("the journal is told what begins", &|line| entry(line, "Begin"));
    let begun_synced = after(begun, "the beginning reaches the disk", &journal_synced);
    let name = at("the file gets its name", &|line| {
        line.contains(" rename(\"") && line.contains(&format!("\"{}\"", word(&written)))
    });
    let told = at("the master is told", &|line| line.contains(" pidfd_send_signal("));
    let name_synced = at("the name reaches the disk", &|line| synced(line, &format!("{folder}>")));
    let ended = at("the journal is told the end", &|line| entry(line, "End"));
    let ended_synced = after(ended, "the end reaches the disk", &journal_synced);
    let verdict = at("the verdict is printed", &|line| line.contains(" write(1<") && line.contains("status"));

    assert!(begun_synced < name, "a file is changed before the journal says so\n{trace}");
    assert!(content < name, "a file has its name before its content\n{trace}");
    assert!(name < told && told < name_synced, "the master waits for a disk\n{trace}");
    assert!(name_synced < ended && ended_synced < verdict, "a verdict is told that may be lost\n{trace}");
    let changes = |line: &&str| {
        let renames = line.contains(" rename(") || line.contains(" unlink(");
        renames && line.contains(folder)
    };
    assert_eq!(trace.lines().take(begun_synced).filter(changes).count(), 0, "{trace}");

    let undo = |line: &str| line.contains(&format!("<{state}/undo>"));
    assert_eq!(is_large, trace.lines().any(undo), "where the former content goes\n{trace}");
    if is_large {
        let kept = at("what is undone reaches the disk", &|line| synced(line, &format!("{state}/undo>")));
        assert!(kept < begun, "the journal speaks of what is not there to be undone\n{trace}");
        let is_new =
            trace.lines().any(|line| line.contains("/undo\", ") && line.contains("O_EXCL") && !line.contains("ENO"));
        let lists = |line: &str| synced(line, &format!("{state}>"));
        assert!(!is_new || trace.lines().take(begun).skip(kept).any(lists), "the file may be without a name\n{trace}");
    } else {
        let line = trace.lines().nth(begun).unwrap();
        assert!(
            line.contains("\\\"former\\\":[{") && line.contains("return 200"),
            "what is undone is not kept\n{line}"
        );
    }
}
