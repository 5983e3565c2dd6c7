//! What a load has been told by its source, each thing asked for once: no two blocks of a load see another answer.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Load;
use super::files::File;
use crate::http::ssl::Pair;
use crate::source::Source;

/// See the module.
#[derive(Default)]
pub(crate) struct Read<'a> {
    /// By path as bytes, which is how paths are compared here: by component costs several times as much.
    pub(crate) files: FxHashMap<OsString, Result<&'a File<'a>, String>>,
    pub(crate) globs: FxHashMap<PathBuf, Arc<[PathBuf]>>,
    /// What [`Source::secret`] gave, or why not.
    pub(crate) secrets: FxHashMap<PathBuf, Result<Arc<[u8]>, String>>,
    /// By the paths of certificate and key.
    pub(crate) pairs: FxHashMap<(PathBuf, PathBuf), Arc<Pair>>,
    /// What names led to.
    pub(crate) hosts: FxHashMap<String, Arc<[IpAddr]>>,
}

impl<'a> Load<'a> {
    /// What is known already, to this load or to the one that it works for.
    pub(crate) fn known<T>(&self, get: impl Fn(&Read<'a>) -> Option<T>) -> Option<T> {
        get(&self.read).or_else(|| get(self.around?))
    }

    /// The source, for what is not known.
    pub(crate) fn ask(&mut self) -> &mut dyn Source {
        self.wants_more = true;
        self.source
    }
}
