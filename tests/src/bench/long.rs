//! Memory over many updates: what a replaced vhost leaves behind would show.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::corpus::{self, Vhost};
use super::driver::Driver;
use super::goals::Goal;
use super::part::Part;
use super::plot::{Line, Panel, Shape};
use super::print::{self, kib, millis};
use super::spent::pss_kib;
use super::{Peer, figures, progress};
use crate::procfs;
use crate::proxy::Proxy;
use crate::task::Kind;
use crate::wait;

/// What goes before the first figure: allocators and tables take what they need once.
const FIRST: u64 = 1000;
/// How often memory is looked at; the kernel's walk through all pages takes milliseconds.
const LOOKS: u64 = 100;

/// Memory and descriptors after so many updates.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Updates so far.
    pub updates: u64,
    /// Of all processes, KiB.
    pub pss_kib: f64,
    /// Of all processes.
    pub descriptors: f64,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Figures {
    /// How many vhosts there were.
    pub vhosts: usize,
    /// The first after the first thousand updates, the last at the end.
    pub looks: Vec<Look>,
    /// Signal to `D`, medians of the stretches between two looks, ms.
    pub served_ms: Vec<(u64, f64)>,
}

/// Updates one vhost after the other, all over `vhosts`: modifies, and every tenth time a delete and an add.
///
/// # Errors
/// When a task fails.
pub fn measure(vhosts: usize, updates: u64) -> Result<Figures> {
    let proxy = Proxy::start_from(&Peer::Dysvr.binary()?, corpus::many_vhosts(Peer::Dysvr, vhosts)?)?;
    wait::until("two workers", Duration::from_secs(60), || proxy.workers().len() == 2)?;
    let processes: BTreeSet<i32> = proxy.workers().into_iter().chain([proxy.master()]).collect();
    let mut driver = Driver::new(&proxy)?;
    let mut figures = Figures { vhosts, looks: Vec::new(), served_ms: Vec::new() };
    let total = updates.max(FIRST * 2);
    let stretch = ((total - FIRST) / LOOKS).max(1);
    let bar = progress(format!("memory over {total} updates"), total);
    bar.set_style(
        indicatif::ProgressStyle::with_template("{prefix:36} {bar:30} {pos:>7}/{len:<7} {elapsed:>4} left {eta:>4}")
            .context("a progress bar")?,
    );
    let (mut done, mut times, mut next) = (0_u64, Vec::new(), FIRST);
    while done < total {
        // Steps that share no factor with the count: every vhost has its turn, none twice before.
        let number = (done as usize).wrapping_mul(7919) % vhosts.max(1);
        let vhost = Vhost { revision: done + 1, ..Vhost::first(number) };
        let kinds: &[Kind] = if done % 10 == 9 { &[Kind::Delete, Kind::Add] } else { &[Kind::Modify] };
        for &kind in kinds {
            times.push(
                driver.change(&proxy.prefix, kind, &vhost).with_context(|| format!("after {done} updates"))?.ms(),
            );
            done += 1;
        }
        bar.set_position(done);
        if done >= next {
            next = done + stretch;
            figures.look(done, &processes);
            figures.served_ms.push((done, figures::median(&std::mem::take(&mut times))));
        }
        anyhow::ensure!(!wait::interrupted(), "interrupted");
    }
    figures.look(done, &processes);
    bar.finish();
    Ok(figures)
}

impl Figures {
    fn look(&mut self, updates: u64, processes: &BTreeSet<i32>) {
        let descriptors = processes.iter().filter_map(|pid| procfs::descriptors(*pid)).sum::<usize>() as f64;
        self.looks.push(Look { updates, pss_kib: pss_kib(processes), descriptors });
    }

    /// Memory at the end against after the first thousand updates: 0.01 is one percent more.
    pub fn growth(&self) -> f64 {
        match (self.looks.first(), self.looks.last()) {
            (Some(first), Some(last)) if first.pss_kib > 0.0 => last.pss_kib / first.pss_kib - 1.0,
            _ => 0.0,
        }
    }

    fn updates(&self) -> u64 {
        self.looks.last().map_or(0, |look| look.updates)
    }
}

impl Part for Figures {
    fn name(&self) -> &'static str {
        "long"
    }

    fn table(&self) -> String {
        let (Some(first), Some(last)) = (self.looks.first(), self.looks.last()) else { return String::new() };
        let served = |at: Option<&(u64, f64)>| at.map_or_else(String::new, |(_, ms)| millis(*ms));
        let row = |look: &Look, ms: String| {
            vec![look.updates.to_string(), kib(look.pss_kib), format!("{:.0}", look.descriptors), ms]
        };
        print::table(
            &format!("{} vhosts, one updated after the other", print::count(self.vhosts)),
            &["updates", "memory (PSS)", "descriptors", "signal → D"],
            [row(first, served(self.served_ms.first())), row(last, served(self.served_ms.last()))],
        )
    }

    fn goals(&self) -> Vec<Goal> {
        let percent = |part: f64| format!("{:+.2} %", part * 100.0);
        let figure = format!("memory after {} updates on {} vhosts", self.updates(), print::count(self.vhosts));
        vec![Goal::at_most(figure, self.growth(), 0.01, percent)]
    }

    fn panels(&self) -> Vec<Panel> {
        let points = |figure: &dyn Fn(&Look) -> f64| {
            self.looks.iter().map(|look| (look.updates as f64, figure(look))).collect::<Vec<(f64, f64)>>()
        };
        let panel = |title: &str, label: &str, points: Vec<(f64, f64)>| Panel {
            title: title.to_owned(),
            shape: Shape::Lines { x: "updates".to_owned(), lines: vec![Line::new(label, points)] },
        };
        vec![
            panel("memory over updates, MiB", "all processes", points(&|look| look.pss_kib / 1024.0)),
            panel("descriptors over updates", "all processes", points(&|look| look.descriptors)),
        ]
    }

    fn json(&self) -> Value {
        let looks = self.looks.iter().map(|look| json!([look.updates, look.pss_kib, look.descriptors]));
        json!({"vhosts": self.vhosts, "growth": self.growth(), "looks": looks.collect::<Vec<Value>>(), "served_ms": self.served_ms})
    }
}
