//! How a vhost's record is written.

use dysvr_conf::model::{Outline, ServerName, UpstreamRef};
use serde::Serialize;

use super::items::Rest;
use super::{
    DIGEST, FILE, FILE_NAME, FLAGS, HAS_ID, HAS_REGEXES, HAS_REVISION, HAS_TASK, HAS_USES, HEAD, ID, LENGTHS, LISTENS,
    Listen, NAMES, NameKind, ORDER, OWN, PINNED, Piece, REST, REVISION, Record, SECTIONS, TASK, UPSTREAMS, Used,
    order_bytes, split_piece,
};
use crate::cycle::{Stamp, files};

/// Writes the sections of a record.
struct Writer(Vec<u8>);

impl Writer {
    fn section(&mut self, number: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        write(&mut self.0);
        let length = (self.0.len() - start) as u32;
        let at = LENGTHS + 4 * number;
        self.0[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

fn put(bytes: &mut Vec<u8>, thing: &impl Serialize) {
    // Into a vector nothing but memory can fail.
    *bytes = postcard::to_extend(thing, std::mem::take(bytes)).unwrap_or_default();
}

/// The bytes of a vhost's record.
pub(in crate::cycle) fn write(outline: &Outline, stamp: Stamp, pinned: bool, text: &[Piece<'_>]) -> Box<[u8]> {
    let mut writer = Writer(Vec::with_capacity(2048));
    let bytes = &mut writer.0;
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
    if !outline.uses.is_empty() || !outline.variables.is_empty() {
        flags |= HAS_USES;
    }
    if outline.names.iter().any(|name| matches!(name, ServerName::Regex { .. })) {
        flags |= HAS_REGEXES;
    }
    bytes[FILE_NAME..FLAGS].copy_from_slice(&files::name(&outline.place.file).to_le_bytes());
    bytes[FLAGS..LENGTHS].copy_from_slice(&flags.to_le_bytes());
    writer.section(ORDER, |bytes| bytes.extend_from_slice(&order_bytes(&outline.order)));
    writer.section(NAMES, |bytes| write_names(&outline.names, bytes));
    writer.section(LISTENS, |bytes| {
        outline.listens.iter().for_each(|listen| put(bytes, &Listen::of(listen, &outline.place.file)));
    });
    writer.section(UPSTREAMS, |bytes| {
        for used in &outline.upstreams {
            match used {
                UpstreamRef::Named(name) => put(bytes, &Used::Named(name)),
                UpstreamRef::Implicit(upstream) => {
                    let whole = postcard::to_stdvec(&**upstream).unwrap_or_default();
                    put(bytes, &Used::Implicit(&upstream.name, &whole));
                }
            }
        }
    });
    writer.section(REST, |bytes| put(bytes, &Rest::of(outline)));
    let mut bytes = writer.0;
    for piece in text {
        let (kind, number, own) = match piece {
            Piece::Own(own) => (OWN, own.len() as u32, *own),
            Piece::File(at) => (FILE, *at, [].as_slice()),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(own);
    }
    // Without spare room: there may be a hundred thousand of them at a time.
    bytes.as_slice().into()
}

/// Their count, where each of them ends, and kind and text of each.
fn write_names(names: &[ServerName], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(names.len() as u32).to_le_bytes());
    let mut end = 0_u32;
    for name in names {
        end += 1 + NameKind::of(name).1.len() as u32;
        bytes.extend_from_slice(&end.to_le_bytes());
    }
    for name in names {
        let (kind, text) = NameKind::of(name);
        bytes.push(kind as u8);
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// Gives the files that a vhost's text includes other numbers.
pub(in crate::cycle) fn set_files(record: &mut [u8], number: impl Fn(u32) -> u32) {
    let mut at = Record(record).begins(SECTIONS);
    while let Some((piece, behind)) = record.get(at..).and_then(split_piece) {
        let next = record.len() - behind.len();
        if let Piece::File(given) = piece {
            record[at + 1..next].copy_from_slice(&number(given).to_le_bytes());
        }
        at = next;
    }
}
