//! Tests of what is left when a machine goes down.

pub mod disk;
pub mod trace;
