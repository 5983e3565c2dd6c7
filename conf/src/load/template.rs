//! Text with `$` in it to a [`Template`].

use smallvec::SmallVec;

use super::Load;
use super::variables::At;
use crate::directive::Done;
use crate::template::{Part, Template};
use crate::variable::Variable;

impl Load<'_> {
    /// Compiles a value. `$1` … `$9` are groups, `$name` and `${name}` variables.
    pub(crate) fn template(&mut self, text: &str, used: At<'_>) -> Done<Template> {
        let mut parts: SmallVec<[Part; 4]> = SmallVec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            if dollar > 0 {
                parts.push(Part::Literal(rest[..dollar].into()));
            }
            rest = &rest[dollar + 1..];
            if let Some(digit @ b'1'..=b'9') = rest.bytes().next() {
                parts.push(Part::Variable(Variable::Capture(digit - b'0')));
                rest = &rest[1..];
                continue;
            }
            let (name, after) = split_name(rest)?;
            parts.push(Part::Variable(self.variable(name, used)?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        Ok(self.interner.template(parts))
    }
}

/// The name at the start of a text, in braces or not, and what follows it.
fn split_name(text: &str) -> Done<(&str, &str)> {
    let (inside, braces) = match text.strip_prefix('{') {
        Some(inside) => (inside, true),
        None => (text, false),
    };
    let len = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inside.len());
    let (name, after) = inside.split_at(len);
    let after = match (braces, after.strip_prefix('}')) {
        (false, _) => after,
        (true, Some(after)) => after,
        (true, None) if inside.is_empty() => return Err("invalid variable name".into()),
        (true, None) => return Err(format!("the closing bracket in \"{name}\" variable is missing").into()),
    };
    if name.is_empty() {
        return Err("invalid variable name".into());
    }
    Ok((name, after))
}
