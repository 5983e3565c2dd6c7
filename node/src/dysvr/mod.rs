//! The in-place update: from a task line to a change of the cycle, the same for master and workers; and the round in
//! which the master brings all workers to one version.

pub mod ahead;
mod folder;
pub mod message;
pub mod round;
pub mod source;
pub mod update;
pub mod verify;

use std::path::{Path, PathBuf};

use dysvr_conf::model::Http;

/// The task file of a configuration: what `dysvr_reload_conf` says, else `dy_update_server.conf` in a folder of
/// /dev/shm that is named after the prefix (a status write costs 14 µs on a tmpfs, 200 µs on a disk).
pub fn task_file(http: Option<&Http>, prefix: &Path) -> PathBuf {
    let named = http.and_then(|http| http.main.dysvr.task_file.clone());
    named.unwrap_or_else(|| default_task_file(prefix))
}

/// The task file of a configuration that names none.
pub fn default_task_file(prefix: &Path) -> PathBuf {
    let folder: String =
        prefix.to_string_lossy().trim_matches('/').chars().map(|c| if c == '/' { '_' } else { c }).collect();
    Path::new("/dev/shm/dysvr").join(folder).join("dy_update_server.conf")
}
