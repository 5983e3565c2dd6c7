//! Session tickets: the session itself, sealed with a key that all workers have, so that any of them can go on with it.
//!
//! A ticket is the name of its key, a nonce, and sealed the time at which it was made and the session. It is bound to the
//! vhost's certificates: where other ones are, it means nothing.

use std::fmt;
use std::sync::Arc;

use dysvr_conf::digest::Digest;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;

use crate::os::time::unix;

const NAME: usize = 16;
const TIME: usize = 8;

/// TLS 1.3 allows no longer life: seven days, in seconds.
const LONGEST: u64 = 7 * 86400;

/// The first makes tickets, all read them.
pub(super) struct Keys(Box<[Key]>);

struct Key {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Keys {
    /// One that nobody else has. Asked of the system each time: what a library keeps would be the same on both sides of a
    /// fork.
    pub(super) fn random() -> Result<Self, String> {
        let mut secret = [0; 48];
        SystemRandom::new().fill(&mut secret).map_err(|_| "getrandom() failed")?;
        Self::new([&secret[..]].into_iter())
    }

    /// Of secrets that begin with their name.
    pub(super) fn new<'s>(secrets: impl Iterator<Item = &'s [u8]>) -> Result<Self, String> {
        secrets.map(|secret| Key::new(secret).ok_or("no ticket key".to_owned())).collect::<Result<_, _>>().map(Self)
    }
}

impl Key {
    fn new(secret: &[u8]) -> Option<Self> {
        let name = *secret.first_chunk::<NAME>()?;
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"dysvr session ticket").extract(secret);
        let okm = prk.expand(&[b"aes-256-gcm"], &AES_256_GCM).ok()?;
        Some(Self { name, key: LessSafeKey::new(UnboundKey::from(okm)) })
    }
}

/// A vhost's tickets.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: Arc<Keys>,
    context: Digest,
    /// Seconds.
    lifetime: u64,
}

impl Tickets {
    /// They end after `lifetime` seconds.
    pub(super) fn new(keys: Arc<Keys>, context: Digest, lifetime: u64) -> Self {
        Self { keys, context, lifetime: lifetime.min(LONGEST) }
    }

    fn seal(&self, now: u64, session: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.0.first()?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(TIME + session.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&now.to_le_bytes());
        sealed.extend_from_slice(session);
        let nonce_bytes = nonce;
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.key.seal_in_place_append_tag(nonce, Aad::from(self.context.0), &mut sealed).ok()?;
        Some([&key.name[..], &nonce_bytes, &sealed].concat())
    }

    fn open(&self, now: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.0.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.key.open_in_place(nonce, Aad::from(self.context.0), &mut sealed).ok()?;
        let (made, session) = plain.split_first_chunk::<TIME>()?;
        let age = now.saturating_sub(u64::from_le_bytes(*made));
        (age <= self.lifetime).then(|| session.to_vec())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(unix().as_secs(), plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(unix().as_secs(), cipher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_by_whoever_has_the_key_for_its_time_and_certificates() {
        let keys = |names: &str| {
            let secrets: Vec<[u8; 48]> = names.bytes().map(|byte| [byte; 48]).collect();
            Arc::new(Keys::new(secrets.iter().map(|secret| &secret[..])).unwrap())
        };
        let (here, there) = (Digest::of(b"a"), Digest::of(b"b"));
        let ticket = Tickets::new(keys("x"), here, 100).seal(1000, b"session").unwrap();
        assert!(!ticket.windows(7).any(|window| window == b"session"));
        for (names, context, now, read) in [
            ("x", here, 1000, true),
            ("x", here, 1100, true),
            ("x", here, 1101, false),
            ("yx", here, 1000, true),
            ("y", here, 1000, false),
            ("x", there, 1000, false),
        ] {
            let opened = Tickets::new(keys(names), context, 100).open(now, &ticket);
            assert_eq!(opened.as_deref(), read.then_some(&b"session"[..]), "{names} {now}");
        }
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 1;
            assert_eq!(Tickets::new(keys("x"), here, 100).open(1000, &damaged), None);
            assert_eq!(Tickets::new(keys("x"), here, 100).open(1000, &ticket[..at]), None);
        }
    }
}
