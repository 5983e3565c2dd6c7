//! Values of options: durations, wave sizes, budgets, labels.

use std::time::Duration;

/// A duration as Go and kubectl write it: `90s`, `5m`, `1h30m`, `250ms`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration such as 30s, 5m, 1h30m or 250ms");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        total = number.checked_mul(millis).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_millis(total))
}

/// Whole seconds for the wire, rounded up, so that a short soak does not become none.
pub fn seconds(duration: Duration) -> u32 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

/// The size of a wave: a number of nodes or a share of the fleet, at least one node.
pub fn wave(text: &str) -> Result<String, String> {
    match count(text) {
        Some(n) if n > 0 => Ok(text.to_owned()),
        _ => Err(format!("\"{text}\" is not the size of a wave, such as 3 or 25%")),
    }
}

/// How many nodes may fail: a number or a share.
pub fn budget(text: &str) -> Result<String, String> {
    match count(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("\"{text}\" is not a failure budget, such as 0, 2 or 5%")),
    }
}

/// The number in `N` or `P%` (P up to 100).
fn count(text: &str) -> Option<u32> {
    let (digits, most) = match text.strip_suffix('%') {
        Some(share) => (share, 100),
        None => (text, u32::MAX),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None; // parse() would take "+3"
    }
    digits.parse().ok().filter(|n| *n <= most)
}

/// A label that a node must have, `KEY=VALUE`.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !key.ends_with('!') => {
            Ok((key.to_owned(), value.strip_prefix('=').unwrap_or(value).to_owned()))
        }
        _ => Err(format!("\"{text}\" is not a label such as zone=a")),
    }
}

/// A rollout's number, `7` or `rollout/7`.
pub fn rollout(text: &str) -> Result<u64, String> {
    let digits = text.rsplit_once('/').map_or(text, |(_, digits)| digits);
    match digits.parse() {
        Ok(id) if id > 0 => Ok(id),
        _ => Err(format!("\"{text}\" is not the number of a rollout")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let rows = [("0", 0), ("90s", 90_000), ("5m", 300_000), ("1h30m", 5_400_000), ("250ms", 250), ("12", 12_000)];
        for (text, millis) in rows {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5", "1d", "-3s", "1.5s", "5m3", "99999999999999999999s", "18446744073709551615h"] {
            assert!(text == "5" || duration(text).is_err(), "{text}");
        }
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_secs(2)), 2);
    }

    #[test]
    fn sizes() {
        for text in ["1", "25%", "100%", "4294967295"] {
            assert_eq!(wave(text).as_deref(), Ok(text));
        }
        for text in ["0", "0%", "101%", "", "%", "-1", "+1", "1.5", "x", "5 %"] {
            assert!(wave(text).is_err(), "{text}");
        }
        assert_eq!(budget("0").as_deref(), Ok("0"));
        assert!(budget("x").is_err());
    }

    #[test]
    fn labels_and_rollouts() {
        assert_eq!(label("zone=a"), Ok(("zone".into(), "a".into())));
        assert_eq!(label("zone==a"), Ok(("zone".into(), "a".into())));
        assert_eq!(label("k=a=b"), Ok(("k".into(), "a=b".into())));
        for text in ["zone", "=a", "zone!=a", ""] {
            assert!(label(text).is_err(), "{text}");
        }
        assert_eq!(rollout("rollout/7"), Ok(7));
        assert_eq!(rollout("7"), Ok(7));
        assert!(rollout("0").is_err() && rollout("x").is_err());
    }
}
