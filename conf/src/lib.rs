//! The nginx configuration language: syntax, directive tables, typed model, validation.
//!
//! No I/O of its own (files, globs and host names come through a [`source::Source`] that the caller passes), no clock,
//! no async. What the controller accepts with this crate is exactly what nodes accept.

pub mod bundle;
pub mod by_address;
pub mod diff;
pub mod digest;
pub mod directive;
pub mod glob;
pub mod http;
pub mod intern;
pub mod load;
pub mod main_conf;
pub mod model;
mod path_bytes;
pub mod problem;
pub mod recording;
pub mod regex;
pub mod source;
pub mod syntax;
pub mod template;
pub mod variable;
