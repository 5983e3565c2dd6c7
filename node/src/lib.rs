//! What runs on a machine of the fleet: the proxy (a master and its workers) and its agent.
//!
//! The two are separate processes that meet only in files and a signal, so each works without the other.

#[macro_use]
pub mod log;

pub mod agent;
pub mod cycle;
pub mod dysvr;
pub mod http;
pub mod master;
pub mod os;
pub mod pid_file;
#[cfg(feature = "poison")]
pub mod poison;
pub mod ssl;
pub mod task;
pub mod version;
pub mod worker;
