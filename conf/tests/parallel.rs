//! A configuration that is large enough for two threads is what it would be if one had made it: the same vhosts,
//! upstreams, warnings and problems, in the same order.

use std::fmt::Debug;
use std::path::Path;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, load};
use dysvr_conf::model::Config;
use dysvr_conf::problem::Problems;
use dysvr_conf::source::Memory;

/// Enough for threads, and in parts of this size too few.
const ALL: usize = 3_000;
const PART: usize = 500;

const HTTP: &str = "
    map $host $known { default no; *.example yes; }
    log_format own '$known $request';
    proxy_set_header X-Known $known;
    include upstreams/*.conf;
    include vhosts/*.conf;
";

fn upstream(n: usize) -> String {
    let server = match n % 40 {
        7 => "host.example".to_owned(),
        _ => format!("10.0.{}.{}:80 weight={}", n / 250, n % 250, n % 9 + 1),
    };
    let more = if n.is_multiple_of(60) { "include shared/keepalive.conf;" } else { "" };
    format!("upstream u{n} {{ server {server}; {more} }}\n")
}

fn vhost(n: usize) -> String {
    let inside = match n % 13 {
        0 => "include shared/location.conf;".to_owned(),
        // Nobody has read these two before.
        1 => format!("include own/{n:05}.conf;"),
        2 => format!("include own/{n:05}*.conf;"),
        3 => "set $own 1; location / { return 200 $own$known; }".to_owned(),
        4 => "location ~ ^/(?<part>.+)$ { return 200 $part; } location /x { location /x/y { return 204; } }".to_owned(),
        5 => "access_log logs/own.log own; location / { proxy_pass http://host.example:81; }".to_owned(),
        6 => format!("server_name ~^v{n}\\.(?<rest>.*)$; location / {{ return 200 $rest; }}"),
        7 => format!("ssl_session_cache shared:s{}:{}m; return 204;", n % 3, n % 3 + 1),
        8 => "if ($http_x_odd) { return 403; } rewrite ^/a(.*)$ /b$1 last;".to_owned(),
        _ => String::new(),
    };
    format!(
        "server {{ vsvc_id {}; listen 80; server_name v{n}.example;\n location = /u {{ proxy_pass http://U{n}; }}\n \
         {inside}\n}}\n",
        n + 1,
    )
}

/// The vhosts and upstreams of some numbers, each in a file of its own.
fn files(numbers: impl Iterator<Item = usize>, vhost: &dyn Fn(usize) -> String) -> Memory {
    let mut memory = Memory::default();
    let mut insert = |name: &str, text: &str| memory.insert(Path::new("/p/conf").join(name), text);
    insert("nginx.conf", &format!("events {{}}\nhttp {{{HTTP}}}\n"));
    insert("shared/location.conf", "location /shared { add_header a b; return 200 shared; }");
    insert("shared/keepalive.conf", "keepalive 8;");
    for n in numbers {
        insert(&format!("upstreams/{n:05}.conf"), &upstream(n));
        insert(&format!("vhosts/{n:05}.conf"), &vhost(n));
        insert(&format!("own/{n:05}.conf"), &format!("location /own {{ return 200 {n}; }}"));
    }
    memory.hosts.insert("host.example".into(), vec!["10.9.9.9".parse().unwrap(), "::9".parse().unwrap()]);
    memory
}

fn read(numbers: impl Iterator<Item = usize>, vhost: &dyn Fn(usize) -> String) -> Result<Config, Problems> {
    let conf = "/p/conf/nginx.conf".into();
    let options = LoadOptions { conf, prefix: "/p".into(), globals: String::new(), privileged: true };
    load(&options, &mut files(numbers, vhost), &mut Interner::default())
}

/// What a whole load gives and what loads of its parts give, one behind the other.
fn both<T: Debug>(
    vhost: &dyn Fn(usize) -> String,
    of: impl Fn(Result<Config, Problems>) -> Vec<T>,
) -> (Vec<String>, Vec<String>) {
    let words = |found: Vec<T>| found.into_iter().map(|one| format!("{one:?}")).collect::<Vec<_>>();
    let parts = (0..ALL).step_by(PART).flat_map(|begin| words(of(read(begin..begin + PART, vhost))));
    let parts = parts.collect();
    (words(of(read(0..ALL, vhost))), parts)
}

/// The first difference, or nothing: all of it would fill the screen.
fn same(whole: &[String], parts: &[String], count: usize) {
    for (whole, part) in whole.iter().zip(parts) {
        assert_eq!(whole, part);
    }
    assert_eq!((whole.len(), parts.len()), (count, count));
}

#[test]
fn two_threads_make_what_one_would() {
    let (whole, parts) = both(&vhost, |config| config.unwrap_or_else(|p| panic!("{p}")).http.unwrap().vhosts);
    same(&whole, &parts, ALL);
    let (whole, parts) = both(&vhost, |config| config.unwrap_or_else(|p| panic!("{p}")).http.unwrap().upstreams);
    same(&whole, &parts, ALL);
}

#[test]
fn warnings_and_problems_are_those_of_one_thread() {
    let twice = |n: usize| match n % 100 {
        // A name of the vhost before.
        50 => format!("server {{ vsvc_id {}; listen 80; server_name v{}.example; }}\n", n + 1, n - 1),
        _ => format!("server {{ vsvc_id {}; listen 80; server_name v{n}.example; }}\n", n + 1),
    };
    let (whole, parts) = both(&twice, |config| config.unwrap_or_else(|p| panic!("{p}")).warnings);
    same(&whole, &parts, ALL / 100);

    let wrong = |n: usize| match n % 10 {
        0 => vhost(n).replace("proxy_pass http://U", "proxy_pass http://nowhere.example;\n unknown "),
        5 => vhost(n).replace("listen 80;", "listen 80 80;\n include missing.conf;"),
        _ => vhost(n),
    };
    let (whole, parts) = both(&wrong, |config| config.unwrap_err().0);
    assert!(whole.len() > ALL / 5);
    same(&whole, &parts, parts.len());
}

#[test]
fn who_is_first_is_decided_by_the_source() {
    let sizes = |n: usize| {
        let size = if n == 100 { 1 } else { 2 };
        let cache = if n.is_multiple_of(100) && n > 0 {
            format!("ssl_session_cache shared:one:{size}m;")
        } else {
            String::new()
        };
        format!("server {{ vsvc_id {}; listen 80; server_name v{n}.example; {cache} }}\n", n + 1)
    };
    let problems = read(0..ALL, &sizes).unwrap_err().0;
    let places: Vec<String> =
        problems.iter().map(|problem| problem.place.as_ref().unwrap().file.display().to_string()).collect();
    let expected: Vec<String> = (200..ALL).step_by(100).map(|n| format!("/p/conf/vhosts/{n:05}.conf")).collect();
    assert_eq!(places, expected);
}
