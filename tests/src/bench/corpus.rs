//! Configurations of many vhosts, each with its own name and upstream, the same text for both peers but for our own
//! directives.

use anyhow::Result;

use super::Peer;
use crate::prefix::{MainConf, Prefix};

/// A prefix with `count` vhosts on its port, for one of the peers.
///
/// # Errors
/// When the files cannot be written.
pub fn many_vhosts(peer: Peer, count: usize) -> Result<Prefix> {
    // nginx wants to be told how large its tables of names are; that is no part of what the two have in common.
    let http = match peer {
        Peer::Dysvr => String::new(),
        Peer::Nginx => "    server_names_hash_max_size 262144;\n    server_names_hash_bucket_size 128;\n".to_owned(),
    };
    let prefix = Prefix::new(&MainConf { workers: 2, http, ours: peer == Peer::Dysvr, ..MainConf::default() })?;
    for number in 0..count {
        write_vhost(peer, &prefix, number)?;
    }
    Ok(prefix)
}

/// Writes the vhost of a number.
///
/// # Errors
/// When the file cannot be written.
pub fn write_vhost(peer: Peer, prefix: &Prefix, number: usize) -> Result<()> {
    prefix.write(&file(number), &vhost(peer, prefix.port, number))
}

/// The vhost's file below conf/.
pub fn file(number: usize) -> String {
    format!("auto_vhost/v{number:06}.conf")
}

/// The vhost's name.
pub fn name(number: usize) -> String {
    format!("v{number}.example.com")
}

/// The vhost's `vsvc_id`.
pub fn vsvc_id(number: usize) -> u64 {
    number as u64 + 1
}

/// The upstream's name.
pub fn ups_id(number: usize) -> String {
    format!("ups_{number}")
}

/// A path that a vhost answers by itself, with its own name: who serves it says so.
pub const WHO: &str = "/who";

fn vhost(peer: Peer, port: u16, number: usize) -> String {
    let identity = match peer {
        Peer::Dysvr => format!("    vsvc_id {};\n", vsvc_id(number)),
        Peer::Nginx => String::new(),
    };
    // Nobody asks these upstreams for anything; each has an address of its own.
    let (high, low) = (number / 250 % 250, number % 250 + 1);
    format!(
        "upstream {ups} {{\n    server 127.1.{high}.{low}:8080 max_fails=3 fail_timeout=15s;\n    keepalive 16;\n}}\n\
         server {{\n{identity}    listen 127.0.0.1:{port};\n    server_name {name};\n    location / {{\n        \
         proxy_http_version 1.1;\n        proxy_set_header Connection \"\";\n        proxy_set_header Host $host;\n        \
         proxy_pass http://{ups};\n    }}\n    location = {WHO} {{\n        return 200 \"{name}\";\n    }}\n}}\n",
        ups = ups_id(number),
        name = name(number),
    )
}
