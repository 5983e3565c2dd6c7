//! Where a request goes: to which upstream, with which path.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::http::proxy::{Pass, Target};
use dysvr_conf::main_conf::Level;
use dysvr_conf::model::{self, ListenAddr, OrderKey};
use dysvr_conf::problem::Place;

use crate::cycle::Upstream;
use crate::http::request::Request;
use crate::http::template;
use crate::http::upstream::State;

/// See the module.
pub(super) struct Resolved {
    /// The upstream as it is now.
    pub(super) upstream: Rc<Upstream>,
    /// `$proxy_host`.
    pub(super) host: Arc<str>,
    /// `$proxy_port`.
    pub(super) port: Arc<str>,
    /// The path and arguments of a URL with variables, passed as they are.
    pub(super) uri: Option<Vec<u8>>,
}

/// Finds it; the error is a status.
pub(super) fn resolve(request: &Request, pass: &Pass) -> Result<Resolved, u16> {
    match &pass.target {
        Target::Upstream(index) => {
            let cell = request.vhost.upstreams.get(usize::from(*index)).ok_or(500_u16)?;
            Ok(Resolved { upstream: cell.get(), host: Arc::clone(&pass.host), port: Arc::clone(&pass.port), uri: None })
        }
        Target::Template(url) => {
            let url = template::value(request, url);
            let Ok(url) = std::str::from_utf8(&url) else {
                request.error(Level::Error, format_args!("invalid URL in \"proxy_pass\""));
                return Err(500);
            };
            dynamic(request, url)
        }
    }
}

fn dynamic(request: &Request, url: &str) -> Result<Resolved, u16> {
    let Some(rest) = url.strip_prefix("http://") else {
        request.error(Level::Error, format_args!("invalid URL prefix in \"{url}\""));
        return Err(500);
    };
    if let Some(unix) = rest.strip_prefix("unix:") {
        let (path, uri) = unix.split_once(':').unwrap_or((unix, ""));
        let addr = ListenAddr::Unix(PathBuf::from(path));
        let name: Arc<str> = format!("unix:{path}").into();
        return Ok(Resolved {
            upstream: implicit(addr, &name),
            host: "localhost".into(),
            port: "".into(),
            uri: path_of(uri),
        });
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, uri) = rest.split_at(end);
    let (name, port) = split_port(authority);
    let port_text: Arc<str> = port.unwrap_or("80").into();
    let uri = path_of(uri);
    let host: Arc<str> = if port == Some("80") { name.into() } else { authority.into() };
    // An upstream of that name takes precedence, unless a port is given.
    if let Some(cell) = request.ctx.cycle.upstream(authority) {
        return Ok(Resolved { upstream: cell.get(), host, port: port_text, uri });
    }
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let (Ok(ip), Ok(number)) = (bare.parse::<IpAddr>(), port_text.parse::<u16>()) else {
        request.error(Level::Error, format_args!("no resolver defined to resolve {name}"));
        return Err(502);
    };
    let addr = SocketAddr::new(ip, number);
    let name: Arc<str> = addr.to_string().into();
    Ok(Resolved { upstream: implicit(ListenAddr::Inet(addr), &name), host, port: port_text, uri })
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

/// The URI part of a URL; one that begins with its arguments gets a `/`.
fn path_of(uri: &str) -> Option<Vec<u8>> {
    let uri = uri.split('#').next().unwrap_or_default();
    match uri.as_bytes().first()? {
        b'/' => Some(uri.as_bytes().to_vec()),
        _ => Some([b"/", uri.as_bytes()].concat()),
    }
}

/// An upstream of one address that no configuration holds: it keeps no connections and remembers nothing.
fn implicit(addr: ListenAddr, name: &Arc<str>) -> Rc<Upstream> {
    let peer = model::Peer {
        addr,
        name: Arc::clone(name),
        weight: 1,
        max_fails: 1,
        fail_timeout: 10,
        backup: false,
        down: false,
    };
    let conf = model::Upstream {
        name: Arc::clone(name),
        place: Place { file: Arc::from(std::path::Path::new("")), line: 0 },
        order: OrderKey::default(),
        digest: dysvr_conf::digest::Digest::default(),
        peers: [peer].into(),
        keepalive: None,
    };
    let state = State::new(&conf);
    Rc::new(Upstream { conf: Arc::new(conf), state })
}
