//! The control plane of dysvr.

pub mod ctl;
