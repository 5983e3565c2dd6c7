//! The files that a history is about, and random tasks for them. Listens name 127.0.0.1, so that a copy can name another
//! address.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use dysvr_tests::origin::Origin;
use dysvr_tests::ports;
use dysvr_tests::task::Kind;
use dysvr_tests::tls::Pair;
use rand::RngExt as _;
use rand::rngs::StdRng;

/// Files below conf/ by their names.
pub type Files = BTreeMap<String, String>;

/// What many vhosts include, and the map that all may use.
const COMMON: &str = "common.conf";
const MAP: &str = "auto_vhost/000_map.conf";

/// Files of vhosts, of up to two each.
const FILES: u64 = 8;

/// Places for certificates.
const PLACES: usize = 2;

const NAMES: [&str; 9] =
    ["a.example", "b.example", "*.example", ".b.example", "www.*", "~^(?<one>[ab])\\.", "~test$", "\"\"", "c.test"];

/// Ports and origins, which stay.
pub struct World {
    /// The last one is mostly TLS, the others plain.
    pub ports: [u16; 4],
    origins: [Origin; 2],
    pairs: Vec<Pair>,
}

/// A task: what it makes of which files, and what its line names.
#[derive(Debug)]
pub struct Task {
    pub kind: Kind,
    files: BTreeMap<String, Option<String>>,
    pub vsvc: BTreeSet<u64>,
    pub ups: BTreeSet<String>,
    pub maps: Vec<&'static str>,
}

impl Task {
    fn new(kind: Kind) -> Self {
        Self { kind, files: BTreeMap::new(), vsvc: BTreeSet::new(), ups: BTreeSet::new(), maps: Vec::new() }
    }

    /// The files once it is done.
    pub fn after(&self, files: &Files) -> Files {
        let mut after = files.clone();
        for (name, text) in &self.files {
            match text {
                Some(text) => after.insert(name.clone(), text.clone()),
                None => after.remove(name),
            };
        }
        after
    }

    /// The files that its configuration includes: of shared ones, those that name them.
    pub fn includes<'f>(&'f self, after: &'f Files) -> impl Iterator<Item = &'f String> {
        let touched = move |name: &String, text: &str| {
            let mut shared = self.files.keys().filter(|file| !file.starts_with("auto_"));
            self.files.contains_key(name) || shared.any(|file| text.contains(file.as_str()))
        };
        let includes = after.iter().filter(move |(name, text)| name.starts_with("auto_") && touched(name, text));
        includes.filter(|_| self.kind != Kind::Delete).map(|(name, _)| name)
    }

    fn names(&mut self, text: &str) {
        for line in text.lines() {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["vsvc_id", id] => self.vsvc.extend(id.trim_end_matches(';').parse::<u64>().ok()),
                ["upstream", name, ..] => drop(self.ups.insert((*name).to_owned())),
                _ => {}
            }
        }
    }

    fn becomes(&mut self, files: &Files, name: String, new: Option<String>) {
        files.get(&name).into_iter().chain(&new).for_each(|text| self.names(text));
        self.files.insert(name, new);
    }
}

fn file_of(number: u64) -> String {
    format!("auto_vhost/v{number}.conf")
}

impl World {
    pub fn new() -> Result<Self> {
        let pairs = (0..=PLACES).map(|_| Pair::new("a.example")).collect::<Result<_>>()?;
        Ok(Self {
            ports: [ports::free()?, ports::free()?, ports::free()?, ports::free()?],
            origins: [Origin::start("one")?, Origin::start("two")?],
            pairs,
        })
    }

    /// Which of its certificates this is.
    pub fn shown(&self, der: &[u8]) -> Option<usize> {
        self.pairs.iter().position(|pair| pair.der == der)
    }

    fn certificate(&self, place: usize, pair: usize) -> [(String, String); 2] {
        let pair = &self.pairs[pair];
        let name = |ending: &str| format!("certs/{place}.{ending}");
        [(name("pem"), pair.certificate.clone()), (name("key"), pair.key.clone())]
    }

    /// What is there before the first task.
    pub fn first_files(&self) -> Files {
        let mut files: Files = (0..PLACES).flat_map(|place| self.certificate(place, place)).collect();
        files.insert(COMMON.to_owned(), common(0));
        files.insert(MAP.to_owned(), map(0));
        files
    }

    /// Something that might be asked for next. Some of it is wrong.
    pub fn random_task(&self, rng: &mut StdRng, files: &Files) -> Task {
        let (there, free): (Vec<u64>, Vec<u64>) = (0..FILES).partition(|number| files.contains_key(&file_of(*number)));
        let one = |rng: &mut StdRng, of: &[u64]| of[rng.random_range(0..of.len())];
        let count = |text: &str| text.matches("vsvc_id").count() as u64;
        match rng.random_range(0..12) {
            0 => self.shared(files, [(COMMON.to_owned(), common(rng.random_range(1..9)))]),
            1 => self.shared(files, self.certificate(rng.random_range(0..PLACES), rng.random_range(0..=PLACES))),
            2 => {
                let mut task = Task::new(Kind::Modify);
                task.maps.push("kind");
                task.becomes(files, MAP.to_owned(), Some(map(rng.random_range(1..9))));
                Some(task)
            }
            3..6 if !free.is_empty() => {
                let (number, mut task) = (one(rng, &free), Task::new(Kind::Add));
                let vhosts = rng.random_range(1..=2);
                task.becomes(files, file_of(number), Some(self.vhosts(rng, number, vhosts)));
                Some(task)
            }
            6..8 if !there.is_empty() => {
                let (number, mut task) = (one(rng, &there), Task::new(Kind::Modify));
                let text = self.vhosts(rng, number, count(&files[&file_of(number)]));
                task.becomes(files, file_of(number), Some(text));
                Some(task)
            }
            8 if !there.is_empty() => {
                let mut task = Task::new(Kind::Delete);
                task.becomes(files, file_of(one(rng, &there)), None);
                Some(task)
            }
            _ => None,
        }
        .unwrap_or_else(|| {
            let (mut task, mut numbers) = (Task::new(Kind::Set), (0..FILES).collect::<Vec<_>>());
            for _ in 0..rng.random_range(1..=3) {
                let number = numbers.swap_remove(rng.random_range(0..numbers.len()));
                let (stays, vhosts) = (rng.random_bool(0.7), rng.random_range(1..=2));
                let text = (stays || !there.contains(&number)).then(|| self.vhosts(rng, number, vhosts));
                task.becomes(files, file_of(number), text);
            }
            task
        })
    }

    /// Shared files become others, for all vhosts that name one; `None` if there are none.
    fn shared<const N: usize>(&self, files: &Files, new: [(String, String); N]) -> Option<Task> {
        let mut task = Task::new(Kind::Modify);
        let uses = |text: &str| new.iter().any(|(name, _)| text.contains(name));
        files.values().filter(|text| uses(text)).for_each(|text| task.names(text));
        task.files.extend(new.into_iter().map(|(name, text)| (name, Some(text))));
        (!task.vsvc.is_empty()).then_some(task)
    }

    fn vhosts(&self, rng: &mut StdRng, number: u64, vhosts: u64) -> String {
        (0..vhosts).map(|nth| self.vhost(rng, number * 10 + nth + 1)).collect()
    }

    fn vhost(&self, rng: &mut StdRng, id: u64) -> String {
        let mut text = String::new();
        let up = self.origins[rng.random_range(0..2)].addr;
        let _ = writeln!(text, "upstream u{id} {{ server {up}; keepalive 2; }}\nserver {{\n    vsvc_id {id};");
        let mut ports: Vec<(u16, bool)> = self.ports.into_iter().zip([false, false, false, true]).collect();
        ports.retain(|_| rng.random_bool(0.35));
        if ports.is_empty() {
            ports.push((self.ports[0], false));
        }
        for (port, tls) in &mut ports {
            // Now and then the other way, which is wrong unless nobody else is there.
            *tls ^= rng.random_bool(0.02);
            let ssl = if *tls { " ssl" } else { "" };
            let default = if rng.random_bool(0.1) { " default_server" } else { "" };
            let _ = writeln!(text, "    listen 127.0.0.1:{port}{ssl}{default};");
        }
        // Without one, a vhost must not be the default server.
        if ports.iter().any(|(_, tls)| *tls) && rng.random_bool(0.9) {
            let place = rng.random_range(0..PLACES);
            let _ =
                writeln!(text, "    ssl_certificate certs/{place}.pem;\n    ssl_certificate_key certs/{place}.key;");
        }
        let names: Vec<&str> = NAMES.into_iter().filter(|_| rng.random_bool(0.25)).collect();
        if !names.is_empty() {
            let _ = writeln!(text, "    server_name {};", names.join(" "));
        }
        if rng.random_bool(0.4) {
            let _ = writeln!(text, "    include {COMMON};");
        }
        let version = rng.random_range(0..100);
        let _ = writeln!(
            text,
            "    location / {{ return 200 \"{id} v{version} $scheme $server_name\"; }}\n    \
             location /map {{ return 200 \"{id} $kind\"; }}\n    \
             location /up {{ proxy_set_header X-Vhost {id}-{version}; proxy_pass http://u{id}; }}"
        );
        if rng.random_bool(0.5) {
            let _ = writeln!(text, "    location /away {{ rewrite ^ /gone/{version} redirect; }}");
        }
        text + "}\n"
    }
}

fn common(version: u32) -> String {
    format!("add_header X-Worker $pid always;\nadd_header X-Common {version} always;\n")
}

fn map(version: u32) -> String {
    format!(
        "map $host $kind {{\n    default none-{version};\n    ~^a first-{version};\n    *.example some-{version};\n    hostnames;\n}}\n"
    )
}
