//! The worker's clock: read once per wake-up of a connection, so that everything that one wake-up does has one time and
//! a request costs two readings. Wall-clock time is the monotonic one plus an offset that is refreshed every second.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use http::HeaderValue;

use crate::os::time::{self, Local};

/// How often the wall clock is asked.
const SYNC: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Clock {
    now: Cell<Instant>,
    synced: Cell<(Instant, Duration)>,
    next_sync: Cell<Instant>,
    local: Cell<(u64, Local)>,
    date: RefCell<(u64, HeaderValue)>,
}

impl Default for Clock {
    fn default() -> Self {
        let (now, unix) = (Instant::now(), time::unix());
        Self {
            now: Cell::new(now),
            synced: Cell::new((now, unix)),
            next_sync: Cell::new(now + SYNC),
            local: Cell::new((unix.as_secs(), time::local(unix.as_secs() as i64))),
            date: RefCell::new((unix.as_secs(), date(unix))),
        }
    }
}

fn date(unix: Duration) -> HeaderValue {
    let text = httpdate::fmt_http_date(std::time::UNIX_EPOCH + unix);
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

impl Clock {
    /// Reads the clock.
    pub fn tick(&self) {
        let now = Instant::now();
        self.now.set(now);
        if now >= self.next_sync.get() {
            self.synced.set((now, time::unix()));
            self.next_sync.set(now + SYNC);
        }
    }

    /// The time of the last tick.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// The same, since the Unix epoch.
    pub fn unix(&self) -> Duration {
        self.unix_of(self.now.get())
    }

    fn unix_of(&self, at: Instant) -> Duration {
        let (synced, unix) = self.synced.get();
        unix + at.saturating_duration_since(synced)
    }

    /// Local time, broken down once per second.
    pub fn local(&self) -> Local {
        let second = self.unix().as_secs();
        let (cached, local) = self.local.get();
        if cached == second {
            return local;
        }
        let local = time::local(second as i64);
        self.local.set((second, local));
        local
    }

    /// The value of the `Date` header, made once per second.
    pub fn date(&self) -> HeaderValue {
        let unix = self.unix();
        let mut cached = self.date.borrow_mut();
        if cached.0 != unix.as_secs() {
            *cached = (unix.as_secs(), date(unix));
        }
        cached.1.clone()
    }
}
