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

/// How many parts a set is digested in: when one of 100,000 files changes, some 400 of them are hashed again.
pub const PARTS: usize = 256;

/// FNV-1a of a name, for where it stands.
pub fn fnv(name: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    name.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The part that a file belongs to, below [`PARTS`].
pub fn part_of(name: &str) -> usize {
    (fnv(name) % PARTS as u64) as usize
}

/// The digest of a whole set: name (relative to the configuration's directory) → digest of its content. Equal sets
/// have equal digests whatever order they were built in; the empty set has one too.
pub fn of_files<N: AsRef<str> + Ord>(files: &BTreeMap<N, Digest>) -> Digest {
    let mut parts = vec![Vec::new(); PARTS];
    for (name, digest) in files {
        parts[part_of(name.as_ref())].push((name.as_ref(), *digest));
    }
    of_parts(parts.into_iter().map(|part| of_part(part.into_iter())))
}

/// The digest of a set from those of all its parts, in their order.
pub fn of_parts(parts: impl Iterator<Item = Digest>) -> Digest {
    let mut all = Vec::with_capacity(PARTS * size_of::<Digest>());
    parts.for_each(|part| all.extend(part));
    Sha256::digest(&all).into()
}

/// The digest of a part from its files, which come in the order of their names.
pub fn of_part<'n>(files: impl Iterator<Item = (&'n str, Digest)>) -> Digest {
    // In large pieces: a hash of many short ones spends most of its time between them.
    let (mut hash, mut piece) = (Sha256::new(), Vec::new());
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
