//! What stands in the message slot of the zone: the change that a worker is to make of its cycle.

use std::borrow::Cow;

use dysvr_conf::recording::Sources;
use serde::{Deserialize, Serialize};

use crate::cycle::{Change, Delta, Placed};
use crate::task::{TaskFile, TaskLine};

/// A message.
#[derive(Debug)]
pub enum Message {
    /// All that a worker needs stands here and in the region.
    Light(Delta),
    /// A worker reads the task as the master has: the very bytes that the master has checked.
    Read {
        /// The task.
        task: Box<TaskLine>,
        /// Where the records of what it brings stand.
        placed: Placed,
        /// What its configuration was read from.
        sources: Sources,
    },
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
#[error("invalid message: {0}")]
pub struct InvalidMessage(String);

#[derive(Serialize, Deserialize)]
enum Encoded<'m> {
    Light(Cow<'m, Delta>),
    Read {
        line: Cow<'m, str>,
        placed: Cow<'m, Placed>,
        #[serde(borrow)]
        sources: &'m [u8],
    },
}

/// The bytes of a [`Message::Light`].
pub fn encode_light(delta: &Delta) -> Vec<u8> {
    encode(&Encoded::Light(Cow::Borrowed(delta)))
}

/// The bytes of a [`Message::Read`]: a task line, the places, and the sources as they were encoded.
pub fn encode_read(line: &str, placed: &Placed, sources: &[u8]) -> Vec<u8> {
    encode(&Encoded::Read { line: Cow::Borrowed(line), placed: Cow::Borrowed(placed), sources })
}

fn encode(encoded: &Encoded<'_>) -> Vec<u8> {
    // Into a vector nothing but memory can fail; what is empty is no message.
    postcard::to_stdvec(encoded).unwrap_or_default()
}

impl Message {
    /// Reads them back. Every length is checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        let (encoded, rest) = postcard::take_from_bytes(bytes).map_err(|error| InvalidMessage(error.to_string()))?;
        if !rest.is_empty() {
            return Err(InvalidMessage("something follows it".into()));
        }
        match encoded {
            Encoded::Light(delta) => Ok(Self::Light(delta.into_owned())),
            Encoded::Read { line, placed, sources } => {
                let TaskFile(mut tasks) =
                    TaskFile::parse(line.as_bytes()).map_err(|error| InvalidMessage(error.to_string()))?;
                let task = tasks.pop().filter(|_| tasks.is_empty());
                let task = task.ok_or_else(|| InvalidMessage("not one task".into()))?;
                let sources = Sources::decode(sources).map_err(|error| InvalidMessage(error.to_string()))?;
                Ok(Self::Read { task: Box::new(task), placed: placed.into_owned(), sources })
            }
        }
    }
}

impl From<Delta> for Change {
    fn from(delta: Delta) -> Self {
        let Delta { kind, stamp, removed, touched, placed } = delta;
        Self { kind, stamp, removed, touched, placed: Some(placed), ..Self::default() }
    }
}
