//! The digest of a set of managed files: what a controller promises for a revision and a node reads off its disk.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// SHA-256.
pub type Digest = [u8; 32];

/// Bytes that are hashed at once.
const PIECE: usize = 4 << 10;

/// SHA-256 of one file's contents; the address of its blob.
pub fn of_content(content: &[u8]) -> Digest {
    Sha256::digest(content).into()
}

/// The digest of a whole set: name (relative to the configuration's directory) → digest of its content. Equal sets
/// have equal digests whatever order they were built in; the empty set has one too.
pub fn of_files<N: AsRef<str> + Ord>(files: &BTreeMap<N, Digest>) -> Digest {
    of_files_in_order(files.iter().map(|(name, digest)| (name.as_ref(), *digest)))
}

/// The same of files that come in the order of their names.
pub fn of_files_in_order<'n>(files: impl Iterator<Item = (&'n str, Digest)>) -> Digest {
    // In large pieces: a hash of thousands of short ones spends most of its time between them.
    let (mut hash, mut piece) = (Sha256::new(), Vec::with_capacity(2 * PIECE));
    for (name, content) in files {
        piece.extend((name.len() as u64).to_le_bytes());
        piece.extend(name.as_bytes());
        piece.extend(content);
        if piece.len() >= PIECE {
            hash.update(&piece);
            piece.clear();
        }
    }
    hash.update(&piece);
    hash.finalize().into()
}

/// Lower-case hexadecimal, as `sha256sum` prints it.
pub fn hex(digest: &[u8]) -> String {
    use std::fmt::Write as _;
    digest.iter().fold(String::with_capacity(digest.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_contents_cannot_be_shifted_into_each_other() {
        let one = BTreeMap::from([("a", of_content(b"x"))]);
        let two = BTreeMap::from([("ab", of_content(b"x"))]);
        let none = BTreeMap::<&str, Digest>::new();
        assert_ne!(of_files(&one), of_files(&two));
        assert_ne!(of_files(&one), of_files(&none));
        assert_eq!(hex(&of_content(b"")).len(), 64);
        assert!(hex(&of_content(b"")).starts_with("e3b0c442"));
    }
}
