//! The files that a pattern reaches, by listing folders: one pass over each folder and no question per file.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use dysvr_conf::glob::{is_pattern, name_matches};

/// What matches a pattern, sorted by name as bytes. As with glob(3) a folder that cannot be listed holds nothing.
pub(super) fn matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    // Whether what was found so far exists: a name that was listed does, one that stands in the pattern need not.
    let mut exists = true;
    for component in pattern.components() {
        let name = component.as_os_str();
        if is_pattern(Path::new(name)) {
            let mut deeper = Vec::new();
            for folder in &found {
                list(folder, name, &mut deeper);
            }
            found = deeper;
            exists = true;
        } else {
            let name = unescaped(name);
            found.iter_mut().for_each(|path| path.push(&name));
            exists = false;
        }
    }
    if !exists {
        found.retain(|path| fs::symlink_metadata(path).is_ok());
    }
    found.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(found)
}

/// Adds the names in a folder that match.
fn list(folder: &Path, pattern: &OsStr, found: &mut Vec<PathBuf>) {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = fs::read_dir(here) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name_matches(pattern.as_bytes(), name.as_bytes()) {
            // In one piece: `join` would grow the copy of the folder's name.
            let mut path = Vec::with_capacity(folder.as_os_str().len() + 1 + name.len());
            path.extend_from_slice(folder.as_os_str().as_bytes());
            if path.last().is_some_and(|byte| *byte != b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            found.push(PathBuf::from(std::ffi::OsString::from_vec(path)));
        }
    }
}

/// A name without the backslashes that take the meaning from what follows them.
fn unescaped(name: &OsStr) -> PathBuf {
    let mut bytes = name.as_bytes().iter();
    let mut plain = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (b'\\', Some(next)) => {
                plain.push(*next);
                bytes.next();
            }
            _ => plain.push(*byte),
        }
    }
    std::ffi::OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["a/1.conf", "a/2.conf", "a/2.con", "a/.3.conf", "b/1.conf", "b/x*y/1.conf", "b/xzy/1.conf"] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", root.join("a/4.conf")).unwrap();
        for (pattern, expected) in [
            ("a/*.conf", vec!["a/1.conf", "a/2.conf", "a/4.conf"]),
            ("*/1.conf", vec!["a/1.conf", "b/1.conf"]),
            ("a/*", vec!["a/1.conf", "a/2.con", "a/2.conf", "a/4.conf"]),
            ("a/.*.conf", vec!["a/.3.conf"]),
            ("a/[0-1].conf", vec!["a/1.conf"]),
            ("*/x?y/*", vec!["b/x*y/1.conf", "b/xzy/1.conf"]),
            ("*/x\\*y/*", vec!["b/x*y/1.conf"]),
            ("**/2.conf", vec!["a/2.conf"]),
            ("c/*", vec![]),
            ("a/1.conf/*", vec![]),
        ] {
            let expected: Vec<PathBuf> = expected.iter().map(|name| root.join(name)).collect();
            assert_eq!(matching(&root.join(pattern)).unwrap(), expected, "{pattern}");
        }
    }
}
