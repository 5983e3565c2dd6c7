//! How many vhosts, upstreams, maps and log formats stand in each file: so that a task which reads a file anew notices what
//! it held and holds no more, although the task does not name it. The next start would be without it.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::path::Path;
use std::sync::Arc;

use dysvr_conf::model::Http;
use rustc_hash::FxBuildHasher;

use super::entry::Part;
use super::upstream::Cells;
use super::{Change, Cycle, Kind, Refusal};

/// A file by the hash of its path as bytes: there are as many as vhosts, and whoever asks has the path. Should two files
/// meet, a task that is right would be sent the way of a reload.
pub(super) type Name = u64;

pub(super) fn name(file: &Path) -> Name {
    FxBuildHasher.hash_one(file.as_os_str())
}

type Counts = HashMap<Name, i64, FxBuildHasher>;

/// The counters, all above zero.
#[derive(Debug, Default)]
pub(super) struct Files(Counts);

/// What a change adds to them.
#[derive(Debug, Default)]
pub(super) struct Moves(Counts);

impl Moves {
    fn count(&mut self, file: Name, by: i64) {
        *self.0.entry(file).or_default() += by;
    }
}

impl Files {
    /// Those of a load, before its vhosts and upstreams come.
    pub(super) fn new(http: Option<&Http>) -> Self {
        let mut moves = Moves::default();
        let maps = http.iter().flat_map(|http| &http.main.map.maps).filter_map(|map| map.place.as_ref());
        let formats = http.iter().flat_map(|http| &http.main.log.formats).filter_map(|format| format.place.as_ref());
        maps.chain(formats).for_each(|place| moves.count(name(&place.file), 1));
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
    pub(super) fn prepare_files(
        &self,
        change: &Change,
        gone: &[Part],
        new: &[Part],
        cells: &Cells,
    ) -> Result<Moves, Refusal> {
        let mut moves = Moves::default();
        if change.placed.is_some() {
            return Ok(moves); // the master has counted, and nobody asks a worker
        }
        gone.iter().for_each(|vhost| moves.count(vhost.entry.file(), -1));
        cells.leaves(self).for_each(|file| moves.count(file, -1));
        if let Some(http) = self.http().filter(|_| change.defines()) {
            let named = |names: &[Arc<str>], name: &Arc<str>| names.contains(name);
            let maps = http.main.map.maps.iter().filter(|map| named(&change.touched_maps, &map.name));
            let formats = http.main.log.formats.iter().filter(|format| named(&change.touched_formats, &format.name));
            let places = maps.filter_map(|map| map.place.as_ref());
            places
                .chain(formats.filter_map(|format| format.place.as_ref()))
                .for_each(|place| moves.count(name(&place.file), -1));
        }
        if change.kind != Kind::Load {
            let files = self.files.borrow();
            for file in &change.files {
                let of = |counts: &Counts| counts.get(&name(file)).copied().unwrap_or_default();
                let left = of(&files.0) + of(&moves.0);
                if left > 0 {
                    let file = file.display();
                    return Err(Refusal::NeedsReload(format!(
                        "the task does not name all that stood in {file}: {left} more"
                    )));
                }
            }
        }
        moves.0.reserve(new.len());
        new.iter().for_each(|vhost| moves.count(vhost.entry.file(), 1));
        cells.enters().for_each(|file| moves.count(file, 1));
        let maps = change.maps.iter().filter_map(|(_, map)| map.place.as_ref());
        let formats = change.formats.iter().filter_map(|(_, format)| format.place.as_ref());
        maps.chain(formats).for_each(|place| moves.count(name(&place.file), 1));
        Ok(moves)
    }

    pub(super) fn commit_files(&self, moves: Moves) {
        self.files.borrow_mut().apply(moves);
    }
}
