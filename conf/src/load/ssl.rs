//! Certificates and keys: read through the source like any other file, but kept apart from what is ever shown, and
//! parsed once for equal contents.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Load;
use super::files::os_error;
use crate::http::SrvConf;
use crate::http::ssl::{InvalidPair, Named, Pair, Srv};
use crate::model::Outline;

impl Load<'_> {
    /// A file whose content is never shown, read once in a load.
    pub(crate) fn secret(&mut self, path: &Path) -> Result<Arc<[u8]>, String> {
        if let Some(known) = self.known(|read| read.secrets.get(path).cloned()) {
            return known;
        }
        let content = self.ask().secret(path).map_err(|error| os_error(&error));
        self.read.secrets.insert(path.to_owned(), content.clone());
        content
    }

    /// One zone has one size.
    pub(crate) fn session_cache(&mut self, name: &Arc<str>, bytes: u64) -> Result<(), String> {
        // Which size is the first one depends on who comes first.
        self.wants_more = true;
        let known = *self.session_caches.entry(Arc::clone(name)).or_insert(bytes);
        if known == bytes {
            return Ok(());
        }
        Err(format!("the size {bytes} of shared memory zone \"{name}\" conflicts with already declared size {known}"))
    }

    /// `http`'s configuration with its pairs, if both halves are there: its vhosts share them.
    pub(crate) fn http_pairs(&mut self, srv: SrvConf) -> SrvConf {
        if srv.ssl.certificates.is_empty() || srv.ssl.keys.len() < srv.ssl.certificates.len() {
            return srv;
        }
        let pairs = self.pairs(&srv.ssl);
        SrvConf { ssl: Arc::new(Srv { pairs: Some(pairs), ..(*srv.ssl).clone() }), ..srv }
    }

    /// A vhost's configuration with its pairs.
    pub(crate) fn vhost_pairs(&mut self, srv: Arc<SrvConf>) -> Arc<SrvConf> {
        let ssl = &srv.ssl;
        if ssl.certificates.is_empty() || ssl.pairs.is_some() {
            return srv;
        }
        let pairs = self.pairs(ssl);
        // Nothing inherits from here: the names of the files have served.
        let (certificates, keys) = (Arc::default(), Arc::default());
        let ssl = Arc::new(Srv { pairs: Some(pairs), certificates, keys, ..(**ssl).clone() });
        Arc::new(SrvConf { ssl, ..(*srv).clone() })
    }

    /// Reads the certificates with their keys; those that cannot be are noted and left out.
    fn pairs(&mut self, ssl: &Srv) -> Arc<[Arc<Pair>]> {
        let mut pairs = Vec::with_capacity(ssl.certificates.len());
        for (index, certificate) in ssl.certificates.iter().enumerate() {
            match ssl.keys.get(index) {
                Some(key) => match self.pair(certificate, key) {
                    Ok(pair) => pairs.push(pair),
                    Err((named, text)) => self.problem_in(named, text),
                },
                None => {
                    let text =
                        format!("no \"ssl_certificate_key\" is defined for certificate \"{}\"", certificate.text);
                    self.problem_in(certificate, text);
                }
            }
        }
        pairs.into()
    }

    fn pair<'n>(&mut self, certificate: &'n Named, key: &'n Named) -> Result<Arc<Pair>, (&'n Named, String)> {
        let both = (certificate.path.clone(), key.path.clone());
        if let Some(known) = self.known(|read| read.pairs.get(&both).cloned()) {
            return Ok(known);
        }
        let cannot =
            |what: &str, named: &Named, why: String| format!("cannot load {what} \"{}\": {why}", named.path.display());
        let chain = self.ask().secret(&certificate.path);
        let chain =
            chain.map_err(|error| (certificate, cannot("certificate", certificate, not_read(certificate, &error))))?;
        let secret = self.ask().secret(&key.path);
        let secret = secret.map_err(|error| (key, cannot("certificate key", key, not_read(key, &error))))?;
        let pair = self.interner.pair(&chain, &secret).map_err(|invalid| match invalid {
            InvalidPair::Certificate(why) => (
                certificate,
                cannot("certificate", certificate, format!("PEM_read_bio_X509_AUX() failed (SSL: {why})")),
            ),
            InvalidPair::Key(why) => {
                (key, cannot("certificate key", key, format!("PEM_read_bio_PrivateKey() failed (SSL: {why})")))
            }
            InvalidPair::Mismatch => (
                key,
                format!(
                    "SSL_CTX_use_PrivateKey(\"{}\") failed (SSL: error:05800074:x509 certificate routines::key values \
                     mismatch): it is not the key of certificate \"{}\"",
                    key.path.display(),
                    certificate.path.display()
                ),
            ),
        })?;
        self.read.pairs.insert(both, Arc::clone(&pair));
        Ok(pair)
    }

    fn problem_in(&mut self, named: &Named, text: String) {
        let problem = crate::problem::Problem { text, place: named.place.clone() };
        self.problems.push((named.key.clone(), problem));
    }

    /// The address's default server must have a certificate: it stands in for those that have none.
    pub(crate) fn check_certificate(&mut self, default: &Outline, has_certificate: bool) {
        if !has_certificate {
            let text = "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive";
            self.problem_at(&default.order, &default.place, text);
        }
    }
}

/// As OpenSSL says that it cannot open a file.
fn not_read(named: &Named, error: &io::Error) -> String {
    let path = named.path.display();
    let code = error.raw_os_error().unwrap_or(0);
    let text = os_error(error);
    let text = text.split_once(": ").map_or(&*text, |(_, text)| text);
    let bio = if code == crate::source::NOT_FOUND {
        "10000080:BIO routines::no such file"
    } else {
        "10080002:BIO routines::system lib"
    };
    format!(
        "BIO_new_file() failed (SSL: error:{:08X}:system library::{text}:calling fopen({path}, r) error:{bio})",
        0x8000_0000_u32 | code.unsigned_abs()
    )
}
