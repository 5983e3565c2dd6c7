//! How a rollout moves: sizes of waves, what may fail, how long to wait.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The deadline of a node unless another is given, milliseconds.
const NODE_DEADLINE_MS: u64 = 30_000;

/// A strategy, checked and complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strategy {
    /// Sizes in order, the last one repeats. Never empty.
    pub waves: Vec<Size>,
    /// What may fail.
    pub failure_budget: Budget,
    /// How long health is watched after each wave.
    pub soak_ms: u64,
    /// How long a node may take.
    pub node_deadline_ms: u64,
    /// Labels that a node must have.
    pub selector: BTreeMap<String, String>,
    /// Whether a spent budget rolls back; else the rollout fails where it is.
    pub auto_undo: bool,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            waves: vec![Size::Count(1), Size::Percent(25), Size::Percent(100)],
            failure_budget: Budget(Size::Count(0)),
            soak_ms: 0,
            node_deadline_ms: NODE_DEADLINE_MS,
            selector: BTreeMap::new(),
            auto_undo: true,
        }
    }
}

impl Strategy {
    /// From an operator's words; empty ones mean the defaults.
    pub fn parse(
        waves: &[String],
        failure_budget: &str,
        soak_seconds: u32,
        node_deadline_seconds: u32,
        selector: BTreeMap<String, String>,
        auto_undo: bool,
    ) -> Result<Self, InvalidStrategy> {
        let default = Self::default();
        let sizes = waves.iter().map(|text| text.parse()).collect::<Result<Vec<Size>, _>>()?;
        if sizes.iter().any(|size| matches!(size, Size::Count(0) | Size::Percent(0))) {
            return Err(InvalidStrategy("a wave of size 0 moves nothing".into()));
        }
        Ok(Self {
            waves: if sizes.is_empty() { default.waves } else { sizes },
            failure_budget: match failure_budget {
                "" => default.failure_budget,
                text => Budget(text.parse()?),
            },
            soak_ms: u64::from(soak_seconds) * 1000,
            node_deadline_ms: match node_deadline_seconds {
                0 => default.node_deadline_ms,
                seconds => u64::from(seconds) * 1000,
            },
            selector,
            auto_undo,
        })
    }
}

/// `3` or `25%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// That many nodes.
    Count(u32),
    /// That part of the nodes of the plan, at most 100.
    Percent(u8),
}

impl Size {
    /// The nodes of a wave in a fleet of `total`: rounded up, at least one.
    pub fn of_wave(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100),
        }
        .max(1)
    }
}

impl FromStr for Size {
    type Err = InvalidStrategy;

    fn from_str(text: &str) -> Result<Self, InvalidStrategy> {
        let invalid = || InvalidStrategy(format!("\"{text}\" is neither a count like 3 nor a percentage like 25%"));
        // `parse` would take a plus sign.
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(invalid());
        }
        match text.strip_suffix('%') {
            None => text.parse().map(Self::Count).map_err(|_| invalid()),
            Some(number) => match number.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                Ok(_) => Err(InvalidStrategy(format!("{text} is more than all nodes"))),
                Err(_) => Err(invalid()),
            },
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// How many nodes may fail. Percentages are rounded down: a budget never tolerates more than it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Budget(pub Size);

impl Budget {
    /// Failures of one rollout are kept by name in one record, which must stay small.
    const MOST: usize = 2000;

    /// The number of failures that a plan of `total` nodes survives.
    pub fn of(self, total: usize) -> usize {
        match self.0 {
            Size::Count(count) => count as usize,
            Size::Percent(percent) => total * usize::from(percent) / 100,
        }
        .min(Self::MOST)
    }
}

/// A strategy that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid strategy: {0}")]
pub struct InvalidStrategy(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases =
            [("1", 10, Some(1)), ("25%", 10, Some(3)), ("100%", 10, Some(10)), ("1%", 10, Some(1)), ("7", 3, Some(7))];
        for (text, total, expected) in cases {
            assert_eq!(text.parse::<Size>().ok().map(|size| size.of_wave(total)), expected, "{text} of {total}");
        }
        for bad in ["", "%", "-1", "+1", "101%", "1.5", "x", "5 %"] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?}");
        }
        assert_eq!(Budget(Size::Percent(25)).of(7), 1);
        assert_eq!(Budget(Size::Percent(25)).of(3), 0);
        assert!(Strategy::parse(&["0".into()], "", 0, 0, BTreeMap::new(), true).is_err());
    }
}
