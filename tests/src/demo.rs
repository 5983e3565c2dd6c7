//! What `dysvr-demo` shows: the table of tasks, and what to try next.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;

use crate::fleet::{Fleet, items};
use crate::{binaries, seed, signal};

/// The phases of a task, as `dysvrctl get tasks -o json` names them and as the table heads them.
const PHASES: [(&str, &str); 7] = [
    ("files_us", "files"),
    ("guard_us", "guard, signal"),
    ("ready_us", "→ R"),
    ("loading_us", "→ L"),
    ("done_us", "→ D"),
    ("master_us", "of that master"),
    ("total_us", "total ms"),
];

/// The table: one row per task, each phase in ms.
///
/// # Errors
/// When `tasks` is no list.
pub fn tasks(tasks: &Value) -> Result<Table> {
    let mut rows = items(tasks)?;
    rows.sort_by_key(|task| (task["rollout"].as_u64(), task["node"].as_str().map(str::to_owned)));
    let mut table = Table::new();
    let header = ["node", "task", "status", "mode"].into_iter().chain(PHASES.map(|(_, name)| name)).chain(["workers"]);
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for task in rows {
        let text = |key: &str| match &task[key] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let ms = |value: &Value| value.as_f64().map_or(String::new(), |us| format!("{:.2}", us / 1e3));
        let mut row = vec![text("node"), text("local_task_id"), text("status"), text("mode")];
        row.extend(PHASES.map(|(key, _)| ms(&task["timings"][key])));
        let workers = task["timings"]["workers"].as_array().cloned().unwrap_or_default();
        let workers: Vec<String> = workers
            .iter()
            .map(|worker| format!("{}: {} + {}", worker["pid"], ms(&worker["prepare_us"]), ms(&worker["commit_us"])))
            .collect();
        row.push(workers.join(", "));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(table)
}

/// URLs and commands, with the paths that they have now.
///
/// # Errors
/// When a program is not there.
pub fn next_steps(fleet: &Fleet, dysvrctl: &Path) -> Result<String> {
    let mut text = String::new();
    let mut line = |one: String| {
        let _ = writeln!(text, "{one}");
    };
    line("Ask a node (each has its own port; X-Worker says which worker answers):".to_owned());
    for node in &fleet.nodes {
        line(format!("  curl -si -H 'Host: {}' http://{}/    # {}", seed::HOST, node.prefix.addr(), node.id));
    }
    let files = fleet.files_arg();
    line("\nTry next:".to_owned());
    line(format!("  export PATH={}:$PATH DYSVR_CONTROLLER={}", parent(dysvrctl), fleet.controller.endpoint()));
    for command in [
        "dysvrctl get nodes -o wide; dysvrctl get vhosts; dysvrctl get upstreams".to_owned(),
        format!("sed -i 's/max_fails=3/max_fails=5/' {files}/{}", seed::UPSTREAM_FILE),
        format!("dysvrctl diff -f {files}"),
        format!("dysvrctl apply -f {files} --waves 1,100% --wait"),
        "dysvrctl get tasks; dysvrctl rollout history".to_owned(),
        "dysvrctl rollout undo --wait".to_owned(),
        "printf 'server {\\n  vsvc_id 7;\\n  listn 80;\\n}\\n' | dysvrctl validate -f - --name bad.conf".to_owned(),
        format!("dysvrctl delete vhost {} --wait", seed::VSVC_ID),
    ] {
        line(format!("  {command}"));
    }
    if let Some(node) = fleet.nodes.first() {
        let prefix = node.prefix.path().display();
        line(format!("\nWithout a controller, on {} (its files are in {prefix}):", node.id));
        line(format!("  tail -f {prefix}/logs/error.log"));
        line(format!("  cat {}", node.prefix.task_file().path.display()));
        let (pid, signal) = (node.prefix.pid_file(), signal::dysvr_signal());
        line(format!("  kill -{signal} $(cat {})    # the same as the next line", pid.display()));
        let proxy = binaries::path("dysvr-proxy")?;
        line(format!("  {} -p {prefix} -c conf/nginx.conf -s dysvr", proxy.display()));
    }
    Ok(text)
}

fn parent(path: &Path) -> std::path::Display<'_> {
    path.parent().unwrap_or(path).display()
}
