//! `location {}` and `if {}`: the blocks of location level, their merge and their order.

use std::sync::Arc;

use super::Load;
use super::block::{Pending, Target, if_context, inside};
use super::call::Call;
use super::files::Site;
use crate::directive::{Contexts, Done, LOCATION};
use crate::http::rewrite::{self, Branch, Op};
use crate::http::{LocConf, LocSet};
use crate::model::{Location, Locations, Pattern};
use crate::syntax::{Directive, Position};

/// What a block of location level holds.
#[derive(Default)]
pub(crate) struct Body<'a> {
    pub(crate) loc: LocSet,
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) locations: Vec<Pending<'a>>,
}

/// A rewrite directive.
pub(crate) enum Step<'a> {
    Op(Op),
    /// An `if`, whose block merges from the finished one around it.
    If(Arc<Site>, &'a Directive<'a>),
}

/// What a `proxy_pass` must know about the block that it stands in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PassScope {
    /// Whether it may have a URI part: in a location with a fixed path.
    pub(crate) fixed_path: bool,
    /// The length of that path.
    pub(crate) path_len: usize,
}

/// The location around a location.
#[derive(Clone, Copy)]
pub(crate) struct Outer<'o> {
    /// Path or expression.
    name: &'o str,
    exact: bool,
    named: bool,
}

/// A location with where it stands.
type Placed = (Arc<Location>, Arc<Site>, Position);

impl<'a> Load<'a> {
    /// The locations of a block, in the order in which they are searched.
    pub(crate) fn locations(
        &mut self,
        pending: &[Pending<'a>],
        parent: &Arc<LocConf>,
        outer: Option<Outer<'_>>,
    ) -> Locations {
        let mut prefixes: Vec<Placed> = Vec::new();
        let (mut regexes, mut named) = (Vec::new(), Vec::new());
        for (site, directive) in pending {
            let Some(location) = self.location(site, directive, parent, outer) else { continue };
            let location = Arc::new(location);
            match location.pattern {
                Pattern::Exact(_) | Pattern::Prefix { .. } => {
                    prefixes.push((location, Arc::clone(site), directive.end));
                }
                Pattern::Regex { .. } => regexes.push(location),
                Pattern::Named(_) => named.push(location),
            }
        }
        // Stable: of equal ones the later is the duplicate.
        prefixes.sort_by(|a, b| search_key(&a.0).cmp(&search_key(&b.0)));
        for pair in prefixes.windows(2) {
            if search_key(&pair[0].0) == search_key(&pair[1].0) {
                let (path, _) = search_key(&pair[1].0);
                self.problem(&pair[1].1, pair[1].2, format!("duplicate location \"{path}\""));
            }
        }
        let prefixes = prefixes.into_iter().map(|(location, ..)| location).collect();
        Locations { prefixes, regexes: regexes.into(), named: named.into() }
    }

    fn location(
        &mut self,
        site: &Arc<Site>,
        directive: &'a Directive<'a>,
        parent: &Arc<LocConf>,
        outer: Option<Outer<'_>>,
    ) -> Option<Location> {
        let mut call = Call { load: self, site, directive, context: LOCATION };
        let opened = pattern(&mut call).and_then(|(pattern, name)| {
            let inner = Outer {
                name,
                exact: matches!(pattern, Pattern::Exact(_)),
                named: matches!(pattern, Pattern::Named(_)),
            };
            outer.map_or(Ok(()), |outer| nesting(outer, inner, &pattern))?;
            Ok((pattern, inner))
        });
        let (pattern, inner) = match opened {
            Ok(opened) => opened,
            Err(fault) => {
                self.problem(site, directive.end, fault.0);
                return None;
            }
        };

        let fixed_path = matches!(pattern, Pattern::Exact(_) | Pattern::Prefix { .. });
        self.pass_scope = PassScope { fixed_path, path_len: if fixed_path { inner.name.len() } else { 0 } };
        let mut body = Body::default();
        self.apply_all(site, inside(directive), &mut Target::Body(&mut body, LOCATION));
        let conf = body.loc.merge_shared(parent, self.interner);
        let script = self.script(body.steps, LOCATION, &conf);
        let nested = self.locations(&body.locations, &conf, Some(inner));
        Some(Location { pattern, conf, script, nested })
    }

    /// The rewrite directives of a block. `conf` is the block's own configuration.
    pub(crate) fn script(&mut self, steps: Vec<Step<'a>>, outer: Contexts, conf: &Arc<LocConf>) -> rewrite::Script {
        let mut script = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::Op(op) => script.push(op),
                Step::If(site, directive) => script.extend(self.if_block(&site, directive, outer, conf)),
            }
        }
        script.into()
    }

    fn if_block(
        &mut self,
        site: &Arc<Site>,
        directive: &'a Directive<'a>,
        outer: Contexts,
        conf: &Arc<LocConf>,
    ) -> Option<Op> {
        let condition = rewrite::condition(&mut Call { load: self, site, directive, context: outer });
        let context = if_context(outer);
        let around = std::mem::take(&mut self.pass_scope);
        let mut body = Body::default();
        self.apply_all(site, inside(directive), &mut Target::Body(&mut body, context));
        self.pass_scope = around;

        let script = self.script(body.steps, context, conf);
        let conf = outer.meets(LOCATION).then(|| {
            // The answer is made by whoever makes it in the location, unless the block says otherwise.
            let handler = body.loc.handler.take().or_else(|| conf.handler.clone());
            LocSet { handler, ..body.loc }.merge_shared(conf, self.interner)
        });
        match condition {
            Ok(condition) => Some(Op::If { condition, then: Arc::new(Branch { conf, script }) }),
            Err(fault) => {
                self.problem(site, directive.end, fault.0);
                None
            }
        }
    }
}

/// By path as bytes, an exact location before a prefix.
fn search_key(location: &Location) -> (&str, bool) {
    match &location.pattern {
        Pattern::Exact(path) => (path, false),
        Pattern::Prefix { path, .. } => (path, true),
        Pattern::Regex { regex, .. } => (regex.pattern(), true),
        Pattern::Named(name) => (name, true),
    }
}

/// The pattern of a `location`, and the text that nginx calls its name.
fn pattern<'a>(call: &mut Call<'_, 'a>) -> Done<(Pattern, &'a str)> {
    let (modifier, name) = if call.arguments().len() == 2 {
        (call.arg(1), call.arg(2))
    } else {
        let word = call.arg(1);
        let modifier = ["=", "^~", "~*", "~"].into_iter().find(|modifier| word.starts_with(modifier));
        modifier.map_or(("", word), |modifier| (modifier, &word[modifier.len()..]))
    };
    let pattern = match modifier {
        "=" => Pattern::Exact(call.string(name)),
        "^~" => Pattern::Prefix { path: call.string(name), no_regex: true },
        "~" | "~*" => {
            let (regex, groups) = call.regex_with_groups(name, modifier == "~*")?;
            Pattern::Regex { regex, groups }
        }
        "" if call.arguments().len() == 2 => return Err("invalid location modifier \"\"".into()),
        "" if name.starts_with('@') => Pattern::Named(call.string(name)),
        "" => Pattern::Prefix { path: call.string(name), no_regex: false },
        other => return Err(format!("invalid location modifier \"{other}\"").into()),
    };
    Ok((pattern, name))
}

/// Whether a location may stand in another.
fn nesting(outer: Outer<'_>, inner: Outer<'_>, pattern: &Pattern) -> Done {
    let (name, around) = (inner.name, outer.name);
    if outer.exact {
        return Err(format!("location \"{name}\" cannot be inside the exact location \"{around}\"").into());
    }
    if outer.named {
        return Err(format!("location \"{name}\" cannot be inside the named location \"{around}\"").into());
    }
    if inner.named {
        return Err(format!("named location \"{name}\" can be on the server level only").into());
    }
    if !matches!(pattern, Pattern::Regex { .. }) && !name.starts_with(around) {
        return Err(format!("location \"{name}\" is outside location \"{around}\"").into());
    }
    Ok(())
}
