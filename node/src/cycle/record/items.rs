//! What stands in the sections of a vhost's record, one thing behind the other.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use dysvr_conf::model::{self, ListenAddr, Outline, ServerName, UpstreamRef, Use};
use dysvr_conf::problem::Place;
use dysvr_conf::regex::Regex;
use serde::{Deserialize, Serialize};

use super::{Damaged, path};
use crate::cycle::listener::DEFAULT;
use crate::cycle::{Entry, SocketOptions};

/// A `listen` of a vhost.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cycle) struct Listen<'r> {
    pub(in crate::cycle) addr: ListenAddr,
    pub(in crate::cycle) default_server: bool,
    pub(in crate::cycle) ssl: bool,
    backlog: Option<i32>,
    reuseport: bool,
    ipv6only: Option<bool>,
    line: u32,
    /// None is the vhost's.
    file: Option<&'r [u8]>,
}

impl<'r> Listen<'r> {
    pub(super) fn of(listen: &'r model::Listen, file: &Path) -> Self {
        Self {
            addr: listen.addr.clone(),
            default_server: listen.default_server,
            ssl: listen.ssl,
            backlog: listen.backlog,
            reuseport: listen.reuseport,
            ipv6only: listen.ipv6only,
            line: listen.place.line,
            file: (*listen.place.file != *file).then(|| listen.place.file.as_os_str().as_bytes()),
        }
    }

    pub(super) fn into_model(self, file: &Arc<Path>) -> model::Listen {
        model::Listen {
            addr: self.addr,
            default_server: self.default_server,
            backlog: self.backlog,
            reuseport: self.reuseport,
            ipv6only: self.ipv6only,
            ssl: self.ssl,
            place: Place { file: self.file.map_or_else(|| Arc::clone(file), path), line: self.line },
        }
    }

    /// Its line; `vhost` is whose it is.
    pub(in crate::cycle) fn place(&self, vhost: &Entry) -> Place {
        Place { file: self.file.map_or_else(|| vhost.place().file, path), line: self.line }
    }

    /// All that it says, wherever its line is.
    pub(super) fn says(self) -> (ListenAddr, bool, bool, Option<SocketOptions>) {
        let options = self.options();
        (self.addr, self.default_server, self.ssl, options)
    }

    /// The options that it carries; only one of an address may.
    pub(in crate::cycle) fn options(&self) -> Option<SocketOptions> {
        (self.backlog.is_some() || self.reuseport || self.ipv6only.is_some()).then(|| SocketOptions {
            backlog: self.backlog.unwrap_or(DEFAULT.backlog),
            reuseport: self.reuseport,
            ipv6only: self.ipv6only.unwrap_or(DEFAULT.ipv6only),
        })
    }
}

/// An upstream that a vhost passes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cycle) enum Used<'r> {
    /// An `upstream {}`.
    Named(&'r str),
    /// One that a `proxy_pass` makes: its name, and all that it is.
    Implicit(&'r str, &'r [u8]),
}

impl<'r> Used<'r> {
    pub(super) fn upstream(self) -> Result<UpstreamRef, Damaged> {
        match self {
            Self::Named(name) => Ok(UpstreamRef::Named(name.into())),
            Self::Implicit(_, whole) => {
                postcard::from_bytes(whole).map(Arc::new).map(UpstreamRef::Implicit).map_err(|_| Damaged)
            }
        }
    }

    /// The name of an `upstream {}`.
    pub(in crate::cycle) fn named(self) -> Option<&'r str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Implicit(..) => None,
        }
    }
}

/// What is asked for by few vhosts, or seldom.
#[derive(Serialize, Deserialize)]
pub(super) struct Rest<'r> {
    pub(super) line: u32,
    /// None is the last one of its order.
    #[serde(borrow)]
    pub(super) file: Option<&'r [u8]>,
    /// The expressions among the names, in their order.
    pub(super) regexes: Vec<Expression<'r>>,
    pub(super) variables: Vec<&'r str>,
    pub(super) uses: Vec<Use>,
}

/// A name that is an expression.
#[derive(Serialize, Deserialize)]
pub(super) struct Expression<'r> {
    /// Of the name.
    pub(super) index: u16,
    pub(super) pattern: &'r str,
    pub(super) caseless: bool,
    pub(super) groups: Vec<(u8, u16)>,
}

impl Expression<'_> {
    pub(super) fn regex(&self) -> Result<Regex, Damaged> {
        Regex::new(self.pattern, self.caseless).map_err(|_| Damaged)
    }
}

impl<'r> Rest<'r> {
    pub(super) fn of(outline: &'r Outline) -> Self {
        let last = outline.order.0.iter().rev().find_map(|step| step.file.as_deref());
        let file = &*outline.place.file;
        let regexes = (0..).zip(&outline.names).filter_map(|(index, name)| match name {
            ServerName::Regex { regex, groups } => Some(Expression {
                index,
                pattern: regex.pattern(),
                caseless: regex.caseless(),
                groups: groups.to_vec(),
            }),
            _ => None,
        });
        Self {
            line: outline.place.line,
            file: (last != Some(file)).then(|| file.as_os_str().as_bytes()),
            regexes: regexes.collect(),
            variables: outline.variables.iter().map(|name| &**name).collect(),
            uses: outline.uses.to_vec(),
        }
    }
}

/// Things that stand one behind the other.
pub(super) fn items<'r, T: Deserialize<'r>>(mut bytes: &'r [u8]) -> impl Iterator<Item = Result<T, Damaged>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let taken = postcard::take_from_bytes::<T>(bytes);
        bytes = taken.as_ref().map_or(&[], |(_, rest)| rest);
        Some(taken.map(|(item, _)| item).map_err(|_| Damaged))
    })
}
