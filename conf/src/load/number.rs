//! Numbers, sizes and times as nginx writes them.

const MAX: u64 = i64::MAX as u64;

/// Decimal digits only.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|value| *value <= MAX)
}

/// Bytes, with `k`, `m` or `g` in either case.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (digits, scale) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    number(digits)?.checked_mul(scale).filter(|value| *value <= MAX)
}

/// Milliseconds: units from weeks to `ms`, each at most once and in falling order; a bare number is seconds.
pub(crate) fn millis(text: &str) -> Option<u64> {
    time(text, false)
}

/// Seconds: units from years to `s`.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    time(text, true)
}

fn time(text: &str, whole_seconds: bool) -> Option<u64> {
    /// Units in falling order: the letters and their seconds.
    const UNITS: [(&str, u64); 8] = [
        ("y", 365 * 86400),
        ("M", 30 * 86400),
        ("w", 7 * 86400),
        ("d", 86400),
        ("h", 3600),
        ("m", 60),
        ("s", 1),
        ("ms", 0),
    ];
    let per_second = if whole_seconds { 1 } else { 1000 };
    let mut total: u64 = 0;
    let mut next_unit = if whole_seconds { 0 } else { 2 };
    let mut rest = text;
    let mut seen_digit = false;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let value = if digits == 0 { 0 } else { number(&rest[..digits])? };
        seen_digit |= digits > 0;
        rest = &rest[digits..];
        let (scale, width) = if rest.is_empty() {
            (per_second, 0)
        } else if rest.starts_with(' ') {
            // A blank ends the last number, which is seconds.
            (next_unit <= 6).then_some(())?;
            next_unit = 8;
            (per_second, 1)
        } else {
            let name = if rest.starts_with("ms") { "ms" } else { rest.get(..1)? };
            let unit = UNITS.iter().position(|(unit, _)| *unit == name)?;
            (unit >= next_unit && (unit < 7 || !whole_seconds)).then_some(())?;
            next_unit = unit + 1;
            (if unit == 7 { 1 } else { UNITS[unit].1 * per_second }, name.len())
        };
        total = value.checked_mul(scale).and_then(|value| total.checked_add(value)).filter(|total| *total <= MAX)?;
        rest = rest[width..].trim_start_matches(' ');
    }
    seen_digit.then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, expected) in [("0", Some(0)), ("12", Some(12)), ("", None), ("-1", None), ("1k", None), ("+1", None)]
        {
            assert_eq!(number(text), expected, "{text}");
        }
        assert_eq!(number("99999999999999999999"), None);
    }

    #[test]
    fn sizes() {
        for (text, expected) in
            [("1", Some(1)), ("8k", Some(8192)), ("1M", Some(1 << 20)), ("2g", Some(2 << 30)), ("k", None), ("", None)]
        {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("15", Some(15_000)),
            ("15s", Some(15_000)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1h 30m", Some(5_400_000)),
            ("1s500ms", Some(1500)),
            ("1w", Some(604_800_000)),
            ("1M", None),
            ("1s1m", None),
            ("1m1m", None),
            ("", None),
            ("s", Some(0).filter(|_| false)),
            ("1x", None),
            ("-1", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
        for (text, expected) in
            [("15", Some(15)), ("1y", Some(31_536_000)), ("1M2d", Some(2_764_800)), ("1ms", None), ("1y1y", None)]
        {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
