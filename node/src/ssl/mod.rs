//! What the TLS library is given: from a vhost's `ssl_…` directives to what a handshake runs with.
//!
//! Made when a vhost is prepared, in the master before the workers are forked (they inherit it), in the workers when it
//! joins in place. Equal directives with equal certificates are one configuration, however many vhosts have them.

mod certificate;
mod session;
mod ticket;

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use dysvr_conf::digest::Digest;
use dysvr_conf::http::ssl::{Cipher, Curve, SessionCache, Srv};
use rustc_hash::FxHashMap;
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite, compress, version};

use session::{Sessions, Store};
use ticket::{Keys, Tickets};

/// What clients may ask for; nginx's without HTTP/2.
const ALPN: [&[u8]; 3] = [b"http/1.1", b"http/1.0", b"http/0.9"];

/// Of TLSv1.3, in OpenSSL's order; not configurable, as in nginx.
const TLS13: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
];

/// Below this many entries a sweep is not worth it.
const SWEEP_MIN: usize = 64;

/// Sessions of a cache without a number: OpenSSL's.
const SESSIONS: usize = 20480;

/// Bytes of a zone that nginx says a session takes (4,000 in a megabyte).
const SESSION_BYTES: u64 = 256;

/// The configurations of a cycle's vhosts. Its ticket key is made with it, before the fork: what one worker gave out,
/// another one reads.
#[derive(Debug)]
pub struct Configs {
    keys: Arc<Keys>,
    known: RefCell<Known>,
}

#[derive(Debug)]
struct Known {
    configs: FxHashMap<Digest, Weak<ServerConfig>>,
    /// `shared` session caches by name and size.
    caches: FxHashMap<(Arc<str>, u64), Weak<Sessions>>,
    sweep_at: usize,
}

impl Configs {
    /// With a ticket key of its own.
    pub fn new() -> Result<Self, String> {
        let known = Known { configs: FxHashMap::default(), caches: FxHashMap::default(), sweep_at: SWEEP_MIN };
        Ok(Self { keys: Arc::new(Keys::random()?), known: RefCell::new(known) })
    }

    /// What handshakes of a vhost run with; `None` if it has no certificate.
    pub fn of(&self, ssl: &Srv) -> Result<Option<Arc<ServerConfig>>, String> {
        let Some(pairs) = ssl.pairs.as_ref().filter(|pairs| !pairs.is_empty()) else { return Ok(None) };
        let identity = identity(ssl);
        let mut known = self.known.borrow_mut();
        if let Some(config) = known.configs.get(&identity).and_then(Weak::upgrade) {
            return Ok(Some(config));
        }
        let provider = Arc::new(rustls::crypto::CryptoProvider {
            cipher_suites: suites(ssl),
            kx_groups: ssl.curves.iter().map(|curve| group(*curve)).collect(),
            ..default_provider()
        });
        let mut versions = Vec::with_capacity(2);
        if ssl.protocols.tls13 {
            versions.push(&version::TLS13);
        }
        if ssl.protocols.tls12 {
            versions.push(&version::TLS12);
        }
        let resolver = Arc::new(certificate::Resolver::new(Arc::clone(pairs), ssl));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| format!("SSL_CTX_new() failed ({error})"))?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.ignore_client_order = ssl.prefer_server_ciphers;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        config.cert_compression_cache = Arc::new(compress::CompressionCache::Disabled);

        // A session belongs to the certificates that it was begun with.
        let context = context(ssl);
        config.session_storage = match &ssl.session_cache {
            SessionCache::None => Arc::new(NoServerSessionStorage {}),
            SessionCache::Builtin(count) => {
                let sessions = Sessions::new(if *count == 0 { SESSIONS } else { *count });
                Arc::new(Store::new(Arc::new(sessions), context, ssl.session_timeout))
            }
            SessionCache::Shared(name, bytes) => {
                let slot = known.caches.entry((Arc::clone(name), *bytes)).or_default();
                let sessions = slot.upgrade().unwrap_or_else(|| {
                    let sessions = Arc::new(Sessions::new((*bytes / SESSION_BYTES) as usize));
                    *slot = Arc::downgrade(&sessions);
                    sessions
                });
                Arc::new(Store::new(sessions, context, ssl.session_timeout))
            }
        };
        if ssl.session_tickets {
            let keys = match ssl.ticket_keys.is_empty() {
                true => Arc::clone(&self.keys),
                false => Arc::new(Keys::new(ssl.ticket_keys.iter().map(|key| key.bytes()))?),
            };
            config.ticketer = Arc::new(Tickets::new(keys, context, ssl.session_timeout));
        } else if ssl.session_cache == SessionCache::None {
            config.send_tls13_tickets = 0;
        }
        let config = Arc::new(config);
        known.keep(identity, &config);
        Ok(Some(config))
    }
}

impl Known {
    fn keep(&mut self, identity: Digest, config: &Arc<ServerConfig>) {
        if self.configs.len() >= self.sweep_at {
            self.configs.retain(|_, config| config.strong_count() > 0);
            self.caches.retain(|_, sessions| sessions.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(self.configs.len() * 2);
        }
        self.configs.insert(identity, Arc::downgrade(config));
    }
}

/// What tells configurations apart.
fn identity(ssl: &Srv) -> Digest {
    let Srv {
        certificates: _,
        keys: _,
        pairs,
        protocols,
        ciphers,
        prefer_server_ciphers,
        curves,
        session_cache,
        session_timeout,
        session_tickets,
        ticket_keys,
    } = ssl;
    let mut text = format!(
        "{protocols:?} {ciphers:?} {prefer_server_ciphers} {curves:?} {session_cache:?} {session_timeout} {session_tickets}"
    );
    let pairs = pairs.iter().flat_map(|pairs| pairs.iter()).map(|pair| pair.digest);
    for digest in pairs.chain(ticket_keys.iter().map(|key| key.digest())) {
        text += &format!(" {digest}");
    }
    Digest::of(text.as_bytes())
}

/// Of the certificates alone.
fn context(ssl: &Srv) -> Digest {
    let pairs = ssl.pairs.iter().flat_map(|pairs| pairs.iter());
    Digest::of(&pairs.flat_map(|pair| pair.digest.0).collect::<Vec<u8>>())
}

fn suites(ssl: &Srv) -> Vec<SupportedCipherSuite> {
    let tls13 = TLS13.into_iter().filter(|_| ssl.protocols.tls13);
    let tls12 = ssl.ciphers.iter().filter(|_| ssl.protocols.tls12).map(|cipher| suite(*cipher));
    tls13.chain(tls12).collect()
}

fn suite(cipher: Cipher) -> SupportedCipherSuite {
    match cipher {
        Cipher::EcdsaAes256 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Cipher::RsaAes256 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Cipher::EcdsaChacha20 => cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        Cipher::RsaChacha20 => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        Cipher::EcdsaAes128 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Cipher::RsaAes128 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    }
}

fn group(curve: Curve) -> &'static dyn rustls::crypto::SupportedKxGroup {
    match curve {
        Curve::X25519 => kx_group::X25519,
        Curve::P256 => kx_group::SECP256R1,
        Curve::P384 => kx_group::SECP384R1,
    }
}

/// OpenSSL's name of a cipher, as `$ssl_cipher` shows it.
pub fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => Cipher::EcdsaAes256.name(),
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Cipher::RsaAes256.name(),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => Cipher::EcdsaChacha20.name(),
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Cipher::RsaChacha20.name(),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => Cipher::EcdsaAes128.name(),
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Cipher::RsaAes128.name(),
        _ => "",
    }
}
