//! Everything that needs `unsafe` or a raw descriptor: fork, signals, channels, shared memory, listening sockets, time.
//! Nothing above this folder has either.

#![allow(unsafe_code)]

pub mod beside;
pub mod channel;
pub mod fork;
pub mod inotify;
pub mod listen;
pub mod marks;
pub mod memory;
pub mod pidfd;
pub mod process;
pub mod procfs;
pub mod region;
pub mod sealed;
pub mod signal;
pub mod socket_file;
pub mod socket_io;
pub mod time;
pub mod zone;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Whether `path` names the open file. (Its number is not given to another one as long as it is open.)
pub fn is_same(path: &Path, held: &File) -> io::Result<bool> {
    let held = held.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok((meta.dev(), meta.ino()) == (held.dev(), held.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

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
