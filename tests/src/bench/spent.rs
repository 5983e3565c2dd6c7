//! What the processes of a proxy have spent so far, and what an update of that was.

use std::collections::BTreeSet;
use std::ops::Sub;

use anyhow::{Context, Result};

use crate::procfs;

/// Sums over some living processes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Processor time, in ms, as the scheduler counts it.
    pub cpu_ms: f64,
    /// Of that in user space, in ms: in clock ticks, so that only long series say something.
    pub user_ms: f64,
    /// In the kernel, in ms, likewise.
    pub system_ms: f64,
    /// Minor page faults.
    pub faults: f64,
}

impl Spent {
    /// By these processes until now.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn by(pids: &BTreeSet<i32>) -> Result<Self> {
        let mut sum = Self::default();
        for &pid in pids {
            let gone = || format!("process {pid} is gone");
            let (user, system) = procfs::user_system_ticks(pid).with_context(gone)?;
            sum.cpu_ms += procfs::cpu_ns(pid).with_context(gone)? as f64 / 1e6;
            sum.user_ms += user as f64 * 10.0;
            sum.system_ms += system as f64 * 10.0;
            sum.faults += procfs::minor_faults(pid).with_context(gone)? as f64;
        }
        Ok(sum)
    }

    /// The share of one of `count`.
    pub fn each(self, count: usize) -> Self {
        let count = count.max(1) as f64;
        Self {
            cpu_ms: self.cpu_ms / count,
            user_ms: self.user_ms / count,
            system_ms: self.system_ms / count,
            faults: self.faults / count,
        }
    }
}

impl Sub for Spent {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu_ms: self.cpu_ms - before.cpu_ms,
            user_ms: self.user_ms - before.user_ms,
            system_ms: self.system_ms - before.system_ms,
            faults: self.faults - before.faults,
        }
    }
}

/// Memory of some processes, in KiB: pages that they share are counted once among them (PSS).
pub fn pss_kib(pids: &BTreeSet<i32>) -> f64 {
    pids.iter().copied().filter_map(procfs::pss_kib).sum::<u64>() as f64
}
