//! `upstream {}`, and which upstream a `proxy_pass` means.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::block::{Pending, Target, inside};
use super::call::Call;
use super::fragment::KnownUpstream;
use super::http::key_of;
use super::parallel::Make;
use super::url::{Host, Url};
use super::{Keep, Load};
use crate::digest::Digest;
use crate::directive::{Done, HTTP};
use crate::model::{ListenAddr, OrderKey, Peer, Upstream, UpstreamRef};
use crate::problem::Place;

/// What `upstream {}` holds.
#[derive(Debug, Default)]
pub struct UpstreamSet {
    /// `server`.
    pub peers: Vec<Peer>,
    /// `keepalive`.
    pub keepalive: Option<u32>,
}

/// The upstreams that a `proxy_pass` may name.
pub(crate) struct Known<'a> {
    /// Those of this load; names have no case.
    pub(super) own: FxHashMap<String, Arc<str>>,
    /// Those of the configuration that a fragment joins.
    pub(super) outside: Option<&'a KnownUpstream<'a>>,
}

impl<'a> Known<'a> {
    pub(crate) fn new(outside: Option<&'a KnownUpstream<'a>>) -> Self {
        Self { own: FxHashMap::default(), outside }
    }
}

/// Makes upstreams.
struct Upstreams<'k, K>(&'k K);

impl<K: Keep> Make<K::Upstream> for Upstreams<'_, K> {
    fn make<'l>(&self, load: &mut Load<'l>, block: &Pending<'l>) -> Option<K::Upstream> {
        Some(self.0.upstream(load.upstream(block)?))
    }
}

impl<'a> Load<'a> {
    /// All upstreams of `http`.
    pub(crate) fn upstreams<K: Keep>(&mut self, pending: &[Pending<'a>], keep: &K) -> Vec<K::Upstream> {
        let mut named = Vec::with_capacity(pending.len());
        self.upstreams.own.reserve(pending.len());
        named.extend(pending.iter().filter(|pending| self.name_upstream(pending)).cloned());
        self.make_all(&named, &Upstreams(keep))
    }

    /// Makes an upstream's name known; false when another one has it.
    fn name_upstream(&mut self, (site, directive): &Pending<'a>) -> bool {
        let name = Call { load: self, site, directive, context: HTTP }.arg(1);
        let is_new = match self.upstreams.own.entry(name.to_ascii_lowercase()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(name.into());
                true
            }
        };
        if !is_new {
            self.problem(site, directive.end, format!("duplicate upstream \"{name}\""));
        }
        is_new
    }

    /// One whose name is known.
    fn upstream(&mut self, (site, directive): &Pending<'a>) -> Option<Upstream> {
        let name = Call { load: self, site, directive, context: HTTP }.arg(1);
        let name = self.named_upstream(name)?;
        let problems = self.problems.len();
        let mut set = UpstreamSet::default();
        self.apply_all(site, inside(directive), &mut Target::Upstream(&mut set));
        if let (true, Some(block)) = (self.problems.len() == problems, &directive.block) {
            if set.peers.is_empty() {
                self.problem(site, block.close, "no servers are inside upstream");
            } else if set.peers.iter().all(|peer| peer.backup) {
                self.problem(site, directive.end, format!("no servers in upstream \"{name}\""));
            }
        }
        Some(Upstream {
            name,
            place: Place { file: Arc::clone(&site.file), line: directive.start().line },
            order: key_of(site, directive),
            peers: set.peers.into(),
            keepalive: set.keepalive,
            digest: self.block_digest(site, directive),
        })
    }

    /// The `upstream {}` of a name.
    pub(crate) fn named_upstream(&mut self, name: &str) -> Option<Arc<str>> {
        let lower = name.to_ascii_lowercase();
        if let Some(known) = self.upstreams.own.get(&lower) {
            return Some(Arc::clone(known));
        }
        (self.upstreams.outside?)(&lower)
    }
}

impl Call<'_, '_> {
    /// The index of the upstream that a static `proxy_pass` means, in the vhost's list.
    pub(crate) fn upstream(&mut self, url: &Url<'_>, text: &str) -> Done<u16> {
        let host = url.host.text();
        let named = match url.host {
            Host::Unix(_) => None,
            _ => self.load.named_upstream(host),
        };
        let used = match named {
            Some(_) if !url.no_port => {
                return Err(format!("upstream \"{host}\" may not have port {}", url.port).into());
            }
            Some(name) => UpstreamRef::Named(name),
            None => UpstreamRef::Implicit(self.implicit(url, text)?),
        };
        let Some(vhost) = &mut self.load.vhost else {
            return Err(self.fault("is not allowed here"));
        };
        let known = vhost.upstreams.iter().position(|known| same(known, &used));
        let index = known.unwrap_or_else(|| {
            vhost.upstreams.push(used);
            vhost.upstreams.len() - 1
        });
        u16::try_from(index).map_err(|_| "too many upstreams in a server".into())
    }

    /// The name of an upstream of the vhost's list if it is `text`, else `text` for itself.
    pub(crate) fn name_of(&self, index: u16, text: &str) -> Arc<str> {
        match self.load.vhost.as_ref().and_then(|vhost| vhost.upstreams.get(usize::from(index))) {
            Some(UpstreamRef::Named(name)) if **name == *text => Arc::clone(name),
            _ => text.into(),
        }
    }

    /// The upstream that a `proxy_pass` to a host makes.
    fn implicit(&mut self, url: &Url<'_>, text: &str) -> Done<Arc<Upstream>> {
        let host = match &url.host {
            Host::Unix(path) => format!("unix:{}", path.display()),
            host => host.text().to_owned(),
        };
        let addresses = self.load.addresses(url).map_err(|error| format!("{error} in upstream \"{host}\""))?;
        let peers: Box<[Peer]> = addresses.into_iter().map(|addr| self.peer(addr)).collect();
        Ok(Arc::new(Upstream {
            name: text.into(),
            place: self.place().unwrap_or_else(|| Place { file: Arc::clone(&self.site.file), line: 1 }),
            order: OrderKey::default(),
            digest: Digest::of(text.as_bytes()),
            peers,
            keepalive: None,
        }))
    }

    /// A peer with nginx's defaults.
    pub(crate) fn peer(&self, addr: ListenAddr) -> Peer {
        let name = addr.to_string().into();
        Peer { addr, name, weight: 1, max_fails: 1, fail_timeout: 10, backup: false, down: false }
    }
}

/// Whether two references are one upstream: implicit ones of one host and port, wherever they stand.
fn same(a: &UpstreamRef, b: &UpstreamRef) -> bool {
    match (a, b) {
        (UpstreamRef::Named(a), UpstreamRef::Named(b)) => a == b,
        (UpstreamRef::Implicit(a), UpstreamRef::Implicit(b)) => a.name == b.name && a.peers == b.peers,
        _ => false,
    }
}
