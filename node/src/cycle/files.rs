//! How many vhosts, upstreams, maps and log formats stand in each file: so that a task which reads a file anew notices what
//! it held and holds no more, although the task does not name it. The next start would be without it.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::model::Http;
use dysvr_conf::problem::Place;
use rustc_hash::FxBuildHasher;

use super::upstream::Cells;
use super::{Change, Cycle, Kind, Refusal, Vhost};

/// A file by its path as bytes: by component costs several times as much, and a load names some hundred thousand.
#[derive(Debug)]
struct Name(Arc<Path>);

impl Borrow<OsStr> for Name {
    fn borrow(&self) -> &OsStr {
        self.0.as_os_str()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_os_str() == other.0.as_os_str()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_os_str().hash(state);
    }
}

type Counts = HashMap<Name, i64, FxBuildHasher>;

/// The counters, all above zero.
#[derive(Debug, Default)]
pub(super) struct Files(Counts);

/// What a change adds to them.
#[derive(Debug, Default)]
pub(super) struct Moves(Counts);

impl Moves {
    fn count(&mut self, place: &Place, by: i64) {
        *self.0.entry(Name(Arc::clone(&place.file))).or_default() += by;
    }
}

impl Files {
    /// Those of a load, before its vhosts and upstreams come.
    pub(super) fn new(http: Option<&Http>) -> Self {
        let mut moves = Moves::default();
        let maps = http.iter().flat_map(|http| &http.main.map.maps).filter_map(|map| map.place.as_ref());
        let formats = http.iter().flat_map(|http| &http.main.log.formats).filter_map(|format| format.place.as_ref());
        maps.chain(formats).for_each(|place| moves.count(place, 1));
        let mut files = Self::default();
        files.apply(moves);
        files
    }

    fn apply(&mut self, moves: Moves) {
        if self.0.is_empty() {
            self.0 = moves.0;
            self.0.retain(|_, count| *count > 0);
            return;
        }
        for (file, by) in moves.0 {
            match self.0.get(&file).copied().unwrap_or_default() + by {
                count @ 1.. => drop(self.0.insert(file, count)),
                _ => drop(self.0.remove(&file)),
            }
        }
    }
}

impl Cycle {
    pub(super) fn prepare_files(&self, change: &Change, gone: &[Rc<Vhost>], cells: &Cells) -> Result<Moves, Refusal> {
        let mut moves = Moves::default();
        gone.iter().for_each(|vhost| moves.count(&vhost.conf.place, -1));
        cells.standing(self).for_each(|conf| moves.count(&conf.place, -1));
        if let Some(http) = self.http().filter(|_| change.defines()) {
            let named = |names: &[Arc<str>], name: &Arc<str>| names.contains(name);
            let maps = http.main.map.maps.iter().filter(|map| named(&change.touched_maps, &map.name));
            let formats = http.main.log.formats.iter().filter(|format| named(&change.touched_formats, &format.name));
            let places = maps.filter_map(|map| map.place.as_ref());
            places.chain(formats.filter_map(|format| format.place.as_ref())).for_each(|place| moves.count(place, -1));
        }
        if change.kind != Kind::Load {
            let files = self.files.borrow();
            for file in &change.files {
                let of = |counts: &Counts| counts.get(file.as_os_str()).copied().unwrap_or_default();
                let left = of(&files.0) + of(&moves.0);
                if left > 0 {
                    let file = file.display();
                    return Err(Refusal::NeedsReload(format!(
                        "the task does not name all that stood in {file}: {left} more"
                    )));
                }
            }
        }
        change.vhosts.iter().for_each(|vhost| moves.count(&vhost.place, 1));
        change.upstreams.iter().for_each(|upstream| moves.count(&upstream.place, 1));
        let maps = change.maps.iter().filter_map(|(_, map)| map.place.as_ref());
        let formats = change.formats.iter().filter_map(|(_, format)| format.place.as_ref());
        maps.chain(formats).for_each(|place| moves.count(place, 1));
        Ok(moves)
    }

    pub(super) fn commit_files(&self, moves: Moves) {
        self.files.borrow_mut().apply(moves);
    }
}
