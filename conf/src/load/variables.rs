//! What a name behind `$` means: one of the built-in variables, a family (`$http_…`), a map, or a variable of the vhost.
//!
//! In nginx a `set` anywhere makes the name known everywhere. Here a variable belongs to the vhost that sets it: a vhost
//! can use only its own, and what `http` uses ([`Variable::Named`]) is looked up in the vhost of the request. So a vhost
//! can be changed without looking at the others.

use std::sync::Arc;

use http::HeaderName;
use rustc_hash::FxHashMap;

use super::Load;
use super::call::{Fault, Groups};
use super::files::Site;
use crate::directive::Done;
use crate::http::rewrite::SetTarget;
use crate::model::{UpstreamRef, Use};
use crate::regex::Regex;
use crate::syntax::{Directive, Position};
use crate::variable::{Builtin, Variable};

/// Where a variable is used.
#[derive(Clone, Copy)]
pub(crate) struct At<'u> {
    pub(crate) site: &'u Arc<Site>,
    pub(crate) at: Position,
}

/// A variable that `http` uses without setting it.
pub(crate) struct NamedUse {
    pub(crate) name: Arc<str>,
    pub(crate) site: Arc<Site>,
    pub(crate) at: Position,
}

/// What a vhost has gathered while it is read.
#[derive(Default)]
pub(crate) struct VhostScope {
    /// By slot.
    pub(crate) names: Vec<Arc<str>>,
    slots: FxHashMap<Arc<str>, u16>,
    /// By slot: whether anything sets it.
    defined: Vec<bool>,
    /// Uses of slots that nothing had set yet.
    open_uses: Vec<(u16, Arc<Site>, Position)>,
    /// The upstreams that it passes to.
    pub(crate) upstreams: Vec<UpstreamRef>,
    /// What it uses of `http`.
    pub(crate) uses: Vec<Use>,
}

/// Variables that nginx has and that are not here, so that a `set` of one is not taken for a variable of the vhost.
const FOREIGN: &[&str] = &[
    "ancient_browser",
    "connection_time",
    "date_gmt",
    "date_local",
    "document_root",
    "geoip_city",
    "gzip_ratio",
    "http2",
    "http3",
    "invalid_referer",
    "limit_conn_status",
    "limit_rate",
    "limit_req_status",
    "memcached_key",
    "modern_browser",
    "msie",
    "pipe",
    "proxy_protocol_addr",
    "proxy_protocol_port",
    "proxy_protocol_server_addr",
    "proxy_protocol_server_port",
    "realip_remote_addr",
    "realip_remote_port",
    "realpath_root",
    "request_body",
    "request_body_file",
    "request_filename",
    "secure_link",
    "secure_link_expires",
    "slice_range",
    "ssl_client_cert",
    "ssl_client_verify",
    "tcpinfo_rcv_space",
    "tcpinfo_rtt",
    "tcpinfo_rttvar",
    "tcpinfo_snd_cwnd",
    "uid_got",
    "uid_reset",
    "uid_set",
    "upstream_bytes_sent",
    "upstream_cache_status",
];

impl VhostScope {
    fn slot(&mut self, name: &Arc<str>) -> Result<u16, Fault> {
        if let Some(slot) = self.slots.get(name) {
            return Ok(*slot);
        }
        let slot = u16::try_from(self.names.len()).map_err(|_| Fault::from("too many variables in a server"))?;
        self.names.push(Arc::clone(name));
        self.defined.push(false);
        self.slots.insert(Arc::clone(name), slot);
        Ok(slot)
    }

    fn define(&mut self, name: &Arc<str>) -> Result<u16, Fault> {
        let slot = self.slot(name)?;
        self.defined[slot as usize] = true;
        Ok(slot)
    }

    fn defined(&self, name: &str) -> Option<u16> {
        self.slots.get(name).copied().filter(|slot| self.defined[*slot as usize])
    }
}

impl<'a> Load<'a> {
    /// What a name means here. Names have no case.
    pub(crate) fn variable(&mut self, name: &str, used: At<'_>) -> Done<Variable> {
        let lower = name.to_ascii_lowercase();
        if let Some(slot) = self.vhost.as_ref().and_then(|vhost| vhost.defined(&lower)) {
            return Ok(Variable::Slot(slot));
        }
        if let Some((_, group)) = self.map_groups.iter().find(|(group, _)| *group == lower) {
            return Ok(Variable::Capture(*group));
        }
        if let Some(known) = self.shared_variable(&lower) {
            return Ok(known);
        }
        let name = self.interner.string(&lower);
        match &mut self.vhost {
            Some(vhost) => {
                let slot = vhost.slot(&name)?;
                vhost.open_uses.push((slot, Arc::clone(used.site), used.at));
                Ok(Variable::Slot(slot))
            }
            None => {
                self.named.push(NamedUse { name: Arc::clone(&name), site: Arc::clone(used.site), at: used.at });
                self.note(Use::Named(Arc::clone(&name)));
                Ok(Variable::Named(name))
            }
        }
    }

    /// Notes a use of something of `http`, for the vhost that is read or else for `http` itself.
    pub(crate) fn note(&mut self, used: Use) {
        let uses = self.vhost.as_mut().map_or(&mut self.uses, |vhost| &mut vhost.uses);
        if !uses.contains(&used) {
            uses.push(used);
        }
    }

    /// What a name means in every vhost.
    fn shared_variable(&mut self, name: &str) -> Option<Variable> {
        if let Some(builtin) = Builtin::from_name(name) {
            return Some(Variable::Builtin(builtin));
        }
        if let Some(map) = self.maps.get(name).copied() {
            self.note(Use::Map(map));
            return Some(Variable::Map(map));
        }
        let header = |name: &str| HeaderName::from_bytes(name.replace('_', "-").as_bytes()).ok();
        if let Some(name) = name.strip_prefix("http_") {
            header(name).map(Variable::RequestHeader)
        } else if let Some(name) = name.strip_prefix("sent_http_") {
            header(name).map(Variable::SentHeader)
        } else if let Some(name) = name.strip_prefix("upstream_http_") {
            header(name).map(Variable::UpstreamHeader)
        } else if let Some(name) = name.strip_prefix("arg_").filter(|name| !name.is_empty()) {
            Some(Variable::Argument(self.interner.string(name)))
        } else if let Some(name) = name.strip_prefix("cookie_").filter(|name| !name.is_empty()) {
            Some(Variable::Cookie(self.interner.string(name)))
        } else {
            None
        }
    }

    /// What a `set` of a name (without the `$`) sets.
    pub(crate) fn set_target(&mut self, name: &str) -> Done<SetTarget> {
        let lower = name.to_ascii_lowercase();
        if lower == "args" {
            return Ok(SetTarget::Args);
        }
        self.settable(&lower)?;
        let name = self.interner.string(&lower);
        match &mut self.vhost {
            Some(vhost) => Ok(SetTarget::Slot(vhost.define(&name)?)),
            None => Err("a variable can be set in a server only".into()),
        }
    }

    /// Whether a map may make a name.
    pub(crate) fn map_name(&self, name: &str) -> Done {
        if name.is_empty() {
            return Err("invalid variable name \"$\"".into());
        }
        if Builtin::from_name(name).is_some() {
            return Err(format!("the duplicate \"{name}\" variable").into());
        }
        if FOREIGN.contains(&name) {
            return Err(format!("the \"{name}\" variable is not supported").into());
        }
        Ok(())
    }

    fn settable(&self, name: &str) -> Done {
        self.map_name(name)?;
        if self.maps.contains_key(name) {
            return Err(format!("the \"{name}\" variable is made by a map, to set it is not supported").into());
        }
        Ok(())
    }

    /// The slots of an expression's named groups.
    pub(crate) fn groups(&mut self, regex: &Regex) -> Done<Groups> {
        let mut groups = Vec::new();
        for (name, number) in regex.named_groups() {
            let lower = name.to_ascii_lowercase();
            self.settable(&lower)?;
            let name = self.interner.string(&lower);
            if let Some(vhost) = &mut self.vhost {
                groups.push((number, vhost.define(&name)?));
            }
        }
        Ok(groups.into())
    }

    /// Makes the names that a vhost sets known before its directives are applied, so that a use may stand before its
    /// `set`.
    pub(crate) fn announce(&mut self, directive: &Directive<'a>) {
        if directive.name() != "set" || directive.words.len() != 3 {
            return;
        }
        if let Some(name) = directive.words[1].text.strip_prefix('$') {
            // What is wrong with the name is said when the directive is applied.
            let _ = self.set_target(name);
        }
    }

    /// Says which variables nothing sets, at the end of a vhost.
    pub(crate) fn unset_variables(&mut self, vhost: &VhostScope) {
        for (slot, site, at) in &vhost.open_uses {
            if !vhost.defined[*slot as usize] {
                self.problem(site, *at, format!("unknown \"{}\" variable", vhost.names[*slot as usize]));
            }
        }
    }
}
