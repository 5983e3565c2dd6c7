//! What a set of managed files holds, and whether nodes would accept it. `dysvr_conf` decides; it is what nodes read
//! their files with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use dysvr_conf::bundle::{Assumptions, Bundle, validate_bundle};
use dysvr_conf::glob;

use super::files::Files;
use super::shape::Shape;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The managed file; empty when it is about no file.
    pub file: String,
    /// From 1; 0 when it is about the file as a whole.
    pub line: u32,
    /// In nginx's words.
    pub text: String,
}

/// A vhost of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostInfo {
    /// Its identity, unless it was not given one yet.
    pub vsvc_id: Option<u64>,
    /// As they are written.
    pub server_names: Vec<String>,
    /// As they are written.
    pub listens: Vec<String>,
    /// The upstreams that it passes to; known only if the files have no problems.
    pub ups_ids: Vec<String>,
    /// Where it stands.
    pub file: String,
    /// From 1.
    pub line: u32,
}

/// An upstream of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamInfo {
    /// Its name.
    pub ups_id: String,
    /// The first word of each `server` line.
    pub servers: Vec<String>,
    /// Where it stands.
    pub file: String,
    /// From 1.
    pub line: u32,
}

/// A set of files that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// In the order of their files.
    pub vhosts: Vec<VhostInfo>,
    /// In the order of their files.
    pub upstreams: Vec<UpstreamInfo>,
    /// The includes of each file, as they are written.
    pub includes: BTreeMap<String, Vec<String>>,
    /// All that is wrong, in the order of files and lines; none: nodes accept it.
    pub problems: Vec<Problem>,
    /// What nginx says at `warn`.
    pub warnings: Vec<Problem>,
    /// Files that no include reaches; known only if the files have no problems.
    pub unreached: BTreeSet<String>,
}

impl Checked {
    /// The vhosts of one file.
    pub fn vhosts_in(&self, file: &str) -> &[VhostInfo] {
        let from = self.vhosts.partition_point(|vhost| vhost.file.as_str() < file);
        let count = self.vhosts[from..].partition_point(|vhost| vhost.file == file);
        &self.vhosts[from..from + count]
    }

    /// The upstreams of one file.
    pub fn upstreams_in(&self, file: &str) -> &[UpstreamInfo] {
        let from = self.upstreams.partition_point(|upstream| upstream.file.as_str() < file);
        let count = self.upstreams[from..].partition_point(|upstream| upstream.file == file);
        &self.upstreams[from..from + count]
    }

    /// The managed files that `name` includes, directly and through others, itself left out.
    pub fn closure<'a>(&'a self, name: &str) -> Vec<&'a str> {
        let mut found: Vec<&str> = Vec::new();
        let mut open = vec![name];
        while let Some(next) = open.pop() {
            for pattern in self.includes.get(next).into_iter().flatten() {
                let path = Path::new(pattern);
                let plain = self.includes.get_key_value(pattern).map(|(file, _)| file);
                let wild = glob::is_pattern(path);
                let matched = self.includes.keys().filter(|file| wild && glob::matches(path, Path::new(file)));
                for file in plain.into_iter().chain(matched) {
                    if file != name && !found.contains(&file.as_str()) {
                        found.push(file);
                        open.push(file);
                    }
                }
            }
        }
        found
    }
}

/// Reads and checks a whole set of files, in what nodes are assumed to have around them.
pub fn check(files: &Files, assumptions: &Assumptions) -> Checked {
    let mut checked = Checked::default();
    let mut bundle = Bundle::default();
    for (name, content) in files {
        let shape = Shape::of(name, &content.bytes);
        checked.vhosts.extend(shape.vhosts);
        checked.upstreams.extend(shape.upstreams);
        checked.includes.insert(name.clone(), shape.includes);
        if let Err(error) = bundle.insert(name.as_bytes(), Arc::<[u8]>::from(&content.bytes[..])) {
            checked.problems.push(Problem { file: name.clone(), line: 0, text: error.to_string() });
        }
    }
    match validate_bundle(&bundle, assumptions) {
        Err(problems) => checked.problems.extend(problems.0.into_iter().map(problem)),
        Ok(found) => {
            let mut passed: BTreeMap<_, _> =
                found.vhosts.into_iter().map(|vhost| ((vhost.file, vhost.line), vhost.ups_ids)).collect();
            for vhost in &mut checked.vhosts {
                vhost.ups_ids = passed.remove(&(vhost.file.clone(), vhost.line)).unwrap_or_default();
            }
            checked.unreached = found.unreached.into_iter().collect();
            checked.warnings = found.warnings.into_iter().map(problem).collect();
        }
    }
    checked.problems.sort();
    checked.problems.dedup();
    checked
}

fn problem(problem: dysvr_conf::problem::Problem) -> Problem {
    let (file, line) =
        problem.place.map_or_else(Default::default, |place| (place.file.to_string_lossy().into_owned(), place.line));
    Problem { file, line, text: problem.text }
}
