//! What a soak gives: a table, a picture, JSON, and every violation in words.

use serde_json::{Value, json};

use super::Options;
use super::change::Changes;
use super::flat::{Drift, Sample};
use super::tally::Seen;
use crate::bench::figures;
use crate::bench::plot::{Line, Panel, Shape};
use crate::bench::print::{self, millis};

/// All that was seen, and what was wrong with it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was asked for.
    pub options: Options,
    /// How long it ran, seconds.
    pub seconds: f64,
    /// Requests, long-lived connections, violations.
    pub seen: Seen,
    /// Updates.
    pub changes: Changes,
    /// Memory and descriptors over time.
    pub samples: Vec<Sample>,
    /// Everything that was wrong, in words; empty when all went well.
    pub violations: Vec<String>,
}

impl Report {
    /// Memory, early and late.
    pub fn memory(&self) -> Drift {
        Drift::of(&self.samples, |sample| sample.pss_kib)
    }

    /// Descriptors, early and late.
    pub fn descriptors(&self) -> Drift {
        Drift::of(&self.samples, |sample| sample.descriptors)
    }

    /// For people.
    pub fn table(&self) -> String {
        let (seen, changes) = (&self.seen, &self.changes);
        let (memory, descriptors) = (self.memory(), self.descriptors());
        let row = |what: &str, value: String| vec![what.to_owned(), value];
        let rows = [
            row("time", format!("{:.0} s", self.seconds)),
            row(
                "requests",
                format!(
                    "{} ({:.0}/s; {} of absent vhosts)",
                    seen.answers,
                    seen.answers as f64 / self.seconds,
                    seen.absent
                ),
            ),
            row(
                "answered in (median / p99 / longest)",
                format!("{} / {} / {}", millis(seen.median), millis(seen.p99), millis(seen.longest)),
            ),
            row(
                "long-lived connections",
                format!(
                    "{}: {} lines, {} drops, {} MiB read slowly",
                    self.options.lasting,
                    seen.echoed,
                    seen.drops,
                    seen.loaded >> 20
                ),
            ),
            row(
                "updates",
                format!(
                    "{} ({} added, {} modified, {} deleted, {} upstreams alone; {} opened a port)",
                    changes.count(),
                    changes.adds,
                    changes.modifies,
                    changes.deletes,
                    changes.upstreams,
                    changes.ports
                ),
            ),
            row(
                "signal → D (median / p99)",
                format!(
                    "{} / {}",
                    millis(figures::median(&changes.took_ms)),
                    millis(figures::quantile(&changes.took_ms, 0.99))
                ),
            ),
            row(
                "memory (PSS), early → late",
                format!(
                    "{} → {} ({:+.1} %)",
                    print::kib(memory.early),
                    print::kib(memory.late),
                    memory.growth() * 100.0
                ),
            ),
            row("descriptors, early → late", format!("{:.0} → {:.0}", descriptors.early, descriptors.late)),
            row("violations", self.violations.len().to_string()),
        ];
        print::table("Soak", &["", ""], rows)
    }

    /// Latency, memory and descriptors over time.
    pub fn panels(&self) -> Vec<Panel> {
        let over = |title: &str, lines: Vec<Line>| Panel {
            title: title.to_owned(),
            shape: Shape::Lines { x: "seconds".to_owned(), lines },
        };
        let seconds = |label: &str, figure: &dyn Fn(&super::tally::Second) -> f64| {
            Line::new(label, self.seen.seconds.iter().map(|second| (second.at, figure(second))).collect())
        };
        let samples = |label: &str, figure: &dyn Fn(&Sample) -> f64| {
            Line::new(label, self.samples.iter().map(|sample| (sample.at, figure(sample))).collect())
        };
        vec![
            over("answered in, ms", vec![seconds("median", &|one| one.median), seconds("p99", &|one| one.p99)]),
            over("memory (PSS), MiB", vec![samples("all processes", &|one| one.pss_kib / 1024.0)]),
            over("descriptors", vec![samples("all processes", &|one| one.descriptors)]),
        ]
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let (memory, descriptors, changes) = (self.memory(), self.descriptors(), &self.changes);
        json!({
            "ok": self.violations.is_empty(),
            "violations": self.violations,
            "seed": self.options.seed,
            "seconds": self.seconds,
            "requests": {
                "answered": self.seen.answers, "of_absent_vhosts": self.seen.absent, "median_ms": self.seen.median,
                "p99_ms": self.seen.p99, "longest_ms": self.seen.longest,
            },
            "lasting": {"lines": self.seen.echoed, "drops": self.seen.drops, "bytes": self.seen.loaded},
            "updates": {
                "adds": changes.adds, "modifies": changes.modifies, "deletes": changes.deletes,
                "upstreams": changes.upstreams, "ports": changes.ports, "median_ms": figures::median(&changes.took_ms),
                "p99_ms": figures::quantile(&changes.took_ms, 0.99),
            },
            "memory_kib": {"early": memory.early, "late": memory.late},
            "descriptors": {"early": descriptors.early, "late": descriptors.late},
            "over_time": {
                "seconds": self.seen.seconds.iter()
                    .map(|one| json!([one.at, one.answers, one.median, one.p99, one.longest])).collect::<Vec<Value>>(),
                "samples": self.samples.iter()
                    .map(|one| json!([one.at, one.updates, one.pss_kib, one.descriptors])).collect::<Vec<Value>>(),
            },
        })
    }
}
