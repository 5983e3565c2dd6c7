//! Times as they are shown: RFC 3339 in UTC for programs, ages for people.

use std::fmt::Write as _;

/// `2022-07-27T14:44:11.114Z` of milliseconds since 1970; `None` for 0, which is "never" on the wire.
pub fn rfc3339(unix_ms: i64) -> Option<String> {
    if unix_ms == 0 {
        return None;
    }
    let (seconds, millis) = (unix_ms.div_euclid(1000), unix_ms.rem_euclid(1000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if millis != 0 {
        let _ = write!(text, ".{millis:03}");
    }
    text.push('Z');
    Some(text)
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar.
///
/// Counted in eras of 400 years that begin on the first of March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // from 0000-03-01
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The time between two instants as kubectl shows ages: `12s`, `4m30s`, `3h5m`, `2d`; `<none>` when there was none.
pub fn age(now_ms: i64, then_ms: i64) -> String {
    if then_ms == 0 {
        return "<none>".into();
    }
    span((now_ms - then_ms).max(0))
}

/// A length of time in milliseconds, in at most two units.
pub fn span(ms: i64) -> String {
    let seconds = ms / 1000;
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => two(seconds / 60, "m", seconds % 60, "s"),
        600..10_800 => format!("{}m", seconds / 60),
        10_800..28_800 => two(seconds / 3600, "h", seconds / 60 % 60, "m"),
        28_800..172_800 => format!("{}h", seconds / 3600),
        172_800..691_200 => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A length of time in milliseconds, as precise as matters: `12ms`, `1.3s`, `4m30s`.
pub fn precise(ms: i64) -> String {
    match ms.max(0) {
        ms @ ..1_000 => format!("{ms}ms"),
        ms @ 1_000..60_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        ms => span(ms),
    }
}

/// Microseconds as milliseconds with three digits, the form in which phases are shown.
pub fn millis(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants() {
        for (ms, text) in [
            (1, "1970-01-01T00:00:00.001Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_658_904_251_114, "2022-07-27T06:44:11.114Z"),
            (4_102_444_799_000, "2099-12-31T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(ms).as_deref(), Some(text));
        }
        assert_eq!(rfc3339(0), None);
    }

    #[test]
    fn ages() {
        let rows = [(0, "0s"), (119, "119s"), (120, "2m"), (270, "4m30s"), (3600, "60m"), (11_100, "3h5m")];
        for (seconds, text) in rows.into_iter().chain([(100_000, "27h"), (180_000, "2d2h"), (864_000, "10d")]) {
            assert_eq!(span(seconds * 1000), text);
        }
        assert_eq!(age(5, 0), "<none>");
        assert_eq!(age(1000, 5000), "0s");
        assert_eq!(millis(56_007), "56.007");
        assert_eq!((precise(1_399), precise(-5), precise(270_000)), ("1.3s".into(), "0ms".into(), "4m30s".into()));
    }
}
