//! The managed files on disk: what there is, kept up to date with what changes, and the writing of new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dysvr_conf::http::ssl::holds_key;
use dysvr_proto::planted::{Bug, planted};

use super::aside::{Aside, Doing};
use super::ledger::FileChanges;
use super::managed::{ContentDigest, DIRECTORIES, FileName, Manifest};
use super::order::Order;
use crate::task::file::{Beside, sync, sync_parent};

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
        let (manifest, stamps) = (Manifest::default(), BTreeMap::new());
        Self { conf_dir: conf_dir.to_owned(), manifest, stamps }
    }

    /// What there was when it was last looked at.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Looks at all: everything in the managed directories, and `others` (the files that tasks have named).
    pub fn refresh_all<'n>(&mut self, others: impl Iterator<Item = &'n FileName>) -> io::Result<bool> {
        let mut names: Vec<FileName> = others.cloned().collect();
        names.extend(self.manifest.names().cloned());
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
                    changed |= self.manifest.insert(name.clone(), digest) != Some(digest);
                    self.stamps.insert(name.clone(), stamp);
                }
                None => {
                    changed |= self.manifest.remove(name).is_some();
                    self.stamps.remove(name);
                }
            }
        }
        Ok(changed)
    }

    /// Writes the contents that an order brings beside the files that they are for, and has them made durable aside, so
    /// that a file never has a name before it has its content. Of `all` that the task leaves, what stands there already
    /// (changed by hand) is made durable too. No managed file is changed.
    pub fn stage(
        &self,
        order: &Order,
        disk: &FileChanges,
        all: &FileChanges,
        aside: &mut Aside,
    ) -> io::Result<Staging> {
        let mut staged = Staged::default();
        let standing = all.iter().filter(|(name, digest)| digest.is_some() && !disk.contains_key(*name));
        let standing: Vec<FileName> = standing.map(|(name, _)| name.clone()).collect();
        let each = disk.len() + standing.len() <= SYNC_EACH;
        let mut written = Vec::new();
        for (name, digest) in disk {
            let path = name.path(&self.conf_dir);
            match (digest, order.write.get(name)) {
                (Some(_), Some(content)) => {
                    let mode = if holds_key(content) { 0o600 } else { 0o644 };
                    let (content, file) = write_beside(&path, content, mode).map_err(|e| described(name, e))?;
                    staged.contents.push((name.clone(), content));
                    // Thousands are not held open.
                    written.extend(each.then(|| (name.clone(), file)));
                }
                _ => staged.gone.push(name.clone()),
            }
        }
        let conf_dir = self.conf_dir.clone();
        let synced = aside.start(move || {
            if !each {
                return Ok(nix::unistd::syncfs(File::open(conf_dir)?)?);
            }
            for (name, file) in written {
                sync(&file).map_err(|e| described(&name, e))?;
            }
            for name in standing {
                sync_if_there(&name.path(&conf_dir)).map_err(|e| described(&name, e))?;
            }
            Ok(())
        });
        Ok(Staging { staged, synced })
    }

    /// Gives the contents their names and removes what goes. On an error some of it may be done: the caller undoes.
    pub fn place(&self, staged: Staged) -> io::Result<()> {
        for (name, content) in staged.contents {
            content.place().map_err(|e| described(&name, e))?;
        }
        for name in staged.gone {
            match fs::remove_file(name.path(&self.conf_dir)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(described(&name, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes durable which files there are, and looks at them: the verdict's report has not to wait for what they are.
    pub fn settle<'n>(&mut self, names: impl Iterator<Item = &'n FileName> + Clone) -> io::Result<()> {
        let paths = names.clone().map(|name| name.path(&self.conf_dir));
        let directories: BTreeSet<PathBuf> = paths.filter_map(|path| path.parent().map(Path::to_owned)).collect();
        if !planted(Bug::NamesUnsynced) {
            directories.iter().try_for_each(|directory| sync_if_there(directory))?;
        }
        self.refresh(names)?;
        // Hashes what has changed; whoever asks next finds it done.
        self.manifest.digest();
        Ok(())
    }
}

/// What is on its way to the disk. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Staging {
    staged: Staged,
    synced: Doing<io::Result<()>>,
}

impl Staging {
    /// Waits for the disk to have it.
    pub fn wait(self) -> io::Result<Staged> {
        self.synced.wait().flatten()?;
        Ok(self.staged)
    }
}

/// What is durable and waits for its names, and what is to go.
#[derive(Debug, Default)]
pub struct Staged {
    contents: Vec<(FileName, Beside)>,
    gone: Vec<FileName>,
}

fn described(name: &FileName, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{name}: {e}"))
}

/// Also where there is no such directory yet.
fn write_beside(path: &Path, content: &[u8], mode: u32) -> io::Result<(Beside, File)> {
    match (Beside::write(path, content, mode), path.parent()) {
        (Err(e), Some(dir)) if e.kind() == io::ErrorKind::NotFound => {
            create_dirs(dir)?;
            Beside::write(path, content, mode)
        }
        (written, _) => written,
    }
}

/// What is not there has nothing to be made durable.
fn sync_if_there(path: &Path) -> io::Result<()> {
    match File::open(path).and_then(|file| file.sync_all()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced,
    }
}

/// Directories that are as durable as what will lie in them.
fn create_dirs(dir: &Path) -> io::Result<()> {
    match (fs::create_dir(dir), dir.parent()) {
        (Ok(()), _) => sync_parent(dir),
        (Err(e), _) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        (Err(e), Some(parent)) if e.kind() == io::ErrorKind::NotFound => {
            create_dirs(parent)?;
            create_dirs(dir)
        }
        (Err(e), _) => Err(e),
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
    use crate::task::file::{Durability, write_whole};

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    fn write(disk: &mut Disk, order: &Order, changes: &FileChanges) {
        let staging = disk.stage(order, changes, changes, &mut Aside::default()).unwrap();
        disk.place(staging.wait().unwrap()).unwrap();
        disk.settle(changes.keys()).unwrap();
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
        let names: BTreeSet<_> = disk.manifest().names().map(FileName::as_str).collect();
        assert_eq!(names, ["auto_vhost/a.conf", "common.conf"].into());
        assert!(!disk.refresh_all([].iter()).unwrap());

        write_whole(&at("auto_vhost/a.conf"), b"B", Durability::Visible).unwrap();
        fs::remove_file(at("common.conf")).unwrap();
        assert!(disk.refresh_all([].iter()).unwrap());
        assert_eq!(*disk.manifest(), [(name("auto_vhost/a.conf"), ContentDigest::of(b"B"))].into_iter().collect());
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
        let mut aside = Aside::default();
        let staged = disk.stage(&order, &changes, &changes, &mut aside).unwrap().wait().unwrap();
        assert!(gone.path(dir.path()).exists() && !new.path(dir.path()).exists(), "nothing is changed yet");
        disk.place(staged).unwrap();
        disk.settle(changes.keys()).unwrap();
        assert_eq!(*disk.manifest(), [(new.clone(), ContentDigest::of(b"N"))].into_iter().collect());
        assert_eq!(fs::read(new.path(dir.path())).unwrap(), b"N");

        let key = name("certs/a.key");
        let content = b"-----BEGIN PRIVATE KEY-----\n".to_vec();
        let changes = FileChanges::from([(key.clone(), Some(ContentDigest::of(&content)))]);
        let secret = Order { write: [(key.clone(), content)].into(), ..order.clone() };
        write(&mut disk, &secret, &changes);
        assert_eq!(fs::metadata(key.path(dir.path())).unwrap().mode() & 0o777, 0o600);

        let many: FileChanges =
            (0..40).map(|i| (name(&format!("auto_vhost/{i}.conf")), Some(ContentDigest::of(b"M")))).collect();
        let order = Order { write: many.keys().map(|name| (name.clone(), b"M".to_vec())).collect(), ..order };
        write(&mut disk, &order, &many);
        assert_eq!(disk.manifest().count(), 42);
        // What is staged and not placed leaves nothing behind.
        drop(disk.stage(&order, &many, &many, &mut aside).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("auto_vhost")).unwrap().count(), 41);
    }
}
