//! `map {}`.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Load;
use super::block::inside;
use super::call::{Call, Fault};
use super::files::Site;
use super::http::key_of;
use crate::directive::{Done, HTTP};
use crate::http::map::Map;
use crate::syntax::Directive;
use crate::template::Template;

impl<'a> Load<'a> {
    /// One map.
    pub(crate) fn map(&mut self, site: &Arc<Site>, directive: &'a Directive<'a>) -> Map {
        let outer = std::mem::take(&mut self.uses);
        let mut map = self.map_block(site, directive);
        map.uses = std::mem::replace(&mut self.uses, outer).into();
        map.place = site.place(directive.start());
        map.order = key_of(site, directive);
        map.digest = self.block_digest(site, directive);
        map
    }

    fn map_block(&mut self, site: &Arc<Site>, directive: &'a Directive<'a>) -> Map {
        let mut call = Call { load: self, site, directive, context: HTTP };
        let (source, name) = match head(&mut call) {
            Ok(head) => head,
            Err(fault) => {
                self.problem(site, directive.end, fault.0);
                (Template::default(), "".into())
            }
        };
        let mut map = Map { name, source, ..Map::default() };
        let mut default = None;
        self.expand(site, inside(directive), &mut |load, site, entry| {
            let text = match &entry.block {
                Some(_) => Some("unexpected \"{\"".to_owned()),
                None => add(load, site, entry, &mut map, &mut default).err().map(|fault| fault.0),
            };
            if let Some(text) = text {
                load.problem(site, entry.end, text);
            }
        });
        map.default = default.unwrap_or_default();
        map
    }
}

/// What is looked up, and the variable that the result is.
fn head(call: &mut Call<'_, '_>) -> Done<(Template, Arc<str>)> {
    let source = call.template(call.arg(1))?;
    let Some(name) = call.arg(2).strip_prefix('$') else {
        return Err(format!("invalid variable name \"{}\"", call.arg(2)).into());
    };
    let lower = name.to_ascii_lowercase();
    call.load.map_name(&lower)?;
    Ok((source, call.string(&lower)))
}

fn add<'a>(
    load: &mut Load<'a>,
    site: &Arc<Site>,
    entry: &'a Directive<'a>,
    map: &mut Map,
    default: &mut Option<Template>,
) -> Done {
    let key = match entry.words {
        [word] if word.text == "hostnames" => {
            map.hostnames = true;
            return Ok(());
        }
        [word] if word.text == "volatile" => {
            map.volatile = true;
            return Ok(());
        }
        [word, _] if word.text == "include" => return Ok(()),
        [key, _] => key.text,
        _ => return Err("invalid number of the map parameters".into()),
    };
    let mut call = Call { load, site, directive: entry, context: HTTP };
    if let Some(pattern) = key.strip_prefix('~') {
        let (pattern, caseless) = pattern.strip_prefix('*').map_or((pattern, false), |pattern| (pattern, true));
        let regex = call.regex(pattern, caseless)?;
        let groups = regex.named_groups().map(|(name, number)| (name.to_ascii_lowercase(), number)).collect();
        call.load.map_groups = groups;
        let value = call.template(call.arg(1));
        call.load.map_groups.clear();
        map.regexes.push((regex, value?));
        return Ok(());
    }
    let value = call.template(call.arg(1))?;
    if key == "default" {
        if default.is_some() {
            return Err("duplicate default map parameter".into());
        }
        *default = Some(value);
        return Ok(());
    }
    // A backslash lets a key begin with what would else be special.
    let key = key.strip_prefix('\\').unwrap_or(key);
    insert(map, key, value)
}

fn insert(map: &mut Map, key: &str, value: Template) -> Done {
    let lower = key.to_ascii_lowercase();
    let conflict = || Fault(format!("conflicting parameter \"{lower}\""));
    let tables = if map.hostnames {
        match wildcard(&lower).ok_or_else(|| format!("invalid hostname or wildcard \"{key}\""))? {
            Wildcard::Exact => vec![(&mut map.exact, &*lower)],
            Wildcard::Both(name) => vec![(&mut map.exact, name), (&mut map.leading, name)],
            Wildcard::Leading(name) => vec![(&mut map.leading, name)],
            Wildcard::Trailing(name) => vec![(&mut map.trailing, name)],
        }
    } else {
        vec![(&mut map.exact, &*lower)]
    };
    for (table, name) in tables {
        match table.entry(name.into()) {
            Entry::Occupied(_) => return Err(conflict()),
            Entry::Vacant(free) => free.insert(value.clone()),
        };
    }
    Ok(())
}

/// A host name of a `server_name` or of a map with `hostnames`, in lower case.
pub(crate) enum Wildcard<'n> {
    /// As it stands.
    Exact,
    /// `.example.com`: the name and all below it.
    Both(&'n str),
    /// `*.example.com`.
    Leading(&'n str),
    /// `www.example.*`.
    Trailing(&'n str),
}

/// Takes a host name apart; `None` if it is not valid.
pub(crate) fn wildcard(name: &str) -> Option<Wildcard<'_>> {
    if name.contains("..") || name.contains('\0') || name.matches('*').count() > 1 {
        return None;
    }
    if let Some(rest) = name.strip_prefix('.').filter(|rest| !rest.is_empty()) {
        return (!rest.contains('*')).then_some(Wildcard::Both(rest));
    }
    if let Some(rest) = name.strip_prefix("*.").filter(|rest| !rest.is_empty()) {
        return Some(Wildcard::Leading(rest));
    }
    if let Some(rest) = name.strip_suffix(".*").filter(|rest| !rest.is_empty()) {
        return Some(Wildcard::Trailing(rest));
    }
    (!name.contains('*')).then_some(Wildcard::Exact)
}
