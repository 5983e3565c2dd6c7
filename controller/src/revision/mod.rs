//! The fleet's configuration through time.
//!
//! A revision is one atomic change set over the managed files. Contents are blobs addressed by their SHA-256, the file
//! map is sharded into pages that are blobs too, so a change writes new blobs and touched pages first, and then the
//! revision's record together with `head` in one compare-and-set: a change of any size is atomic within the limits of the store.

mod change;
mod check;
mod files;
mod head;
mod record;
mod repository;
mod shape;

pub use self::change::{Draft, Request, Selection, draft};
pub use self::check::{Checked, Problem, UpstreamInfo, VhostInfo, check};
pub use self::files::{Content, Files, difference, digest_of, invalid_name};
pub use self::head::{Head, Settled, matches};
pub use self::record::{Change, ChangeKind, Changes, FileEntry, Manifest, PAGES, PageRef, Record, hex_digest, page_of};
pub use self::repository::{Applied, ApplyError, Meta, Repository, Steering, Stored};
