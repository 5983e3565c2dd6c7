//! The blocks of a large configuration, made by two threads: at a start nobody else needs the second processor.
//!
//! Each thread has a load of its own that sees what the whole load has read by then and shares nothing that changes. A
//! block that needs more (a file, a host name, what other blocks have said) is left to the whole load, which makes those
//! one after the other as ever: the result is the same whoever makes what.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustc_hash::FxHashMap;

use super::block::Pending;
use super::read::Read;
use super::{Load, LoadOptions, Room};
use crate::http::log::Format;
use crate::intern::Interner;
use crate::model::OrderKey;
use crate::problem::Problem;
use crate::source::Nowhere;

/// Fewer blocks than this are not worth a thread.
const MANY: usize = 2048;
/// So many come first and one after the other: what they include is known to the threads.
const FIRST: usize = 64;
/// Blocks that a thread takes at a time.
const TURN: usize = 64;
/// Once a thread has left so many, blocks of this configuration are not for threads.
const LEFT: usize = 256;

/// Makes one block, whoever's load it is.
pub(super) trait Make<T>: Sync {
    fn make<'l>(&self, load: &mut Load<'l>, block: &Pending<'l>) -> Option<T>;
}

/// What one thread has made.
struct Made<T> {
    /// By the block's number.
    blocks: Vec<(usize, Option<T>)>,
    problems: Vec<(OrderKey, Problem)>,
    warnings: Vec<(OrderKey, Problem)>,
}

impl<'a> Load<'a> {
    /// Makes all of these blocks, in their order; those that cannot be made are noted and left out.
    pub(super) fn make_all<T: Send>(&mut self, blocks: &[Pending<'a>], make: &impl Make<T>) -> Vec<T> {
        if blocks.len() < MANY || !self.may_use_threads {
            return blocks.iter().filter_map(|block| make.make(self, block)).collect();
        }
        let mut all: Vec<Option<Option<T>>> = std::iter::repeat_with(|| None).take(blocks.len()).collect();
        for (made, block) in all.iter_mut().zip(&blocks[..FIRST]) {
            *made = Some(make.make(self, block));
        }

        let next = AtomicUsize::new(FIRST);
        let around = Around {
            options: self.options,
            read: &self.read,
            upstreams: &self.upstreams.own,
            knows_others: self.upstreams.outside.is_some(),
            maps: &self.maps,
            formats: &self.formats,
        };
        let (source, interner) = (&mut *self.source, &mut *self.interner);
        let run = |interner: &mut Interner| around.make(blocks, &next, interner, make);
        let (mut here, mut there) = (None, None);
        // Its shared values live on with what uses them; the table itself would be a second one.
        let mut theirs = || there = Some(run(&mut Interner::default()));
        source.beside(&mut theirs, &mut || here = Some(run(interner)));

        for made in here.into_iter().chain(there) {
            self.problems.extend(made.problems);
            self.warnings.extend(made.warnings);
            for (number, block) in made.blocks {
                all[number] = Some(block);
            }
        }
        let all = all.into_iter().zip(blocks);
        all.filter_map(|(made, block)| made.unwrap_or_else(|| make.make(self, block))).collect()
    }
}

/// What a thread sees of the whole load.
struct Around<'l> {
    options: &'l LoadOptions,
    read: &'l Read<'l>,
    upstreams: &'l FxHashMap<String, Arc<str>>,
    /// Whether the whole load knows upstreams beside these.
    knows_others: bool,
    maps: &'l FxHashMap<Arc<str>, u16>,
    formats: &'l [Arc<Format>],
}

impl<'l> Around<'l> {
    /// Takes blocks as long as there are any.
    fn make<T>(
        &self,
        blocks: &[Pending<'l>],
        next: &AtomicUsize,
        interner: &mut Interner,
        make: &impl Make<T>,
    ) -> Made<T> {
        let room = Room::default();
        let mut source = Nowhere;
        let is_missed = Cell::new(false);
        let known = |name: &str| {
            let known = self.upstreams.get(name).cloned();
            is_missed.set(is_missed.get() | (known.is_none() && self.knows_others));
            known
        };
        let mut load = Load::new(self.options, &mut source, interner, &room, Some(&known));
        load.around = Some(self.read);
        load.maps.clone_from(self.maps);
        load.formats = self.formats.to_vec();
        let mut made = Vec::with_capacity(blocks.len());
        let mut left = 0;
        while left < LEFT {
            let begin = next.fetch_add(TURN, Ordering::Relaxed);
            let Some(turn) = blocks.get(begin..blocks.len().min(begin + TURN)) else { break };
            for (number, block) in (begin..).zip(turn) {
                let (problems, warnings) = (load.problems.len(), load.warnings.len());
                let block = make.make(&mut load, block);
                if std::mem::take(&mut load.wants_more) | is_missed.take() {
                    left += 1;
                    load.problems.truncate(problems);
                    load.warnings.truncate(warnings);
                    // What was not to be had here is to be had from the whole load.
                    load.read = Read::default();
                } else {
                    made.push((number, block));
                }
            }
        }
        Made { blocks: made, problems: load.problems, warnings: load.warnings }
    }
}
