//! `ngx_http_log_module`: `access_log`, `log_format`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{LocSet as AnyLocSet, MainSet as AnyMainSet};
use crate::digest::{Digest, Words};
use crate::directive::{Arity, Directive, Done, HTTP, LOCATION, LOCATION_IF, SERVER, Setter};
use crate::load::{Call, size};
use crate::model::{OrderKey, Use};
use crate::problem::Place;
use crate::template::{Part, Template};
use crate::variable::{Builtin, Variable};

/// The table.
pub static DIRECTIVES: &[Directive] = &[
    Directive::new("log_format", HTTP, Arity::at_least(2), Setter::Http(log_format)),
    Directive::new(
        "access_log",
        HTTP.or(SERVER).or(LOCATION).or(LOCATION_IF),
        Arity::at_least(1),
        Setter::Loc(access_log),
    ),
];

/// Nothing.
pub type SrvSet = ();

level! {
    /// `http` level.
    pub struct Main from MainSet {
        /// `log_format`s; `combined` is always there, as the first. One that was deleted in place leaves a format without
        /// a name, whose place the next one takes.
        formats: Vec<Arc<Format>> = Vec::new(),
    }
}

level! {
    /// Location level.
    #[derive(PartialEq, Eq, Hash)]
    pub struct Loc from LocSet {
        /// `access_log`; `off` is an empty list. The default is `logs/access.log combined`.
        access_logs: Arc<[AccessLog]> = Arc::new([]),
    }
}

/// One `log_format`.
#[derive(Debug, Default)]
pub struct Format {
    /// Its name.
    pub name: Arc<str>,
    /// How values are escaped.
    pub escape: Escape,
    /// The line, without the line feed.
    pub line: Template,
    /// Where it stands; `combined` stands nowhere.
    pub place: Option<Place>,
    /// Its place in the fully expanded source.
    pub order: OrderKey,
    /// What it says.
    pub digest: Digest,
    /// What it uses.
    pub uses: Box<[Use]>,
}

/// The index of `combined`.
pub const COMBINED: u16 = 0;

/// `escape=` of a `log_format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    #[default]
    /// `"`, `\` and bytes below 32 or above 126 as `\xXX`; an empty value is `-`.
    Default,
    /// As in a JSON string.
    Json,
    /// Not at all.
    None,
}

/// One `access_log`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccessLog {
    /// The file, absolute. Equal paths are one open file.
    pub path: Arc<PathBuf>,
    /// The format: an index into [`Main::formats`].
    pub format: u16,
    /// `buffer=SIZE`, bytes: lines are written together.
    pub buffer: Option<usize>,
    /// `flush=TIME`.
    pub flush: Option<Duration>,
    /// `if=`: nothing is logged when it is empty or `0`.
    pub condition: Option<Template>,
}

/// `combined`, which is always there.
pub(crate) fn combined() -> Arc<Format> {
    use Builtin::{BodyBytesSent, RemoteAddr, RemoteUser, Request, Status, TimeLocal};
    let text = |text: &str| Part::Literal(text.into());
    let builtin = |builtin| Part::Variable(Variable::Builtin(builtin));
    let header = |name| Part::Variable(Variable::RequestHeader(name));
    let parts = [
        builtin(RemoteAddr),
        text(" - "),
        builtin(RemoteUser),
        text(" ["),
        builtin(TimeLocal),
        text("] \""),
        builtin(Request),
        text("\" "),
        builtin(Status),
        text(" "),
        builtin(BodyBytesSent),
        text(" \""),
        header(http::header::REFERER),
        text("\" \""),
        header(http::header::USER_AGENT),
        text("\""),
    ];
    Arc::new(Format { name: "combined".into(), line: Template { parts: parts.into() }, ..Format::default() })
}

/// The log of a configuration that names none.
pub(crate) fn default_log(path: PathBuf) -> AccessLog {
    AccessLog { path: Arc::new(path), format: COMBINED, buffer: None, flush: None, condition: None }
}

fn log_format(_: &mut AnyMainSet, call: &mut Call<'_, '_>) -> Done {
    let name = call.arg(1);
    if call.load.format(name).is_some() {
        return Err(format!("duplicate \"log_format\" name \"{name}\"").into());
    }
    let (escape, first) = match call.arg(2).strip_prefix("escape=") {
        None => (Escape::Default, 2),
        Some("default") => (Escape::Default, 3),
        Some("json") => (Escape::Json, 3),
        Some("none") => (Escape::None, 3),
        Some(other) => return Err(format!("unknown log format escaping \"{other}\"").into()),
    };
    let mut line = String::new();
    for word in &call.directive.words[first..] {
        let nameless = word.text.split('$').skip(1).find(|text| !text.starts_with(is_name_start));
        if let Some(text) = nameless {
            return Err(format!("invalid parameter \"${text}\"").into());
        }
        line += word.text;
    }
    let (line, uses) = call.with_uses(|call| call.template(&line));
    let mut words = Words::default();
    call.directive.words.iter().for_each(|word| words.word(word.text));
    let name = call.string(name);
    let (place, order, digest) = (call.place(), call.key(), words.digest());
    call.load.define_format(Format { name, escape, line: line?, place, order, digest, uses });
    Ok(())
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '{'
}

fn access_log(set: &mut AnyLocSet, call: &mut Call<'_, '_>) -> Done {
    let path = call.arg(1);
    if path == "off" {
        if call.arguments().len() > 1 {
            return Err(format!("invalid parameter \"{}\"", call.arg(2)).into());
        }
        // Off, whatever else the block says.
        set.log.access_logs = Some(Arc::new([]));
        return Ok(());
    }
    if path.starts_with("syslog:") {
        return Err("logging to syslog is not supported".into());
    }
    if path.contains('$') {
        return Err("variables in the path of an access_log are not supported".into());
    }
    let name = if call.arguments().len() > 1 { call.arg(2) } else { "combined" };
    let format = call.load.format(name).ok_or_else(|| format!("unknown log format \"{name}\""))?;
    call.load.note(Use::Format(format));
    let mut log = AccessLog {
        path: Arc::new(call.prefix_path(path)),
        format,
        buffer: None,
        flush: None,
        condition: None,
    };
    for word in call.arguments().iter().skip(2) {
        parameter(&mut log, word.text, call)?;
    }
    if log.flush.is_some() && log.buffer.is_none() {
        return Err(format!("no buffer is defined for access_log \"{path}\"").into());
    }
    set.log.access_logs = match set.log.access_logs.take() {
        Some(off) if off.is_empty() => Some(off),
        own => Some(own.iter().flat_map(|logs| logs.iter()).cloned().chain([log]).collect()),
    };
    Ok(())
}

fn parameter(log: &mut AccessLog, text: &str, call: &mut Call<'_, '_>) -> Done {
    match text.split_once('=') {
        Some(("buffer", value)) => {
            let bytes = size(value).filter(|bytes| *bytes > 0).and_then(|bytes| usize::try_from(bytes).ok());
            log.buffer = Some(bytes.ok_or_else(|| format!("invalid buffer size \"{value}\""))?);
        }
        Some(("flush", value)) => {
            let millis = crate::load::millis(value).filter(|millis| *millis > 0);
            let millis = millis.ok_or_else(|| format!("invalid flush time \"{value}\""))?;
            log.flush = Some(Duration::from_millis(millis));
        }
        Some(("if", value)) => log.condition = Some(call.template(value)?),
        _ if text == "gzip" || text.starts_with("gzip=") => {
            return Err(format!("invalid parameter \"{text}\", it is not supported").into());
        }
        _ => return Err(format!("invalid parameter \"{text}\"").into()),
    }
    Ok(())
}
