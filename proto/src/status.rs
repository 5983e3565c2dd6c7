//! The life of a task, in the letters of the task file.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a task is. The letters are those of the original's task file (`{'I','R','L','F','D','U'}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// `I`: written by the agent.
    Init,
    /// `R`: the master has read, checked and accepted it.
    Ready,
    /// `L`: committed in the master, the workers are applying it.
    Loading,
    /// `F`: refused or failed; nothing has changed.
    Failed,
    /// `D`: every live worker has acknowledged it.
    Done,
}

impl Status {
    /// The letter that stands in the task line.
    pub fn letter(self) -> char {
        match self {
            Self::Init => 'I',
            Self::Ready => 'R',
            Self::Loading => 'L',
            Self::Failed => 'F',
            Self::Done => 'D',
        }
    }

    /// The status of a letter; `None` is what a reader reports as `U`, unknown.
    pub fn from_letter(letter: &str) -> Option<Self> {
        Some(match letter {
            "I" => Self::Init,
            "R" => Self::Ready,
            "L" => Self::Loading,
            "F" => Self::Failed,
            "D" => Self::Done,
            _ => return None,
        })
    }

    /// Whether the task has its verdict.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Done)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

/// By which way a task took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// By the dysvr path.
    InPlace,
    /// By a full reload.
    Reload,
    /// There was nothing to do.
    Nothing,
}

impl Mode {
    /// As task lines, reports and tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InPlace => "in_place",
            Self::Reload => "reload",
            Self::Nothing => "nothing",
        }
    }

    /// What a report says; `None` while it is not decided.
    pub fn from_wire(mode: crate::wire::fleet::Mode) -> Option<Self> {
        use crate::wire::fleet::Mode as Wire;
        match mode {
            Wire::Unspecified => None,
            Wire::InPlace => Some(Self::InPlace),
            Wire::Reload => Some(Self::Reload),
            Wire::Nothing => Some(Self::Nothing),
        }
    }

    /// For a report.
    pub fn to_wire(mode: Option<Self>) -> crate::wire::fleet::Mode {
        use crate::wire::fleet::Mode as Wire;
        match mode {
            None => Wire::Unspecified,
            Some(Self::InPlace) => Wire::InPlace,
            Some(Self::Reload) => Wire::Reload,
            Some(Self::Nothing) => Wire::Nothing,
        }
    }
}

impl From<Status> for crate::wire::fleet::Status {
    fn from(status: Status) -> Self {
        match status {
            Status::Init => Self::Init,
            Status::Ready => Self::Ready,
            Status::Loading => Self::Loading,
            Status::Failed => Self::Failed,
            Status::Done => Self::Done,
        }
    }
}

/// A status that this side does not know, from a newer peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown task status {0}")]
pub struct InvalidStatus(pub i32);

impl TryFrom<crate::wire::fleet::Status> for Status {
    type Error = InvalidStatus;

    fn try_from(status: crate::wire::fleet::Status) -> Result<Self, InvalidStatus> {
        use crate::wire::fleet::Status as Wire;
        Ok(match status {
            Wire::Unspecified => return Err(InvalidStatus(status as i32)),
            Wire::Init => Self::Init,
            Wire::Ready => Self::Ready,
            Wire::Loading => Self::Loading,
            Wire::Failed => Self::Failed,
            Wire::Done => Self::Done,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Mode, Status};

    #[test]
    fn modes_go_both_ways() {
        for mode in [None, Some(Mode::InPlace), Some(Mode::Reload), Some(Mode::Nothing)] {
            assert_eq!(Mode::from_wire(Mode::to_wire(mode)), mode);
        }
        assert_eq!(Mode::InPlace.name(), "in_place");
    }

    #[test]
    fn letters_are_those_of_the_task_file_and_go_both_ways() {
        let all = [Status::Init, Status::Ready, Status::Loading, Status::Failed, Status::Done];
        let letters: String = all.iter().map(|s| s.letter()).collect();
        assert_eq!(letters, "IRLFD");
        for status in all {
            assert_eq!(Status::from_letter(&status.to_string()), Some(status));
        }
        assert_eq!(Status::from_letter("U"), None);
        assert_eq!(Status::from_letter("i"), None);
        assert_eq!(Status::from_letter("II"), None);
    }
}
