//! Regular expressions as nginx has them: PCRE, so that every expression that is valid there is valid here.

use std::fmt;
use std::sync::Arc;

/// A compiled expression; clones share it.
#[derive(Clone)]
pub struct Regex {
    inner: Arc<Inner>,
}

struct Inner {
    pattern: Box<str>,
    caseless: bool,
    code: pcre2::bytes::Regex,
}

impl Regex {
    /// Compiles a pattern. The error is PCRE's own message with the offset.
    pub fn new(pattern: &str, caseless: bool) -> Result<Self, String> {
        let code = pcre2::bytes::RegexBuilder::new()
            .caseless(caseless)
            .jit_if_available(false)
            .build(pattern)
            .map_err(|error| error.to_string())?;
        Ok(Self { inner: Arc::new(Inner { pattern: pattern.into(), caseless, code }) })
    }

    /// The pattern as it stands in the file.
    pub fn pattern(&self) -> &str {
        &self.inner.pattern
    }

    /// The engine's object, for matching.
    pub fn code(&self) -> &pcre2::bytes::Regex {
        &self.inner.code
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.inner.pattern == other.inner.pattern && self.inner.caseless == other.inner.caseless
    }
}

impl Eq for Regex {}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", if self.inner.caseless { "~*" } else { "~" }, self.inner.pattern)
    }
}
