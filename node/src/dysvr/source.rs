//! Where the master's configuration comes from: the file system and the machine's resolver.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dysvr_conf::source::Source;

use super::folder;

/// Largest configuration file that is read, bytes: far above any real one, so that a mistaken path (a device, a log)
/// does not fill memory.
const MAX_FILE: u64 = 256 << 20;

/// Bytes that a vhost's file hardly ever exceeds.
const ROOM: usize = 4 << 10;

/// The machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Machine {
    /// Adds a file's content to `bytes`; gives where it ends there. On an error nothing is added.
    pub(super) fn append(path: &Path, bytes: &mut Vec<u8>) -> io::Result<usize> {
        use std::io::Read as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        // Not blocking: a FIFO without a writer is an empty file, not the end of the master.
        let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let start = bytes.len();
        // Nearly every file is read by one call into this room and a second one that finds its end; the size of a larger one
        // alone is asked for (`Take` does not, a file by itself would). A folder answers EISDIR.
        bytes.reserve(ROOM);
        let mut read = (&file).take(ROOM as u64).read_to_end(bytes);
        if let Ok(ROOM) = read {
            let length = file.metadata().map_or(0, |meta| meta.len().min(MAX_FILE));
            bytes.reserve((length as usize).saturating_sub(ROOM) + 1);
            read = file.take(MAX_FILE + 1 - ROOM as u64).read_to_end(bytes).map(|more| ROOM + more);
        }
        let read = match read {
            Ok(read) if read as u64 > MAX_FILE => Err(io::Error::from_raw_os_error(libc::EFBIG)),
            read => read,
        };
        read.inspect_err(|_| bytes.truncate(start)).map(|read| start + read)
    }
}

impl Source for Machine {
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        let mut bytes = Vec::new();
        Self::append(path, &mut bytes)?;
        Ok(bytes.into())
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        folder::matching(pattern)
    }

    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut found: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect();
        found.dedup();
        Ok(found)
    }
}
