//! `server {}`: one vhost.

use std::sync::Arc;

use super::Load;
use super::block::{Target, inside};
use super::files::{MAX_SERVER_INCLUSIONS, Site};
use super::http::{Levels, key_of};
use super::location::Body;
use super::variables::VhostScope;
use crate::digest::{Digest, Words};
use crate::directive::SERVER;
use crate::http::{SrvSet, core};
use crate::model::{Listen, Outline, ServerName, Vhost, VsvcId};
use crate::problem::Place;
use crate::syntax::{Directive, MAX_DEPTH};

/// The parts of a vhost that are not settings.
#[derive(Debug, Default)]
pub struct ServerSet {
    /// `vsvc_id`.
    pub vsvc_id: Option<VsvcId>,
    /// `listen`.
    pub listens: Vec<Listen>,
    /// `server_name`.
    pub names: Vec<ServerName>,
}

/// What `server {}` holds.
#[derive(Default)]
pub(crate) struct ServerBlock<'a> {
    pub(crate) set: ServerSet,
    pub(crate) srv: SrvSet,
    pub(crate) body: Body<'a>,
}

impl<'a> Load<'a> {
    /// One vhost; `None` if it cannot be walked (the problem is noted).
    pub(crate) fn vhost(&mut self, site: &Arc<Site>, directive: &'a Directive<'a>, levels: &Levels) -> Option<Vhost> {
        let directives = inside(directive);
        self.vhost = Some(VhostScope::default());
        // Two passes: the survey and the application.
        self.inclusions_left = 2 * MAX_SERVER_INCLUSIONS;
        let mut words = self.words();
        if !self.survey(site, directives, 0, &mut words) {
            self.problem(site, directive.end, "blocks are nested too deeply");
            return None;
        }

        let mut block = ServerBlock::default();
        self.apply_all(site, directives, &mut Target::Server(&mut block));
        let ServerBlock { set: ServerSet { vsvc_id, mut listens, mut names }, srv, body } = block;
        let srv = srv.merge_shared(&levels.srv);
        let srv = self.vhost_pairs(srv);
        // Own certificates are a part of what the vhost says, by content: a renewed one has the same name.
        if srv.ssl.pairs.as_ref().map(Arc::as_ptr) != levels.srv.ssl.pairs.as_ref().map(Arc::as_ptr) {
            srv.ssl.pairs.iter().flat_map(|pairs| pairs.iter()).for_each(|pair| words.word(&pair.digest.to_string()));
        }
        if !Arc::ptr_eq(&srv.ssl.ticket_keys, &levels.srv.ssl.ticket_keys) {
            srv.ssl.ticket_keys.iter().for_each(|key| words.word(&key.digest().to_string()));
        }
        let digest = words.digest();
        self.words = words;
        let loc = body.loc.merge_shared(&levels.loc, self.interner);
        let script = self.script(body.steps, SERVER, &loc);
        let locations = self.locations(&body.locations, &loc, None);

        let place = Place { file: Arc::clone(&site.file), line: directive.start().line };
        if listens.is_empty() {
            listens.push(core::default_listen(self.options.privileged, place.clone()));
        }
        if names.is_empty() {
            names.push(ServerName::Exact(self.interner.string("")));
        }
        let scope = self.vhost.take().unwrap_or_default();
        self.unset_variables(&scope);
        let outline = Outline {
            vsvc_id,
            place,
            order: key_of(site, directive),
            listens: listens.into(),
            names: names.into(),
            variables: scope.names.into(),
            uses: scope.uses.into(),
            upstreams: scope.upstreams.into(),
            digest,
        };
        let text = self.block_text(site, directive);
        Some(Vhost { outline, srv, loc, script, locations, text })
    }

    /// Walks a vhost's directives before they are applied: what it sets and says. False if it is too deep.
    fn survey(&mut self, site: &Arc<Site>, directives: &'a [Directive<'a>], depth: usize, words: &mut Words) -> bool {
        let mut shallow = depth <= MAX_DEPTH;
        if shallow {
            self.expand(site, directives, &mut |load, site, directive| {
                load.announce(directive);
                if directive.name() == "include" {
                    return;
                }
                directive.words.iter().for_each(|word| words.word(word.text));
                match &directive.block {
                    None => words.mark(b';'),
                    Some(block) => {
                        words.mark(b'{');
                        shallow &= load.survey(site, block.directives, depth + 1, words);
                        words.mark(b'}');
                    }
                }
            });
        }
        shallow
    }

    /// The digest of an upstream's block.
    pub(crate) fn block_digest(&mut self, site: &Arc<Site>, directive: &'a Directive<'a>) -> Digest {
        let mut words = self.words();
        directive.words.iter().for_each(|word| words.word(word.text));
        self.expand(site, inside(directive), &mut |_, _, directive| {
            if directive.name() != "include" {
                directive.words.iter().for_each(|word| words.word(word.text));
                words.mark(b';');
            }
        });
        let digest = words.digest();
        self.words = words;
        digest
    }

    /// An empty list of words, with the room that the last one had.
    fn words(&mut self) -> Words {
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        words
    }
}
