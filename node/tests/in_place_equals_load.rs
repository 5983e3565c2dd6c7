//! Law 1: after any history of adds, modifies and deletes the running configuration answers as a fresh load of the same
//! files does. Random histories over overlapping names, default servers, addresses and upstreams; `DYSVR_SEED` repeats
//! one, `DYSVR_STEPS` makes it longer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, load};
use dysvr_conf::model::ListenAddr;
use dysvr_conf::source::Memory;
use dysvr_node::cycle::{Cycle, Refusal};
use dysvr_node::dysvr::update::change_of;
use dysvr_node::task::{Kind, TaskLine};
use dysvr_proto::id::TaskId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const CONF: &str = "/etc/dysvr/conf/nginx.conf";
const FILES: usize = 12;
const NAMES: [&str; 14] = [
    "a.example.com",
    "b.example.com",
    "*.example.com",
    ".example.com",
    "*.b.example.com",
    "www.example.*",
    "www.*",
    "~^(?<who>a|b)\\.example\\.com$",
    "~example",
    "~^www\\.",
    "\"\"",
    "_",
    "c.d.e",
    "www.example.org",
];
const HOSTS: [&str; 12] = [
    "a.example.com",
    "b.example.com",
    "x.b.example.com",
    "example.com",
    "z.example.com",
    "www.example.org",
    "www.example.net",
    "www.x.y",
    "",
    "_",
    "c.d.e",
    "nobody",
];
const LISTENS: [&str; 4] = ["80", "81", "127.0.0.1:80", "[::]:80"];

/// A vhost file: its ids and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    vsvc_id: u64,
    upstream: Option<String>,
    text: String,
}

fn random_file(rng: &mut StdRng, index: usize, vsvc_id: u64) -> File {
    let upstream = rng.random_bool(0.6).then(|| format!("ups{index}"));
    let mut text = String::new();
    if let Some(name) = &upstream {
        let _ = writeln!(text, "upstream {name} {{ server 127.0.0.1:{}; }}", 8000 + rng.random_range(0..3));
    }
    let _ = writeln!(text, "server {{\n    vsvc_id {vsvc_id};");
    let mut addresses: Vec<&str> = LISTENS.into_iter().filter(|_| rng.random_bool(0.5)).collect();
    if addresses.is_empty() {
        addresses.push(LISTENS[0]);
    }
    for address in addresses {
        let default = if rng.random_bool(0.1) { " default_server" } else { "" };
        let _ = writeln!(text, "    listen {address}{default};");
    }
    let names: Vec<&str> = NAMES.into_iter().filter(|_| rng.random_bool(0.25)).collect();
    if !names.is_empty() {
        let _ = writeln!(text, "    server_name {};", names.join(" "));
    }
    match &upstream {
        Some(name) => drop(writeln!(text, "    location / {{ proxy_pass http://{name}; }}\n}}")),
        None => drop(writeln!(text, "    location / {{ return 204; }}\n}}")),
    }
    File { vsvc_id, upstream, text }
}

fn source(files: &BTreeMap<usize, File>) -> Memory {
    let mut source = Memory::default();
    let main = "events {} http { access_log off; include auto_vhost/*.conf;
        server { listen 80; listen 81; listen [::]:80; server_name base; return 404; } }";
    source.insert(CONF, main);
    for (index, file) in files {
        source.insert(path_of(*index), &file.text);
    }
    source
}

fn path_of(index: usize) -> PathBuf {
    format!("/etc/dysvr/conf/auto_vhost/v{index:02}.conf").into()
}

fn fresh(files: &BTreeMap<usize, File>) -> Result<Cycle, String> {
    let options =
        LoadOptions { conf: CONF.into(), prefix: "/etc/dysvr".into(), globals: String::new(), privileged: true };
    let conf = load(&options, &mut source(files), &mut Interner::default()).map_err(|problems| problems.to_string())?;
    Cycle::load(conf).map_err(|refusal| refusal.to_string())
}

/// Everything that a client could tell apart: who answers for each host on each address, and who stands behind.
fn answers(cycle: &Cycle) -> String {
    let mut text = String::new();
    for address in ["0.0.0.0:80", "0.0.0.0:81", "127.0.0.1:80", "[::]:80"] {
        let Some(listener) = cycle.listener(&ListenAddr::Inet(address.parse().unwrap())) else {
            let _ = writeln!(text, "{address} -");
            continue;
        };
        for host in HOSTS {
            let found = listener.find(host.as_bytes()).unwrap();
            let upstreams: Vec<String> = found
                .vhost
                .upstreams
                .iter()
                .map(|cell| cell.get().conf.peers.iter().map(|peer| peer.addr.to_string()).collect())
                .collect();
            let _ = writeln!(
                text,
                "{address} {host:?} -> {:?} by {:?} to {upstreams:?}",
                found.vhost.conf.vsvc_id, found.regex
            );
        }
    }
    let _ = writeln!(text, "{} vhosts, sockets {:?}", cycle.vhost_count(), cycle.sockets());
    text
}

/// Runs one task in place; on success the files are those of the task.
fn task(
    cycle: &Cycle,
    interner: &mut Interner,
    files: &mut BTreeMap<usize, File>,
    id: u64,
    kind: Kind,
    change: (usize, Option<File>),
) -> Result<(), Refusal> {
    let (index, file) = change;
    let mut after = files.clone();
    let conf = PathBuf::from(format!("/run/dysvr_{id}.conf"));
    let mut line = TaskLine::new(kind, TaskId(id), conf.clone());
    let old = match &file {
        Some(file) => after.insert(index, file.clone()),
        None => after.remove(&index),
    };
    let mut includes = String::new();
    if file.is_some() {
        let _ = writeln!(includes, "include {};", path_of(index).display());
    }
    line.vsvc_ids.extend(file.as_ref().or(old.as_ref()).map(|file| file.vsvc_id));
    for name in [&file, &old].into_iter().flatten().filter_map(|file| file.upstream.clone()) {
        if !line.ups_ids.contains(&name) {
            line.ups_ids.push(name);
        }
    }
    let mut source = source(&after);
    source.insert(&conf, includes);
    let change = change_of(&line, cycle, &mut source, interner)?;
    let prepared = cycle.prepare(change)?;
    cycle.commit(prepared);
    *files = after;
    Ok(())
}

#[test]
fn the_last_vhost_that_sets_what_http_uses_stays() {
    let set = |id: u64| {
        let text = format!("server {{ vsvc_id {id}; listen 80; set $tenant t{id}; return 204; }}\n");
        File { vsvc_id: id, upstream: None, text }
    };
    let mut files = BTreeMap::from([(0, set(1)), (1, set(2))]);
    let mut all = source(&files);
    all.insert(CONF, "events {} http { log_format t $tenant; access_log off; include auto_vhost/*.conf; }");
    let options =
        LoadOptions { conf: CONF.into(), prefix: "/etc/dysvr".into(), globals: String::new(), privileged: true };
    let mut interner = Interner::default();
    let cycle = Cycle::load(load(&options, &mut all, &mut interner).unwrap()).unwrap();
    task(&cycle, &mut interner, &mut files, 1, Kind::Delete, (0, None)).unwrap();
    let refusal = task(&cycle, &mut interner, &mut files, 2, Kind::Delete, (1, None)).unwrap_err();
    assert!(refusal.to_string().contains("unknown \"tenant\" variable"), "{refusal}");
}

#[test]
fn any_history_in_place_answers_as_a_fresh_load() {
    let seed = std::env::var("DYSVR_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random::<u64>);
    let steps: u64 = std::env::var("DYSVR_STEPS").ok().and_then(|s| s.parse().ok()).unwrap_or(1500);
    println!("DYSVR_SEED={seed} DYSVR_STEPS={steps}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut files = BTreeMap::new();
    let mut interner = Interner::default();
    let cycle = fresh(&files).unwrap();
    let (mut done, mut refused) = (0, 0);
    for id in 1..=steps {
        let index = rng.random_range(0..FILES);
        let (kind, file) = match files.get(&index) {
            None => (Kind::Add, Some(random_file(&mut rng, index, index as u64 + 1))),
            Some(_) if rng.random_bool(0.4) => (Kind::Delete, None),
            Some(old) => (Kind::Modify, Some(random_file(&mut rng, index, old.vsvc_id))),
        };
        let before = answers(&cycle);
        let mut wanted = files.clone();
        match &file {
            Some(file) => drop(wanted.insert(index, file.clone())),
            None => drop(wanted.remove(&index)),
        }
        match task(&cycle, &mut interner, &mut files, id, kind, (index, file)) {
            Ok(()) => {
                done += 1;
                let full = fresh(&files).unwrap_or_else(|e| panic!("step {id}: in place was done, a load fails: {e}"));
                assert_eq!(
                    cycle.digest(),
                    cycle.counted_digest(),
                    "step {id}: the digest was kept wrongly\n{files:#?}"
                );
                assert_eq!(
                    cycle.digest(),
                    full.digest(),
                    "step {id} ({kind:?} v{index:02}): digests differ\n{files:#?}"
                );
                let (ours, full) = (answers(&cycle), answers(&full));
                let differ = ours.lines().zip(full.lines()).find(|(ours, full)| ours != full);
                assert_eq!(differ, None, "step {id} ({kind:?} v{index:02}): in place, fresh\n{files:#?}");
            }
            Err(refusal) => {
                refused += 1;
                assert_eq!(answers(&cycle), before, "step {id}: refused ({refusal}), but something changed");
                assert!(fresh(&wanted).is_err(), "step {id}: refused in place ({refusal}), but it loads");
            }
        }
    }
    println!("{done} done, {refused} refused");
    assert!(done > steps / 2 && refused > 0, "{done} done, {refused} refused");
}
