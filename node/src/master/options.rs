//! The command line, nginx's own.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};

/// The prefix when `-p` is absent.
pub const PREFIX: &str = "/etc/dysvr";
/// The configuration file when `-c` is absent, relative to the prefix.
pub const CONF: &str = "conf/nginx.conf";
/// The error log when no other is named, relative to the prefix.
pub const ERROR_LOG: &str = "logs/error.log";

/// What the program was asked to do.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "dysvr-proxy",
    disable_version_flag = true,
    disable_help_flag = true,
    args_override_self = true,
    about = "An nginx-compatible proxy whose vhosts are added, modified and deleted in place"
)]
pub struct Options {
    /// This help.
    #[arg(short = '?', short_alias = 'h', long = "help", action = ArgAction::Help)]
    help: Option<bool>,
    /// Show version and exit.
    #[arg(short = 'v')]
    pub version: bool,
    /// Show version and configure options, then exit.
    #[arg(short = 'V')]
    pub configure: bool,
    /// Test the configuration and exit.
    #[arg(short = 't')]
    pub test: bool,
    /// Test the configuration, dump it and exit.
    #[arg(short = 'T')]
    pub dump: bool,
    /// Suppress non-error messages during configuration testing.
    #[arg(short = 'q')]
    pub quiet: bool,
    /// Send a signal to the master process.
    #[arg(short = 's', value_name = "SIGNAL")]
    pub signal: Option<SignalName>,
    /// Set the prefix path.
    #[arg(short = 'p', value_name = "PREFIX", default_value = PREFIX)]
    pub prefix: PathBuf,
    /// Set the error log file (`stderr` is standard error).
    #[arg(short = 'e', value_name = "FILE")]
    pub error_log: Option<PathBuf>,
    /// Set the configuration file.
    #[arg(short = 'c', value_name = "FILE", default_value = CONF)]
    pub conf: PathBuf,
    /// Set global directives out of the configuration file.
    #[arg(short = 'g', value_name = "DIRECTIVES")]
    pub globals: Option<String>,
}

/// What `-s` sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SignalName {
    /// Fast shutdown.
    Stop,
    /// Graceful shutdown.
    Quit,
    /// Open the log files anew.
    Reopen,
    /// Full reload.
    Reload,
    /// In-place update: obey the task file.
    Dysvr,
}

impl SignalName {
    /// Its number.
    pub fn number(self) -> i32 {
        match self {
            Self::Stop => libc::SIGTERM,
            Self::Quit => libc::SIGQUIT,
            Self::Reopen => libc::SIGUSR1,
            Self::Reload => libc::SIGHUP,
            Self::Dysvr => crate::os::signal::dysvr(),
        }
    }
}

impl Options {
    /// Reads the command line; ends the process with nginx's exit code 1 when it is wrong.
    pub fn from_command_line() -> Self {
        match Self::try_from(std::env::args_os().collect()) {
            Ok(options) => options,
            Err(error) if error.use_stderr() => {
                eprintln!("nginx: {}", in_nginx_words(&error));
                std::process::exit(1);
            }
            Err(error) => error.exit(),
        }
    }

    fn try_from(args: Vec<OsString>) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::command().try_get_matches_from(args)?)
    }
}

/// What nginx says of the same mistake; tools look for it.
fn in_nginx_words(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    // `-s <SIGNAL>`: the letter of the option.
    let option = text(ContextKind::InvalidArg).split(' ').next().unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => format!("invalid option: \"{}\"", option.trim_start_matches('-')),
        ErrorKind::InvalidValue if text(ContextKind::InvalidValue).is_empty() => {
            format!("option \"{option}\" requires a parameter")
        }
        ErrorKind::InvalidValue => format!("invalid option: \"{option} {}\"", text(ContextKind::InvalidValue)),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_from(std::iter::once("dysvr-proxy").chain(line.split(' ')).map(OsString::from).collect())
    }

    #[test]
    fn nginx_s_options_are_understood() {
        let options = parse("-p /srv -c x.conf -tq").unwrap();
        assert_eq!((options.prefix, options.conf), (PathBuf::from("/srv"), PathBuf::from("x.conf")));
        assert!(options.test && options.quiet && !options.dump);
        assert_eq!(parse("-s dysvr").unwrap().signal, Some(SignalName::Dysvr));
        assert!(parse("-s halt").is_err());
        assert!(parse("-x").is_err());
    }
}
