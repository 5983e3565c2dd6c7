//! Wall-clock time as the logs show it, and the monotonic clock that processes share.

use std::time::Duration;

/// Local time, broken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Year, four digits.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60.
    pub second: u8,
    /// East of UTC, seconds.
    pub offset: i32,
}

/// Breaks a Unix time down in the machine's time zone.
pub fn local(unix: i64) -> Local {
    let mut tm = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; localtime_r writes the whole struct, and zeroes are a valid `tm`
    // should it fail.
    let tm = unsafe {
        libc::localtime_r(&unix, tm.as_mut_ptr());
        tm.assume_init()
    };
    Local {
        year: tm.tm_year + 1900,
        month: tm.tm_mon as u8 + 1,
        day: tm.tm_mday as u8,
        hour: tm.tm_hour as u8,
        minute: tm.tm_min as u8,
        second: tm.tm_sec as u8,
        offset: tm.tm_gmtoff as i32,
    }
}

/// Time since boot, the same in all processes of the machine.
pub fn monotonic() -> Duration {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}

/// Processor time that this process has used.
pub fn processor() -> Duration {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call; CLOCK_PROCESS_CPUTIME_ID always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut ts) };
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}

/// Time since the Unix epoch.
pub fn unix() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_and_offset_give_the_unix_time_back() {
        let unix = 1_658_904_251;
        let t = local(unix);
        assert_eq!((t.year, t.month), (2022, 7));
        let of_day = i64::from(t.hour) * 3600 + i64::from(t.minute) * 60 + i64::from(t.second);
        assert_eq!((unix + i64::from(t.offset)) % 86_400, of_day);
    }
}
