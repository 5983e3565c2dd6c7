//! Configurations of many vhosts, each with its own name and upstream: the same text for all peers but for what each
//! calls its own.
//!
//! The files lie on a tmpfs: a hundred thousand of them are written in seconds, and no disk of the machine stands
//! between the signal and what is measured. What is measured on a disk says so.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Peer;
use crate::prefix::{MainConf, Prefix};

/// A path that a vhost answers by itself, with its name and revision: who serves it says so.
pub const WHO: &str = "/who";

/// One vhost with its upstream, in a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vhost {
    /// Which: its name, its `vsvc_id` and its upstream follow from it.
    pub number: usize,
    /// Behind which of the first vhosts its file sorts. Those stand at their own number.
    pub place: usize,
    /// Which text of it.
    pub revision: u64,
}

impl Vhost {
    /// One of those that are there at the start.
    pub fn first(number: usize) -> Self {
        Self { number, place: number, revision: 0 }
    }

    /// The file below conf/.
    pub fn file(&self) -> String {
        if self.number == self.place {
            format!("auto_vhost/v{:06}.conf", self.place)
        } else {
            format!("auto_vhost/v{:06}-{}.conf", self.place, self.number)
        }
    }

    /// The name by which it is asked.
    pub fn name(&self) -> String {
        format!("v{}.example.com", self.number)
    }

    /// Its `vsvc_id`.
    pub fn vsvc_id(&self) -> u64 {
        self.number as u64 + 1
    }

    /// The name of its upstream.
    pub fn ups_id(&self) -> String {
        format!("ups_{}", self.number)
    }

    /// What it answers at [`WHO`]. All revisions are equally long: who looks at memory over many of them is to see what they
    /// leave behind, not longer texts.
    pub fn who(&self) -> String {
        format!("{} r{:07}", self.name(), self.revision)
    }

    /// The address of its upstream's peer, which follows the revision. Nobody asks these upstreams for anything.
    pub fn peer(&self) -> String {
        let (high, low) = (self.number / 250 % 250, self.number % 250 + 1);
        format!("127.{}.{high}.{low}:8080", 100 + self.revision % 150)
    }

    /// Its text.
    pub fn text(&self, peer: Peer, port: u16) -> String {
        let identity = match peer {
            Peer::Dysvr => format!("    vsvc_id {};\n", self.vsvc_id()),
            Peer::Nginx | Peer::Haproxy => String::new(),
        };
        format!(
            "upstream {ups} {{\n    server {address} max_fails=3 fail_timeout=15s;\n    keepalive 16;\n}}\n\
             server {{\n{identity}    listen 127.0.0.1:{port};\n    server_name {name};\n    location / {{\n        \
             proxy_http_version 1.1;\n        proxy_set_header Connection \"\";\n        proxy_set_header Host $host;\n        \
             proxy_pass http://{ups};\n    }}\n    location = {WHO} {{\n        return 200 \"{who}\";\n    }}\n}}\n",
            address = self.peer(),
            ups = self.ups_id(),
            name = self.name(),
            who = self.who(),
        )
    }

    /// Writes it below a prefix.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, peer: Peer, prefix: &Prefix) -> Result<()> {
        prefix.write(&self.file(), &self.text(peer, prefix.port))
    }
}

/// A prefix on a tmpfs with `count` vhosts on its port, for dysvr or nginx.
///
/// # Errors
/// When the files cannot be written.
pub fn many_vhosts(peer: Peer, count: usize) -> Result<Prefix> {
    let prefix = Prefix::new_in(&tmpfs(), &main_conf(peer))?;
    for number in 0..count {
        Vhost::first(number).write(peer, &prefix)?;
    }
    Ok(prefix)
}

/// The main configuration for a peer: two workers.
pub fn main_conf(peer: Peer) -> MainConf {
    // nginx wants to be told how large its tables of names are; that is no part of what the two have in common.
    let http = match peer {
        Peer::Nginx => "    server_names_hash_max_size 262144;\n    server_names_hash_bucket_size 128;\n".to_owned(),
        Peer::Dysvr | Peer::Haproxy => String::new(),
    };
    MainConf { workers: 2, http, ours: peer == Peer::Dysvr, ..MainConf::default() }
}

/// Where there is no disk below: /dev/shm, or the place for temporary files where there is none.
pub fn tmpfs() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() }
}
