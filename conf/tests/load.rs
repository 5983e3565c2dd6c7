//! What a configuration becomes: inheritance and sharing, order, fragments, refusals.

use std::path::Path;
use std::sync::Arc;

use dysvr_conf::diff::{Inventory, apply, diff};
use dysvr_conf::http::Handler;
use dysvr_conf::http::rewrite::Op;
use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, Running, load, load_fragment};
use dysvr_conf::model::{Config, Fragment, Http, Use, Vhost};
use dysvr_conf::problem::Problems;
use dysvr_conf::source::{Memory, Recording, Sources};

fn options() -> LoadOptions {
    LoadOptions { conf: "/p/conf/nginx.conf".into(), prefix: "/p".into(), globals: String::new(), privileged: true }
}

/// Files below `/p/conf`.
fn memory(files: &[(&str, &str)]) -> Memory {
    let mut memory = Memory::default();
    for (name, text) in files {
        memory.insert(Path::new("/p/conf").join(name), text);
    }
    memory.hosts.insert("two.example.com".into(), vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()]);
    memory
}

fn try_load(files: &mut Memory) -> Result<Config, Problems> {
    load(&options(), files, &mut Interner::default())
}

/// The `http` of files, the first of which is what stands in `http {}`.
fn http(inside: &str, files: &[(&str, &str)]) -> Http {
    let mut memory = memory(files);
    memory.insert("/p/conf/nginx.conf", format!("events {{}}\nhttp {{\n{inside}\n}}\n"));
    try_load(&mut memory).unwrap_or_else(|problems| panic!("{problems}")).http.unwrap()
}

fn refusal(inside: &str) -> String {
    let mut memory = memory(&[]);
    memory.insert("/p/conf/nginx.conf", format!("events {{}}\nhttp {{\n{inside}\n}}\n"));
    try_load(&mut memory).unwrap_err().to_string().replace("/p/conf/", "")
}

#[test]
fn what_sets_nothing_shares_everything() {
    let http = http(
        "proxy_connect_timeout 1s;
         server { location /a { } location /b { add_header x y; } location /c { proxy_pass http://10.0.0.1; \
         if ($host) { set $x 1; } if ($uri) { add_header a b; } } }
         server { keepalive_timeout 1s; }",
        &[],
    );
    let [one, two] = &http.vhosts[..] else { panic!() };
    assert!(Arc::ptr_eq(&one.loc, &http.loc) && Arc::ptr_eq(&one.srv, &http.srv));
    assert!(!Arc::ptr_eq(&two.loc, &http.loc) && Arc::ptr_eq(&two.loc.proxy, &http.loc.proxy));
    let [a, b, c] = &one.locations.prefixes[..] else { panic!() };
    assert!(Arc::ptr_eq(&a.conf, &one.loc));
    assert!(!Arc::ptr_eq(&b.conf, &one.loc) && Arc::ptr_eq(&b.conf.core, &one.loc.core));
    assert!(matches!(c.conf.handler, Some(Handler::Proxy(_))));
    let [Op::If { then: plain, .. }, Op::If { then: header, .. }] = &c.script[..] else { panic!() };
    assert!(Arc::ptr_eq(plain.conf.as_ref().unwrap(), &c.conf));
    let header = header.conf.as_ref().unwrap();
    assert!(header.handler.is_some() && header.headers.add.len() == 1 && Arc::ptr_eq(&header.proxy, &c.conf.proxy));
}

#[test]
fn http_applies_wherever_it_stands() {
    let http = http(
        "server { location / { } location /a { keepalive_timeout 8s; } } keepalive_timeout 7s 20; access_log off;",
        &[],
    );
    let vhost = &http.vhosts[0];
    assert_eq!(vhost.loc.core.keepalive_timeout.as_secs(), 7);
    let inner = &vhost.locations.prefixes[1].conf.core;
    assert_eq!((inner.keepalive_timeout.as_secs(), inner.keepalive_header), (8, Some(20)));
    assert_eq!(vhost.locations.prefixes[0].conf.core.keepalive_timeout.as_secs(), 7);
    assert!(vhost.loc.log.access_logs.is_empty());
}

#[test]
fn the_default_log_is_there_unless_something_is_said() {
    let path =
        |http: &Http| http.loc.log.access_logs.iter().map(|log| log.path.display().to_string()).collect::<Vec<_>>();
    assert_eq!(path(&http("", &[])), ["/p/logs/access.log"]);
    assert_eq!(path(&http("access_log a; access_log b;", &[])), ["/p/a", "/p/b"]);
    assert!(path(&http("access_log a; access_log off;", &[])).is_empty());
    assert!(path(&http("access_log off; access_log a;", &[])).is_empty());
}

#[test]
fn locations_are_sorted_for_search() {
    let http = http(
        "server { location /b { } location = /b { } location ~ z { } location @n { } location / { } location ~* a { } \
         location ^~ /a { } }",
        &[],
    );
    let locations = &http.vhosts[0].locations;
    let shown: Vec<_> = locations.prefixes.iter().map(|location| format!("{:?}", location.pattern)).collect();
    assert_eq!(
        shown,
        [
            r#"Prefix { path: "/", no_regex: false }"#,
            r#"Prefix { path: "/a", no_regex: true }"#,
            r#"Exact("/b")"#,
            r#"Prefix { path: "/b", no_regex: false }"#,
        ]
    );
    let shown: Vec<_> = locations.regexes.iter().map(|location| format!("{:?}", location.pattern)).collect();
    assert_eq!(shown, ["Regex { regex: ~/z/, groups: [] }", "Regex { regex: ~*/a/, groups: [] }"]);
    assert_eq!(locations.named.len(), 1);
}

#[test]
fn variables_belong_to_their_vhost() {
    let http = http(
        "add_header x $early;
         server { return 200 $a$b; location ~ ^/(?<b>.) { set $a $1; set $http_x 1; return 200 $http_x; } set $early 1; }
         server { set $z 1; return 200 $HTTP_X; }",
        &[],
    );
    let names = |vhost: &Vhost| vhost.variables.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&http.vhosts[0]), ["a", "http_x", "early", "b"]);
    assert_eq!(names(&http.vhosts[1]), ["z"]);
    assert!(format!("{:?}", http.vhosts[0].locations).contains("Variable(Slot(1))"));
    assert!(format!("{:?}", http.vhosts[1].script).contains("RequestHeader(\"x\")"));
    assert_eq!(*http.uses, [Use::Named("early".into())]);
    assert_eq!(
        refusal("server { set $a 1; }\nserver { return 200 $a; }\nadd_header x $b;"),
        "unknown \"a\" variable in nginx.conf:4\nunknown \"b\" variable in nginx.conf:5"
    );
}

#[test]
fn maps_see_each_other_and_their_groups() {
    let http = http("map $b $a { default 1; ~^(?<x>.)(.) $x$2$host; } map $host $b { volatile; a.B c; }", &[]);
    let [a, b] = &http.main.map.maps[..] else { panic!() };
    assert!(format!("{:?}", a.source).contains("Map(1)"));
    let value = format!("{:?}", a.regexes[0].1);
    assert!(value.contains("Capture(1)") && value.contains("Capture(2)") && value.contains("Host"), "{value}");
    assert!(b.volatile && b.exact.contains_key("a.b"));
}

#[test]
fn names_lead_to_all_their_addresses() {
    let http = http(
        "upstream u { server two.example.com:81 weight=3; } server { location / { proxy_pass http://two.example.com/x; } }",
        &[],
    );
    let peers: Vec<_> = http.upstreams[0].peers.iter().map(|peer| (&*peer.name, peer.weight)).collect();
    assert_eq!(peers, [("10.0.0.1:81", 3), ("[::1]:81", 3)]);
    assert!(format!("{:?}", http.vhosts[0].upstreams[0]).contains("Implicit"));
}

#[test]
fn refusals_of_our_own() {
    for (inside, expected) in [
        ("server { vsvc_id 0; }", "invalid vsvc_id \"0\" in nginx.conf:3"),
        ("server { vsvc_id x; }", "invalid vsvc_id \"x\" in nginx.conf:3"),
        ("server { vsvc_id 1; vsvc_id 2; }", "\"vsvc_id\" directive is duplicate in nginx.conf:3"),
        (
            "server { vsvc_id 131942; }\nserver { server_name a; vsvc_id 131942; }",
            "duplicate vsvc_id 131942, it is already used in nginx.conf:3 in nginx.conf:4",
        ),
        ("server { location / { loc_id x; } }", "\"loc_id\" directive invalid number in nginx.conf:3"),
        ("server { loc_id 1; }", "\"loc_id\" directive is not allowed here in nginx.conf:3"),
        ("vsvc_id 1;", "\"vsvc_id\" directive is not allowed here in nginx.conf:3"),
        (
            "dysvr maybe;",
            "invalid value \"maybe\" in \"dysvr\" directive, it must be \"on\" or \"off\" in nginx.conf:3",
        ),
        ("dysvr_shm_zone a x;", "invalid zone size \"x\" in nginx.conf:3"),
        ("dysvr_shm_zone a 1k;", "zone \"a\" is too small in nginx.conf:3"),
        (
            "server { location / { proxy_pass http://1074728; } }",
            "host not found in upstream \"1074728\" in nginx.conf:3",
        ),
        ("server { listen 80 http2; }", "invalid parameter \"http2\", it is not supported in nginx.conf:3"),
        ("server { location / { proxy_pass https://a; } }", "https protocol requires SSL support in nginx.conf:3"),
        ("server { set $limit_rate 1k; }", "the \"limit_rate\" variable is not supported in nginx.conf:3"),
        ("server { access_log syslog:server=a; }", "logging to syslog is not supported in nginx.conf:3"),
        ("server { srcache_fetch_skip 1; }", "unknown directive \"srcache_fetch_skip\" in nginx.conf:3"),
        ("include nginx.conf;", "\"nginx.conf\" includes itself in nginx.conf:3"),
    ] {
        assert_eq!(refusal(inside), expected, "{inside}");
    }
}

#[test]
fn all_errors_come_in_the_order_of_the_source() {
    let mut files = memory(&[
        ("nginx.conf", "foo;\nevents {}\nhttp {\n  include v/*.conf;\n  bar;\n"),
        ("v/a.conf", "server {\n  location / { proxy_pass http://1; }\n  return 200 $no;\n}\n"),
        ("v/b.conf", "server { listen 80; ; }\n}\nserver { vsvc_id 1; }\nserver { vsvc_id 1; }"),
    ]);
    assert_eq!(
        try_load(&mut files).unwrap_err().to_string().replace("/p/conf/", ""),
        "unknown directive \"foo\" in nginx.conf:1\n\
         host not found in upstream \"1\" in v/a.conf:2\n\
         unknown \"no\" variable in v/a.conf:3\n\
         unexpected \";\" in v/b.conf:1\n\
         unexpected \"}\" in v/b.conf:2\n\
         duplicate vsvc_id 1, it is already used in /p/conf/v/b.conf:3 in v/b.conf:4\n\
         unknown directive \"bar\" in nginx.conf:5\n\
         unexpected end of file, expecting \"}\" in nginx.conf:6"
            .replace("/p/conf/", "")
    );
}

#[test]
fn the_command_line_comes_first() {
    let mut files = memory(&[("nginx.conf", "events {}\ndaemon on;\n")]);
    let mut with = |globals: &str| {
        let options = LoadOptions { globals: globals.into(), ..options() };
        load(&options, &mut files, &mut Interner::default()).map(|config| config.main.daemon)
    };
    let text = |result: Result<bool, Problems>| result.unwrap_err().to_string();
    assert_eq!(with("worker_processes 3;"), Ok(true));
    assert_eq!(text(with("daemon off;")), "\"daemon\" directive is duplicate in /p/conf/nginx.conf:2");
    assert_eq!(text(with("foo;")), "unknown directive \"foo\" in command line");
    assert_eq!(text(with("pid a")), "unexpected end of parameter, expecting \";\" in command line");
    assert_eq!(text(with("events {}")), "block directives are not supported in -g option in command line");
    let missing = load(&options(), &mut memory(&[]), &mut Interner::default()).unwrap_err();
    assert_eq!(missing.to_string(), "open() \"/p/conf/nginx.conf\" failed (2: No such file or directory)");
}

#[test]
fn bombs_are_refused() {
    let inner: Vec<(String, String)> =
        (0..40).map(|n| (format!("{n}.conf"), format!("include {0}.conf;\ninclude {0}.conf;\n", n + 1))).collect();
    let mut files: Vec<(&str, &str)> = inner.iter().map(|(name, text)| (&**name, &**text)).collect();
    files.push(("40.conf", ""));
    files.push(("nginx.conf", "events {}\nhttp { server { include 0.conf; } }\n"));
    let refused = try_load(&mut memory(&files)).unwrap_err().to_string();
    assert!(refused.contains("too many includes"), "{refused}");

    let deep = format!("{}{}", "location / {".repeat(60), "}".repeat(60));
    let half = format!("{}include deep.conf;{}", "location / {".repeat(60), "}".repeat(60));
    let files = [
        ("deep.conf", &*deep),
        ("half.conf", &half),
        ("nginx.conf", "events {}\nhttp { server { include half.conf; } }\n"),
    ];
    let refused = try_load(&mut memory(&files)).unwrap_err().to_string();
    assert!(refused.contains("blocks are nested too deeply"), "{refused}");
}

const BASE: &str = "events {}\nhttp {\n  log_format main $host;\n  map $uri $m { default 1; }\n  \
                    add_header X-Base $m;\n  include auto_vhost/*.conf;\n  include one.conf;\n}\n";

fn fragment(files: &mut Memory, base: &Http, task: &str) -> Result<Fragment, Problems> {
    files.insert("/task/dysvr_1.conf", task);
    let known = |name: &str| (name == "running").then(|| "Running".into());
    load_fragment(&Running::new(base, &known), "/task/dysvr_1.conf".as_ref(), files, &mut Interner::default())
}

#[test]
fn a_fragment_is_what_a_full_load_makes_of_it() {
    let mut files = memory(&[
        ("nginx.conf", BASE),
        (
            "auto_vhost/b.conf",
            "include up.conf;\nserver { vsvc_id 2; listen 81; location / { proxy_pass http://u; } }\n",
        ),
        ("auto_vhost/a.conf", "server { vsvc_id 1; access_log x main; }\nserver { vsvc_id 3; return 200 $m; }\n"),
        ("one.conf", "server { server_name one; set $x 1; if ($x) { return 200; } }\n"),
        ("up.conf", "upstream u { server 10.0.0.1; keepalive 2; }\n"),
    ]);
    let whole = try_load(&mut files).unwrap().http.unwrap();
    let found = fragment(
        &mut files,
        &whole,
        "include /p/conf/./one.conf;\ninclude auto_vhost/b.conf;\ninclude /p/conf//auto_vhost/a.conf;\n",
    );
    let found = found.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(format!("{:#?}", found.vhosts), format!("{:#?}", whole.vhosts));
    assert_eq!(found.upstreams, whole.upstreams);
    for (ours, theirs) in found.vhosts.iter().zip(&whole.vhosts) {
        assert_eq!(ours.order, theirs.order);
        assert!(Arc::ptr_eq(&ours.srv, &whole.srv));
    }
    // The same file again shares what it inherits with the running http.
    assert!(Arc::ptr_eq(&found.vhosts[2].loc, &whole.loc));
}

#[test]
fn a_fragment_may_not_leave_its_bounds() {
    let mut files = memory(&[
        ("nginx.conf", BASE),
        ("one.conf", ""),
        ("auto_vhost/log.conf", "access_log off;\nserver { }\nworker_processes 1;\nfoo;\n"),
        ("auto_vhost/up.conf", "server { location / { proxy_pass http://running; } }"),
        ("auto_vhost/none.conf", "server { location / { proxy_pass http://nothing; } }"),
        ("auto_vhost/sub/deep.conf", "server { }"),
        ("other.conf", "server { }"),
    ]);
    let base = "events {}\nhttp { include auto_vhost/*.conf; }\n";
    let mut empty = memory(&[("nginx.conf", base)]);
    let base = try_load(&mut empty).unwrap().http.unwrap();
    let mut refused = |task: &str| fragment(&mut files, &base, task).map(drop).map_err(|problems| problems.to_string());
    for (task, expected) in [
        (
            "include /p/conf/auto_vhost/log.conf;",
            "\"access_log\" directive changes http as a whole: not possible in place in /p/conf/auto_vhost/log.conf:1\n\
             \"worker_processes\" directive is not allowed here in /p/conf/auto_vhost/log.conf:3\n\
             unknown directive \"foo\" in /p/conf/auto_vhost/log.conf:4",
        ),
        (
            "include /p/conf/other.conf;\ninclude auto_vhost/sub/deep.conf;",
            "\"/p/conf/other.conf\" is reached by no include of nginx.conf: it would be lost at the next start in \
             /task/dysvr_1.conf:1\n\
             \"/p/conf/auto_vhost/sub/deep.conf\" is reached by no include of nginx.conf: it would be lost at the next \
             start in /task/dysvr_1.conf:2",
        ),
        ("include auto_vhost/none.conf;", "host not found in upstream \"nothing\" in /p/conf/auto_vhost/none.conf:1"),
        (
            "include auto_vhost/gone.conf;",
            "open() \"/p/conf/auto_vhost/gone.conf\" failed (2: No such file or directory) in /task/dysvr_1.conf:1",
        ),
        ("server { }", "\"server\" directive may not stand in a task file itself in /task/dysvr_1.conf:1"),
        ("include /task/dysvr_1.conf;", "\"/task/dysvr_1.conf\" includes itself in /task/dysvr_1.conf:1"),
        ("include a", "unexpected end of file, expecting \";\" or \"}\" in /task/dysvr_1.conf:1"),
    ] {
        assert_eq!(refused(task), Err(expected.to_owned()), "{task}");
    }
    assert_eq!(refused("include auto_vhost/up.conf;"), Ok(()));
}

#[test]
fn a_record_gives_the_same_configuration() {
    let files = memory(&[
        ("nginx.conf", BASE),
        ("one.conf", "server { location / { proxy_pass http://two.example.com; } }"),
        ("auto_vhost/a.conf", "server { vsvc_id 1; }"),
    ]);
    let mut recording = Recording::new(files);
    let first = load(&options(), &mut recording, &mut Interner::default()).unwrap();
    let sources = Sources::decode(&recording.sources().encode()).unwrap();
    let again = load(&options(), &mut sources.replay(), &mut Interner::default()).unwrap();
    assert_eq!(format!("{first:?}"), format!("{again:?}"));
    let read: Vec<_> = sources.files().map(|(path, _)| path.display().to_string()).collect();
    assert_eq!(read, ["/p/conf/nginx.conf", "/p/conf/auto_vhost/a.conf", "/p/conf/one.conf"]);
}

#[test]
fn digests_follow_what_is_said() {
    let digest = |inside: &str, files: &[(&str, &str)]| http(inside, files).vhosts[0].digest;
    let one = digest("server { listen 80; location / { return 200 a; } }", &[]);
    assert_eq!(one, digest("# x\nserver{listen '80';\nlocation / {# y\nreturn 200 a;}}", &[]));
    assert_eq!(one, digest("server { listen 80; include l.conf; }", &[("l.conf", "location / { return 200 a; }")]));
    assert_ne!(one, digest("server { listen 80; location / { return 200 b; } }", &[]));
    assert_ne!(one, digest("server { listen 80; location / { return 200; } }", &[]));
}

#[test]
fn differences_lead_from_one_to_the_other() {
    let states = [
        "",
        "server { vsvc_id 1; }",
        "# x\nserver { vsvc_id 1; }",
        "server { vsvc_id 2; listen 81; } server { vsvc_id 1; server_name a; }",
        "server { vsvc_id 1; server_name a; } server { vsvc_id 2; listen 81; }",
        "server { } upstream a { server 10.0.0.1; } upstream b { server 10.0.0.1; }",
        "server { vsvc_id 1; return 200; } upstream a { server 10.0.0.2; }",
    ];
    let inventories: Vec<_> = states.map(|inside| Inventory::from(&http(inside, &[]))).into();
    for from in &inventories {
        for to in &inventories {
            let changes = diff(from, to);
            assert_eq!(apply(from.clone(), &changes), *to);
            assert_eq!(changes.is_empty(), from == to);
        }
    }
    assert_eq!(inventories[1], inventories[2], "a comment changes nothing");
    assert_ne!(inventories[3], inventories[4], "precedence is a difference");
    let changes = diff(&inventories[1], &inventories[3]);
    let count = (changes.vhosts.added.len(), changes.vhosts.modified.len(), changes.opened.len());
    assert_eq!(count, (1, 1, 1));
}

/// The indices and names of a fragment's maps and formats.
fn defined(found: &Fragment) -> String {
    let maps = found.maps.iter().map(|(index, map)| format!("${}@{index}", map.name));
    let formats = found.formats.iter().map(|(index, format)| format!("{}@{index}", format.name));
    maps.chain(formats).collect::<Vec<_>>().join(" ")
}

#[test]
fn definitions_take_the_places_of_those_they_replace() {
    let mut files = memory(&[
        (
            "nginx.conf",
            "events {}\nhttp { map $uri $a { } map $uri $b { } log_format f x; include auto_vhost/*.conf; }\n",
        ),
        ("auto_vhost/b.conf", "map $uri $B { default $c; } map $a $c { } log_format f $b; log_format g $c;"),
        ("auto_vhost/none.conf", "server { access_log l f; return 200 $b; }"),
    ]);
    let whole = "events {}\nhttp { map $uri $a { } map $uri $b { } log_format f x; include none/*.conf; }\n";
    let base = try_load(&mut memory(&[("nginx.conf", whole)])).unwrap().http.unwrap();
    let base = Http {
        reach: try_load(&mut memory(&[("nginx.conf", "events {}\nhttp { include auto_vhost/*.conf; }\n")]))
            .unwrap()
            .http
            .unwrap()
            .reach,
        ..base
    };
    let mut join = |task: &str, maps: &[&str], formats: &[&str]| {
        files.insert("/task/dysvr_1.conf", task);
        let (maps, formats) =
            (maps.iter().map(|name| (*name).to_owned()), formats.iter().map(|name| (*name).to_owned()));
        let (maps, formats): (Vec<_>, Vec<_>) = (maps.collect(), formats.collect());
        let running = Running { maps: &maps, formats: &formats, ..Running::new(&base, &|_| None) };
        load_fragment(&running, "/task/dysvr_1.conf".as_ref(), &mut files, &mut Interner::default())
    };
    let b = "include auto_vhost/b.conf;";
    let found = join(b, &["b", "c"], &["f", "g"]).unwrap();
    assert_eq!(defined(&found), "$b@1 $c@2 f@1 g@2");
    assert_eq!(*found.maps[0].1.uses, [Use::Map(2)]);
    assert_eq!(*found.formats[1].1.uses, [Use::Map(2)]);
    // What is not to be replaced stands in the way.
    let error = join(b, &["b", "c"], &["g"]).unwrap_err().to_string();
    assert!(error.starts_with("duplicate \"log_format\" name \"f\" in /p/conf/auto_vhost/b.conf:1"), "{error}");
    // What goes is not known any more.
    let none = "include auto_vhost/none.conf;";
    assert!(join(none, &[], &[]).is_ok());
    let errors = join(none, &["b"], &["f"]).unwrap_err().to_string();
    let place = "in /p/conf/auto_vhost/none.conf:1";
    assert_eq!(errors, format!("unknown log format \"f\" {place}\nunknown \"b\" variable {place}"));
}

#[test]
fn a_map_may_not_refer_to_itself() {
    let maps = "map $a $a { }\nmap $uri $b { x $c; }\nmap $d $c { }\nmap $uri $d { default $b; }\nmap $b $e { }\n";
    let errors = refusal(&(maps.to_owned() + "map $uri $fine { default $deep; }\nmap $uri $deep { }"));
    let of = |name: &str, line: u32| format!("the map of \"${name}\" refers to itself in nginx.conf:{line}");
    assert_eq!(errors, [of("a", 3), of("b", 4), of("c", 5), of("d", 6), of("e", 7)].join("\n"));
}
