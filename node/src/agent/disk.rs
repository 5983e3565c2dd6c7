//! The managed files on disk: what there is, kept up to date with what changes, and the writing of new ones.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dysvr_conf::http::ssl::holds_key;

use super::ledger::FileChanges;
use super::managed::{ContentDigest, DIRECTORIES, FileName, Manifest};
use super::order::Order;
use crate::task::file::{Durability, sync_parent, write_whole_as};

/// Up to so many files are synced one by one; above, the file system as a whole.
const SYNC_EACH: usize = 16;

/// Tells a file that may have changed from one that has not: a rename changes the inode, a write the times.
type Stamp = (u64, u64, i64, i64);

/// The managed files.
#[derive(Debug)]
pub struct Disk {
    conf_dir: PathBuf,
    manifest: Manifest,
    stamps: BTreeMap<FileName, Stamp>,
}

impl Disk {
    /// Of a configuration's directory; nothing is read yet.
    pub fn new(conf_dir: &Path) -> Self {
        Self { conf_dir: conf_dir.to_owned(), manifest: Manifest::default(), stamps: BTreeMap::new() }
    }

    /// What there was when it was last looked at.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Looks at all: everything in the managed directories, and `others` (the files that tasks have named).
    pub fn refresh_all<'n>(&mut self, others: impl Iterator<Item = &'n FileName>) -> io::Result<bool> {
        let mut names: Vec<FileName> = others.cloned().collect();
        names.extend(self.manifest.0.keys().cloned());
        for directory in DIRECTORIES {
            list(&self.conf_dir, &self.conf_dir.join(directory), &mut names)?;
        }
        names.sort();
        names.dedup();
        self.refresh(names.iter())
    }

    /// Looks at some. Says whether any has changed.
    pub fn refresh<'n>(&mut self, names: impl Iterator<Item = &'n FileName>) -> io::Result<bool> {
        let mut changed = false;
        for name in names {
            let path = name.path(&self.conf_dir);
            let stamp = match fs::metadata(&path) {
                Ok(meta) if meta.is_file() => Some(stamp(&meta)),
                Ok(_) => None,
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
                Err(e) => return Err(e),
            };
            if stamp == self.stamps.get(name).copied() {
                continue;
            }
            match stamp {
                Some(stamp) => {
                    let digest = match fs::read(&path) {
                        Ok(content) => ContentDigest::of(&content),
                        Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // the next look sees that
                        Err(e) => return Err(e),
                    };
                    changed |= self.manifest.0.insert(name.clone(), digest) != Some(digest);
                    self.stamps.insert(name.clone(), stamp);
                }
                None => {
                    changed |= self.manifest.0.remove(name).is_some();
                    self.stamps.remove(name);
                }
            }
        }
        Ok(changed)
    }

    /// Writes what an order changes, and makes it durable. On an error some files may be written: the caller undoes.
    pub fn write(&mut self, order: &Order, changes: &FileChanges) -> io::Result<()> {
        let durability = if changes.len() > SYNC_EACH { Durability::Visible } else { Durability::Synced };
        let described = |name: &FileName, e: io::Error| io::Error::new(e.kind(), format!("{name}: {e}"));
        for (name, digest) in changes {
            let path = name.path(&self.conf_dir);
            match (digest, order.write.get(name)) {
                (Some(_), Some(content)) => {
                    if let Some(parent) = path.parent() {
                        fs::create_dir_all(parent).map_err(|e| described(name, e))?;
                    }
                    let mode = if holds_key(content) { 0o600 } else { 0o644 };
                    write_whole_as(&path, content, mode, durability).map_err(|e| described(name, e))?;
                }
                _ => match fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(described(name, e)),
                    _ if durability == Durability::Synced => sync_parent(&path).map_err(|e| described(name, e))?,
                    _ => {}
                },
            }
        }
        if durability == Durability::Visible {
            nix::unistd::syncfs(fs::File::open(&self.conf_dir)?)?;
        }
        self.refresh(changes.keys()).map(drop)
    }
}

fn stamp(meta: &fs::Metadata) -> Stamp {
    (
        meta.ino(),
        meta.size(),
        meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
        meta.ctime() * 1_000_000_000 + meta.ctime_nsec(),
    )
}

/// The managed files below a directory. A file whose name no task could write is not one.
fn list(conf_dir: &Path, directory: &Path, names: &mut Vec<FileName>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(conf_dir, &entry.path(), names)?;
        } else {
            names.extend(FileName::of_path(conf_dir, &entry.path()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::order::Origin;
    use super::*;
    use crate::task::Kind;
    use crate::task::file::write_whole;

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    #[test]
    fn sees_what_there_is_and_what_changes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |text: &str| dir.path().join(text);
        fs::create_dir(at("auto_vhost")).unwrap();
        fs::write(at("auto_vhost/a.conf"), "A").unwrap();
        fs::write(at("auto_vhost/.hidden.conf.1.tmp"), "x").unwrap();
        fs::write(at("auto_vhost/README"), "x").unwrap();
        fs::write(at("common.conf"), "C").unwrap();
        fs::write(at("other.conf"), "x").unwrap();
        let mut disk = Disk::new(dir.path());
        assert!(disk.refresh_all([name("common.conf")].iter()).unwrap());
        let names: Vec<_> = disk.manifest().0.keys().map(FileName::as_str).collect();
        assert_eq!(names, ["auto_vhost/a.conf", "common.conf"]);
        assert!(!disk.refresh_all([].iter()).unwrap());

        write_whole(&at("auto_vhost/a.conf"), b"B", Durability::Visible).unwrap();
        fs::remove_file(at("common.conf")).unwrap();
        assert!(disk.refresh_all([].iter()).unwrap());
        assert_eq!(disk.manifest().0, [(name("auto_vhost/a.conf"), ContentDigest::of(b"B"))].into());
    }

    #[test]
    fn writes_and_removes() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Disk::new(dir.path());
        let (new, gone) = (name("auto_vhost/new.conf"), name("auto_vhost/gone.conf"));
        let order = Order {
            id: "t".into(),
            origin: Origin::Hand(Kind::Add),
            write: [(new.clone(), b"N".to_vec())].into(),
            remove: [gone.clone()].into(),
            deadline: None,
        };
        let changes = FileChanges::from([(new.clone(), Some(ContentDigest::of(b"N"))), (gone.clone(), None)]);
        fs::create_dir(dir.path().join("auto_vhost")).unwrap();
        fs::write(gone.path(dir.path()), "G").unwrap();
        disk.refresh_all([].iter()).unwrap();
        disk.write(&order, &changes).unwrap();
        assert_eq!(disk.manifest().0, [(new.clone(), ContentDigest::of(b"N"))].into());
        assert_eq!(fs::read(new.path(dir.path())).unwrap(), b"N");

        let key = name("certs/a.key");
        let content = b"-----BEGIN PRIVATE KEY-----\n".to_vec();
        let changes = FileChanges::from([(key.clone(), Some(ContentDigest::of(&content)))]);
        let secret = Order { write: [(key.clone(), content)].into(), ..order.clone() };
        disk.write(&secret, &changes).unwrap();
        assert_eq!(fs::metadata(key.path(dir.path())).unwrap().mode() & 0o777, 0o600);

        let many: FileChanges =
            (0..40).map(|i| (name(&format!("auto_vhost/{i}.conf")), Some(ContentDigest::of(b"M")))).collect();
        let order = Order { write: many.keys().map(|name| (name.clone(), b"M".to_vec())).collect(), ..order };
        disk.write(&order, &many).unwrap();
        assert_eq!(disk.manifest().0.len(), 42);
    }
}
