//! Values with variables in them, for one request.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use dysvr_conf::template::{Part, Template};
use http::HeaderValue;

use super::request::Request;
use super::variable;

/// Appends the value of a template.
pub(super) fn append(request: &Request, template: &Template, out: &mut Vec<u8>) {
    for part in &*template.parts {
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Variable(name) => drop(variable::append(request, name, out)),
        }
    }
}

/// The value of a template; a literal costs nothing.
pub(super) fn value<'a>(request: &Request, template: &'a Template) -> Cow<'a, [u8]> {
    match template.as_literal() {
        Some(text) => Cow::Borrowed(text.as_bytes()),
        None => {
            let mut out = Vec::with_capacity(64);
            append(request, template, &mut out);
            Cow::Owned(out)
        }
    }
}

/// The value of a template as a header; `None` if it is empty or cannot stand in one. The bytes come out of the worker's
/// arena, so that a header costs no allocation of its own.
pub(super) fn header(request: &Request, template: &Template) -> Option<HeaderValue> {
    if let [Part::Variable(name)] = &*template.parts
        && let Some(value) = variable::as_header(request, name)
    {
        return Some(value.clone()).filter(|value| !value.is_empty());
    }
    let mut scratch = request.ctx.scratch.take();
    scratch.clear();
    append(request, template, &mut scratch);
    let value = make_header(&request.ctx.arena, &scratch);
    request.ctx.scratch.set(scratch);
    value
}

/// A header of some bytes, see [`header`].
pub(super) fn make_header(arena: &std::cell::RefCell<BytesMut>, value: &[u8]) -> Option<HeaderValue> {
    if value.is_empty() {
        return None;
    }
    HeaderValue::from_maybe_shared(keep(arena, value)).ok()
}

/// Copies some bytes into the arena.
pub(super) fn keep(arena: &std::cell::RefCell<BytesMut>, value: &[u8]) -> Bytes {
    let mut arena = arena.borrow_mut();
    if arena.capacity() < value.len() {
        arena.reserve(value.len().max(4096));
    }
    arena.extend_from_slice(value);
    arena.split().freeze()
}
