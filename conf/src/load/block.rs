//! Applying a directive to the block that it stands in.

use std::sync::Arc;

use super::call::Call;
use super::files::Site;
use super::location::{Body, Step};
use super::server::ServerBlock;
use super::upstream::UpstreamSet;
use super::{Load, http::HttpBlock, top::MainBlock};
use crate::directive::{self, BlockKind, Contexts, EVENTS, HTTP, LOCATION, MAIN, SERVER, Setter, UPSTREAM};
use crate::http::{LocSet, SrvSet};
use crate::main_conf::EventsSet;
use crate::syntax::Directive;

/// A block that is applied when the one around it is finished.
pub(crate) type Pending<'a> = (Arc<Site>, &'a Directive<'a>);

/// A block that directives act on.
pub(crate) enum Target<'t, 'a> {
    Main(&'t mut MainBlock<'a>),
    Events(&'t mut EventsSet),
    Http(&'t mut HttpBlock<'a>),
    Server(&'t mut ServerBlock<'a>),
    /// A `location`, or an `if` of either kind.
    Body(&'t mut Body<'a>, Contexts),
    Upstream(&'t mut UpstreamSet),
}

impl<'a> Target<'_, 'a> {
    fn context(&self) -> Contexts {
        match self {
            Self::Main(_) => MAIN,
            Self::Events(_) => EVENTS,
            Self::Http(_) => HTTP,
            Self::Server(_) => SERVER,
            Self::Body(_, context) => *context,
            Self::Upstream(_) => UPSTREAM,
        }
    }

    fn loc(&mut self) -> Option<&mut LocSet> {
        match self {
            Self::Http(http) => Some(&mut http.loc),
            Self::Server(server) => Some(&mut server.body.loc),
            Self::Body(body, _) => Some(&mut body.loc),
            _ => None,
        }
    }

    fn srv(&mut self) -> Option<&mut SrvSet> {
        match self {
            Self::Http(http) => Some(&mut http.srv),
            Self::Server(server) => Some(&mut server.srv),
            _ => None,
        }
    }

    fn body(&mut self) -> Option<&mut Body<'a>> {
        match self {
            Self::Server(server) => Some(&mut server.body),
            Self::Body(body, _) => Some(body),
            _ => None,
        }
    }

    /// Where blocks of a kind wait.
    fn pending(&mut self, kind: BlockKind) -> Option<&mut Vec<Pending<'a>>> {
        match (kind, self) {
            (BlockKind::Events, Self::Main(main)) => Some(&mut main.events),
            (BlockKind::Http, Self::Main(main)) => Some(&mut main.https),
            (BlockKind::Map, Self::Http(http)) => Some(&mut http.maps),
            (BlockKind::Upstream, Self::Http(http)) => Some(&mut http.upstreams),
            (BlockKind::Server, Self::Http(http)) => Some(&mut http.servers),
            (BlockKind::Location, target) => target.body().map(|body| &mut body.locations),
            _ => None,
        }
    }
}

impl<'a> Load<'a> {
    /// Applies all directives of a block.
    pub(crate) fn apply_all(&mut self, site: &Arc<Site>, directives: &'a [Directive<'a>], target: &mut Target<'_, 'a>) {
        self.expand(site, directives, &mut |load, site, directive| load.apply(site, directive, target));
    }

    /// Applies one directive, or notes what is wrong with it.
    pub(crate) fn apply(&mut self, site: &Arc<Site>, directive: &'a Directive<'a>, target: &mut Target<'_, 'a>) {
        let context = target.context();
        let row = match directive::find(directive, context) {
            Ok(row) => row,
            Err(text) => return self.problem(site, directive.end, text),
        };
        let mut call = Call { load: self, site, directive, context };
        let done = match (&row.set, target) {
            (Setter::Include, _) => Ok(()),
            (Setter::Main(set), Target::Main(main)) => set(&mut main.set, &mut call),
            (Setter::Events(set), Target::Events(events)) => set(events, &mut call),
            (Setter::Http(set), Target::Http(http)) => set(&mut http.set, &mut call),
            (Setter::Server(set), Target::Server(server)) => set(&mut server.set, &mut call),
            (Setter::Upstream(set), Target::Upstream(upstream)) => set(upstream, &mut call),
            (Setter::Srv(set), target) => match target.srv() {
                Some(srv) => set(srv, &mut call),
                None => Err(call.fault("is not allowed here")),
            },
            (Setter::Loc(set), target) => match target.loc() {
                Some(loc) => set(loc, &mut call),
                None => Err(call.fault("is not allowed here")),
            },
            (Setter::Script(step), target) => match (step(&mut call), target.body()) {
                (Ok(op), Some(body)) => {
                    body.steps.push(Step::Op(op));
                    Ok(())
                }
                (Ok(_), None) => Err(call.fault("is not allowed here")),
                (Err(fault), _) => Err(fault),
            },
            (Setter::Block(BlockKind::If), target) => match target.body() {
                Some(body) => {
                    body.steps.push(Step::If(Arc::clone(site), directive));
                    Ok(())
                }
                None => Err(call.fault("is not allowed here")),
            },
            (Setter::Block(kind), target) => match target.pending(*kind) {
                Some(pending) => {
                    pending.push((Arc::clone(site), directive));
                    Ok(())
                }
                None => Err(call.fault("is not allowed here")),
            },
            (_, _) => Err(call.fault("is not allowed here")),
        };
        if let Err(fault) = done {
            self.problem(site, directive.end, fault.0);
        }
    }
}

/// The contexts of an `if` in a block.
pub(crate) fn if_context(outer: Contexts) -> Contexts {
    if outer.meets(LOCATION) { directive::LOCATION_IF } else { directive::SERVER_IF }
}

/// The inside of a block; [`directive::find`] has made sure that there is one.
pub(crate) fn inside<'a>(directive: &'a Directive<'a>) -> &'a [Directive<'a>] {
    directive.block.as_ref().map_or(&[], |block| block.directives)
}
