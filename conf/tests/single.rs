//! A vhost that is read again by itself, of what the load has left of it, is the vhost that the load made.

use std::path::Path;
use std::sync::Arc;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, Running, load, load_vhost};
use dysvr_conf::model::{Config, Http, Vhost};
use dysvr_conf::source::Memory;

fn options() -> LoadOptions {
    LoadOptions { conf: "/p/conf/nginx.conf".into(), prefix: "/p".into(), globals: String::new(), privileged: true }
}

fn read(files: &[(&str, &str)]) -> Config {
    let mut memory = Memory::default();
    for (name, text) in files {
        memory.insert(Path::new("/p/conf").join(name), *text);
    }
    memory.hosts.insert("host.example".into(), vec!["10.9.9.9".parse().unwrap()]);
    load(&options(), &mut memory, &mut Interner::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn again(http: &Http, vhost: &Vhost) -> Result<Vhost, String> {
    let known = |name: &str| {
        let named = http.upstreams.iter().find(|upstream| upstream.name.eq_ignore_ascii_case(name));
        named.map(|upstream| Arc::clone(&upstream.name))
    };
    let text = vhost.text.0.iter().flat_map(|piece| piece.bytes()).copied().collect();
    load_vhost(&Running::new(http, &known), vhost.outline.clone(), text, &mut Interner::default())
        .map_err(|problems| problems.to_string())
}

/// All that a request runs; places in it are those of the block alone.
fn compiled(vhost: &Vhost) -> String {
    format!("{:?} {:?} {:?} {:?}", vhost.srv, vhost.loc, vhost.script, vhost.locations)
}

const FILES: &[(&str, &str)] = &[
    (
        "nginx.conf",
        r#"events {}
http {
    map $host $known { default no; *.example yes; }
    log_format own '$known $request';
    proxy_set_header X-Known $known;
    access_log logs/http.log own;
    upstream first { server 10.0.0.1:80; }
    server { listen 80; server_name here.example ~^(?<one>a)\.(?<two>b)$; return 200 "$one;{}$two"; } server { listen 81; }
    include vhosts/*.conf;
}
"#,
    ),
    (
        "vhosts/a.conf",
        "# before {\nserver {\n  vsvc_id 1; listen 80 default_server; server_name a.example *.a.example a.*;\r\n  include common.conf; \
         # a comment with a } in it\n  location / { proxy_pass http://FIRST; include inner/*.conf; }\n  location = /ip { proxy_pass http://10.0.0.2:81; }\n\
           location = /unix { proxy_pass http://unix:/run/x; }\n  error_log logs/own.log;\n}\nupstream behind { server 10.0.0.3; }\n",
    ),
    (
        "common.conf",
        "include nested.conf;\nlocation /common { return 200 \"common \\\"$known\\\"\"; } # no end of line",
    ),
    ("nested.conf", "set $nested '1;';\nif ($http_x_odd) { return 403; }\nrewrite ^/a(.*)$ /b$1 last;"),
    ("inner/1.conf", "proxy_set_header X-One 1;"),
    ("inner/2.conf", "include inner-too.conf;"),
    ("inner-too.conf", "proxy_set_header X-Two $nested$known; # end"),
    (
        "vhosts/b.conf",
        "server { vsvc_id 2; listen 82; location ~ ^/(?<part>.+)$ { return 200 $part; } location @n { return 204; } }",
    ),
    (
        "vhosts/c.conf",
        "server { vsvc_id 3; listen 83; location / { proxy_pass http://behind; add_header A b always; } }",
    ),
];

#[test]
fn what_is_read_again_is_what_the_load_made() {
    let http = read(FILES).http.unwrap();
    assert_eq!(http.vhosts.len(), 5);
    for vhost in &http.vhosts {
        let again = again(&http, vhost).unwrap_or_else(|problems| panic!("{}: {problems}", vhost.place));
        assert_eq!(compiled(&again), compiled(vhost), "{}", vhost.place);
        assert_eq!(again.outline, vhost.outline);
    }
}

#[test]
fn what_needs_more_than_its_text_is_refused() {
    let files = [
        ("nginx.conf", "events {} http { include v.conf; }"),
        ("v.conf", "server { listen 80; location / { proxy_pass http://host.example; } }"),
    ];
    let http = read(&files).http.unwrap();
    again(&http, &http.vhosts[0]).unwrap_err();
}

#[test]
fn a_text_of_another_vhost_is_refused() {
    let http = read(FILES).http.unwrap();
    let other = &http.vhosts[3];
    for text in ["", "server {", "server { listen 82; }", "server { } server { }", "upstream x { server y; }"] {
        let known = |_: &str| None;
        let text = text.as_bytes().to_vec();
        load_vhost(&Running::new(&http, &known), other.outline.clone(), text, &mut Interner::default()).unwrap_err();
    }
}

#[test]
fn files_that_others_include_too_are_kept_once_and_endless_ones_not_at_all() {
    let http = read(FILES).http.unwrap();
    let pieces = &http.vhosts[2].text.0;
    let files = pieces.iter().filter(|piece| matches!(piece, dysvr_conf::model::TextPiece::File(_)));
    assert_eq!(files.count(), 3, "{pieces:?}");

    let line = format!("set $x {};\n", "y".repeat(1000)).repeat(200);
    let more = format!("{line}include leaf.conf;");
    let files = [
        (
            "nginx.conf",
            "events {} http { server { listen 80; include a.conf; include b.conf; include c.conf; include d.conf; } }",
        ),
        ("a.conf", "include more.conf; include more.conf;"),
        ("b.conf", "include more.conf; include more.conf;"),
        ("c.conf", "include more.conf; include more.conf;"),
        ("d.conf", "return 204;"),
        ("more.conf", &more),
        ("leaf.conf", "set $z 1;"),
    ];
    assert!(read(&files).http.unwrap().vhosts[0].text.0.is_empty());
}

#[test]
fn a_vhost_that_includes_itself_is_refused_and_nothing_else_happens() {
    let mut memory = Memory::default();
    memory.insert("/p/conf/nginx.conf", "events {} http { include v.conf; }");
    memory.insert("/p/conf/v.conf", "server { listen 80; include v.conf; }");
    let problems = load(&options(), &mut memory, &mut Interner::default()).unwrap_err().to_string();
    assert!(problems.contains("includes itself"), "{problems}");
}
