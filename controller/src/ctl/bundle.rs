//! What the operator's `-f` means: a closed set of files under the names that they have on a node.
//!
//! Names are relative to the configuration's directory: `auto_vhost/…` for a vhost file, and for everything that is
//! included what the `include` says, because that is where nginx looks for it on the node. Pure: the files come
//! through [`Files`]; `input.rs` has the one that reads the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::include::{self, Include};

/// The folder of the vhost files.
pub const VHOSTS: &str = "auto_vhost";
/// The folder of the upstream files.
pub const UPSTREAMS: &str = "auto_upstream";
/// Includes in included files are followed so deep (nginx itself gives up for want of descriptors), and directories
/// above a file are looked at so far up.
const DEPTH: usize = 32;

/// A file system, or a picture of one.
pub trait Files {
    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Whether there is a plain file.
    fn is_file(&self, path: &Path) -> bool;
    /// Whether there is a directory.
    fn is_dir(&self, path: &Path) -> bool;
    /// What a directory holds, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// The files that a pattern matches, sorted by name.
    fn glob(&self, pattern: &Path) -> Vec<PathBuf>;
}

/// A file of a [`Bundle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As the operator would name it.
    pub path: PathBuf,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// An include whose file is nowhere here; the fleet may have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The file with the include, as the operator would name it.
    pub path: PathBuf,
    /// The include.
    pub include: Include,
}

/// The operator's files by their names on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Sorted.
    pub files: BTreeMap<String, Member>,
    /// In the order in which they were met.
    pub missing: Vec<Missing>,
}

/// Why no bundle can be made of what was given.
#[derive(Debug, thiserror::Error)]
pub enum InvalidInput {
    /// Reading failed.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing of that name.
    #[error("the path \"{}\" does not exist", .0.display())]
    NotFound(PathBuf),
    /// A directory without anything to apply.
    #[error("{} has no {VHOSTS}/*.conf and no *.conf", .0.display())]
    Empty(PathBuf),
    /// The main file is no part of what is rolled out.
    #[error("{} is the main file of a node, not a vhost file", .0.display())]
    MainFile(PathBuf),
    /// A vhost file lies directly in its folder, because that is where nodes look.
    #[error("\"{0}\" is no name of a vhost file: it is a file name, or {VHOSTS}/ and a file name")]
    NotDirect(String),
    /// Names travel as text.
    #[error("the name of {} is not UTF-8", .0.display())]
    Name(PathBuf),
    /// Two files want to be the same one.
    #[error("{} and {} would both be {name}, and they differ", first.display(), second.display())]
    Conflict {
        /// The name on a node.
        name: String,
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

impl Bundle {
    /// A vhost file whose text does not come from a file but, say, from standard input. Its name is its path, too.
    pub fn add_text(&mut self, name: &str, content: Vec<u8>) -> Result<(), InvalidInput> {
        let path = PathBuf::from(name);
        let name = name.strip_prefix("auto_vhost/").unwrap_or(name);
        if name.is_empty() || name.contains('/') {
            return Err(InvalidInput::NotDirect(path.display().to_string()));
        }
        let name = if name.ends_with(".conf") { name.to_owned() } else { format!("{name}.conf") };
        let found = include::includes(&content);
        self.missing.extend(
            found.into_iter().filter(Include::is_relative).map(|include| Missing { path: path.clone(), include }),
        );
        self.insert(format!("{VHOSTS}/{name}"), Member { path, content })?;
        self.forget_found();
        Ok(())
    }

    /// What the operator named: a vhost file or a directory.
    pub fn add(&mut self, files: &dyn Files, path: &Path, recursive: bool) -> Result<(), InvalidInput> {
        if files.is_dir(path) {
            if self.add_dir(files, path, recursive)? == 0 {
                return Err(InvalidInput::Empty(path.to_owned()));
            }
        } else if files.is_file(path) {
            self.add_file(files, path)?;
        } else {
            return Err(InvalidInput::NotFound(path.to_owned()));
        }
        self.forget_found();
        Ok(())
    }

    /// What one input lacks another one may have brought.
    fn forget_found(&mut self) {
        let files = &self.files;
        self.missing.retain(|missing| normal(&missing.include.path).is_none_or(|name| !files.contains_key(&name)));
    }

    /// The operator's path of a file by its name on a node, however the name was decorated on its way.
    pub fn path_of(&self, name: &str) -> Option<&Path> {
        if let Some(member) = self.files.get(name) {
            return Some(&member.path);
        }
        let under = |known: &str| name.strip_suffix(known).is_some_and(|before| before.ends_with('/'));
        self.files.iter().find(|(known, _)| under(known)).map(|(_, member)| member.path.as_path())
    }

    /// The names of the vhost files.
    pub fn vhost_files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str).filter(|name| name.starts_with("auto_vhost/"))
    }

    /// How many vhost and upstream files it has.
    fn add_dir(&mut self, files: &dyn Files, dir: &Path, recursive: bool) -> Result<usize, InvalidInput> {
        let mut found = 0;
        let vhosts = dir.join(VHOSTS);
        if files.is_dir(&vhosts) {
            for file in conf_files(files, &vhosts)? {
                self.add_vhost(files, &file, dir)?;
                found += 1;
            }
            let upstreams = dir.join(UPSTREAMS);
            if files.is_dir(&upstreams) {
                for file in conf_files(files, &upstreams)? {
                    let name = format!("{UPSTREAMS}/{}", file_name(&file)?);
                    self.add_member(files, name, &file, dir, dir, 0)?;
                    found += 1;
                }
            }
            return Ok(found); // what else is in a configuration's directory belongs to the node
        }
        let all = conf_files(files, dir)?;
        let included = included_in(files, dir, &all)?;
        for file in all.iter().filter(|file| !is_main(file) && !included.contains(*file)) {
            self.add_vhost(files, file, dir)?;
            found += 1;
        }
        if recursive {
            for entry in list(files, dir)?.iter().filter(|entry| files.is_dir(entry)) {
                found += self.add_dir(files, entry, true)?;
            }
        }
        Ok(found)
    }

    fn add_file(&mut self, files: &dyn Files, path: &Path) -> Result<(), InvalidInput> {
        if is_main(path) {
            return Err(InvalidInput::MainFile(path.to_owned()));
        }
        let content = read(files, path)?;
        let conf_dir = conf_dir_of(files, path, &include::includes(&content));
        self.add_vhost(files, path, &conf_dir)
    }

    fn add_vhost(&mut self, files: &dyn Files, path: &Path, conf_dir: &Path) -> Result<(), InvalidInput> {
        let name = format!("{VHOSTS}/{}", file_name(path)?);
        let own_dir = parent(path);
        self.add_member(files, name, path, conf_dir, &own_dir, 0)
    }

    /// A file and, through its includes, all that it needs.
    fn add_member(
        &mut self,
        files: &dyn Files,
        name: String,
        path: &Path,
        conf_dir: &Path,
        vhost_dir: &Path,
        depth: usize,
    ) -> Result<(), InvalidInput> {
        let content = read(files, path)?;
        let found = include::includes(&content);
        let known = self.files.contains_key(&name);
        self.insert(name, Member { path: path.to_owned(), content })?;
        if known || depth == DEPTH {
            return Ok(()); // its includes have been followed
        }
        // What an absolute include names is on the node, or nowhere.
        for include in found.into_iter().filter(Include::is_relative) {
            let Some(member_name) = normal(&include.path) else {
                continue; // leads out of the configuration's directory: whoever validates it says so
            };
            let places = [conf_dir.to_owned(), vhost_dir.to_owned(), parent(vhost_dir)];
            let met = if include.is_pattern() {
                let matches = places.iter().map(|place| (place, files.glob(&place.join(&member_name))));
                matches
                    .into_iter()
                    .find(|(_, matches)| !matches.is_empty())
                    .map(|(place, matches)| {
                        let named = |path: PathBuf| Some((path.strip_prefix(place).ok()?.to_str()?.to_owned(), path));
                        matches.into_iter().filter_map(named).collect::<Vec<_>>()
                    })
                    .unwrap_or_default()
            } else {
                match places.iter().map(|place| place.join(&member_name)).find(|path| files.is_file(path)) {
                    Some(path) => vec![(member_name, path)],
                    None => {
                        self.missing.push(Missing { path: path.to_owned(), include });
                        continue;
                    }
                }
            };
            for (member_name, path) in met {
                self.add_member(files, member_name, &path, conf_dir, vhost_dir, depth + 1)?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, name: String, member: Member) -> Result<(), InvalidInput> {
        match self.files.get(&name) {
            Some(known) if known.content != member.content => {
                Err(InvalidInput::Conflict { name, first: known.path.clone(), second: member.path })
            }
            Some(_) => Ok(()),
            None => {
                self.files.insert(name, member);
                Ok(())
            }
        }
    }
}

/// The nearest directory, from the file's own upwards, that has all its includes. A file in `auto_vhost/` belongs to the directory
/// above, whatever there is.
fn conf_dir_of(files: &dyn Files, path: &Path, includes: &[Include]) -> PathBuf {
    let own = parent(path);
    if own.file_name().is_some_and(|name| name == VHOSTS) {
        return parent(&own);
    }
    let needed: Vec<String> =
        includes.iter().filter(|i| i.is_relative() && !i.is_pattern()).filter_map(|i| normal(&i.path)).collect();
    let mut dir = own.clone();
    for _ in 0..DEPTH {
        if needed.iter().all(|name| files.is_file(&dir.join(name))) {
            return dir;
        }
        let above = parent(&dir);
        if above == dir {
            break;
        }
        dir = above;
    }
    own
}

/// The files of a directory that another file of it includes: they are parts, not vhost files.
fn included_in(files: &dyn Files, dir: &Path, all: &[PathBuf]) -> Result<BTreeSet<PathBuf>, InvalidInput> {
    let mut included = BTreeSet::new();
    for file in all.iter().filter(|file| !is_main(file)) {
        for include in include::includes(&read(files, file)?) {
            let Some(name) = normal(&include.path).filter(|_| include.is_relative()) else { continue };
            let path = dir.join(name);
            if include.is_pattern() {
                included.extend(files.glob(&path).into_iter().filter(|path| path != file));
            } else if path != *file {
                included.insert(path);
            }
        }
    }
    Ok(included)
}

/// A relative path without `.` and empty parts; `None` when it has `..` in it.
fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn conf_files(files: &dyn Files, dir: &Path) -> Result<Vec<PathBuf>, InvalidInput> {
    let is_conf = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "conf") && files.is_file(path);
    Ok(list(files, dir)?.into_iter().filter(is_conf).collect())
}

fn list(files: &dyn Files, dir: &Path) -> Result<Vec<PathBuf>, InvalidInput> {
    files.list(dir).map_err(|source| InvalidInput::Read { path: dir.to_owned(), source })
}

fn read(files: &dyn Files, path: &Path) -> Result<Vec<u8>, InvalidInput> {
    files.read(path).map_err(|source| InvalidInput::Read { path: path.to_owned(), source })
}

fn file_name(path: &Path) -> Result<&str, InvalidInput> {
    path.file_name().and_then(|name| name.to_str()).ok_or_else(|| InvalidInput::Name(path.to_owned()))
}

fn is_main(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "nginx.conf")
}

/// The directory above, `..` above a relative path's beginning, and `/` above itself.
fn parent(path: &Path) -> PathBuf {
    let last = path.components().next_back();
    match (last, path.parent()) {
        (None | Some(Component::CurDir | Component::ParentDir), _) => path.join(".."),
        (_, Some(parent)) => parent.to_owned(),
        (_, None) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
