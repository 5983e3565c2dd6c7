//! Where the text of a configuration comes from.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a configuration may ask of the outside while it is read. Paths are absolute.
pub trait Source {
    /// The whole content of a file.
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>>;

    /// The files that match a pattern with `*`, `?` or `[…]`, sorted by name as glob(3) does; none is not an error.
    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>>;

    /// The addresses of a host name that stands in an `upstream` or a `proxy_pass`, in a stable order.
    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>>;
}
