//! One vhost, read again by itself from what a load has left of it.

use std::sync::Arc;

use super::files::{File, Origin, Site};
use super::http::Levels;
use super::{Load, Room, Running};
use crate::intern::Interner;
use crate::model::{Outline, Vhost};
use crate::problem::{Problem, Problems};
use crate::source::Nowhere;
use crate::syntax;

/// Makes the vhost of an outline of its block's [text](Vhost::text): what a load of its files makes of it in `running`, but
/// for the lines that messages about it name. Nothing is read and no name is looked up.
///
/// # Errors
/// When the text is not that of the outline, or needs more than itself: a certificate, the address of a host.
pub fn load_vhost(
    running: &Running<'_>,
    outline: Outline,
    text: Vec<u8>,
    interner: &mut Interner,
) -> Result<Vhost, Problems> {
    let room = Room::default();
    let mut source = Nowhere;
    let mut load = Load::new(&running.http.options, &mut source, interner, &room, Some(running.upstream));
    load.join_definitions(running.http, &[], &[]);
    let vhost = load.single(running, outline, text);
    let vhost = load.finish(vhost)?;
    vhost.ok_or_else(|| Problems(vec![Problem { text: "the text is not that of its vhost".into(), place: None }]))
}

impl<'a> Load<'a> {
    fn single(&mut self, running: &Running<'_>, outline: Outline, text: Vec<u8>) -> Option<Vhost> {
        let text = self.texts.keep(text.into());
        let tree = syntax::parse(text, self.blocks);
        let file = self.trees.keep(File { path: Arc::clone(&outline.place.file), text, tree });
        let steps = outline.order.steps_to_file().to_vec();
        let site = Site::new(Arc::clone(&file.path), Origin::Reached(steps));
        self.syntax_problems(file, &site);
        let [directive] = file.tree.directives else { return None };
        let levels = Levels { srv: Arc::clone(&running.http.srv), loc: Arc::clone(&running.http.loc) };
        let vhost = self.vhost(&site, directive, &levels)?;
        let same = vhost.digest == outline.digest && vhost.upstreams.len() == outline.upstreams.len();
        (same && !self.wants_more).then_some(Vhost { outline, ..vhost })
    }
}
