//! What may lie on a disk when the machine goes down: what was synced, and of the rest any part.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::trace::{Op, Trace};

/// Names and contents.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// More operations than this are not waiting for a sync at once.
const MAX_OPEN: usize = 10;

/// Reads the files of some folders (and none of folders within).
pub fn read(folders: &[&Path]) -> Files {
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    paths.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Makes the folders hold these files and no others.
pub fn write(folders: &[&Path], files: &Files) {
    for path in read(folders).keys().filter(|path| !files.contains_key(*path)) {
        fs::remove_file(path).unwrap();
    }
    for (path, content) in files {
        fs::write(path, content).unwrap();
    }
}

/// Each state of the disk that is possible after the first `cut` operations.
pub fn possible(trace: &Trace, before: &Files, cut: usize) -> Vec<Files> {
    let ops = &trace.ops[..cut];
    let is_safe = |(at, op): (usize, &Op)| {
        // A sync that had begun before does not count.
        let mut later = ops[at..].iter();
        match op {
            Op::Write { file, .. } | Op::Truncate { file, .. } => {
                later.any(|op| matches!(op, Op::SyncFile { file: synced, since } if synced == file && *since > at))
            }
            Op::Name { path, .. } | Op::Unlink(path) => {
                let parent = path.parent();
                later.any(
                    |op| matches!(op, Op::SyncFolder { path, since } if Some(path.as_path()) == parent && *since > at),
                )
            }
            _ => true,
        }
    };
    let safe: Vec<bool> = ops.iter().enumerate().map(is_safe).collect();
    let open: Vec<usize> = (0..cut).filter(|&at| !safe[at]).collect();
    assert!(open.len() <= MAX_OPEN, "{} operations wait for a sync", open.len());
    let took = |taken: usize| {
        let takes = |at: usize| safe[at] || open.iter().position(|&o| o == at).is_some_and(|bit| taken & 1 << bit != 0);
        let mut names = trace.before.clone();
        let mut contents: BTreeMap<usize, Vec<u8>> =
            trace.before.iter().map(|(path, &file)| (file, before[path].clone())).collect();
        for op in (0..cut).filter(|&at| takes(at)).map(|at| &ops[at]) {
            match op {
                Op::Name { path, file, from } => {
                    if let Some(from) = from
                        && names.get(from) == Some(file)
                    {
                        names.remove(from);
                    }
                    names.insert(path.clone(), *file);
                }
                Op::Unlink(path) => drop(names.remove(path)),
                Op::Write { file, at, bytes } => {
                    let content = contents.entry(*file).or_default();
                    content.resize(content.len().max(at + bytes.len()), 0);
                    content[*at..at + bytes.len()].copy_from_slice(bytes);
                }
                Op::Truncate { file, len } => contents.entry(*file).or_default().resize(*len, 0),
                Op::SyncFile { .. } | Op::SyncFolder { .. } | Op::Tell(_) | Op::Signal => {}
            }
        }
        names.into_iter().map(|(path, file)| (path, contents.get(&file).cloned().unwrap_or_default())).collect()
    };
    let mut states: Vec<Files> = (0..1 << open.len()).map(took).collect();
    states.sort();
    states.dedup();
    states
}
