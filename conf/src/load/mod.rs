//! Files to a [`Config`]: reading, expanding includes, applying directives block by block, merging, checking.
//!
//! A block is applied in two steps, so that what is inherited does not depend on the order of the lines: first all its
//! directives, then the blocks inside it, which merge from the finished values. Problems are collected with their place
//! in the expanded source and sorted at the end. The same text gives the same result: there is no clock and no
//! randomness, and nothing iterates over a hash table.

mod arena;
mod block;
mod call;
mod check;
mod definitions;
mod files;
mod fragment;
mod http;
mod keep;
mod location;
mod map;
mod number;
mod parallel;
mod read;
mod server;
mod single;
mod ssl;
mod template;
mod text;
mod top;
mod upstream;
mod url;
mod variables;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use call::{Call, Fault};
pub use check::mixed_ssl;
pub use fragment::{KnownUpstream, LOST, Made, Running, load_fragment, load_fragment_keeping};
pub use http::Levels;
pub use keep::{Keep, Whole};
pub(crate) use map::{Wildcard, wildcard};
pub(crate) use number::{millis, number, seconds, size};
pub use server::ServerSet;
pub use single::load_vhost;
pub use upstream::UpstreamSet;
pub(crate) use url::{Form, Host, parse as parse_url};

use crate::digest::{Canonical, Words};
use crate::http::log::Format;
use crate::intern::Interner;
use crate::model::{Config, OrderKey, Use};
use crate::problem::{Place, Problem, Problems};
use crate::regex::Regex;
use crate::source::Source;
use crate::syntax::{self, Position};
use arena::Arena;
use files::{File, Origin, Site};
use read::Read;

/// What the command line says about a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// `-c`: the main configuration file, absolute.
    pub conf: PathBuf,
    /// `-p`: the prefix, absolute.
    pub prefix: PathBuf,
    /// `-g`: directives that stand before the file.
    pub globals: String,
    /// Whether the process is root: without it a `server` without `listen` is on port 8000.
    pub privileged: bool,
}

/// Reads a whole configuration.
pub fn load(options: &LoadOptions, source: &mut dyn Source, interner: &mut Interner) -> Result<Config, Problems> {
    load_keeping(options, source, interner, &Whole)
}

/// The same, with what `keep` makes of its vhosts and upstreams.
pub fn load_keeping<K: Keep>(
    options: &LoadOptions,
    source: &mut dyn Source,
    interner: &mut Interner,
    keep: &K,
) -> Result<Config<K::Vhost, K::Upstream>, Problems> {
    let room = Room::default();
    let mut load = Load::new(options, source, interner, &room, None);
    load.may_use_threads = true;
    let config = load.top(keep);
    load.finish(config)
}

/// Where a load keeps what it reads, until it ends: apart from what it makes, so that it leaves no holes in memory.
#[derive(Default)]
struct Room<'a> {
    texts: Arena<Arc<[u8]>>,
    files: Arena<File<'a>>,
    blocks: syntax::Arena,
}

/// The state of a load. `'a` is the life of the texts and of what the caller lent.
pub(crate) struct Load<'a> {
    options: &'a LoadOptions,
    source: &'a mut dyn Source,
    interner: &'a mut Interner,
    texts: &'a Arena<Arc<[u8]>>,
    trees: &'a Arena<File<'a>>,
    blocks: &'a syntax::Arena,
    read: Read<'a>,
    /// What the load has read that this one works for, if it is one of [`parallel`]'s.
    around: Option<&'a Read<'a>>,
    /// Whether something was needed that is not known, or that depends on what other blocks have said.
    wants_more: bool,
    /// Whether large parts may be made by a second thread.
    may_use_threads: bool,
    /// The sizes of `ssl_session_cache`s.
    session_caches: FxHashMap<Arc<str>, u64>,
    /// How many inclusions the pass may still make.
    inclusions_left: usize,
    problems: Vec<(OrderKey, Problem)>,
    warnings: Vec<(OrderKey, Problem)>,
    /// The maps' names; the last of equal ones counts.
    maps: FxHashMap<Arc<str>, u16>,
    /// The named groups of the expression whose value is read, in a `map`.
    map_groups: Vec<(String, u8)>,
    formats: Vec<Arc<Format>>,
    /// The expressions that it has compiled: the next vhost finds them, even if nothing is kept of this one.
    regexes: Vec<Regex>,
    /// Where definitions go that a fragment adds or replaces.
    slots: definitions::Slots,
    /// What `http` itself, or the definition that is read, uses of `http`.
    uses: Vec<Use>,
    upstreams: upstream::Known<'a>,
    /// The vhost that is read, if one is.
    vhost: Option<variables::VhostScope>,
    /// What a `proxy_pass` must know about the block that it stands in.
    pass_scope: location::PassScope,
    /// Variables that `http` uses and vhosts must set.
    named: Vec<variables::NamedUse>,
    /// See [`Config::outside`].
    outside: Canonical,
    /// Room for the words of one block.
    words: Words,
}

impl<'a> Load<'a> {
    fn new(
        options: &'a LoadOptions,
        source: &'a mut dyn Source,
        interner: &'a mut Interner,
        room: &'a Room<'a>,
        known_upstream: Option<&'a fragment::KnownUpstream<'a>>,
    ) -> Self {
        Self {
            options,
            source,
            interner,
            texts: &room.texts,
            trees: &room.files,
            blocks: &room.blocks,
            read: Read::default(),
            around: None,
            wants_more: false,
            may_use_threads: false,
            session_caches: FxHashMap::default(),
            inclusions_left: files::MAX_INCLUSIONS,
            problems: Vec::new(),
            warnings: Vec::new(),
            maps: FxHashMap::default(),
            map_groups: Vec::new(),
            formats: Vec::new(),
            regexes: Vec::new(),
            slots: definitions::Slots::default(),
            uses: Vec::new(),
            upstreams: upstream::Known::new(known_upstream),
            vhost: None,
            pass_scope: location::PassScope::default(),
            named: Vec::new(),
            outside: Canonical::default(),
            words: Words::default(),
        }
    }

    /// Notes a problem. On the command line it says so itself, as nginx does.
    pub(crate) fn problem(&mut self, site: &Arc<Site>, at: Position, text: impl Into<String>) {
        let mut text = text.into();
        if let Origin::Globals = site.origin {
            text += " in command line";
        }
        self.problems.push((site.key(at.offset), Problem { text, place: site.place(at) }));
    }

    pub(crate) fn warning(&mut self, site: &Arc<Site>, at: Position, text: String) {
        self.warnings.push((site.key(at.offset), Problem { text, place: site.place(at) }));
    }

    /// Notes a problem that concerns a block as a whole.
    pub(crate) fn problem_at(&mut self, key: &OrderKey, place: &Place, text: impl Into<String>) {
        self.problems.push((key.clone(), Problem { text: text.into(), place: Some(place.clone()) }));
    }

    /// See [`location::PassScope`].
    pub(crate) fn pass_scope(&self) -> location::PassScope {
        self.pass_scope
    }

    /// The result, or all problems.
    fn finish<T>(self, result: T) -> Result<T, Problems> {
        match sorted(self.problems) {
            problems if problems.is_empty() => Ok(result),
            problems => Err(Problems(problems)),
        }
    }

    fn sorted_warnings(&mut self) -> Vec<Problem> {
        sorted(std::mem::take(&mut self.warnings))
    }
}

/// In the order of the expanded source; a file that is included twice says things once.
fn sorted(mut found: Vec<(OrderKey, Problem)>) -> Vec<Problem> {
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut problems: Vec<Problem> = Vec::with_capacity(found.len());
    let mut seen = std::collections::HashSet::new();
    for (_, problem) in found {
        if seen.insert((problem.text.clone(), problem.place.clone())) {
            problems.push(problem);
        }
    }
    problems
}

/// The name of the file that a place is in, as an [`Arc`].
fn path_of(path: &Path) -> Arc<Path> {
    path.into()
}
