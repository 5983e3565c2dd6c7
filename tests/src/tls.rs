//! A client that speaks TLS and knows what it agreed on, and certificates to serve it with.

use std::fs::{self, Permissions};
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};

use crate::client::{self, Reply};
use crate::http::{Framing, read_body, read_head};
use crate::prefix::Prefix;
use crate::process;
use crate::proxy::LIMIT;

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// For `ssl_certificate`.
    pub certificate: String,
    /// For `ssl_certificate_key`.
    pub key: String,
    /// As a client sees it.
    pub der: Vec<u8>,
}

impl Pair {
    /// A new one, signed by itself, ECDSA.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        Self::of(&rcgen::KeyPair::generate()?, name)
    }

    /// The same with an RSA key.
    ///
    /// # Errors
    /// When openssl makes none.
    pub fn rsa(name: &str) -> Result<Self> {
        let mut openssl = Command::new("openssl");
        openssl.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
        let made = process::run(&mut openssl, LIMIT)?;
        ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        Self::of(&rcgen::KeyPair::from_pem(&String::from_utf8(made.stdout)?)?, name)
    }

    /// A new one, written where vhosts look for it.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn made(prefix: &Prefix, name: &str) -> Result<Self> {
        let pair = Self::new(&format!("{name}.example"))?;
        pair.write(prefix, name)?;
        Ok(pair)
    }

    /// Writes `certs/NAME.pem` and `certs/NAME.key`; the key for root alone, whom workers are not.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, prefix: &Prefix, name: &str) -> Result<()> {
        fs::create_dir_all(prefix.conf("certs"))?;
        prefix.write(&format!("certs/{name}.pem"), &self.certificate)?;
        prefix.write(&format!("certs/{name}.key"), &self.key)?;
        Ok(fs::set_permissions(prefix.conf(&format!("certs/{name}.key")), Permissions::from_mode(0o600))?)
    }

    fn of(key: &rcgen::KeyPair, name: &str) -> Result<Self> {
        let certificate = rcgen::CertificateParams::new([name.to_owned()])?.self_signed(key)?;
        Ok(Self { certificate: certificate.pem(), der: certificate.der().to_vec(), key: key.serialize_pem() })
    }
}

/// Believes every certificate: which one it is, the test looks at itself.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
    /// The signatures that it asks for, the preferred one first.
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// A client: it remembers sessions from one connection to the next.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// One that speaks TLSv1.2 and TLSv1.3.
    ///
    /// # Errors
    /// When the library takes none of what is asked for.
    pub fn new() -> Result<Self> {
        Self::with(rustls::ALL_VERSIONS, |_| true)
    }

    /// One that speaks these versions, with the ciphers (in the standard's names) that `takes` takes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(versions: &[&'static SupportedProtocolVersion], takes: impl Fn(&str) -> bool) -> Result<Self> {
        let mut provider = ring::default_provider();
        provider.cipher_suites.retain(|suite| takes(suite.suite().as_str().unwrap_or_default()));
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        Self::of(versions, provider, schemes)
    }

    /// One that speaks these versions and asks for these signatures, the preferred one first.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn asking_for(versions: &[&'static SupportedProtocolVersion], schemes: &[SignatureScheme]) -> Result<Self> {
        Self::of(versions, ring::default_provider(), schemes.to_vec())
    }

    fn of(
        versions: &[&'static SupportedProtocolVersion],
        provider: CryptoProvider,
        schemes: Vec<SignatureScheme>,
    ) -> Result<Self> {
        let provider = Arc::new(provider);
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone { provider, schemes }))
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }

    /// The same without a name in its hello.
    pub fn nameless(&self) -> Self {
        let mut config = (*self.config).clone();
        config.enable_sni = false;
        Self { config: Arc::new(config) }
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// When nobody listens, or they do not agree.
    pub fn connect(&self, addr: SocketAddr, name: &str) -> io::Result<Session> {
        self.shake_hands(client::connect(addr)?, name)
    }

    /// Connects so often at once, and shakes hands on one after the other: workers share their listeners, and who has
    /// accepted leaves the rest to the others.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect_many(
        &self,
        addr: SocketAddr,
        name: &str,
        count: usize,
    ) -> io::Result<impl Iterator<Item = io::Result<Session>>> {
        let sockets = (0..count).map(|_| client::connect(addr)).collect::<io::Result<Vec<_>>>()?;
        Ok(sockets.into_iter().map(|socket| self.shake_hands(socket, name)))
    }

    fn shake_hands(&self, mut socket: TcpStream, name: &str) -> io::Result<Session> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Session { stream: BufReader::new(StreamOwned::new(session, socket)) })
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Session {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Session {
    /// The server's certificate.
    pub fn certificate(&self) -> &[u8] {
        let certificates = self.stream.get_ref().conn.peer_certificates().unwrap_or_default();
        certificates.first().map_or(&[], |certificate| certificate)
    }

    /// Whether it goes on with an earlier session.
    pub fn resumed(&self) -> bool {
        self.stream.get_ref().conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// GET.
    ///
    /// # Errors
    /// When the connection fails or the answer is none.
    pub fn get(&mut self, host: &str, target: &str) -> io::Result<Reply> {
        write!(self.stream.get_mut(), "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        let head = read_head(&mut self.stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let body = read_body(&mut self.stream, Framing::of_response(&head, "GET")?)?;
        Ok(Reply { status: head.status()?, head, body })
    }
}

/// Handshakes and requests of many clients until it is told to stop; see [`Handshakes::stop`].
#[derive(Debug)]
pub struct Handshakes {
    ending: Arc<std::sync::atomic::AtomicBool>,
    /// The certificates that were seen, in order.
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    threads: Vec<std::thread::JoinHandle<Result<u64, String>>>,
}

impl Handshakes {
    /// Begins: each of `clients` threads makes one connection after the other and asks once on each.
    ///
    /// # Errors
    /// When threads cannot be made.
    pub fn start(addr: SocketAddr, name: &'static str, clients: usize) -> Result<Self> {
        let ending = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut threads = Vec::new();
        for _ in 0..clients {
            let (ending, seen, client) = (Arc::clone(&ending), Arc::clone(&seen), Client::new()?);
            threads.push(std::thread::spawn(move || {
                let mut requests = 0;
                while !ending.load(std::sync::atomic::Ordering::Relaxed) {
                    let one = || -> io::Result<(u16, Vec<u8>)> {
                        let mut session = client.connect(addr, name)?;
                        Ok((session.get(name, "/")?.status, session.certificate().to_vec()))
                    };
                    match one() {
                        Ok((200, certificate)) => {
                            seen.lock().map_err(|_| "poisoned")?.push(certificate);
                            requests += 1;
                        }
                        Ok((status, _)) => return Err(format!("status {status} after {requests} requests")),
                        Err(error) => return Err(format!("{error} after {requests} requests")),
                    }
                }
                Ok(requests)
            }));
        }
        Ok(Self { ending, seen, threads })
    }

    /// How often a certificate was seen so far.
    pub fn seen(&self, der: &[u8]) -> usize {
        self.seen.lock().map_or(0, |seen| seen.iter().filter(|one| *one == der).count())
    }

    /// Ends; gives the number of requests.
    ///
    /// # Errors
    /// When one of them failed.
    pub fn stop(mut self) -> Result<u64> {
        self.ending.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut requests = 0;
        for thread in self.threads.drain(..) {
            requests += thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?.map_err(anyhow::Error::msg)?;
        }
        Ok(requests)
    }
}
