//! `listen`.

use std::net::{Ipv4Addr, SocketAddr};

use crate::directive::Done;
use crate::load::{Call, Form, ServerSet, number, parse_url};
use crate::model::{Listen, ListenAddr};
use crate::problem::Place;

/// Parameters that nginx has and that are not here.
const FOREIGN: &[&str] = &[
    "accept_filter", "bind", "deferred", "fastopen", "http2", "http3", "proxy_protocol", "quic", "rcvbuf", "setfib",
    "sndbuf", "so_keepalive", "spdy",
];

/// What a `server` without `listen` has.
pub(crate) fn default_listen(privileged: bool, place: Place) -> Listen {
    let port = if privileged { 80 } else { 8000 };
    let addr = ListenAddr::Inet(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    Listen { addr, default_server: false, backlog: None, reuseport: false, ipv6only: None, ssl: false, place }
}

pub(super) fn listen(set: &mut ServerSet, call: &mut Call<'_, '_>) -> Done {
    let text = call.arg(1);
    let fault = |error: &str| format!("{error} in \"{text}\" of the \"listen\" directive");
    let url = parse_url(text, Form::Listen).map_err(fault)?;
    let addresses = call.load.addresses(&url).map_err(fault)?;
    let Some(place) = call.place() else {
        return Err(call.fault("is not allowed here"));
    };
    let mut listen = Listen { addr: addresses[0].clone(), ..default_listen(true, place) };
    for word in &call.arguments()[1..] {
        parameter(&mut listen, word.text)?;
    }
    for first in addresses {
        for port in url.port..=url.last_port {
            let addr = match &first {
                ListenAddr::Inet(addr) => ListenAddr::Inet(SocketAddr::new(addr.ip(), port)),
                unix => unix.clone(),
            };
            if set.listens.iter().any(|known| known.addr == addr) {
                return Err(format!("a duplicate listen {addr}").into());
            }
            set.listens.push(Listen { addr, ..listen.clone() });
        }
    }
    Ok(())
}

fn parameter(listen: &mut Listen, text: &str) -> Done {
    match text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value))) {
        ("default_server" | "default", None) => listen.default_server = true,
        ("ssl", None) => listen.ssl = true,
        ("reuseport", None) => listen.reuseport = true,
        ("backlog", Some(value)) => {
            let backlog = number(value).filter(|value| *value > 0).and_then(|value| i32::try_from(value).ok());
            listen.backlog = Some(backlog.ok_or_else(|| format!("invalid backlog \"{text}\""))?);
        }
        ("ipv6only", Some(value @ ("on" | "off"))) => listen.ipv6only = Some(value == "on"),
        (name, _) if FOREIGN.contains(&name) => {
            return Err(format!("invalid parameter \"{text}\", it is not supported").into());
        }
        _ => return Err(format!("invalid parameter \"{text}\"").into()),
    }
    Ok(())
}
