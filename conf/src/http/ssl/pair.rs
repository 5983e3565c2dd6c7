//! A certificate chain with its private key: read, checked against each other, ready for handshakes.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureAlgorithm};

use crate::digest::Digest;

/// See the module. Equal contents are one pair in a process.
pub struct Pair {
    /// For the handshake.
    pub certified: Arc<CertifiedKey>,
    /// Whether its key is RSA; ECDSA and EdDSA are the others.
    pub rsa: bool,
    /// Of both files' contents: a renewed certificate under the same name is another pair.
    pub digest: Digest,
}

impl fmt::Debug for Pair {
    /// Without a word of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pair({})", self.digest)
    }
}

/// Why two files are not a pair. No text repeats anything that stands in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidPair {
    /// The certificate's file holds no certificate, or a damaged one.
    Certificate(&'static str),
    /// The key's file holds no key, or one that cannot be used.
    Key(&'static str),
    /// The key is not the certificate's.
    Mismatch,
}

const NO_START_LINE: &str = "error:0480006C:PEM routines::no start line:Expecting: TRUSTED CERTIFICATE";
const NOT_DECODED: &str = "error:1E08010C:DECODER routines::unsupported:No supported data to decode. Input type: PEM";

impl Pair {
    /// What tells two files' contents from others.
    pub fn digest_of(certificate: &[u8], key: &[u8]) -> Digest {
        let mut both = Vec::with_capacity(certificate.len() + key.len() + 8);
        both.extend_from_slice(&(certificate.len() as u64).to_le_bytes());
        both.extend_from_slice(certificate);
        both.extend_from_slice(key);
        Digest::of(&both)
    }

    /// Of the contents of a certificate's and a key's file, both PEM. The first certificate is the server's, the others
    /// its issuers'.
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Self, InvalidPair> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|error| {
                InvalidPair::Certificate(match error {
                    pem::Error::MissingSectionEnd { .. } => "PEM routines::bad end line",
                    pem::Error::Base64Decode(_) => "PEM routines::bad base64 decode",
                    _ => NO_START_LINE,
                })
            })?;
        if chain.is_empty() {
            return Err(InvalidPair::Certificate(NO_START_LINE));
        }
        let digest = Self::digest_of(certificate, key);
        let der = PrivateKeyDer::from_pem_slice(key).map_err(|_| InvalidPair::Key(no_key(key)))?;
        let key = any_supported_type(&der).map_err(|_| {
            InvalidPair::Key("it is not an RSA key of 2048 to 8192 bits, a P-256, a P-384 or an Ed25519 key")
        })?;
        let rsa = key.algorithm() == SignatureAlgorithm::RSA;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => return Err(InvalidPair::Mismatch),
            Err(_) => return Err(InvalidPair::Certificate("it is not an X.509 certificate of version 3")),
        }
        Ok(Self { certified: Arc::new(certified), rsa, digest })
    }
}

/// Why a text holds no key.
fn no_key(text: &[u8]) -> &'static str {
    let holds = |mark: &[u8]| text.windows(mark.len()).any(|window| window == mark);
    if holds(b"ENCRYPTED") { "keys with a password are not supported" } else { NOT_DECODED }
}
