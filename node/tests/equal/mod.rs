//! What the histories of `in_place_equals_load` are made of.

pub mod answers;
pub mod site;
mod tasks;
mod texts;
mod tls;
