//! What the store keeps of a revision.

use std::collections::BTreeMap;

use dysvr_proto::digest::{self, Digest, fnv};
use dysvr_proto::id::{Revision, RolloutId};
use serde::{Deserialize, Serialize};

/// How many pages the file map is cut into. At 10,000 vhosts with their upstreams a page is some 40 KiB, at 100,000 it
/// still fits one value of the store.
pub const PAGES: u8 = 64;

/// Changes up to this number stand in the record, more in a blob of their own: a record must fit one value.
const INLINE_CHANGES: usize = 256;

/// A revision. Immutable once it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number.
    pub number: Revision,
    /// What it changed.
    pub parent: Revision,
    /// Of its whole set of files: what a node that runs it computes.
    #[serde(with = "hex_digest")]
    pub digest: Digest,
    /// Who.
    pub author: String,
    /// Why.
    pub message: String,
    /// When, milliseconds since 1970.
    pub created_unix_ms: i64,
    /// What.
    pub changes: Changes,
    /// The pages of its file map that are not empty.
    pub pages: BTreeMap<u8, PageRef>,
    /// The rollout that brings it to the fleet; 0 when there was no node to move.
    pub rollout: RolloutId,
}

/// The blob of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageRef(#[serde(with = "hex_digest")] pub Digest);

/// The changes of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changes {
    /// Few.
    Inline(Vec<Change>),
    /// Many: the blob of their list.
    Blob(PageRef),
}

impl Changes {
    /// The changes as a record keeps them, and the blob to write before it.
    pub fn keep(changes: Vec<Change>) -> (Self, Option<Vec<u8>>) {
        if changes.len() <= INLINE_CHANGES {
            return (Self::Inline(changes), None);
        }
        let blob = crate::store::encode(&changes);
        (Self::Blob(PageRef(digest::of_content(&blob))), Some(blob))
    }
}

/// What happened to one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The file.
    pub name: String,
    /// What happened.
    pub kind: ChangeKind,
    /// Blob before it; absent for an added file.
    pub before: Option<PageRef>,
    /// Blob after it; absent for a deleted file.
    pub after: Option<PageRef>,
    /// Vhosts in the file, before or after.
    pub vsvc_ids: Vec<u64>,
    /// Upstreams in the file, before or after.
    pub ups_ids: Vec<String>,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Add,
    /// It has other contents.
    Modify,
    /// It is gone.
    Delete,
}

/// One file of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its blob.
    #[serde(with = "hex_digest", rename = "d")]
    pub digest: Digest,
    /// Bytes.
    #[serde(rename = "s")]
    pub size: u64,
    /// The revision that last changed it.
    #[serde(rename = "r")]
    pub revision: Revision,
}

/// Name → file, of a whole revision or of one page.
pub type Manifest = BTreeMap<String, FileEntry>;

/// The page that a file stands on: FNV-1a of its name. Part of the stored format.
pub fn page_of(name: &str) -> u8 {
    // Below PAGES, which is a byte.
    (fnv(name) % u64::from(PAGES)) as u8
}

/// Digests as hexadecimal text.
pub mod hex_digest {
    use dysvr_proto::digest::{Digest, hex};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes it.
    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(digest))
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut digest = Digest::default();
        if text.len() != 2 * digest.len() || !text.is_ascii() {
            return Err(D::Error::custom("not a digest"));
        }
        for (byte, n) in digest.iter_mut().zip(0..) {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).map_err(D::Error::custom)?;
        }
        Ok(digest)
    }
}
