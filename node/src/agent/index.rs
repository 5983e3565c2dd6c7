//! What the configuration is made of, file by file: which files hold vhosts and upstreams, which files they share, and
//! which belong to `http` as a whole. Built once, then moved on with each task.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use dysvr_conf::glob;
use dysvr_conf::http::ssl::FILES;
use dysvr_conf::source::Source;
use dysvr_conf::syntax::{self, Directive};

use super::unit::{Unit, included, read, resolved};

/// Files of `http` level that include each other end here.
const MAX_NESTING: usize = 32;

/// The index of a configuration.
#[derive(Debug, Default)]
pub struct Index {
    /// The directory of the main configuration.
    conf_dir: PathBuf,
    /// Where a file must be to become part of `http`: absolute patterns and names.
    patterns: Vec<PathBuf>,
    /// The files that hold vhosts or upstreams.
    units: BTreeMap<PathBuf, Unit>,
    /// Which units a file is part of.
    users: HashMap<PathBuf, BTreeSet<PathBuf>>,
    /// The units that include files by a pattern.
    collectors: BTreeSet<PathBuf>,
    /// Which unit has a vhost.
    ids: HashMap<u64, PathBuf>,
    /// The files that a reload alone reads: the main configuration and what it includes outside of units.
    whole: BTreeSet<PathBuf>,
}

impl Index {
    /// Reads a configuration. A unit that cannot be read is left out and returned with the reason: one bad file must
    /// not keep the agent from all others, least of all from the task that repairs it.
    pub fn build(source: &mut dyn Source, conf: &Path) -> Result<(Self, Vec<String>), String> {
        let conf_dir = conf.parent().unwrap_or(Path::new("/")).to_owned();
        let mut index = Self { conf_dir, ..Self::default() };
        let mut problems = Vec::new();
        index.main(source, conf, &mut problems)?;
        Ok((index, problems))
    }

    fn main(&mut self, source: &mut dyn Source, conf: &Path, problems: &mut Vec<String>) -> Result<(), String> {
        let text = read(source, conf)?;
        let arena = syntax::Arena::new();
        let tree = syntax::parse(&text, &arena);
        if let Some(error) = tree.errors.first() {
            return Err(format!("{} in {}:{}", error.text, conf.display(), error.at.line));
        }
        self.whole.insert(conf.to_owned());
        for directive in tree.directives {
            match (directive.name(), &directive.block) {
                ("http", Some(http)) => self.http(source, http.directives, 0, problems),
                _ => self.outside(source, directive, problems),
            }
        }
        Ok(())
    }

    fn http(
        &mut self,
        source: &mut dyn Source,
        directives: &[Directive<'_>],
        depth: usize,
        problems: &mut Vec<String>,
    ) {
        for directive in directives {
            if directive.name() != "include" || directive.block.is_some() {
                self.outside(source, directive, problems);
                continue;
            }
            let argument = directive.arguments().first().map_or("", |word| word.text);
            self.patterns.push(resolved(&self.conf_dir, argument));
            match included(source, &self.conf_dir, argument) {
                Ok(files) => files.iter().for_each(|file| self.http_file(source, file, depth, problems)),
                Err(why) => problems.push(why),
            }
        }
    }

    /// A file that `http` includes: a unit, or more of `http`.
    fn http_file(&mut self, source: &mut dyn Source, path: &Path, depth: usize, problems: &mut Vec<String>) {
        let text = match read(source, path) {
            Ok(text) => text,
            Err(why) => return problems.push(why),
        };
        let arena = syntax::Arena::new();
        let tree = syntax::parse(&text, &arena);
        let is_named = |d: &Directive<'_>| match d.name() {
            "server" | "upstream" | "map" => d.block.is_some(),
            name => name == "log_format",
        };
        if tree.directives.iter().any(is_named) {
            match Unit::scan(source, &self.conf_dir, path) {
                Ok(unit) => self.set(path, Some(unit)),
                Err(why) => problems.push(why),
            }
            return;
        }
        self.whole.insert(path.to_owned());
        if depth < MAX_NESTING {
            self.http(source, tree.directives, depth + 1, problems);
        }
    }

    /// What stands outside of units: whatever it includes, a reload alone reads.
    fn outside(&mut self, source: &mut dyn Source, directive: &Directive<'_>, problems: &mut Vec<String>) {
        if directive.name() == "include" {
            let argument = directive.arguments().first().map_or("", |word| word.text);
            let files = included(source, &self.conf_dir, argument).unwrap_or_default();
            for file in files {
                if !self.whole.insert(file.clone()) {
                    continue;
                }
                match read(source, &file) {
                    Ok(text) => {
                        let arena = syntax::Arena::new();
                        let tree = syntax::parse(&text, &arena);
                        tree.directives.iter().for_each(|inner| self.outside(source, inner, problems));
                    }
                    Err(why) => problems.push(why),
                }
            }
        }
        if FILES.contains(&directive.name()) {
            let argument = directive.arguments().first().map_or("", |word| word.text);
            self.whole.insert(resolved(&self.conf_dir, argument));
        }
        for inner in directive.block.iter().flat_map(|block| block.directives) {
            self.outside(source, inner, problems);
        }
    }

    /// Puts a unit in the place of what a file was, or takes it out.
    pub fn set(&mut self, path: &Path, unit: Option<Unit>) {
        if let Some(old) = self.units.remove(path) {
            for file in old.parts.keys() {
                if let Some(users) = self.users.get_mut(file) {
                    users.remove(path);
                    if users.is_empty() {
                        self.users.remove(file);
                    }
                }
            }
            self.collectors.remove(path);
            for id in &old.vsvc_ids {
                if self.ids.get(id).is_some_and(|owner| owner == path) {
                    self.ids.remove(id);
                }
            }
        }
        let Some(unit) = unit else { return };
        for file in unit.parts.keys() {
            self.users.entry(file.clone()).or_default().insert(path.to_owned());
        }
        for id in &unit.vsvc_ids {
            self.ids.insert(*id, path.to_owned());
        }
        if !unit.patterns.is_empty() {
            self.collectors.insert(path.to_owned());
        }
        self.units.insert(path.to_owned(), unit);
    }

    /// The directory that names are relative to.
    pub fn conf_dir(&self) -> &Path {
        &self.conf_dir
    }

    /// The unit that a file is.
    pub fn unit(&self, path: &Path) -> Option<&Unit> {
        self.units.get(path)
    }

    /// The units that a file is part of, or may become part of.
    pub fn users(&self, path: &Path) -> impl Iterator<Item = &PathBuf> {
        let users = self.users.get(path);
        let collects = move |unit: &&PathBuf| {
            users.is_none_or(|users| !users.contains(*unit)) && self.units[*unit].may_include(path)
        };
        users.into_iter().flatten().chain(self.collectors.iter().filter(collects))
    }

    /// The file that has a vhost.
    pub fn owner(&self, vsvc_id: u64) -> Option<&Path> {
        self.ids.get(&vsvc_id).map(PathBuf::as_path)
    }

    /// Whether `http` includes a file, or would if it were there.
    pub fn reaches(&self, path: &Path) -> bool {
        self.patterns.iter().any(|pattern| match glob::is_pattern(pattern) {
            true => glob::matches(pattern, path),
            false => pattern == path,
        })
    }

    /// Whether a reload alone reads a file.
    pub fn is_whole(&self, path: &Path) -> bool {
        self.whole.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use dysvr_conf::source::Memory;

    use super::*;

    #[test]
    fn tells_units_from_what_a_reload_alone_reads() {
        let mut memory = Memory::default();
        for (name, text) in [
            (
                "nginx.conf",
                "include modules.conf; http { include mime.types; include conf.d/*.conf; include auto_vhost/*.conf; \
                 server { listen 80; include snippet.conf; } }",
            ),
            ("modules.conf", "worker_processes 1;"),
            ("mime.types", "types {}"),
            ("conf.d/map.conf", "map $a $b { include values.map; }"),
            ("values.map", "a b;"),
            ("snippet.conf", "return 404;"),
            ("auto_vhost/a.conf", "server { vsvc_id 1; include common.conf; }"),
            ("auto_vhost/b.conf", "include auto_upstream/b.conf; server { vsvc_id 2; include common.conf; }"),
            ("auto_vhost/bad.conf", "server {"),
            ("auto_upstream/b.conf", "upstream b {}"),
            ("common.conf", "location / {}"),
        ] {
            memory.insert(format!("/c/{name}"), text);
        }
        let (mut index, problems) = Index::build(&mut memory, Path::new("/c/nginx.conf")).unwrap();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("/c/auto_vhost/bad.conf"), "{problems:?}");
        for whole in ["nginx.conf", "modules.conf", "mime.types", "snippet.conf"] {
            assert!(index.is_whole(&Path::new("/c").join(whole)), "{whole}");
        }
        assert!(!index.is_whole(Path::new("/c/common.conf")));
        let map = Path::new("/c/conf.d/map.conf");
        assert_eq!(index.users(Path::new("/c/values.map")).collect::<Vec<_>>(), [map]);
        let users = |index: &Index| index.users(Path::new("/c/common.conf")).count();
        assert_eq!(users(&index), 2);
        assert_eq!(index.owner(2), Some(Path::new("/c/auto_vhost/b.conf")));
        assert!(index.reaches(Path::new("/c/auto_vhost/new.conf")) && !index.reaches(Path::new("/c/other/new.conf")));
        index.set(Path::new("/c/auto_vhost/b.conf"), None);
        assert_eq!((users(&index), index.owner(2)), (1, None));
        assert_eq!(index.users(Path::new("/c/auto_upstream/b.conf")).count(), 0);
    }
}
