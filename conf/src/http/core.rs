//! `ngx_http_core_module`: the directives of request handling that other modules build on.

use std::sync::Arc;
use std::time::Duration;

use crate::main_conf::ErrorLog;

/// Nothing.
pub type MainSet = ();
/// Nothing (`listen` and `server_name` are parts of the vhost itself).
pub type SrvSet = ();

level! {
    /// Location level.
    pub struct Loc from LocSet {
        /// `client_max_body_size`, bytes; 0 is no limit.
        client_max_body_size: u64 = 1 << 20,
        /// `keepalive_timeout`, first value; zero closes after each answer.
        keepalive_timeout: Duration = Duration::from_secs(75),
        /// `keepalive_timeout`, second value: the `Keep-Alive: timeout=` header.
        keepalive_header: Option<u64> = None,
        /// `keepalive_requests`.
        keepalive_requests: u64 = 1000,
        /// `default_type`.
        default_type: Arc<str> = "text/plain".into(),
        /// `error_log`; empty: those of the main level.
        error_logs: Arc<[ErrorLog]> = Arc::new([]),
        /// `internal`: answers 404 to a request from outside.
        internal: bool = false,
    }
}
