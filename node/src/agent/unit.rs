//! What a file that `http` includes holds: its vhosts, its upstreams, and the files that it is made of. Read off the
//! syntax alone; whether it is right is for the master to say.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dysvr_conf::glob;
use dysvr_conf::http::ssl;
use dysvr_conf::source::Source;
use dysvr_conf::syntax::{self, Directive};

/// Includes may be nested this deep: a file that includes itself ends here.
const MAX_NESTING: usize = 32;

/// One file with all that it includes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// The ids of its vhosts, in the order of the text.
    pub vsvc_ids: Vec<u64>,
    /// Where a `server` without a `vsvc_id` stands.
    pub anonymous: Option<String>,
    /// The names of its upstreams.
    pub upstreams: Vec<String>,
    /// The variables that its maps make, in lower case.
    pub maps: Vec<String>,
    /// The names of its log formats.
    pub formats: Vec<String>,
    /// A directive that changes `http` as a whole, with its place.
    pub other: Option<String>,
    /// The file itself and those that it includes.
    pub parts: BTreeMap<PathBuf, Part>,
    /// The patterns by which it includes files: one that comes to be may become a part.
    pub patterns: Vec<PathBuf>,
}

/// One of the files that a unit is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// It is included once, at the level of `http`, and holds nothing but these of the unit's upstreams: they can be
    /// changed without the vhosts around them.
    upstreams: Option<Range<usize>>,
}

impl Unit {
    /// Reads a file and what it includes. The error is a reason in nginx's words.
    pub fn scan(source: &mut dyn Source, conf_dir: &Path, path: &Path) -> Result<Self, String> {
        let mut unit = Self::default();
        let mut scan = Scan { source, conf_dir, unit: &mut unit, others: 0 };
        scan.file(path, Level::Http, 0)?;
        Ok(unit)
    }

    /// The upstreams of a part that holds nothing else, and at least one.
    pub fn upstreams_alone(&self, part: &Path) -> Option<&[String]> {
        let range = self.parts.get(part)?.upstreams.clone()?;
        self.upstreams.get(range).filter(|names| !names.is_empty())
    }

    /// Whether a file would be a part if it were there.
    pub fn may_include(&self, path: &Path) -> bool {
        self.patterns.iter().any(|pattern| glob::matches(pattern, path))
    }

    /// Whether it holds what a task can name; otherwise it belongs to `http` as a whole.
    pub fn has_blocks(&self) -> bool {
        let vhosts = !self.vsvc_ids.is_empty() || self.anonymous.is_some();
        vhosts || !self.upstreams.is_empty() || !self.maps.is_empty() || !self.formats.is_empty()
    }
}

/// The path that an `include` means: `./x` and `x` are one file.
pub fn resolved(conf_dir: &Path, argument: &str) -> PathBuf {
    conf_dir.join(argument).components().collect()
}

/// The files that an `include` names.
pub fn included(source: &mut dyn Source, conf_dir: &Path, argument: &str) -> Result<Vec<PathBuf>, String> {
    let path = resolved(conf_dir, argument);
    if glob::is_pattern(&path) {
        return source.glob(&path).map_err(|e| format!("include {argument}: {e}"));
    }
    Ok(vec![path])
}

/// The content of a file.
pub fn read(source: &mut dyn Source, path: &Path) -> Result<Arc<[u8]>, String> {
    source.read(path).map_err(|e| format!("open() \"{}\" failed ({e})", path.display()))
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Http,
    Server,
    Below,
}

struct Scan<'s> {
    source: &'s mut dyn Source,
    conf_dir: &'s Path,
    unit: &'s mut Unit,
    /// Directives of `http` level so far that are neither `upstream` nor `include`.
    others: usize,
}

impl Scan<'_> {
    /// Gives the `vsvc_id` that stands in it at server level.
    fn file(&mut self, path: &Path, level: Level, depth: usize) -> Result<Option<u64>, String> {
        if depth > MAX_NESTING {
            return Err(format!("includes are nested too deep in {}", path.display()));
        }
        let text = read(self.source, path)?;
        let arena = syntax::Arena::new();
        let tree = syntax::parse(&text, &arena);
        if let Some(error) = tree.errors.first() {
            return Err(format!("{} in {}:{}", error.text, path.display(), error.at.line));
        }
        // Noted before what it includes, which may be the file itself.
        let first = match self.unit.parts.entry(path.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(Part::default());
                true
            }
            Entry::Occupied(mut entry) => {
                entry.get_mut().upstreams = None;
                false
            }
        };
        let (upstreams, others) = (self.unit.upstreams.len(), self.others);
        let vsvc_id = self.directives(tree.directives, path, level, depth)?;
        if first && level == Level::Http && others == self.others {
            let range = upstreams..self.unit.upstreams.len();
            self.unit.parts.insert(path.to_owned(), Part { upstreams: Some(range) });
        }
        Ok(vsvc_id)
    }

    fn directives(
        &mut self,
        directives: &[Directive<'_>],
        path: &Path,
        level: Level,
        depth: usize,
    ) -> Result<Option<u64>, String> {
        let mut vsvc_id = None;
        for directive in directives {
            let argument = directive.arguments().first().map_or("", |word| word.text);
            let place = || format!("{}:{}", path.display(), directive.start().line);
            if level == Level::Http && !matches!(directive.name(), "upstream" | "include") {
                self.others += 1;
            }
            match (directive.name(), &directive.block, level) {
                ("include", None, _) => {
                    let pattern = resolved(self.conf_dir, argument);
                    if glob::is_pattern(&pattern) && !self.unit.patterns.contains(&pattern) {
                        self.unit.patterns.push(pattern);
                    }
                    for file in included(self.source, self.conf_dir, argument)? {
                        vsvc_id = self.file(&file, level, depth + 1)?.or(vsvc_id);
                    }
                }
                ("server", Some(block), Level::Http) => {
                    match self.directives(block.directives, path, Level::Server, depth)? {
                        Some(id) => self.unit.vsvc_ids.push(id),
                        None => self.unit.anonymous = Some(place()),
                    }
                }
                ("upstream", Some(_), Level::Http) => self.unit.upstreams.push(argument.to_owned()),
                ("map", Some(block), Level::Http) => {
                    let variable = directive.arguments().get(1).map_or("", |word| word.text);
                    self.unit.maps.push(variable.trim_start_matches('$').to_ascii_lowercase());
                    self.directives(block.directives, path, Level::Below, depth)?;
                }
                ("log_format", None, Level::Http) => self.unit.formats.push(argument.to_owned()),
                (name, None, Level::Server | Level::Below) if ssl::FILES.contains(&name) => {
                    self.unit.parts.entry(resolved(self.conf_dir, argument)).or_default();
                }
                (name, _, Level::Http) => self.unit.other = Some(format!("\"{name}\" in {}", place())),
                ("vsvc_id", None, Level::Server) => {
                    let id = argument.parse().map_err(|_| format!("invalid vsvc_id \"{argument}\" in {}", place()))?;
                    vsvc_id = Some(id);
                }
                (_, Some(block), _) => {
                    self.directives(block.directives, path, Level::Below, depth)?;
                }
                _ => {}
            }
        }
        Ok(vsvc_id)
    }
}

#[cfg(test)]
mod tests {
    use dysvr_conf::source::Memory;

    use super::*;

    fn scan(list: &[(&str, &str)]) -> Result<Unit, String> {
        let mut memory = Memory::default();
        for (name, text) in list {
            memory.insert(format!("/c/{name}"), text);
        }
        Unit::scan(&mut memory, Path::new("/c"), Path::new("/c/auto_vhost/a.conf"))
    }

    #[test]
    fn sees_vhosts_upstreams_and_the_files_behind_them() {
        let unit = scan(&[
            (
                "auto_vhost/a.conf",
                "include auto_upstream/a.conf;\nserver { vsvc_id 7; ssl_certificate certs/a.pem; location / { include deep/*.conf; } }\n\
                 server { include id.conf; }",
            ),
            ("auto_upstream/a.conf", "upstream u1 { server 127.0.0.1:1; }"),
            ("deep/x.conf", "return 404;"),
            ("id.conf", "vsvc_id 8;"),
        ])
        .unwrap();
        assert_eq!((unit.vsvc_ids.as_slice(), unit.upstreams.as_slice()), (&[7, 8][..], &["u1".to_owned()][..]));
        assert_eq!((unit.anonymous.as_ref(), unit.other.as_ref()), (None, None));
        let closure: Vec<_> = unit.parts.keys().map(|path| path.to_str().unwrap()).collect();
        let certificate = "/c/certs/a.pem";
        assert_eq!(
            closure,
            ["/c/auto_upstream/a.conf", "/c/auto_vhost/a.conf", certificate, "/c/deep/x.conf", "/c/id.conf"]
        );
        let alone = |path: &str| unit.upstreams_alone(Path::new(path));
        assert_eq!(alone("/c/auto_upstream/a.conf"), Some(&["u1".to_owned()][..]));
        assert_eq!((alone("/c/auto_vhost/a.conf"), alone("/c/deep/x.conf"), alone("/c/absent")), (None, None, None));
    }

    #[test]
    fn knows_which_parts_hold_upstreams_alone() {
        let unit = scan(&[
            ("auto_vhost/a.conf", "include one.conf; include more.conf; include twice.conf; include twice.conf;"),
            ("one.conf", "upstream u1 {} upstream u2 { include peers.conf; }"),
            ("peers.conf", "server 127.0.0.1:1;"),
            ("more.conf", "upstream u3 {} include one_more.conf; server { vsvc_id 1; }"),
            ("one_more.conf", "upstream u4 {}"),
            ("twice.conf", "upstream u5 {}"),
        ])
        .unwrap();
        let alone = |name: &str| unit.upstreams_alone(&Path::new("/c").join(name)).map(|names| names.join(" "));
        assert_eq!(alone("one.conf").as_deref(), Some("u1 u2"));
        assert_eq!(alone("one_more.conf").as_deref(), Some("u4"));
        for name in ["auto_vhost/a.conf", "peers.conf", "more.conf", "twice.conf"] {
            assert_eq!(alone(name), None, "{name}");
        }
    }

    #[test]
    fn sees_definitions_and_the_files_behind_them() {
        let unit = scan(&[
            ("auto_vhost/a.conf", "log_format f $b; map $a $B { include values.map; default include; }"),
            ("values.map", "a b;"),
        ])
        .unwrap();
        assert_eq!((unit.maps.as_slice(), unit.formats.as_slice()), (&["b".to_owned()][..], &["f".to_owned()][..]));
        assert!(unit.has_blocks() && unit.other.is_none() && unit.parts.contains_key(Path::new("/c/values.map")));
    }

    #[test]
    fn sees_what_cannot_go_in_place() {
        let unit = scan(&[("auto_vhost/a.conf", "access_log off;\nserver {\n}\n")]).unwrap();
        assert_eq!(unit.other.as_deref(), Some("\"access_log\" in /c/auto_vhost/a.conf:1"));
        assert_eq!(unit.anonymous.as_deref(), Some("/c/auto_vhost/a.conf:2"));
    }

    #[test]
    fn odd_files_are_refused_with_their_place() {
        for (text, error) in [
            ("include absent.conf;", "open() \"/c/absent.conf\" failed (No such file or directory (os error 2))"),
            ("server { vsvc_id x; }", "invalid vsvc_id \"x\" in /c/auto_vhost/a.conf:1"),
            ("include auto_vhost/a.conf;", "includes are nested too deep in /c/auto_vhost/a.conf"),
        ] {
            assert_eq!(scan(&[("auto_vhost/a.conf", text)]).unwrap_err(), error);
        }
        let torn = scan(&[("auto_vhost/a.conf", "server {\nvsvc_id 7;\n")]).unwrap_err();
        assert!(torn.starts_with("unexpected end of file") && torn.contains("/c/auto_vhost/a.conf:"), "{torn}");
    }
}
