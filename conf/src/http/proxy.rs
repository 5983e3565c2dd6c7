//! `ngx_http_proxy_module`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::template::Template;

/// Nothing.
pub type MainSet = ();
/// Nothing.
pub type SrvSet = ();

level! {
    /// Location level.
    pub struct Loc from LocSet {
        /// `proxy_set_header`. An empty value removes the header.
        set_headers: Arc<[(HeaderName, Template)]> = Arc::new([]),
        /// `proxy_hide_header`, beside those that nginx always hides (`Date`, `Server`, `X-Pad`, `X-Accel-…`).
        hide_headers: Arc<[HeaderName]> = Arc::new([]),
        /// `proxy_http_version 1.1` (1.0 is nginx's default).
        http11: bool = false,
        /// `proxy_connect_timeout`.
        connect_timeout: Duration = Duration::from_secs(60),
        /// `proxy_read_timeout`: between two reads.
        read_timeout: Duration = Duration::from_secs(60),
        /// `proxy_send_timeout`: between two writes.
        send_timeout: Duration = Duration::from_secs(60),
        /// `proxy_next_upstream`.
        next_upstream: NextUpstream = NextUpstream::default(),
        /// `proxy_buffering`.
        buffering: bool = true,
    }
}

/// When a request may go to the next peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextUpstream {
    /// `error`.
    pub error: bool,
    /// `timeout`.
    pub timeout: bool,
    /// `invalid_header`.
    pub invalid_header: bool,
    /// `http_500`.
    pub http_500: bool,
    /// `http_502`.
    pub http_502: bool,
    /// `http_503`.
    pub http_503: bool,
    /// `http_504`.
    pub http_504: bool,
    /// `http_403`.
    pub http_403: bool,
    /// `http_404`.
    pub http_404: bool,
    /// `http_429`.
    pub http_429: bool,
    /// `non_idempotent`: POST, LOCK and PATCH too once they were sent.
    pub non_idempotent: bool,
}

impl Default for NextUpstream {
    /// `error timeout`.
    fn default() -> Self {
        Self {
            error: true,
            timeout: true,
            invalid_header: false,
            http_500: false,
            http_502: false,
            http_503: false,
            http_504: false,
            http_403: false,
            http_404: false,
            http_429: false,
            non_idempotent: false,
        }
    }
}

/// `proxy_pass`.
#[derive(Debug)]
pub struct Pass {
    /// Where to.
    pub target: Target,
    /// `$proxy_host`: host and, unless it is 80, port, as written.
    pub host: Arc<str>,
    /// `$proxy_port`.
    pub port: Arc<str>,
    /// The URI part of a static target: replaces the part of the request's URI that matched the location.
    pub uri: Option<Arc<str>>,
    /// Length of the prefix that the location matched and that `uri` replaces, bytes. 0 in regex and named locations.
    pub replaced: usize,
}

/// Where a `proxy_pass` leads.
#[derive(Debug)]
pub enum Target {
    /// An index into [`crate::model::Vhost::upstreams`].
    Upstream(u16),
    /// A URL with variables: resolved for each request, to an `upstream {}` or an address. Its URI, if it has one,
    /// is passed as it is; else the request's URI is.
    Template(Template),
}
