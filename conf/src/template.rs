//! A value with variables in it (nginx's "complex value"), compiled once and shared by all who say the same.

use std::sync::Arc;

use crate::variable::Variable;

/// Literal text and variables in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Template {
    /// Adjacent literals are one part; an empty template has none.
    pub parts: Arc<[Part]>,
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Text as it is.
    Literal(Arc<str>),
    /// The value of a variable, empty when it has none.
    Variable(Variable),
}

impl Template {
    /// The text, if there is no variable in it.
    pub fn as_literal(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }
}
