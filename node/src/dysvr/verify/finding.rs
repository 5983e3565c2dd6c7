//! What a look has found: a line of `key=value` words, and below it the text of the differences. The child writes it into
//! its pipe, the master completes it and writes it whole beside the task file.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cycle::digest::Sum;
use crate::task::word;

/// Bytes of text about differences that are kept: enough to see what is the matter, not a copy of the configuration.
pub const MAX_TEXT: usize = 64 << 10;

/// What came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The files would start what runs.
    Equal,
    /// They would start something else.
    Different,
    /// They would start nothing.
    Unloadable,
    /// It is not known.
    #[default]
    Unknown,
}

impl Outcome {
    /// As files and reports show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Unloadable => "unloadable",
            Self::Unknown => "unknown",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Equal, Self::Different, Self::Unloadable, Self::Unknown].into_iter().find(|one| one.name() == name)
    }
}

/// See [`Finding::news`].
pub type News = (Outcome, u64, Option<u128>);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// What came out.
    pub outcome: Outcome,
    /// When, since the Unix epoch.
    pub time: Duration,
    /// The master that says so, 0 in the child.
    pub master: u32,
    /// Of the running cycle.
    pub digest: Sum,
    /// Of the cycle that was loaded afresh.
    pub twin: Option<Sum>,
    /// The version of the last task that is in the running cycle.
    pub version: u64,
    /// Vhosts of the running cycle.
    pub vhosts: u64,
    /// Upstreams of the running cycle.
    pub upstreams: u64,
    /// Listeners of the running cycle.
    pub listeners: u64,
    /// Things that differ.
    pub differences: u64,
    /// Processor time of the look.
    pub cost: Duration,
    /// Since the master began: findings, and those of them that were new differences.
    pub findings: u64,
    /// See `findings`.
    pub alerts: u64,
    /// Since the master began: workers that were replaced because their digest differed.
    pub replaced: u64,
    /// The requests that it answers.
    pub asked: Vec<u32>,
    /// Why the files do not load, or why nothing is known.
    pub reason: String,
    /// Both sides of each difference.
    pub text: String,
}

/// Why a text is no finding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no finding: {0}")]
pub struct InvalidFinding(String);

impl Finding {
    /// One that says why nothing is known.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, reason: reason.into(), ..Self::default() }
    }

    /// What tells one difference from another.
    pub fn fingerprint(&self) -> u128 {
        Sum::of(crate::cycle::digest::Kind::Whole, (self.digest, self.twin, self.outcome.name(), &self.reason)).0
    }

    /// What makes it worth telling again: not the time, and not which configuration it is that is equal.
    pub fn news(&self) -> News {
        let differs = matches!(self.outcome, Outcome::Different | Outcome::Unloadable);
        (self.outcome, self.alerts, differs.then(|| self.fingerprint()))
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = String::new();
        let mut push = |key: &str, value: &str| word::push(&mut text, key, value);
        push("verdict", self.outcome.name());
        push("time", &self.time.as_millis().to_string());
        push("master", &self.master.to_string());
        push("version", &self.version.to_string());
        push("digest", &self.digest.to_string());
        if let Some(twin) = self.twin {
            push("twin", &twin.to_string());
        }
        for (key, number) in [
            ("vhosts", self.vhosts),
            ("upstreams", self.upstreams),
            ("listeners", self.listeners),
            ("differences", self.differences),
            ("cost_us", self.cost.as_micros() as u64),
            ("findings", self.findings),
            ("alerts", self.alerts),
            ("replaced", self.replaced),
        ] {
            push(key, &number.to_string());
        }
        if !self.asked.is_empty() {
            let asked: Vec<String> = self.asked.iter().map(u32::to_string).collect();
            push("asked", &asked.join(","));
        }
        if !self.reason.is_empty() {
            push("reason", &self.reason);
        }
        let _ = writeln!(text);
        text.push_str(&self.text);
        text.into_bytes()
    }

    /// Reads them back. Unknown words are for later versions.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidFinding> {
        let invalid = |text: String| InvalidFinding(text);
        let text = std::str::from_utf8(bytes).map_err(|_| invalid("a byte that is not UTF-8".into()))?;
        let (mut line, text) = text.split_once('\n').ok_or_else(|| invalid("its line has no end".into()))?;
        let mut finding = Self { text: text.to_owned(), ..Self::default() };
        let mut outcome = None;
        while let Some(word::Word { key, value }) = word::next(&mut line).map_err(invalid)? {
            let odd = || InvalidFinding(format!("{key}={} ", value.escape_debug()));
            let number = || value.parse::<u64>().map_err(|_| odd());
            let sum = || u128::from_str_radix(&value, 16).map(Sum).map_err(|_| odd());
            match key {
                "verdict" => outcome = Some(Outcome::from_name(&value).ok_or_else(odd)?),
                "time" => finding.time = Duration::from_millis(number()?),
                "master" => finding.master = value.parse().map_err(|_| odd())?,
                "version" => finding.version = number()?,
                "digest" => finding.digest = sum()?,
                "twin" => finding.twin = Some(sum()?),
                "vhosts" => finding.vhosts = number()?,
                "upstreams" => finding.upstreams = number()?,
                "listeners" => finding.listeners = number()?,
                "differences" => finding.differences = number()?,
                "cost_us" => finding.cost = Duration::from_micros(number()?),
                "findings" => finding.findings = number()?,
                "alerts" => finding.alerts = number()?,
                "replaced" => finding.replaced = number()?,
                "asked" => {
                    let asked = value.split(',').map(|item| item.parse().map_err(|_| odd()));
                    finding.asked = asked.collect::<Result<_, _>>()?;
                }
                "reason" => finding.reason = value,
                _ => {}
            }
        }
        finding.outcome = outcome.ok_or_else(|| invalid("verdict is missing".into()))?;
        Ok(finding)
    }

    /// As a sentence.
    pub fn sentence(&self) -> String {
        let Self { vhosts, upstreams, listeners, differences, reason, .. } = self;
        let ms = self.cost.as_millis();
        match self.outcome {
            Outcome::Equal => format!(
                "equal: the files would start what runs ({vhosts} vhosts, {upstreams} upstreams, {listeners} listeners; \
                 digest {}; {ms} ms of processor time)",
                self.digest
            ),
            Outcome::Different => format!(
                "different: the files would start something else ({differences} difference(s); running {}, files {})",
                self.digest,
                self.twin.map_or_else(|| "-".to_owned(), |twin| twin.to_string())
            ),
            Outcome::Unloadable => format!("unloadable: the files would not start at all: {reason}"),
            Outcome::Unknown => format!("unknown: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Finding {
        Finding {
            outcome: Outcome::Different,
            time: Duration::from_millis(1_700_000_000_123),
            master: 77,
            digest: Sum(1),
            twin: Some(Sum(u128::MAX)),
            version: 3,
            vhosts: 4,
            upstreams: 5,
            listeners: 6,
            differences: 7,
            cost: Duration::from_micros(89),
            findings: 10,
            alerts: 11,
            replaced: 12,
            asked: vec![13, 14],
            reason: "a \"reason\"\nin two lines".into(),
            text: "vhost 1\n-a\n+b\n".into(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for finding in [full(), Finding::default(), Finding::unknown("why")] {
            assert_eq!(Finding::decode(&finding.encode()), Ok(finding));
        }
        let later = "verdict=equal sooner=or later=x\ntext";
        assert_eq!(Finding::decode(later.as_bytes()).unwrap().outcome, Outcome::Equal);
    }

    #[test]
    fn what_is_cut_short_or_odd_is_refused() {
        let bytes = full().encode();
        let line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        for end in 0..=line {
            assert!(Finding::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for odd in
            ["x\n", "time=1\n", "verdict=maybe\n", "verdict=equal time=x\n", "verdict=equal digest=xyz\n", "\u{ff}"]
        {
            assert!(Finding::decode(odd.as_bytes()).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_difference_is_told_from_another() {
        let one = full();
        assert_eq!(one.fingerprint(), Finding { time: Duration::ZERO, findings: 0, ..full() }.fingerprint());
        assert_ne!(one.fingerprint(), Finding { twin: None, ..full() }.fingerprint());
        assert_ne!(one.fingerprint(), Finding { reason: String::new(), ..full() }.fingerprint());
    }
}
