//! The seed's own files, loaded whole and as a task.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use dysvr_conf::http::Handler;
use dysvr_conf::http::proxy::Target;
use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, Running, load, load_fragment};
use dysvr_conf::model::{Config, Http, ListenAddr, UpstreamRef, VsvcId};
use dysvr_conf::source::Memory;

const PREFIX: &str = "/usr/local/services/nginx_install-1.0";
const TASK: &str = "/usr/local/services/nginx_install-1.0/l7_nginx/common/dysvr_25208.conf";

fn options() -> LoadOptions {
    LoadOptions {
        conf: Path::new(PREFIX).join("conf/nginx.conf"),
        prefix: PREFIX.into(),
        globals: String::new(),
        privileged: true,
    }
}

/// The fixtures where the original has them.
fn seed() -> Memory {
    fn add(from: &Path, to: &Path, files: &mut Memory) {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                add(&entry.path(), &to, files);
            } else {
                files.insert(to, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut files = Memory::default();
    let fixtures: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/seed"].iter().collect();
    add(&fixtures, &Path::new(PREFIX).join("conf"), &mut files);
    let task = files.files.remove(&Path::new(PREFIX).join("conf/dysvr_25208.conf")).unwrap();
    files.files.insert(TASK.into(), task);
    files
}

fn whole(files: &mut Memory) -> Config {
    load(&options(), files, &mut Interner::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn http(config: &Config) -> &Http {
    config.http.as_ref().unwrap()
}

#[test]
fn the_seed_loads() {
    let config = whole(&mut seed());
    let http = http(&config);
    let [vhost] = &http.vhosts[..] else { panic!("{:?}", http.vhosts) };
    assert_eq!(vhost.vsvc_id, Some(VsvcId(131942)));
    assert_eq!(
        vhost.listens.iter().map(|listen| listen.addr.to_string()).collect::<Vec<_>>(),
        ["0.0.0.0:80", "[::]:80"]
    );
    let [location] = &vhost.locations.prefixes[..] else { panic!() };
    assert_eq!(location.conf.dysvr.loc_id, Some(1074728));
    assert_eq!(location.conf.proxy.set_headers.len(), 4);
    let Some(Handler::Proxy(pass)) = &location.conf.handler else { panic!() };
    assert!(matches!(pass.target, Target::Upstream(0)));
    assert_eq!(*vhost.upstreams, [UpstreamRef::Named("1074728".into())]);
    assert_eq!(
        vhost.variables.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["fetch_skip", "store_skip", "cache_md5_key", "userheader", "userrealip"]
    );
    let [upstream] = &http.upstreams[..] else { panic!() };
    let [peer] = &upstream.peers[..] else { panic!() };
    assert!(matches!(peer.addr, ListenAddr::Inet(addr) if addr.ip() == Ipv4Addr::LOCALHOST));
    assert_eq!((peer.max_fails, peer.fail_timeout), (3, 15));
}

#[test]
fn the_task_gives_what_a_full_load_gives() {
    let mut files = seed();
    let config = whole(&mut files);
    let http = http(&config);
    let fragment =
        load_fragment(&Running::new(http, &|_| None), TASK.as_ref(), &mut files, &mut Interner::default()).unwrap();
    assert_eq!(format!("{:#?}", fragment.vhosts), format!("{:#?}", http.vhosts));
    assert_eq!(fragment.upstreams, http.upstreams);
}
