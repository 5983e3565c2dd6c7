//! A value with variables in it (nginx's "complex value"), compiled once.

use std::sync::Arc;

use crate::variable::Variable;

/// Literal text and variables in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Adjacent literals are one part; an empty template has none.
    pub parts: Box<[Part]>,
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
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
