//! The former contents of the files that a task changes, in one file of the state directory, which is written over in
//! place: one write, one sync. What is torn was never needed, since a task changes nothing before this is on the disk and
//! the journal says so; what is whole carries its digest.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dysvr_proto::digest;
use dysvr_proto::planted::{Bug, planted};

use super::managed::FileName;
use crate::task::file::{Durability, sync_parent, write_whole_as};

/// What a file was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its name.
    pub name: FileName,
    /// Its mode and content; `None` when it was not there.
    pub file: Option<(u32, Vec<u8>)>,
}

fn path(state: &Path) -> PathBuf {
    state.join("undo")
}

/// Keeps what files are now.
pub fn keep<'n>(state: &Path, conf_dir: &Path, names: impl Iterator<Item = &'n FileName>) -> io::Result<()> {
    let former = names
        .map(|name| {
            let path = name.path(conf_dir);
            let file = match fs::read(&path) {
                Ok(content) => Some((fs::metadata(&path)?.permissions().mode() & 0o7777, content)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            };
            Ok(Former { name: name.clone(), file })
        })
        .collect::<io::Result<Vec<_>>>()?;
    overwrite(&path(state), &encode(&former))
}

/// Makes `bytes` the file's content, on the disk.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // There may be keys among them.
    let open = |new| OpenOptions::new().write(true).create_new(new).mode(0o600).open(path);
    let (file, is_new) = match open(false) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => (open(true)?, true),
        file => (file?, false),
    };
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    if !planted(Bug::SkipFsync) {
        file.sync_data()?;
    }
    if is_new { sync_parent(path) } else { Ok(()) }
}

/// Restores what was kept. Repeating it does no harm.
pub fn restore(state: &Path, conf_dir: &Path) -> io::Result<Vec<FileName>> {
    let bytes = fs::read(path(state))?;
    let former = decode(&bytes).ok_or_else(|| io::Error::other("the undo file is damaged"))?;
    for Former { name, file } in &former {
        let path = name.path(conf_dir);
        match file {
            Some((mode, content)) => {
                write_whole_as(&path, content, *mode, Durability::Synced)?;
                fs::set_permissions(&path, Permissions::from_mode(*mode))?;
            }
            None => match fs::remove_file(&path) {
                Ok(()) => sync_parent(&path)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            },
        }
    }
    Ok(former.into_iter().map(|former| former.name).collect())
}

const ABSENT: u32 = u32::MAX;

fn encode(former: &[Former]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Former { name, file } in former {
        let (mode, content) = file.as_ref().map_or((ABSENT, &[][..]), |(mode, content)| (*mode, content));
        bytes.extend(mode.to_le_bytes());
        for part in [name.as_str().as_bytes(), content] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
    }
    bytes.extend(digest::of_content(&bytes));
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Former>> {
    let (mut rest, sum) = bytes.split_last_chunk::<32>()?;
    if digest::of_content(rest) != *sum {
        return None;
    }
    let mut former = Vec::new();
    while !rest.is_empty() {
        let (mode, tail) = rest.split_first_chunk()?;
        let mode = u32::from_le_bytes(*mode);
        rest = tail;
        let name = FileName::new(std::str::from_utf8(part(&mut rest)?).ok()?).ok()?;
        let content = part(&mut rest)?.to_vec();
        former.push(Former { name, file: (mode != ABSENT).then_some((mode, content)) });
    }
    Some(former)
}

fn part<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, tail) = rest.split_first_chunk()?;
    let (part, tail) = tail.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    *rest = tail;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_exactly() {
        let (state, conf) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(conf.path().join("auto_vhost")).unwrap();
        let names: Vec<FileName> =
            ["auto_vhost/a.conf", "auto_vhost/b.conf", "auto_vhost/new.conf"].map(|n| FileName::new(n).unwrap()).into();
        let at = |i: usize| names[i].path(conf.path());
        fs::write(at(0), b"a\xff").unwrap();
        fs::set_permissions(at(0), Permissions::from_mode(0o640)).unwrap();
        fs::write(at(1), b"").unwrap();
        keep(state.path(), conf.path(), names.iter()).unwrap();
        fs::write(at(0), b"changed").unwrap();
        fs::remove_file(at(1)).unwrap();
        fs::write(at(2), b"new").unwrap();
        for _ in 0..2 {
            assert_eq!(restore(state.path(), conf.path()).unwrap(), names);
            assert_eq!(fs::read(at(0)).unwrap(), b"a\xff");
            assert_eq!(fs::metadata(at(0)).unwrap().permissions().mode() & 0o7777, 0o640);
            assert_eq!(fs::read(at(1)).unwrap(), b"");
            assert!(!at(2).exists());
        }
        fs::remove_file(at(0)).unwrap();
        restore(state.path(), conf.path()).unwrap();
        assert_eq!(fs::metadata(at(0)).unwrap().permissions().mode() & 0o7777, 0o640);
        // The next task keeps less, over what was kept before.
        keep(state.path(), conf.path(), names[1..2].iter()).unwrap();
        assert_eq!(restore(state.path(), conf.path()).unwrap(), names[1..2]);
        assert_eq!(fs::metadata(path(state.path())).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn damage_is_noticed_before_anything_is_restored() {
        let former = vec![Former { name: FileName::new("a.conf").unwrap(), file: Some((0o644, b"x".to_vec())) }];
        let bytes = encode(&former);
        assert_eq!(decode(&bytes), Some(former));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None);
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None);
        }
    }
}
