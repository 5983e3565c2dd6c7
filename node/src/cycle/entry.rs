//! A vhost as the tables of a process know it: its record, and what has been compiled of it, if anything has.
//!
//! A vhost is compiled by the first request that a process has for it. What needs more than its own text (certificates,
//! files, the addresses of host names) is compiled where the master checks it, and by each worker before it says that it
//! is prepared: such an entry is *pinned*.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::digest::Digest;
use dysvr_conf::load::{Running, load_vhost};
use dysvr_conf::model::{self, Http, ListenAddr, Outline, TextPiece, UpstreamRef, VsvcId};
use dysvr_conf::problem::Place;

use super::change::{no_upstream, wrong};
use super::digest::{Kind, Sum};
use super::record::{self, Damaged, Piece, Record};
use super::two::in_two;
use super::{Cycle, Refusal, Stamp, UpstreamCell, Vhost, logs};
use crate::dysvr::update::guarded;
use crate::log::Level;
use crate::os::region::Blob;
use crate::os::zone::TASK;

/// See the module.
pub struct Entry {
    blob: Blob,
    /// The files that its text includes, which it keeps there together with others; in the process that put them.
    _files: Box<[Rc<Blob>]>,
    /// Its own copy, where it must outlive what is shared.
    own: OnceCell<Box<Own>>,
    vhost: RefCell<Option<Rc<Vhost>>>,
    quarantined: Cell<bool>,
}

struct Own {
    record: Vec<u8>,
    text: Vec<u8>,
}

/// An entry that comes or goes, with its outline.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) entry: Rc<Entry>,
    outline: Outlined,
}

#[derive(Debug)]
enum Outlined {
    /// It was just read.
    Read(Arc<model::Vhost>),
    Kept(Box<Outline>),
}

impl std::ops::Deref for Part {
    type Target = Outline;

    fn deref(&self) -> &Outline {
        match &self.outline {
            Outlined::Read(vhost) => &vhost.outline,
            Outlined::Kept(outline) => outline,
        }
    }
}

impl Part {
    /// One that goes.
    pub(super) fn going(entry: &Rc<Entry>) -> Result<Self, Refusal> {
        let outline = Outlined::Kept(Box::new(entry.outline()?));
        Ok(Self { entry: Rc::clone(entry), outline })
    }

    /// What was read of it, if that was just now.
    pub(super) fn read(&self) -> Option<&Arc<model::Vhost>> {
        match &self.outline {
            Outlined::Read(vhost) => Some(vhost),
            Outlined::Kept(_) => None,
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Entry {
    fn record(&self) -> Record<'_> {
        Record(self.own.get().map_or(&*self.blob, |own| &own.record))
    }

    /// Where its record stands in the region.
    pub(super) fn at(&self) -> u32 {
        self.blob.at()
    }

    /// Where its block begins.
    pub(super) fn place(&self) -> Option<Place> {
        self.outline().ok().map(|outline| outline.place)
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

    /// Its place in the source, see [`record::order_bytes`].
    pub(super) fn order(&self) -> &[u8] {
        self.record().order()
    }

    /// One of its names.
    pub(super) fn name(&self, index: u16) -> &str {
        self.record().name(index)
    }

    /// Whether it is compiled from the beginning.
    pub fn is_pinned(&self) -> bool {
        self.record().is_pinned()
    }

    /// All that it is but its text.
    pub fn outline(&self) -> Result<Outline, Refusal> {
        self.record().outline().map_err(|Damaged| wrong(format!("vhost {:?}: {Damaged}", self.id())))
    }

    /// Names this version of the vhost in a word, the same in all processes and never 0; see [`crate::os::zone::Pulse`].
    pub fn mark(&self) -> u64 {
        mark_of(&self.digest())
    }

    /// It has crashed workers: it answers 503 until it is modified, and nothing of its own is run.
    pub fn quarantine(&self, quarantined: bool) {
        self.quarantined.set(quarantined);
        if let Some(vhost) = &*self.vhost.borrow() {
            vhost.quarantined.set(quarantined);
        }
    }

    /// What was compiled of it, if anything was.
    pub(super) fn compiled(&self) -> Option<Rc<Vhost>> {
        self.vhost.borrow().clone()
    }

    /// Keeps what was compiled of it, until it is replaced.
    pub(super) fn keep(&self, vhost: Vhost) -> Rc<Vhost> {
        vhost.quarantined.set(self.quarantined.get());
        let vhost = Rc::new(vhost);
        self.vhost.replace(Some(Rc::clone(&vhost)));
        vhost
    }

    /// Copies what is shared of it: it will outlive its record.
    pub(super) fn detach(&self) {
        if self.own.get().is_none() {
            let _ = self.own.set(Box::new(Own { record: self.blob.to_vec(), text: self.text() }));
        }
    }

    fn text(&self) -> Vec<u8> {
        if let Some(own) = self.own.get() {
            return own.text.clone();
        }
        let mut text = Vec::new();
        for piece in self.record().pieces() {
            match piece {
                Piece::Own(own) => text.extend_from_slice(own),
                Piece::File(at) => {
                    if let Some(file) = self.blob.region().blob(at) {
                        text.extend_from_slice(&file);
                    }
                }
            }
        }
        text
    }
}

/// See [`Entry::mark`].
pub(super) fn mark_of(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]).clamp(1, TASK - 1)
}

/// Whether a vhost cannot be made of its text by itself.
fn must_be_pinned(vhost: &model::Vhost, http: Option<&Http>) -> bool {
    // A host by a name has the addresses that it led to when the master looked.
    let by_name = |used: &UpstreamRef| match used {
        UpstreamRef::Named(_) => false,
        UpstreamRef::Implicit(upstream) => !upstream.peers.iter().all(|peer| match &peer.addr {
            ListenAddr::Inet(addr) => {
                let host = upstream.name.rsplit_once(':').map_or(&*upstream.name, |(host, _)| host);
                *upstream.name == addr.ip().to_string() || host == addr.ip().to_string()
            }
            ListenAddr::Unix(_) => true,
        }),
    };
    vhost.text.0.is_empty()
        || vhost.listens.iter().any(|listen| listen.ssl)
        || http.is_none_or(|http| !Arc::ptr_eq(&http.srv.ssl, &vhost.srv.ssl))
        || vhost.upstreams.iter().any(by_name)
        || !logs::own_paths(vhost, http).is_empty()
}

/// The record of a vhost, if all of it is its own.
fn write(vhost: &model::Vhost, http: Option<&Http>, stamp: Stamp) -> Option<Vec<u8>> {
    if must_be_pinned(vhost, http) {
        return Some(record::write(&vhost.outline, stamp, true, &[]));
    }
    let own = vhost.text.0.iter().map(|piece| match piece {
        TextPiece::Own(own) => Some(Piece::Own(own)),
        TextPiece::File(_) => None,
    });
    let pieces: Vec<Piece<'_>> = own.collect::<Option<_>>()?;
    Some(record::write(&vhost.outline, stamp, false, &pieces))
}

impl Cycle {
    /// The parts that vhosts which were just read are of a change.
    pub(super) fn coming(&self, vhosts: &[Arc<model::Vhost>], stamp: Stamp) -> Result<Vec<Part>, Refusal> {
        let http = self.http();
        let http = http.as_deref();
        let mut parts = Vec::with_capacity(vhosts.len());
        for (vhost, written) in in_two(vhosts, |vhost| write(vhost, http, stamp)) {
            let mut files = Vec::new();
            let bytes = match written {
                Some(bytes) => bytes,
                None => {
                    let pieces = vhost.text.0.iter().map(|piece| self.piece(piece, &mut files));
                    record::write(&vhost.outline, stamp, false, &pieces.collect::<Result<Vec<_>, _>>()?)
                }
            };
            let entry = Rc::new(Entry::new(self.put(&bytes)?, files.into()));
            parts.push(Part { entry, outline: Outlined::Read(Arc::clone(vhost)) });
        }
        Ok(parts)
    }

    /// The same for one that the master has put into the region. `read`: what this process has read of it, which it must
    /// have if it is pinned.
    pub(super) fn placed(&self, at: u32, read: Option<&Arc<model::Vhost>>) -> Result<Part, Refusal> {
        let blob = self.region.blob(at).ok_or_else(|| wrong(format!("nothing stands at {at}")))?;
        let entry = Rc::new(Entry::new(blob, Box::default()));
        let outline = match read {
            Some(vhost) => Outlined::Read(Arc::clone(vhost)),
            None if entry.is_pinned() => return Err(wrong(format!("vhost {:?} was not read", entry.id()))),
            None => Outlined::Kept(Box::new(entry.outline()?)),
        };
        Ok(Part { entry, outline })
    }

    /// A piece of text for a record; files that others include, too, stand in the region once.
    fn piece<'t>(&self, piece: &'t TextPiece, files: &mut Vec<Rc<Blob>>) -> Result<Piece<'t>, Refusal> {
        /// Bytes below which a place of its own is not worth it.
        const SMALL: usize = 64;
        let TextPiece::File(text) = piece else { return Ok(Piece::Own(piece.bytes())) };
        if text.len() < SMALL {
            return Ok(Piece::Own(text));
        }
        let sum = Sum::of(Kind::Text, &**text);
        let mut known = self.included.borrow_mut();
        let file = match known.get(&sum).and_then(std::rc::Weak::upgrade) {
            Some(file) => file,
            None => {
                let file = Rc::new(self.put(text)?);
                // Those that have gone are looked for when the table would grow: that is never dear for long.
                if known.len() == known.capacity() {
                    known.retain(|_, file| file.strong_count() > 0);
                    let living = known.len();
                    known.shrink_to(2 * living);
                }
                known.insert(sum, Rc::downgrade(&file));
                file
            }
        };
        let at = file.at();
        files.push(file);
        Ok(Piece::File(at))
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
        let conf = load_vhost(&Running::new(&http, &known), entry.outline()?, entry.text(), &mut interner)
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
            UpstreamRef::Named(name) => upstream(name).ok_or_else(|| no_upstream(name, &conf)),
        });
        let upstreams = upstreams.collect::<Result<_, _>>()?;
        let is_tls = conf.listens.iter().any(|listen| listen.ssl);
        let tls = if is_tls { self.tls.of(&conf.srv.ssl).map_err(wrong)? } else { None };
        let logs = match self.opens_logs {
            true => logs::open(&logs::own_paths(&conf, self.http().as_deref()))?,
            false => Box::default(),
        };
        Ok(Vhost { conf, upstreams, logs, tls, stamp, quarantined: Cell::default() })
    }
}

impl Entry {
    fn new(blob: Blob, files: Box<[Rc<Blob>]>) -> Self {
        Self { blob, _files: files, own: OnceCell::new(), vhost: RefCell::default(), quarantined: Cell::default() }
    }
}
