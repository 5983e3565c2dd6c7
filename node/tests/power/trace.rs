//! What a program did to files, read off strace's lines: the operations in their order, with the bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One operation. Files are numbered, since names come and go.
#[derive(Clone, Debug)]
pub enum Op {
    /// A name is given to a file, a new one or (by a rename, which takes the other name away) one that has a name.
    Name { path: PathBuf, file: usize, from: Option<PathBuf> },
    /// A name goes.
    Unlink(PathBuf),
    /// A file's bytes change.
    Write { file: usize, at: usize, bytes: Vec<u8> },
    /// A file's length changes.
    Truncate { file: usize, len: usize },
    /// A file's bytes, as they were after the first `since` operations, are on the disk.
    SyncFile { file: usize, since: usize },
    /// The names in a folder, as they were then, are on the disk.
    SyncFolder { path: PathBuf, since: usize },
    /// Standard output says something.
    Tell(String),
    /// Somebody is signalled.
    Signal,
}

/// The files that had a name when it began, numbered, and what happened.
#[derive(Debug, Default)]
pub struct Trace {
    /// Names before.
    pub before: BTreeMap<PathBuf, usize>,
    /// In their order.
    pub ops: Vec<Op>,
}

impl Trace {
    /// Reads the lines; files outside of `folders` are left out. Another thread's calls may come between the beginning and the
    /// end of one: it has happened when it has ended, and a sync that long makes durable what was there when it began.
    pub fn read(text: &str, folders: &[&Path], before: impl Iterator<Item = PathBuf>) -> Self {
        let mut trace = Self { before: before.zip(0..).collect(), ops: Vec::new() };
        let (mut names, mut next) = (trace.before.clone(), trace.before.len());
        let mut offsets: BTreeMap<usize, usize> = BTreeMap::new();
        let inside = |path: &Path| folders.iter().any(|folder| path.starts_with(folder));
        // Of each thread, the call that it is in, and how many operations there were when that began.
        let mut begun: BTreeMap<&str, (String, usize)> = BTreeMap::new();
        for line in text.lines() {
            let Some((thread, line)) = line.split_once(' ') else { continue };
            let (mut line, mut since) = (line.trim_start().to_owned(), trace.ops.len());
            if let Some(call) = line.strip_suffix(" <unfinished ...>") {
                begun.insert(thread, (call.to_owned(), since));
                continue;
            }
            if line.starts_with("<... ") {
                let (call, end) = (begun.remove(thread), line.split_once(" resumed>"));
                let ((call, at), (_, end)) = call.zip(end).expect("what goes on has begun");
                (line, since) = (call + end, at);
            }
            let Some((call, rest)) = line.split_once('(') else { continue };
            if rest.contains(") = -1 ") {
                continue;
            }
            let of = fd_path(rest);
            let file = of.as_ref().and_then(|path| names.get(path)).copied();
            let texts = strings(rest);
            match call {
                "openat" => {
                    let path = PathBuf::from(String::from_utf8(texts[0].clone()).unwrap());
                    if rest.contains("O_CREAT") && inside(&path) && !names.contains_key(&path) {
                        names.insert(path.clone(), next);
                        trace.ops.push(Op::Name { path, file: next, from: None });
                        next += 1;
                    } else if rest.contains("O_TRUNC")
                        && let Some(&file) = names.get(&path)
                    {
                        offsets.insert(file, 0);
                        trace.ops.push(Op::Truncate { file, len: 0 });
                    }
                }
                "write" if rest.starts_with("1<") => {
                    trace.ops.push(Op::Tell(String::from_utf8_lossy(&texts[0]).into_owned()));
                }
                "write" | "pwrite64" => {
                    let Some(file) = file else { continue };
                    let end = offsets.entry(file).or_default();
                    let at = if call == "write" { *end } else { last_number(rest) };
                    *end = at + texts[0].len();
                    trace.ops.push(Op::Write { file, at, bytes: texts[0].clone() });
                }
                "ftruncate" => {
                    let Some(file) = file else { continue };
                    trace.ops.push(Op::Truncate { file, len: last_number(rest) });
                }
                "rename" => {
                    let mut paths = texts.iter().map(|text| PathBuf::from(String::from_utf8(text.clone()).unwrap()));
                    let (from, path) = (paths.next().unwrap(), paths.next().unwrap());
                    if let Some(file) = names.remove(&from) {
                        names.insert(path.clone(), file);
                        trace.ops.push(Op::Name { path, file, from: Some(from) });
                    }
                }
                "unlink" => {
                    let path = PathBuf::from(String::from_utf8(texts[0].clone()).unwrap());
                    if names.remove(&path).is_some() {
                        trace.ops.push(Op::Unlink(path));
                    }
                }
                "fsync" | "fdatasync" => match (file, of) {
                    (Some(file), _) => trace.ops.push(Op::SyncFile { file, since }),
                    (None, Some(path)) => trace.ops.push(Op::SyncFolder { path, since }),
                    (None, None) => {}
                },
                "pidfd_send_signal" => trace.ops.push(Op::Signal),
                _ => {}
            }
        }
        trace
    }
}

/// `12</path>, …`
fn fd_path(args: &str) -> Option<PathBuf> {
    let (number, rest) = args.split_once('<')?;
    let is_fd = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_fd.then(|| PathBuf::from(rest.split('>').next().unwrap_or_default()))
}

/// The number before `) = `.
fn last_number(args: &str) -> usize {
    let (args, _) = args.rsplit_once(") ").unwrap();
    args.rsplit(", ").next().unwrap().trim().parse().unwrap()
}

/// The strings among the arguments, as bytes.
fn strings(args: &str) -> Vec<Vec<u8>> {
    let (mut found, bytes, mut at) = (Vec::new(), args.as_bytes(), 0);
    while let Some(start) = bytes[at..].iter().position(|&b| b == b'"').map(|start| at + start + 1) {
        let mut text = Vec::new();
        at = start;
        while bytes[at] != b'"' {
            if bytes[at] != b'\\' {
                text.push(bytes[at]);
                at += 1;
                continue;
            }
            let escaped = bytes[at + 1];
            at += 2;
            text.push(match escaped {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'v' => 11,
                b'f' => 12,
                b'0'..=b'7' => {
                    let digits = 1 + bytes[at..].iter().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                    let octal = std::str::from_utf8(&bytes[at - 1..at - 1 + digits]).unwrap();
                    at += digits - 1;
                    u32::from_str_radix(octal, 8).unwrap() as u8
                }
                other => other,
            });
        }
        assert!(!args[at..].starts_with("\"..."), "a string was cut off");
        found.push(text);
        at += 1;
    }
    found
}
