//! The sizes of `shared` session caches: all who name one must say the same, or a load fails. Counted, so that a change is
//! held against those who stay without a look at them.

use std::sync::Arc;

use dysvr_conf::http::SrvConf;
use dysvr_conf::http::ssl::SessionCache;
use rustc_hash::FxHashMap;

use super::change::wrong;
use super::entry::Part;
use super::{Cycle, Refusal};

/// The size of each name, and how many say so: vhosts, those that inherit it included, and `http`.
#[derive(Debug, Default)]
pub(super) struct Caches(FxHashMap<Arc<str>, (u64, usize)>);

fn shared(srv: &SrvConf) -> Option<(&Arc<str>, u64)> {
    match &srv.ssl.session_cache {
        SessionCache::Shared(name, bytes) => Some((name, *bytes)),
        SessionCache::None | SessionCache::Builtin(_) => None,
    }
}

impl Caches {
    /// Those of a load, before its vhosts come.
    pub(super) fn new(http: Option<&SrvConf>) -> Self {
        let mut caches = Self::default();
        http.into_iter().for_each(|srv| caches.enter(srv));
        caches
    }

    fn enter(&mut self, srv: &SrvConf) {
        if let Some((name, bytes)) = shared(srv) {
            self.0.entry(Arc::clone(name)).or_insert((bytes, 0)).1 += 1;
        }
    }

    fn leave(&mut self, srv: &SrvConf) {
        if let Some((name, _)) = shared(srv)
            && let Some((_, users)) = self.0.get_mut(name)
        {
            *users -= 1;
            if *users == 0 {
                self.0.remove(name);
            }
        }
    }
}

impl Cycle {
    /// The settings of the server level of vhosts, as far as they are about TLS: one that is not pinned has those of `http`,
    /// which are left out when they share no cache.
    fn srv_of(&self, vhosts: &[Part]) -> impl Iterator<Item = Arc<SrvConf>> {
        let http = self.http().map(|http| Arc::clone(&http.srv)).filter(|srv| shared(srv).is_some());
        vhosts.iter().filter_map(move |vhost| match (vhost.whole(), vhost.is_pinned()) {
            (Some(read), _) => Some(Arc::clone(&read.srv)),
            (None, true) => Some(Arc::clone(&vhost.compiled()?.conf.srv)),
            (None, false) => http.clone(),
        })
    }

    /// That no vhost of the change gives a cache another size than those who stay. (Among themselves they were checked
    /// when they were read.)
    pub(super) fn check_caches(&self, gone: &[Part], new: &[Part]) -> Result<(), Refusal> {
        let caches = self.caches.borrow();
        let mut leaving: FxHashMap<Arc<str>, usize> = FxHashMap::default();
        for srv in self.srv_of(gone) {
            if let Some((name, _)) = shared(&srv) {
                *leaving.entry(Arc::clone(name)).or_default() += 1;
            }
        }
        for vhost in new {
            if let Some(read) = vhost.whole()
                && let Some((name, bytes)) = shared(&read.srv)
                && let Some((known, users)) = caches.0.get(name)
                && *known != bytes
                && *users > leaving.get(name).copied().unwrap_or_default()
            {
                return Err(wrong(format!(
                    "the size {bytes} of shared memory zone \"{name}\" conflicts with already declared size {known} in {}",
                    vhost.place()
                )));
            }
        }
        Ok(())
    }

    pub(super) fn commit_caches(&self, gone: &[Part], new: &[Part]) {
        let mut caches = self.caches.borrow_mut();
        self.srv_of(gone).for_each(|srv| caches.leave(&srv));
        self.srv_of(new).for_each(|srv| caches.enter(&srv));
    }
}
