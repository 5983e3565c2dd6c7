//! What a change does to addresses: which listeners come and go, which sockets are needed that were not, and whether
//! the socket options of those that stay may change without a new socket.
//!
//! A wildcard socket also takes the connections of the exact addresses of its port, so these need sockets of their own
//! only while there is no wildcard: when it goes and they stay, theirs are opened first.

use std::rc::Rc;

use dysvr_conf::by_address::ByAddress;
use dysvr_conf::model::ListenAddr;
use rustc_hash::FxHashSet;

use super::change::{Change, Kind, Refusal, wrong};
use super::entry::Part;
use super::listener::DEFAULT;
use super::{Cycle, Listener, SocketOptions, wildcard_of};

/// A socket that is needed.
pub type Opening = (ListenAddr, SocketOptions);

/// The part of a prepared change that is about addresses.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Those that the change says something about, each once.
    pub touched: Vec<ListenAddr>,
    /// Listeners that come.
    pub fresh: Vec<Rc<Listener>>,
    /// Listeners that lose their last vhost.
    pub closes: Vec<Rc<Listener>>,
    /// What a `listen` of these carries from now on.
    pub options: Vec<(Rc<Listener>, Option<SocketOptions>)>,
    /// See [`super::Prepared::opens`]; sorted.
    pub opens: Vec<Opening>,
    /// Whether any of this is about TLS.
    pub ssl: bool,
}

/// What a change says of one address.
#[derive(Default)]
struct Said {
    /// Listens that go and that come.
    leaving: usize,
    coming: usize,
    default_server: bool,
    /// Those that come speak TLS.
    ssl: bool,
    /// Any that comes or goes does.
    any_ssl: bool,
    /// The options that a `listen` brings.
    options: Option<SocketOptions>,
    /// The one that carried options goes.
    drops_options: bool,
}

impl Cycle {
    /// Checks the addresses of a change and works out what it does to them.
    pub(super) fn prepare_addresses(&self, change: &Change, gone: &[Part], new: &[Part]) -> Result<Addresses, Refusal> {
        let current = self.listeners.borrow();
        let said = self.said(gone, new)?;
        let mut addresses = Addresses::default();
        let mut closing: FxHashSet<&ListenAddr> = FxHashSet::default();
        let mut fresh: FxHashSet<&ListenAddr> = FxHashSet::default();
        for (addr, said) in said.iter() {
            let known = current.get(addr);
            addresses.ssl |= said.any_ssl || known.is_some_and(|listener| listener.ssl.get());
            let Some(listener) = known else {
                let listener = Rc::new(Listener::new((*addr).clone()));
                listener.carried.set(said.options);
                listener.ssl.set(said.ssl);
                addresses.fresh.push(listener);
                fresh.insert(addr);
                continue;
            };
            if said.coming == 0 && listener.names.borrow().count() == said.leaving {
                addresses.closes.push(Rc::clone(listener));
                closing.insert(addr);
                continue;
            }
            let mut listener = Rc::clone(listener);
            if said.options.is_some() || said.drops_options {
                check_options(&listener, said.options.unwrap_or(DEFAULT))?;
            }
            if said.coming > 0 && said.ssl != listener.ssl.get() {
                // All of its vhosts go, and others come that speak otherwise: connections must not change sides, so it is
                // another listener, on the same socket.
                let new = Rc::new(Listener::new(listener.addr.clone()));
                new.carried.set(said.options);
                new.ssl.set(said.ssl);
                addresses.fresh.push(Rc::clone(&new));
                fresh.insert(addr);
                addresses.closes.push(std::mem::replace(&mut listener, new));
            }
            if said.options.is_some() || said.drops_options {
                addresses.options.push((listener, said.options));
            }
        }
        if change.kind == Kind::Load {
            addresses.touched = said.into_iter().map(|(addr, _)| addr).collect();
            return Ok(addresses);
        }
        let covered = |addr: &ListenAddr| {
            wildcard_of(addr).is_some_and(|wildcard| {
                fresh.contains(&wildcard) || current.contains_key(&wildcard) && !closing.contains(&wildcard)
            })
        };
        let bare = addresses.fresh.iter().filter(|listener| !covered(&listener.addr));
        addresses.opens = bare.map(|listener| (listener.addr.clone(), listener.options())).collect();
        let exact = self.exact.borrow();
        for addr in closing.iter().filter_map(|wildcard| exact.get(*wildcard)).flatten() {
            if let Some(listener) = current.get(addr)
                && !closing.contains(addr)
            {
                let said = said.get(addr).filter(|said| said.options.is_some() || said.drops_options);
                let options = said.map_or(listener.options(), |said| said.options.unwrap_or(DEFAULT));
                addresses.opens.push((addr.clone(), options));
            }
        }
        addresses.opens.sort_by(|a, b| a.0.cmp(&b.0));
        addresses.touched = said.into_iter().map(|(addr, _)| addr).collect();
        Ok(addresses)
    }

    fn said(&self, gone: &[Part], new: &[Part]) -> Result<ByAddress<Said>, Refusal> {
        let current = self.listeners.borrow();
        let mut all = ByAddress::default();
        for listen in gone.iter().flat_map(|vhost| vhost.listens()) {
            let options = listen.options();
            let said = all.entry(&listen.addr, Said::default);
            said.leaving += 1;
            said.any_ssl |= listen.ssl;
            said.drops_options |= options.is_some();
        }
        for (vhost, listen) in new.iter().flat_map(|vhost| vhost.listens().map(move |listen| (vhost, listen))) {
            let addr = &listen.addr;
            let known = || current.get(addr);
            let said = all.entry(addr, Said::default);
            said.coming += 1;
            said.ssl = listen.ssl;
            said.any_ssl |= listen.ssl;
            if listen.default_server {
                let other = known().and_then(|known| known.names.borrow().explicit_default().cloned());
                let stays = other.is_some_and(|other| !gone.iter().any(|gone| Rc::ptr_eq(&gone.entry, &other)));
                if std::mem::replace(&mut said.default_server, true) || stays {
                    return Err(wrong(format!("a duplicate default server for {addr} in {}", listen.place(vhost))));
                }
            }
            if let Some(options) = listen.options() {
                let stays = known().is_some_and(|known| known.carried.get().is_some()) && !said.drops_options;
                if said.options.replace(options).is_some() || stays {
                    return Err(wrong(format!("duplicate listen options for {addr} in {}", listen.place(vhost))));
                }
            }
        }
        Ok(all)
    }

    /// Keeps the index of exact addresses, and notes that listeners have come or gone.
    pub(super) fn count_exact(&self, addresses: &Addresses) {
        if addresses.fresh.is_empty() && addresses.closes.is_empty() {
            return;
        }
        self.layout.set(self.layout.get() + 1);
        let mut exact = self.exact.borrow_mut();
        for listener in &addresses.closes {
            if let Some(wildcard) = wildcard_of(&listener.addr)
                && let Some(known) = exact.get_mut(&wildcard)
            {
                known.retain(|addr| *addr != listener.addr);
                if known.is_empty() {
                    exact.remove(&wildcard);
                }
            }
        }
        for listener in &addresses.fresh {
            if let Some(wildcard) = wildcard_of(&listener.addr) {
                exact.entry(wildcard).or_default().push(listener.addr.clone());
            }
        }
    }
}

/// Which of the open sockets nobody needs any more, now that the listener of an address has gone: its own, and with a
/// wildcard those of exact addresses that were left open beside it. A socket stays as long as somebody is reached
/// through its address, if only the wildcard's vhosts: closing it would reset who is just connecting.
pub fn unserved<'o>(cycle: &Cycle, gone: &ListenAddr, open: impl Iterator<Item = &'o ListenAddr>) -> Vec<ListenAddr> {
    let is_wildcard = matches!(gone, ListenAddr::Inet(addr) if addr.ip().is_unspecified());
    if !is_wildcard {
        return if cycle.listener_at(gone).is_some() { Vec::new() } else { vec![gone.clone()] };
    }
    let of_port = open.filter(|addr| *addr == gone || wildcard_of(addr).as_ref() == Some(gone));
    of_port.filter(|addr| cycle.listener_at(addr).is_none()).cloned().collect()
}

/// Whether an open socket can be given other options: its backlog, but neither how many sockets there are nor of which
/// family.
fn check_options(listener: &Listener, new: SocketOptions) -> Result<(), Refusal> {
    let old = listener.options();
    if (old.reuseport, old.ipv6only) == (new.reuseport, new.ipv6only) {
        return Ok(());
    }
    Err(Refusal::NeedsReload(format!("the listen options of {} change", listener.addr)))
}
