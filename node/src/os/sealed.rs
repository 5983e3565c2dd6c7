//! Bytes for other processes that nobody can change any more: what is too large for the zone travels like this over the
//! channels, one copy for all workers.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Memory without a name, sealed: neither its size nor its bytes can change.
#[derive(Debug)]
pub struct Sealed(File);

const SEALS: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

impl Sealed {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        let mut file = File::from(memfd_create("dysvr-task", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
        file.write_all(bytes)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
        Ok(Self(file))
    }

    /// Takes in what another process has sent; refuses what is not sealed.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let seals = fcntl(&fd, FcntlArg::F_GET_SEALS)?;
        if !SealFlag::from_bits_truncate(seals).contains(SEALS) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not sealed"));
        }
        Ok(Self(fd.into()))
    }

    /// All bytes, if there are at most so many.
    pub fn read_all(&self, most: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.0.metadata()?.len()).unwrap_or(usize::MAX);
        self.read(if length <= most { length } else { 0 })
    }

    /// The bytes, if there are exactly `length` of them.
    pub fn read(&self, length: usize) -> io::Result<Vec<u8>> {
        if self.0.metadata()?.len() != length as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "of another length"));
        }
        let mut bytes = vec![0; length];
        // By its own position: the descriptor's is shared with every process that has it.
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

impl AsRawFd for Sealed {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_as_it_is_and_never_changes() {
        let sealed = Sealed::new(b"a large task").unwrap();
        let other = Sealed::from_fd(sealed.0.try_clone().unwrap().into()).unwrap();
        assert_eq!(other.read(12).unwrap(), b"a large task");
        assert_eq!(sealed.read(12).unwrap(), b"a large task", "a reader takes nothing away");
        assert!(sealed.read(11).is_err() && sealed.read(usize::MAX).is_err());
        assert!(other.0.write_all_at(b"x", 0).is_err() && other.0.set_len(3).is_err());
    }

    #[test]
    fn what_could_change_is_refused() {
        assert!(Sealed::from_fd(tempfile::tempfile().unwrap().into()).is_err());
        let memory = memfd_create("x", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert_eq!(Sealed::from_fd(memory).unwrap_err().to_string(), "not sealed");
    }
}
