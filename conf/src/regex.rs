//! Regular expressions as nginx has them: PCRE, so that every expression that is valid there is valid here.

use std::fmt;
use std::sync::{Arc, Weak};

/// A compiled expression; clones share it.
#[derive(Clone)]
pub struct Regex {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pattern: Box<str>,
    caseless: bool,
    code: pcre2::bytes::Regex,
}

impl Regex {
    /// Compiles a pattern. The error is PCRE's own message in nginx's words.
    pub fn new(pattern: &str, caseless: bool) -> Result<Self, String> {
        let code =
            pcre2::bytes::RegexBuilder::new().caseless(caseless).jit_if_available(false).build(pattern).map_err(
                |error| {
                    let text = error.to_string();
                    let message = text.rsplit_once(": ").map_or(&*text, |(_, message)| message);
                    let rest = error.offset().and_then(|offset| pattern.get(offset..)).unwrap_or_default();
                    match rest {
                        "" => format!("pcre2_compile() failed: {message} in \"{pattern}\""),
                        _ => format!("pcre2_compile() failed: {message} in \"{pattern}\" at \"{rest}\""),
                    }
                },
            )?;
        Ok(Self { inner: Arc::new(Inner { pattern: pattern.into(), caseless, code }) })
    }

    /// Whether nobody else has it.
    pub(crate) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.inner) == 1
    }

    /// The pattern as it stands in the file.
    pub fn pattern(&self) -> &str {
        &self.inner.pattern
    }

    /// Whether it ignores case.
    pub fn caseless(&self) -> bool {
        self.inner.caseless
    }

    /// Its named groups: name and number.
    pub fn named_groups(&self) -> impl Iterator<Item = (&str, u8)> {
        let names = self.inner.code.capture_names().iter().enumerate();
        names.filter_map(|(number, name)| Some((name.as_deref()?, u8::try_from(number).ok()?)))
    }

    /// A reference that does not keep it alive.
    pub(crate) fn downgrade(&self) -> WeakRegex {
        WeakRegex(Arc::downgrade(&self.inner))
    }

    /// The engine's object, for matching.
    pub fn code(&self) -> &pcre2::bytes::Regex {
        &self.inner.code
    }
}

/// See [`Regex::downgrade`].
#[derive(Debug)]
pub(crate) struct WeakRegex(Weak<Inner>);

impl WeakRegex {
    /// The expression, if anything still uses it.
    pub(crate) fn upgrade(&self) -> Option<Regex> {
        self.0.upgrade().map(|inner| Regex { inner })
    }

    /// Whether anything still uses it.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
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
