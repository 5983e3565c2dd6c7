//! `ngx_http_log_module`: `access_log`, `log_format`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::template::Template;

/// Nothing.
pub type SrvSet = ();

level! {
    /// `http` level.
    pub struct Main from MainSet {
        /// `log_format`s by name; `combined` is always there.
        formats: Vec<Arc<Format>> = Vec::new(),
    }
}

level! {
    /// Location level.
    pub struct Loc from LocSet {
        /// `access_log`; `off` is an empty list. The default is `logs/access.log combined`.
        access_logs: Arc<[AccessLog]> = Arc::new([]),
    }
}

/// One `log_format`.
#[derive(Debug)]
pub struct Format {
    /// Its name.
    pub name: Arc<str>,
    /// How values are escaped.
    pub escape: Escape,
    /// The line, without the line feed.
    pub line: Template,
}

/// `escape=` of a `log_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// `"`, `\` and bytes below 32 or above 126 as `\xXX`; an empty value is `-`.
    Default,
    /// As in a JSON string.
    Json,
    /// Not at all.
    None,
}

/// One `access_log`.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// The file, absolute. Equal paths are one open file.
    pub path: Arc<PathBuf>,
    /// The format.
    pub format: Arc<Format>,
    /// `buffer=SIZE`, bytes: lines are written together.
    pub buffer: Option<usize>,
    /// `flush=TIME`.
    pub flush: Option<Duration>,
    /// `if=`: nothing is logged when it is empty or `0`.
    pub condition: Option<Template>,
}
