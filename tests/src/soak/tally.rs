//! What a soak has seen: how long answers took, second by second and in all, and everything that was wrong.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bench::figures;

/// How many violations are kept in words; the others are counted.
const KEPT: usize = 50;
/// Of the histogram: the first bucket's end in ms, and how much larger each next one is.
const FIRST: f64 = 0.01;
const STEP: f64 = 1.05;

/// Answers of one second.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    /// Seconds since the start.
    pub at: f64,
    /// How many.
    pub answers: usize,
    /// Median, ms.
    pub median: f64,
    /// 99th percentile, ms.
    pub p99: f64,
    /// The longest, ms.
    pub longest: f64,
}

#[derive(Debug, Default)]
struct Inner {
    answers: u64,
    absent: u64,
    current: Vec<f64>,
    second: u64,
    seconds: Vec<Second>,
    buckets: Vec<u64>,
    longest: f64,
    echoed: u64,
    drops: u64,
    loaded: u64,
    violations: u64,
    words: Vec<String>,
}

/// Shared by all who watch.
#[derive(Debug)]
pub struct Tally {
    start: Instant,
    inner: Mutex<Inner>,
}

/// All of it, at the end.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Requests that were answered as they should be.
    pub answers: u64,
    /// Of those, by the default vhost because theirs was absent.
    pub absent: u64,
    /// Second by second.
    pub seconds: Vec<Second>,
    /// The median of all, ms.
    pub median: f64,
    /// The 99th percentile of all, ms.
    pub p99: f64,
    /// The longest of all, ms.
    pub longest: f64,
    /// Lines that came back through tunnels.
    pub echoed: u64,
    /// Drops of dripping answers.
    pub drops: u64,
    /// Bytes of slowly read answers.
    pub loaded: u64,
    /// How many things were wrong.
    pub violations: u64,
    /// The first of them.
    pub words: Vec<String>,
}

/// What a long-lived connection did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasted {
    /// A line came back.
    Echoed,
    /// A drop came.
    Drop,
    /// So many bytes came.
    Loaded(u64),
}

impl Tally {
    /// Nothing so far.
    pub fn new(start: Instant) -> Self {
        Self { start, inner: Mutex::new(Inner::default()) }
    }

    /// When it began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// An answer that is as it should be.
    pub fn answer(&self, took: Duration, absent: bool) {
        let ms = took.as_secs_f64() * 1e3;
        let second = self.start.elapsed().as_secs();
        let mut inner = self.lock();
        if second > inner.second {
            inner.close();
            inner.second = second;
        }
        inner.answers += 1;
        inner.absent += u64::from(absent);
        inner.longest = inner.longest.max(ms);
        inner.current.push(ms);
        let bucket = bucket(ms);
        if inner.buckets.len() <= bucket {
            inner.buckets.resize(bucket + 1, 0);
        }
        inner.buckets[bucket] += 1;
    }

    /// Something on a long-lived connection.
    pub fn lasted(&self, what: Lasted) {
        let mut inner = self.lock();
        match what {
            Lasted::Echoed => inner.echoed += 1,
            Lasted::Drop => inner.drops += 1,
            Lasted::Loaded(bytes) => inner.loaded += bytes,
        }
    }

    /// Something that is wrong.
    pub fn violation(&self, words: String) {
        let at = self.start.elapsed().as_secs_f64();
        let mut inner = self.lock();
        inner.violations += 1;
        if inner.words.len() < KEPT {
            inner.words.push(format!("{at:.3} s: {words}"));
        }
    }

    /// How many answers and violations so far.
    pub fn so_far(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.answers, inner.violations)
    }

    /// All of it.
    pub fn seen(&self) -> Seen {
        let mut inner = self.lock();
        inner.close();
        Seen {
            answers: inner.answers,
            absent: inner.absent,
            seconds: inner.seconds.clone(),
            median: inner.quantile(0.5),
            p99: inner.quantile(0.99),
            longest: inner.longest,
            echoed: inner.echoed,
            drops: inner.drops,
            loaded: inner.loaded,
            violations: inner.violations,
            words: inner.words.clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn close(&mut self) {
        if self.current.is_empty() {
            return;
        }
        let values = std::mem::take(&mut self.current);
        self.seconds.push(Second {
            at: self.second as f64,
            answers: values.len(),
            median: figures::median(&values),
            p99: figures::quantile(&values, 0.99),
            longest: values.iter().copied().fold(0.0, f64::max),
        });
    }

    fn quantile(&self, part: f64) -> f64 {
        let wanted = (self.buckets.iter().sum::<u64>() as f64 * part).ceil();
        let mut below = 0.0;
        let at = self.buckets.iter().position(|count| {
            below += *count as f64;
            below >= wanted && below > 0.0
        });
        at.map_or(0.0, |at| (FIRST * STEP.powi(i32::try_from(at).unwrap_or(i32::MAX))).min(self.longest))
    }
}

fn bucket(ms: f64) -> usize {
    if ms <= FIRST { 0 } else { ((ms / FIRST).ln() / STEP.ln()).ceil() as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_five_percent() {
        let tally = Tally::new(Instant::now());
        for ms in 1..=1000_u64 {
            tally.answer(Duration::from_millis(ms), false);
        }
        tally.violation("one".to_owned());
        let seen = tally.seen();
        assert!((500.0..=525.0).contains(&seen.median), "{}", seen.median);
        assert!((990.0..=1000.0).contains(&seen.p99), "{}", seen.p99);
        assert_eq!((seen.answers, seen.violations, seen.longest), (1000, 1, 1000.0));
    }
}
