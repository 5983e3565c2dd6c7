//! What /proc says of a process: its children, whether it lives, how much processor time it has used.

use std::collections::BTreeSet;
use std::fs;

/// The children of a process, as the kernel has them now; empty when it is gone.
pub fn children(pid: i32) -> BTreeSet<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return BTreeSet::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// The children that run: those that have ended and only wait to be reaped are left out, and so is a master's twin, which
/// serves nobody.
pub fn live_children(pid: i32) -> BTreeSet<i32> {
    children(pid).into_iter().filter(|pid| alive(*pid) && !is_twin(*pid)).collect()
}

/// Whether it is the child in which a master loads its files afresh.
pub fn is_twin(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "dysvr-twin")
}

/// Children, their children and so on, without `pid` itself.
pub fn descendants(pid: i32) -> BTreeSet<i32> {
    let mut all = BTreeSet::new();
    let mut next = vec![pid];
    while let Some(pid) = next.pop() {
        next.extend(children(pid).into_iter().filter(|child| all.insert(*child)));
    }
    all
}

/// Whether a process runs; one that has ended and only waits to be reaped does not.
pub fn alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The state letter of a process (`R`, `S`, `Z`, …).
pub fn state(pid: i32) -> Option<char> {
    stat_fields(pid)?.first()?.chars().next()
}

/// Processor time that all threads of a living process have used, in nanoseconds, as the scheduler counts it.
pub fn cpu_ns(pid: i32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut total = None;
    for thread in threads.flatten() {
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let Some(ns) = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()) else { continue };
        total = Some(total.unwrap_or(0) + ns);
    }
    total
}

/// User-space and kernel time of a process in clock ticks (10 ms here).
pub fn user_system_ticks(pid: i32) -> Option<(u64, u64)> {
    let fields = stat_fields(pid)?;
    Some((fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?))
}

/// Page faults of a process that needed no disk: memory touched for the first time, or copied on write.
pub fn minor_faults(pid: i32) -> Option<u64> {
    stat_fields(pid)?.get(7)?.parse().ok()
}

/// How many descriptors a process has open.
pub fn descriptors(pid: i32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// The parent.
pub fn parent(pid: i32) -> Option<i32> {
    stat_fields(pid)?.get(1)?.parse().ok()
}

/// Proportional share of memory, in KiB: pages that processes share are divided among them.
pub fn pss_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Memory of a process that others share by a common mapping, in KiB.
pub fn shared_kib(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("RssShmem:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Every process whose environment holds `entry` (`NAME=value`).
pub fn with_environment(entry: &str) -> BTreeSet<i32> {
    let Ok(all) = fs::read_dir("/proc") else { return BTreeSet::new() };
    all.flatten()
        .filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|text| text.split(|byte| *byte == 0).any(|one| one == entry.as_bytes()))
        })
        .collect()
}

/// Every process whose command line names a path, which must be one of a test's own.
pub fn with_argument(path: &std::path::Path) -> BTreeSet<i32> {
    let wanted = path.display().to_string();
    let Ok(all) = fs::read_dir("/proc") else { return BTreeSet::new() };
    all.flatten()
        .filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|text| String::from_utf8_lossy(&text).split('\0').any(|one| one == wanted))
        })
        .collect()
}

/// Fields of /proc/PID/stat after the name, which may itself hold spaces and brackets: the first is the state.
fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}
