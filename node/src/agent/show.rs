//! What the commands print: a task's phases, and the node's state.

use std::fmt::Write as _;

use dysvr_proto::digest;
use dysvr_proto::status::Status;

use super::ledger::{Ledger, Served};
use super::proxy::{self, Layout, Settings};
use super::report::{Observed, Report};
use super::verify;
use crate::pid_file;

/// Microseconds as milliseconds.
fn ms(us: u64) -> String {
    format!("{:.3} ms", us as f64 / 1000.0)
}

fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<width$}  {value}");
        text
    })
}

/// A verdict with its phases.
pub fn report(report: &Report) -> String {
    let t = &report.timings;
    let mut rows = vec![
        ("task", report.local_task_id.to_string()),
        ("status", report.status.to_string()),
        ("mode", report.mode.map_or("none", |mode| mode.name()).to_owned()),
    ];
    if !report.reason.is_empty() {
        rows.push(("reason", report.reason.clone()));
    }
    for (name, us) in [
        ("files", t.files_us),
        ("guard and signal", t.guard_us),
        ("ready (R)", t.ready_us),
        ("loading (L)", t.loading_us),
        (if report.status == Status::Done { "done (D)" } else { "failed (F)" }, t.done_us),
        ("total", t.total_us),
        ("master", t.master_us),
    ] {
        if us > 0 {
            rows.push((name, ms(us)));
        }
    }
    let workers: Vec<(String, String)> = t
        .workers
        .iter()
        .map(|(pid, prepare, commit)| {
            (format!("worker {pid}"), format!("prepare {}, commit {}", ms(*prepare), ms(*commit)))
        })
        .collect();
    rows.extend(workers.iter().map(|(name, value)| (name.as_str(), value.clone())));
    table(&rows)
}

/// The node as its journal and its processes show it.
pub fn status(layout: &Layout, settings: &Settings, ledger: Option<&Ledger>, observed: Option<&Observed>) -> String {
    let master = match pid_file::master(&settings.pid_file) {
        Ok(process) => {
            let workers: Vec<String> = proxy::children(process.pid()).iter().map(u32::to_string).collect();
            format!("master {}, workers {}", process.pid(), workers.join(" "))
        }
        Err(e) => e.to_string(),
    };
    let mut rows = vec![
        ("prefix", layout.prefix.display().to_string()),
        ("configuration", layout.conf.display().to_string()),
        ("task file", settings.task_file.display().to_string()),
        ("proxy", master),
    ];
    if let Some(finding) = verify::last(&settings.task_file) {
        rows.push(("verified", finding.sentence()));
    }
    let Some(ledger) = ledger else {
        rows.push(("journal", format!("none in {}", layout.state.display())));
        return table(&rows);
    };
    rows.push(("revision", ledger.revision.to_string()));
    rows.push(("epoch", ledger.epoch.to_string()));
    if let Some(observed) = observed {
        rows.push(("digest", digest::hex(&observed.digest)));
        let names: Vec<&str> = observed.drifted.iter().map(|name| name.as_str()).collect();
        rows.push(("drift", if names.is_empty() { "none".to_owned() } else { names.join(" ") }));
    }
    rows.push(("files", ledger.files.count().to_string()));
    if ledger.served == Served::Unknown {
        rows.push(("served", "not known since a failed task: the next one reloads".into()));
    }
    if let Some(begun) = &ledger.in_flight {
        rows.push(("under way", begun.id.clone()));
    }
    if let Some(answer) = ledger.answers.back() {
        let report = &answer.report;
        let mode = report.mode.map_or("none", |mode| mode.name());
        let text = format!("{} {} {mode} {} {}", report.id, report.status, ms(report.timings.total_us), report.reason);
        rows.push(("last task", text.trim_end().to_owned()));
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use dysvr_proto::id::{Revision, RolloutId, TaskId};

    use super::super::report::{Mode, Timings};
    use super::*;

    #[test]
    fn a_verdict_as_a_table() {
        let shown = report(&Report {
            id: "x".into(),
            rollout: RolloutId(0),
            to_revision: Revision(0),
            status: Status::Done,
            reason: String::new(),
            mode: Some(Mode::InPlace),
            local_task_id: TaskId(7),
            timings: Timings {
                files_us: 1200,
                total_us: 2000,
                master_us: 300,
                workers: vec![(12, 40, 9)],
                ..Timings::default()
            },
        });
        assert_eq!(
            shown,
            "task       7\nstatus     D\nmode       in_place\nfiles      1.200 ms\ntotal      2.000 ms\n\
             master     0.300 ms\nworker 12  prepare 0.040 ms, commit 0.009 ms\n"
        );
    }
}
