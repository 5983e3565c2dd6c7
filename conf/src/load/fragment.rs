//! The files of a task, read as parts of a configuration that runs: merged from its `http`, with the places that a full
//! load would give them.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::Load;
use super::arena::Arena;
use super::block::Target;
use super::files::{File, Origin, Site};
use super::http::{HttpBlock, Levels};
use crate::directive::{self, HTTP};
use crate::glob;
use crate::intern::Interner;
use crate::model::{Fragment, Http, OrderKey, OrderStep, Reach};
use crate::problem::{Problem, Problems};
use crate::source::Source;
use crate::syntax::Directive;

/// Reads a task's configuration, `dysvr_<id>.conf`: a list of `include FILE;`.
///
/// The files may hold only `server`, `upstream` and `include`; anything else changes `http` as a whole. Each file that
/// the list names must be reached by an `include` of the main configuration (`base.reach`), else a restart would lose
/// it. `known_upstream` tells which upstreams the running configuration has. What can be wrong only together with the
/// other vhosts of the running configuration (a duplicate `vsvc_id`, a second default server) is for the caller to
/// check.
pub fn load_fragment(
    base: &Http,
    file: &Path,
    known_upstream: &dyn Fn(&str) -> bool,
    source: &mut dyn Source,
    interner: &mut Interner,
) -> Result<Fragment, Problems> {
    let (texts, trees) = (Arena::new(), Arena::new());
    let mut load = Load::new(&base.options, source, interner, &texts, &trees, Some(known_upstream));
    let fragment = load.fragment(base, file);
    load.finish(fragment)
}

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

impl<'a> Load<'a> {
    fn fragment(&mut self, base: &Http, file: &Path) -> Fragment {
        for (index, map) in (0..).zip(&base.main.map.maps) {
            self.maps.insert(Arc::clone(&map.name), index);
        }
        self.formats = base.main.log.formats.clone();

        let mut block = HttpBlock::default();
        match self.file(file) {
            Ok(list) => {
                let site = Site::new(Arc::clone(&list.path), Origin::Top);
                self.syntax_problems(list, &site);
                for directive in &list.tree.directives {
                    self.task_include(base, &site, directive, &mut block);
                }
            }
            Err(text) => self.problems.push((OrderKey::default(), Problem { text, place: None })),
        }

        // Named before the vhosts are read, so that a use may stand before its definition.
        let upstreams = self.upstreams(&block.upstreams);
        let levels = Levels { srv: Arc::clone(&base.srv), loc: Arc::clone(&base.loc) };
        let servers = &block.servers;
        let vhosts = servers.iter().filter_map(|(site, directive)| self.vhost(site, directive, &levels));
        let mut vhosts: Vec<_> = vhosts.map(Arc::new).collect();
        vhosts.sort_by(|a, b| a.order.cmp(&b.order));
        self.check_vhosts(&vhosts);
        Fragment { vhosts, upstreams, warnings: self.sorted_warnings() }
    }

    /// One line of the list.
    fn task_include(&mut self, base: &Http, list: &Rc<Site>, directive: &'a Directive<'a>, block: &mut HttpBlock<'a>) {
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
        self.included(list, directive, &mut |load, file, _| load.task_file(base, list, directive, file, block));
    }

    /// A file that the list names.
    fn task_file(
        &mut self,
        base: &Http,
        list: &Rc<Site>,
        directive: &'a Directive<'a>,
        file: &'a File<'a>,
        block: &mut HttpBlock<'a>,
    ) {
        let Some(steps) = base.reach.steps_to(&file.path) else {
            let path = file.path.display();
            let text = format!("\"{path}\" is reached by no include of nginx.conf: it would be lost at the next start");
            return self.problem(list, directive.end, text);
        };
        let site = Site::new(Arc::clone(&file.path), Origin::Reached(steps));
        self.expand(&site, &file.tree.directives, &mut |load, site, directive| match (
            directive.name(),
            directive::find(directive, HTTP),
        ) {
            ("server" | "upstream" | "include", _) | (_, Err(_)) => {
                load.apply(site, directive, &mut Target::Http(block));
            }
            (name, Ok(_)) => {
                let text = format!("\"{name}\" directive changes http as a whole: not possible in place");
                load.problem(site, directive.end, text);
            }
        });
    }
}
