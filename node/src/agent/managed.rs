//! The managed files: those below the configuration's directory that tasks write. Their names, and their digests.

use std::borrow::Borrow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use dysvr_conf::bundle::ENDINGS;
use dysvr_proto::digest::{self, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The directories whose files (of names that a task could write) are all managed, whether a task has named them or not.
pub const DIRECTORIES: [&str; 2] = [VHOSTS, UPSTREAMS];
/// One file per vhost, by convention.
pub const VHOSTS: &str = "auto_vhost";
/// The upstreams that vhosts include.
pub const UPSTREAMS: &str = "auto_upstream";

/// Longest name, bytes: far below PATH_MAX with any sensible prefix.
const MAX_NAME: usize = 1024;

/// The name of a managed file: a relative path with `/`, safe to join to the configuration's directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

/// A name that cannot be a managed file's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("file name \"{}\": {why}", name.escape_debug())]
pub struct InvalidFileName {
    name: String,
    why: &'static str,
}

impl FileName {
    /// Takes a name that a task gives.
    pub fn new(name: &str) -> Result<Self, InvalidFileName> {
        let why = if name.is_empty() {
            "is empty"
        } else if name.len() > MAX_NAME {
            "is too long"
        } else if name.starts_with('/') {
            "is absolute"
        } else if name
            .chars()
            .any(|c| c.is_control() || matches!(c, '\\' | '"' | '\'' | ';' | '{' | '}' | '*' | '?' | '[' | '$' | ' '))
        {
            // The name stands in `include NAME;` lines, where these have a meaning.
            "has a character that an include cannot name"
        } else if name.split('/').any(|part| part.is_empty() || part.starts_with('.') || part.len() > 255) {
            "has an empty, hidden, relative or over-long part"
        } else if !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            "does not end in .conf, nor as certificates and keys do in .pem, .crt, .cer or .key"
        } else if name == "nginx.conf" {
            "is the main configuration, which is not managed"
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(InvalidFileName { name: name.to_owned(), why })
    }

    /// The name of a path below the configuration's directory.
    pub fn of_path(conf_dir: &Path, path: &Path) -> Option<Self> {
        let relative = path.strip_prefix(conf_dir).ok()?;
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if plain { Self::new(relative.to_str()?).ok() } else { None }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file.
    pub fn path(&self, conf_dir: &Path) -> PathBuf {
        conf_dir.join(&self.0)
    }

    /// Whether it lies in a directory of which every such file is managed.
    pub fn is_in(&self, directory: &str) -> bool {
        self.0.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Whether it is managed even when no task has named it.
    pub fn is_in_managed_directory(&self) -> bool {
        DIRECTORIES.iter().any(|directory| self.is_in(directory))
    }
}

impl TryFrom<String> for FileName {
    type Error = InvalidFileName;

    fn try_from(name: String) -> Result<Self, InvalidFileName> {
        Self::new(&name)
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for FileName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for FileName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The digest of a file's content, in hexadecimal where it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentDigest(pub Digest);

impl ContentDigest {
    /// Of a content.
    pub fn of(content: &[u8]) -> Self {
        Self(digest::of_content(content))
    }
}

impl From<ContentDigest> for String {
    fn from(digest: ContentDigest) -> Self {
        digest::hex(&digest.0)
    }
}

/// Not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 in hexadecimal")]
pub struct InvalidDigest;

impl TryFrom<String> for ContentDigest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(InvalidDigest);
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidDigest)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidDigest)?;
        }
        Ok(Self(digest))
    }
}

/// A set of managed files: name → digest of the content. It knows the digests of its parts until they change, so that
/// of a large set with a small change little is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    parts: Vec<Part>,
}

/// The files of a part of [`digest::PARTS`].
#[derive(Clone, Debug, Default)]
struct Part {
    files: BTreeMap<FileName, ContentDigest>,
    /// Once it was asked for.
    digest: OnceCell<Digest>,
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl Eq for Part {}

impl Part {
    fn digest(&self) -> Digest {
        let files = self.files.iter().map(|(name, digest)| (name.as_str(), digest.0));
        *self.digest.get_or_init(|| digest::of_part(files))
    }

    /// What it would be with changes.
    fn digest_with(&self, changes: &[(&FileName, Option<ContentDigest>)]) -> Digest {
        let mut files: BTreeMap<&FileName, ContentDigest> = self.files.iter().map(|(name, d)| (name, *d)).collect();
        for (name, digest) in changes {
            match digest {
                Some(digest) => files.insert(name, *digest),
                None => files.remove(name),
            };
        }
        digest::of_part(files.into_iter().map(|(name, digest)| (name.as_str(), digest.0)))
    }
}

impl Default for Manifest {
    fn default() -> Self {
        Self { parts: vec![Part::default(); digest::PARTS] }
    }
}

impl Manifest {
    fn part(&self, name: &FileName) -> &Part {
        &self.parts[digest::part_of(name.as_str())]
    }

    /// The part of a file that is about to change.
    fn part_mut(&mut self, name: &FileName) -> &mut Part {
        let part = &mut self.parts[digest::part_of(name.as_str())];
        part.digest.take();
        part
    }

    /// A file's digest.
    pub fn get(&self, name: &FileName) -> Option<&ContentDigest> {
        self.part(name).files.get(name)
    }

    /// Whether there is such a file.
    pub fn contains(&self, name: &FileName) -> bool {
        self.get(name).is_some()
    }

    /// Puts a file in; gives the digest that it had.
    pub fn insert(&mut self, name: FileName, digest: ContentDigest) -> Option<ContentDigest> {
        self.part_mut(&name).files.insert(name, digest)
    }

    /// Takes a file out; gives the digest that it had.
    pub fn remove(&mut self, name: &FileName) -> Option<ContentDigest> {
        self.part_mut(name).files.remove(name)
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        self.parts.iter().map(|part| part.files.len()).sum()
    }

    /// All files, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&FileName, &ContentDigest)> {
        self.parts.iter().flat_map(|part| &part.files)
    }

    /// All names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &FileName> {
        self.iter().map(|(name, _)| name)
    }

    /// The digest of the whole set, as controllers compute it.
    pub fn digest(&self) -> Digest {
        digest::of_parts(self.parts.iter().map(Part::digest))
    }

    /// What it would be with changes: another digest for a file, or none for one that goes.
    pub fn digest_with<'n>(&self, changes: impl Iterator<Item = (&'n FileName, Option<ContentDigest>)>) -> Digest {
        let mut changed = vec![Vec::new(); digest::PARTS];
        changes.for_each(|change| changed[digest::part_of(change.0.as_str())].push(change));
        let parts = self.parts.iter().zip(changed).map(|(part, changes)| match changes.as_slice() {
            [] => part.digest(),
            changes => part.digest_with(changes),
        });
        digest::of_parts(parts)
    }

    /// The names in which two sets differ.
    pub fn differing(&self, other: &Self) -> BTreeSet<FileName> {
        let names = self.names().chain(other.names());
        names.filter(|name| self.get(name) != other.get(name)).cloned().collect()
    }
}

impl FromIterator<(FileName, ContentDigest)> for Manifest {
    fn from_iter<I: IntoIterator<Item = (FileName, ContentDigest)>>(files: I) -> Self {
        let mut manifest = Self::default();
        for (name, digest) in files {
            manifest.insert(name, digest);
        }
        manifest
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let files = BTreeMap::<FileName, ContentDigest>::deserialize(deserializer)?;
        Ok(files.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_task_may_write() {
        for name in
            ["auto_vhost/a.conf", "auto_upstream/x_80.1074728.upstream.conf", "common_location.conf", "a/nginx.conf"]
        {
            assert_eq!(FileName::new(name).unwrap().as_str(), name);
        }
        for (name, why) in [
            ("", "is empty"),
            ("/etc/passwd.conf", "is absolute"),
            ("../x.conf", "has an empty, hidden, relative or over-long part"),
            ("auto_vhost/../../x.conf", "has an empty, hidden, relative or over-long part"),
            ("auto_vhost//x.conf", "has an empty, hidden, relative or over-long part"),
            ("./x.conf", "has an empty, hidden, relative or over-long part"),
            ("auto_vhost/.x.conf", "has an empty, hidden, relative or over-long part"),
            ("auto_vhost/x;.conf", "has a character that an include cannot name"),
            ("auto_vhost/x\n.conf", "has a character that an include cannot name"),
            ("auto_vhost/*.conf", "has a character that an include cannot name"),
            ("auto_vhost/x", "does not end in .conf, nor as certificates and keys do in .pem, .crt, .cer or .key"),
            ("nginx.conf", "is the main configuration, which is not managed"),
        ] {
            let text = FileName::new(name).unwrap_err().to_string();
            assert_eq!(text, format!("file name \"{}\": {why}", name.escape_debug()));
        }
        assert!(FileName::new(&format!("{}.conf", "a".repeat(300))).is_err());
        assert!(FileName::new(&format!("{}a.conf", "a/".repeat(600))).is_err());
    }

    #[test]
    fn paths_become_names_and_back() {
        let dir = Path::new("/p/conf");
        let name = FileName::of_path(dir, Path::new("/p/conf/auto_vhost/a.conf")).unwrap();
        assert!(name.is_in(VHOSTS) && name.is_in_managed_directory() && !name.is_in(UPSTREAMS));
        assert_eq!(name.path(dir), Path::new("/p/conf/auto_vhost/a.conf"));
        assert_eq!(FileName::of_path(dir, Path::new("/p/conf/../x.conf")), None);
        assert_eq!(FileName::of_path(dir, Path::new("/q/x.conf")), None);
        assert!(!FileName::new("auto_vhost.conf").unwrap().is_in_managed_directory());
    }

    #[test]
    fn a_manifest_survives_json_and_tells_differences() {
        let name = |text: &str| FileName::new(text).unwrap();
        let one =
            Manifest::from_iter([(name("a.conf"), ContentDigest::of(b"a")), (name("b.conf"), ContentDigest::of(b"b"))]);
        let two =
            Manifest::from_iter([(name("b.conf"), ContentDigest::of(b"B")), (name("c.conf"), ContentDigest::of(b"c"))]);
        assert_eq!(one.differing(&two), ["a.conf", "b.conf", "c.conf"].map(name).into());
        assert!(one.differing(&one).is_empty());
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), one);
        assert!(serde_json::from_str::<Manifest>(&json.replace("a.conf", "../a.conf")).is_err());
        assert_ne!(one.digest(), two.digest());
    }

    #[test]
    fn a_digest_that_is_kept_up_to_date_is_that_of_the_files() {
        let name = |n: usize| FileName::new(&format!("auto_vhost/{n}.conf")).unwrap();
        let content = |n: usize| ContentDigest::of(n.to_string().as_bytes());
        let mut files = BTreeMap::new();
        let mut manifest = Manifest::default();
        for step in 0..3000 {
            let (at, new) = (name(step * 7919 % 600), (step % 3 != 0).then(|| content(step)));
            let told = manifest.digest_with([(&at, new)].into_iter());
            match new {
                Some(digest) => {
                    files.insert(at.clone(), digest.0);
                    manifest.insert(at, digest);
                }
                None => {
                    files.remove(&at);
                    manifest.remove(&at);
                }
            }
            assert_eq!((told, manifest.digest()), (digest::of_files(&files), told), "step {step}");
            assert_eq!(manifest.count(), files.len());
        }
        let again = Manifest::default().digest_with(manifest.iter().map(|(name, digest)| (name, Some(*digest))));
        assert_eq!(again, manifest.digest());
    }
}
