//! What must hold between vhosts: identities, default servers, socket options, names of an address.

use std::collections::hash_map::Entry;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Load;
use crate::by_address::ByAddress;
use crate::model::{ListenAddr, Outline, ServerName, VsvcId};
use crate::problem::Place;

/// What is known of an address so far.
#[derive(Default)]
struct Address {
    options: bool,
    vhosts: Vec<usize>,
    ssl: bool,
    /// Who says `default_server`.
    explicit: Option<usize>,
}

/// Why a vhost cannot have an address that is TLS for one and plain for the other.
pub fn mixed_ssl(addr: &ListenAddr, vhost: &Outline, other: &Outline, ssl: bool) -> String {
    let (with, without) = if ssl { ("with", "without") } else { ("without", "with") };
    format!(
        "{} listens on {addr} {with} \"ssl\", {} {without} in {}: an address is TLS or plain",
        vhost.label(),
        other.label(),
        other.place
    )
}

impl Load<'_> {
    /// Checks vhosts against each other. `has_certificate`, by index, when there are no others: then what depends on all of
    /// them is checked as well.
    pub(super) fn check_vhosts(&mut self, vhosts: &[&Outline], has_certificate: Option<&dyn Fn(usize) -> bool>) {
        self.check_ids(vhosts);
        let mut addresses: ByAddress<Address> = ByAddress::default();
        for (index, vhost) in vhosts.iter().enumerate() {
            for listen in &vhost.listens {
                let addr = &listen.addr;
                let known = addresses.entry(addr, || Address { ssl: listen.ssl, ..Address::default() });
                if listen.ssl != known.ssl {
                    let first = vhosts[known.vhosts[0]];
                    self.problem_at(&vhost.order, &listen.place, mixed_ssl(addr, vhost, first, listen.ssl));
                }
                if listen.has_options() && known.options {
                    self.problem_at(&vhost.order, &listen.place, format!("duplicate listen options for {addr}"));
                }
                if listen.default_server && known.explicit.is_some() {
                    self.problem_at(&vhost.order, &listen.place, format!("a duplicate default server for {addr}"));
                }
                known.options |= listen.has_options();
                known.explicit = known.explicit.or(listen.default_server.then_some(index));
                known.vhosts.push(index);
            }
        }
        // Names of others count as well: who knows them says which are ignored.
        let Some(has_certificate) = has_certificate else { return };
        for (addr, known) in addresses.iter() {
            if known.ssl {
                let default = known.explicit.unwrap_or(known.vhosts[0]);
                self.check_certificate(vhosts[default], has_certificate(default));
            }
            self.check_names(addr, known.vhosts.iter().map(|index| vhosts[*index]));
        }
    }

    fn check_ids(&mut self, vhosts: &[&Outline]) {
        let mut seen: FxHashMap<VsvcId, &Place> = FxHashMap::default();
        seen.reserve(vhosts.len());
        for vhost in vhosts {
            let Some(id) = vhost.vsvc_id else { continue };
            match seen.entry(id) {
                Entry::Occupied(first) => {
                    let text = format!("duplicate vsvc_id {id}, it is already used in {}", first.get());
                    self.problem_at(&vhost.order, &vhost.place, text);
                }
                Entry::Vacant(entry) => drop(entry.insert(&vhost.place)),
            }
        }
    }

    /// Warns of names that another vhost of the address, or the same one, has already.
    fn check_names<'v>(&mut self, addr: &ListenAddr, vhosts: impl ExactSizeIterator<Item = &'v Outline>) {
        if vhosts.len() < 2 {
            return;
        }
        let mut seen: FxHashSet<(u8, &str)> = FxHashSet::default();
        seen.reserve(vhosts.len());
        for vhost in vhosts {
            for name in &vhost.names {
                let key = match name {
                    ServerName::Exact(name) => (0, &**name),
                    ServerName::Leading(name) => (1, &**name),
                    ServerName::Trailing(name) => (2, &**name),
                    ServerName::Regex { .. } => continue,
                };
                if !seen.insert(key) {
                    let text = format!("conflicting server name \"{name}\" on {addr}, ignored");
                    let problem = crate::problem::Problem { text, place: Some(vhost.place.clone()) };
                    self.warnings.push((vhost.order.clone(), problem));
                }
            }
        }
    }
}
