//! What is kept of a vhost or an upstream: a run of bytes that the master puts into memory which all its workers see
//! ([`crate::os::region`]), so that it is there once, whatever the number of processes and of updates.
//!
//! The tables of a process are made of what stands here as it stands. What an index asks for often (order, names, identity)
//! is found without reading the rest.

mod items;
mod order;
mod upstream;
mod write;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use dysvr_conf::digest::Digest;
use dysvr_conf::intern::Interner;
use dysvr_conf::model::{OrderKey, Outline, ServerName, Use, VsvcId};
use dysvr_conf::problem::Place;
use dysvr_conf::regex::Regex;

use super::{Stamp, files};
use items::{Expression, Rest, items};
use order::{order_of, order_steps};

pub(super) use items::{Listen, Used};
pub(super) use order::order_bytes;
pub(super) use upstream::{UpstreamRecord, write_upstream};
pub(super) use write::{set_files, write};

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
    /// An expression: a record has no text for it here, see [`Record::regexes`].
    Regex,
}

impl NameKind {
    fn of(name: &ServerName) -> (Self, &str) {
        match name {
            ServerName::Exact(name) => (Self::Exact, name),
            ServerName::Leading(name) => (Self::Leading, name),
            ServerName::Trailing(name) => (Self::Trailing, name),
            ServerName::Regex { .. } => (Self::Regex, ""),
        }
    }

    fn from_byte(kind: u8) -> Option<Self> {
        [Self::Exact, Self::Leading, Self::Trailing, Self::Regex].into_iter().find(|known| *known as u8 == kind)
    }

    /// The name that is no expression.
    pub(super) fn name(self, name: &str) -> ServerName {
        match self {
            Self::Exact | Self::Regex => ServerName::Exact(name.into()),
            Self::Leading => ServerName::Leading(name.into()),
            Self::Trailing => ServerName::Trailing(name.into()),
        }
    }
}

// Where the fields of the head stand. Numbers are little endian.
const DIGEST: usize = 0;
const ID: usize = 32;
const TASK: usize = 40;
const REVISION: usize = 48;
const FILE_NAME: usize = 56;
const FLAGS: usize = 64;
/// The lengths of the sections, which stand behind the head in this order.
const LENGTHS: usize = 68;
const HEAD: usize = LENGTHS + 4 * SECTIONS;

// The sections; behind them stands the text.
const ORDER: usize = 0;
const NAMES: usize = 1;
const LISTENS: usize = 2;
const UPSTREAMS: usize = 3;
const REST: usize = 4;
const SECTIONS: usize = 5;

const HAS_ID: u32 = 1;
const HAS_TASK: u32 = 2;
const HAS_REVISION: u32 = 4;
const PINNED: u32 = 8;
/// It uses something of `http`, or has variables.
const HAS_USES: u32 = 16;
/// Some of its names are expressions.
const HAS_REGEXES: u32 = 32;

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

fn path(bytes: &[u8]) -> Arc<Path> {
    Path::new(OsStr::from_bytes(bytes)).into()
}

/// A vhost's record.
#[derive(Clone, Copy)]
pub(super) struct Record<'r>(pub &'r [u8]);

impl<'r> Record<'r> {
    fn word(self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    }

    fn number(self, at: usize, flag: u32) -> Option<u64> {
        (self.word(FLAGS) & flag != 0).then(|| self.long(at))
    }

    fn long(self, at: usize) -> u64 {
        self.0.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    fn begins(self, section: usize) -> usize {
        (0..section).fold(HEAD, |at, before| at.saturating_add(self.word(LENGTHS + 4 * before) as usize))
    }

    fn section(self, section: usize) -> &'r [u8] {
        let from = self.begins(section);
        let to = from.saturating_add(self.word(LENGTHS + 4 * section) as usize);
        self.0.get(from..to).unwrap_or_default()
    }

    /// That none of its sections is cut short. What stands in them is not looked at: what the tables are made of is in the
    /// digest that a worker shows, and the rest is read, and checked, when the vhost is compiled.
    pub(super) fn check(self) -> Result<(), Damaged> {
        match self.begins(SECTIONS) <= self.0.len() {
            true => Ok(()),
            false => Err(Damaged),
        }
    }

    /// Whether it has the place of another one in every table: the same names, none of which is an expression, at the same
    /// addresses, at the same place of the source.
    pub(super) fn stands_like(self, other: Self) -> bool {
        let same = |section| self.section(section) == other.section(section);
        self.id() == other.id()
            && [ORDER, NAMES].into_iter().all(same)
            && self.word(FLAGS) & HAS_REGEXES == 0
            && self.listens().map(Listen::says).eq(other.listens().map(Listen::says))
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

    /// The file that its block stands in.
    pub(super) fn file(self) -> files::Name {
        self.long(FILE_NAME)
    }

    /// Whether it cannot be made of its text by itself.
    pub(super) fn is_pinned(self) -> bool {
        self.word(FLAGS) & PINNED != 0
    }

    /// See [`order_bytes`].
    pub(super) fn order(self) -> &'r [u8] {
        self.section(ORDER)
    }

    /// The same as a load has it.
    pub(super) fn order_key(self) -> Result<OrderKey, Damaged> {
        order_of(self.order())
    }

    /// Its names. Those that are expressions have no text here.
    pub(super) fn names(self) -> impl Iterator<Item = (NameKind, &'r str)> {
        let names = Record(self.section(NAMES));
        (0..names.word(0) as usize).map_while(move |index| names.nth_name(index))
    }

    /// One of its names, by its index; the empty one for none.
    pub(super) fn name(self, index: u16) -> &'r str {
        Record(self.section(NAMES)).nth_name(index.into()).map_or("", |(_, name)| name)
    }

    /// Of the section of names.
    fn nth_name(self, index: usize) -> Option<(NameKind, &'r str)> {
        let count = self.word(0) as usize;
        if index >= count {
            return None;
        }
        let from = if index == 0 { 0 } else { self.word(4 * index) as usize };
        let to = self.word(4 * (index + 1)) as usize;
        let (kind, text) = self.0.get(4 * (count + 1)..)?.get(from..to)?.split_first()?;
        Some((NameKind::from_byte(*kind)?, std::str::from_utf8(text).ok()?))
    }

    /// Its `listen`s.
    pub(super) fn listens(self) -> impl Iterator<Item = Listen<'r>> {
        items(self.section(LISTENS)).map_while(Result::ok)
    }

    /// The upstreams that it passes to.
    pub(super) fn upstreams(self) -> impl Iterator<Item = Used<'r>> {
        items(self.section(UPSTREAMS)).map_while(Result::ok)
    }

    fn rest(self) -> Result<Rest<'r>, Damaged> {
        postcard::from_bytes(self.section(REST)).map_err(|_| Damaged)
    }

    /// Those of its names that are expressions, by index.
    pub(super) fn regexes(self, interner: &mut Interner) -> Result<Vec<(u16, Regex)>, Damaged> {
        if self.word(FLAGS) & HAS_REGEXES == 0 {
            return Ok(Vec::new());
        }
        let mut regex = |known: &Expression<'_>| interner.regex(known.pattern, known.caseless).map_err(|_| Damaged);
        self.rest()?.regexes.iter().map(|known| Ok((known.index, regex(known)?))).collect()
    }

    /// What it uses of `http`, and the variables that it sets.
    pub(super) fn uses(self) -> (Vec<Use>, Vec<&'r str>) {
        match self.word(FLAGS) & HAS_USES {
            0 => Default::default(),
            _ => self.rest().map(|rest| (rest.uses, rest.variables)).unwrap_or_default(),
        }
    }

    /// Where its block begins.
    pub(super) fn place(self) -> Result<Place, Damaged> {
        let rest = self.rest()?;
        let last = || order_steps(self.order()).filter_map(|step| step.ok()?.1).last();
        Ok(Place { file: path(rest.file.or_else(last).ok_or(Damaged)?), line: rest.line })
    }

    /// All that it is but its text.
    pub(super) fn outline(self) -> Result<Outline, Damaged> {
        let (rest, place) = (self.rest()?, self.place()?);
        let mut regexes = rest.regexes.into_iter();
        let mut regex = || {
            let found = regexes.next().ok_or(Damaged)?;
            Ok(ServerName::Regex { regex: found.regex()?, groups: found.groups.into() })
        };
        let name = |(kind, name): (NameKind, &str)| match kind {
            NameKind::Regex => regex(),
            kind => Ok(kind.name(name)),
        };
        let listens = items::<Listen<'_>>(self.section(LISTENS));
        Ok(Outline {
            vsvc_id: self.id(),
            order: self.order_key()?,
            listens: listens.map(|it| it.map(|it| it.into_model(&place.file))).collect::<Result<_, _>>()?,
            names: self.names().map(name).collect::<Result<_, _>>()?,
            variables: rest.variables.into_iter().map(Arc::from).collect(),
            uses: rest.uses.into(),
            upstreams: items::<Used<'_>>(self.section(UPSTREAMS)).map(|it| it?.upstream()).collect::<Result<_, _>>()?,
            digest: self.digest(),
            place,
        })
    }

    /// Its text.
    pub(super) fn pieces(self) -> impl Iterator<Item = Result<Piece<'r>, Damaged>> {
        let mut rest = self.text();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let piece = split_piece(rest);
            rest = piece.map_or(&[], |(_, behind)| behind);
            Some(piece.map(|(piece, _)| piece).ok_or(Damaged))
        })
    }

    fn text(self) -> &'r [u8] {
        self.0.get(self.begins(SECTIONS)..).unwrap_or_default()
    }
}

/// The first piece of a text, and what stands behind it.
fn split_piece(text: &[u8]) -> Option<(Piece<'_>, &[u8])> {
    let (kind, behind) = text.split_first()?;
    let (number, behind) = behind.split_first_chunk::<4>()?;
    let number = u32::from_le_bytes(*number);
    if *kind == FILE {
        return Some((Piece::File(number), behind));
    }
    let (own, behind) = behind.split_at_checked(number as usize)?;
    Some((Piece::Own(own), behind))
}

#[cfg(test)]
mod tests;
