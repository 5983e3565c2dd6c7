//! The former contents of the files that a task changes. A few small ones go into the journal's entry that begins the
//! task, so that one sync makes both durable; others lie in a file of the state directory, which is written over in place: one
//! write, one sync. What is torn there was never needed, since a task changes nothing before this is on the disk and the
//! journal says so; what is whole carries its digest.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dysvr_proto::digest;
use dysvr_proto::planted::{Bug, planted};
use serde::{Deserialize, Serialize};

use super::managed::{ContentDigest, FileName};
use crate::task::file::{Durability, sync_parent, write_whole_as};

/// So many bytes of former contents may go into the journal: some vhosts, and it is not rewritten much more often.
const MAX_IN_JOURNAL: usize = 16 << 10;
/// So many former files may stay open: a process has a thousand descriptors.
const MAX_OPEN: usize = 16;

/// What a file was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Its name.
    pub name: FileName,
    /// `None` when it was not there.
    pub was: Option<Was>,
}

/// A file that was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was {
    /// Its permissions.
    pub mode: u32,
    /// Its bytes.
    #[serde(with = "text")]
    pub content: Vec<u8>,
}

impl Former {
    /// The digest of what it was.
    pub fn digest(&self) -> Option<ContentDigest> {
        self.was.as_ref().map(|was| ContentDigest::of(&was.content))
    }
}

/// What [`keep`] has kept.
#[derive(Debug)]
pub struct Kept {
    /// For the journal's entry; `None` when it lies in the undo file.
    pub in_journal: Option<Vec<Former>>,
    /// The former files. Whoever replaces a file pays for taking its blocks back unless somebody has it open; these may
    /// be closed when nobody waits any more.
    pub open: Vec<File>,
}

fn path(state: &Path) -> PathBuf {
    state.join("undo")
}

/// Keeps what files are now: in the undo file, durable, or for the journal.
pub fn keep<'n>(state: &Path, conf_dir: &Path, names: impl Iterator<Item = &'n FileName>) -> io::Result<Kept> {
    let (mut former, mut open) = (Vec::new(), Vec::new());
    for name in names {
        let was = match File::open(name.path(conf_dir)) {
            Ok(mut file) => {
                let (mode, mut content) = (file.metadata()?.permissions().mode() & 0o7777, Vec::new());
                file.read_to_end(&mut content)?;
                if open.len() < MAX_OPEN {
                    open.push(file);
                }
                Some(Was { mode, content })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        former.push(Former { name: name.clone(), was });
    }
    let contents = || former.iter().filter_map(|former| former.was.as_ref()).map(|was| &was.content);
    let size: usize = former.iter().map(|former| former.name.as_str().len()).chain(contents().map(Vec::len)).sum();
    if size <= MAX_IN_JOURNAL && contents().all(|content| std::str::from_utf8(content).is_ok()) {
        return Ok(Kept { in_journal: Some(former), open });
    }
    overwrite(&path(state), &encode(&former))?;
    Ok(Kept { in_journal: None, open })
}

/// The contents of the journal's entries are text.
mod text {
    use serde::{Deserialize as _, Deserializer, Serializer, ser::Error as _};

    pub(super) fn serialize<S: Serializer>(content: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(std::str::from_utf8(content).map_err(S::Error::custom)?)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(from).map(String::into_bytes)
    }
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

/// What lies in the undo file.
pub fn read(state: &Path) -> io::Result<Vec<Former>> {
    decode(&fs::read(path(state))?).ok_or_else(|| io::Error::other("the undo file is damaged"))
}

/// Restores what was kept, durably. Repeating it does no harm.
pub fn restore(conf_dir: &Path, former: &[Former]) -> io::Result<()> {
    for Former { name, was } in former {
        let path = name.path(conf_dir);
        match was {
            Some(Was { mode, content }) => {
                write_whole_as(&path, content, *mode, Durability::Synced)?;
                fs::set_permissions(&path, Permissions::from_mode(*mode))?;
            }
            None => {
                // One that is gone already may be so in memory alone.
                let removed = fs::remove_file(&path).or_else(|e| match e.kind() {
                    io::ErrorKind::NotFound => Ok(()),
                    _ => Err(e),
                });
                match removed.and_then(|()| sync_parent(&path)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

const ABSENT: u32 = u32::MAX;

fn encode(former: &[Former]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Former { name, was } in former {
        let (mode, content) = was.as_ref().map_or((ABSENT, &[][..]), |was| (was.mode, &was.content));
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
        former.push(Former { name, was: (mode != ABSENT).then_some(Was { mode, content }) });
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

    fn kept(state: &Path, conf: &Path, names: &[FileName]) -> Vec<Former> {
        keep(state, conf, names.iter()).unwrap().in_journal.unwrap_or_else(|| read(state).unwrap())
    }

    #[test]
    fn what_was_kept_comes_back_exactly() {
        // In the undo file, since it is no text; and for the journal.
        for a in [&b"a\xff"[..], b"a\n\"\0\xc3\xa4"] {
            let (state, conf) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            fs::create_dir(conf.path().join("auto_vhost")).unwrap();
            let names: Vec<FileName> = ["auto_vhost/a.conf", "auto_vhost/b.conf", "auto_vhost/new.conf"]
                .map(|n| FileName::new(n).unwrap())
                .into();
            let at = |i: usize| names[i].path(conf.path());
            fs::write(at(0), a).unwrap();
            fs::set_permissions(at(0), Permissions::from_mode(0o640)).unwrap();
            fs::write(at(1), b"").unwrap();
            let former = kept(state.path(), conf.path(), &names);
            let json = serde_json::to_string(&former);
            assert_eq!(json.is_ok(), !path(state.path()).exists());
            if let Ok(json) = json {
                assert_eq!(serde_json::from_str::<Vec<Former>>(&json).unwrap(), former);
            }
            fs::write(at(0), b"changed").unwrap();
            fs::remove_file(at(1)).unwrap();
            fs::write(at(2), b"new").unwrap();
            for _ in 0..2 {
                restore(conf.path(), &former).unwrap();
                assert_eq!(fs::read(at(0)).unwrap(), a);
                assert_eq!(fs::metadata(at(0)).unwrap().permissions().mode() & 0o7777, 0o640);
                assert_eq!(fs::read(at(1)).unwrap(), b"");
                assert!(!at(2).exists());
            }
            fs::remove_file(at(0)).unwrap();
            restore(conf.path(), &former).unwrap();
            assert_eq!(fs::metadata(at(0)).unwrap().permissions().mode() & 0o7777, 0o640);
        }
    }

    #[test]
    fn what_is_large_lies_in_a_file_for_its_owner_alone_which_the_next_task_writes_over() {
        let (state, conf) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names = ["a.conf", "b.conf"].map(|n| FileName::new(n).unwrap());
        for (name, size) in names.iter().zip([MAX_IN_JOURNAL + 1, 2 * MAX_IN_JOURNAL]) {
            fs::write(name.path(conf.path()), "x".repeat(size)).unwrap();
        }
        for names in [&names[..], &names[..1], &names[1..]] {
            assert!(keep(state.path(), conf.path(), names.iter()).unwrap().in_journal.is_none());
            let former = read(state.path()).unwrap();
            assert!(former.iter().map(|former| &former.name).eq(names));
        }
        assert_eq!(fs::metadata(path(state.path())).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn damage_is_noticed_before_anything_is_restored() {
        let former = vec![Former {
            name: FileName::new("a.conf").unwrap(),
            was: Some(Was { mode: 0o644, content: b"x".to_vec() }),
        }];
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
