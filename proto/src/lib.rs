//! The wire protocol of dysvr and the domain types that node and controller share.
//!
//! [`wire`] is the generated code (committed; a test proves it fresh). The other modules are the domain: newtypes for
//! identities, the letters of a task's life, reports. A wire message is converted once, at the door.

pub mod digest;
pub mod id;
pub mod planted;
pub mod status;
pub mod wire;
