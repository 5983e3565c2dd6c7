//! Measurements beside nginx and haproxy in the same run: what an update costs and how long it takes at several sizes
//! ([`update`], beside [`mod@reload`] and [`bare`] wake-ups) and through the agent ([`agent`], beside [`disk`]'s own
//! time), memory and starts ([`sizes`]), memory over many updates ([`long`]), what other traffic sees ([`traffic`]),
//! many vhosts in one task ([`bulk`]), and what a proxied request costs ([`request`]). `dysvr-bench` runs them;
//! [`goals`] holds them against what is to be reached, [`mod@print`] and [`plot`] show what they give.

pub mod agent;
pub mod bare;
pub mod bulk;
pub mod corpus;
pub mod disk;
pub mod driver;
pub mod figures;
pub mod goals;
pub mod haproxy;
pub mod line;
pub mod long;
pub mod part;
pub mod plot;
pub mod print;
pub mod reload;
pub mod request;
pub mod sizes;
pub mod spent;
pub mod traffic;
pub mod update;
pub mod updates;

use std::path::PathBuf;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// The programs that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Ours.
    Dysvr,
    /// nginx.
    Nginx,
    /// haproxy.
    Haproxy,
}

impl Peer {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dysvr => "dysvr",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Its program.
    ///
    /// # Errors
    /// When it is not there.
    pub fn binary(self) -> Result<PathBuf> {
        match self {
            Self::Dysvr => crate::proxy::dysvr_binary(),
            Self::Nginx => installed("nginx"),
            Self::Haproxy => installed("haproxy"),
        }
    }
}

/// The path of an installed program.
///
/// # Errors
/// When it is nowhere on the usual paths.
pub fn installed(name: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin:/sbin";
    let found = path.split(':').map(|directory| PathBuf::from(directory).join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not installed (Debian: apt-get install {name})"))
}

/// A progress bar with a label.
pub fn progress(label: String, steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{prefix:36} {bar:30} {pos:>4}/{len:<4} {elapsed:>4} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(label);
    bar
}
