//! What /proc says of a process. Answers are about whoever has the number now: hold a process by its pidfd while asking.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// Most files of /proc are shorter.
const ROOM: usize = 4 << 10;

/// The file name of its program. The kernel shows the path to its own user (and to root with every capability that the
/// process has); everybody sees the name that it was started by.
pub fn program(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe"));
    let name = path.ok().and_then(|path| path.file_name()?.to_str().map(str::to_owned));
    // The kernel says so when the file was replaced by a newer one.
    let name = name.map(|name| name.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(name));
    name.or_else(|| Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned()))
}

/// The process that it was forked from, or whoever has inherited it.
pub fn parent(pid: u32) -> Option<u32> {
    stat_field(pid, 1)?.parse().ok()
}

/// The name of one that has not ended: a zombie has.
pub fn running(pid: u32) -> Option<String> {
    let stat = text(format!("/proc/{pid}/stat")).ok()?;
    let state = stat_fields(&stat)?.next()?;
    let name = stat.split_once('(')?.1.rsplit_once(')')?.0;
    (!matches!(state, "Z" | "X")).then(|| name.to_owned())
}

/// Its descriptors that are sockets: each with the number of the socket, which is the same in all processes that share it.
pub fn sockets(pid: u32) -> io::Result<Vec<(i32, String)>> {
    let mut sockets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let target = match fs::read_link(entry.path()) {
            Ok(target) => target,
            // Closed since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // Who may list them need not be allowed to see what they are.
            Err(error) => return Err(error),
        };
        let socket = target.to_str().and_then(|text| text.strip_prefix("socket:"));
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        sockets.extend(number.zip(socket.map(str::to_owned)));
    }
    Ok(sockets)
}

fn stat_field(pid: u32, index: usize) -> Option<String> {
    stat_fields(&text(format!("/proc/{pid}/stat")).ok()?)?.nth(index).map(str::to_owned)
}

/// The fields of `/proc/PID/stat`, from the one behind the name (which may hold blanks and parentheses) on.
pub fn stat_fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

/// What stands in a file that does not say how long it is, as those of /proc do not: the kernel makes each piece that is read
/// anew, so it is read with room for all.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(ROOM);
    // By way of `take` no length is asked for.
    File::open(path)?.take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_itself() {
        let me = std::process::id();
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(running(me).as_deref(), Some(comm.trim_end()));
        assert_eq!(text("/proc/self/comm").unwrap(), comm);
        let name = std::env::current_exe().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(program(me), Some(name));
        assert!(parent(me).is_some());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        assert!(sockets(me).unwrap().iter().any(|(number, _)| *number == fd));
    }
}
