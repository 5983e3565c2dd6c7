//! What is to be reached, and whether a run has reached it.

use serde_json::{Value, json};

/// One figure beside its goal.
#[derive(Clone, Debug)]
pub struct Goal {
    /// What was measured.
    pub figure: String,
    /// What it gave, with its unit.
    pub value: String,
    /// What it should be, in words.
    pub wanted: String,
    /// Whether it is; `None` for what is measured for comparison alone.
    pub met: Option<bool>,
}

impl Goal {
    /// A figure that is to stay at or below a limit, both shown by `show`.
    pub fn at_most(figure: impl Into<String>, value: f64, limit: f64, show: impl Fn(f64) -> String) -> Self {
        Self {
            figure: figure.into(),
            value: show(value),
            wanted: format!("≤ {}", show(limit)),
            met: Some(value <= limit),
        }
    }

    /// A figure that stands there for comparison.
    pub fn beside(figure: impl Into<String>, value: impl Into<String>) -> Self {
        Self { figure: figure.into(), value: value.into(), wanted: String::new(), met: None }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({"figure": self.figure, "value": self.value, "goal": self.wanted, "met": self.met})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_by_staying_at_it() {
        let met = |value: f64| Goal::at_most("x", value, 0.5, |ms| format!("{ms} ms"));
        assert_eq!((met(0.5).met, met(0.6).met), (Some(true), Some(false)));
        assert_eq!((met(0.4).value.as_str(), met(0.4).wanted.as_str()), ("0.4 ms", "≤ 0.5 ms"));
    }
}
