//! What a load leaves of vhosts and upstreams: the records that are kept of them, written by the threads that have made
//! them, and of a vhost that is pinned (see [`super::entry`]) what was compiled.

use std::ops::Deref;
use std::sync::Arc;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::{Keep, Levels, LoadOptions, load_keeping};
use dysvr_conf::model::{self, Config, ListenAddr, Outline, TextPiece, UpstreamRef};
use dysvr_conf::problem::{Place, Problems};
use dysvr_conf::source::Source;

use super::record::{self, Piece};
use super::{Stamp, logs};

/// A configuration that was read, for [`super::Cycle::load`].
pub type Loaded = Config<Recorded, RecordedUpstream>;

/// Reads a whole configuration.
pub fn load(options: &LoadOptions, source: &mut dyn Source, interner: &mut Interner) -> Result<Loaded, Problems> {
    load_keeping(options, source, interner, &Records(Stamp::default()))
}

/// Keeps records, with who made the vhosts so.
pub(crate) struct Records(pub(crate) Stamp);

/// A vhost that was just read.
#[derive(Debug)]
pub struct Recorded {
    pub(super) outline: Outlined,
    /// In it the files that its text includes stand as indexes into `files`.
    pub(super) record: Box<[u8]>,
    pub(super) files: Box<[Arc<[u8]>]>,
}

/// An outline, with the rest of the vhost where that is at hand.
#[derive(Debug)]
pub(super) enum Outlined {
    Whole(Arc<model::Vhost>),
    Alone(Box<Outline>),
}

impl Deref for Outlined {
    type Target = Outline;

    fn deref(&self) -> &Outline {
        match self {
            Self::Whole(vhost) => &vhost.outline,
            Self::Alone(outline) => outline,
        }
    }
}

impl Deref for Recorded {
    type Target = Outline;

    fn deref(&self) -> &Outline {
        &self.outline
    }
}

/// An upstream that was just read.
#[derive(Debug)]
pub struct RecordedUpstream {
    pub(super) record: Box<[u8]>,
    /// As it is written.
    pub name: Arc<str>,
    /// Where its block begins.
    pub place: Place,
}

impl Keep for Records {
    type Vhost = Recorded;
    type Upstream = RecordedUpstream;

    fn vhost(&self, vhost: model::Vhost, levels: &Levels, options: &LoadOptions) -> Recorded {
        let stamp = self.0;
        if must_be_pinned(&vhost, levels, options) {
            let record = record::write(&vhost.outline, stamp, true, &[]);
            return Recorded { outline: Outlined::Whole(Arc::new(vhost)), record, files: Box::default() };
        }
        let mut files = Vec::new();
        let pieces = vhost.text.0.iter().map(|piece| piece_of(piece, &mut files));
        let pieces: Vec<Piece<'_>> = pieces.collect();
        let record = record::write(&vhost.outline, stamp, false, &pieces);
        Recorded { outline: Outlined::Alone(Box::new(vhost.outline)), record, files: files.into() }
    }

    fn upstream(&self, upstream: model::Upstream) -> RecordedUpstream {
        let record = record::write_upstream(&upstream);
        RecordedUpstream { record, name: upstream.name, place: upstream.place }
    }

    fn outline(vhost: &Recorded) -> &Outline {
        &vhost.outline
    }
}

/// A piece of text for a record; files that others include, too, are to stand in the region once.
fn piece_of<'t>(piece: &'t TextPiece, files: &mut Vec<Arc<[u8]>>) -> Piece<'t> {
    /// Bytes below which a place of its own is not worth it.
    const SMALL: usize = 64;
    match piece {
        TextPiece::File(text) if text.len() >= SMALL => {
            files.push(Arc::clone(text));
            Piece::File(files.len() as u32 - 1)
        }
        TextPiece::File(text) => Piece::Own(text),
        TextPiece::Own(text) => Piece::Own(text),
    }
}

/// Whether a vhost cannot be made of its text by itself.
fn must_be_pinned(vhost: &model::Vhost, levels: &Levels, options: &LoadOptions) -> bool {
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
        || !Arc::ptr_eq(&levels.srv.ssl, &vhost.srv.ssl)
        || vhost.upstreams.iter().any(by_name)
        || !logs::own_paths(vhost, &levels.loc, &options.prefix).is_empty()
}
