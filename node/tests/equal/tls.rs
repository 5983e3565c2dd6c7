//! Certificates for the sites, made once and used over and over, and clients that tell one from the other.

use std::sync::{Arc, LazyLock};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;

use super::answers::HOSTS;

/// Places for certificates, of which vhosts name one or two.
pub const PLACES: usize = 3;

/// Where tickets get their key from, if a vhost says so.
pub const TICKET_KEY: &str = "certs/tickets.key";

struct Pair {
    certificate: String,
    key: String,
    der: Vec<u8>,
}

/// One more than places: there is always another one to take.
static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let one = |_| {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = HOSTS.into_iter().filter(|host| has_name(host)).map(str::to_owned).collect::<Vec<_>>();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Pair { certificate: certificate.pem(), der: certificate.der().to_vec(), key: key.serialize_pem() }
    };
    (0..=PLACES).map(one).collect()
});

/// Whether a client can ask for this host by name.
fn has_name(host: &str) -> bool {
    host.contains(|c: char| c.is_ascii_alphanumeric())
}

/// The names of the two files of a place.
pub fn place(number: usize) -> [String; 2] {
    ["pem", "key"].map(|ending| format!("certs/c{number}.{ending}"))
}

/// One of the pairs, as the files of a place.
fn at(number: usize, pair: usize) -> [(String, String); 2] {
    let [certificate, key] = place(number);
    let pair = &PAIRS[pair];
    [(certificate, pair.certificate.clone()), (key, pair.key.clone())]
}

fn ticket_key(number: u32) -> (String, String) {
    // A name of 16 bytes and secrets of 32.
    (TICKET_KEY.to_owned(), format!("{number:048}"))
}

/// What stands in the files before any task has changed them.
pub fn files() -> impl Iterator<Item = (String, String)> {
    (0..PLACES).flat_map(|number| at(number, number)).chain([ticket_key(0)])
}

/// Another certificate for one of the places, both halves or (wrongly) one of them, or another key for tickets.
pub fn renewed(rng: &mut StdRng) -> Vec<(String, String)> {
    if rng.random_bool(0.2) {
        return vec![ticket_key(rng.random_range(0..4))];
    }
    let [certificate, key] = at(rng.random_range(0..PLACES), rng.random_range(0..PAIRS.len()));
    if rng.random_bool(0.05) { vec![certificate] } else { vec![certificate, key] }
}

/// Which of the pairs a server has shown.
pub fn shown(der: &[u8]) -> Option<usize> {
    PAIRS.iter().position(|pair| pair.der == der)
}

/// A client that believes the pairs, with the name by which it asks for a host.
pub fn client(host: &str, versions: &[&'static SupportedProtocolVersion]) -> (TlsConnector, ServerName<'static>) {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(PAIRS.iter().map(|pair| pair.der.clone().into()));
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_protocol_versions(versions);
    let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.enable_sni = has_name(host);
    let name = if has_name(host) { host } else { HOSTS[0] };
    (Arc::new(config).into(), ServerName::try_from(name.to_owned()).unwrap())
}
