//! What runs on a machine of the fleet.

pub mod task;
