//! `ngx_http_proxy_module`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{Handler, LocSet as AnyLocSet, headers};
use crate::directive::{Arity, Directive, Done, HTTP, LOCATION, LOCATION_IF, SERVER, Setter};
use crate::load::{Call, Form, Host, parse_url};
use crate::template::Template;

/// The table.
pub static DIRECTIVES: &[Directive] = &[
    Directive::new("proxy_pass", LOCATION.or(LOCATION_IF), Arity::exactly(1), Setter::Loc(proxy_pass)),
    Directive::new("proxy_set_header", HTTP.or(SERVER).or(LOCATION), Arity::exactly(2), Setter::Loc(set_header)),
    Directive::new("proxy_hide_header", HTTP.or(SERVER).or(LOCATION), Arity::exactly(1), Setter::Loc(hide_header)),
    Directive::new("proxy_http_version", HTTP.or(SERVER).or(LOCATION), Arity::exactly(1), Setter::Loc(http_version)),
    Directive::new(
        "proxy_connect_timeout",
        HTTP.or(SERVER).or(LOCATION),
        Arity::exactly(1),
        Setter::Loc(|set, call| call.once(&mut set.proxy.connect_timeout, call.time(1)?)),
    ),
    Directive::new(
        "proxy_read_timeout",
        HTTP.or(SERVER).or(LOCATION),
        Arity::exactly(1),
        Setter::Loc(|set, call| call.once(&mut set.proxy.read_timeout, call.time(1)?)),
    ),
    Directive::new(
        "proxy_send_timeout",
        HTTP.or(SERVER).or(LOCATION),
        Arity::exactly(1),
        Setter::Loc(|set, call| call.once(&mut set.proxy.send_timeout, call.time(1)?)),
    ),
    Directive::new("proxy_next_upstream", HTTP.or(SERVER).or(LOCATION), Arity::at_least(1), Setter::Loc(next_upstream)),
    Directive::new(
        "proxy_buffering",
        HTTP.or(SERVER).or(LOCATION),
        Arity::FLAG,
        Setter::Loc(|set, call| call.once(&mut set.proxy.buffering, call.flag()?)),
    ),
];

/// Nothing.
pub type MainSet = ();
/// Nothing.
pub type SrvSet = ();

level! {
    /// Location level.
    #[derive(PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl NextUpstream {
    /// `off`.
    pub const NEVER: Self = Self {
        error: false,
        timeout: false,
        invalid_header: false,
        http_500: false,
        http_502: false,
        http_503: false,
        http_504: false,
        http_403: false,
        http_404: false,
        http_429: false,
        non_idempotent: false,
    };
}

impl Default for NextUpstream {
    /// `error timeout`.
    fn default() -> Self {
        Self { error: true, timeout: true, ..Self::NEVER }
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
    /// An index into [`crate::model::Outline::upstreams`].
    Upstream(u16),
    /// A URL with variables: resolved for each request, to an `upstream {}` or an address. Its URI, if it has one,
    /// is passed as it is; else the request's URI is.
    Template(Template),
}

fn proxy_pass(set: &mut AnyLocSet, call: &mut Call<'_, '_>) -> Done {
    if set.handler.is_some() {
        return Err(call.fault("is duplicate"));
    }
    let text = call.arg(1);
    let pass = if text.contains('$') {
        let target = Target::Template(call.template(text)?);
        Pass { target, host: "".into(), port: "".into(), uri: None, replaced: 0 }
    } else {
        fixed_pass(text, call)?
    };
    set.handler = Some(Handler::Proxy(Arc::new(pass)));
    Ok(())
}

fn fixed_pass(text: &str, call: &mut Call<'_, '_>) -> Done<Pass> {
    let has_scheme = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if has_scheme("https://") {
        return Err("https protocol requires SSL support".into());
    }
    if !has_scheme("http://") {
        return Err("invalid URL prefix".into());
    }
    let address = &text["http://".len()..];
    let url = parse_url(address, Form::Pass).map_err(|error| format!("{error} in upstream \"{address}\""))?;
    let scope = call.load.pass_scope();
    let index = call.upstream(&url, &address[..address.len() - url.uri.len()])?;
    if !url.uri.is_empty() && !scope.fixed_path {
        return Err("\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named \
                    location, or inside \"if\" statement, or inside \"limit_except\" block"
            .into());
    }
    let host = url.host.text();
    let (host, port) = match (&url.host, url.port) {
        (Host::Unix(_), _) => (call.name_of(index, host), call.string("")),
        (_, 80) => (call.name_of(index, host), call.string("80")),
        (_, port) => (format!("{host}:{port}").into(), call.string(&port.to_string())),
    };
    Ok(Pass {
        target: Target::Upstream(index),
        host,
        port,
        uri: (!url.uri.is_empty()).then(|| call.string(url.uri)),
        replaced: scope.path_len,
    })
}

fn set_header(set: &mut AnyLocSet, call: &mut Call<'_, '_>) -> Done {
    let added = (headers::header_name(call.arg(1))?, call.template(call.arg(2))?);
    let own = set.proxy.set_headers.take();
    set.proxy.set_headers = Some(own.iter().flat_map(|list| list.iter()).cloned().chain([added]).collect());
    Ok(())
}

fn hide_header(set: &mut AnyLocSet, call: &mut Call<'_, '_>) -> Done {
    let added = headers::header_name(call.arg(1))?;
    let own = set.proxy.hide_headers.take();
    set.proxy.hide_headers = Some(own.iter().flat_map(|list| list.iter()).cloned().chain([added]).collect());
    Ok(())
}

fn http_version(set: &mut AnyLocSet, call: &mut Call<'_, '_>) -> Done {
    let http11 = match call.arg(1) {
        "1.0" => false,
        "1.1" => true,
        other => return Err(format!("invalid value \"{other}\"").into()),
    };
    call.once(&mut set.proxy.http11, http11)
}

fn next_upstream(set: &mut AnyLocSet, call: &mut Call<'_, '_>) -> Done {
    // A second directive of the block adds to the first.
    let mut when = set.proxy.next_upstream.unwrap_or(NextUpstream::NEVER);
    let mut off = false;
    for word in call.arguments() {
        let place = match word.text {
            "error" => &mut when.error,
            "timeout" => &mut when.timeout,
            "invalid_header" => &mut when.invalid_header,
            "non_idempotent" => &mut when.non_idempotent,
            "http_500" => &mut when.http_500,
            "http_502" => &mut when.http_502,
            "http_503" => &mut when.http_503,
            "http_504" => &mut when.http_504,
            "http_403" => &mut when.http_403,
            "http_404" => &mut when.http_404,
            "http_429" => &mut when.http_429,
            "off" => &mut off,
            other => return Err(format!("invalid value \"{other}\"").into()),
        };
        if std::mem::replace(place, true) {
            call.warn(format!("duplicate value \"{}\"", word.text));
        }
    }
    if off {
        when = NextUpstream::NEVER;
    }
    set.proxy.next_upstream = Some(when);
    Ok(())
}
