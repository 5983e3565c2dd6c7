//! `ngx_http_core_module`: the directives of request handling that other modules build on.

use std::sync::Arc;
use std::time::Duration;

use super::LocSet as AnyLocSet;
use crate::directive::{Arity, BlockKind, Directive, Done, HTTP, LOCATION, MAIN, SERVER, Setter};
use crate::load::{Call, ServerSet, Wildcard};
use crate::main_conf::{self, ErrorLog};
use crate::model::ServerName;

mod listen;

pub(crate) use listen::default_listen;

/// The table.
pub static DIRECTIVES: &[Directive] = &[
    Directive::new("http", MAIN, Arity::NONE, Setter::Block(BlockKind::Http)),
    Directive::new("server", HTTP, Arity::NONE, Setter::Block(BlockKind::Server)),
    Directive::new("location", SERVER.or(LOCATION), Arity::between(1, 2), Setter::Block(BlockKind::Location)),
    Directive::new("listen", SERVER, Arity::at_least(1), Setter::Server(listen::listen)),
    Directive::new("server_name", SERVER, Arity::at_least(1), Setter::Server(server_name)),
    Directive::new("internal", LOCATION, Arity::NONE, Setter::Loc(|set, call| call.once(&mut set.core.internal, true))),
    Directive::new(
        "client_max_body_size",
        HTTP.or(SERVER).or(LOCATION),
        Arity::exactly(1),
        Setter::Loc(|set, call| call.once(&mut set.core.client_max_body_size, call.size(1)?)),
    ),
    Directive::new(
        "keepalive_timeout",
        HTTP.or(SERVER).or(LOCATION),
        Arity::between(1, 2),
        Setter::Loc(keepalive_timeout),
    ),
    Directive::new(
        "keepalive_requests",
        HTTP.or(SERVER).or(LOCATION),
        Arity::exactly(1),
        Setter::Loc(|set, call| call.once(&mut set.core.keepalive_requests, call.number(1)?)),
    ),
    Directive::new(
        "default_type",
        HTTP.or(SERVER).or(LOCATION),
        Arity::exactly(1),
        Setter::Loc(|set, call| {
            let value = call.string(call.arg(1));
            call.once(&mut set.core.default_type, value)
        }),
    ),
    Directive::new("error_log", HTTP.or(SERVER).or(LOCATION), Arity::at_least(1), Setter::Loc(error_log)),
];

/// Nothing.
pub type MainSet = ();
/// Nothing (`listen` and `server_name` are parts of the vhost itself).
pub type SrvSet = ();

level! {
    /// Location level.
    #[derive(PartialEq, Eq, Hash)]
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

fn keepalive_timeout(set: &mut AnyLocSet, call: &mut Call<'_, '_>) -> Done {
    call.once(&mut set.core.keepalive_timeout, call.time(1)?)?;
    // Without a second value the header of the block around goes on, as in nginx.
    if call.arguments().len() == 2 {
        let seconds = crate::load::seconds(call.arg(2)).ok_or_else(|| call.fault("invalid value"))?;
        set.core.keepalive_header = Some(Some(seconds));
    }
    Ok(())
}

fn error_log(set: &mut AnyLocSet, call: &mut Call<'_, '_>) -> Done {
    let log = main_conf::error_log(call)?;
    let own = set.core.error_logs.take();
    set.core.error_logs = Some(own.iter().flat_map(|logs| logs.iter()).cloned().chain([log]).collect());
    Ok(())
}

/// Names of one server: they are counted in 16 bits, and nobody means more.
const MAX_NAMES: usize = 1 << 15;

fn server_name(set: &mut ServerSet, call: &mut Call<'_, '_>) -> Done {
    for word in call.arguments() {
        // One word may be two names.
        if set.names.len() + 2 > MAX_NAMES {
            return Err("too many names in a server".into());
        }
        let text = word.text;
        if (text.starts_with('*') && !(text.len() >= 3 && text[1..].starts_with('.'))) || text == "." {
            return Err(format!("server name \"{text}\" is invalid").into());
        }
        if text.contains('/') {
            call.warn(format!("server name \"{text}\" has suspicious symbols"));
        }
        if text.eq_ignore_ascii_case("$hostname") {
            return Err("server name \"$hostname\" is not supported".into());
        }
        if let Some(pattern) = text.strip_prefix('~') {
            if pattern.is_empty() {
                return Err(format!("empty regex in server name \"{text}\"").into());
            }
            // The host is in lower case when it is matched.
            let caseless = pattern.bytes().any(|byte| byte.is_ascii_uppercase());
            let (regex, groups) = call.regex_with_groups(pattern, caseless)?;
            set.names.push(ServerName::Regex { regex, groups });
            continue;
        }
        let lower = text.to_ascii_lowercase();
        match crate::load::wildcard(&lower) {
            Some(Wildcard::Exact) => set.names.push(ServerName::Exact(lower.as_str().into())),
            Some(Wildcard::Both(name)) => {
                let name: Arc<str> = name.into();
                set.names.push(ServerName::Exact(Arc::clone(&name)));
                set.names.push(ServerName::Leading(name));
            }
            Some(Wildcard::Leading(name)) => set.names.push(ServerName::Leading(name.into())),
            Some(Wildcard::Trailing(name)) => set.names.push(ServerName::Trailing(name.into())),
            None => return Err(format!("invalid server name or wildcard \"{text}\"").into()),
        }
    }
    Ok(())
}
