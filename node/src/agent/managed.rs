//! The managed files: those below the configuration's directory that tasks write. Their names, and their digests.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use dysvr_conf::bundle::ENDINGS;
use dysvr_proto::digest::{self, Digest};
use serde::{Deserialize, Serialize};

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

/// A set of managed files: name → digest of the content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest(pub BTreeMap<FileName, ContentDigest>);

impl Manifest {
    /// The digest of the whole set, as controllers compute it.
    pub fn digest(&self) -> Digest {
        digest::of_files_in_order(self.0.iter().map(|(name, digest)| (name.as_str(), digest.0)))
    }

    /// The names in which two sets differ, sorted.
    pub fn differing(&self, other: &Self) -> BTreeSet<FileName> {
        let names = self.0.keys().chain(other.0.keys());
        names.filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
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
        let one = Manifest(BTreeMap::from([
            (name("a.conf"), ContentDigest::of(b"a")),
            (name("b.conf"), ContentDigest::of(b"b")),
        ]));
        let two = Manifest(BTreeMap::from([
            (name("b.conf"), ContentDigest::of(b"B")),
            (name("c.conf"), ContentDigest::of(b"c")),
        ]));
        assert_eq!(one.differing(&two), ["a.conf", "b.conf", "c.conf"].map(name).into());
        assert!(one.differing(&one).is_empty());
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), one);
        assert!(serde_json::from_str::<Manifest>(&json.replace("a.conf", "../a.conf")).is_err());
        assert_ne!(one.digest(), two.digest());
    }
}
