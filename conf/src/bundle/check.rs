//! Whether nodes would accept a bundle, and what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Bundle;
use crate::digest::Digest;
use crate::glob;
use crate::http::ssl::FILES;
use crate::intern::Interner;
use crate::load::{LoadOptions, load};
use crate::model::{UpstreamRef, VsvcId};
use crate::problem::{Place, Problem, Problems};
use crate::source::{NOT_FOUND, Source};
use crate::syntax::{self, Directive};

/// The main configuration file around the bundle, which is not part of it.
const CONF: &str = "/nginx.conf";

/// What nodes are assumed to have around a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumptions {
    /// The include of their `http {}` that reaches the vhosts.
    pub include: String,
    /// Other directives of their `http {}`, as text: log formats, maps.
    pub http: String,
}

impl Default for Assumptions {
    /// `auto_vhost/*.conf` and nothing else.
    fn default() -> Self {
        Self { include: "auto_vhost/*.conf".into(), http: String::new() }
    }
}

/// What an accepted bundle holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// In the order of the configuration.
    pub vhosts: Vec<VhostSummary>,
    /// In the order of the configuration.
    pub upstreams: Vec<UpstreamSummary>,
    /// Files that nothing reaches: they would have no effect.
    pub unreached: Vec<String>,
    /// What nginx says at `warn`.
    pub warnings: Vec<Problem>,
}

/// A vhost of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostSummary {
    /// Its identity, unless it was not given one yet.
    pub vsvc_id: Option<VsvcId>,
    /// Where its `server` stands.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In lower case; `~…` is an expression.
    pub server_names: Vec<String>,
    /// As nginx writes addresses.
    pub listens: Vec<String>,
    /// The `upstream`s that it passes to.
    pub ups_ids: Vec<String>,
    /// The `upstream`s that stand in its file and what that includes.
    pub ups_defined: Vec<String>,
    /// Its file and what that includes, sorted: what must be on a node for it. See [`Bundle::digest_of`].
    pub files: Vec<String>,
    /// What it says.
    pub digest: Digest,
}

/// An upstream of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSummary {
    /// Its `ups_id`.
    pub name: String,
    /// The first word of each `server` line.
    pub peers: Vec<String>,
    /// Where its block stands.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// What it says.
    pub digest: Digest,
}

/// Reads a bundle as a node would, in an `http {}` that includes its vhosts. Places of problems are names of the bundle.
///
/// Host names are not resolved here, since what counts is what nodes find: a name with a dot is taken to exist, and
/// `localhost`; any other must be an `upstream`.
pub fn validate_bundle(bundle: &Bundle, assumptions: &Assumptions) -> Result<Checked, Problems> {
    let options = LoadOptions { conf: CONF.into(), prefix: "/".into(), globals: String::new(), privileged: true };
    let mut source = BundleSource { bundle, conf: main_file(assumptions) };
    let config = load(&options, &mut source, &mut Interner::default())
        .map_err(|problems| Problems(problems.0.into_iter().map(relative).collect()))?;
    let Some(http) = config.http else { return Ok(Checked::default()) };

    let includes = Includes::of(bundle);
    let mut peers = includes.peers;
    let upstreams: Vec<UpstreamSummary> = http
        .upstreams
        .iter()
        .map(|upstream| UpstreamSummary {
            name: upstream.name.to_string(),
            peers: peers.remove(&(name_of(&upstream.place.file), upstream.place.line)).unwrap_or_default(),
            file: name_of(&upstream.place.file),
            line: upstream.place.line,
            digest: upstream.digest,
        })
        .collect();
    let mut by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for upstream in &upstreams {
        by_file.entry(&upstream.file).or_default().push(&upstream.name);
    }
    let mut reached = BTreeSet::new();
    // Which file of the bundle the main file reaches is the first step of the order.
    let mut closures: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut vhosts = Vec::with_capacity(http.vhosts.len());
    for vhost in &http.vhosts {
        let top = vhost.order.0.iter().find_map(|step| step.file.as_deref()).map(name_of).unwrap_or_default();
        let files = closures.entry(top.clone()).or_insert_with(|| closure(&includes.direct, &top));
        reached.extend(files.iter().cloned());
        let defined = files.iter().filter_map(|file| by_file.get(file.as_str())).flatten();
        vhosts.push(VhostSummary {
            vsvc_id: vhost.vsvc_id,
            file: name_of(&vhost.place.file),
            line: vhost.place.line,
            server_names: vhost.names.iter().map(ToString::to_string).collect(),
            listens: vhost.listens.iter().map(|listen| listen.addr.to_string()).collect(),
            ups_ids: vhost
                .upstreams
                .iter()
                .filter_map(|used| match used {
                    UpstreamRef::Named(name) => Some(name.to_string()),
                    UpstreamRef::Implicit(_) => None,
                })
                .collect(),
            ups_defined: defined.map(|name| (*name).to_owned()).collect(),
            files: files.clone(),
            digest: vhost.digest,
        });
    }
    let pattern = Path::new("/").join(&assumptions.include);
    for (name, _) in bundle.files() {
        if glob::matches(&pattern, &path_of(name)) {
            reached.extend(closure(&includes.direct, name));
        }
    }
    let unreached = bundle.files().map(|(name, _)| name).filter(|name| !reached.contains(*name));
    Ok(Checked {
        vhosts,
        upstreams,
        unreached: unreached.map(str::to_owned).collect(),
        warnings: config.warnings.into_iter().map(relative).collect(),
    })
}

fn main_file(assumptions: &Assumptions) -> Arc<[u8]> {
    let Assumptions { include, http } = assumptions;
    format!("events {{}} http {{ {http}\ninclude {include};\n}}\n").into_bytes().into()
}

/// The name in the bundle of an absolute path.
fn name_of(path: &Path) -> String {
    path.strip_prefix("/").unwrap_or(path).to_string_lossy().into_owned()
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

fn relative(problem: Problem) -> Problem {
    let place = problem.place.map(|place| Place { file: Path::new(&name_of(&place.file)).into(), ..place });
    // What is not found is named by its path.
    let marks = [
        "open() \"",
        "used in ",
        "without in ",
        "with in ",
        "certificate \"",
        "certificate key \"",
        "fopen(",
        "PrivateKey(\"",
    ];
    let text = marks.iter().fold(problem.text, |text, mark| text.replace(&format!("{mark}/"), mark));
    Problem { text, place }
}

/// A bundle as a source.
struct BundleSource<'b> {
    bundle: &'b Bundle,
    conf: Arc<[u8]>,
}

impl Source for BundleSource<'_> {
    fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        if path == Path::new(CONF) {
            return Ok(Arc::clone(&self.conf));
        }
        let member = self.bundle.get(&name_of(path)).ok_or_else(|| io::Error::from_raw_os_error(NOT_FOUND))?;
        Ok(Arc::clone(&member.content))
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.bundle.files().map(|(name, _)| path_of(name)).filter(|path| glob::matches(pattern, path)).collect())
    }

    fn resolve(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        let plausible = host == "localhost" || host.trim_end_matches('.').contains('.');
        // An address that leads nowhere (RFC 5737); nobody connects to what is validated.
        let nowhere = Ipv4Addr::new(192, 0, 2, 1);
        if plausible { Ok(vec![nowhere.into()]) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// What the files say about each other.
#[derive(Default)]
struct Includes {
    /// File → files that it includes.
    direct: BTreeMap<String, Vec<String>>,
    /// File and line of an upstream → the first words of its `server` lines.
    peers: BTreeMap<(String, u32), Vec<String>>,
}

impl Includes {
    fn of(bundle: &Bundle) -> Self {
        let mut includes = Self::default();
        for (name, member) in bundle.files() {
            let arena = syntax::Arena::new();
            let tree = syntax::parse(&member.content, &arena);
            let mut direct = Vec::new();
            includes.walk(bundle, name, tree.directives, &mut direct);
            includes.direct.insert(name.to_owned(), direct);
        }
        includes
    }

    fn walk(&mut self, bundle: &Bundle, name: &str, directives: &[Directive<'_>], direct: &mut Vec<String>) {
        for directive in directives {
            match (directive.name(), &directive.block) {
                ("include", None) => {
                    let pattern = path_of(directive.arguments().first().map_or("", |word| word.text));
                    if glob::is_pattern(&pattern) {
                        let names = bundle.files().map(|(name, _)| name);
                        direct.extend(names.filter(|name| glob::matches(&pattern, &path_of(name))).map(str::to_owned));
                    } else {
                        direct.push(name_of(&pattern));
                    }
                }
                (name, None) => {
                    if FILES.contains(&name) {
                        direct.extend(directive.arguments().first().map(|word| name_of(&path_of(word.text))));
                    }
                }
                (kind, Some(block)) => {
                    if kind == "upstream" {
                        let servers = block.directives.iter().filter(|directive| directive.name() == "server");
                        let peers = servers.filter_map(|server| server.arguments().first());
                        let peers = peers.map(|word| word.text.to_string()).collect();
                        self.peers.insert((name.to_owned(), directive.start().line), peers);
                    }
                    self.walk(bundle, name, block.directives, direct);
                }
            }
        }
    }
}

/// A file and all that it includes, sorted.
fn closure(direct: &BTreeMap<String, Vec<String>>, file: &str) -> Vec<String> {
    let mut found = BTreeSet::from([file.to_owned()]);
    let mut open = vec![file.to_owned()];
    while let Some(file) = open.pop() {
        for inner in direct.get(&file).into_iter().flatten() {
            if found.insert(inner.clone()) {
                open.push(inner.clone());
            }
        }
    }
    found.into_iter().collect()
}
