//! From a task line to a change of the cycle. Master and workers both call this, on the same bytes.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::{Running, load_fragment_keeping};
use dysvr_conf::model::{self, Http, OrderKey, OrderStep, VsvcId};
use dysvr_conf::problem::Place;
use dysvr_conf::source::Source;

use rustc_hash::FxHashSet;

use crate::cycle::{Change, Cycle, Delta, Kind, Recorded, RecordedUpstream, Records, Refusal, Stamp};
use crate::task::{self, TaskLine};

/// What a task holds.
type Fragment = model::Fragment<Recorded, RecordedUpstream>;

/// Runs what reads or prepares a configuration: should that panic, it is refused, and the process lives on. (The panic is
/// a line of the log.)
pub fn guarded<T>(read: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    // What it changes beside its result is what strings and expressions are shared by: whole entries.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(Refusal::Wrong("reading it made the proxy panic, which is a defect of the proxy".into()))
    })
}

/// Is told of what workers can prepare while the master still checks it.
pub type Early<'e> = dyn FnMut(&Delta) + 'e;

/// Reads the task's configuration and checks that the task line agrees with it. `early`, in the master: others wait for it
/// meanwhile, so that it may use the machine.
pub fn change_of(
    task: &TaskLine,
    cycle: &Cycle,
    source: &mut dyn Source,
    interner: &mut Interner,
    mut early: Option<&mut Early<'_>>,
) -> Result<Change, Refusal> {
    let Some(http) = cycle.http() else {
        return Err(Refusal::NeedsReload("the running configuration has no http block".into()));
    };
    let touched = OnceCell::new();
    let is_touched = |name: &str| {
        let names = || task.ups_ids.iter().map(|name| name.to_ascii_lowercase()).collect::<FxHashSet<String>>();
        touched.get_or_init(names).contains(name)
    };
    let known = |name: &str| {
        let cell = cycle.upstream(name).filter(|_| !is_touched(name))?;
        Some(cell.name())
    };
    let standing = OnceCell::new();
    let reached = |file: &Path| standing.get_or_init(|| standing_in(task, cycle)).get(file).cloned();
    let maps: Vec<String> = task.maps.iter().map(|name| name.to_ascii_lowercase()).collect();
    let alone = early.is_some();
    let running =
        Running { http: &http, upstream: &known, reached: &reached, maps: &maps, formats: &task.formats, alone };
    let stamp = Stamp { task_id: Some(task.task_id.0), revision: task.revision.map(|revision| revision.0) };
    let kind = match task.kind {
        task::Kind::Add => Kind::Add,
        task::Kind::Modify => Kind::Modify,
        task::Kind::Delete => Kind::Delete,
        task::Kind::Set => Kind::Set,
    };
    // A new upstream is not there to be touched; whatever else is named may change or go.
    let touched: Vec<Arc<str>> = match kind {
        Kind::Add => Vec::new(),
        _ => task.ups_ids.iter().map(|name| name.as_str().into()).collect(),
    };
    let vhosts_alone = task.maps.is_empty() && task.formats.is_empty();
    let mut put = Ok(None);
    let mut made = |vhosts: &mut [Recorded], upstreams: &[RecordedUpstream]| {
        if let Some(early) = &mut early
            && vhosts_alone
            && vhosts.len() == task.vsvc_ids.len()
        {
            put = cycle.put_early(kind, stamp, &touched, vhosts, upstreams);
            put.iter().flatten().for_each(|put| early(put.delta()));
        }
    };
    let fragment = load_fragment_keeping(&running, &task.conf, source, interner, &Records(stamp), &mut made)
        .map_err(|problems| Refusal::Wrong(problems.to_string().replace('\n', "; ")))?;
    let put = put?;
    check_ids(task, &fragment)?;
    if task.kind != task::Kind::Add {
        check_moved(&fragment, cycle, &http, source)?;
    }
    let ids = task.vsvc_ids.iter().copied().map(VsvcId);
    let removed = match kind {
        Kind::Delete => ids.collect(),
        Kind::Set => {
            let held: BTreeSet<VsvcId> = fragment.vhosts.iter().filter_map(|vhost| vhost.vsvc_id).collect();
            ids.filter(|id| !held.contains(id)).collect()
        }
        Kind::Load | Kind::Add | Kind::Modify => Vec::new(),
    };
    Ok(Change {
        kind,
        vhosts: fragment.vhosts,
        upstreams: fragment.upstreams,
        maps: fragment.maps,
        formats: fragment.formats,
        files: fragment.files,
        placed: None,
        put,
        touched_maps: maps.iter().map(|name| name.as_str().into()).collect(),
        touched_formats: task.formats.iter().map(|name| name.as_str().into()).collect(),
        removed,
        touched,
        stamp,
    })
}

/// What stood in another file must be gone from there: a full load would find it twice. A file that the task holds was
/// looked at, and of one that is no more nothing is left; another one may say anything by now.
fn check_moved(fragment: &Fragment, cycle: &Cycle, http: &Http, source: &mut dyn Source) -> Result<(), Refusal> {
    let mut check = |what: &dyn Display, from: &Place, to: &Place| {
        let moves = from.file != to.file && !fragment.files.iter().any(|file| **file == *from.file);
        match moves && source.read(&from.file).is_ok() {
            true => {
                Err(Refusal::NeedsReload(format!("{what} in {to} stands in {from}, too, which the task leaves out")))
            }
            false => Ok(()),
        }
    };
    for vhost in &fragment.vhosts {
        if let Some(old) = vhost.vsvc_id.and_then(|id| cycle.vhost(id)) {
            check(&"the vhost", &old.place(), &vhost.place)?;
        }
    }
    for upstream in &fragment.upstreams {
        if let Some(old) = cycle.upstream(&upstream.name) {
            check(&format_args!("upstream \"{}\"", upstream.name), &old.conf().place, &upstream.place)?;
        }
    }
    for (index, map) in &fragment.maps {
        if let Some(old) = http.main.map.maps.get(usize::from(*index)).filter(|old| old.name == map.name)
            && let (Some(from), Some(to)) = (&old.place, &map.place)
        {
            check(&format_args!("the map of \"${}\"", map.name), from, to)?;
        }
    }
    for (index, format) in &fragment.formats {
        if let Some(old) = http.main.log.formats.get(usize::from(*index)).filter(|old| old.name == format.name)
            && let (Some(from), Some(to)) = (&old.place, &format.place)
        {
            check(&format_args!("log_format \"{}\"", format.name), from, to)?;
        }
    }
    Ok(())
}

/// The files that hold what the task replaces, and how the source leads to them. What a vhost's file includes is changed
/// so without the vhost.
fn standing_in(task: &TaskLine, cycle: &Cycle) -> HashMap<Arc<Path>, Vec<OrderStep>> {
    let mut files = HashMap::new();
    let mut stands = |place: &Place, order: &OrderKey| {
        files.entry(Arc::clone(&place.file)).or_insert_with(|| order.steps_to_file().to_vec());
    };
    for upstream in task.ups_ids.iter().filter_map(|name| cycle.upstream(name)) {
        let conf = upstream.conf();
        stands(&conf.place, &conf.order);
    }
    if let Some(http) = cycle.http().filter(|_| !task.maps.is_empty() || !task.formats.is_empty()) {
        let named = |names: &[String], name: &str| names.iter().any(|other| other.eq_ignore_ascii_case(name));
        let maps = http.main.map.maps.iter().filter(|map| named(&task.maps, &map.name));
        let formats =
            http.main.log.formats.iter().filter(|format| task.formats.iter().any(|name| **name == *format.name));
        let places = maps.map(|map| (&map.place, &map.order));
        for (place, order) in places.chain(formats.map(|format| (&format.place, &format.order))) {
            place.iter().for_each(|place| stands(place, order));
        }
    }
    for vhost in task.vsvc_ids.iter().filter_map(|id| cycle.vhost(VsvcId(*id))) {
        stands(&vhost.place(), &vhost.order_key());
    }
    files
}

/// The ids of the line against what the configuration holds. For a delete that is nothing.
fn check_ids(task: &TaskLine, fragment: &Fragment) -> Result<(), Refusal> {
    let wrong = |text: String| Err(Refusal::Wrong(text));
    if task.vsvc_ids.is_empty() && task.ups_ids.is_empty() && task.maps.is_empty() && task.formats.is_empty() {
        return wrong("the task names neither vsvc_ids nor ups_ids, maps or formats".into());
    }
    // What goes is named and not held, but for what is added.
    let maps = fragment.maps.iter().map(|(_, map)| map.name.to_string());
    let said_maps = set(task.maps.iter().map(|name| name.to_ascii_lowercase()));
    check_names("maps", task, &said_maps, &set(maps))?;
    let formats = fragment.formats.iter().map(|(_, format)| format.name.to_string());
    check_names("formats", task, &set(task.formats.iter().cloned()), &set(formats))?;
    if let Some(vhost) = fragment.vhosts.iter().find(|vhost| vhost.vsvc_id.is_none()) {
        return wrong(format!("server without \"vsvc_id\" in {}", vhost.place));
    }
    let vsvc_ids = || fragment.vhosts.iter().filter_map(|vhost| vhost.vsvc_id).map(|id| id.0);
    let ups_ids = || fragment.upstreams.iter().map(|upstream| &*upstream.name);
    // There may be ten thousand, and mostly the line names them in the order of the files.
    if task.kind != task::Kind::Delete && vsvc_ids().eq(task.vsvc_ids.iter().copied()) && ups_ids().eq(&task.ups_ids) {
        return check_ports(task, fragment);
    }
    let (vsvc_ids, ups_ids) = (set(vsvc_ids()), set(ups_ids()));
    let said_vsvc_ids = set(task.vsvc_ids.iter().copied());
    let said_ups_ids = set(task.ups_ids.iter().map(String::as_str));
    let conf = task.conf.display();
    match task.kind {
        task::Kind::Delete if !vsvc_ids.is_empty() || !ups_ids.is_empty() => {
            wrong(format!("{conf} of a delete holds servers or upstreams"))
        }
        task::Kind::Delete => Ok(()),
        task::Kind::Set if !is_subset(&vsvc_ids, &said_vsvc_ids) => {
            wrong(format!("vsvc_ids={} but {conf} holds {}", list(&said_vsvc_ids), list(&vsvc_ids)))
        }
        task::Kind::Add | task::Kind::Modify if vsvc_ids != said_vsvc_ids => {
            wrong(format!("vsvc_ids={} but {conf} holds {}", list(&said_vsvc_ids), list(&vsvc_ids)))
        }
        task::Kind::Add if ups_ids != said_ups_ids => {
            wrong(format!("ups_ids={} but {conf} holds {}", list(&said_ups_ids), list(&ups_ids)))
        }
        task::Kind::Modify | task::Kind::Set if !is_subset(&ups_ids, &said_ups_ids) => {
            wrong(format!("ups_ids={} but {conf} holds {}", list(&said_ups_ids), list(&ups_ids)))
        }
        _ => check_ports(task, fragment),
    }
}

/// The names of the line against those that the configuration holds.
fn check_names(key: &str, task: &TaskLine, said: &[String], held: &[String]) -> Result<(), Refusal> {
    let conf = task.conf.display();
    let right = match task.kind {
        task::Kind::Add => said == held,
        task::Kind::Modify | task::Kind::Set => is_subset(held, said),
        task::Kind::Delete if !held.is_empty() => {
            return Err(Refusal::Wrong(format!("{conf} of a delete holds {key}")));
        }
        task::Kind::Delete => true,
    };
    match right {
        true => Ok(()),
        false => Err(Refusal::Wrong(format!("{key}={} but {conf} holds {}", list(said), list(held)))),
    }
}

/// Each port of the line must be one on which a vhost of the task listens.
fn check_ports(task: &TaskLine, fragment: &Fragment) -> Result<(), Refusal> {
    use dysvr_conf::model::ListenAddr;
    if task.ports.is_empty() {
        return Ok(());
    }
    let listens = fragment.vhosts.iter().flat_map(|vhost| &vhost.listens);
    let ports: BTreeSet<u16> = listens
        .filter_map(|listen| match &listen.addr {
            ListenAddr::Inet(addr) => Some(addr.port()),
            ListenAddr::Unix(_) => None,
        })
        .collect();
    match task.ports.iter().find(|port| !ports.contains(port)) {
        Some(port) => Err(Refusal::Wrong(format!("ports={port} but no vhost of the task listens on it"))),
        None => Ok(()),
    }
}

/// Sorted, each once.
fn set<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

fn is_subset<T: Ord>(part: &[T], whole: &[T]) -> bool {
    part.iter().all(|item| whole.binary_search(item).is_ok())
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".into();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
