//! What stands in the message slot of the zone: the task line, and everything that was read to resolve it, so that the
//! workers parse the very bytes that the master has checked.

use dysvr_conf::recording::Sources;

use crate::task::{TaskFile, TaskLine};

/// A message.
#[derive(Debug)]
pub struct Message {
    /// The task.
    pub task: TaskLine,
    /// What its configuration was read from.
    pub sources: Sources,
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
#[error("invalid message: {0}")]
pub struct InvalidMessage(String);

impl Message {
    /// The bytes for the zone: the length of the line (u32, little endian), the line, the record of the sources.
    pub fn encode(&self) -> Vec<u8> {
        let line = self.task.to_string();
        let sources = self.sources.encode();
        let mut bytes = Vec::with_capacity(4 + line.len() + sources.len());
        bytes.extend_from_slice(&(line.len() as u32).to_le_bytes());
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(&sources);
        bytes
    }

    /// Reads them back. Every length is checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        let invalid = |text: &str| InvalidMessage(text.to_owned());
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| invalid("shorter than its head"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (line, sources) = rest.split_at_checked(length).ok_or_else(|| invalid("the task line is cut short"))?;
        let TaskFile(mut tasks) = TaskFile::parse(line).map_err(|error| InvalidMessage(error.to_string()))?;
        let task = tasks.pop().filter(|_| tasks.is_empty()).ok_or_else(|| invalid("not one task"))?;
        let sources = Sources::decode(sources).map_err(|error| InvalidMessage(error.to_string()))?;
        Ok(Self { task, sources })
    }
}
