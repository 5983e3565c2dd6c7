//! Whether a figure stays where it is: memory and descriptors over the time of a soak.

use crate::bench::figures;

/// The part of a run after which pools are filled and allocators have their pages.
const WARM: f64 = 0.3;

/// One look.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Seconds since the start.
    pub at: f64,
    /// Updates so far.
    pub updates: u64,
    /// Memory of all processes, KiB.
    pub pss_kib: f64,
    /// Descriptors of all processes.
    pub descriptors: f64,
}

/// A figure early (behind the warm-up) and late in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drift {
    /// The median of the fifth of the run that follows the warm-up.
    pub early: f64,
    /// The median of its last fifth.
    pub late: f64,
}

impl Drift {
    /// Of a figure of all samples, in order.
    pub fn of(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> Self {
        let part = |from: f64, to: f64| {
            let at = |part: f64| ((samples.len() as f64 * part) as usize).min(samples.len());
            figures::median(&samples[at(from)..at(to).max(at(from))].iter().map(&figure).collect::<Vec<f64>>())
        };
        Self { early: part(WARM, WARM + 0.2), late: part(0.8, 1.0) }
    }

    /// By which part it has grown.
    pub fn growth(&self) -> f64 {
        if self.early > 0.0 { self.late / self.early - 1.0 } else { 0.0 }
    }

    /// Whether it has grown by no more than a part, or by no more than so much: a page more or less is no growth.
    pub fn is_flat(&self, part: f64, slack: f64) -> bool {
        self.late <= self.early * (1.0 + part) || self.late - self.early <= slack
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(figures: impl Iterator<Item = f64>) -> Drift {
        let samples: Vec<Sample> = figures
            .enumerate()
            .map(|(at, pss_kib)| Sample { at: at as f64, updates: 0, pss_kib, descriptors: 0.0 })
            .collect();
        Drift::of(&samples, |sample| sample.pss_kib)
    }

    #[test]
    fn a_leak_is_found_and_a_warm_up_is_none() {
        assert!(!drift((0..100).map(|at| 1000.0 + f64::from(at))).is_flat(0.01, 10.0));
        assert!(drift((0..100).map(|at| if at < 25 { f64::from(at) } else { 1000.0 })).is_flat(0.01, 0.0));
        assert!(drift((0..100).map(|at| 1000.0 + f64::from(at % 7))).is_flat(0.01, 0.0));
        assert_eq!(drift(std::iter::empty()), Drift::default());
    }
}
