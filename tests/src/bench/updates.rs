//! The part that tells what an update costs at each size: in place beside the reloads of peers.

use serde_json::{Value, json};

use super::goals::Goal;
use super::part::Part;
use super::plot::{Line, Panel, Shape};
use super::print::{self, millis};
use super::{Peer, figures, reload, update};

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Updates {
    /// Ours, a size each, measured in turn.
    pub ours: Vec<update::Figures>,
    /// Wake-ups without any work, between ours, in ms.
    pub bare_ms: Vec<f64>,
    /// Peers.
    pub peers: Vec<reload::Figures>,
}

impl Updates {
    /// How much longer an update takes at the largest size than at the smallest: the median over pairs that ran side by
    /// side.
    pub fn growth(&self) -> Option<(usize, usize, f64)> {
        let (small, large) =
            (self.ours.iter().min_by_key(|one| one.vhosts)?, self.ours.iter().max_by_key(|one| one.vhosts)?);
        let ratio = figures::paired_ratio(&large.served_ms, &small.served_ms);
        (small.vhosts < large.vhosts).then_some((small.vhosts, large.vhosts, ratio))
    }

    /// A line of each peer over the sizes.
    fn beside(&self, figure: impl Fn(&reload::Figures) -> f64) -> Vec<Line> {
        [Peer::Nginx, Peer::Haproxy]
            .into_iter()
            .map(|peer| {
                let of = self.peers.iter().filter(|one| one.peer == peer && one.way == "reload");
                Line::new(format!("{}, reload", peer.name()), of.map(|one| (one.vhosts as f64, figure(one))).collect())
            })
            .filter(|line| !line.points.is_empty())
            .collect()
    }
}

impl Part for Updates {
    fn name(&self) -> &'static str {
        "updates"
    }

    fn table(&self) -> String {
        let mut rows = Vec::new();
        for one in &self.ours {
            let mut row = vec![print::count(one.vhosts), "dysvr, in place".to_owned()];
            row.extend([millis(one.served()), millis(one.p99())]);
            row.push(update::KINDS.map(|kind| format!("{:.3}", figures::median(&one.of(kind)))).join(" / "));
            row.push(millis(one.spent(|spent| spent.cpu_ms)));
            row.push(format!("{:.2} / {:.2}", one.mean(|spent| spent.user_ms), one.mean(|spent| spent.system_ms)));
            row.push(format!("{:.1}", one.spent(|spent| spent.faults)));
            row.push(one.served_ms.len().to_string());
            rows.push(row);
        }
        if !self.bare_ms.is_empty() {
            let mut row = vec![String::new(), "the same wake-ups, no work".to_owned()];
            row.extend([millis(figures::median(&self.bare_ms)), millis(figures::quantile(&self.bare_ms, 0.99))]);
            row.extend([String::new(), String::new(), String::new(), String::new(), self.bare_ms.len().to_string()]);
            rows.push(row);
        }
        for one in &self.peers {
            let mut row = vec![print::count(one.vhosts), format!("{}, {}", one.peer.name(), one.way)];
            row.extend([millis(one.served()), millis(figures::quantile(&one.served_ms, 0.99)), String::new()]);
            row.extend([millis(one.cpu()), String::new(), String::new(), one.served_ms.len().to_string()]);
            rows.push(row);
        }
        print::table(
            "One update: signal → every worker serves, files on a tmpfs (medians; ticks of user and system: means)",
            &["vhosts", "way", "served", "p99", "add/mod/del ms", "CPU", "user / sys ms", "faults", "updates"],
            rows,
        )
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for one in &self.ours {
            let size = print::count(one.vhosts);
            goals.push(Goal::at_most(format!("signal → every worker serves, {size}"), one.served(), 0.3, millis));
            goals.push(Goal::at_most(format!("p99 of it, {size}"), one.p99(), 2.0, millis));
        }
        if !self.bare_ms.is_empty() {
            let median = millis(figures::median(&self.bare_ms));
            goals.push(Goal::beside("the same wake-ups without any work".to_owned(), median));
        }
        if let Some((small, large, ratio)) = self.growth() {
            let figure = format!("the same at {} against {}", print::count(large), print::count(small));
            goals.push(Goal::at_most(figure, ratio, 1.3, print::times));
        }
        for one in &self.ours {
            let figure = format!("CPU of all processes per update, {}", print::count(one.vhosts));
            goals.push(Goal::at_most(figure, one.spent(|spent| spent.cpu_ms), 0.5, millis));
        }
        for one in &self.peers {
            let size = print::count(one.vhosts);
            let figure = format!("{}, {}, {size}: served / CPU", one.peer.name(), one.way);
            goals.push(Goal::beside(figure, format!("{} / {}", millis(one.served()), millis(one.cpu()))));
        }
        goals
    }

    fn panels(&self) -> Vec<Panel> {
        let ours = |figure: &dyn Fn(&update::Figures) -> f64| {
            Line::new("dysvr, in place", self.ours.iter().map(|one| (one.vhosts as f64, figure(one))).collect())
        };
        let panel = |title: &str, first: Line, others: Vec<Line>| Panel {
            title: title.to_owned(),
            shape: Shape::Decades { x: "vhosts".to_owned(), lines: [vec![first], others].concat() },
        };
        vec![
            panel(
                "signal → every worker serves, ms",
                ours(&update::Figures::served),
                self.beside(reload::Figures::served),
            ),
            panel(
                "CPU of all processes per update, ms",
                ours(&|one| one.spent(|spent| spent.cpu_ms)),
                self.beside(reload::Figures::cpu),
            ),
        ]
    }

    fn json(&self) -> Value {
        let ours: Vec<Value> = self
            .ours
            .iter()
            .map(|one| {
                let blocks = one.spent.iter().map(|spent| {
                    json!({"cpu_ms": spent.cpu_ms, "user_ms": spent.user_ms, "system_ms": spent.system_ms, "faults": spent.faults})
                });
                json!({
                    "vhosts": one.vhosts, "served_ms": one.served_ms, "median_ms": one.served(), "p99_ms": one.p99(),
                    "per_update": blocks.collect::<Vec<Value>>(),
                })
            })
            .collect();
        let peers: Vec<Value> = self
            .peers
            .iter()
            .map(|one| {
                json!({
                    "peer": one.peer.name(), "way": one.way, "vhosts": one.vhosts, "served_ms": one.served_ms,
                    "cpu_ms": one.cpu_ms, "memory_kib": one.memory_kib, "start_ms": one.start_ms,
                })
            })
            .collect();
        json!({"dysvr": ours, "bare_ms": self.bare_ms, "peers": peers, "growth": self.growth().map(|(_, _, ratio)| ratio)})
    }
}
