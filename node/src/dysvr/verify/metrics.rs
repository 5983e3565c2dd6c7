//! What looks have found, as metrics in Prometheus' text format: a master serves nothing itself, so they stand in a file
//! for whoever does, as the textfile collector of node_exporter. <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Finding, Outcome};

/// Where they stand: beside the task file.
pub fn metrics_file(task_file: &Path) -> PathBuf {
    task_file.with_extension("prom")
}

/// The file's text after a look.
pub fn metrics(finding: &Finding) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, values: &[(String, String)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |value: String| vec![(String::new(), value)];
    let seconds = |time: std::time::Duration| format!("{:.6}", time.as_secs_f64());
    let outcomes: Vec<_> = [Outcome::Equal, Outcome::Different, Outcome::Unloadable, Outcome::Unknown]
        .map(|outcome| {
            (format!("{{outcome=\"{}\"}}", outcome.name()), u8::from(outcome == finding.outcome).to_string())
        })
        .into();
    family(
        "dysvr_verify_outcome",
        "gauge",
        "What the last look found of what runs and what the files would start.",
        &outcomes,
    );
    family(
        "dysvr_verify_differences",
        "gauge",
        "Things that differed at the last look.",
        &one(finding.differences.to_string()),
    );
    family("dysvr_verify_looks_total", "counter", "Looks since the master began.", &one(finding.findings.to_string()));
    family(
        "dysvr_verify_alerts_total",
        "counter",
        "Looks since the master began that found a new difference, or files that do not load.",
        &one(finding.alerts.to_string()),
    );
    family(
        "dysvr_verify_workers_replaced_total",
        "counter",
        "Workers replaced since the master began because they served something else.",
        &one(finding.replaced.to_string()),
    );
    family(
        "dysvr_verify_last_look_timestamp_seconds",
        "gauge",
        "When the last look ended.",
        &one(seconds(finding.time)),
    );
    family(
        "dysvr_verify_last_look_cpu_seconds",
        "gauge",
        "Processor time of the last look.",
        &one(seconds(finding.cost)),
    );
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_family_is_described_before_its_values() {
        let finding = Finding {
            outcome: Outcome::Different,
            differences: 3,
            findings: 7,
            alerts: 2,
            replaced: 1,
            time: Duration::from_millis(1_700_000_000_250),
            cost: Duration::from_micros(1500),
            ..Finding::default()
        };
        let text = metrics(&finding);
        let (mut described, mut values) = (None, HashMap::new());
        for line in text.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                described = typed.split(' ').next();
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.split_once(' ').unwrap();
                assert_eq!(name.split('{').next(), described, "{line}");
                assert!(values.insert(name, value.parse::<f64>().unwrap()).is_none(), "{line}");
            }
        }
        let wanted = [
            ("dysvr_verify_outcome{outcome=\"equal\"}", 0.0),
            ("dysvr_verify_outcome{outcome=\"different\"}", 1.0),
            ("dysvr_verify_outcome{outcome=\"unloadable\"}", 0.0),
            ("dysvr_verify_outcome{outcome=\"unknown\"}", 0.0),
            ("dysvr_verify_differences", 3.0),
            ("dysvr_verify_looks_total", 7.0),
            ("dysvr_verify_alerts_total", 2.0),
            ("dysvr_verify_workers_replaced_total", 1.0),
            ("dysvr_verify_last_look_timestamp_seconds", 1_700_000_000.25),
            ("dysvr_verify_last_look_cpu_seconds", 0.0015),
        ];
        assert_eq!(values, HashMap::from(wanted));
    }
}
