//! A closed set of named files: what a controller keeps and what travels to a node.
//!
//! Names are relative to the directory of the main configuration file and can lead nowhere else, contents are bounded
//! text, and every file and the whole have a digest. Nothing in a bundle can name a file outside it.

mod check;
mod identity;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use check::{Assumptions, Checked, UpstreamSummary, VhostSummary, validate_bundle};
pub use identity::{Assigned, assign_vsvc_ids, assign_vsvc_ids_with};

use crate::digest::{Digest, Words};

/// The longest name: a file name's limit on the file systems in use, and room for it in every log line.
pub const MAX_NAME: usize = 255;

/// How names of a fleet's files end: configuration, and the certificates and keys that it names.
pub const ENDINGS: [&str; 5] = [".conf", ".pem", ".crt", ".cer", ".key"];

/// The largest file. A vhost has some kilobytes; a map of a hundred thousand lines has a few megabytes.
pub const MAX_FILE: usize = 8 << 20;

/// The most files: ten thousand vhosts with their upstreams are a fifth of it.
pub const MAX_FILES: usize = 100_000;

/// The largest bundle: what a node can hold in memory beside what it serves.
pub const MAX_BUNDLE: usize = 256 << 20;

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    content: Arc<[u8]>,
    digest: Digest,
}

impl Member {
    /// The bytes; UTF-8 without NUL.
    pub fn content(&self) -> &Arc<[u8]> {
        &self.content
    }

    /// Their SHA-256.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    files: BTreeMap<String, Member>,
    size: usize,
}

/// Why a file may not be in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{name}\" {reason}")]
pub struct InvalidFile {
    /// The name as it was given, made printable.
    pub name: String,
    /// What is wrong with it.
    pub reason: InvalidReason,
}

/// See [`InvalidFile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidReason {
    /// No name.
    EmptyName,
    /// Longer than [`MAX_NAME`].
    LongName,
    /// Begins with `/`.
    Absolute,
    /// A part is empty, `.`, `..`, or begins with a dot (hidden and temporary files).
    BadPart,
    /// Control characters, `\` or what a pattern is made of.
    BadCharacter,
    /// Larger than [`MAX_FILE`].
    TooLarge,
    /// Not UTF-8, or with NUL in it.
    NotText,
    /// One more than [`MAX_FILES`].
    TooMany,
    /// Makes the whole larger than [`MAX_BUNDLE`].
    BundleTooLarge,
    /// It is below a file, or a file is below it.
    FileAndDirectory,
}

impl fmt::Display for InvalidReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyName => f.write_str("is no name"),
            Self::LongName => write!(f, "is longer than {MAX_NAME} bytes"),
            Self::Absolute => f.write_str("is not relative to the configuration's directory"),
            Self::BadPart => f.write_str("has a part that is empty or begins with a dot"),
            Self::BadCharacter => f.write_str("has a control character, a backslash or a character of patterns"),
            Self::TooLarge => write!(f, "has more than {MAX_FILE} bytes"),
            Self::NotText => f.write_str("is not UTF-8 text"),
            Self::TooMany => write!(f, "is one file more than {MAX_FILES}"),
            Self::BundleTooLarge => write!(f, "makes the bundle larger than {MAX_BUNDLE} bytes"),
            Self::FileAndDirectory => f.write_str("is the name of a file and of a directory"),
        }
    }
}

/// Whether a name stays below the configuration's directory.
pub fn check_name(name: &str) -> Result<(), InvalidReason> {
    if name.is_empty() {
        return Err(InvalidReason::EmptyName);
    }
    if name.len() > MAX_NAME {
        return Err(InvalidReason::LongName);
    }
    if name.starts_with('/') {
        return Err(InvalidReason::Absolute);
    }
    if name.chars().any(|c| c.is_control() || "\\*?[".contains(c)) {
        return Err(InvalidReason::BadCharacter);
    }
    if name.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return Err(InvalidReason::BadPart);
    }
    Ok(())
}

impl Bundle {
    /// Adds a file or replaces one.
    pub fn insert(&mut self, name: &[u8], content: impl Into<Arc<[u8]>>) -> Result<(), InvalidFile> {
        let invalid = |reason| InvalidFile { name: String::from_utf8_lossy(name).escape_debug().to_string(), reason };
        let name = std::str::from_utf8(name).map_err(|_| invalid(InvalidReason::BadCharacter))?;
        check_name(name).map_err(invalid)?;
        let content: Arc<[u8]> = content.into();
        if content.len() > MAX_FILE {
            return Err(invalid(InvalidReason::TooLarge));
        }
        if std::str::from_utf8(&content).is_err() || content.contains(&0) {
            return Err(invalid(InvalidReason::NotText));
        }
        let replaced = self.files.get(name).map(|member| member.content.len());
        if replaced.is_none() && self.files.len() == MAX_FILES {
            return Err(invalid(InvalidReason::TooMany));
        }
        let size = self.size - replaced.unwrap_or(0) + content.len();
        if size > MAX_BUNDLE {
            return Err(invalid(InvalidReason::BundleTooLarge));
        }
        if self.is_directory(name) || parents(name).any(|parent| self.files.contains_key(parent)) {
            return Err(invalid(InvalidReason::FileAndDirectory));
        }
        self.size = size;
        let digest = Digest::of(&content);
        self.files.insert(name.to_owned(), Member { content, digest });
        Ok(())
    }

    fn is_directory(&self, name: &str) -> bool {
        let below = format!("{name}/");
        self.files.range(below.clone()..).next().is_some_and(|(first, _)| first.starts_with(&below))
    }

    /// Takes a file away.
    pub fn remove(&mut self, name: &str) -> Option<Member> {
        let member = self.files.remove(name)?;
        self.size -= member.content.len();
        Some(member)
    }

    /// A file.
    pub fn get(&self, name: &str) -> Option<&Member> {
        self.files.get(name)
    }

    /// All files by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.files.iter().map(|(name, member)| (name.as_str(), member))
    }

    /// All bytes of all files.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Of the names and digests of all files.
    pub fn digest(&self) -> Digest {
        self.digest_of(self.files.keys().map(String::as_str))
    }

    /// The same for some of the files, which must be sorted; names that are not there count as such.
    pub fn digest_of<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Digest {
        let mut words = Words::default();
        for name in names {
            words.word(name);
            let digest = self.files.get(name).map(|member| member.digest.to_string());
            words.word(digest.as_deref().unwrap_or(""));
        }
        words.digest()
    }
}

/// `a/b/c` → `a/b`, `a`.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.rmatch_indices('/').map(|(at, _)| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for (name, expected) in [
            ("auto_vhost/a.conf", Ok(())),
            ("common_location.conf", Ok(())),
            ("", Err(InvalidReason::EmptyName)),
            ("/etc/passwd", Err(InvalidReason::Absolute)),
            ("../a", Err(InvalidReason::BadPart)),
            ("a/../b", Err(InvalidReason::BadPart)),
            ("a/./b", Err(InvalidReason::BadPart)),
            ("a//b", Err(InvalidReason::BadPart)),
            ("a/", Err(InvalidReason::BadPart)),
            (".a", Err(InvalidReason::BadPart)),
            ("a\0b", Err(InvalidReason::BadCharacter)),
            ("a\nb", Err(InvalidReason::BadCharacter)),
            ("a*", Err(InvalidReason::BadCharacter)),
            ("a\\b", Err(InvalidReason::BadCharacter)),
            (&*"a".repeat(256), Err(InvalidReason::LongName)),
        ] {
            assert_eq!(check_name(name), expected, "{name:?}");
        }
    }

    #[test]
    fn contents_are_bounded_text() {
        let mut bundle = Bundle::default();
        let mut reason = |name: &[u8], content: &[u8]| bundle.insert(name, content).map_err(|error| error.reason);
        assert_eq!(reason(b"a\xff", b""), Err(InvalidReason::BadCharacter));
        assert_eq!(reason(b"a", b"\xff"), Err(InvalidReason::NotText));
        assert_eq!(reason(b"a", b"\0"), Err(InvalidReason::NotText));
        assert_eq!(reason(b"a", &vec![b' '; MAX_FILE + 1]), Err(InvalidReason::TooLarge));
        assert_eq!(reason(b"a/b", b"1"), Ok(()));
        assert_eq!(reason(b"a", b"1"), Err(InvalidReason::FileAndDirectory));
        assert_eq!(reason(b"a/b/c", b"1"), Err(InvalidReason::FileAndDirectory));
        assert_eq!(reason(b"a/b", b"22"), Ok(()));
        assert_eq!(bundle.size(), 2);
        bundle.remove("a/b");
        assert_eq!(bundle.size(), 0);
    }

    #[test]
    fn digests_tell_sets_apart() {
        let bundle = |files: &[(&str, &str)]| {
            let mut bundle = Bundle::default();
            files.iter().for_each(|(name, text)| bundle.insert(name.as_bytes(), text.as_bytes()).unwrap());
            bundle.digest()
        };
        let one = bundle(&[("a", "1"), ("b", "2")]);
        assert_eq!(one, bundle(&[("b", "2"), ("a", "1")]));
        assert_ne!(one, bundle(&[("a", "2"), ("b", "1")]));
        assert_ne!(one, bundle(&[("a", "1")]));
        assert_ne!(bundle(&[("ab", "")]), bundle(&[("a", "b")]));
    }
}
