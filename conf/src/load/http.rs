//! `http {}`: its own settings first, then upstreams and maps, then the servers, which merge from them.

use std::sync::Arc;

use super::block::{Pending, Target, inside};
use super::files::{MAX_INCLUSIONS, Site};
use super::parallel::Make;
use super::{Keep, Load};
use crate::http::map::Map;
use crate::http::{LocConf, LocSet, MainSet, SrvConf, SrvSet, log};
use crate::model::{Http, OrderKey, Outline, Reach};
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
#[derive(Clone, Debug)]
pub struct Levels {
    /// At the server level.
    pub srv: Arc<SrvConf>,
    /// At the location level.
    pub loc: Arc<LocConf>,
}

/// Makes vhosts.
pub(super) struct Vhosts<'v, K> {
    pub(super) levels: &'v Levels,
    pub(super) keep: &'v K,
}

/// What is kept of a vhost, as far as the load is concerned.
pub(super) struct KeptVhost<V> {
    pub(super) vhost: V,
    /// It has a certificate, its own or that of `http`.
    pub(super) has_certificate: bool,
}

impl<K: Keep> Make<KeptVhost<K::Vhost>> for Vhosts<'_, K> {
    fn make<'l>(&self, load: &mut Load<'l>, (site, directive): &Pending<'l>) -> Option<KeptVhost<K::Vhost>> {
        let vhost = load.vhost(site, directive, self.levels)?;
        let has_certificate = !vhost.srv.ssl.certificates.is_empty() || vhost.srv.ssl.pairs.is_some();
        Some(KeptVhost { vhost: self.keep.vhost(vhost, self.levels, load.options), has_certificate })
    }
}

impl<'a> Load<'a> {
    pub(crate) fn http<K: Keep>(
        &mut self,
        site: &Arc<Site>,
        directive: &'a Directive<'a>,
        keep: &K,
    ) -> Http<K::Vhost, K::Upstream> {
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

        let upstreams = self.upstreams(&upstreams, keep);
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
        let vhosts = self.make_all(&servers, &Vhosts { levels: &levels, keep });
        self.check_named::<K>(&vhosts);
        let uses = std::mem::take(&mut self.uses).into();
        let outlines: Vec<&Outline> = vhosts.iter().map(|kept| K::outline(&kept.vhost)).collect();
        self.check_vhosts(&outlines, Some(&|index: usize| vhosts[index].has_certificate));
        Http {
            main: Arc::new(set.finish()),
            srv: levels.srv,
            loc: levels.loc,
            vhosts: vhosts.into_iter().map(|kept| kept.vhost).collect(),
            upstreams,
            reach,
            uses,
            options: Arc::new(self.options.clone()),
        }
    }

    /// Says which of the variables that `http` uses no vhost sets.
    fn check_named<K: Keep>(&mut self, vhosts: &[KeptVhost<K::Vhost>]) {
        for used in std::mem::take(&mut self.named) {
            let set = vhosts.iter().any(|kept| K::outline(&kept.vhost).variables.contains(&used.name));
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
