//! What must hold of TLS after a change in place: an address is TLS or plain for all its vhosts, and the default server of
//! a TLS one has a certificate. (A load has checked itself.)

use std::rc::Rc;

use dysvr_conf::by_address::ByAddress;
use dysvr_conf::load::mixed_ssl;
use rustc_hash::FxHashSet;

use super::entry::{Entry, Part};
use super::{Cycle, Refusal};

/// What a change brings to an address.
#[derive(Default)]
struct Coming<'c> {
    first: Option<&'c Part>,
    explicit: Option<&'c Part>,
    ssl: bool,
}

impl Cycle {
    /// See the module. O(change).
    pub(super) fn check_ssl(&self, gone: &[Part], new: &[Part]) -> Result<(), Refusal> {
        let listeners = self.listeners.borrow();
        let leaving: FxHashSet<*const Entry> = gone.iter().map(|vhost| Rc::as_ptr(&vhost.entry)).collect();
        let stays = |vhost: &Rc<Entry>| !leaving.contains(&Rc::as_ptr(vhost));
        let mut coming: ByAddress<Coming<'_>> = ByAddress::default();
        for vhost in new {
            for listen in vhost.listens() {
                let addr = &listen.addr;
                let mixed = |other: &Entry| {
                    let (vhost, other, place) = (vhost.outline()?, other.outline()?, listen.place(vhost));
                    Err(Refusal::Wrong(format!("{} in {place}", mixed_ssl(addr, &vhost, &other, listen.ssl))))
                };
                let known = coming.entry(addr, || Coming { ssl: listen.ssl, ..Coming::default() });
                match known.first {
                    Some(other) if known.ssl != listen.ssl => return mixed(other),
                    Some(_) => {}
                    None => {
                        let staying = listeners.get(addr).filter(|listener| listener.ssl.get() != listen.ssl);
                        if let Some(other) = staying.and_then(|listener| listener.names.borrow().first(stays).cloned())
                        {
                            return mixed(&other);
                        }
                    }
                }
                if known.first.is_none_or(|first| vhost.order() < first.order()) {
                    known.first = Some(vhost);
                }
                if listen.default_server {
                    known.explicit = Some(vhost);
                }
            }
        }
        let left = gone.iter().flat_map(|vhost| vhost.listens()).filter(|listen| listen.ssl);
        for listen in left {
            coming.entry(&listen.addr, || Coming { ssl: true, ..Coming::default() });
        }
        for (addr, coming) in coming.iter().filter(|(_, coming)| coming.ssl) {
            let names = listeners.get(addr).map(|listener| listener.names.borrow());
            let explicit = names.as_ref().and_then(|names| names.explicit_default().filter(|vhost| stays(vhost)));
            let first = names.as_ref().and_then(|names| names.first(stays));
            let by_order = match (first, coming.first) {
                (Some(staying), Some(new)) if staying.order() < new.order() => Some(staying),
                (_, Some(new)) => Some(&new.entry),
                (staying, None) => staying,
            };
            let default = explicit.or(coming.explicit.map(|new| &new.entry)).or(by_order);
            let read = |entry: &Rc<Entry>| {
                let new = new.iter().find(|new| Rc::ptr_eq(&new.entry, entry)).and_then(Part::whole);
                new.map(|read| read.srv.ssl.pairs.is_some())
            };
            // All who listen with TLS are pinned: what they are was compiled.
            let has_pairs = |entry: &Rc<Entry>| {
                let standing = || entry.compiled().is_some_and(|vhost| vhost.conf.srv.ssl.pairs.is_some());
                read(entry).unwrap_or_else(standing)
            };
            if let Some(default) = default.filter(|default| !has_pairs(default)) {
                return Err(Refusal::Wrong(format!(
                    "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in {}",
                    default.place()
                )));
            }
        }
        Ok(())
    }
}
