//! Maps and log formats as they run, and their part of a change.
//!
//! Directives refer to them by index, and a request keeps the table that it began with: so a definition is replaced for
//! all who use it by one new table, and no vhost is made anew. What is counted here is what a full load would refuse: a
//! use of something that goes, a variable that `http` uses and nobody sets.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::http::MainConf;
use dysvr_conf::http::log::{self, Format};
use dysvr_conf::http::map::{self, Map};
use dysvr_conf::model::{Http, Use};
use dysvr_conf::problem::Place;

use super::change::wrong;
use super::digest::{Kind as Of, Sum};
use super::entry::Part;
use super::{Change, Cycle, Kind, Refusal};

/// `http {}` of a process, and who uses what of it.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    http: Option<Rc<Http>>,
    /// How many vhosts, definitions, and `http` itself, use something.
    users: HashMap<Use, u32>,
    /// How many vhosts set a variable.
    setters: HashMap<Arc<str>, u32>,
    /// Of the maps and formats.
    sum: Sum,
}

/// The definitions of a change.
#[derive(Debug, Default)]
pub(super) struct Defined {
    /// `http` with its new definitions, if there are any.
    http: Option<Rc<Http>>,
    users: HashMap<Use, i64>,
    setters: HashMap<Arc<str>, i64>,
}

/// Names of variables that mean something without a map: a map that comes or goes changes what vhosts have made of them.
const FAMILIES: [&str; 5] = ["http_", "sent_http_", "upstream_http_", "arg_", "cookie_"];

/// What every definition has.
struct Head<'d> {
    name: &'d str,
    place: Option<&'d Place>,
    uses: &'d [Use],
}

/// A map or a log format.
trait Definition: Default {
    const WHAT: &'static str;
    fn head(&self) -> Head<'_>;
    fn user(index: u16) -> Use;
    /// What a full load says of a use when it is gone.
    fn unknown(name: &str) -> String;
}

impl Definition for Map {
    const WHAT: &'static str = "map";

    fn head(&self) -> Head<'_> {
        Head { name: &self.name, place: self.place.as_ref(), uses: &self.uses }
    }

    fn user(index: u16) -> Use {
        Use::Map(index)
    }

    fn unknown(name: &str) -> String {
        format!("unknown \"{name}\" variable")
    }
}

impl Definition for Format {
    const WHAT: &'static str = "log_format";

    fn head(&self) -> Head<'_> {
        Head { name: &self.name, place: self.place.as_ref(), uses: &self.uses }
    }

    fn user(index: u16) -> Use {
        Use::Format(index)
    }

    fn unknown(name: &str) -> String {
        format!("unknown log format \"{name}\"")
    }
}

impl Definitions {
    /// Those of a load, before its vhosts come.
    pub(super) fn new(http: Option<Rc<Http>>) -> Self {
        let mut users: HashMap<Use, u32> = HashMap::new();
        let all = http.iter().flat_map(|http| {
            let maps = http.main.map.maps.iter().flat_map(|map| &map.uses);
            let formats = http.main.log.formats.iter().flat_map(|format| &format.uses);
            http.uses.iter().chain(maps).chain(formats)
        });
        all.for_each(|used| *users.entry(used.clone()).or_default() += 1);
        let sum = http.as_ref().map_or_else(Sum::default, |http| sum_of(http));
        Self { http, users, setters: HashMap::new(), sum }
    }

    fn users(&self, used: &Use) -> i64 {
        self.users.get(used).copied().unwrap_or_default().into()
    }

    fn setters(&self, name: &str) -> i64 {
        self.setters.get(name).copied().unwrap_or_default().into()
    }

    /// The variables that `http` uses, with how many vhosts set each.
    fn named(&self) -> Vec<(Arc<str>, i64)> {
        let name = |used: &Use| match used {
            Use::Named(name) => Some((Arc::clone(name), self.setters(name))),
            Use::Map(_) | Use::Format(_) => None,
        };
        let mut named: Vec<_> = self.users.keys().filter_map(name).collect();
        named.sort();
        named
    }

    /// The part of a digest that follows definitions.
    pub(super) fn digest(&self) -> Sum {
        Sum::of(Of::Definition, (self.sum, self.named()))
    }

    /// What they are, a line for each, in an order that does not depend on their history.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.numbered().into_iter().filter(|line| !line.is_empty()).collect();
        lines.sort();
        lines.extend(self.named().into_iter().map(|(name, count)| format!("${name}: set by {count} vhost(s)\n")));
        lines
    }

    /// Maps, then formats, in the order of their numbers.
    pub(super) fn numbered(&self) -> Vec<String> {
        let main = self.http.iter().map(|http| &http.main);
        let maps = main.clone().flat_map(|main| &main.map.maps).map(|map| match &*map.name {
            "" => String::new(),
            name => format!("map ${name}: words {}\n", map.digest),
        });
        let formats = main.flat_map(|main| &main.log.formats).map(|format| match &*format.name {
            "" => String::new(),
            name => format!("log_format {name}: words {}\n", format.digest),
        });
        maps.chain(formats).collect()
    }

    /// The same, counted from the definitions.
    pub(super) fn counted_digest(&self) -> Sum {
        let sum = self.http.as_ref().map_or_else(Sum::default, |http| sum_of(http));
        Sum::of(Of::Definition, (sum, self.named()))
    }
}

/// By what the blocks say. Of two maps of one variable the last one counts, so the order of those does.
fn sum_of(http: &Http) -> Sum {
    let mut same: HashMap<&str, u32> = HashMap::new();
    let maps = http.main.map.maps.iter().filter(|map| !map.name.is_empty()).map(|map| {
        let number = same.entry(&map.name).or_default();
        *number += 1;
        Sum::of(Of::Definition, ("map", &*map.name, *number, map.digest.0))
    });
    let mut sum: Sum = maps.sum();
    let formats = http.main.log.formats.iter().filter(|format| !format.name.is_empty());
    sum += formats.map(|format| Sum::of(Of::Definition, ("log_format", &*format.name, format.digest.0))).sum();
    sum
}

impl Cycle {
    /// `http {}`, if the configuration has one.
    pub fn http(&self) -> Option<Rc<Http>> {
        self.definitions.borrow().http.clone()
    }

    /// What belongs to `http` alone, maps and log formats included: as it is now.
    pub fn main(&self) -> Arc<MainConf> {
        self.definitions.borrow().http.as_ref().map(|http| Arc::clone(&http.main)).unwrap_or_default()
    }

    pub(super) fn prepare_definitions(&self, change: &Change, gone: &[Part], new: &[Part]) -> Result<Defined, Refusal> {
        let now = self.definitions.borrow();
        let mut defined = Defined::default();
        for (vhosts, by) in [(gone, -1), (new, 1)] {
            for vhost in vhosts {
                let (uses, variables) = vhost.uses();
                defined.count(&uses, &variables, by);
            }
        }
        if change.kind == Kind::Load {
            return Ok(defined);
        }
        if let Some(http) = &now.http
            && change.defines()
        {
            let main = &http.main;
            let formats = Replaced { all: &main.log.formats, new: &change.formats, names: &change.touched_formats };
            let maps = Replaced { all: &main.map.maps, new: &change.maps, names: &change.touched_maps };
            formats.count(&mut defined);
            maps.count(&mut defined);
            if change.touched_formats.iter().any(|name| **name == *"combined") {
                return Err(wrong("duplicate \"log_format\" name \"combined\"".into()));
            }
            let log = Arc::new(log::Main { formats: formats.replace(&now, &defined, change.kind)? });
            formats.check_moved(http)?;
            let map = Arc::new(map::Main { maps: maps.replace(&now, &defined, change.kind)? });
            maps.check_setters(&now, &defined)?;
            let main = Arc::new(MainConf { map, log, ..MainConf::clone(main) });
            defined.http = Some(Rc::new(Http { main, ..Http::clone(http) }));
        }
        defined.check_named(&now)?;
        Ok(defined)
    }

    pub(super) fn commit_definitions(&self, defined: Defined) {
        let mut now = self.definitions.borrow_mut();
        apply(&mut now.users, defined.users);
        apply(&mut now.setters, defined.setters);
        if let Some(http) = defined.http {
            now.sum = sum_of(&http);
            now.http = Some(http);
        }
    }
}

impl Change {
    /// Whether maps or log formats come, change or go.
    pub(super) fn defines(&self) -> bool {
        !(self.maps.is_empty()
            && self.formats.is_empty()
            && self.touched_maps.is_empty()
            && self.touched_formats.is_empty())
    }
}

/// Adds differences to counters; those at 0 are not kept.
fn apply<K: Eq + std::hash::Hash>(counters: &mut HashMap<K, u32>, differences: HashMap<K, i64>) {
    for (key, difference) in differences {
        let count = counters.get(&key).copied().unwrap_or_default();
        match u32::try_from(i64::from(count) + difference).unwrap_or_default() {
            0 => drop(counters.remove(&key)),
            count => drop(counters.insert(key, count)),
        }
    }
}

impl Defined {
    /// Whether maps or log formats come, change or go.
    pub(super) fn is_some(&self) -> bool {
        self.http.is_some()
    }

    fn count(&mut self, uses: &[Use], variables: &[&str], by: i64) {
        for used in uses {
            *self.users.entry(used.clone()).or_default() += by;
        }
        for name in variables {
            *self.setters.entry(Arc::from(*name)).or_default() += by;
        }
    }

    fn users(&self, now: &Definitions, used: &Use) -> i64 {
        now.users(used) + self.users.get(used).copied().unwrap_or_default()
    }

    fn setters(&self, now: &Definitions, name: &str) -> i64 {
        now.setters(name) + self.setters.get(name).copied().unwrap_or_default()
    }

    /// A variable that `http` uses must be set by some vhost, or the next start fails.
    fn check_named(&self, now: &Definitions) -> Result<(), Refusal> {
        let new = self.users.keys().filter_map(|used| match used {
            Use::Named(name) => Some(name),
            Use::Map(_) | Use::Format(_) => None,
        });
        let lost = new
            .chain(self.setters.keys())
            .filter(|name| self.setters(now, name) <= 0 && self.users(now, &Use::Named(Arc::clone(name))) > 0);
        match lost.min() {
            Some(name) => Err(wrong(format!("unknown \"{name}\" variable: http uses it and no other vhost sets it"))),
            None => Ok(()),
        }
    }
}

/// The definitions of one kind in a change.
struct Replaced<'r, T> {
    all: &'r [Arc<T>],
    new: &'r [(u16, Arc<T>)],
    /// Those that may be replaced or go.
    names: &'r [Arc<str>],
}

impl<T: Definition> Replaced<'_, T> {
    fn old(&self) -> impl Iterator<Item = (u16, &Arc<T>)> {
        let named = |definition: &T| self.names.iter().any(|name| **name == *definition.head().name);
        (0..).zip(self.all).filter(move |(_, definition)| !definition.head().name.is_empty() && named(definition))
    }

    fn count(&self, defined: &mut Defined) {
        self.old().for_each(|(_, definition)| defined.count(definition.head().uses, &[], -1));
        self.new.iter().for_each(|(_, definition)| defined.count(definition.head().uses, &[], 1));
    }

    /// The table after the change.
    fn replace(&self, now: &Definitions, defined: &Defined, kind: Kind) -> Result<Vec<Arc<T>>, Refusal> {
        let what = T::WHAT;
        let mut seen: HashMap<&str, &T> = HashMap::new();
        for (_, definition) in self.new {
            if seen.insert(definition.head().name, definition).is_some() {
                return Err(twice::<T>(definition.head().name, definition.head().place));
            }
        }
        let mut standing: HashMap<&str, u16> = HashMap::new();
        for (index, definition) in self.old() {
            let name = definition.head().name;
            if standing.insert(name, index).is_some() || (kind == Kind::Add && seen.contains_key(name)) {
                return Err(twice::<T>(name, definition.head().place));
            }
        }
        let mut all = self.all.to_vec();
        for name in self.names {
            match (standing.get(&**name), seen.get(&**name)) {
                (Some(index), None) => {
                    let users = defined.users(now, &T::user(*index));
                    if users > 0 {
                        return Err(wrong(format!("{}: {users} other(s) use it", T::unknown(name))));
                    }
                    check_family::<T>(name)?;
                    all[usize::from(*index)] = Arc::default();
                }
                (None, None) => return Err(wrong(format!("no {what} is named \"{name}\""))),
                (None, Some(_)) => check_family::<T>(name)?,
                (Some(_), Some(_)) => {}
            }
        }
        for (index, definition) in self.new {
            let index = usize::from(*index);
            if all.len() <= index {
                all.resize_with(index + 1, Arc::default);
            }
            all[index] = Arc::clone(definition);
        }
        Ok(all)
    }
}

fn check_family<T: Definition>(name: &str) -> Result<(), Refusal> {
    let takes_part = T::WHAT == Map::WHAT && FAMILIES.iter().any(|family| name.starts_with(family));
    match takes_part {
        true => Err(Refusal::NeedsReload(format!("\"${name}\" means something without its map, too"))),
        false => Ok(()),
    }
}

/// nginx takes the last of two maps, and no two formats.
fn twice<T: Definition>(name: &str, place: Option<&Place>) -> Refusal {
    let place = place.map(|place| format!(" in {place}")).unwrap_or_default();
    match T::WHAT == Map::WHAT {
        true => Refusal::NeedsReload(format!("the map of \"${name}\" is defined twice, once{place}")),
        false => wrong(format!("duplicate \"log_format\" name \"{name}\"{place}")),
    }
}

impl Replaced<'_, Format> {
    /// An `access_log` of `http` itself must stand behind its format.
    fn check_moved(&self, http: &Http) -> Result<(), Refusal> {
        for (index, format) in self.new {
            let old = self.all.get(usize::from(*index)).filter(|old| old.name == format.name);
            if let Some((old, (from, to))) = old.map(|old| (old, (&old.place, &format.place)))
                && http.uses.contains(&Use::Format(*index))
                && from.as_ref().map(|place| &place.file) != to.as_ref().map(|place| &place.file)
            {
                return Err(Refusal::NeedsReload(format!(
                    "log_format \"{}\", which http itself uses, moves",
                    old.name
                )));
            }
        }
        Ok(())
    }
}

impl Replaced<'_, Map> {
    /// A variable that a vhost sets is its own.
    fn check_setters(&self, now: &Definitions, defined: &Defined) -> Result<(), Refusal> {
        for (_, map) in self.new {
            let setters = defined.setters(now, &map.name);
            if setters > 0 {
                let name = &map.name;
                return Err(wrong(format!(
                    "the \"{name}\" variable is made by a map, to set it is not supported: {setters} other vhost(s) do"
                )));
            }
        }
        Ok(())
    }
}
