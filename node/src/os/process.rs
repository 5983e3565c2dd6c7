//! What a process may do: user, limits, number of processors.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Group, Uid, User, setgid, setuid};

/// The user and group that workers run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name, for `initgroups` and messages.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// Looks up the names of a `user` directive; the group is the user's name when absent, as in nginx. The error is
    /// nginx's own text.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, String> {
        let uid = match User::from_name(user) {
            Ok(Some(found)) => found.uid,
            _ => return Err(format!("getpwnam(\"{user}\") failed")),
        };
        let group = group.unwrap_or(user);
        let gid = match Group::from_name(group) {
            Ok(Some(found)) => found.gid,
            // The default user `nobody` has the group `nogroup` on Debian.
            _ if group == "nobody" => match Group::from_name("nogroup") {
                Ok(Some(found)) => found.gid,
                _ => return Err(format!("getgrnam(\"{group}\") failed")),
            },
            _ => return Err(format!("getgrnam(\"{group}\") failed")),
        };
        Ok(Self { name: user.to_owned(), uid: uid.as_raw(), gid: gid.as_raw() })
    }

    /// Becomes this user for good. For a process that is root.
    pub fn become_it(&self) -> io::Result<()> {
        let name = std::ffi::CString::new(self.name.as_str()).map_err(io::Error::other)?;
        let gid = Gid::from_raw(self.gid);
        setgid(gid)?;
        nix::unistd::initgroups(&name, gid)?;
        setuid(Uid::from_raw(self.uid))?;
        Ok(())
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Sets both limits of open descriptors.
pub fn limit_descriptors(limit: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?)
}

/// Processors that this process may use: what `worker_processes auto` means.
pub fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

/// Ends the process at once, without destructors: a forked child must not run those of its parent's state.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

static ID: AtomicU32 = AtomicU32::new(0);

/// The number of this process: asked of the kernel once, and again after a [fork](super::fork::fork), since every line of
/// the log shows it.
pub fn id() -> u32 {
    match ID.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            ID.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

/// This process has just become another one.
pub(super) fn forget_id() {
    ID.store(0, Ordering::Relaxed);
}

/// Makes this process yield to all others: nice 10, and if nobody waits for it nice 19 and only when a processor has nothing
/// else to do. When memory is short it is the first to be ended. What cannot be set is left: it only takes longer then.
pub fn give_way(awaited: bool) {
    let nice = if awaited { 10 } else { 19 };
    // SAFETY: integers, and a structure that lives through the call.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        if !awaited {
            let param: libc::sched_param = std::mem::zeroed();
            libc::sched_setscheduler(0, libc::SCHED_IDLE, &param);
        }
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// The name of this process in /proc, which a fork inherits; at most 15 bytes.
pub fn name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: the kernel writes 16 bytes at most, with their end.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// See [`name`].
pub fn set_name(name: [u8; 16]) {
    let mut name = name;
    name[15] = 0;
    // SAFETY: the kernel reads up to the zero, which is there.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Ends this process with its parent, whose number was `parent` before the fork.
pub fn end_with(parent: u32) {
    // SAFETY: integers only.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // It may have ended before that.
        if libc::getppid() != parent as i32 {
            libc::_exit(0);
        }
    }
}

/// Closes every descriptor above standard error but one. For a forked child that touches none of the values which own them
/// and leaves by [`exit_now`], so that nothing is closed twice.
pub fn close_all_but(kept: &impl std::os::fd::AsRawFd) {
    let kept = kept.as_raw_fd() as u32;
    // SAFETY: integers only; the caller owns no descriptor that it will use.
    unsafe {
        if kept > 3 {
            libc::syscall(libc::SYS_close_range, 3, kept - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, kept.max(2) + 1, u32::MAX, 0);
    }
}

/// The machine's name, lower case.
pub fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default()
}
