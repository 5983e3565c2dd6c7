//! Everything that needs `unsafe` or a raw descriptor: fork, signals, channels, shared memory, listening sockets, time.
//! Nothing above this folder has either.

#![allow(unsafe_code)]

pub mod channel;
pub mod fork;
pub mod inotify;
pub mod listen;
pub mod marks;
pub mod memory;
pub mod pidfd;
pub mod process;
pub mod procfs;
pub mod sealed;
pub mod signal;
pub mod socket_file;
pub mod socket_io;
pub mod time;
pub mod zone;

use std::io;

/// `98: Address already in use`, as nginx prints an error of the system.
pub fn errno(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => {
            let text = error.to_string();
            let text = text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text);
            format!("{code}: {text}")
        }
        None => error.to_string(),
    }
}
