//! One request: what the client sent, and what the phases have made of it so far.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dysvr_conf::http::{LocConf, MainConf};
use dysvr_conf::model::{Location, Pattern, ServerName};
use http::{HeaderMap, Method, Uri, Version};
use smallvec::SmallVec;

use super::captures::Captures;
use super::client::Client;
use super::context::Context;
use super::host::Host;
use super::upstream::Attempt;
use crate::cycle::{Found, Vhost};
use crate::log::Level;

/// A request that is shared between its handler, the body of its answer and the log.
pub(super) type Shared = Rc<RefCell<Request>>;

/// How often a request may change its URI or its named location.
const MAX_URI_CHANGES: u8 = 10;

/// See the module.
pub(super) struct Request {
    /// The worker.
    pub ctx: Rc<Context>,
    /// The connection.
    pub client: Rc<Client>,
    /// The vhost that serves it until it ends, whatever happens to the configuration.
    pub vhost: Rc<Vhost>,
    /// What belongs to `http` alone: the maps and log formats that hold until it ends, whatever happens to them.
    pub main: Arc<MainConf>,
    /// Its method.
    pub method: Method,
    /// Its version.
    pub version: Version,
    /// The request line's URI as it came.
    pub target: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Lower case, without port; empty if there was none.
    pub host: Host,
    /// `Content-Length`.
    pub content_length: Option<u64>,
    /// When it began.
    pub start: Instant,
    /// Which request of the connection it is, from 1.
    pub number: u64,
    /// Socket bytes received when it began.
    pub received_before: u64,

    /// The merged configuration that holds now.
    pub conf: Arc<LocConf>,
    /// The location that it is in; `None` in the server itself.
    pub location: Option<Arc<Location>>,
    /// The path if it is not the one of the request line.
    path: Option<Vec<u8>>,
    /// The arguments if they are not those of the request line.
    args: Option<Vec<u8>>,
    /// Groups of the last expression that matched.
    pub captures: Captures,
    slots: SmallVec<[Option<Vec<u8>>; 4]>,
    /// Came from a `rewrite` or an internal redirect.
    pub internal: bool,
    /// The request line's URI may be passed on as it is.
    pub unparsed_uri: bool,
    /// The location's prefix is still what `path` begins with.
    pub valid_location: bool,
    /// A `rewrite` wants a new location.
    pub uri_changed: bool,
    uri_changes: u8,
    /// The request line had an escape or a `+` in its path.
    pub quoted: bool,

    /// Status of the answer, 0 before there is one.
    pub status: u16,
    /// Whether the client may keep its connection as far as it is concerned.
    pub keepalive: bool,
    /// The answer has been sent as a whole.
    pub complete: bool,
    /// `$proxy_host` and `$proxy_port`.
    pub proxy: Option<(Arc<str>, Arc<str>)>,
    /// Each try of an upstream.
    pub attempts: SmallVec<[Attempt; 1]>,
    /// Headers of the upstream's answer, if a log format or `add_header` asks for them.
    pub upstream_headers: Option<Box<HeaderMap>>,
    /// Headers of our answer, if a log format asks for them.
    pub sent_headers: Option<Box<HeaderMap>>,
    /// `$request_id`.
    pub id: Option<[u8; 16]>,
    /// There is no URI: the request line is wrong.
    pub(crate) no_uri: bool,
    /// Stands for `$request` when the head could not be parsed.
    pub bad_line: Option<Box<str>>,
}

impl Request {
    /// A request at the beginning of its phases.
    pub(super) fn new(client: &Rc<Client>, parts: http::request::Parts, found: Found, host: Host, number: u64) -> Self {
        let ctx = Rc::clone(&client.ctx);
        let Found { vhost, regex } = found;
        let conf = Arc::clone(&vhost.conf.loc);
        let mut request = Self {
            start: ctx.clock.now(),
            received_before: client.request_began.get(),
            main: ctx.cycle.main(),
            ctx,
            client: Rc::clone(client),
            method: parts.method,
            version: parts.version,
            target: parts.uri,
            headers: parts.headers,
            host,
            content_length: None,
            number,
            conf,
            location: None,
            path: None,
            args: None,
            captures: Captures::default(),
            slots: SmallVec::new(),
            internal: false,
            unparsed_uri: true,
            valid_location: true,
            uri_changed: false,
            uri_changes: MAX_URI_CHANGES + 1,
            quoted: false,
            status: 0,
            keepalive: false,
            complete: false,
            proxy: None,
            attempts: SmallVec::new(),
            upstream_headers: None,
            sent_headers: None,
            id: None,
            no_uri: false,
            bad_line: None,
            vhost,
        };
        if let Some(index) = regex {
            request.capture_server_name(index);
        }
        request
    }

    fn capture_server_name(&mut self, index: u16) {
        let vhost = Rc::clone(&self.vhost);
        if let Some(ServerName::Regex { regex, groups }) = vhost.conf.names.get(usize::from(index))
            && let Ok(Some(captures)) = Captures::run(regex, &self.host)
        {
            self.captured(captures, groups);
        }
    }

    /// An expression matched: its groups are `$1`… from now on, and the named ones variables.
    pub(super) fn captured(&mut self, captures: Captures, groups: &[(u8, u16)]) {
        for (group, slot) in groups {
            self.set_slot(*slot, captures.get(*group).unwrap_or_default().to_vec());
        }
        self.captures = captures;
    }

    /// `$uri`.
    pub(super) fn path(&self) -> &[u8] {
        match &self.path {
            Some(path) => path,
            None => self.target.path().as_bytes(),
        }
    }

    /// Whether there are arguments, be they empty.
    pub(crate) fn has_args(&self) -> bool {
        self.args.is_some() || !self.args().is_empty()
    }

    /// Another path.
    pub(super) fn set_path(&mut self, path: Vec<u8>) {
        self.path = Some(path);
    }

    /// Whether the request line's URI is a path at all.
    pub(crate) fn is_rooted(&self) -> bool {
        self.target.path().starts_with('/') && self.target.path_and_query().is_some()
    }

    /// `$args`.
    pub(super) fn args(&self) -> &[u8] {
        match &self.args {
            Some(args) => args,
            None => self.target.query().unwrap_or_default().as_bytes(),
        }
    }

    /// Other arguments.
    pub(super) fn set_args(&mut self, args: Vec<u8>) {
        self.args = Some(args);
    }

    /// The request line's path and arguments, as they came.
    pub(super) fn request_uri(&self) -> &[u8] {
        self.target.path_and_query().map_or(b"/".as_slice(), |all| all.as_str().as_bytes())
    }

    /// A variable of the vhost.
    pub(super) fn slot(&self, slot: u16) -> Option<&[u8]> {
        self.slots.get(usize::from(slot))?.as_deref()
    }

    /// Sets a variable of the vhost.
    pub(super) fn set_slot(&mut self, slot: u16, value: Vec<u8>) {
        let slot = usize::from(slot);
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, None);
        }
        self.slots[slot] = Some(value);
    }

    /// Counts a change of the URI; false when there were too many.
    pub(super) fn count_uri_change(&mut self) -> bool {
        self.uri_changes = self.uri_changes.saturating_sub(1);
        self.uri_changes > 0
    }

    /// Goes to another URI inside the server: `X-Accel-Redirect`.
    pub(super) fn redirect_internally(&mut self, path: Vec<u8>, args: Vec<u8>) {
        self.path = Some(path);
        self.args = Some(args);
        self.internal = true;
        self.unparsed_uri = false;
        self.valid_location = false;
        self.location = None;
        self.conf = Arc::clone(&self.vhost.conf.loc);
        self.captures = Captures::default();
    }

    /// `$server_name`: the first name as it was written.
    pub(super) fn server_name(&self) -> String {
        match self.vhost.conf.names.first() {
            Some(ServerName::Exact(name)) => name.to_string(),
            Some(ServerName::Leading(name)) => format!("*.{name}"),
            Some(ServerName::Trailing(name)) => format!("{name}.*"),
            Some(ServerName::Regex { regex, .. }) => format!("~{}", regex.pattern()),
            None => String::new(),
        }
    }

    /// The path of the prefix location that the request is in.
    pub(super) fn location_prefix(&self) -> Option<&str> {
        match &self.location.as_ref()?.pattern {
            Pattern::Exact(path) | Pattern::Prefix { path, .. } => Some(path),
            Pattern::Regex { .. } | Pattern::Named(_) => None,
        }
    }

    /// `GET /x HTTP/1.1`.
    pub(super) fn line(&self) -> String {
        if let Some(line) = &self.bad_line {
            return line.to_string();
        }
        format!("{} {} {:?}", self.method, self.target, self.version)
    }

    /// Writes to the error log of the location, with what nginx says about a request behind the text.
    pub(super) fn error(&self, level: Level, text: std::fmt::Arguments<'_>) {
        self.error_about(level, text, None);
    }

    /// The same, for an upstream.
    pub(super) fn error_about(&self, level: Level, text: std::fmt::Arguments<'_>, upstream: Option<&str>) {
        let log = self.ctx.error_log(&self.conf.core.error_logs);
        if !log.admits(level) {
            return;
        }
        let upstream = upstream.map(|url| format!(", upstream: \"{url}\"")).unwrap_or_default();
        let host = self.headers.get(http::header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
        let host = host.map(|host| format!(", host: \"{host}\"")).unwrap_or_default();
        let referrer = self.headers.get(http::header::REFERER).map(|it| String::from_utf8_lossy(it.as_bytes()));
        let referrer = referrer.map(|it| format!(", referrer: \"{it}\"")).unwrap_or_default();
        log.write(
            level,
            self.client.number,
            format_args!(
                "{text}, client: {}, server: {}, request: \"{}\"{upstream}{host}{referrer}",
                self.client.remote_text,
                self.server_name(),
                self.line(),
            ),
        );
    }
}

/// Logs a request whose head could not be parsed.
pub(super) fn log_bad(client: &Rc<Client>, found: Found, status: u16, head: &[u8], body: u64) {
    let (parts, ()) = http::Request::new(()).into_parts();
    let number = client.requests.get();
    let mut request = Request::new(client, parts, found, Host::new(), number);
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    request.bad_line = Some(String::from_utf8_lossy(line).into());
    request.no_uri = true;
    let html = (http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/html"));
    request.sent_headers = Some(Box::new([html].into_iter().collect()));
    request.complete = body > 0;
    request.status = status;
    client.answered_raw(body);
    super::log_request(&mut request);
}
