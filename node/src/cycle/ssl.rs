//! What must hold of TLS after a change in place: an address is TLS or plain for all its vhosts, and the default server of
//! a TLS one has a certificate. (A load has checked itself.)

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::load::mixed_ssl;
use dysvr_conf::model::{self, ListenAddr};

use super::{Change, Cycle, Refusal, Vhost};

/// What a change brings to an address.
#[derive(Default)]
struct Coming<'c> {
    first: Option<&'c Arc<model::Vhost>>,
    explicit: Option<&'c Arc<model::Vhost>>,
    ssl: bool,
}

impl Cycle {
    /// See the module. O(change).
    pub(super) fn check_ssl(&self, change: &Change, gone: &[Rc<Vhost>]) -> Result<(), Refusal> {
        let listeners = self.listeners.borrow();
        let leaving: HashSet<*const Vhost> = gone.iter().map(Rc::as_ptr).collect();
        let stays = |vhost: &Rc<Vhost>| !leaving.contains(&Rc::as_ptr(vhost));
        let mut coming: HashMap<&ListenAddr, Coming<'_>> = HashMap::new();
        for vhost in &change.vhosts {
            for listen in &vhost.listens {
                let addr = &listen.addr;
                let mixed = |other: &model::Vhost| {
                    Refusal::Wrong(format!("{} in {}", mixed_ssl(addr, vhost, other, listen.ssl), listen.place))
                };
                let known = match coming.entry(addr) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(entry) => {
                        let staying = listeners.get(addr).filter(|listener| listener.ssl.get() != listen.ssl);
                        if let Some(other) = staying.and_then(|listener| listener.names.borrow().first(stays).cloned())
                        {
                            return Err(mixed(&other.conf));
                        }
                        entry.insert(Coming { ssl: listen.ssl, ..Coming::default() })
                    }
                };
                if let Some(other) = known.first.filter(|_| known.ssl != listen.ssl) {
                    return Err(mixed(other));
                }
                if known.first.is_none_or(|first| vhost.order < first.order) {
                    known.first = Some(vhost);
                }
                if listen.default_server {
                    known.explicit = Some(vhost);
                }
            }
        }
        let left = gone.iter().flat_map(|vhost| &vhost.conf.listens).filter(|listen| listen.ssl);
        for listen in left {
            coming.entry(&listen.addr).or_insert_with(|| Coming { ssl: true, ..Coming::default() });
        }
        for (addr, coming) in coming.iter().filter(|(_, coming)| coming.ssl) {
            let names = listeners.get(*addr).map(|listener| listener.names.borrow());
            let explicit = names.as_ref().and_then(|names| names.explicit_default().filter(|vhost| stays(vhost)));
            let first = names.as_ref().and_then(|names| names.first(stays));
            let by_order = match (first, coming.first) {
                (Some(staying), Some(new)) if staying.conf.order < new.order => Some(&staying.conf),
                (_, Some(new)) => Some(new),
                (staying, None) => staying.map(|vhost| &vhost.conf),
            };
            let default = explicit.map(|vhost| &vhost.conf).or(coming.explicit).or(by_order);
            if let Some(default) = default.filter(|default| default.srv.ssl.pairs.is_none()) {
                return Err(Refusal::Wrong(format!(
                    "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in {}",
                    default.place
                )));
            }
        }
        Ok(())
    }
}
