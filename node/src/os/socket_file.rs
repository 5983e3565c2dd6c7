//! The file of a unix socket: made by bind(2), and removed again by who made it, never by anybody else.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// A file that one of our sockets is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The file at a path, to which a socket was just bound.
    pub fn at(path: &Path) -> io::Result<Self> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: meta.dev(), inode: meta.ino() })
    }

    /// Removes it, unless another file stands there now.
    pub fn remove(&self) {
        if Self::at(&self.path).is_ok_and(|now| now == *self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes the file of a unix socket on which nobody listens any more: what a killed process leaves behind.
pub fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() && is_deserted(path)? => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Without waiting: a queue that is full says that somebody listens.
fn is_deserted(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let refused = socket.connect(&SockAddr::unix(path)?).err().map(|error| error.kind());
    Ok(refused == Some(io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_what_nobody_uses_is_stale_and_only_what_is_ours_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let ours = SocketFile::at(&path).unwrap();
        remove_stale(&path).unwrap();
        assert!(path.exists(), "somebody listens");
        drop(listener);
        remove_stale(&path).unwrap();
        assert!(!path.exists());
        // Another file of that name; made beside first, or it may be given the same inode.
        let beside = dir.path().join("t");
        let _first = std::fs::File::create(dir.path().join("u")).unwrap();
        let _other = UnixListener::bind(&beside).unwrap();
        let other = SocketFile { inode: ours.inode.wrapping_add(1 << 40), ..ours.clone() };
        std::fs::rename(&beside, &path).unwrap();
        other.remove();
        assert!(path.exists(), "it is somebody else's");
        SocketFile::at(&path).unwrap().remove();
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        remove_stale(&path).unwrap();
        assert!(path.exists(), "it is no socket");
    }
}
