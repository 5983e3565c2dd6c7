//! Which processors threads run on.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// Calls `make`, which makes a thread, so that the thread begins at once, on other processors than this one's, to which
/// it stays bound. Where there are no others, or that is not known, it is only called.
///
/// In a virtual machine Linux takes a processor that idles for one that the host has taken away, and leaves a new thread on
/// the processor of its maker until a tick (4 ms) finds it there.
pub fn apart<T>(make: impl FnOnce() -> T) -> T {
    let this = Pid::from_raw(0);
    let Some((all, others, here)) = sets() else { return make() };
    // The new thread inherits where this one may run, which for that moment goes over to the others.
    if sched_setaffinity(this, &others).is_err() {
        return make();
    }
    let made = make();
    // Back to what is in the caches of the processor it had.
    let _ = sched_setaffinity(this, &here);
    let _ = sched_setaffinity(this, &all);
    made
}

/// Where this thread may run, that without where it runs, and where it runs.
fn sets() -> Option<(CpuSet, CpuSet, CpuSet)> {
    let all = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let number = sched_getcpu().ok()?;
    let (mut others, mut here) = (all, CpuSet::new());
    others.unset(number).ok()?;
    here.set(number).ok()?;
    (others != CpuSet::new() && all.is_set(number).ok()?).then_some((all, others, here))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> CpuSet {
        sched_getaffinity(Pid::from_raw(0)).unwrap()
    }

    #[test]
    fn a_thread_is_made_on_other_processors_and_its_maker_stays_where_it_was() {
        std::thread::spawn(|| {
            let all = own();
            let theirs = apart(|| std::thread::spawn(own)).join().unwrap();
            assert_eq!(own(), all);
            let count = |set: &CpuSet| (0..CpuSet::count()).filter(|number| set.is_set(*number).unwrap()).count();
            assert_eq!(count(&theirs), count(&all).max(2) - 1);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn one_processor_is_enough() {
        std::thread::spawn(|| {
            let mut one = CpuSet::new();
            one.set(sched_getcpu().unwrap()).unwrap();
            sched_setaffinity(Pid::from_raw(0), &one).unwrap();
            assert_eq!(apart(|| std::thread::spawn(own)).join().unwrap(), one);
            assert_eq!(own(), one);
        })
        .join()
        .unwrap();
    }
}
