//! Measurements beside nginx in the same run: see `dysvr-bench`.
pub mod figures;
