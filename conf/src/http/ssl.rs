//! `ngx_http_ssl_module`: certificates and what a handshake may agree on.
//!
//! What the TLS library here cannot do is refused by name: protocols below TLSv1.2, cipher lists of which nothing is
//! left, curves that it does not have.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Level, SrvSet as AnySrvSet};
use crate::directive::{Arity, Contexts, Directive, Done, HTTP, SERVER, Setter};
use crate::load::{Call, number, size};
use crate::model::OrderKey;
use crate::problem::Place;

mod cipher;
mod pair;
mod ticket;

pub use cipher::Cipher;
pub use pair::{InvalidPair, Pair};
pub use ticket::TicketKey;

/// The directives whose argument is a file that a vhost is made of, beside `include`.
pub const FILES: [&str; 3] = ["ssl_certificate", "ssl_certificate_key", "ssl_session_ticket_key"];

/// Whether a text holds a private key: such a file is nobody else's to read, and its content is not shown.
pub fn holds_key(content: &[u8]) -> bool {
    const MARK: &[u8] = b"PRIVATE KEY-----";
    content.windows(MARK.len()).any(|window| window == MARK)
}

const BOTH: Contexts = HTTP.or(SERVER);

/// The table.
pub static DIRECTIVES: &[Directive] = &[
    Directive::new(
        "ssl_certificate",
        BOTH,
        Arity::exactly(1),
        Setter::Srv(|set, call| add_file(&mut set.ssl.certificates, call)),
    ),
    Directive::new(
        "ssl_certificate_key",
        BOTH,
        Arity::exactly(1),
        Setter::Srv(|set, call| add_file(&mut set.ssl.keys, call)),
    ),
    Directive::new("ssl_protocols", BOTH, Arity::at_least(1), Setter::Srv(protocols)),
    Directive::new("ssl_ciphers", BOTH, Arity::exactly(1), Setter::Srv(ciphers)),
    Directive::new(
        "ssl_prefer_server_ciphers",
        BOTH,
        Arity::FLAG,
        Setter::Srv(|set, call| call.once(&mut set.ssl.prefer_server_ciphers, call.flag()?)),
    ),
    Directive::new("ssl_ecdh_curve", BOTH, Arity::exactly(1), Setter::Srv(ecdh_curve)),
    Directive::new("ssl_session_cache", BOTH, Arity::between(1, 2), Setter::Srv(session_cache)),
    Directive::new(
        "ssl_session_timeout",
        BOTH,
        Arity::exactly(1),
        Setter::Srv(|set, call| {
            let seconds = crate::load::seconds(call.arg(1)).ok_or_else(|| call.fault("invalid value"))?;
            call.once(&mut set.ssl.session_timeout, seconds)
        }),
    ),
    Directive::new(
        "ssl_session_tickets",
        BOTH,
        Arity::FLAG,
        Setter::Srv(|set, call| call.once(&mut set.ssl.session_tickets, call.flag()?)),
    ),
    Directive::new("ssl_session_ticket_key", BOTH, Arity::exactly(1), Setter::Srv(ticket_key)),
];

/// Nothing.
pub type MainSet = ();
/// Nothing.
pub type LocSet = ();

/// A file that a directive names.
#[derive(Clone)]
pub struct Named {
    /// As it was written.
    pub text: Arc<str>,
    /// Absolute.
    pub path: PathBuf,
    /// The directive's line.
    pub place: Option<Place>,
    /// Its place in the expanded source.
    pub key: OrderKey,
}

impl std::fmt::Debug for Named {
    /// Without its place: two vhosts that say the same look the same wherever they stand.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Named({:?}, {:?})", self.text, self.path)
    }
}

/// The versions of TLS that may be agreed on; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// TLSv1.2.
    pub tls12: bool,
    /// TLSv1.3.
    pub tls13: bool,
}

/// A group of the key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// `X25519`
    X25519,
    /// `prime256v1`, `secp256r1`, `P-256`
    P256,
    /// `secp384r1`, `P-384`
    P384,
}

/// Where sessions are kept for clients that come again without a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCache {
    /// Nowhere: `off` and `none`.
    None,
    /// `builtin:SESSIONS`: in the worker, for the vhost alone.
    Builtin(usize),
    /// `shared:NAME:BYTES`: for all vhosts that name it.
    Shared(Arc<str>, u64),
}

/// Server level.
#[derive(Clone, Debug)]
pub struct Srv {
    /// `ssl_certificate`, as long as it may be inherited; see [`Self::pairs`].
    pub certificates: Arc<[Named]>,
    /// `ssl_certificate_key`, the same.
    pub keys: Arc<[Named]>,
    /// The certificates with their keys, read; `None` before they are.
    pub pairs: Option<Arc<[Arc<Pair>]>>,
    /// `ssl_protocols`.
    pub protocols: Protocols,
    /// `ssl_ciphers`: those of TLSv1.2, the preferred one first. TLSv1.3's are not configurable, as in nginx.
    pub ciphers: Arc<[Cipher]>,
    /// `ssl_prefer_server_ciphers`.
    pub prefer_server_ciphers: bool,
    /// `ssl_ecdh_curve`, the preferred one first.
    pub curves: Arc<[Curve]>,
    /// `ssl_session_cache`.
    pub session_cache: SessionCache,
    /// `ssl_session_timeout`, seconds.
    pub session_timeout: u64,
    /// `ssl_session_tickets`.
    pub session_tickets: bool,
    /// `ssl_session_ticket_key`: the first makes tickets, all read them. Empty: a key of the process.
    pub ticket_keys: Arc<[Arc<TicketKey>]>,
}

impl Default for Srv {
    fn default() -> Self {
        Self {
            certificates: Arc::new([]),
            keys: Arc::new([]),
            pairs: None,
            protocols: Protocols { tls12: true, tls13: true },
            ciphers: cipher::default(),
            prefer_server_ciphers: false,
            curves: Arc::new([Curve::X25519, Curve::P256, Curve::P384]),
            session_cache: SessionCache::None,
            session_timeout: 300,
            session_tickets: true,
            ticket_keys: Arc::new([]),
        }
    }
}

/// The values of [`Srv`] that one block gives.
#[derive(Clone, Debug, Default)]
pub struct SrvSet {
    /// See [`Srv::certificates`].
    pub certificates: Option<Vec<Named>>,
    /// See [`Srv::keys`].
    pub keys: Option<Vec<Named>>,
    /// See [`Srv::protocols`].
    pub protocols: Option<Protocols>,
    /// See [`Srv::ciphers`].
    pub ciphers: Option<Arc<[Cipher]>>,
    /// See [`Srv::prefer_server_ciphers`].
    pub prefer_server_ciphers: Option<bool>,
    /// See [`Srv::curves`].
    pub curves: Option<Arc<[Curve]>>,
    /// See [`Srv::session_cache`].
    pub session_cache: Option<SessionCache>,
    /// See [`Srv::session_timeout`].
    pub session_timeout: Option<u64>,
    /// See [`Srv::session_tickets`].
    pub session_tickets: Option<bool>,
    /// See [`Srv::ticket_keys`].
    pub ticket_keys: Option<Vec<Arc<TicketKey>>>,
}

impl SrvSet {
    fn is_empty(&self) -> bool {
        let Self {
            certificates,
            keys,
            protocols,
            ciphers,
            prefer_server_ciphers,
            curves,
            session_cache,
            session_timeout,
            session_tickets,
            ticket_keys,
        } = self;
        certificates.is_none()
            && keys.is_none()
            && protocols.is_none()
            && ciphers.is_none()
            && prefer_server_ciphers.is_none()
            && curves.is_none()
            && session_cache.is_none()
            && session_timeout.is_none()
            && session_tickets.is_none()
            && ticket_keys.is_none()
    }
}

impl Level for SrvSet {
    type Conf = Srv;

    fn merge(self, parent: &Arc<Srv>) -> Arc<Srv> {
        if self.is_empty() {
            return Arc::clone(parent);
        }
        // Certificates and keys are inherited each by itself, as in nginx; whoever has one of his own has other pairs.
        let own = self.certificates.is_some() || self.keys.is_some();
        Arc::new(Srv {
            certificates: self.certificates.map_or_else(|| Arc::clone(&parent.certificates), Arc::from),
            keys: self.keys.map_or_else(|| Arc::clone(&parent.keys), Arc::from),
            pairs: if own { None } else { parent.pairs.clone() },
            protocols: self.protocols.unwrap_or(parent.protocols),
            ciphers: self.ciphers.unwrap_or_else(|| Arc::clone(&parent.ciphers)),
            prefer_server_ciphers: self.prefer_server_ciphers.unwrap_or(parent.prefer_server_ciphers),
            curves: self.curves.unwrap_or_else(|| Arc::clone(&parent.curves)),
            session_cache: self.session_cache.unwrap_or_else(|| parent.session_cache.clone()),
            session_timeout: self.session_timeout.unwrap_or(parent.session_timeout),
            session_tickets: self.session_tickets.unwrap_or(parent.session_tickets),
            ticket_keys: self.ticket_keys.map_or_else(|| Arc::clone(&parent.ticket_keys), Arc::from),
        })
    }
}

fn add_file(files: &mut Option<Vec<Named>>, call: &mut Call<'_, '_>) -> Done {
    let text = call.arg(1);
    if text.contains('$') || text.starts_with("data:") || text.starts_with("engine:") {
        return Err(format!("\"{text}\" in \"{}\" directive is not supported: it must name a file", call.name()).into());
    }
    let named = Named { text: text.into(), path: call.conf_path(text), place: call.place(), key: call.key() };
    files.get_or_insert_default().push(named);
    Ok(())
}

fn protocols(set: &mut AnySrvSet, call: &mut Call<'_, '_>) -> Done {
    let mut protocols = set.ssl.protocols.unwrap_or(Protocols { tls12: false, tls13: false });
    for word in call.arguments() {
        let text = word.text;
        let lower = text.to_ascii_lowercase();
        let known = match lower.as_str() {
            "tlsv1.2" => &mut protocols.tls12,
            "tlsv1.3" => &mut protocols.tls13,
            "sslv2" | "sslv3" | "tlsv1" | "tlsv1.1" => {
                return Err(format!("\"{text}\" in \"ssl_protocols\" directive is not supported, TLSv1.2 and TLSv1.3 are").into());
            }
            _ => return Err(format!("invalid value \"{text}\"").into()),
        };
        if std::mem::replace(known, true) {
            call.warn(format!("duplicate value \"{text}\""));
        }
    }
    set.ssl.protocols = Some(protocols);
    Ok(())
}

fn ciphers(set: &mut AnySrvSet, call: &mut Call<'_, '_>) -> Done {
    let text = call.arg(1);
    let list = cipher::select(text).map_err(|error| format!("SSL_CTX_set_cipher_list(\"{text}\") failed ({error}"))?;
    call.once(&mut set.ssl.ciphers, list.into())
}

fn ecdh_curve(set: &mut AnySrvSet, call: &mut Call<'_, '_>) -> Done {
    let text = call.arg(1);
    if text == "auto" {
        return call.once(&mut set.ssl.curves, Srv::default().curves);
    }
    let mut curves = Vec::new();
    for name in text.split(':') {
        let curve = match name.to_ascii_lowercase().as_str() {
            "x25519" => Curve::X25519,
            "prime256v1" | "secp256r1" | "p-256" => Curve::P256,
            "secp384r1" | "p-384" => Curve::P384,
            _ => {
                return Err(format!(
                    "SSL_CTX_set1_curves_list(\"{text}\") failed (group '{name}' is not supported, X25519, prime256v1 \
                     and secp384r1 are)"
                )
                .into());
            }
        };
        if !curves.contains(&curve) {
            curves.push(curve);
        }
    }
    call.once(&mut set.ssl.curves, curves.into())
}

/// OpenSSL's `SSL_SESSION_CACHE_MAX_SIZE_DEFAULT`.
const BUILTIN_SESSIONS: usize = 1024 * 20;
/// nginx's least: eight pages.
const SHARED_MIN: u64 = 8 * 4096;

fn session_cache(set: &mut AnySrvSet, call: &mut Call<'_, '_>) -> Done {
    let mut cache = SessionCache::None;
    for word in call.arguments() {
        let text = word.text;
        let invalid = || format!("invalid session cache \"{text}\"");
        if let "off" | "none" = text {
            cache = SessionCache::None;
        } else if text == "builtin" || text.starts_with("builtin:") {
            let sessions = match text.strip_prefix("builtin:") {
                Some(text) => number(text).and_then(|count| usize::try_from(count).ok()).ok_or_else(invalid)?,
                None => BUILTIN_SESSIONS,
            };
            // Beside a shared one it would be asked first, and has nothing that the shared one has not.
            if cache == SessionCache::None {
                cache = SessionCache::Builtin(sessions);
            }
        } else if let Some(rest) = text.strip_prefix("shared:") {
            let (name, bytes) = rest.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(invalid)?;
            let bytes = size(bytes).ok_or_else(invalid)?;
            if bytes < SHARED_MIN {
                return Err(format!("session cache \"{text}\" is too small").into());
            }
            let name = call.string(name);
            call.load.session_cache(&name, bytes)?;
            cache = SessionCache::Shared(name, bytes);
        } else {
            return Err(invalid().into());
        }
    }
    set.ssl.session_cache = Some(cache);
    Ok(())
}

fn ticket_key(set: &mut AnySrvSet, call: &mut Call<'_, '_>) -> Done {
    let path = call.conf_path(call.arg(1));
    let content = call.load.secret(&path).map_err(|error| format!("open() \"{}\" failed ({error})", path.display()))?;
    let key = TicketKey::new(&content).ok_or_else(|| format!("\"{}\" must be 48 or 80 bytes", path.display()))?;
    set.ssl.ticket_keys.get_or_insert_default().push(Arc::new(key));
    Ok(())
}
