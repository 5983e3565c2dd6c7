//! What stands in the message slot of the zone: the task line, where in the region the records of what comes stand, and,
//! where a worker needs more than those, everything that was read to resolve the task, so that the workers parse the very
//! bytes that the master has checked.

use dysvr_conf::recording::Sources;

use crate::cycle::Placed;
use crate::task::{TaskFile, TaskLine};

/// A message.
#[derive(Debug)]
pub struct Message {
    /// The task.
    pub task: TaskLine,
    /// Where the records stand.
    pub placed: Placed,
    /// What its configuration was read from, if a worker must read it, too.
    pub sources: Option<Sources>,
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
#[error("invalid message: {0}")]
pub struct InvalidMessage(String);

/// The bytes for the zone: the task line, the places of vhosts and of upstreams, each behind its length (u32, little endian,
/// as places are), and the record of the sources as it was encoded, if there is one.
pub fn encode(line: &str, placed: &Placed, sources: Option<&[u8]>) -> Vec<u8> {
    let places = placed.vhosts.len() + placed.upstreams.len();
    let mut bytes = Vec::with_capacity(16 + line.len() + 4 * places + sources.map_or(0, <[u8]>::len));
    bytes.extend_from_slice(&(line.len() as u32).to_le_bytes());
    bytes.extend_from_slice(line.as_bytes());
    for places in [&placed.vhosts, &placed.upstreams] {
        bytes.extend_from_slice(&(4 * places.len() as u32).to_le_bytes());
        places.iter().for_each(|at| bytes.extend_from_slice(&at.to_le_bytes()));
    }
    bytes.extend_from_slice(sources.unwrap_or_default());
    bytes
}

impl Message {
    /// Reads them back. Every length is checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        let invalid = |text: &str| InvalidMessage(text.to_owned());
        let (line, rest) = split(bytes).ok_or_else(|| invalid("the task line is cut short"))?;
        let (vhosts, rest) = split(rest).ok_or_else(|| invalid("the places of vhosts are cut short"))?;
        let (upstreams, rest) = split(rest).ok_or_else(|| invalid("the places of upstreams are cut short"))?;
        let TaskFile(mut tasks) = TaskFile::parse(line).map_err(|error| InvalidMessage(error.to_string()))?;
        let task = tasks.pop().filter(|_| tasks.is_empty()).ok_or_else(|| invalid("not one task"))?;
        let sources = match rest {
            [] => None,
            sources => Some(Sources::decode(sources).map_err(|error| InvalidMessage(error.to_string()))?),
        };
        let placed = Placed { vhosts: places(vhosts), upstreams: places(upstreams) };
        Ok(Self { task, placed, sources })
    }
}

/// What stands behind its length, and the rest.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn places(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|at| u32::from_le_bytes(*at)).collect()
}
