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

    /// Whether a client knows the signature of a pair, and a cipher that goes with it below TLSv1.3.
    fn suits(&self, pair: &Pair, hello: &ClientHello<'_>) -> bool {
        let suites = &self.tls12[usize::from(pair.rsa)];
        suites.iter().any(|suite| hello.cipher_suites().contains(suite)) && knows(pair, hello)
    }

    /// Whether a client knows the signature of a pair, and one of TLSv1.3's ciphers, which go with all of them.
    fn suits_tls13(&self, pair: &Pair, hello: &ClientHello<'_>) -> bool {
        let offered = hello.cipher_suites();
        self.tls13 && TLS13.iter().any(|suite| offered.contains(&suite.suite())) && knows(pair, hello)
    }
}

fn knows(pair: &Pair, hello: &ClientHello<'_>) -> bool {
    pair.certified.key.choose_scheme(hello.signature_schemes()).is_some()
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let ecdsa_first = self.pairs.iter().filter(|pair| !pair.rsa).chain(self.pairs.iter().filter(|pair| pair.rsa));
        let pair = if self.pairs.len() == 1 {
            self.pairs.first()
        } else {
            // Which version is spoken is not said here, and some clients name ciphers of one that they do not speak: so
            // first what goes with both.
            let either = ecdsa_first.clone().find(|pair| self.suits(pair, &hello));
            let tls13 = || ecdsa_first.clone().find(|pair| self.suits_tls13(pair, &hello));
            either.or_else(tls13).or_else(|| self.pairs.first())
        };
        pair.map(|pair| Arc::clone(&pair.certified))
    }
}
