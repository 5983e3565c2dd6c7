//! Random texts for the files of a site.

use std::fmt::Write as _;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::site::{INCLUDES, Names};
use super::tls;

/// Upstreams with a file of their own, which any vhost may use.
pub const SHARED_UPSTREAMS: u64 = 3;

/// Maps `$m0`…, with log formats `f0`… beside them.
pub const DEFINITIONS: u64 = 3;

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

/// Addresses, wildcards beside exact ones; on the first there is always a vhost.
const LISTENS: [&str; 8] =
    ["80", "81", "127.0.0.1:80", "[::]:80", "82", "127.0.0.1:82", "[::1]:80", "unix:/run/dysvr-equal.sock"];

/// Addresses of TLS, a wildcard beside an exact one.
const TLS_LISTENS: [&str; 2] = ["443", "127.0.0.1:443"];

/// An address that is now one, now the other: few listen there, so that all can turn at once.
const EITHER: &str = "8443";

/// The name of a shared include.
pub fn include_file(number: usize) -> String {
    format!("common_{number}.conf")
}

pub fn upstream(rng: &mut StdRng, name: &str) -> String {
    let mut text = format!("upstream {name} {{\n");
    for peer in 0..rng.random_range(1..4) {
        let extra = ["", " weight=3", " down", " max_fails=0", " backup"];
        let extra = if peer == 0 { "" } else { extra[rng.random_range(0..extra.len())] };
        let _ = writeln!(text, "    server 127.0.0.1:{}{extra};", 8000 + peer * 10 + rng.random_range(0..3));
    }
    if rng.random_bool(0.3) {
        text.push_str("    keepalive 4;\n");
    }
    text + "}\n"
}

/// A map, a log format, or both, of a number. They may use the maps that there are.
pub fn definitions(rng: &mut StdRng, number: u64, there: &Names) -> String {
    let mut text = String::new();
    let format = rng.random_bool(0.6);
    if !format || rng.random_bool(0.6) {
        let (source, value) = (variable(rng, there), rng.random_range(0..4));
        let _ = writeln!(text, "map {source} $m{number} {{ default d{value}; ~^a a; ~x $host; }}");
    }
    if format {
        let _ = writeln!(text, "log_format f{number} '{} {}';", rng.random_range(0..4), variable(rng, there));
    }
    text
}

/// A variable that has a value; seldom one that is not there.
fn variable(rng: &mut StdRng, there: &Names) -> String {
    let known: Vec<&String> = there.maps.iter().collect();
    match (rng.random_range(0..20), known.choose(rng)) {
        (0, _) => format!("$m{}", rng.random_range(0..DEFINITIONS)),
        (1..12, Some(name)) => format!("${name}"),
        _ => ["$uri", "$host", "$https"][rng.random_range(0..3)].to_owned(),
    }
}

/// A file of so many vhosts.
pub fn vhosts(rng: &mut StdRng, number: u64, vhosts: usize, there: &Names) -> String {
    let mut text = String::new();
    if rng.random_bool(0.3) {
        text.push_str("# bytes that shift what follows\n");
    }
    for nth in 0..vhosts as u64 {
        vhost(rng, &mut text, number * 10 + nth + 1, there);
    }
    text
}

fn vhost(rng: &mut StdRng, text: &mut String, id: u64, there: &Names) {
    let own = rng.random_bool(0.4).then(|| format!("ups{id}"));
    if let Some(name) = &own {
        text.push_str(&upstream(rng, name));
    }
    let _ = writeln!(text, "server {{\n    vsvc_id {id};");
    listens(rng, text);
    let names: Vec<&str> = NAMES.into_iter().filter(|_| rng.random_bool(0.2)).collect();
    if !names.is_empty() {
        let _ = writeln!(text, "    server_name {};", names.join(" "));
    }
    for include in (0..INCLUDES).filter(|_| rng.random_bool(0.3)) {
        let _ = writeln!(text, "    include {};", include_file(include));
    }
    let formats: Vec<&String> = there.formats.iter().collect();
    if let Some(format) = formats.choose(rng).filter(|_| rng.random_bool(0.3)) {
        let _ = writeln!(text, "    access_log /dev/null {format};");
    }
    let variable = variable(rng, there);
    let _ = writeln!(text, "    location /a {{ return 200 \"{id} a {} {variable}\\n\"; }}", rng.random_range(0..3));
    if rng.random_bool(0.3) {
        let _ = writeln!(text, "    location ~ \\.x$ {{ return 200 \"{id} x $uri\\n\"; }}");
    }
    let behind = match (&own, rng.random_range(0..4)) {
        (Some(name), _) => format!("proxy_pass http://{name}"),
        (None, 0) => format!("proxy_pass http://shared{}", rng.random_range(0..SHARED_UPSTREAMS)),
        (None, 1) => "proxy_pass http://127.0.0.1:8099".to_owned(),
        (None, _) => "return 204".to_owned(),
    };
    let _ = writeln!(text, "    location / {{ {behind}; }}");
    text.push_str("}\n");
}

fn listens(rng: &mut StdRng, text: &mut String) {
    let mut addresses: Vec<(&str, bool)> = Vec::new();
    // Now and then an address is asked for the wrong way.
    addresses.extend(LISTENS.iter().filter(|_| rng.random_bool(0.25)).map(|address| (*address, false)));
    addresses.extend(TLS_LISTENS.iter().filter(|_| rng.random_bool(0.2)).map(|address| (*address, true)));
    addresses.iter_mut().for_each(|(_, tls)| *tls ^= rng.random_bool(0.01));
    if rng.random_bool(0.05) {
        addresses.push((EITHER, rng.random_bool(0.5)));
    }
    if addresses.is_empty() {
        addresses.push((LISTENS[0], false));
    }
    for (address, tls) in &addresses {
        let tls = if *tls { " ssl" } else { "" };
        let default = if rng.random_bool(0.1) { " default_server" } else { "" };
        let backlog = if rng.random_bool(0.05) { " backlog=64" } else { "" };
        let _ = writeln!(text, "    listen {address}{tls}{default}{backlog};");
    }
    if addresses.iter().any(|(_, tls)| *tls) && rng.random_bool(0.9) {
        certificates(rng, text);
    }
}

fn certificates(rng: &mut StdRng, text: &mut String) {
    for _ in 0..rng.random_range(1..=2) {
        let [certificate, key] = tls::place(rng.random_range(0..tls::PLACES));
        let _ = writeln!(text, "    ssl_certificate {certificate};\n    ssl_certificate_key {key};");
    }
    for (chance, line) in [
        (0.15, "ssl_protocols TLSv1.2;"),
        (0.15, "ssl_protocols TLSv1.3;"),
        (0.1, "ssl_ciphers ECDHE+AES128;"),
        (0.1, "ssl_session_tickets off;"),
        (0.2, "ssl_session_cache shared:S:1m;"),
        (0.05, "ssl_session_cache shared:S:2m;"),
    ] {
        if rng.random_bool(chance) {
            let _ = writeln!(text, "    {line}");
        }
    }
    if rng.random_bool(0.2) {
        let _ = writeln!(text, "    ssl_session_ticket_key {};", tls::TICKET_KEY);
    }
}
