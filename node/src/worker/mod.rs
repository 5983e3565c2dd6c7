//! A worker: serves requests on a current-thread runtime that it builds after the fork, and follows the master's tasks.

mod accept;
mod control;
pub mod follow;
mod update;

pub use accept::LINGER;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use dysvr_conf::intern::Interner;
use dysvr_conf::model::ListenAddr;

use crate::cycle::Cycle;
use crate::log::Level;
use crate::os::channel::Channel;
use crate::os::errno;
use crate::os::marks::{Marks, Role};
use crate::os::process::{Owner, limit_descriptors};
use crate::os::signal::Signals;
use crate::os::zone::Zone;

/// What a worker is born with.
pub struct Birth {
    /// Its slot in the zone.
    pub slot: usize,
    /// Whether there is a master, who alone writes what is not the slot's.
    pub confined: bool,
    /// Its end of the channel.
    pub channel: Channel,
    /// The sockets that it accepts on.
    pub sockets: Vec<(ListenAddr, OwnedFd)>,
    /// The zone.
    pub zone: Rc<Zone>,
    /// The version of the configuration that it is born with.
    pub version: u64,
    /// That configuration.
    pub cycle: Rc<Cycle>,
    /// Shares strings and expressions with what is there.
    pub interner: Interner,
    /// Who it becomes, if the master is root.
    pub owner: Option<Owner>,
    /// Absolute.
    pub prefix: PathBuf,
    /// Of the pid file.
    pub marks: Rc<Marks>,
}

/// What a worker may be told by a signal, nginx's own: QUIT gracefully, TERM and INT at once, USR1 reopens logs. The
/// others that a master knows are blocked and do nothing.
const SIGNALS: [i32; 8] = [
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGUSR1,
    libc::SIGWINCH,
    libc::SIGHUP,
    libc::SIGALRM,
    libc::SIGPIPE,
];

/// Serves until told to leave; gives the exit code. In a process that was just forked from the master.
pub fn run(birth: Birth) -> i32 {
    match serve(birth) {
        Ok(()) => 0,
        Err(error) => {
            log!(Level::Alert, "worker cannot start: {error}");
            2 // as nginx: "fatal", though the master goes on trying
        }
    }
}

fn serve(birth: Birth) -> Result<(), String> {
    // Should the master be killed, its successor finds this worker so. Held to the end of the process.
    let marks = Rc::clone(&birth.marks);
    if birth.confined
        && let Err(error) = marks.set(Role::Worker)
    {
        log!(Level::Alert, "fcntl(F_SETLK) failed ({})", errno(&error));
    }
    let signals = Signals::block(&SIGNALS).map_err(|error| format!("signalfd() failed ({})", errno(&error)))?;
    if let Some(limit) = birth.cycle.conf.main.worker_rlimit_nofile
        && let Err(error) = limit_descriptors(limit)
    {
        log!(Level::Alert, "setrlimit(RLIMIT_NOFILE, {limit}) failed ({})", errno(&error));
    }
    if let Some(owner) = &birth.owner {
        owner.become_it().map_err(|error| format!("setuid({}) failed ({})", owner.name, errno(&error)))?;
    }
    if birth.confined
        && let Err(error) = birth.zone.confine(birth.slot).and_then(|()| birth.cycle.region().confine())
    {
        log!(Level::Alert, "mprotect() failed ({})", errno(&error));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Its tasks are local by themselves: a LocalSet would schedule each of them twice.
        .build_local(Default::default())
        .map_err(|error| format!("no runtime ({})", errno(&error)))?;
    let served = runtime.block_on(control::control(birth, signals));
    served.map_err(|error| errno(&error))
}
