//! Which of a vhost's certificates a client gets: several may stand side by side, RSA for old clients and ECDSA for the
//! others.

use std::sync::Arc;

use dysvr_conf::http::ssl::{Pair, Srv};
use rustls::CipherSuite;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{TLS13, suite};

/// See the module.
#[derive(Debug)]
pub(super) struct Resolver {
    pairs: Arc<[Arc<Pair>]>,
    tls13: bool,
    /// The vhost's ciphers of TLSv1.2 with ECDSA, and with RSA.
    tls12: [Box<[CipherSuite]>; 2],
}

impl Resolver {
    pub(super) fn new(pairs: Arc<[Arc<Pair>]>, ssl: &Srv) -> Self {
        let with = |rsa: bool| {
            let ciphers = ssl.ciphers.iter().filter(|cipher| cipher.rsa() == rsa && ssl.protocols.tls12);
            ciphers.map(|cipher| suite(*cipher).suite()).collect()
        };
        Self { pairs, tls13: ssl.protocols.tls13, tls12: [with(false), with(true)] }
    }

    /// Whether a client can do with a pair: it must know the signature, and below TLSv1.3 a cipher that goes with it.
    fn suits(&self, pair: &Pair, hello: &ClientHello<'_>) -> bool {
        let offered = hello.cipher_suites();
        let tls13 = self.tls13 && TLS13.iter().any(|suite| offered.contains(&suite.suite()));
        let suites = &self.tls12[usize::from(pair.rsa)];
        (tls13 || suites.iter().any(|suite| offered.contains(suite)))
            && pair.certified.key.choose_scheme(hello.signature_schemes()).is_some()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let ecdsa_first = self.pairs.iter().filter(|pair| !pair.rsa).chain(self.pairs.iter().filter(|pair| pair.rsa));
        let pair = if self.pairs.len() == 1 {
            self.pairs.first()
        } else {
            ecdsa_first.clone().find(|pair| self.suits(pair, &hello)).or_else(|| self.pairs.first())
        };
        pair.map(|pair| Arc::clone(&pair.certified))
    }
}
