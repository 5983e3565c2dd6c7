//! Everything that needs `unsafe` or a raw descriptor: fork, signals, channels, shared memory, listening sockets, time.
//! Nothing above this folder has either.

#![allow(unsafe_code)]

pub mod channel;
pub mod fork;
pub mod listen;
pub mod process;
pub mod signal;
pub mod socket_io;
pub mod time;
pub mod zone;
