//! Generated from `proto/dysvr/*.proto`; see `tests/fresh.rs`.

#![allow(missing_docs, unreachable_pub, clippy::all)]

/// Node ↔ controller.
pub mod fleet {
    pub use v1::*;

    pub mod v1 {
        include!("gen/dysvr.fleet.v1.rs");
    }
}

/// Operator → controller.
pub mod operator {
    pub use v1::*;

    pub mod v1 {
        include!("gen/dysvr.operator.v1.rs");
    }
}

/// The encoded `FileDescriptorSet` of both packages, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");
