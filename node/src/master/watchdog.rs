//! Workers that do not come back: one that stays in a single poll of a connection for longer than `dysvr_watchdog` serves
//! nobody. It is described in the log and killed, which counts as a crash of the vhost whose request it ran.
//!
//! Looks are rare (a few loads per worker and look) and counted instead of trusting the clock alone: a machine that was
//! suspended, or a master that got no processor time, makes a single long step, not several.

use std::collections::HashMap;
use std::time::Duration;

use super::Master;
use super::workers::SlotId;
use crate::log::Level;
use crate::os::time::monotonic;
use crate::os::zone::{Beat, TASK};
use crate::os::{procfs, signal};

/// Looks per `dysvr_watchdog`.
const LOOKS: u32 = 4;
/// A worker that spins must have had this part of the time on a processor; less is a machine that has none to give.
const BUSY: u32 = 8;
/// What a fast stop leaves workers before they are killed, as in nginx.
const GRACE: Duration = Duration::from_secs(1);

/// What was seen at the last looks.
#[derive(Debug, Default)]
pub struct Watchdog {
    seen: HashMap<SlotId, Seen>,
    next: Option<Duration>,
    /// When workers that were told to end at once are killed.
    kill: Option<Duration>,
}

/// A poll that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    pid: i32,
    polls: u64,
    looks: u32,
    since: Duration,
    /// Processor time at the first look.
    cpu: Duration,
}

/// What the system says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    /// `R`, `S`, `T` …
    state: char,
    cpu: Duration,
}

impl Watchdog {
    /// When to look again.
    pub fn deadline(&self) -> Option<Duration> {
        [self.next, self.kill].into_iter().flatten().min()
    }

    /// Takes in a look at one worker: for how long it has been in one poll, if that is for too long.
    fn look(
        &mut self,
        now: Duration,
        limit: Duration,
        (slot, pid): (SlotId, i32),
        beat: Beat,
        process: impl FnOnce() -> Option<Process>,
    ) -> Option<Duration> {
        let known = self.seen.get(&slot).copied().filter(|seen| seen.pid == pid && seen.polls == beat.polls);
        if beat.running.is_none() {
            self.seen.remove(&slot);
            return None;
        }
        let process = process()?;
        // Stopped by an operator or a debugger: not its own doing.
        if matches!(process.state, 'T' | 't' | 'Z') {
            self.seen.remove(&slot);
            return None;
        }
        let fresh = Seen { pid, polls: beat.polls, looks: 0, since: now, cpu: process.cpu };
        let seen = Seen { looks: known.map_or(0, |seen| seen.looks + 1), ..known.unwrap_or(fresh) };
        self.seen.insert(slot, seen);
        let (age, used) = (now.saturating_sub(seen.since), process.cpu.saturating_sub(seen.cpu));
        let busy = process.state != 'R' || used >= age / BUSY;
        (seen.looks >= LOOKS && age >= limit && busy).then_some(age)
    }
}

impl Master {
    /// Looks at the workers if it is time.
    pub(super) fn watch(&mut self, now: Duration) {
        if self.watchdog.kill.is_some_and(|at| at <= now) {
            self.watchdog.kill = Some(now + GRACE);
            for (_, worker) in self.workers.iter() {
                log!(Level::Alert, "worker process {} does not end: killed", worker.pid);
                let _ = signal::send(worker.pid, libc::SIGKILL);
            }
        }
        let limit = self.cycle.http().and_then(|http| http.main.dysvr.watchdog);
        let Some(limit) = limit.filter(|_| !self.workers.is_empty()) else {
            self.watchdog.next = None;
            return;
        };
        let pause = (limit / LOOKS).min(Duration::from_secs(1));
        if self.watchdog.next.is_none_or(|at| at > now + pause) {
            self.watchdog.next = Some(now + pause);
        }
        if self.watchdog.next.is_some_and(|at| at > now) {
            return;
        }
        self.watchdog.next = Some(now + pause);
        let mut stuck = Vec::new();
        for (slot, worker) in self.workers.iter() {
            let beat = worker.zone.slot(slot).beat();
            let limit = if beat.running == Some(TASK) { limit.max(self.task_timeout()) } else { limit };
            if let Some(age) = self.watchdog.look(now, limit, (slot, worker.pid), beat, || of_proc(worker.pid)) {
                stuck.push((slot, worker.pid, age));
            }
        }
        for (slot, pid, age) in stuck {
            log!(
                Level::Alert,
                "[dysvr] worker process {pid} has been in one step for {} ms: killed ({})",
                age.as_millis(),
                describe(pid)
            );
            if let Some(worker) = self.workers.get_mut(slot) {
                worker.stuck = true;
            }
            self.watchdog.seen.remove(&slot);
            let _ = signal::send(pid, libc::SIGKILL);
        }
    }

    /// Workers were told to end at once.
    pub(super) fn watch_end(&mut self) {
        self.watchdog.kill = Some(monotonic() + GRACE);
    }
}

fn of_proc(pid: i32) -> Option<Process> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = procfs::stat_fields(&text)?;
    let state = fields.next()?.chars().next()?;
    let ticks: u64 = fields.skip(10).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // Clock ticks are hundredths of a second on every Linux that we know.
    Some(Process { state, cpu: Duration::from_millis(ticks * 10) })
}

/// What can be said about a process from outside.
fn describe(pid: i32) -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let process = of_proc(pid).unwrap_or(Process { state: '?', cpu: Duration::ZERO });
    let resident = read("statm").split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4;
    format!(
        "state {}, {} ms of processor time, {resident} KiB resident, waits in \"{}\", system call \"{}\"",
        process.state,
        process.cpu.as_millis(),
        read("wchan").trim(),
        read("syscall").trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Looks once a second at a worker whose slot and process are what `at` says of that second; gives when it was found.
    fn found(seconds: u64, at: impl Fn(u64) -> (Option<u64>, u64, char, u64)) -> Option<u64> {
        let mut watchdog = Watchdog::default();
        (0..seconds).find(|&second| {
            let (running, polls, state, cpu) = at(second);
            let process = Process { state, cpu: Duration::from_secs(cpu) };
            let now = Duration::from_secs(second);
            watchdog.look(now, LIMIT, (3, 77), Beat { running, polls }, || Some(process)).is_some()
        })
    }

    #[test]
    fn only_one_long_poll_is_stuck() {
        assert_eq!(found(60, |s| (Some(5), 1, 'R', s)), Some(10), "it spins");
        assert_eq!(found(60, |_| (Some(5), 1, 'S', 0)), Some(10), "it waits in a system call");
        assert_eq!(found(60, |s| (Some(5), s, 'R', s)), None, "many short ones");
        assert_eq!(found(60, |_| (None, 1, 'S', 0)), None, "idle");
        assert_eq!(found(60, |_| (Some(5), 1, 'T', 0)), None, "stopped by somebody");
        assert_eq!(found(60, |_| (Some(5), 1, 'R', 0)), None, "gets no processor time");
        assert_eq!(found(60, |s| (Some(5), s / 9, 'R', s)), None, "slow but moving");
    }

    #[test]
    fn a_long_step_of_the_clock_is_no_proof() {
        let mut watchdog = Watchdog::default();
        let beat = Beat { running: Some(5), polls: 1 };
        for (second, stuck) in [(0, false), (3600, false), (3601, false), (3602, false), (3603, true)] {
            let process = Process { state: 'S', cpu: Duration::ZERO };
            let seen = watchdog.look(Duration::from_secs(second), LIMIT, (0, 1), beat, || Some(process));
            assert_eq!(seen.is_some(), stuck, "{second}");
        }
    }

    #[test]
    fn this_process_is_readable() {
        let me = std::process::id().cast_signed();
        assert!(matches!(of_proc(me), Some(Process { state: 'R' | 'S', .. })));
        assert!(describe(me).contains("KiB resident"));
    }
}
