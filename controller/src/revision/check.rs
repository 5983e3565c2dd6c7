//! What a set of managed files holds, and whether nodes would accept it.

use std::collections::BTreeMap;

use super::files::{Content, Files, MAX_FILE, invalid_name};
use super::scan::{Directive, scan};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The managed file.
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
    /// The upstreams that it passes to.
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
}

/// Reads and checks a whole set of files.
pub fn check(files: &Files) -> Checked {
    let mut checked = Checked::default();
    for (name, content) in files {
        read(name, content, &mut checked);
    }
    twice(&mut checked);
    checked.problems.sort();
    checked.problems.dedup();
    checked
}

fn read(name: &str, content: &Content, checked: &mut Checked) {
    let mut problem = |line: u32, text: String| checked.problems.push(Problem { file: name.to_owned(), line, text });
    if let Some(text) = invalid_name(name) {
        return problem(0, text.to_owned());
    }
    if content.bytes.len() > MAX_FILE {
        return problem(0, format!("the file has {} bytes, the limit is {MAX_FILE}", content.bytes.len()));
    }
    let Ok(text) = std::str::from_utf8(&content.bytes) else {
        return problem(0, "the file is not UTF-8 text".to_owned());
    };
    let top = match scan(text) {
        Ok(top) => top,
        Err((line, text)) => return problem(line, text),
    };
    let mut includes = Vec::new();
    collect_includes(&top, &mut includes);
    checked.includes.insert(name.to_owned(), includes);
    for directive in &top {
        match (directive.name(), &directive.block) {
            ("server", Some(block)) => checked.vhosts.push(vhost(name, directive, block)),
            ("upstream", Some(block)) => checked.upstreams.push(UpstreamInfo {
                ups_id: directive.words.get(1).cloned().unwrap_or_default(),
                servers: first_words(block, "server"),
                file: name.to_owned(),
                line: directive.line,
            }),
            _ => {}
        }
    }
}

fn vhost(file: &str, directive: &Directive, block: &[Directive]) -> VhostInfo {
    let words =
        |name: &'static str| block.iter().filter(move |d| d.name() == name).flat_map(|d| d.words.iter().skip(1));
    let mut ups_ids = Vec::new();
    collect_passes(block, &mut ups_ids);
    VhostInfo {
        vsvc_id: words("vsvc_id").next().and_then(|id| id.parse().ok()),
        server_names: words("server_name").cloned().collect(),
        listens: first_words(block, "listen"),
        ups_ids,
        file: file.to_owned(),
        line: directive.line,
    }
}

fn first_words(block: &[Directive], name: &str) -> Vec<String> {
    block.iter().filter(|d| d.name() == name).filter_map(|d| d.words.get(1).cloned()).collect()
}

fn collect_includes(directives: &[Directive], found: &mut Vec<String>) {
    for directive in directives {
        match &directive.block {
            Some(block) => collect_includes(block, found),
            None if directive.name() == "include" => found.extend(directive.words.get(1).cloned()),
            None => {}
        }
    }
}

fn collect_passes(directives: &[Directive], found: &mut Vec<String>) {
    for directive in directives {
        match &directive.block {
            Some(block) => collect_passes(block, found),
            None if directive.name() == "proxy_pass" => {
                let url = directive.words.get(1).map_or("", String::as_str);
                let host = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or("");
                if !host.is_empty() && !host.contains(['$', ':']) && !found.iter().any(|id| id == host) {
                    found.push(host.to_owned());
                }
            }
            None => {}
        }
    }
}

/// Identities that two blocks claim.
fn twice(checked: &mut Checked) {
    let mut ids = BTreeMap::new();
    for vhost in &checked.vhosts {
        if let Some(id) = vhost.vsvc_id
            && let Some((file, line)) = ids.insert(id, (vhost.file.clone(), vhost.line))
        {
            let text = format!("duplicate vsvc_id {id}, it is already in {file}:{line}");
            checked.problems.push(Problem { file: vhost.file.clone(), line: vhost.line, text });
        }
    }
    let mut names = BTreeMap::new();
    for upstream in &checked.upstreams {
        if let Some((file, line)) = names.insert(upstream.ups_id.clone(), (upstream.file.clone(), upstream.line)) {
            let text = format!("duplicate upstream \"{}\", it is already in {file}:{line}", upstream.ups_id);
            checked.problems.push(Problem { file: upstream.file.clone(), line: upstream.line, text });
        }
    }
}

/// Gives each vhost of a file that has no `vsvc_id` the one that `give` answers for its server names; the new content, if
/// there was one to give.
pub(super) fn assign(content: &Content, mut give: impl FnMut(&[String]) -> u64) -> Option<Content> {
    let text = std::str::from_utf8(&content.bytes).ok()?;
    let top = scan(text).ok()?;
    let mut out = String::new();
    let mut done = 0;
    for directive in top.iter().filter(|d| d.name() == "server") {
        let Some(block) = &directive.block else { continue };
        if block.iter().any(|d| d.name() == "vsvc_id") {
            continue;
        }
        let names = vhost("", directive, block).server_names;
        out.push_str(&text[done..directive.open]);
        out.push_str(&format!("\n    vsvc_id {};", give(&names)));
        done = directive.open;
    }
    (done > 0).then(|| {
        out.push_str(&text[done..]);
        Content::new(out)
    })
}
