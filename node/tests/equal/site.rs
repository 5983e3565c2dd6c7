//! A site of files that lives in memory, and random tasks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, load};
use dysvr_conf::source::Memory;
use dysvr_node::cycle::{Change, Cycle, Refusal};
use dysvr_node::dysvr::update::change_of;
use dysvr_node::task::{Kind, TaskLine};
use dysvr_proto::id::TaskId;
use rand::RngExt as _;
use rand::rngs::StdRng;

const CONF: &str = "/etc/dysvr/conf/nginx.conf";
/// Files of vhosts; each holds up to two.
const FILES: u64 = 10;
/// Upstreams with a file of their own, which any vhost may use.
const SHARED_UPSTREAMS: u64 = 3;
/// Includes that vhosts share.
const INCLUDES: u64 = 2;

const NAMES: [&str; 14] = [
    "a.example.com",
    "b.example.com",
    "*.example.com",
    ".example.com",
    "*.b.example.com",
    "www.example.*",
    "www.*",
    "~^(?<who>a|b)\\.example\\.com$",
    "~example",
    "~^www\\.",
    "\"\"",
    "_",
    "c.d.e",
    "www.example.org",
];

/// Addresses, wildcards beside exact ones; on the first there is always a vhost.
const LISTENS: [&str; 8] =
    ["80", "81", "127.0.0.1:80", "[::]:80", "82", "127.0.0.1:82", "[::1]:80", "unix:/run/dysvr-equal.sock"];

/// A file, by its name below the folder of the main configuration.
pub type File = (String, Option<String>);

/// The files.
#[derive(Clone, Debug, Default)]
pub struct Site {
    pub files: BTreeMap<String, String>,
    /// More at the top of `http`.
    pub http: String,
}

/// A task: what it makes of which files, and what its line names.
#[derive(Clone, Debug)]
pub struct Task {
    pub kind: Kind,
    pub files: Vec<File>,
    pub vsvc: Vec<u64>,
    pub ups: Vec<String>,
}

impl Task {
    pub fn vsvc_ids(&self) -> &[u64] {
        &self.vsvc
    }

    pub fn ups_ids(&self) -> &[String] {
        &self.ups
    }
}

/// What the `vsvc_id`s and `upstream`s of a text are.
fn ids(text: &str) -> (Vec<u64>, Vec<String>) {
    let after = |line: &str, word: &str| line.trim().strip_prefix(word).map(|rest| rest.trim().to_owned());
    let end = |text: String| text.split([' ', ';']).next().unwrap_or_default().to_owned();
    let vsvc = text.lines().filter_map(|line| end(after(line, "vsvc_id ")?).parse().ok());
    let ups = text.lines().filter_map(|line| Some(end(after(line, "upstream ")?)));
    (vsvc.collect(), ups.collect())
}

impl Site {
    /// Files of `auto_vhost/`.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(name, text)| (format!("auto_vhost/{name}"), (*text).to_owned()));
        Self { files: files.collect(), http: String::new() }
    }

    fn source(&self) -> Memory {
        let mut source = Memory::default();
        let http = &self.http;
        source.insert(
            CONF,
            format!(
                "events {{}} http {{ access_log off; {http} include auto_upstream/*.conf;\n\
                 server {{ listen 80; server_name base; return 404; }}\ninclude auto_vhost/*.conf; }}"
            ),
        );
        for (name, text) in &self.files {
            source.insert(path(name), text);
        }
        for number in 0..INCLUDES {
            let name = format!("common_{number}.conf");
            if !self.files.contains_key(&name) {
                source.insert(path(&name), "");
            }
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
        line.vsvc_ids.clone_from(&task.vsvc);
        line.ups_ids.clone_from(&task.ups);
        // Of what goes nothing is included; of a shared include, those that include it are.
        let mut includes = String::new();
        if task.kind != Kind::Delete {
            let named: BTreeSet<&String> = task.files.iter().map(|(name, _)| name).collect();
            for (name, text) in &self.files {
                let uses = |file: &String| text.contains(&format!("include {file};"));
                if !name.starts_with("common_") && (named.contains(name) || named.iter().any(|file| uses(file))) {
                    let _ = writeln!(includes, "include {};", path(name));
                }
            }
        }
        let mut source = self.source();
        source.insert(&conf, includes);
        change_of(&line, cycle, &mut source, interner)
    }

    /// Something that might be asked for next. Some of it is wrong.
    pub fn random_task(&self, rng: &mut StdRng) -> Task {
        match rng.random_range(0..10) {
            0 => self.upstream_task(rng),
            1 => self.shared_task(rng),
            2 | 3 => self.set_task(rng),
            _ => self.vhost_task(rng),
        }
    }

    /// Adds, modifies or deletes the vhosts of one file, or of several.
    fn vhost_task(&self, rng: &mut StdRng) -> Task {
        let kind = [Kind::Add, Kind::Modify, Kind::Delete][rng.random_range(0..3)];
        let name = |number: u64| format!("auto_vhost/v{number:02}.conf");
        let there = |number: &u64| self.files.contains_key(&name(*number));
        let mut fit: Vec<u64> = (0..FILES).filter(|number| there(number) != (kind == Kind::Add)).collect();
        let count = if rng.random_bool(0.2) { 3 } else { 1 };
        let mut task = Task { kind, files: Vec::new(), vsvc: Vec::new(), ups: Vec::new() };
        for _ in 0..count {
            if fit.is_empty() {
                break;
            }
            let number = fit.swap_remove(rng.random_range(0..fit.len()));
            let old = self.files.get(&name(number));
            let new = (kind != Kind::Delete).then(|| match old {
                // As many vhosts as before: a modify neither adds nor deletes.
                Some(old) => vhost_file(rng, number, ids(old).0.len()),
                None => {
                    let vhosts = rng.random_range(1..=2);
                    vhost_file(rng, number, vhosts)
                }
            });
            task.name(old.filter(|_| kind != Kind::Add));
            task.name(new.as_ref());
            task.files.push((name(number), new));
        }
        if task.files.is_empty() {
            return self.set_task(rng);
        }
        task
    }

    /// Upstreams without vhosts: peers come, go and are weighted anew.
    fn upstream_task(&self, rng: &mut StdRng) -> Task {
        let number = rng.random_range(0..SHARED_UPSTREAMS);
        let name = format!("auto_upstream/s{number}.conf");
        let old = self.files.get(&name);
        let kind = match old {
            None => Kind::Add,
            Some(_) if rng.random_bool(0.2) => Kind::Delete,
            Some(_) => Kind::Modify,
        };
        let new = (kind != Kind::Delete).then(|| upstream(rng, &format!("shared{number}")));
        Task { kind, files: vec![(name, new)], vsvc: Vec::new(), ups: vec![format!("shared{number}")] }
    }

    /// A file that several vhosts include: all of them are made anew.
    fn shared_task(&self, rng: &mut StdRng) -> Task {
        let number = rng.random_range(0..INCLUDES);
        let name = format!("common_{number}.conf");
        let text = format!("add_header X-Common {number}-{};\n", rng.random_range(0..4));
        let mut task =
            Task { kind: Kind::Modify, files: vec![(name.clone(), Some(text))], vsvc: Vec::new(), ups: Vec::new() };
        let users = self.files.values().filter(|text| text.contains(&format!("include {name};")));
        users.for_each(|text| task.name(Some(text)));
        if task.vsvc.is_empty() {
            return self.upstream_task(rng);
        }
        task
    }

    /// Any files become anything, as one change.
    fn set_task(&self, rng: &mut StdRng) -> Task {
        let mut task = Task { kind: Kind::Set, files: Vec::new(), vsvc: Vec::new(), ups: Vec::new() };
        let mut numbers: Vec<u64> = (0..FILES).collect();
        for _ in 0..rng.random_range(1..4) {
            let number = numbers.swap_remove(rng.random_range(0..numbers.len()));
            let name = format!("auto_vhost/v{number:02}.conf");
            let old = self.files.get(&name);
            let new = (old.is_none() || rng.random_bool(0.6)).then(|| {
                let vhosts = rng.random_range(1..=2);
                vhost_file(rng, number, vhosts)
            });
            task.name(old);
            task.name(new.as_ref());
            task.files.push((name, new));
        }
        task
    }
}

impl Task {
    /// Names what stands in a file.
    fn name(&mut self, text: Option<&String>) {
        let (vsvc, ups) = text.map(|text| ids(text)).unwrap_or_default();
        self.vsvc.extend(vsvc);
        self.ups.extend(ups);
        self.vsvc.sort_unstable();
        self.vsvc.dedup();
        self.ups.sort();
        self.ups.dedup();
    }
}

fn path(name: &str) -> String {
    format!("/etc/dysvr/conf/{name}")
}

fn upstream(rng: &mut StdRng, name: &str) -> String {
    let mut text = format!("upstream {name} {{\n");
    for peer in 0..rng.random_range(1..4) {
        let extra = ["", " weight=3", " down", " max_fails=0", " backup"];
        let extra = if peer == 0 { "" } else { extra[rng.random_range(0..extra.len())] };
        let _ = writeln!(text, "    server 127.0.0.1:{}{extra};", 8000 + peer * 10 + rng.random_range(0..3));
    }
    if rng.random_bool(0.3) {
        text.push_str("    keepalive 4;\n");
    }
    text + "}\n"
}

fn vhost_file(rng: &mut StdRng, number: u64, vhosts: usize) -> String {
    let mut text = String::new();
    if rng.random_bool(0.3) {
        text.push_str("# bytes that shift what follows\n");
    }
    for nth in 0..vhosts as u64 {
        vhost(rng, &mut text, number, nth);
    }
    text
}

fn vhost(rng: &mut StdRng, text: &mut String, number: u64, nth: u64) {
    let id = number * 10 + nth + 1;
    let own = rng.random_bool(0.4).then(|| format!("ups{id}"));
    if let Some(name) = &own {
        text.push_str(&upstream(rng, name));
    }
    let _ = writeln!(text, "server {{\n    vsvc_id {id};");
    let mut addresses: Vec<&str> = LISTENS.into_iter().filter(|_| rng.random_bool(0.25)).collect();
    if addresses.is_empty() {
        addresses.push(LISTENS[0]);
    }
    for address in addresses {
        let default = if rng.random_bool(0.1) { " default_server" } else { "" };
        let backlog = if rng.random_bool(0.05) { " backlog=64" } else { "" };
        let _ = writeln!(text, "    listen {address}{default}{backlog};");
    }
    let names: Vec<&str> = NAMES.into_iter().filter(|_| rng.random_bool(0.2)).collect();
    if !names.is_empty() {
        let _ = writeln!(text, "    server_name {};", names.join(" "));
    }
    for include in (0..INCLUDES).filter(|_| rng.random_bool(0.3)) {
        let _ = writeln!(text, "    include common_{include}.conf;");
    }
    let _ = writeln!(text, "    location /a {{ return 200 \"{id} a {}\\n\"; }}", rng.random_range(0..3));
    if rng.random_bool(0.3) {
        let _ = writeln!(text, "    location ~ \\.x$ {{ return 200 \"{id} x $uri\\n\"; }}");
    }
    let behind = match (&own, rng.random_range(0..4)) {
        (Some(name), _) => format!("proxy_pass http://{name}"),
        (None, 0) => format!("proxy_pass http://shared{}", rng.random_range(0..SHARED_UPSTREAMS)),
        (None, 1) => "proxy_pass http://127.0.0.1:8099".to_owned(),
        (None, _) => "return 204".to_owned(),
    };
    let _ = writeln!(text, "    location / {{ {behind}; }}");
    text.push_str("}\n");
}
