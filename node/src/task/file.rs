//! Reading and replacing whole files that several processes look at.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dysvr_proto::planted::{Bug, planted};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::os::is_same;

/// No task file that makes sense is larger: a line with 100,000 ids takes one megabyte.
const MAX_TASK_FILE: u64 = 64 << 20;

/// How far a write must get before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Seen whole by every process: for what a reboot forgets anyway (the task file on a tmpfs).
    Visible,
    /// On the disk, file and directory entry: for what must be there after a power cut.
    Synced,
}

/// Replaces (or creates) a file: the bytes are written beside it with the mode that the file had (0644 when it is new)
/// and renamed over it, so that every reader sees the old or the new content whole. On an error the old file stands.
pub fn write_whole(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    write_whole_as(path, bytes, 0o644, durability)
}

/// The same; a new file gets that mode, and has no other one before.
pub fn write_whole_as(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let (content, file) = Beside::write(path, bytes, mode)?;
    match durability {
        Durability::Visible => content.place(),
        Durability::Synced => {
            sync(&file)?;
            content.place()?;
            sync_parent(path)
        }
    }
}

/// The next content of a file, written beside it. Dropped before it has got the file's name, it is gone.
#[derive(Debug)]
pub struct Beside {
    path: PathBuf,
    beside: PathBuf,
    placed: bool,
}

impl Beside {
    /// Writes it, with the mode that the file has; a new file gets that `mode`, and has no other one before. What it is
    /// written to is open, for whoever [syncs](sync) it.
    pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<(Self, File)> {
        let mode = match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_file() => meta.mode() & 0o7777,
            Ok(_) => return Err(io::Error::other(format!("{} is not a regular file", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => mode,
            Err(e) => return Err(e),
        };
        let content = Self { path: path.to_owned(), beside: beside(path)?, placed: false };
        let file = write_new(&content.beside, bytes, mode)?;
        Ok((content, file))
    }

    /// Gives it the file's name.
    pub fn place(mut self) -> io::Result<()> {
        if planted(Bug::WriteInPlace) {
            return fs::write(&self.path, fs::read(&self.beside)?);
        }
        fs::rename(&self.beside, &self.path)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// Makes what was written to a file durable.
pub fn sync(file: &File) -> io::Result<()> {
    if planted(Bug::SkipFsync) { Ok(()) } else { file.sync_all() }
}

/// Makes the entries of a file's directory durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

/// How a [`replace`] ended.
#[derive(Debug)]
pub enum Replaced {
    /// The new file stands at the path; it is open.
    Done(File),
    /// Another file than the held one stands there, and still does.
    Superseded,
}

/// As [`write_whole`] with [`Durability::Visible`], but replaces `held` and no other file: whoever has put another one at
/// the path meanwhile (or has removed it) knows better.
pub fn replace(path: &Path, held: &File, bytes: &[u8]) -> io::Result<Replaced> {
    if !is_same(path, held)? {
        return Ok(Replaced::Superseded);
    }
    let beside = beside(path)?;
    let remove = |_: &io::Error| drop(fs::remove_file(&beside));
    let mode = held.metadata()?.mode() & 0o7777;
    let file = write_new(&beside, bytes, mode).inspect_err(remove)?;
    // Exchanged, not renamed over: what stood there is then seen for certain, and put back if it was another file.
    match exchange(&beside, path) {
        Ok(()) if is_same(&beside, held)? => fs::remove_file(&beside)?,
        Ok(()) => {
            exchange(&beside, path)?;
            fs::remove_file(&beside)?;
            return Ok(Replaced::Superseded);
        }
        Err(Errno::ENOENT) => {
            fs::remove_file(&beside)?;
            return Ok(Replaced::Superseded);
        }
        // Not every file system can.
        Err(Errno::EINVAL | Errno::ENOSYS) => fs::rename(&beside, path).inspect_err(remove)?,
        Err(error) => {
            fs::remove_file(&beside)?;
            return Err(error.into());
        }
    }
    Ok(Replaced::Done(file))
}

fn exchange(a: &Path, b: &Path) -> nix::Result<()> {
    renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE)
}

/// Reads the task file. A symlink, anything but a regular file, a file that somebody else owns or that everybody may
/// write, and a file of absurd size are refused: what stands in it makes the master act.
pub fn read_task_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = open_no_link(path, false)?;
    read_guarded(path, &file)
}

/// The same for the one who answers in it: the open file, and whether it may be written.
pub fn open_task_file(path: &Path) -> io::Result<(File, bool, Vec<u8>)> {
    let (file, writable) = match open_no_link(path, true) {
        Ok(file) => (file, true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS | libc::EISDIR)) => {
            (open_no_link(path, false)?, false)
        }
        Err(e) => return Err(e),
    };
    let bytes = read_guarded(path, &file)?;
    Ok((file, writable, bytes))
}

/// Reads a regular file whoever it belongs to, to quote it: never waits, follows no link. A file of absurd size is an error.
pub fn read_to_quote(path: &Path) -> io::Result<Vec<u8>> {
    let file = open_no_link(path, false)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > MAX_TASK_FILE {
        return Err(refuse(path, "is not a file to quote"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_TASK_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn refuse(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

fn open_no_link(path: &Path, write: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path).map_err(|e| match e.raw_os_error() {
        Some(libc::ELOOP) => refuse(path, "is a symbolic link"),
        _ => e,
    })
}

fn read_guarded(path: &Path, mut file: &File) -> io::Result<Vec<u8>> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(refuse(path, "is not a regular file"));
    }
    let me = nix::unistd::geteuid().as_raw();
    if meta.uid() != me && meta.uid() != 0 {
        return Err(refuse(path, &format!("is owned by uid {}, neither {me} nor root", meta.uid())));
    }
    if meta.mode() & 0o002 != 0 {
        return Err(refuse(path, "may be written by everybody"));
    }
    if meta.len() > MAX_TASK_FILE {
        return Err(refuse(path, &format!("is larger than {MAX_TASK_FILE} bytes")));
    }
    let size = meta.len() as usize;
    let mut bytes = vec![0; size + 1];
    // Asked for one byte more than there is, the file says by its answer that this was its end.
    let read = file.read(&mut bytes)?;
    bytes.truncate(read);
    if read != size {
        file.take(MAX_TASK_FILE + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Removes what writers that were killed in between have left in a directory: hidden files that carry the number of a
/// process that is no more.
pub fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let writer = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.'));
        let Some(pid) = writer.and_then(|(_, pid)| pid.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// A hidden name in the same directory (rename does not cross file systems) that no include pattern matches: it ends in
/// `.tmp`. Two processes that write the same file at once do not share it.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a name"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    Ok(path.with_file_name(hidden))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path);
    let mut file = match open() {
        // Left by a process of the same number that was killed in between.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            open()?
        }
        other => other?,
    };
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?; // whatever the umask took away
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_keeps_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dy_update_server.conf");
        write_whole(&path, b"one", Durability::Visible).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        write_whole(&path, b"two", Durability::Synced).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::create_dir(&path).unwrap();
        assert!(write_whole(&path, b"x", Durability::Visible).is_err());
        assert!(write_whole(&dir.path().join("absent/b"), b"x", Durability::Visible).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = child.id();
        child.wait().unwrap();
        let mine = std::process::id();
        for name in [format!(".a.conf.{gone}.tmp"), format!(".a.conf.{mine}.tmp"), ".b.tmp".into(), "c.conf".into()] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        sweep(dir.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [format!(".a.conf.{mine}.tmp").as_str(), ".b.tmp", "c.conf"]);
        assert!(sweep(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn refuses_what_must_not_make_a_master_act() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"x").unwrap();
        assert_eq!(read_task_file(&file).unwrap(), b"x");

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(read_task_file(&link).unwrap_err().to_string().ends_with("is a symbolic link"));
        assert!(read_task_file(dir.path()).unwrap_err().to_string().ends_with("is not a regular file"));
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        assert!(read_task_file(&file).unwrap_err().to_string().ends_with("may be written by everybody"));
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
            assert!(read_task_file(&file).unwrap_err().to_string().contains("is owned by uid 12345"));
        }
        assert_eq!(read_task_file(&dir.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
