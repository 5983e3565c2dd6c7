//! The agent's work on files under faults of single system calls, injected by strace into the real program: it is killed at
//! each call, and each call fails. Whatever happens, a file is the old one or the new one, what fails has changed nothing,
//! and the next task finds everything in order.

mod agent_node;

use std::fs;
use std::process::{Command, Output, Stdio};

use agent_node::{Node, cell, word};

/// What touches files and processes, and the calls around it.
const CALLS: [&str; 12] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "unlink",
    "flock",
    "pidfd_send_signal",
    "openat",
    "read",
    "statx",
    "close",
];

struct Scene {
    node: Node,
    /// How often the vhost was written.
    words: u32,
}

impl Scene {
    fn new() -> Self {
        let mut node = Node::new();
        node.start_proxy();
        let scene = Self { node, words: 0 };
        let file = scene.node.write("in/a.conf", &scene.text());
        let added = scene.node.run(&["task", "add", word(&file)]);
        assert!(added.status.success(), "{added:?}");
        scene
    }

    fn word(&self) -> String {
        format!("word{}", self.words)
    }

    fn text(&self) -> String {
        self.node.vhost(11, "a.test", &self.word())
    }

    fn on_disk(&self) -> String {
        assert_eq!(self.node.list("conf/auto_vhost").iter().filter(|name| name.ends_with(".conf")).count(), 1);
        fs::read_to_string(self.node.path("conf/auto_vhost/a.conf")).unwrap()
    }

    /// Writes the next text and modifies the vhost by it, with a fault.
    fn modify(&mut self, fault: &str) -> Output {
        self.words += 1;
        let file = self.node.write("in/a.conf", &self.text());
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={fault}"), "--"]);
        command.arg(env!("CARGO_BIN_EXE_dysvr-node")).args(["task", "modify", word(&file), "--prefix"]);
        command.arg(self.node.path("")).args(["--proxy", env!("CARGO_BIN_EXE_dysvr-proxy")]).stdin(Stdio::null());
        command.output().expect("strace runs")
    }

    /// The next task, without a fault, is done, and nothing else is left behind.
    fn settle(&mut self, what: &str) {
        self.words += 1;
        let file = self.node.write("in/a.conf", &self.text());
        let done = self.node.run(&["task", "modify", word(&file)]);
        assert!(done.status.success(), "after {what}: {done:?}");
        assert_eq!(cell(&done, "mode"), "in_place", "after {what}: {done:?}");
        assert_eq!((self.on_disk(), self.node.word("a.test")), (self.text(), self.word()), "after {what}");
        assert_eq!(self.node.list("conf/auto_vhost"), ["a.conf"], "after {what}");
    }
}

#[test]
fn killed_at_any_call_it_leaves_the_old_or_the_new() {
    let mut scene = Scene::new();
    let workers = scene.node.workers();
    let mut kills = 0;
    for call in CALLS {
        for number in 1.. {
            let (before, what) = (scene.text(), format!("a kill at {call} {number}"));
            let output = scene.modify(&format!("{call}:signal=KILL:when={number}"));
            if output.status.success() {
                assert!(number > 1 || call == "unlink", "{call} was never called");
                assert_eq!(scene.node.word("a.test"), scene.word(), "{what}");
                break;
            }
            assert!(output.stdout.is_empty() || !cell(&output, "status").contains('F'), "{what}: {output:?}");
            let file = scene.on_disk();
            assert!(file == before || file == scene.text(), "{what}: {file}");
            let serves = scene.node.word("a.test");
            assert!(before.contains(&format!("\"{serves}\"")) || serves == scene.word(), "{what}: {serves}");
            scene.settle(&what);
            kills += 1;
        }
    }
    assert!(kills >= 10, "{kills} kills");
    assert_eq!(scene.node.workers(), workers, "nothing was reloaded");
}

#[test]
fn whatever_call_fails_the_last_good_serves() {
    let mut scene = Scene::new();
    let mut failures = 0;
    for (call, error) in [
        ("fsync", "EIO"),
        ("fdatasync", "EIO"),
        ("rename", "ENOSPC"),
        ("write", "ENOSPC"),
        ("pwrite64", "ENOSPC"),
        ("clone3", "EAGAIN"),
    ] {
        for number in 1..40 {
            let (before, old_word) = (scene.text(), scene.word());
            let what = format!("{error} of {call} {number}");
            let output = scene.modify(&format!("{call}:error={error}:when={number}"));
            let (file, serves) = (scene.on_disk(), scene.node.word("a.test"));
            let said = String::from_utf8_lossy(&output.stderr);
            if said.contains("failed to wake I/O driver") || said.contains("standard output: ") {
                // The runtime's own eventfd, which no full disk meets: to the task it was a crash. Or where the verdict
                // is printed, behind the task.
            } else if output.status.success() {
                // What failed was not needed, or there was no such call any more.
                assert_eq!((file, serves), (scene.text(), scene.word()), "{what}: {output:?}");
            } else {
                assert_eq!((file, serves), (before, old_word), "{what}: {output:?}");
                failures += 1;
            }
            scene.settle(&what);
            if output.status.success() && number > 8 {
                break;
            }
        }
    }
    assert!(failures >= 4, "{failures} failures");
}
