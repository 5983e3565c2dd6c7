//! Waiting for a condition with a deadline: the only place of the harness that sleeps, for one short step between two
//! looks.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a look waits for the next one: short enough that no figure in milliseconds suffers.
const STEP: Duration = Duration::from_millis(2);

/// Set by [`interrupt`]: every wait ends with an error, so that everything unwinds in order.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends every wait of this program, the present and the coming ones, with an error.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether [`interrupt`] was called.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Looks until `probe` succeeds and gives what it found.
///
/// # Errors
/// After `limit`, with `what` was waited for and what the last look saw; or when the program was interrupted.
pub fn eventually<T, E: Display>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> std::result::Result<T, E>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        let seen = match probe() {
            Ok(found) => return Ok(found),
            Err(seen) => seen,
        };
        if interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        if begin.elapsed() > limit {
            bail!("waited {limit:?} for {what}; at last: {seen:#}");
        }
        std::thread::sleep(STEP);
    }
}

/// As [`eventually`], for a plain yes or no.
///
/// # Errors
/// As [`eventually`].
pub fn until(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) -> Result<()> {
    eventually(what, limit, || if probe() { Ok(()) } else { Err("not yet") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_gives_what_was_found_or_says_what_it_last_saw() {
        let mut looks = 0;
        let found = eventually("three looks", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("too few") }
        });
        assert_eq!(found.unwrap(), 3);
        let error = eventually::<(), _>("the impossible", Duration::ZERO, || Err("nothing")).unwrap_err().to_string();
        assert_eq!(error, "waited 0ns for the impossible; at last: nothing");
    }
}
