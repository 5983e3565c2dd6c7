//! The in-place update: `dysvr…` of the original module, `vsvc_id` and `loc_id`.

use std::path::PathBuf;
use std::time::Duration;


/// Nothing (`vsvc_id` is the vhost's identity, see [`crate::model::Vhost`]).
pub type SrvSet = ();

level! {
    /// `http` level.
    pub struct Main from MainSet {
        /// `dysvr on|off`: whether the master obeys task files.
        enable: bool = true,
        /// `dysvr_trylock`: fail a task instead of waiting when the zone's mutex is taken.
        trylock: bool = false,
        /// `dysvr_shm_zone NAME SIZE`: the name.
        shm_name: Box<str> = "dysvr".into(),
        /// `dysvr_shm_zone NAME SIZE`: bytes.
        shm_size: usize = 3 << 20,
        /// `dysvr_task_timeout`: how long workers may take for a task.
        task_timeout: Duration = Duration::from_secs(10),
        /// `dysvr_reload_conf`: the task file, absolute; `None` is `dysvr/dy_update_server.conf` below `/dev/shm` or, if that is absent, below the prefix.
        task_file: Option<PathBuf> = None,
    }
}

level! {
    /// Location level.
    pub struct Loc from LocSet {
        /// `loc_id`: names the location in logs and reports.
        loc_id: Option<u64> = None,
    }
}
