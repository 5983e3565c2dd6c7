//! Upstreams for tests, as a configuration without parameters gives them.

use dysvr_conf::digest::Digest;
use dysvr_conf::model::{ListenAddr, OrderKey, Peer, Upstream};
use dysvr_conf::problem::Place;

pub(super) fn peer(addr: ListenAddr, name: &str) -> Peer {
    Peer { addr, name: name.into(), weight: 1, max_fails: 1, fail_timeout: 10, backup: false, down: false }
}

pub(super) fn upstream(peers: impl Iterator<Item = Peer>) -> Upstream {
    Upstream {
        name: "u".into(),
        place: Place { file: std::path::Path::new("/x").into(), line: 1 },
        order: OrderKey::default(),
        digest: Digest::default(),
        peers: peers.collect(),
        keepalive: None,
    }
}
