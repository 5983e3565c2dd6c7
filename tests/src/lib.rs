//! The harness that starts the real processes of dysvr (proxy, agent, controller, command line), real nginx and real
//! etcd, drives them from outside and looks at what they do. Nothing here knows their insides: it meets them in files,
//! signals, sockets and command lines, as an operator does.
//!
//! Everything that is started belongs to a [`process::Process`] and is gone when that is dropped. Waiting is always for
//! a condition with a deadline ([`wait::eventually`]).

pub mod bench;
pub mod binaries;
pub mod client;
pub mod comers;
pub mod controller;
pub mod ctl;
pub mod demo;
pub mod etcd;
pub mod fleet;
pub mod http;
pub mod load;
pub mod node;
pub mod origin;
pub mod planted;
pub mod poison;
pub mod ports;
pub mod prefix;
pub mod process;
pub mod procfs;
pub mod program;
pub mod proxy;
pub mod seed;
pub mod signal;
pub mod soak;
pub mod task;
pub mod tls;
pub mod verify;
pub mod wait;
