//! One task: what a line of the task file says, and the line that says it.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dysvr_proto::id::{Revision, TaskId};
use dysvr_proto::status::{self, Status};
use rustc_hash::{FxBuildHasher, FxHashSet};

use super::word;

/// What a task does with its vhosts and upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `type=0`: they are new.
    Add,
    /// `type=1`: they go; the configuration file holds nothing but comments.
    Delete,
    /// `type=2`: they are there and change.
    Modify,
    /// `type=3`: they become what the configuration file says, as one change: what it holds is added or replaced, what it
    /// does not hold goes.
    Set,
}

impl Kind {
    /// The number of `type=`.
    pub fn number(self) -> u64 {
        match self {
            Self::Add => 0,
            Self::Delete => 1,
            Self::Modify => 2,
            Self::Set => 3,
        }
    }
}

impl fmt::Display for Kind {
    /// As the original's log names them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add_server",
            Self::Delete => "del_server",
            Self::Modify => "mod_server",
            Self::Set => "set_server",
        })
    }
}

/// `mode=`: by which way the task takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `in_place`: the dysvr path.
    InPlace,
    /// `reload`: the master answers the line with its next full reload (SIGHUP) and does nothing in place.
    Reload,
}

impl Mode {
    /// As it stands in the line.
    pub fn name(self) -> &'static str {
        match self {
            Self::InPlace => status::Mode::InPlace.name(),
            Self::Reload => status::Mode::Reload.name(),
        }
    }
}

/// One worker's share of an update, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerTime {
    /// Its process id.
    pub pid: u32,
    /// Parse, compile, check.
    pub prepare_us: u64,
    /// Flip.
    pub commit_us: u64,
}

/// The keys that have a meaning, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "named as they are written")]
pub enum Key {
    Type,
    ServerType,
    Conf,
    VsvcIds,
    UpsIds,
    Maps,
    Formats,
    Ports,
    Mode,
    Revision,
    TaskId,
    Status,
    Reason,
    MasterUs,
    Workers,
}

impl Key {
    const ALL: [Self; 15] = [
        Self::Type,
        Self::ServerType,
        Self::Conf,
        Self::VsvcIds,
        Self::UpsIds,
        Self::Maps,
        Self::Formats,
        Self::Ports,
        Self::Mode,
        Self::Revision,
        Self::TaskId,
        Self::Status,
        Self::Reason,
        Self::MasterUs,
        Self::Workers,
    ];

    /// As it stands in the line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::ServerType => "server_type",
            Self::Conf => "conf",
            Self::VsvcIds => "vsvc_ids",
            Self::UpsIds => "ups_ids",
            Self::Maps => "maps",
            Self::Formats => "formats",
            Self::Ports => "ports",
            Self::Mode => "mode",
            Self::Revision => "revision",
            Self::TaskId => "task_id",
            Self::Status => "status",
            Self::Reason => "reason",
            Self::MasterUs => "master_us",
            Self::Workers => "workers",
        }
    }
}

/// A word that this version does not know. It is kept where it stood and otherwise ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// The known key that it follows; `None` at the head of the line.
    pub after: Option<Key>,
    /// Its key.
    pub key: String,
    /// Its value, unquoted.
    pub value: String,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskLine {
    /// `type`.
    pub kind: Kind,
    /// `conf`: an absolute path. A name of the form `dysvr_<number>.conf` carries the task's own number.
    pub conf: PathBuf,
    /// `vsvc_ids`: none twice.
    pub vsvc_ids: Vec<u64>,
    /// `ups_ids`: names of upstreams, none twice.
    pub ups_ids: Vec<String>,
    /// `maps`: the variables that maps make, without `$`, none twice.
    pub maps: Vec<String>,
    /// `formats`: names of `log_format`s, none twice.
    pub formats: Vec<String>,
    /// `ports`: none twice.
    pub ports: Vec<u16>,
    /// `mode`; absent is in place.
    pub mode: Option<Mode>,
    /// `revision`: the fleet's revision that the task belongs to.
    pub revision: Option<Revision>,
    /// `task_id`, never 0.
    pub task_id: TaskId,
    /// `status`.
    pub status: Status,
    /// `reason`: there when the status is `F`, and only then.
    pub reason: Option<String>,
    /// `master_us`: how long the master took from the signal to its verdict, microseconds.
    pub master_us: Option<u64>,
    /// `workers`: `PID:PREPARE_US:COMMIT_US,…`.
    pub workers: Vec<WorkerTime>,
    /// Words that this version does not know.
    pub extra: Vec<Extra>,
}

impl TaskLine {
    /// A task at its beginning (`I`) that touches nothing yet.
    pub fn new(kind: Kind, task_id: TaskId, conf: PathBuf) -> Self {
        Self {
            kind,
            conf,
            vsvc_ids: Vec::new(),
            ups_ids: Vec::new(),
            maps: Vec::new(),
            formats: Vec::new(),
            ports: Vec::new(),
            mode: None,
            revision: None,
            task_id,
            status: Status::Init,
            reason: None,
            master_us: None,
            workers: Vec::new(),
            extra: Vec::new(),
        }
    }

    /// The name of a task's configuration file.
    pub fn conf_name(task_id: TaskId) -> String {
        format!("dysvr_{task_id}.conf")
    }

    /// Moves the task on: any status but `F`.
    pub fn set_status(&mut self, status: Status) {
        self.status = status;
        self.reason = None;
    }

    /// Ends the task with its cause.
    pub fn fail(&mut self, reason: impl Into<String>) {
        self.status = Status::Failed;
        self.reason = Some(reason.into());
    }

    /// Reads one line that is neither empty nor a comment.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut known: [Option<String>; Key::ALL.len()] = Default::default();
        let mut extra: Vec<Extra> = Vec::new();
        let mut after = None;
        let mut rest = text;
        while let Some(word) = word::next(&mut rest)? {
            match Key::ALL.into_iter().find(|key| key.name() == word.key) {
                Some(key) => {
                    if known[key as usize].replace(word.value).is_some() {
                        return Err(format!("duplicate key {}", word.key));
                    }
                    after = Some(key);
                }
                None if extra.iter().any(|e| e.key == word.key) => return Err(format!("duplicate key {}", word.key)),
                None => extra.push(Extra { after, key: word.key.to_owned(), value: word.value }),
            }
        }
        let mut take = |key: Key| known[key as usize].take();
        let kind = match required(Key::Type, take(Key::Type))?.as_str() {
            "0" => Kind::Add,
            "1" => Kind::Delete,
            "2" => Kind::Modify,
            "3" => Kind::Set,
            other => {
                let other = other.escape_debug();
                return Err(format!("type={other} is none of 0 (add), 1 (delete), 2 (modify), 3 (set)"));
            }
        };
        if let Some(other) = take(Key::ServerType).filter(|value| value != "0") {
            return Err(format!("server_type={} is not supported: only 0 (http) is", other.escape_debug()));
        }
        let conf = PathBuf::from(required(Key::Conf, take(Key::Conf))?);
        let task_id = TaskId(number(Key::TaskId, &required(Key::TaskId, take(Key::TaskId))?)?);
        check_conf(&conf, task_id)?;
        let letter = required(Key::Status, take(Key::Status))?;
        let status = Status::from_letter(&letter)
            .ok_or_else(|| format!("unknown status {} (U), none of I, R, L, F, D", letter.escape_debug()))?;
        let reason = take(Key::Reason);
        match (&reason, status) {
            (None, Status::Failed) => return Err("status=F has no reason".into()),
            (Some(reason), Status::Failed) if reason.is_empty() => return Err("status=F has an empty reason".into()),
            (None, _) | (Some(_), Status::Failed) => {}
            (Some(_), _) => return Err(format!("status={status} has a reason, which only F has")),
        }
        // `server_type` is not written back (0 is the default), so what followed it follows `type`.
        for extra in &mut extra {
            if extra.after == Some(Key::ServerType) {
                extra.after = Some(Key::Type);
            }
        }
        extra.sort_by_key(|extra| extra.after);
        Ok(Self {
            kind,
            conf,
            vsvc_ids: list(Key::VsvcIds, take(Key::VsvcIds), |item| number(Key::VsvcIds, item))?,
            ups_ids: list(Key::UpsIds, take(Key::UpsIds), |item| Ok(item.to_owned()))?,
            maps: list(Key::Maps, take(Key::Maps), |item| Ok(item.to_owned()))?,
            formats: list(Key::Formats, take(Key::Formats), |item| Ok(item.to_owned()))?,
            ports: list(Key::Ports, take(Key::Ports), |item| number(Key::Ports, item))?,
            mode: take(Key::Mode).map(|value| mode(&value)).transpose()?,
            revision: take(Key::Revision).map(|value| number(Key::Revision, &value).map(Revision)).transpose()?,
            task_id,
            status,
            reason,
            master_us: take(Key::MasterUs).map(|value| number(Key::MasterUs, &value)).transpose()?,
            workers: list(Key::Workers, take(Key::Workers), worker)?,
            extra,
        })
    }

    /// What is asked, without what is answered, in the one way to write it.
    pub fn asked(&self) -> String {
        self.written(|key| !matches!(key, Key::Mode | Key::Status | Key::Reason | Key::MasterUs | Key::Workers))
    }

    fn written(&self, has: impl Fn(Key) -> bool) -> String {
        let mut line = String::new();
        let extras = |line: &mut String, after: Option<Key>| {
            for extra in self.extra.iter().filter(|extra| extra.after == after) {
                word::push(line, &extra.key, &extra.value);
            }
        };
        extras(&mut line, None);
        for key in Key::ALL {
            if let Some(value) = self.value(key).filter(|_| has(key)) {
                word::push(&mut line, key.name(), &value);
            }
            extras(&mut line, Some(key));
        }
        line
    }

    fn value(&self, key: Key) -> Option<String> {
        match key {
            Key::Type => Some(self.kind.number().to_string()),
            Key::ServerType => None,
            Key::Conf => Some(self.conf.to_string_lossy().into_owned()),
            Key::VsvcIds => joined(&self.vsvc_ids),
            Key::UpsIds => joined(&self.ups_ids),
            Key::Maps => joined(&self.maps),
            Key::Formats => joined(&self.formats),
            Key::Ports => joined(&self.ports),
            Key::Mode => self.mode.map(|mode| mode.name().to_owned()),
            Key::Revision => self.revision.map(|revision| revision.to_string()),
            Key::TaskId => Some(self.task_id.to_string()),
            Key::Status => Some(self.status.to_string()),
            Key::Reason => self.reason.clone(),
            Key::MasterUs => self.master_us.map(|us| us.to_string()),
            Key::Workers => joined(&self.workers),
        }
    }
}

impl fmt::Display for TaskLine {
    /// The line, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written(|_| true))
    }
}

impl fmt::Display for WorkerTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.pid, self.prepare_us, self.commit_us)
    }
}

fn required(key: Key, value: Option<String>) -> Result<String, String> {
    value.ok_or_else(|| format!("{} is missing", key.name()))
}

/// A plain decimal: no sign, no leading zero, so that a number has one spelling.
fn number<T: FromStr>(key: Key, text: &str) -> Result<T, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let refuse = || format!("{}={} is not a number or too large", key.name(), text.escape_debug());
    if plain { text.parse().map_err(|_| refuse()) } else { Err(refuse()) }
}

fn list<T: PartialEq>(
    key: Key,
    value: Option<String>,
    item: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let count = value.bytes().filter(|byte| *byte == b',').count() + 1;
    let mut items = Vec::with_capacity(count);
    let (mut rises, mut last) = (true, "");
    for text in value.split(',') {
        if text.is_empty() {
            return Err(format!("{} has an empty item (an empty list is written by leaving the key out)", key.name()));
        }
        rises &= (last.len(), last) < (text.len(), text);
        last = text;
        items.push(item(text)?);
    }
    // Where they rise, as they mostly do, none stands there twice.
    if !rises {
        let mut seen = FxHashSet::with_capacity_and_hasher(count, FxBuildHasher);
        if let Some(twice) = value.split(',').find(|text| !seen.insert(*text)) {
            return Err(format!("{} has {} twice", key.name(), twice.escape_debug()));
        }
    }
    Ok(items)
}

fn joined<T: fmt::Display>(items: &[T]) -> Option<String> {
    let (first, others) = items.split_first()?;
    let mut text = first.to_string();
    for item in others {
        // Into a string nothing but memory can fail.
        let _ = write!(text, ",{item}");
    }
    Some(text)
}

fn mode(text: &str) -> Result<Mode, String> {
    [Mode::InPlace, Mode::Reload]
        .into_iter()
        .find(|mode| mode.name() == text)
        .ok_or_else(|| format!("mode={} is none of in_place, reload", text.escape_debug()))
}

fn worker(text: &str) -> Result<WorkerTime, String> {
    let mut parts = text.split(':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(pid), Some(prepare), Some(commit), None) => Ok(WorkerTime {
            pid: number(Key::Workers, pid)?,
            prepare_us: number(Key::Workers, prepare)?,
            commit_us: number(Key::Workers, commit)?,
        }),
        _ => Err(format!("workers has {}, which is not PID:PREPARE_US:COMMIT_US", text.escape_debug())),
    }
}

/// The configuration's path is absolute, and a name of the usual form carries the task's own number: a flipped digit in
/// either of the two is noticed.
fn check_conf(conf: &Path, task_id: TaskId) -> Result<(), String> {
    if task_id == TaskId(0) {
        return Err("task_id=0 is not a task".into());
    }
    if !conf.is_absolute() {
        return Err(format!("conf={} is not an absolute path", conf.to_string_lossy().escape_debug()));
    }
    let name = conf.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let carried = name.strip_prefix("dysvr_").and_then(|name| name.strip_suffix(".conf"));
    match carried {
        Some(id) if id.bytes().all(|b| b.is_ascii_digit()) && id != task_id.to_string() => {
            Err(format!("conf={name} does not belong to task_id={task_id}"))
        }
        _ => Ok(()),
    }
}
