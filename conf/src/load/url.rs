//! `host:port/uri` as it stands in `listen`, in `server` of an upstream and in `proxy_pass`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Load, number};
use crate::model::ListenAddr;

/// The longest path of a unix socket: `sun_path` less the closing zero.
const MAX_UNIX_PATH: usize = 107;

/// A parsed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url<'t> {
    pub(crate) host: Host<'t>,
    /// The first port.
    pub(crate) port: u16,
    /// The last port of a range (`listen` only), else the first.
    pub(crate) last_port: u16,
    /// Whether the port is the default one.
    pub(crate) no_port: bool,
    /// What stands behind the address, from its `/` or `?`.
    pub(crate) uri: &'t str,
}

/// Where a [`Url`] leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host<'t> {
    /// An address.
    Ip(IpAddr, &'t str),
    /// A name.
    Name(&'t str),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl<'t> Host<'t> {
    /// As it stands in the text; nginx shows a socket as `localhost`.
    pub(crate) fn text(&self) -> &'t str {
        match self {
            Self::Ip(_, text) | Self::Name(text) => text,
            Self::Unix(_) => "localhost",
        }
    }
}

/// What may stand in a [`Url`].
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// `listen`: a port alone, `*`, a range of ports.
    Listen,
    /// `server` in an upstream.
    Peer,
    /// `proxy_pass`: with a URI.
    Pass,
}

type Parsed<T> = Result<T, &'static str>;

/// Takes an address apart. The error is nginx's name for what is wrong.
pub(crate) fn parse(text: &str, form: Form) -> Parsed<Url<'_>> {
    let unix = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("unix:"));
    if unix {
        return unix_url(&text[5..], form);
    }
    if text.starts_with('[') {
        return inet6_url(text, form);
    }
    inet_url(text, form)
}

fn unix_url(rest: &str, form: Form) -> Parsed<Url<'_>> {
    let (path, uri) = match form {
        Form::Pass => rest.split_once(':').unwrap_or((rest, "")),
        _ => (rest, ""),
    };
    if path.is_empty() {
        return Err("no path in the unix domain socket");
    }
    if path.len() > MAX_UNIX_PATH {
        return Err("too long path in the unix domain socket");
    }
    Ok(Url { host: Host::Unix(path.into()), port: 0, last_port: 0, no_port: true, uri })
}

fn inet6_url(text: &str, form: Form) -> Parsed<Url<'_>> {
    let close = text.find(']').ok_or("invalid host")?;
    let (host, rest) = text.split_at(close + 1);
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (port, uri) = rest.split_at(at);
    if !uri.is_empty() && !matches!(form, Form::Pass) {
        return Err("invalid host");
    }
    let ports = match port.strip_prefix(':') {
        Some(port) => Some(parse_ports(port, form)?),
        None if port.is_empty() => None,
        None => return Err("invalid host"),
    };
    let address: Ipv6Addr = host[1..close].parse().map_err(|_| "invalid IPv6 address")?;
    Ok(with_ports(Host::Ip(address.into(), host), ports, uri))
}

fn inet_url(text: &str, form: Form) -> Parsed<Url<'_>> {
    let at = text.find(['/', '?']).unwrap_or(text.len());
    let (address, uri) = text.split_at(at);
    if !uri.is_empty() && !matches!(form, Form::Pass) {
        return Err("invalid host");
    }
    let any = Host::Ip(Ipv4Addr::UNSPECIFIED.into(), "0.0.0.0");
    let (host, ports) = match address.split_once(':') {
        Some((host, port)) => (host, Some(parse_ports(port, form)?)),
        None => {
            if let (Form::Listen, Some(ports)) = (form, as_ports(address)) {
                return Ok(with_ports(any, Some(ports?), uri));
            }
            (address, None)
        }
    };
    if host.is_empty() {
        return Err("no host");
    }
    let host = match host.parse::<Ipv4Addr>() {
        Ok(ip) => Host::Ip(ip.into(), host),
        Err(_) if host == "*" && matches!(form, Form::Listen) => any,
        Err(_) => Host::Name(host),
    };
    Ok(with_ports(host, ports, uri))
}

fn with_ports<'t>(host: Host<'t>, ports: Option<(u16, u16)>, uri: &'t str) -> Url<'t> {
    let (port, last_port) = ports.unwrap_or((80, 80));
    Url { host, port, last_port, no_port: ports.is_none(), uri }
}

/// A word that is a port or a range of ports and nothing else.
fn as_ports(text: &str) -> Option<Parsed<(u16, u16)>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    (number(first).is_some() && number(last).is_some()).then(|| parse_ports(text, Form::Listen))
}

fn parse_ports(text: &str, form: Form) -> Parsed<(u16, u16)> {
    let port = |text: &str| {
        let port = number(text).filter(|port| (1..=65535).contains(port)).ok_or("invalid port")?;
        Ok::<u16, &'static str>(port as u16)
    };
    match (form, text.split_once('-')) {
        (Form::Listen, Some((first, last))) => {
            let (first, last) = (port(first)?, port(last)?);
            if last < first { Err("invalid port range") } else { Ok((first, last)) }
        }
        _ => port(text).map(|port| (port, port)),
    }
}

/// Whether a host is what nobody means as a name: digits only, which resolvers may take for an address.
fn is_number(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_digit())
}

impl Load<'_> {
    /// The addresses of a host, at its first port.
    pub(crate) fn addresses(&mut self, url: &Url<'_>) -> Parsed<Vec<ListenAddr>> {
        let name = match &url.host {
            Host::Unix(path) => return Ok(vec![ListenAddr::Unix(path.clone())]),
            Host::Ip(ip, _) => return Ok(vec![ListenAddr::Inet(SocketAddr::new(*ip, url.port))]),
            Host::Name(name) => *name,
        };
        if is_number(name) {
            return Err("host not found");
        }
        let found = self.known(|read| read.hosts.get(name).cloned()).unwrap_or_else(|| {
            let found: Arc<[IpAddr]> = self.ask().resolve(name).unwrap_or_default().into();
            self.read.hosts.insert(name.to_owned(), Arc::clone(&found));
            found
        });
        match found {
            found if found.is_empty() => Err("host not found"),
            found => Ok(found.iter().map(|ip| ListenAddr::Inet(SocketAddr::new(*ip, url.port))).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str, form: Form) -> String {
        match parse(text, form) {
            Ok(url) => {
                let port = if url.no_port { "-".into() } else { format!("{}-{}", url.port, url.last_port) };
                format!("{} {port} {}", url.host.text(), url.uri)
            }
            Err(error) => error.into(),
        }
    }

    #[test]
    fn urls() {
        for (text, form, expected) in [
            ("80", Form::Listen, "0.0.0.0 80-80 "),
            ("80-82", Form::Listen, "0.0.0.0 80-82 "),
            ("82-80", Form::Listen, "invalid port range"),
            ("*:81", Form::Listen, "0.0.0.0 81-81 "),
            ("*", Form::Listen, "0.0.0.0 - "),
            ("0", Form::Listen, "invalid port"),
            ("65536", Form::Listen, "invalid port"),
            ("1.2.3.4", Form::Listen, "1.2.3.4 - "),
            ("[::]:80", Form::Listen, "[::] 80-80 "),
            ("[::]", Form::Listen, "[::] - "),
            ("[::", Form::Listen, "invalid host"),
            ("[x]:1", Form::Listen, "invalid IPv6 address"),
            ("1.2.3.4/x", Form::Listen, "invalid host"),
            (":80", Form::Listen, "no host"),
            ("unix:", Form::Listen, "no path in the unix domain socket"),
            ("unix:/run/a", Form::Listen, "localhost - "),
            ("80", Form::Peer, "80 - "),
            ("a:1/x", Form::Peer, "invalid host"),
            ("a:b", Form::Peer, "invalid port"),
            ("a", Form::Pass, "a - "),
            ("", Form::Pass, "no host"),
            ("a/b:c", Form::Pass, "a - /b:c"),
            ("a:8080/b?c", Form::Pass, "a 8080-8080 /b?c"),
            ("a?b/c", Form::Pass, "a - ?b/c"),
            ("[::1]:8/x", Form::Pass, "[::1] 8-8 /x"),
            ("unix:/run/a:/b", Form::Pass, "localhost - /b"),
        ] {
            assert_eq!(show(text, form), expected, "{text}");
        }
    }
}
