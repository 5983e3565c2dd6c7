//! A look at the proxy, for whoever is told of the node.

use std::fs::File;
use std::io;
use std::path::Path;

use super::super::proxy::{self, Settings};
use super::super::report::ProxySeen;
use super::super::verify;
use crate::master::quarantine::FILE as QUARANTINE;
use crate::pid_file;

/// The longest list of quarantined vhosts that is passed on, bytes: a message of it must fit everywhere.
const MAX_QUARANTINE: u64 = 64 << 10;

/// The proxy as it is now.
pub(super) fn proxy_seen(settings: &Settings) -> ProxySeen {
    let Ok(master) = pid_file::master(&settings.pid_file) else { return ProxySeen::default() };
    let pid = master.pid();
    ProxySeen {
        master: Some(pid),
        workers: proxy::children(pid),
        quarantined: quarantined(&settings.task_file),
        // Of this master: the file outlives the one that wrote it.
        verified: verify::last(&settings.task_file).filter(|finding| finding.master == pid),
    }
}

/// What the master has under quarantine, as it wrote it beside the task file; nothing when there is no file.
fn quarantined(task_file: &Path) -> Vec<String> {
    let mut text = String::new();
    let file = File::open(task_file.with_file_name(QUARANTINE));
    match file.and_then(|file| io::Read::read_to_string(&mut io::Read::take(file, MAX_QUARANTINE), &mut text)) {
        Ok(_) => text.lines().map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}
