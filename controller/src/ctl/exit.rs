//! How a command ends: the documented exit codes and the one error type that leads to them.

use std::fmt;
use std::io;

use tonic::{Code, Status};

/// The command did what it was asked; of `diff`: no differences.
pub const OK: u8 = 0;
/// The operation failed, or the rollout did not succeed; of `diff`: there are differences.
pub const FAILED: u8 = 1;
/// The command line is wrong; of `diff` also: any failure that is not 3 or 4.
pub const USAGE: u8 = 2;
/// The input was refused: each problem has been printed.
pub const REFUSED: u8 = 3;
/// No controller was reached, or the time was up.
pub const UNREACHABLE: u8 = 4;
/// The reader of our output went away: what a shell reports of a program that SIGPIPE ended.
pub const PIPE: u8 = 141;

/// The table that `--help` ends with.
pub const HELP: &str = "\
Exit codes:
  0  done; diff: no differences
  1  the operation failed, or the rollout did not succeed; diff: there are differences
  2  the command line is wrong; diff: any failure that is not 3 or 4
  3  the input was refused; every problem is printed as FILE:LINE: TEXT
  4  no controller could be reached, or the time was up

Environment:
  DYSVR_CONTROLLER  the controllers, as --controller
  DYSVR_AUTHOR      who changes the fleet, for the history (default: $USER)
  NO_COLOR          no colours, on a terminal neither";

/// Why a command did not end with [`OK`].
#[derive(Debug)]
pub enum Failure {
    /// It was tried and did not work, or ended otherwise than hoped.
    Failed(String),
    /// It cannot mean anything as it stands.
    Usage(String),
    /// The input has problems, one line each, and a last line that sums up.
    Refused(Vec<String>, String),
    /// Nobody there, or too late.
    Unreachable(String),
    /// What a controller answered.
    Server(Box<Status>),
    /// `diff` found some, which have been printed.
    Differences,
    /// Standard output was closed by its reader.
    Closed,
}

impl Failure {
    /// The exit code of the process.
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Differences => FAILED,
            Self::Usage(_) => USAGE,
            Self::Refused(..) => REFUSED,
            Self::Unreachable(_) => UNREACHABLE,
            Self::Server(status) => match status.code() {
                Code::InvalidArgument => REFUSED,
                Code::Unavailable | Code::DeadlineExceeded => UNREACHABLE,
                _ => FAILED,
            },
            Self::Closed => PIPE,
        }
    }

    /// The same failure of a command whose exit code 1 has another meaning (`diff`).
    pub fn above_one(self) -> Self {
        match self {
            Self::Failed(text) => Self::Usage(text),
            Self::Server(status) if Self::Server(status.clone()).code() == FAILED => Self::Usage(server_text(&status)),
            other => other,
        }
    }
}

impl fmt::Display for Failure {
    /// For standard error; empty when there is nothing to say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text) | Self::Usage(text) | Self::Unreachable(text) => write!(f, "error: {text}"),
            Self::Refused(problems, summary) => {
                for problem in problems {
                    writeln!(f, "{problem}")?;
                }
                write!(f, "error: {summary}")
            }
            Self::Server(status) => f.write_str(&server_text(status)),
            Self::Differences | Self::Closed => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Server(Box::new(status))
    }
}

impl From<io::Error> for Failure {
    /// Of writing to standard output, the only I/O whose errors are converted without a word on what was tried.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(format!("cannot write the output: {error}")),
        }
    }
}

/// kubectl's form: `Error from server (NotFound): …`.
fn server_text(status: &Status) -> String {
    let message = match status.message() {
        "" => "the controller gave no reason",
        message => message,
    };
    format!("Error from server ({:?}): {message}", status.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_code_and_text() {
        let rows: [(Failure, u8, &str); 8] = [
            (Failure::Failed("no".into()), 1, "error: no"),
            (Failure::Usage("what".into()), 2, "error: what"),
            (Failure::Refused(vec!["a:1: x".into()], "1 problem".into()), 3, "a:1: x\nerror: 1 problem"),
            (Failure::Unreachable("gone".into()), 4, "error: gone"),
            (Status::not_found("vhost 5").into(), 1, "Error from server (NotFound): vhost 5"),
            (Status::invalid_argument("waves").into(), 3, "Error from server (InvalidArgument): waves"),
            (Status::unavailable("").into(), 4, "Error from server (Unavailable): the controller gave no reason"),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), 141, ""),
        ];
        for (failure, code, text) in rows {
            assert_eq!((failure.code(), failure.to_string().as_str()), (code, text));
        }
    }

    #[test]
    fn a_failed_diff_is_told_from_one_with_differences() {
        let server = Failure::from(Status::not_found("x")).above_one();
        assert_eq!((server.code(), server.to_string().as_str()), (2, "error: Error from server (NotFound): x"));
        assert_eq!(Failure::Failed("x".into()).above_one().code(), 2);
        assert_eq!(Failure::Unreachable("x".into()).above_one().code(), 4);
        assert_eq!(Failure::from(Status::unavailable("x")).above_one().code(), 4);
        assert_eq!(Failure::Differences.code(), 1);
    }
}
