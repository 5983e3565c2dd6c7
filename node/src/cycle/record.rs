//! What is kept of a vhost or an upstream: a run of bytes that the master puts into memory which all its workers see
//! ([`crate::os::region`]), so that it is there once, whatever the number of processes and of updates.
//!
//! What an index asks for often (order, names, identity) stands where it is found without reading the rest.

use std::ffi::OsStr;
use std::path::Path;

use dysvr_conf::digest::Digest;
use dysvr_conf::model::{self, OrderKey, OrderStep, Outline, ServerName, VsvcId};

use super::Stamp;

/// The bytes are not those of a record, which they always are unless memory was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is kept of it cannot be read")]
pub struct Damaged;

/// The tables that a listener has for names, and the kind of a name in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum NameKind {
    Exact,
    Leading,
    Trailing,
    /// An expression: its pattern stands in the outline.
    Regex,
}

impl NameKind {
    pub(super) fn of(name: &ServerName) -> (Self, &str) {
        match name {
            ServerName::Exact(name) => (Self::Exact, name),
            ServerName::Leading(name) => (Self::Leading, name),
            ServerName::Trailing(name) => (Self::Trailing, name),
            ServerName::Regex { .. } => (Self::Regex, ""),
        }
    }
}

// Where the fields of the head stand. Numbers are little endian.
const DIGEST: usize = 0;
const ID: usize = 32;
const TASK: usize = 40;
const REVISION: usize = 48;
const FLAGS: usize = 56;
const ORDER_LENGTH: usize = 60;
const NAMES_LENGTH: usize = 64;
const OUTLINE_LENGTH: usize = 68;
/// The head's length; behind it stand the order, the names, the outline and the text.
const HEAD: usize = 72;

const HAS_ID: u32 = 1;
const HAS_TASK: u32 = 2;
const HAS_REVISION: u32 = 4;
const PINNED: u32 = 8;

/// The kinds of a piece of text.
const OWN: u8 = 0;
const FILE: u8 = 1;

/// A piece of a vhost's text as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'r> {
    /// It stands here.
    Own(&'r [u8]),
    /// A blob of the region, which others refer to as well.
    File(u32),
}

/// A place in the source as bytes that compare as the places do.
pub(super) fn order_bytes(order: &OrderKey) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut bytes = Vec::with_capacity(64);
    for step in order.0.iter() {
        bytes.extend_from_slice(&step.offset.to_be_bytes());
        match &step.file {
            None => bytes.push(0),
            Some(file) => {
                bytes.push(1);
                bytes.extend_from_slice(file.as_os_str().as_bytes());
                bytes.push(0); // no path has one
            }
        }
    }
    bytes
}

/// The place that [`order_bytes`] were made of.
fn order_of(mut bytes: &[u8]) -> Option<OrderKey> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut steps = Vec::with_capacity(2);
    while let Some((offset, rest)) = bytes.split_first_chunk::<4>() {
        let (has_file, rest) = rest.split_first()?;
        let (file, rest) = match has_file {
            0 => (None, rest),
            _ => {
                let end = rest.iter().position(|byte| *byte == 0)?;
                (Some(Path::new(OsStr::from_bytes(&rest[..end])).into()), &rest[end + 1..])
            }
        };
        steps.push(OrderStep { offset: u32::from_be_bytes(*offset), file });
        bytes = rest;
    }
    bytes.is_empty().then(|| OrderKey(steps.into()))
}

/// The bytes of a vhost's record.
pub(super) fn write(outline: &Outline, stamp: Stamp, pinned: bool, text: &[Piece<'_>]) -> Vec<u8> {
    let order = order_bytes(&outline.order);
    let text_length: usize = text.iter().map(|piece| if let Piece::Own(own) = piece { own.len() + 5 } else { 5 }).sum();
    // Of most vhosts all else fits into that, paths and names included.
    let mut bytes = Vec::with_capacity(text_length + 768);
    bytes.resize(HEAD, 0);
    bytes[DIGEST..ID].copy_from_slice(&outline.digest.0);
    let mut flags = if pinned { PINNED } else { 0 };
    for (at, flag, number) in [
        (ID, HAS_ID, outline.vsvc_id.map(|id| id.0)),
        (TASK, HAS_TASK, stamp.task_id),
        (REVISION, HAS_REVISION, stamp.revision),
    ] {
        flags |= number.map_or(0, |_| flag);
        bytes[at..at + 8].copy_from_slice(&number.unwrap_or_default().to_le_bytes());
    }
    bytes[FLAGS..FLAGS + 4].copy_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&order);

    let names = bytes.len();
    bytes.extend_from_slice(&(outline.names.len() as u32).to_le_bytes());
    let mut end = 0_u32;
    for name in &outline.names {
        end += 1 + NameKind::of(name).1.len() as u32;
        bytes.extend_from_slice(&end.to_le_bytes());
    }
    for name in &outline.names {
        let (kind, text) = NameKind::of(name);
        bytes.push(kind as u8);
        bytes.extend_from_slice(text.as_bytes());
    }

    let start = bytes.len();
    // Into a vector nothing but memory can fail.
    let mut bytes = postcard::to_extend(outline, bytes).unwrap_or_default();
    for (at, length) in [
        (ORDER_LENGTH, order.len()),
        (NAMES_LENGTH, start - names),
        (OUTLINE_LENGTH, bytes.len().saturating_sub(start)),
    ] {
        if let Some(place) = bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&(length as u32).to_le_bytes());
        }
    }
    for piece in text {
        let (kind, number, own) = match piece {
            Piece::Own(own) => (OWN, own.len() as u32, *own),
            Piece::File(at) => (FILE, *at, [].as_slice()),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(own);
    }
    bytes
}

/// A vhost's record.
#[derive(Clone, Copy)]
pub(super) struct Record<'r>(pub &'r [u8]);

impl<'r> Record<'r> {
    fn word(self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    }

    fn number(self, at: usize, flag: u32) -> Option<u64> {
        let number = self.0.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        number.filter(|_| self.word(FLAGS) & flag != 0)
    }

    fn section(self, skipped: &[usize], length: usize) -> &'r [u8] {
        let from = skipped.iter().fold(HEAD, |from, at| from + self.word(*at) as usize);
        self.0.get(from..from + self.word(length) as usize).unwrap_or_default()
    }

    /// Its identity.
    pub(super) fn id(self) -> Option<VsvcId> {
        self.number(ID, HAS_ID).map(VsvcId)
    }

    /// What its block says.
    pub(super) fn digest(self) -> Digest {
        self.0.get(DIGEST..ID).and_then(|bytes| bytes.try_into().ok()).map(Digest).unwrap_or_default()
    }

    /// Who made it so.
    pub(super) fn stamp(self) -> Stamp {
        Stamp { task_id: self.number(TASK, HAS_TASK), revision: self.number(REVISION, HAS_REVISION) }
    }

    /// Whether it cannot be made of its text by itself.
    pub(super) fn is_pinned(self) -> bool {
        self.word(FLAGS) & PINNED != 0
    }

    /// See [`order_bytes`].
    pub(super) fn order(self) -> &'r [u8] {
        self.section(&[], ORDER_LENGTH)
    }

    /// One of its names, by its index; the empty one for none.
    pub(super) fn name(self, index: u16) -> &'r str {
        let names = self.section(&[ORDER_LENGTH], NAMES_LENGTH);
        let names = Record(names);
        let (count, index) = (names.word(0) as usize, usize::from(index));
        if index >= count {
            return "";
        }
        let from = if index == 0 { 0 } else { names.word(4 * index) as usize };
        let to = names.word(4 * (index + 1)) as usize;
        let texts = names.0.get(4 * (count + 1)..).unwrap_or_default();
        texts.get(from + 1..to).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }

    /// All that it is but its text.
    pub(super) fn outline(self) -> Result<Outline, Damaged> {
        let outline = postcard::from_bytes(self.section(&[ORDER_LENGTH, NAMES_LENGTH], OUTLINE_LENGTH));
        let outline: Outline = outline.map_err(|_| Damaged)?;
        Ok(Outline { order: order_of(self.order()).ok_or(Damaged)?, ..outline })
    }

    /// Its text.
    pub(super) fn pieces(self) -> impl Iterator<Item = Piece<'r>> {
        let from = [ORDER_LENGTH, NAMES_LENGTH, OUTLINE_LENGTH]
            .iter()
            .fold(HEAD, |at, length| at + self.word(*length) as usize);
        let mut rest = self.0.get(from..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (kind, behind) = rest.split_first()?;
            let (number, behind) = behind.split_first_chunk::<4>()?;
            let number = u32::from_le_bytes(*number);
            let (piece, behind) = match *kind {
                FILE => (Piece::File(number), behind),
                _ => {
                    let (own, behind) = behind.split_at_checked(number as usize)?;
                    (Piece::Own(own), behind)
                }
            };
            rest = behind;
            Some(piece)
        })
    }
}

/// The bytes of an upstream's record: digest, length of the name, name, the upstream.
pub(super) fn write_upstream(upstream: &model::Upstream) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(384);
    bytes.extend_from_slice(&upstream.digest.0);
    bytes.extend_from_slice(&(upstream.name.len() as u32).to_le_bytes());
    bytes.extend_from_slice(upstream.name.as_bytes());
    postcard::to_extend(upstream, bytes).unwrap_or_default()
}

/// An upstream's record.
#[derive(Clone, Copy)]
pub(super) struct UpstreamRecord<'r>(pub &'r [u8]);

impl<'r> UpstreamRecord<'r> {
    fn parts(self) -> Option<(Digest, &'r str, &'r [u8])> {
        let (digest, rest) = self.0.split_first_chunk::<32>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some((Digest(*digest), std::str::from_utf8(name).ok()?, rest))
    }

    /// What its block says.
    pub(super) fn digest(self) -> Digest {
        self.parts().map(|(digest, ..)| digest).unwrap_or_default()
    }

    /// Its name as it is written.
    pub(super) fn name(self) -> &'r str {
        self.parts().map_or("", |(_, name, _)| name)
    }

    /// The upstream.
    pub(super) fn upstream(self) -> Result<model::Upstream, Damaged> {
        self.parts().and_then(|(.., upstream)| postcard::from_bytes(upstream).ok()).ok_or(Damaged)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dysvr_conf::model::{UpstreamRef, Use};
    use dysvr_conf::problem::Place;
    use dysvr_conf::regex::Regex;

    use super::*;

    fn outline() -> Outline {
        let file: Arc<Path> = Path::new("/etc/nginx/a.conf").into();
        Outline {
            vsvc_id: Some(VsvcId(7)),
            place: Place { file: Arc::clone(&file), line: 3 },
            order: OrderKey([OrderStep { offset: 9, file: Some(file) }, OrderStep { offset: 300, file: None }].into()),
            listens: [].into(),
            names: [
                ServerName::Exact("a.example".into()),
                ServerName::Leading("b.example".into()),
                ServerName::Regex { regex: Regex::new("^c", true).unwrap(), groups: [(1, 0)].into() },
                ServerName::Exact("".into()),
            ]
            .into(),
            variables: ["v".into()].into(),
            uses: [Use::Map(3), Use::Named("n".into())].into(),
            upstreams: [UpstreamRef::Named("u".into())].into(),
            digest: Digest::of(b"x"),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let outline = outline();
        let stamp = Stamp { task_id: Some(u64::MAX), revision: None };
        let text = [Piece::Own(b"server {"), Piece::File(77), Piece::Own(b"}")];
        let bytes = write(&outline, stamp, true, &text);
        let record = Record(&bytes);
        assert_eq!(record.outline().unwrap(), outline);
        assert_eq!((record.id(), record.digest(), record.stamp()), (outline.vsvc_id, outline.digest, stamp));
        assert!(record.is_pinned());
        assert_eq!(record.order(), order_bytes(&outline.order));
        let names: Vec<&str> = (0..5).map(|index| record.name(index)).collect();
        assert_eq!(names, ["a.example", "b.example", "", "", ""]);
        assert_eq!(record.pieces().collect::<Vec<_>>(), text);
    }

    #[test]
    fn damaged_bytes_are_no_record_and_no_panic() {
        let bytes = write(&outline(), Stamp::default(), false, &[Piece::Own(b"server {}")]);
        for length in 0..bytes.len() {
            look(&bytes[..length]);
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                look(&flipped);
            }
        }
    }

    fn look(bytes: &[u8]) {
        let record = Record(bytes);
        let _ = (record.id(), record.stamp(), record.order().len(), record.outline(), record.pieces().count());
        let _ = (0..5).map(|index| record.name(index).len()).sum::<usize>();
        let _ = (UpstreamRecord(bytes).name(), UpstreamRecord(bytes).upstream());
    }

    #[test]
    fn orders_compare_as_their_bytes() {
        let key = |steps: &[(u32, Option<&str>)]| {
            let steps = steps
                .iter()
                .map(|(offset, file)| OrderStep { offset: *offset, file: file.map(|it| Path::new(it).into()) });
            OrderKey(steps.collect())
        };
        let keys = [
            key(&[]),
            key(&[(1, None)]),
            key(&[(256, None)]),
            key(&[(1, Some("a")), (5, None)]),
            key(&[(1, Some("a")), (5, Some("b")), (1, None)]),
            key(&[(1, Some("ab")), (0, None)]),
            key(&[(1, Some("a b")), (0, None)]),
            key(&[(1, Some("a")), (70_000, None)]),
        ];
        for a in &keys {
            assert_eq!(order_of(&order_bytes(a)).as_ref(), Some(a));
            for b in &keys {
                assert_eq!(a.cmp(b), order_bytes(a).cmp(&order_bytes(b)), "{a:?} {b:?}");
            }
        }
    }
}
