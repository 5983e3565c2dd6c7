//! A vhost as the tables of a process know it: its record, and what has been compiled of it, if anything has.
//!
//! A vhost is compiled by the first request that a process has for it. What needs more than its own text (certificates,
//! files, the addresses of host names) is compiled where the master checks it, and by each worker before it says that it
//! is prepared: such an entry is *pinned*.

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::digest::Digest;
use dysvr_conf::load::{Running, load_vhost};
use dysvr_conf::model::{self, OrderKey, Outline, UpstreamRef, Use, VsvcId};
use dysvr_conf::problem::Place;
use dysvr_conf::regex::Regex;

use super::change::{self, no_upstream, wrong};
use super::digest::{Kind, Sum};
use super::early::Put;
use super::record::{self, Damaged, Listen, NameKind, Piece, Record, Used};
use super::recorded::{Outlined, Recorded};
use super::slot::Slot;
use super::{Cycle, Refusal, Stamp, UpstreamCell, Vhost, files, logs};
use crate::dysvr::update::guarded;
use crate::log::Level;
use crate::os::region::Blob;
use crate::os::zone::TASK;

/// See the module. There is one for each vhost in each process, so what not all have stands apart.
pub struct Entry {
    blob: Blob,
    vhost: Slot<Vhost>,
    rare: OnceCell<Box<Rare>>,
}

#[derive(Default)]
struct Rare {
    /// The files that its text includes, which it keeps there together with others; in the process that put them.
    _files: Box<[Rc<Blob>]>,
    /// Its own copy, where it must outlive what is shared.
    own: OnceCell<Box<Own>>,
    quarantined: Cell<bool>,
}

struct Own {
    record: Vec<u8>,
    text: Vec<u8>,
}

/// An entry that comes or goes.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) entry: Rc<Entry>,
    /// What was read of it, if that was just now. To free it takes a while, so in a task it stays until nobody waits any
    /// more.
    read: Option<Recorded>,
    /// Those of its names that are expressions, by index, if it comes.
    pub(super) regexes: Vec<(u16, Regex)>,
    /// The entry of another part of the change, whose very place in all tables this one takes over, or gives up to it.
    pub(super) peer: Option<Rc<Entry>>,
}

impl Part {
    /// What was compiled of it as it was read, if it is pinned and comes.
    pub(super) fn whole(&self) -> Option<&Arc<model::Vhost>> {
        match self.read.as_ref().map(|read| &read.outline) {
            Some(Outlined::Whole(vhost)) => Some(vhost),
            Some(Outlined::Alone(_)) | None => None,
        }
    }

    /// One that goes.
    pub(super) fn going(entry: &Rc<Entry>) -> Self {
        Self { entry: Rc::clone(entry), read: None, regexes: Vec::new(), peer: None }
    }

    /// The one of an id that goes because this one comes.
    pub(super) fn replacing(&mut self, old: &Rc<Entry>) -> Self {
        let mut gone = Self::going(old);
        if self.entry.record().stands_like(old.record()) {
            self.peer = Some(Rc::clone(old));
            gone.peer = Some(Rc::clone(&self.entry));
        }
        gone
    }
}

impl Deref for Part {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Entry {
    fn record(&self) -> Record<'_> {
        Record(self.own().map_or(&*self.blob, |own| &own.record))
    }

    fn own(&self) -> Option<&Own> {
        self.rare.get()?.own.get().map(Box::as_ref)
    }

    /// Where its record stands in the region.
    pub(super) fn at(&self) -> u32 {
        self.blob.at()
    }

    /// Where its block begins.
    pub fn place(&self) -> Place {
        self.record().place().unwrap_or_else(|Damaged| Place { file: Path::new("").into(), line: 0 })
    }

    /// Its identity.
    pub fn id(&self) -> Option<VsvcId> {
        self.record().id()
    }

    /// What its block says.
    pub fn digest(&self) -> Digest {
        self.record().digest()
    }

    /// Who made it so.
    pub fn stamp(&self) -> Stamp {
        self.record().stamp()
    }

    /// The file that its block stands in.
    pub(super) fn file(&self) -> files::Name {
        self.record().file()
    }

    /// Its place in the source, as a load has it.
    pub fn order_key(&self) -> OrderKey {
        self.record().order_key().unwrap_or_default()
    }

    /// The same as bytes, see [`record::order_bytes`].
    pub(super) fn order(&self) -> &[u8] {
        self.record().order()
    }

    /// One of its names.
    pub(super) fn name(&self, index: u16) -> &str {
        self.record().name(index)
    }

    /// All of its names.
    pub(super) fn names(&self) -> impl Iterator<Item = (NameKind, &str)> {
        self.record().names()
    }

    /// Its `listen`s.
    pub(super) fn listens(&self) -> impl Iterator<Item = Listen<'_>> {
        self.record().listens()
    }

    /// The upstreams that it passes to.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = Used<'_>> {
        self.record().upstreams()
    }

    /// What it uses of `http`, and the variables that it sets.
    pub(super) fn uses(&self) -> (Vec<Use>, Vec<&str>) {
        self.record().uses()
    }

    /// Whether it is compiled from the beginning.
    pub fn is_pinned(&self) -> bool {
        self.record().is_pinned()
    }

    /// All that it is but its text.
    pub fn outline(&self) -> Result<Outline, Refusal> {
        self.record().outline().map_err(|damaged| self.refusal(damaged))
    }

    fn refusal(&self, damaged: Damaged) -> Refusal {
        wrong(format!("vhost {:?}: {damaged}", self.id()))
    }

    /// Names this version of the vhost in a word, the same in all processes and never 0; see [`crate::os::zone::Pulse`].
    pub fn mark(&self) -> u64 {
        mark_of(&self.digest())
    }

    /// It has crashed workers: it answers 503 until it is modified, and nothing of its own is run.
    pub fn quarantine(&self, quarantined: bool) {
        if quarantined || self.rare.get().is_some() {
            self.rare.get_or_init(Box::default).quarantined.set(quarantined);
        }
        if let Some(vhost) = self.compiled() {
            vhost.quarantined.set(quarantined);
        }
    }

    /// What was compiled of it, if anything was.
    pub(super) fn compiled(&self) -> Option<Rc<Vhost>> {
        self.vhost.get()
    }

    /// Keeps what was compiled of it, until it is replaced.
    pub(super) fn keep(&self, vhost: Vhost) -> Rc<Vhost> {
        vhost.quarantined.set(self.rare.get().is_some_and(|rare| rare.quarantined.get()));
        let vhost = Rc::new(vhost);
        self.vhost.set(Rc::clone(&vhost));
        vhost
    }

    /// Copies what is shared of it: it will outlive its record. Without a text it can still be found, but not compiled; that
    /// is in the log.
    pub(super) fn detach(&self) {
        if self.own().is_none() {
            let text = self.text().unwrap_or_else(|damaged| {
                log!(Level::Alert, "[dysvr] vhost {:?}: {damaged}", self.id());
                Vec::new()
            });
            let _ = self.rare.get_or_init(Box::default).own.set(Box::new(Own { record: self.blob.to_vec(), text }));
        }
    }

    fn text(&self) -> Result<Vec<u8>, Damaged> {
        if let Some(own) = self.own() {
            return Ok(own.text.clone());
        }
        let mut text = Vec::new();
        for piece in self.record().pieces() {
            match piece? {
                Piece::Own(own) => text.extend_from_slice(own),
                Piece::File(at) => text.extend_from_slice(&self.blob.region().blob(at).ok_or(Damaged)?),
            }
        }
        Ok(text)
    }
}

/// See [`Entry::mark`].
pub(super) fn mark_of(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]).clamp(1, TASK - 1)
}

impl Cycle {
    /// The parts that vhosts which were just read are of a change, and their sum. A load lets go of what was read as it goes on: entries
    /// take that room, and it does not lie between them when others are forked.
    pub(super) fn coming(
        &self,
        vhosts: Vec<Recorded>,
        put: Option<&mut Put>,
        kind: change::Kind,
    ) -> Result<(Vec<Part>, Sum), Refusal> {
        let (mut parts, mut sum) = (Vec::with_capacity(vhosts.len()), Sum::default());
        let mut put = put.into_iter().flat_map(Put::take_vhosts);
        for mut read in vhosts {
            let entry = put.next().map_or_else(|| self.entry_of(&mut read), Ok)?;
            let stays = kind != change::Kind::Load || entry.is_pinned();
            sum += entry.sum();
            parts.push(self.part(entry, stays.then_some(read))?);
        }
        Ok((parts, sum))
    }

    /// Puts the record of a vhost that was just read into the region.
    pub(super) fn entry_of(&self, read: &mut Recorded) -> Result<Entry, Refusal> {
        let files = read.files.iter().map(|text| self.file(text)).collect::<Result<Box<[_]>, _>>()?;
        record::set_files(&mut read.record, |index| files.get(index as usize).map_or(0, |file| file.at()));
        Ok(Entry::new(self.put(&read.record)?, files))
    }

    /// The same for one that the master has put into the region. `read`: what this process has read of it, which it must
    /// have if it is pinned.
    pub(super) fn placed(&self, at: u32, read: Option<Recorded>) -> Result<Part, Refusal> {
        let blob = self.region.blob(at).ok_or_else(|| wrong(format!("nothing stands at {at}")))?;
        let entry = Entry::new(blob, Box::default());
        entry.record().check().map_err(|damaged| entry.refusal(damaged))?;
        let part = self.part(entry, read)?;
        match part.whole().is_none() && part.is_pinned() {
            true => Err(wrong(format!("vhost {:?} was not read", part.id()))),
            false => Ok(part),
        }
    }

    fn part(&self, entry: Entry, read: Option<Recorded>) -> Result<Part, Refusal> {
        let regexes = entry.record().regexes(&mut self.interner.borrow_mut());
        let regexes = regexes.map_err(|damaged| entry.refusal(damaged))?;
        Ok(Part { entry: Rc::new(entry), read, regexes, peer: None })
    }

    /// A file that texts include, as it stands in the region: once.
    fn file(&self, text: &[u8]) -> Result<Rc<Blob>, Refusal> {
        let sum = Sum::of(Kind::Text, text);
        let mut known = self.included.borrow_mut();
        if let Some(file) = known.get(&sum).and_then(std::rc::Weak::upgrade) {
            return Ok(file);
        }
        let file = Rc::new(self.put(text)?);
        // Those that have gone are looked for when the table would grow: that is never dear for long.
        if known.len() == known.capacity() {
            known.retain(|_, file| file.strong_count() > 0);
            let living = known.len();
            known.shrink_to(2 * living);
        }
        known.insert(sum, Rc::downgrade(&file));
        Ok(file)
    }

    pub(super) fn put(&self, bytes: &[u8]) -> Result<Blob, Refusal> {
        self.region.put(&[bytes]).map_err(|error| wrong(format!("memory for a vhost: {}", crate::os::errno(&error))))
    }

    /// The vhost of an entry, compiled by now. `None` when that cannot be, which is in the log: the master has compiled the
    /// same text.
    pub fn compile(&self, entry: &Entry) -> Option<Rc<Vhost>> {
        if let Some(vhost) = entry.compiled() {
            return Some(vhost);
        }
        match guarded(|| self.compiled(entry)) {
            Ok(vhost) => Some(entry.keep(vhost)),
            Err(error) => {
                log!(Level::Alert, "[dysvr] vhost {:?} cannot be compiled: {error}", entry.id());
                None
            }
        }
    }

    fn compiled(&self, entry: &Entry) -> Result<Vhost, Refusal> {
        let http = self.http().ok_or_else(|| wrong("no http block".into()))?;
        let known = |name: &str| Some(self.upstream(name)?.name());
        let mut interner = self.interner.borrow_mut();
        let text = entry.text().map_err(|damaged| entry.refusal(damaged))?;
        let conf = load_vhost(&Running::new(&http, &known), entry.outline()?, text, &mut interner)
            .map_err(|problems| wrong(problems.to_string()))?;
        self.run(Arc::new(conf), entry.stamp(), |name| self.upstream(name))
    }

    /// A vhost with all that its requests need; `upstream` gives the cell of a name.
    pub(super) fn run(
        &self,
        conf: Arc<model::Vhost>,
        stamp: Stamp,
        upstream: impl Fn(&str) -> Option<Rc<UpstreamCell>>,
    ) -> Result<Vhost, Refusal> {
        let upstreams = conf.upstreams.iter().map(|used| match used {
            UpstreamRef::Implicit(upstream) => Ok(UpstreamCell::implicit(upstream)),
            UpstreamRef::Named(name) => upstream(name).ok_or_else(|| no_upstream(name, &conf.place)),
        });
        let upstreams = upstreams.collect::<Result<_, _>>()?;
        let is_tls = conf.listens.iter().any(|listen| listen.ssl);
        let tls = if is_tls { self.tls.of(&conf.srv.ssl).map_err(wrong)? } else { None };
        let logs = match self.http().filter(|_| self.opens_logs) {
            Some(http) => logs::open(&logs::own_paths(&conf, &http.loc, &http.options.prefix))?,
            None => Box::default(),
        };
        Ok(Vhost { conf, upstreams, logs, tls, stamp, quarantined: Cell::default() })
    }
}

impl Entry {
    fn new(blob: Blob, files: Box<[Rc<Blob>]>) -> Self {
        let rare = match files.is_empty() {
            true => OnceCell::new(),
            false => OnceCell::from(Box::new(Rare { _files: files, ..Rare::default() })),
        };
        Self { blob, vhost: Slot::default(), rare }
    }
}
