//! The files of a task, read as parts of a configuration that runs: merged from its `http`, with the places that a full
//! load would give them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::{Pending, Target};
use super::files::{File, Origin, Site};
use super::http::{HttpBlock, Levels, Vhosts};
use super::{Keep, Load, Room, Whole};
use crate::directive::{self, HTTP};
use crate::glob;
use crate::http::log::Format;
use crate::http::map::Map;
use crate::intern::Interner;
use crate::model::{Fragment, Http, OrderKey, OrderStep, Outline, Reach};
use crate::problem::{Problem, Problems};
use crate::source::Source;
use crate::syntax::Directive;

/// Reads a task's configuration, `dysvr_<id>.conf`: a list of `include FILE;`.
///
/// The files may hold only `server`, `upstream`, `map`, `log_format` and `include`; anything else changes `http` as a whole. Each file that
/// the list names must be reached by the running configuration (`http.reach`, or what [`Running::reached`] knows), else
/// a restart would lose it. What can be wrong only together with the other vhosts of the running configuration (a
/// duplicate `vsvc_id`, a second default server) is for the caller to check.
pub fn load_fragment(
    running: &Running<'_>,
    file: &Path,
    source: &mut dyn Source,
    interner: &mut Interner,
) -> Result<Fragment, Problems> {
    load_fragment_keeping(running, file, source, interner, &Whole, &mut |_, _| {})
}

/// Is told of the vhosts, in their order, and the upstreams that were made, when nothing is wrong with any of them: what is
/// left is to check whether they go together.
pub type Made<'m, K> = dyn FnMut(&mut [<K as Keep>::Vhost], &[<K as Keep>::Upstream]) + 'm;

/// The same, with what `keep` makes of its vhosts and upstreams.
pub fn load_fragment_keeping<K: Keep>(
    running: &Running<'_>,
    file: &Path,
    source: &mut dyn Source,
    interner: &mut Interner,
    keep: &K,
    made: &mut Made<'_, K>,
) -> Result<Fragment<K::Vhost, K::Upstream>, Problems> {
    let room = Room::default();
    let mut load = Load::new(&running.http.options, source, interner, &room, Some(running.upstream));
    load.may_use_threads = running.alone;
    let fragment = load.fragment(running, file, keep, made);
    load.finish(fragment)
}

/// The configuration that a fragment joins.
#[derive(Clone, Copy)]
pub struct Running<'r> {
    /// What the fragment is merged from.
    pub http: &'r Http,
    /// The upstream of a name (in lower case) that stays, whatever the fragment holds: its name as it is written.
    pub upstream: &'r KnownUpstream<'r>,
    /// How the source reaches a file that no `include` of `http` names, when something that the task replaces stands in
    /// it: a vhost's file may include an upstream's.
    pub reached: &'r dyn Fn(&Path) -> Option<Vec<OrderStep>>,
    /// The maps that the fragment may replace, by the names of their variables: those that it does not hold go.
    pub maps: &'r [String],
    /// The same for log formats.
    pub formats: &'r [String],
    /// Nobody else reads it at this moment: a large one may take two threads.
    pub alone: bool,
}

/// See [`Running::upstream`].
pub type KnownUpstream<'r> = dyn Fn(&str) -> Option<Arc<str>> + 'r;

impl<'r> Running<'r> {
    /// A configuration with these upstreams and no files but those that `http` includes.
    pub fn new(http: &'r Http, upstream: &'r KnownUpstream<'r>) -> Self {
        Self { http, upstream, reached: &|_| None, maps: &[], formats: &[], alone: false }
    }
}

impl OrderKey {
    /// The steps that lead to the file that the place is in.
    pub fn steps_to_file(&self) -> &[OrderStep] {
        &self.0[..self.0.len().saturating_sub(1)]
    }
}

/// A definition with its index.
type Placed<T> = (u16, Arc<T>);

/// What is said of a file that the main configuration does not lead to.
pub const LOST: &str = "is reached by no include of nginx.conf: it would be lost at the next start";

impl Reach {
    /// The steps that lead to a file through the first `include` that reaches it.
    pub fn steps_to(&self, file: &Path) -> Option<Vec<OrderStep>> {
        let (key, _) = self.includes.iter().find(|(_, pattern)| match glob::is_pattern(pattern) {
            true => glob::matches(pattern, file),
            false => pattern == file,
        })?;
        let mut steps = key.0.to_vec();
        steps.last_mut()?.file = Some(file.into());
        Some(steps)
    }
}

fn is_include(directive: &Directive<'_>) -> bool {
    directive.name() == "include" && directive.words.len() == 2
}

impl<'a> Load<'a> {
    fn fragment<K: Keep>(
        &mut self,
        running: &Running<'_>,
        file: &Path,
        keep: &K,
        made: &mut Made<'_, K>,
    ) -> Fragment<K::Vhost, K::Upstream> {
        let base = running.http;
        self.join_definitions(base, running.maps, running.formats);
        let mut block = HttpBlock::default();
        match self.file(file) {
            Ok(list) => {
                let site = Site::new(Arc::clone(&list.path), Origin::Top);
                self.syntax_problems(list, &site);
                let paths = self.expect(list.tree.directives);
                if !running.maps.is_empty() {
                    self.name_maps(&site, list.tree.directives);
                }
                // Of many files each path is made once.
                let mut paths = paths.chunks(1);
                for directive in list.tree.directives {
                    let path = if is_include(directive) { paths.next() } else { None };
                    self.task_include(running, &site, directive, path, &mut block);
                }
            }
            Err(text) => self.problems.push((OrderKey::default(), Problem { text, place: None })),
        }

        // Named before the vhosts are read, so that a use may stand before its definition.
        let upstreams = self.upstreams(&block.upstreams, keep);
        let (maps, formats) = self.definitions(base, &block.maps);
        let levels = Levels { srv: Arc::clone(&base.srv), loc: Arc::clone(&base.loc) };
        let vhosts = self.make_all(&block.servers, &Vhosts { levels: &levels, keep });
        let mut vhosts: Vec<K::Vhost> = vhosts.into_iter().map(|kept| kept.vhost).collect();
        vhosts.sort_by(|a, b| K::outline(a).order.cmp(&K::outline(b).order));
        if self.problems.is_empty() {
            made(&mut vhosts, &upstreams);
        }
        let outlines: Vec<&Outline> = vhosts.iter().map(K::outline).collect();
        self.check_vhosts(&outlines, None);
        let files = std::mem::take(&mut self.read.files).into_keys().map(PathBuf::from).collect();
        Fragment { vhosts, upstreams, maps, formats, warnings: self.sorted_warnings(), files }
    }

    /// Tells the source which files the list names, and gives them; none if there are patterns among them.
    fn expect(&mut self, list: &'a [Directive<'a>]) -> Arc<[PathBuf]> {
        let includes = list.iter().filter(|directive| is_include(directive));
        let mut paths = Vec::with_capacity(list.len());
        paths.extend(includes.map(|directive| self.conf_path(directive.words[1].text)));
        if paths.iter().any(|path| glob::is_pattern(path)) {
            return Arc::default();
        }
        let paths: Arc<[PathBuf]> = paths.into();
        if paths.len() > 1 {
            self.read.files.reserve(paths.len());
            self.source.expect(&paths);
        }
        paths
    }

    /// The maps and the log formats of the fragment, with their places among those of `base`.
    fn definitions(&mut self, base: &Http, pending: &[Pending<'a>]) -> (Vec<Placed<Map>>, Vec<Placed<Format>>) {
        let mut maps: Vec<Placed<Map>> = Vec::new();
        for (site, directive) in pending {
            let map = self.map(site, directive);
            if let Some(index) = self.maps.get(&map.name) {
                maps.push((*index, Arc::new(map)));
            }
        }
        if !maps.is_empty() {
            let mut all = base.main.map.maps.clone();
            for (index, map) in &maps {
                let index = usize::from(*index);
                if all.len() <= index {
                    all.resize_with(index + 1, Arc::default);
                }
                all[index] = Arc::clone(map);
            }
            self.check_map_cycles(&all, maps.iter().map(|(index, _)| usize::from(*index)));
        }
        let formats = std::mem::take(&mut self.slots.formats);
        let formats = formats.into_iter().map(|index| (index, Arc::clone(&self.formats[usize::from(index)])));
        (maps, formats.collect())
    }

    /// One line of the list; `path`: the file that it names, if that is known.
    fn task_include(
        &mut self,
        running: &Running<'_>,
        list: &Arc<Site>,
        directive: &'a Directive<'a>,
        path: Option<&[PathBuf]>,
        block: &mut HttpBlock<'a>,
    ) {
        if directive.name() != "include" {
            return match directive::find(directive, HTTP) {
                Err(text) => self.problem(list, directive.end, text),
                Ok(_) => {
                    let text = format!("\"{}\" directive may not stand in a task file itself", directive.name());
                    self.problem(list, directive.end, text);
                }
            };
        }
        if let Err(text) = directive::find(directive, HTTP) {
            return self.problem(list, directive.end, text);
        }
        let mut visit = |load: &mut Self, file: &'a File<'a>, _: &Arc<Site>| {
            load.task_file(running, list, directive, file, block);
        };
        match path {
            Some(path) => self.included_files(list, directive, path, false, &mut visit),
            None => self.included(list, directive, &mut visit),
        }
    }

    /// A file that the list names.
    fn task_file(
        &mut self,
        running: &Running<'_>,
        list: &Arc<Site>,
        directive: &'a Directive<'a>,
        file: &'a File<'a>,
        block: &mut HttpBlock<'a>,
    ) {
        let steps = running.http.reach.steps_to(&file.path).or_else(|| (running.reached)(&file.path));
        let Some(steps) = steps else {
            let path = file.path.display();
            let text = format!("\"{path}\" {LOST}");
            return self.problem(list, directive.end, text);
        };
        let site = Site::new(Arc::clone(&file.path), Origin::Reached(steps));
        self.expand(&site, file.tree.directives, &mut |load, site, directive| match directive.name() {
            "server" | "upstream" | "map" | "log_format" | "include" => {
                load.apply(site, directive, &mut Target::Http(block));
            }
            name if directive::find(directive, HTTP).is_ok() => {
                let text = format!("\"{name}\" directive changes http as a whole: not possible in place");
                load.problem(site, directive.end, text);
            }
            _ => load.apply(site, directive, &mut Target::Http(block)),
        });
    }
}
