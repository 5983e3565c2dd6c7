//! The only clock of the controller: milliseconds since 1970 that never go back while the process runs.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::rollout::Time;

/// Started once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Instant,
    unix_ms: u64,
}

impl Clock {
    /// From the machine's time of now.
    pub(super) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { began: Instant::now(), unix_ms: millis(since) }
    }

    /// Now.
    pub(super) fn now(&self) -> Time {
        Time(self.unix_ms + millis(self.began.elapsed()))
    }

    /// Now, as the wire has it.
    pub(super) fn unix_ms(&self) -> i64 {
        self.now().0.cast_signed()
    }

    /// When a [`Time`] is, for the executor's timers.
    pub(super) fn instant(&self, at: Time) -> tokio::time::Instant {
        (self.began + Duration::from_millis(at.0.saturating_sub(self.unix_ms))).into()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
