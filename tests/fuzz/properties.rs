//! What must hold for any bytes that reach a parser from outside: no panic, and what was accepted means one thing. Each
//! function is a fuzz target, and `make test` runs it over the target's corpus.

use std::path::Path;

use dysvr_conf::bundle::{Assumptions, Bundle, assign_vsvc_ids, validate_bundle};
use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, Running, load, load_fragment};
use dysvr_conf::model::Http;
use dysvr_conf::source::Memory;
use dysvr_node::cycle::{self, Change, Cycle};
use dysvr_node::dysvr::message::{self, Message};
use dysvr_node::dysvr::update::change_of;
use dysvr_node::task::TaskFile;

const CONF: &str = "/p/conf/nginx.conf";
const VHOST: &str = "/p/conf/auto_vhost/v.conf";
const TASK: &str = "/p/dysvr_1.conf";
const BASE: &str = "events {} http { access_log off; upstream u { server 127.0.0.1:9; } include auto_vhost/*.conf;
    server { vsvc_id 1; listen 80; server_name base; return 404; } }";

fn options() -> LoadOptions {
    LoadOptions { conf: CONF.into(), prefix: "/p".into(), globals: String::new(), privileged: true }
}

fn base() -> Memory {
    let mut files = Memory::default();
    files.insert(CONF, BASE);
    files
}

fn http(files: &mut Memory) -> Option<Http> {
    load(&options(), files, &mut Interner::default()).ok()?.http
}

/// A configuration file: as `nginx.conf`, as a vhost's file that is loaded with the rest and joins in place, and in a
/// bundle.
pub fn configuration(bytes: &[u8]) {
    let mut main = Memory::default();
    main.insert(CONF, bytes);
    let said = |files: &mut Memory| match load(&options(), files, &mut Interner::default()) {
        Ok(config) => config
            .http
            .map(|http| http.vhosts.iter().map(|vhost| vhost.digest).collect::<Vec<_>>())
            .ok_or(String::new()),
        Err(problems) => Err(problems.to_string()),
    };
    assert_eq!(said(&mut main), said(&mut main), "one text, one result");

    let mut files = base();
    let running = http(&mut files).expect("the base loads");
    files.insert(VHOST, bytes);
    files.insert(TASK, format!("include {VHOST};\n"));
    let known = |name: &str| (name == "u").then(|| "u".into());
    let fragment =
        load_fragment(&Running::new(&running, &known), Path::new(TASK), &mut files, &mut Interner::default());
    if let (Ok(fragment), Some(full)) = (fragment, http(&mut files)) {
        // The base's own vhost and upstream apart, which stand behind and before the include.
        let joined: Vec<_> = fragment.vhosts.iter().map(|vhost| (&vhost.order, vhost.digest)).collect();
        let loaded: Vec<_> = full.vhosts.iter().map(|vhost| (&vhost.order, vhost.digest)).collect();
        assert_eq!(joined, loaded[..loaded.len() - 1], "vhosts in place, by a full load");
        let joined: Vec<_> = fragment.upstreams.iter().map(|upstream| (&upstream.name, upstream.digest)).collect();
        let loaded: Vec<_> = full.upstreams.iter().map(|upstream| (&upstream.name, upstream.digest)).collect();
        assert_eq!(joined, loaded[1..], "upstreams in place, by a full load");
    }

    if let Ok(text) = std::str::from_utf8(bytes) {
        let assigned = assign_vsvc_ids(text, 7);
        let mut bundle = Bundle::default();
        if bundle.insert(b"auto_vhost/v.conf", assigned.text.as_bytes()).is_ok() {
            let _ = validate_bundle(&bundle, &Assumptions::default());
        }
    }
}

/// A task file: what is read from it is what its own bytes say.
pub fn task_file(bytes: &[u8]) {
    let Ok(tasks) = TaskFile::parse(bytes) else { return };
    let again = TaskFile::parse(&tasks.encode());
    assert_eq!(again.as_ref(), Ok(&tasks), "{}", String::from_utf8_lossy(bytes));
}

/// The message between master and workers.
pub fn message(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else { return };
    let config = cycle::load(&options(), &mut base(), &mut Interner::default()).expect("the base loads");
    let cycle = Cycle::load(config).expect("the base is a cycle");
    match message {
        Message::Light(delta) => {
            let again = Message::decode(&message::encode_light(&delta));
            let Ok(Message::Light(again)) = again else { panic!("{delta:?} became {again:?}") };
            assert_eq!(again, delta);
            // Places at which nothing stands, or something else than is said.
            let _ = cycle.prepare(delta.into());
        }
        Message::Read { task, placed, sources } => {
            let again = Message::decode(&message::encode_read(&task.to_string(), &placed, &sources.encode()));
            let Ok(Message::Read { task: one, placed: two, sources: three }) = again else {
                panic!("{task} became {again:?}")
            };
            assert_eq!((&one, &two, &three), (&task, &placed, &sources));
            if let Ok(read) = change_of(&task, &cycle, &mut sources.replay(), &mut Interner::default(), None) {
                let _ = cycle.prepare(Change { placed: Some(placed), ..read });
            }
        }
    }
}
