//! What runs on a machine of the fleet: the proxy (a master and its workers) and its agent.
//!
//! The two are separate processes that meet only in files and a signal, so each works without the other.

pub mod cycle;
pub mod http;
pub mod log;
pub mod os;
pub mod task;
