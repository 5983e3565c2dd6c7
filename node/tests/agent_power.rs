//! The machine goes down at any moment of a task. The real program runs under strace; from its calls follows each state that
//! the disk may be in at each moment (what was synced is there, of the rest any part), and the recovery of the real agent
//! runs on each of them. What was told holds, and every file is the old one or the new one, before the recovery too.

mod agent_node;
mod power;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use agent_node::{Node, cell, word};
use dysvr_node::agent::drive::{Driver, Outcome};
use dysvr_node::agent::hands::Hands;
use dysvr_node::agent::journal::Journal;
use dysvr_node::agent::proxy::Layout;
use dysvr_node::agent::report::Report;
use dysvr_proto::status::Status;
use nix::sys::signal::Signal;
use power::disk::{self, Files};
use power::trace::{Op, Trace};

/// Of which the order on the disk is looked at.
const CALLS: &str = "trace=openat,write,pwrite64,ftruncate,rename,unlink,fsync,fdatasync,pidfd_send_signal";

/// Runs a command under strace; all that it did to the files of the folders.
fn traced(node: &Node, words: &[&str], folders: &[&Path], before: &Files) -> Trace {
    let out = node.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qq", "-s", "1000000", "-o", word(&out), "-e", CALLS, "--"]);
    command.arg(env!("CARGO_BIN_EXE_dysvr-node")).args(words).arg("--prefix").arg(node.path(""));
    command.args(["--proxy", env!("CARGO_BIN_EXE_dysvr-proxy")]).stdin(Stdio::null());
    let output = command.output().expect("strace runs");
    assert!(output.status.success() && cell(&output, "status").contains('D'), "{output:?}");
    Trace::read(&fs::read_to_string(out).unwrap(), folders, before.keys().cloned())
}

/// What the agent says of a task that it finds, when it starts on the files as they are and no master runs.
fn recover(node: &Node) -> Option<Report> {
    let layout = Layout {
        prefix: node.path(""),
        conf: node.path("conf/nginx.conf"),
        proxy: env!("CARGO_BIN_EXE_dysvr-proxy").into(),
        state: node.path("state"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut driver = Driver::new(Hands::new(layout, "/proc/meminfo".into()).unwrap()).unwrap();
        driver.stop();
        let mut verdict = None;
        loop {
            match driver.next().await.unwrap() {
                Outcome::Report(report) => verdict = Some(report).filter(|report| report.status.is_final()),
                Outcome::Changed => {}
                Outcome::Exit => return verdict,
            }
        }
    })
}

/// A task file is lost with the machine, or lies on a disk: as the agent wrote it, or as the master ended it.
fn task_files(lines: &[u8]) -> Vec<Option<Vec<u8>>> {
    let text = String::from_utf8(lines.to_vec()).unwrap();
    let with = |status: &str| Some(text.replace("status=I", &format!("status={status}")).into_bytes());
    vec![None, with("I"), with("D")]
}

fn every_cut(node: &mut Node, words: &[&str]) {
    let (vhosts, state, shm) = (node.path("conf/auto_vhost"), node.path("state"), node.path("shm"));
    let folders = [vhosts.as_path(), state.as_path()];
    node.start_proxy();
    let before = disk::read(&folders);
    let trace = traced(node, words, &folders, &before);
    let (after, lines) = (disk::read(&folders), fs::read(node.task_file()).unwrap());
    node.end_proxy(Signal::SIGTERM);
    let managed = |files: &Files| -> Files {
        let of = files.iter().filter(|(path, _)| path.starts_with(&vhosts));
        of.map(|(path, content)| (path.clone(), content.clone())).collect()
    };
    let (old, new) = (managed(&before), managed(&after));
    assert_ne!(old, new);
    let first = |is: &dyn Fn(&Op) -> bool| trace.ops.iter().position(is).expect("the task does that");
    let signalled = first(&|op| matches!(op, Op::Signal));
    let told = first(&|op| matches!(op, Op::Tell(text) if text.contains("status")));
    assert!(signalled < told);

    let (mut done, mut undone) = (0, 0);
    for cut in 0..=trace.ops.len() {
        for files in disk::possible(&trace, &before, cut) {
            // A proxy that starts before the agent finds no file that is neither the old nor the new one.
            for path in old.keys().chain(new.keys()) {
                let is = files.get(path);
                let whole = is == old.get(path) || is == new.get(path);
                assert!(whole, "{words:?}, down after {cut}: {:?}\n{path:?} is {is:?}", &trace.ops[..cut].last());
            }
            // The agent writes its lines right before it signals.
            let there = if cut < signalled { vec![None] } else { task_files(&lines) };
            for task_file in there {
                let what =
                    format!("{words:?}, down after {cut}: {:?}\n{:?}", &trace.ops[..cut].last(), managed(&files));
                disk::write(&folders, &files);
                fs::remove_dir_all(&shm).unwrap();
                fs::create_dir(&shm).unwrap();
                if let Some(lines) = &task_file {
                    fs::write(node.task_file(), lines).unwrap();
                }
                let verdict = recover(node);
                let is = managed(&disk::read(&folders));
                let status = verdict.as_ref().map(|report| report.status);
                match status {
                    Some(Status::Done) => assert_eq!(is, new, "{what}"),
                    Some(_) => assert_eq!(is, old, "{what}: {verdict:?}"),
                    None => assert!(is == old || is == new, "{what}: {is:?}"),
                }
                if cut > told {
                    assert_eq!((status, &is), (None, &new), "{what}: {verdict:?}");
                }
                assert_eq!(Journal::peek(&state).unwrap().unwrap().in_flight, None, "{what}");
                // Found again it is the same.
                assert!(recover(node).is_none(), "{what}");
                assert_eq!(managed(&disk::read(&folders)), is, "{what}");
                done += usize::from(is == new);
                undone += usize::from(is == old);
            }
        }
    }
    assert_eq!(disk::possible(&trace, &before, trace.ops.len()).len(), 1, "something is never synced");
    assert!(done > 10 && undone > 10, "{done} done, {undone} undone");
    disk::write(&folders, &after);
}

#[test]
fn whatever_the_disk_has_taken_the_verdict_is_true() {
    let mut node = Node::new();
    node.start_proxy();
    let (a, b) = (node.path("in/a.conf"), node.path("in/b.conf"));
    fs::write(&a, node.vhost(11, "a.test", "one")).unwrap();
    assert!(node.run(&["task", "add", word(&a)]).status.success());
    node.end_proxy(Signal::SIGTERM);
    fs::write(&b, node.vhost(12, "b.test", "one")).unwrap();
    every_cut(&mut node, &["task", "add", word(&b)]);
    // Two files: both are the old ones or both the new ones.
    for (file, id) in [(&a, 11), (&b, 12)] {
        fs::write(file, node.vhost(id, &format!("{id}.test"), "two")).unwrap();
    }
    every_cut(&mut node, &["task", "modify", word(&a), word(&b)]);
    // What the last one undoes is large and has a file of its own.
    fs::write(&a, format!("# {}\n{}", "x".repeat(20_000), node.vhost(11, "a.test", "three"))).unwrap();
    every_cut(&mut node, &["task", "modify", word(&a)]);
    let a = node.path("conf/auto_vhost/a.conf");
    every_cut(&mut node, &["task", "delete", word(&a)]);
}
