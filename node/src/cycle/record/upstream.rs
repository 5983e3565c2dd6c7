//! An upstream's record.

use dysvr_conf::digest::Digest;
use dysvr_conf::model;

use super::Damaged;
use crate::cycle::files;

/// The bytes of an upstream's record: digest, file, length of the name, name, the upstream.
pub(in crate::cycle) fn write_upstream(upstream: &model::Upstream) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(384);
    bytes.extend_from_slice(&upstream.digest.0);
    bytes.extend_from_slice(&files::name(&upstream.place.file).to_le_bytes());
    bytes.extend_from_slice(&(upstream.name.len() as u32).to_le_bytes());
    bytes.extend_from_slice(upstream.name.as_bytes());
    postcard::to_extend(upstream, bytes).unwrap_or_default().as_slice().into()
}

/// An upstream's record.
#[derive(Clone, Copy)]
pub(in crate::cycle) struct UpstreamRecord<'r>(pub &'r [u8]);

impl<'r> UpstreamRecord<'r> {
    fn parts(self) -> Option<(Digest, files::Name, &'r str, &'r [u8])> {
        let (digest, rest) = self.0.split_first_chunk::<32>()?;
        let (file, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some((Digest(*digest), files::Name::from_le_bytes(*file), std::str::from_utf8(name).ok()?, rest))
    }

    /// That the tables can be made of it.
    pub(in crate::cycle) fn check(self) -> Result<(), Damaged> {
        self.parts().map(drop).ok_or(Damaged)
    }

    /// What its block says.
    pub(in crate::cycle) fn digest(self) -> Digest {
        self.parts().map(|(digest, ..)| digest).unwrap_or_default()
    }

    /// The file that its block stands in.
    pub(in crate::cycle) fn file(self) -> files::Name {
        self.parts().map(|(_, file, ..)| file).unwrap_or_default()
    }

    /// Its name as it is written.
    pub(in crate::cycle) fn name(self) -> &'r str {
        self.parts().map_or("", |(.., name, _)| name)
    }

    /// The upstream.
    pub(in crate::cycle) fn upstream(self) -> Result<model::Upstream, Damaged> {
        self.parts().and_then(|(.., upstream)| postcard::from_bytes(upstream).ok()).ok_or(Damaged)
    }
}
