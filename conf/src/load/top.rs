//! The main level: `-g`, the main configuration file, `events` and `http`.

use std::sync::Arc;

use super::block::{Pending, Target, inside};
use super::files::{Origin, Site};
use super::{Keep, Load, path_of};
use crate::main_conf::{EventsSet, MainSet};
use crate::model::{Config, OrderKey};
use crate::problem::Problem;
use crate::syntax::{self, Directive};

/// What stands outside every block.
#[derive(Default)]
pub(crate) struct MainBlock<'a> {
    pub(crate) set: MainSet,
    pub(crate) events: Vec<Pending<'a>>,
    pub(crate) https: Vec<Pending<'a>>,
}

impl<'a> Load<'a> {
    /// The whole configuration.
    pub(crate) fn top<K: Keep>(&mut self, keep: &K) -> Config<K::Vhost, K::Upstream> {
        let mut main = MainBlock::default();
        self.globals(&mut main);
        match self.file(&self.options.conf) {
            Ok(file) => {
                let site = Site::new(Arc::clone(&file.path), Origin::Top);
                self.syntax_problems(file, &site);
                self.apply_all(&site, file.tree.directives, &mut Target::Main(&mut main));
                self.expand(&site, file.tree.directives, &mut |load, site, directive| {
                    if directive.name() != "http" {
                        load.note_outside(site, directive);
                    }
                });
            }
            Err(text) => self.problems.push((OrderKey::default(), Problem { text, place: None })),
        }

        let mut events = EventsSet::default();
        let first = self.only_one(&main.events);
        if let Some((site, directive)) = first {
            self.apply_all(&site, inside(directive), &mut Target::Events(&mut events));
        }
        let http = self.only_one(&main.https).map(|(site, directive)| self.http(&site, directive, keep));
        if main.events.is_empty() && self.problems.is_empty() {
            let text = "no \"events\" section in configuration".into();
            self.problems.push((OrderKey::default(), Problem { text, place: None }));
        }
        Config {
            main: main.set.finish(&self.options.prefix),
            events: events.finish(),
            http,
            warnings: self.sorted_warnings(),
            outside: std::mem::take(&mut self.outside).finish(),
        }
    }

    /// Enters a directive and its block into [`Config::outside`]; what it includes is visited for itself.
    pub(crate) fn note_outside(&mut self, site: &Arc<Site>, directive: &'a Directive<'a>) {
        match &directive.block {
            _ if directive.name() == "include" || self.outside.is_full() => {}
            None => self.outside.line(directive.words),
            Some(block) => {
                self.outside.open(directive.words.iter().map(|word| word.text));
                self.expand(site, block.directives, &mut |load, site, directive| load.note_outside(site, directive));
                self.outside.close();
            }
        }
    }

    fn globals(&mut self, main: &mut MainBlock<'a>) {
        if self.options.globals.is_empty() {
            return;
        }
        let text = self.texts.keep(self.options.globals.as_bytes().into());
        let tree = syntax::parse(text, self.blocks);
        let file = self.trees.keep(super::files::File { path: path_of("command line".as_ref()), text, tree });
        let site = Site::new(Arc::clone(&file.path), Origin::Globals);
        for error in &file.tree.errors {
            let text = match error.text.as_str() {
                "unexpected end of file, expecting \";\" or \"}\"" => "unexpected end of parameter, expecting \";\"",
                text => text,
            };
            self.problem(&site, error.at, text);
        }
        for directive in file.tree.directives {
            if directive.block.is_some() {
                self.problem(&site, directive.end, "block directives are not supported in -g option");
            }
        }
        if file.tree.directives.iter().all(|directive| directive.block.is_none()) {
            self.apply_all(&site, file.tree.directives, &mut Target::Main(main));
            file.tree.directives.iter().for_each(|directive| self.note_outside(&site, directive));
        }
    }

    /// The first of blocks of which there may be only one.
    fn only_one(&mut self, blocks: &[Pending<'a>]) -> Option<(Arc<Site>, &'a Directive<'a>)> {
        for (site, directive) in blocks.iter().skip(1) {
            self.problem(site, directive.end, format!("\"{}\" directive is duplicate", directive.name()));
        }
        blocks.first().map(|(site, directive)| (Arc::clone(site), *directive))
    }
}
