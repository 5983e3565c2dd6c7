//! `dysvr-node probe`: whether the proxy lives and serves, for the probes of Kubernetes. Nothing here depends on the
//! control plane: a proxy whose controller is gone serves, and must not be restarted or taken out.

use super::proxy::{self, Layout, Settings};
use crate::pid_file;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether the master runs.
    Live,
    /// Whether it has workers too: they exist only after the configuration was loaded and its sockets listen.
    Ready,
}

/// The answer: a sentence either way.
pub fn ask(layout: &Layout, question: Question) -> Result<String, String> {
    // A configuration that was broken by hand since the start does not make the running proxy ill.
    let settings = Settings::read(layout).unwrap_or_else(|_| Settings::usual(layout));
    let master = pid_file::master(&settings.pid_file).map_err(|e| e.to_string())?;
    let pid = master.pid();
    if question == Question::Live {
        return Ok(format!("master {pid} runs"));
    }
    match proxy::children(pid).len() {
        0 => Err(format!("master {pid} has no workers")),
        count => Ok(format!("master {pid} runs with {count} worker(s)")),
    }
}
