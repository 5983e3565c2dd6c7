//! Everything about one thing, as text: `Field:  value` lines and indented tables, as kubectl describes things.

use super::columns::{Listed, took};
use super::output::{Output, printable};
use super::progress::count;
use super::table::{self, color_of, number, remark, state, text};
use super::time::{age, millis, rfc3339};
use super::view::{ChangeKind, Instant, Node, Revision, Rollout, Task, Upstream, Vhost};

/// Fields with aligned values, and what stands indented below them.
struct Page {
    fields: Vec<(String, String)>,
    below: String,
}

impl Page {
    fn new() -> Self {
        Self { fields: Vec::new(), below: String::new() }
    }

    fn field(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        let value = if value.is_empty() { "<none>".into() } else { printable(&value).into_owned() };
        self.fields.push((format!("{name}:"), value));
    }

    /// A state, in the colour of its kind.
    fn state(&mut self, name: &str, word: &str, output: Output) {
        let word = printable(word);
        let value = color_of(&word).map_or_else(|| word.to_string(), |color| output.paint(&word, color));
        self.fields.push((format!("{name}:"), value));
    }

    /// One line per value.
    fn list(&mut self, name: &str, values: &[String]) {
        self.field(name, values.first().cloned().unwrap_or_default());
        for value in values.iter().skip(1) {
            self.fields.push((String::new(), printable(value).into_owned()));
        }
    }

    fn section(&mut self, heading: &str, body: &str) {
        self.below.push_str(&format!("{heading}:\n"));
        let body = if body.is_empty() { "<none>\n" } else { body };
        for line in body.lines() {
            self.below.push_str(format!("  {line}").trim_end());
            self.below.push('\n');
        }
    }

    fn finish(self) -> String {
        let width = self.fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
        let fields: String = self.fields.iter().map(|(name, value)| format!("{name:width$}{value}\n")).collect();
        fields + &self.below
    }
}

fn instant(instant: Instant, now_ms: i64) -> String {
    rfc3339(instant.0).map_or_else(String::new, |text| format!("{text} ({} ago)", age(now_ms, instant.0)))
}

/// A vhost with the upstreams that it passes to and the text of its file.
pub fn vhost(vhost: &Vhost, upstreams: &[Upstream], content: &[u8]) -> String {
    let mut page = Page::new();
    page.field("Vsvc ID", vhost.vsvc_id.to_string());
    page.list("Server Names", &vhost.server_names);
    page.list("Listen", &vhost.listens);
    page.field("File", &vhost.file);
    page.field("Revision", vhost.revision.to_string());
    let rows = vhost.upstreams.iter().map(|id| {
        let found = upstreams.iter().find(|upstream| upstream.ups_id == *id);
        let (servers, file) =
            found.map_or_else(Default::default, |found| (found.servers.join(","), found.file.clone()));
        vec![text(id), text(servers), text(file)]
    });
    let rows: Vec<_> = rows.collect();
    let upstreams =
        if rows.is_empty() { String::new() } else { table::draw(&["UPS_ID", "SERVERS", "FILE"], rows, false) };
    page.section("Upstreams", &upstreams);
    page.section("Configuration", &printable(&String::from_utf8_lossy(content)));
    page.finish()
}

/// An upstream with the text of its file.
pub fn upstream(upstream: &Upstream, content: &[u8]) -> String {
    let mut page = Page::new();
    page.field("Ups ID", &upstream.ups_id);
    page.list("Servers", &upstream.servers);
    page.list("Vhosts", &upstream.vhosts.iter().map(u64::to_string).collect::<Vec<_>>());
    page.field("File", &upstream.file);
    page.field("Revision", upstream.revision.to_string());
    page.section("Configuration", &printable(&String::from_utf8_lossy(content)));
    page.finish()
}

/// A node with its last tasks, newest first, and how long each worker took for the newest.
pub fn node(node: &Node, tasks: &[Task], now_ms: i64, output: Output) -> String {
    let mut page = Page::new();
    page.field("Name", &node.name);
    page.list("Labels", &node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>());
    page.state("State", &node.state, output);
    page.field("Reason", &node.reason);
    page.field("Connected", if node.connected { "yes" } else { "no" });
    page.field("Seen", instant(node.seen, now_ms));
    page.field("Agent", &node.agent_version);
    page.field("Desired Revision", node.desired_revision.to_string());
    if let Some(observed) = &node.observed {
        page.field("Observed Revision", observed.revision.to_string());
        page.field("Epoch", observed.epoch.to_string());
        page.field("Digest", observed.digest.clone().unwrap_or_default());
        match (observed.drift, observed.drifted.is_empty()) {
            (false, _) => page.field("Drift", "no"),
            (true, true) => page.field("Drift", "yes"),
            (true, false) => page.list("Drift", &observed.drifted),
        }
        if let Some(proxy) = &observed.proxy {
            page.field("Proxy", if proxy.running { "running" } else { "stopped" });
            page.field("Proxy Version", &proxy.version);
            page.field("Master", proxy.master_pid.to_string());
            let workers: Vec<String> = proxy.worker_pids.iter().map(i64::to_string).collect();
            page.field("Workers", workers.join(", "));
            page.field("In-Place Updates", proxy.updates.to_string());
            if !proxy.quarantined.is_empty() {
                page.list("Quarantined", &proxy.quarantined);
            }
            if let Some(verified) = &proxy.verified {
                page.field("Verified", &verified.reason);
                let lines: Vec<String> = verified.text.lines().map(str::to_owned).collect();
                if !lines.is_empty() {
                    page.list("Differences", &lines);
                }
            }
        }
    }
    page.section("Tasks", &task_table(tasks, now_ms, output));
    if let Some(newest) = tasks.first().filter(|task| !task.timings.workers.is_empty()) {
        page.section(&format!("Workers of Task {}", newest.local_task_id), &worker_table(std::slice::from_ref(newest)));
    }
    page.finish()
}

/// A rollout with the nodes of its waves and their tasks.
pub fn rollout(rollout: &Rollout, revision: Option<&Revision>, tasks: &[Task], now_ms: i64, output: Output) -> String {
    let mut page = Page::new();
    page.field("Rollout", rollout.rollout.to_string());
    page.state("Phase", &rollout.phase, output);
    page.field("Reason", &rollout.reason);
    page.field("Revision", format!("{} -> {}", rollout.from_revision, rollout.to_revision));
    if let Some(revision) = revision {
        page.field("Author", &revision.author);
        page.field("Message", &revision.message);
    }
    page.field("Wave", format!("{} of {}", rollout.wave, rollout.waves.len()));
    page.field("Nodes", format!("{} of {} done", rollout.nodes_in("done"), rollout.nodes()));
    page.field("Failed", format!("{} (budget {})", rollout.failed_nodes, rollout.failure_budget));
    page.field("Created", instant(rollout.created, now_ms));
    page.field("Changed", instant(rollout.changed, now_ms));
    page.field("Ended", instant(rollout.ended, now_ms));
    page.field("Took", took(rollout));
    for (index, wave) in rollout.waves.iter().enumerate() {
        let rows = wave.nodes.iter().map(|node| {
            vec![text(&node.node), state(&node.state), text(age(now_ms, node.changed.0)), remark(&node.reason)]
        });
        let body = table::draw(&["NODE", "STATE", "SINCE", "REASON"], rows.collect(), output.color);
        page.section(&format!("Wave {} ({})", index + 1, count(wave.nodes.len(), "node")), &body);
    }
    page.section("Tasks", &task_table(tasks, now_ms, output));
    if tasks.iter().any(|task| !task.timings.workers.is_empty()) {
        page.section("Workers", &worker_table(tasks));
    }
    page.finish()
}

/// A revision with what it changed; `diffs` is the text of the differences, if it was fetched.
pub fn revision(revision: &Revision, diffs: Option<&str>, now_ms: i64) -> String {
    let mut page = Page::new();
    page.field("Revision", revision.revision.to_string());
    page.field("Parent", revision.parent.to_string());
    page.field("Author", &revision.author);
    page.field("Message", &revision.message);
    page.field("Created", instant(revision.created, now_ms));
    page.field("Digest", revision.digest.clone().unwrap_or_default());
    page.field("Rollout", revision.rollout.map(|id| id.to_string()).unwrap_or_default());
    let rows = revision.changes.iter().map(|change| {
        let kind = match change.change {
            ChangeKind::Add => "add",
            ChangeKind::Modify => "modify",
            ChangeKind::Delete => "delete",
            ChangeKind::Unknown => "unknown",
        };
        let vhosts: Vec<String> = change.vsvc_ids.iter().map(u64::to_string).collect();
        vec![text(kind), text(&change.file), text(vhosts.join(",")), text(change.ups_ids.join(","))]
    });
    let rows: Vec<_> = rows.collect();
    let changes = if rows.is_empty() {
        String::new()
    } else {
        table::draw(&["CHANGE", "FILE", "VHOSTS", "UPSTREAMS"], rows, false)
    };
    page.section("Changes", &changes);
    if let Some(diffs) = diffs {
        page.section("Differences", &printable(diffs));
    }
    page.finish()
}

fn task_table(tasks: &[Task], now_ms: i64, output: Output) -> String {
    if tasks.is_empty() {
        return String::new();
    }
    let rows = tasks.iter().map(|task| task.values(false, now_ms)).collect();
    table::draw(&Task::headings(false), rows, output.color)
}

/// Every worker of every task: the slowest one decides how long a task takes.
fn worker_table(tasks: &[Task]) -> String {
    let of_task = |task: &Task| {
        let row = |worker: &super::view::WorkerTiming| {
            vec![
                text(&task.node),
                number(task.local_task_id),
                number(worker.pid),
                number(millis(worker.prepare_us)),
                number(millis(worker.commit_us)),
            ]
        };
        task.timings.workers.iter().map(row).collect::<Vec<_>>()
    };
    let rows = tasks.iter().flat_map(of_task).collect();
    table::draw(&["NODE", "TASK", "PID", "PREPARE(ms)", "COMMIT(ms)"], rows, false)
}
