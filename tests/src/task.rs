//! The task file from outside: a line as an operator writes it, and waiting for its verdict.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use inotify::{Inotify, WatchMask};

/// `type=` of a task line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 0
    Add,
    /// 1
    Delete,
    /// 2
    Modify,
    /// 3
    Set,
}

/// One task line, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Keys and values; the value of `reason` without its quotes.
    pub fields: BTreeMap<String, String>,
}

impl Line {
    /// A line in the state `I`.
    pub fn text(kind: Kind, conf: &Path, vsvc_ids: &[u64], ups_ids: &[&str], task_id: u64) -> String {
        let ids: Vec<String> = vsvc_ids.iter().map(u64::to_string).collect();
        let mut line = format!("type={} conf={}", kind as u8, conf.display());
        if !ids.is_empty() {
            line.push_str(&format!(" vsvc_ids={}", ids.join(",")));
        }
        if !ups_ids.is_empty() {
            line.push_str(&format!(" ups_ids={}", ups_ids.join(",")));
        }
        line + &format!(" task_id={task_id} status=I")
    }

    /// Reads a line.
    pub fn parse(text: &str) -> Self {
        let mut fields = BTreeMap::new();
        let mut rest = text.trim();
        while let Some((key, tail)) = rest.split_once('=') {
            let (value, tail) = match tail.strip_prefix('"') {
                Some(quoted) => unquote(quoted),
                None => tail.split_once(' ').map_or((tail.to_owned(), ""), |(value, tail)| (value.to_owned(), tail)),
            };
            fields.insert(key.trim().to_owned(), value);
            rest = tail.trim_start();
        }
        Self { fields }
    }

    /// `task_id`.
    pub fn task_id(&self) -> Option<u64> {
        self.fields.get("task_id")?.parse().ok()
    }

    /// The status letter.
    pub fn status(&self) -> Option<char> {
        self.fields.get("status")?.chars().next()
    }

    /// Why it failed.
    pub fn reason(&self) -> &str {
        self.fields.get("reason").map_or("", String::as_str)
    }
}

/// The value up to its closing quote, and what follows.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// The task file of one proxy.
#[derive(Clone, Debug)]
pub struct TaskFile {
    /// Where it is.
    pub path: PathBuf,
}

impl TaskFile {
    /// Replaces the file as a whole: written beside, then renamed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, text: &str) -> Result<()> {
        let beside = self.path.with_extension("conf.new");
        fs::write(&beside, text).with_context(|| format!("writing {}", beside.display()))?;
        fs::rename(&beside, &self.path).with_context(|| format!("replacing {}", self.path.display()))
    }

    /// All lines now; none when there is no file.
    pub fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().filter(|line| !line.trim().is_empty()).map(Line::parse).collect()
    }

    /// Watches for replacements from now on. Start it before the signal.
    ///
    /// # Errors
    /// When the directory cannot be watched.
    pub fn watch(&self) -> Result<Watch> {
        let inotify = Inotify::init().context("starting inotify")?;
        let directory = self.path.parent().context("the task file has no directory")?;
        let mask = WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::MODIFY;
        inotify.watches().add(directory, mask).with_context(|| format!("watching {}", directory.display()))?;
        Ok(Watch { file: self.clone(), inotify })
    }
}

/// A running watch of a task file.
#[derive(Debug)]
pub struct Watch {
    file: TaskFile,
    inotify: Inotify,
}

/// How a task ended.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Its last line.
    pub line: Line,
    /// `D`, or `F` with a reason.
    pub done: bool,
    /// When it was seen.
    pub at: Instant,
}

impl Watch {
    /// Waits until the task has ended in `D` or `F`.
    ///
    /// # Errors
    /// After `limit`, with the lines as they are then.
    pub fn verdict(&mut self, task_id: u64, limit: Duration) -> Result<Verdict> {
        let begin = Instant::now();
        let mut buffer = [0; 4096];
        loop {
            let lines = self.file.lines();
            if let Some(line) = lines.iter().find(|line| line.task_id() == Some(task_id))
                && let Some(letter @ ('D' | 'F')) = line.status()
            {
                return Ok(Verdict { line: line.clone(), done: letter == 'D', at: Instant::now() });
            }
            let Some(left) = limit.checked_sub(begin.elapsed()) else {
                bail!("task {task_id} has no verdict after {limit:?}: {lines:?}");
            };
            let timeout = nix::poll::PollTimeout::try_from(left).unwrap_or(nix::poll::PollTimeout::MAX);
            let descriptor = std::os::fd::AsFd::as_fd(&self.inotify);
            let mut poll = [nix::poll::PollFd::new(descriptor, nix::poll::PollFlags::POLLIN)];
            if nix::poll::poll(&mut poll, timeout).context("waiting for the task file")? > 0 {
                let _ = self.inotify.read_events(&mut buffer).context("reading what changed")?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_line_is_what_we_write() {
        let conf = "/usr/local/services/nginx_install-1.0/l7_nginx/common/dysvr_25208.conf";
        let line = Line::text(Kind::Add, Path::new(conf), &[131_942], &["1074728"], 25_208);
        assert_eq!(line, crate::seed::TASK_LINE.trim());
        let read = Line::parse(&(line.replace("status=I", "status=F") + " reason=\"no \\\"such\\\" file\" later=1"));
        assert_eq!((read.task_id(), read.status(), read.reason()), (Some(25_208), Some('F'), "no \"such\" file"));
        assert_eq!(read.fields["later"], "1");
    }
}
