//! Where the master's configuration comes from: the file system and the machine's resolver.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dysvr_conf::source::Source;

/// Largest configuration file that is read, bytes: far above any real one, so that a mistaken path (a device, a log)
/// does not fill memory.
const MAX_FILE: u64 = 256 << 20;

/// The machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Source for Machine {
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        use std::io::Read as _;
        let file = std::fs::File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        let mut bytes = Vec::with_capacity(meta.len().min(MAX_FILE) as usize + 1);
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        Ok(bytes.into())
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        let text = pattern.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        // To glob(3) two stars are one; to this library they would be all folders below.
        let mut text = text.to_owned();
        while text.contains("**") {
            text = text.replace("**", "*");
        }
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let found = glob::glob_with(&text, options).map_err(io::Error::other)?;
        let mut paths = found.collect::<Result<Vec<_>, _>>().map_err(io::Error::from)?;
        paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
        Ok(paths)
    }

    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut found: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect();
        found.dedup();
        Ok(found)
    }
}
