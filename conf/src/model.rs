//! The typed configuration: what the text means, compiled so far that a worker can run it as it stands.

use std::cmp::Ordering;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::http::{LocConf, MainConf, SrvConf, rewrite};
use crate::load::LoadOptions;
use crate::main_conf::{Events, Main};
use crate::path_bytes;
use crate::problem::{Place, Problem};
use crate::regex::Regex;

/// A whole configuration, with what its load has [kept](crate::load::Keep) of vhosts and upstreams.
#[derive(Debug)]
pub struct Config<V = Arc<Vhost>, U = Arc<Upstream>> {
    /// The directives outside every block.
    pub main: Main,
    /// `events {}`.
    pub events: Events,
    /// `http {}`, if there is one.
    pub http: Option<Http<V, U>>,
    /// What nginx says at `warn` (a duplicate extension, a conflicting name …).
    pub warnings: Vec<Problem>,
    /// All that stands outside vhosts, upstreams, maps and log formats, includes expanded, one directive on a line: equal
    /// texts are equal settings. It changes by a reload only.
    pub outside: Box<str>,
}

impl<V, U> Config<V, U> {
    /// Vhosts and upstreams, and all else.
    pub fn split(self) -> (Config, Vec<V>, Vec<U>) {
        let Self { main, events, http, warnings, outside } = self;
        let (http, vhosts, upstreams) = match http {
            None => (None, Vec::new(), Vec::new()),
            Some(Http { main, srv, loc, vhosts, upstreams, reach, uses, options }) => {
                let (none, no_upstreams) = (Vec::new(), Vec::new());
                let http = Http { main, srv, loc, vhosts: none, upstreams: no_upstreams, reach, uses, options };
                (Some(http), vhosts, upstreams)
            }
        };
        (Config { main, events, http, warnings, outside }, vhosts, upstreams)
    }
}

/// `http {}`.
#[derive(Clone, Debug)]
pub struct Http<V = Arc<Vhost>, U = Arc<Upstream>> {
    /// What belongs to `http` alone: maps, log formats, our own settings.
    pub main: Arc<MainConf>,
    /// What a `server` inherits.
    pub srv: Arc<SrvConf>,
    /// What a `server` and its locations inherit.
    pub loc: Arc<LocConf>,
    /// In the order of the fully expanded source.
    pub vhosts: Vec<V>,
    /// In the order of the fully expanded source.
    pub upstreams: Vec<U>,
    /// The `include`s that stand directly in `http`: where a file must be to be part of the configuration.
    pub reach: Reach,
    /// What its own directives use. What its maps and log formats use stands in those.
    pub uses: Box<[Use]>,
    /// How it was loaded; fragments are loaded alike.
    pub options: Arc<LoadOptions>,
}

/// Something of `http` that a directive refers to: it cannot go while there is such a use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Use {
    /// A map, by [`crate::variable::Variable::Map`].
    Map(u16),
    /// A `log_format`, by its index.
    Format(u16),
    /// A variable that vhosts set ([`crate::variable::Variable::Named`]): a full load fails unless some vhost does.
    Named(Arc<str>),
}

/// What a task file's configuration holds: vhosts, upstreams, maps and log formats, made for the `http` that they join.
#[derive(Debug)]
pub struct Fragment<V = Arc<Vhost>, U = Arc<Upstream>> {
    /// In the order of their keys.
    pub vhosts: Vec<V>,
    /// In the order of the source.
    pub upstreams: Vec<U>,
    /// Each with its index among the maps of `http`: that of the map which it replaces, or a free one.
    pub maps: Vec<(u16, Arc<crate::http::map::Map>)>,
    /// The same for log formats.
    pub formats: Vec<(u16, Arc<crate::http::log::Format>)>,
    /// What nginx says at `warn`.
    pub warnings: Vec<Problem>,
    /// The files that were read, in no order.
    pub files: Vec<PathBuf>,
}

/// Identity of a vhost: the number of its `vsvc_id` directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VsvcId(pub u64);

impl fmt::Display for VsvcId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One `server {}`.
#[derive(Debug)]
pub struct Vhost {
    /// What others must know of it.
    pub outline: Outline,
    /// Server-level configuration, merged.
    pub srv: Arc<SrvConf>,
    /// Location-level configuration outside any location, merged.
    pub loc: Arc<LocConf>,
    /// The rewrite directives of the server level, in order.
    pub script: rewrite::Script,
    /// Its locations.
    pub locations: Locations,
    /// Its block as it is written: [`crate::load::load_vhost`] makes this vhost of it again.
    pub text: BlockText,
}

/// What a vhost is to the rest of the configuration: by this it is found, ordered, counted and compared. What a request
/// needs beside it can be made of the vhost's text at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Its identity; a `server` without one can only be changed by a reload.
    pub vsvc_id: Option<VsvcId>,
    /// Where its block begins.
    pub place: Place,
    /// Its place in the fully expanded source: decides default server, first regex, first of equal names.
    pub order: OrderKey,
    /// At least one (`listen` absent is `*:80`, or `*:8000` without root).
    pub listens: Box<[Listen]>,
    /// At least one (absent is the empty name).
    pub names: Box<[ServerName]>,
    /// The names behind [`crate::variable::Variable::Slot`].
    pub variables: Box<[Arc<str>]>,
    /// What it uses of `http`.
    pub uses: Box<[Use]>,
    /// The upstreams that it passes to, by name; `proxy::Target::Upstream` is an index into this.
    pub upstreams: Box<[UpstreamRef]>,
    /// What its block says, includes expanded. Two vhosts of one `http` with equal digests do the same.
    pub digest: Digest,
}

impl Deref for Vhost {
    type Target = Outline;

    fn deref(&self) -> &Outline {
        &self.outline
    }
}

impl Outline {
    /// As messages name it: its first name, and its id if it has one.
    pub fn label(&self) -> String {
        let name = self.names.first().map(ToString::to_string).unwrap_or_default();
        match self.vsvc_id {
            Some(id) => format!("vhost \"{name}\" (vsvc_id {id})"),
            None => format!("vhost \"{name}\""),
        }
    }
}

/// The text of a block in its pieces: included files stand in the places of their `include`s.
#[derive(Clone, Debug, Default)]
pub struct BlockText(pub Box<[TextPiece]>);

/// A piece of a [`BlockText`].
#[derive(Clone, Debug)]
pub enum TextPiece {
    /// Of a file that other blocks stand in, too.
    Own(Box<[u8]>),
    /// A whole file, as all who include it have it.
    File(Arc<[u8]>),
}

impl TextPiece {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::File(bytes) => bytes,
        }
    }
}

/// An upstream that a `proxy_pass` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamRef {
    /// An `upstream {}` of that name.
    Named(Arc<str>),
    /// Not an `upstream {}` but a host and port: peers with default parameters, made by the `proxy_pass` itself.
    Implicit(Arc<Upstream>),
}

/// The place of something in the fully expanded source, comparable without expanding it: for each file of the chain of
/// includes the byte offset of the include and the file that it leads to, at last the offset of the block itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrderKey(pub Arc<[OrderStep]>);

/// One file of an [`OrderKey`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OrderStep {
    /// Byte offset of the directive in its file.
    pub offset: u32,
    /// The file that the directive includes, or `None` at the end of the chain. Files of one glob compare as bytes,
    /// which is their order in the expansion.
    #[serde(with = "path_bytes::option")]
    pub file: Option<Arc<Path>>,
}

impl Ord for OrderStep {
    fn cmp(&self, other: &Self) -> Ordering {
        self.offset.cmp(&other.offset).then_with(|| match (&self.file, &other.file) {
            (Some(a), Some(b)) => a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()),
            (a, b) => a.is_some().cmp(&b.is_some()),
        })
    }
}

impl PartialOrd for OrderStep {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The `include` directives of `http` level that stand in the main configuration file or in files that it includes by
/// name, in order. What stands in files found by a pattern is not here: those come and go with their vhosts.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Each with the key of the directive (its last step has `file: None`) and its absolute pattern.
    pub includes: Vec<(OrderKey, PathBuf)>,
}

/// One `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub addr: ListenAddr,
    /// `default_server` (or `default`).
    pub default_server: bool,
    /// `backlog=N`.
    pub backlog: Option<i32>,
    /// `reuseport`: one socket per worker.
    pub reuseport: bool,
    /// `ipv6only=on|off`; on unless told otherwise.
    pub ipv6only: Option<bool>,
    /// `ssl`: its connections are TLS. All `listen`s of an address agree on it.
    pub ssl: bool,
    /// Its line.
    pub place: Place,
}

impl Listen {
    /// Whether it carries socket options; only one `listen` of an address may.
    pub fn has_options(&self) -> bool {
        self.backlog.is_some() || self.reuseport || self.ipv6only.is_some()
    }
}

/// A listener's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ListenAddr {
    /// `IP:port`; `*` is 0.0.0.0.
    Inet(SocketAddr),
    /// `unix:PATH`.
    Unix(#[serde(with = "path_bytes")] PathBuf),
}

impl fmt::Display for ListenAddr {
    /// As nginx writes it in its messages: `0.0.0.0:80`, `[::]:80`, `unix:/run/x`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One name of a `server_name`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// `example.com`; `""` is the empty name; `_` is an exact name that no request has.
    Exact(Arc<str>),
    /// `*.example.com`, kept as `example.com`. `.example.com` is this one and the exact name.
    Leading(Arc<str>),
    /// `www.example.*`, kept as `www.example`.
    Trailing(Arc<str>),
    /// `~…`. Named groups are variables of the vhost: (number of the group, slot).
    Regex {
        /// The expression, caseless as in nginx when it has a capital letter (the host is in lower case).
        regex: Regex,
        /// Group number → slot.
        groups: Box<[(u8, u16)]>,
    },
}

impl fmt::Display for ServerName {
    /// As it could stand in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Leading(name) => write!(f, "*.{name}"),
            Self::Trailing(name) => write!(f, "{name}.*"),
            Self::Regex { regex, .. } => write!(f, "~{}", regex.pattern()),
        }
    }
}

/// The locations of one level.
#[derive(Debug, Default)]
pub struct Locations {
    /// `=` and prefix locations, sorted by pattern; an exact one stands before a prefix one of the same pattern.
    pub prefixes: Box<[Arc<Location>]>,
    /// `~` and `~*` in the order of the file.
    pub regexes: Box<[Arc<Location>]>,
    /// `@name`; only directly in a `server`.
    pub named: Box<[Arc<Location>]>,
}

/// One `location {}`.
#[derive(Debug)]
pub struct Location {
    /// What it matches.
    pub pattern: Pattern,
    /// Its configuration, merged.
    pub conf: Arc<LocConf>,
    /// Its rewrite directives, in order.
    pub script: rewrite::Script,
    /// Locations inside it.
    pub nested: Locations,
}

/// What a location matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `= /path`.
    Exact(Arc<str>),
    /// `/path`, or `^~ /path` (`no_regex`).
    Prefix {
        /// The path.
        path: Arc<str>,
        /// `^~`: expressions are not tried when this is the longest prefix.
        no_regex: bool,
    },
    /// `~` or `~*`.
    Regex {
        /// The expression.
        regex: Regex,
        /// Group number → slot.
        groups: Box<[(u8, u16)]>,
    },
    /// `@name`, with the `@`.
    Named(Arc<str>),
}

/// One `upstream {}`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Its name, which is its `ups_id` when it was made by a task.
    pub name: Arc<str>,
    /// Where its block begins.
    pub place: Place,
    /// The file that it stands in is reached through this place of the source.
    pub order: OrderKey,
    /// At least one.
    pub peers: Box<[Peer]>,
    /// `keepalive N`: idle connections that a worker keeps to it. `None`: every connection is closed after its request.
    pub keepalive: Option<u32>,
    /// What its block says. Host names in it may lead elsewhere all the same: compare `peers` too.
    pub digest: Digest,
}

/// One address of a `server` line in an `upstream`. A name with several addresses gives several peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Where to connect.
    pub addr: ListenAddr,
    /// As `$upstream_addr` and the logs show it.
    pub name: Arc<str>,
    /// `weight=`, 1.
    pub weight: u32,
    /// `max_fails=`, 1; 0 never marks it failed.
    pub max_fails: u32,
    /// `fail_timeout=`, 10 s, in seconds: the window of the failures and the time of the punishment.
    pub fail_timeout: u64,
    /// `backup`.
    pub backup: bool,
    /// `down`.
    pub down: bool,
}
