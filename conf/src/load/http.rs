//! `http {}`: its own settings first, then upstreams and maps, then the servers, which merge from them.

use std::sync::Arc;

use super::Load;
use super::block::{Pending, Target, inside};
use super::files::{MAX_INCLUSIONS, Site};
use super::parallel::Make;
use crate::http::map::Map;
use crate::http::{LocConf, LocSet, MainSet, SrvConf, SrvSet, log};
use crate::model::{Http, OrderKey, Reach, Vhost};
use crate::syntax::Directive;

/// What `http {}` holds.
#[derive(Default)]
pub(crate) struct HttpBlock<'a> {
    pub(crate) set: MainSet,
    pub(crate) srv: SrvSet,
    pub(crate) loc: LocSet,
    pub(crate) maps: Vec<Pending<'a>>,
    pub(crate) upstreams: Vec<Pending<'a>>,
    pub(crate) servers: Vec<Pending<'a>>,
}

/// What a `server` inherits.
pub(crate) struct Levels {
    pub(crate) srv: Arc<SrvConf>,
    pub(crate) loc: Arc<LocConf>,
}

/// Makes vhosts.
pub(super) struct Vhosts<'v>(pub(super) &'v Levels);

impl Make<Arc<Vhost>> for Vhosts<'_> {
    fn make<'l>(&self, load: &mut Load<'l>, (site, directive): &Pending<'l>) -> Option<Arc<Vhost>> {
        load.vhost(site, directive, self.0).map(Arc::new)
    }
}

impl<'a> Load<'a> {
    pub(crate) fn http(&mut self, site: &Arc<Site>, directive: &'a Directive<'a>) -> Http {
        self.inclusions_left = MAX_INCLUSIONS;
        let directives = self.name_maps(site, inside(directive));
        self.formats.push(log::combined());

        let mut block = HttpBlock::default();
        let mut reach = Reach::default();
        self.outside.open(["http"]);
        for (site, directive) in &directives {
            if directive.name() == "include" && directive.words.len() == 2 && !site.by_pattern {
                let key = site.key(directive.start().offset);
                let pattern = self.conf_path(directive.words[1].text);
                self.outside.include(&pattern);
                reach.includes.push((key, pattern));
            } else if !matches!(directive.name(), "server" | "upstream" | "map" | "log_format") {
                self.note_outside(site, directive);
            }
            self.apply(site, directive, &mut Target::Http(&mut block));
        }
        drop(directives);
        self.outside.close();
        let HttpBlock { mut set, srv, mut loc, maps, upstreams, servers } = block;

        let upstreams = self.upstreams(&upstreams);
        let maps: Vec<Arc<Map>> = maps.iter().map(|(site, directive)| Arc::new(self.map(site, directive))).collect();
        self.check_map_cycles(&maps, 0..maps.len());
        set.map.maps = Some(maps);
        set.log.formats = Some(std::mem::take(&mut self.formats));
        self.formats = set.log.formats.clone().unwrap_or_default();
        if loc.log.access_logs.is_none() {
            loc.log.access_logs = Some([log::default_log(self.prefix_path("logs/access.log"))].into());
        }

        let levels = Levels {
            srv: Arc::new(self.http_pairs(srv.merge(&SrvConf::default()))),
            loc: Arc::new(loc.merge(&LocConf::default())),
        };
        let vhosts = self.make_all(&servers, &Vhosts(&levels));
        self.check_named(&vhosts);
        let uses = std::mem::take(&mut self.uses).into();
        self.check_vhosts(&vhosts, true);
        Http {
            main: Arc::new(set.finish()),
            srv: levels.srv,
            loc: levels.loc,
            vhosts,
            upstreams,
            reach,
            uses,
            options: Arc::new(self.options.clone()),
        }
    }

    /// Says which of the variables that `http` uses no vhost sets.
    fn check_named(&mut self, vhosts: &[Arc<Vhost>]) {
        for used in std::mem::take(&mut self.named) {
            let set = vhosts.iter().any(|vhost| vhost.variables.contains(&used.name));
            if !set {
                self.problem(&used.site, used.at, format!("unknown \"{}\" variable", used.name));
            }
        }
    }
}

/// The key of a block.
pub(crate) fn key_of(site: &Arc<Site>, directive: &Directive<'_>) -> OrderKey {
    site.key(directive.start().offset)
}
