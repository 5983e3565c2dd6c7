//! `ssl_session_ticket_key`: the secret that tickets are made with, shared between machines.

use std::fmt;

use crate::digest::Digest;

/// The content of such a file: a name of 16 bytes, then secrets. Nothing of it is ever shown.
pub struct TicketKey(Box<[u8]>);

impl TicketKey {
    /// 48 or 80 bytes, as nginx wants them.
    pub(super) fn new(content: &[u8]) -> Option<Self> {
        matches!(content.len(), 48 | 80).then(|| Self(content.into()))
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What tells it from others.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}
