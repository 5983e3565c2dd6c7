//! The task file: what the agent (or a hand with an editor) asks of the master, and where the master answers.
//!
//! Each line is a task, `key=value` words separated by blanks: `type=0 conf=/…/dysvr_7.conf vsvc_ids=12 ups_ids=a task_id=7
//! status=I`. Comment lines and blank lines are allowed. A value with a blank, a quote or a backslash stands in double
//! quotes. The file is only ever replaced whole ([`file::write_whole`]) or changed so that no reader sees a half of it
//! ([`opened`]), so what a reader finds odd is damage or a mistake, and the whole file is refused with the line's number:
//! nothing is guessed.
//!
//! `status` stands behind all that is asked and before all that is answered, so a line that was cut short anywhere lacks
//! its status and is refused. A flipped bit leaves a line that is refused here, or one whose ids disagree with its
//! configuration, which the master refuses.

pub mod file;
mod line;
pub mod opened;
pub(crate) mod word;

use std::fmt;
use std::ops::Range;

pub use line::{Extra, Key, Kind, Mode, TaskLine, WorkerTime};

/// The tasks of a file, in the order in which they run; their ids rise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFile(pub Vec<TaskLine>);

/// Why a task file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} in line {line}")]
pub struct TaskFileError {
    /// From 1.
    pub line: u32,
    /// What is wrong.
    pub text: String,
}

impl TaskFile {
    /// Reads a whole file. One bad line refuses all of it.
    pub fn parse(bytes: &[u8]) -> Result<Self, TaskFileError> {
        Ok(Self(Self::parse_placed(bytes)?.into_iter().map(|(task, _)| task).collect()))
    }

    /// The same, with the place of each line: its bytes without the end of the line.
    fn parse_placed(bytes: &[u8]) -> Result<Vec<(TaskLine, Range<usize>)>, TaskFileError> {
        let mut tasks: Vec<(TaskLine, Range<usize>)> = Vec::new();
        let mut start = 0;
        for (index, bytes) in bytes.split(|&b| b == b'\n').enumerate() {
            let line = index as u32 + 1;
            let at = start..start + bytes.len();
            start = at.end + 1;
            let refuse = |text: String| TaskFileError { line, text };
            let text = std::str::from_utf8(bytes).map_err(|_| refuse("a byte that is not UTF-8".into()))?;
            let text = text.trim_matches([' ', '\t']);
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let task = TaskLine::parse(text).map_err(refuse)?;
            if let Some((before, _)) = tasks.last()
                && task.task_id <= before.task_id
            {
                return Err(refuse(format!("task_id={} follows task_id={}", task.task_id, before.task_id)));
            }
            tasks.push((task, at));
        }
        Ok(tasks)
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl fmt::Display for TaskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|task| writeln!(f, "{task}"))
    }
}

#[cfg(test)]
mod tests;
