//! Maps and log formats: what `http` defines by name and directives refer to by index, so that a definition can be replaced
//! under those who use it.

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Load;
use super::block::Pending;
use super::files::Site;
use crate::directive::{self, HTTP};
use crate::http::log::Format;
use crate::http::map::Map;
use crate::model::{Http, Use};
use crate::syntax::Directive;

/// Where a fragment's definitions go.
#[derive(Default)]
pub(crate) struct Slots {
    /// Whether the definitions join others that run.
    joining: bool,
    /// The indices that the fragment's maps got, in the order of their names' first appearance.
    maps: FxHashMap<String, u16>,
    /// The indices of what the fragment may replace.
    old_maps: FxHashMap<String, u16>,
    old_formats: FxHashMap<String, u16>,
    free_maps: Free,
    free_formats: Free,
    /// The fragment's formats.
    pub(crate) formats: Vec<u16>,
}

/// Indices that nothing has.
#[derive(Default)]
struct Free {
    holes: std::vec::IntoIter<u16>,
    next: u16,
}

impl Free {
    fn new<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> Self {
        let next = u16::try_from(names.len()).unwrap_or(u16::MAX);
        let holes: Vec<u16> = (0..).zip(names).filter(|(_, name)| name.is_empty()).map(|(index, _)| index).collect();
        Self { holes: holes.into_iter(), next }
    }

    fn take(&mut self) -> u16 {
        self.holes.next().unwrap_or_else(|| {
            let index = self.next;
            self.next = self.next.saturating_add(1);
            index
        })
    }
}

impl<'a> Load<'a> {
    /// Makes the definitions of a running `http` known, but for those that the fragment may replace.
    pub(crate) fn join_definitions(&mut self, http: &Http, maps: &[String], formats: &[String]) {
        let replaced: FxHashSet<String> = maps.iter().map(|name| name.to_ascii_lowercase()).collect();
        self.slots.joining = true;
        for (index, map) in (0..).zip(&http.main.map.maps) {
            if replaced.contains(&*map.name) {
                self.slots.old_maps.insert(map.name.to_string(), index);
            } else if !map.name.is_empty() {
                self.maps.insert(Arc::clone(&map.name), index);
            }
        }
        self.slots.free_maps = Free::new(http.main.map.maps.iter().map(|map| &*map.name));
        self.slots.free_formats = Free::new(http.main.log.formats.iter().map(|format| &*format.name));
        self.formats.clone_from(&http.main.log.formats);
        for (index, format) in (0..).zip(&mut self.formats) {
            if formats.iter().any(|name| **name == *format.name) {
                self.slots.old_formats.insert(format.name.to_string(), index);
                *format = Arc::new(Format::default());
            }
        }
    }

    /// Makes the names of maps known before anything uses them, and gives the directives with their includes expanded.
    pub(crate) fn name_maps(&mut self, site: &Arc<Site>, directives: &'a [Directive<'a>]) -> Vec<Pending<'a>> {
        let mut all = Vec::new();
        let mut count: u16 = 0;
        self.expand(site, directives, &mut |load, site, directive| {
            all.push((Arc::clone(site), directive));
            if directive.name() == "map" && directive::find(directive, HTTP).is_ok() {
                if let Some(name) = directive.words[2].text.strip_prefix('$') {
                    let name = name.to_ascii_lowercase();
                    let index = if load.slots.joining { load.slots.map(&name) } else { count };
                    load.maps.insert(name.into(), index);
                }
                count = count.saturating_add(1);
            }
        });
        all
    }

    /// The index of a log format.
    pub(crate) fn format(&self, name: &str) -> Option<u16> {
        let named = |format: &Arc<Format>| *format.name == *name && !name.is_empty();
        let index = self.formats.iter().position(named)?;
        u16::try_from(index).ok()
    }

    /// Puts a log format into its place.
    pub(crate) fn define_format(&mut self, format: Format) {
        if !self.slots.joining {
            return self.formats.push(Arc::new(format));
        }
        let old = self.slots.old_formats.get(&*format.name).copied();
        let index = old.unwrap_or_else(|| self.slots.free_formats.take());
        if self.formats.len() <= usize::from(index) {
            self.formats.resize_with(usize::from(index) + 1, Arc::default);
        }
        self.formats[usize::from(index)] = Arc::new(format);
        self.slots.formats.push(index);
    }

    /// Says which of the maps at `from` refer to themselves, directly or through others.
    pub(crate) fn check_map_cycles(&mut self, maps: &[Arc<Map>], from: impl IntoIterator<Item = usize>) {
        let mut known = vec![State::Unknown; maps.len()];
        for index in from {
            if is_cyclic(maps, index, &mut known)
                && let Some(map) = maps.get(index)
                && let Some(place) = &map.place
            {
                self.problem_at(&map.order, place, format!("the map of \"${}\" refers to itself", map.name));
            }
        }
    }
}

impl Slots {
    fn map(&mut self, name: &str) -> u16 {
        if let Some(index) = self.maps.get(name) {
            return *index;
        }
        let old = self.old_maps.get(name).copied();
        let index = old.unwrap_or_else(|| self.free_maps.take());
        self.maps.insert(name.to_owned(), index);
        index
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Unknown,
    Entered,
    Fine,
    Cyclic,
}

/// Walks the uses of a map without recursion: there may be as many maps as there are numbers of 16 bits.
fn is_cyclic(maps: &[Arc<Map>], from: usize, known: &mut [State]) -> bool {
    let uses = |index: usize| -> Range<usize> { 0..maps.get(index).map_or(0, |map| map.uses.len()) };
    let mut path: Vec<(usize, Range<usize>)> = Vec::new();
    match known.get(from) {
        Some(State::Unknown) => path.push((from, uses(from))),
        Some(state) => return *state == State::Cyclic,
        None => return false,
    }
    known[from] = State::Entered;
    while let Some((index, rest)) = path.last_mut() {
        let index = *index;
        let Some(used) = rest.next() else {
            known[index] = State::Fine;
            path.pop();
            continue;
        };
        let Use::Map(used) = maps[index].uses[used] else { continue };
        let used = usize::from(used);
        match known.get(used) {
            Some(State::Unknown) => {
                known[used] = State::Entered;
                path.push((used, uses(used)));
            }
            Some(State::Entered | State::Cyclic) => {
                path.iter().for_each(|(index, _)| known[*index] = State::Cyclic);
                return true;
            }
            Some(State::Fine) | None => {}
        }
    }
    false
}
