//! A site of files that lives in memory, and what a task makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::LoadOptions;
use dysvr_conf::source::Memory;
use dysvr_node::cycle::{Change, Cycle, Refusal, load};
use dysvr_node::dysvr::update::change_of;
use dysvr_node::task::{Kind, TaskLine};
use dysvr_proto::id::TaskId;

use super::{texts, tls};

const CONF: &str = "/etc/dysvr/conf/nginx.conf";

/// Includes that vhosts share.
pub const INCLUDES: usize = 2;

/// A file, by its name below the folder of the main configuration.
pub type File = (String, Option<String>);

/// The files.
#[derive(Clone, Debug, Default)]
pub struct Site {
    pub files: BTreeMap<String, String>,
    /// More at the top of `http`.
    pub http: String,
}

/// What a text, or a task line, names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub vsvc: BTreeSet<u64>,
    pub ups: BTreeSet<String>,
    pub maps: BTreeSet<String>,
    pub formats: BTreeSet<String>,
}

impl Names {
    /// Those that stand in a text, by the first words of its lines.
    pub fn of(text: &str) -> Self {
        let mut names = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                ["vsvc_id", id, ..] => names.vsvc.extend(id.parse::<u64>().ok()),
                ["upstream", name, ..] => drop(names.ups.insert((*name).to_owned())),
                ["map", _, name, ..] => drop(names.maps.insert(name.trim_start_matches('$').to_owned())),
                ["log_format", name, ..] => drop(names.formats.insert((*name).to_owned())),
                _ => {}
            }
        }
        names
    }

    /// With those of another text.
    pub fn add(&mut self, text: Option<&String>) {
        let more = text.map(|text| Self::of(text)).unwrap_or_default();
        self.vsvc.extend(more.vsvc);
        self.ups.extend(more.ups);
        self.maps.extend(more.maps);
        self.formats.extend(more.formats);
    }
}

/// A task: what it makes of which files, and what its line names.
#[derive(Clone, Debug)]
pub struct Task {
    pub kind: Kind,
    pub files: Vec<File>,
    pub names: Names,
}

impl Task {
    pub fn new(kind: Kind) -> Self {
        Self { kind, files: Vec::new(), names: Names::default() }
    }

    /// What kind of task it is, roughly: to see which ones a history has had.
    pub fn shape(&self) -> (u64, [usize; 4]) {
        let Names { vsvc, ups, maps, formats } = &self.names;
        (self.kind.number(), [vsvc.len(), ups.len(), maps.len(), formats.len()].map(|count| count.min(2)))
    }
}

/// Whether a file is part of others, and none of the main configuration's own.
fn is_shared(name: &str) -> bool {
    !name.starts_with("auto_")
}

fn path(name: &str) -> String {
    format!("/etc/dysvr/conf/{name}")
}

impl Site {
    /// Files of `auto_vhost/`.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(name, text)| (format!("auto_vhost/{name}"), (*text).to_owned()));
        Self { files: files.collect(), http: String::new() }
    }

    /// The maps and log formats that vhosts may use.
    pub fn definitions(&self) -> Names {
        let mut names = Names::default();
        self.files.iter().filter(|(name, _)| name.starts_with("auto_map/")).for_each(|(_, text)| names.add(Some(text)));
        names
    }

    fn source(&self) -> Memory {
        let mut source = Memory::default();
        let http = &self.http;
        source.insert(
            CONF,
            format!(
                "events {{}} http {{ access_log off; {http} include auto_map/*.conf; include auto_upstream/*.conf;\n\
                 server {{ listen 80; server_name base; return 404; }}\ninclude auto_vhost/*.conf; }}"
            ),
        );
        let first = (0..INCLUDES).map(|number| (texts::include_file(number), String::new()));
        for (name, text) in first.chain(tls::files()).filter(|(name, _)| !self.files.contains_key(name)) {
            source.insert(path(&name), text);
        }
        for (name, text) in &self.files {
            source.insert(path(name), text);
        }
        source
    }

    /// A fresh load.
    pub fn load(&self) -> Result<Cycle, String> {
        let options =
            LoadOptions { conf: CONF.into(), prefix: "/etc/dysvr".into(), globals: String::new(), privileged: true };
        let conf =
            load(&options, &mut self.source(), &mut Interner::default()).map_err(|problems| problems.to_string())?;
        Cycle::load(conf).map_err(|refusal| refusal.to_string())
    }

    /// The files once a task is done.
    pub fn after(&self, task: &Task) -> Self {
        let mut after = self.clone();
        for (name, text) in &task.files {
            match text {
                Some(text) => after.files.insert(name.clone(), text.clone()),
                None => after.files.remove(name),
            };
        }
        after
    }

    /// The change that the task is; these are the files after it.
    pub fn change(&self, cycle: &Cycle, interner: &mut Interner, task: &Task, id: u64) -> Result<Change, Refusal> {
        let conf = PathBuf::from(format!("/run/dysvr_{id}.conf"));
        let mut line = TaskLine::new(task.kind, TaskId(id), conf.clone());
        let Names { vsvc, ups, maps, formats } = task.names.clone();
        line.vsvc_ids.extend(vsvc);
        line.ups_ids.extend(ups);
        line.maps.extend(maps);
        line.formats.extend(formats);
        // Of what goes nothing is included; of a shared file, those that name it are.
        let mut includes = String::new();
        if task.kind != Kind::Delete {
            let named: BTreeSet<&String> = task.files.iter().map(|(name, _)| name).collect();
            for (name, text) in self.files.iter().filter(|(name, _)| !is_shared(name)) {
                let uses = |file: &String| is_shared(file) && text.contains(file.as_str());
                if named.contains(name) || named.iter().any(|file| uses(file)) {
                    let _ = writeln!(includes, "include {};", path(name));
                }
            }
        }
        let mut source = self.source();
        source.insert(&conf, includes);
        change_of(&line, cycle, &mut source, interner, None)
    }
}
