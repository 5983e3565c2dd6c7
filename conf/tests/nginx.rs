//! The same files to nginx itself and to us: both accept them, or both refuse them in the same words at the same line.
//!
//! Needs `/usr/sbin/nginx` (1.22), which `make test` installs.

use std::path::Path;
use std::process::Command;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, load};
use dysvr_conf::source::Memory;

/// What nginx says: `TEXT in FILE:LINE`, or nothing if it accepts the file.
fn nginx(text: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("nginx.conf");
    std::fs::create_dir(dir.path().join("logs")).unwrap();
    std::fs::write(&conf, text).unwrap();
    let pid = format!("pid {};", dir.path().join("pid").display());
    let output = Command::new("/usr/sbin/nginx")
        .args(["-t", "-e", "stderr", "-g", &pid, "-c"])
        .arg(&conf)
        .arg("-p")
        .arg(dir.path())
        .output()
        .expect("/usr/sbin/nginx is needed: make test installs it");
    let said = String::from_utf8_lossy(&output.stderr).replace(conf.to_str().unwrap(), "nginx.conf");
    let said = said.replace(&format!("{}/", dir.path().display()), "");
    let emerg = said.split_once("[emerg] ").map(|(_, text)| {
        let text = text.rsplit_once("\nnginx: configuration file").map_or(text, |(text, _)| text);
        // `PID#TID: ` comes first once the log is open.
        let ids = |ids: &str| ids.contains('#') && !ids.contains(' ');
        text.split_once(": ").filter(|(first, _)| ids(first)).map_or(text, |(_, text)| text).to_owned()
    });
    assert_eq!(emerg.is_none(), output.status.success(), "{said}");
    emerg
}

/// What we say, the first thing first.
fn ours(text: &str) -> Vec<String> {
    let mut files = Memory::default();
    files.insert("/p/nginx.conf", text);
    let options =
        LoadOptions { conf: "/p/nginx.conf".into(), prefix: "/p".into(), globals: String::new(), privileged: true };
    let problems = load(&options, &mut files, &mut Interner::default()).err();
    problems.iter().flat_map(|problems| &problems.0).map(|problem| problem.to_string().replace("/p/", "")).collect()
}

/// Whether nginx's refusal is among ours. It stops at the first thing that it finds, not always the first of the file.
/// It gives no place for what it finds after parsing; we always do.
fn agree(nginx: &Option<String>, ours: &[String]) -> bool {
    match nginx {
        None => ours.is_empty(),
        Some(nginx) => {
            let placed = format!("{nginx} in nginx.conf:");
            ours.iter().any(|ours| nginx == ours || (!nginx.contains(" in nginx.conf:") && ours.starts_with(&placed)))
        }
    }
}

fn compare(name: &str, wrap: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    let cases = std::fs::read_to_string(path).unwrap();
    let mut differences = String::new();
    let mut count = 0;
    for case in cases.split("\n---\n") {
        let text = wrap(case);
        let (nginx, ours) = (nginx(&text), ours(&text));
        count += 1;
        if !agree(&nginx, &ours[..ours.len().min(1)]) {
            differences += &format!("{case}\n  nginx: {nginx:?}\n  ours:  {ours:?}\n");
        }
    }
    assert!(count > 5);
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn main_level() {
    compare("main.txt", str::to_owned);
}

#[test]
fn http_level() {
    compare("http.txt", |case| format!("events {{}}\nhttp {{\naccess_log off;\n{case}\n}}\n"));
}

#[test]
fn server_level() {
    compare("server.txt", |case| {
        format!("events {{}}\nhttp {{\naccess_log off;\nserver {{\nlisten 127.0.0.1:34567;\n{case}\n}}\n}}\n")
    });
}

mod any_text {
    use proptest::prelude::*;

    use super::{agree, nginx, ours};

    fn marks() -> impl Strategy<Value = String> {
        let mark = prop::sample::select(vec![
            "a",
            "b",
            " ",
            " ",
            "\n",
            "\t",
            ";",
            ";",
            "{",
            "}",
            "\"",
            "'",
            "\\",
            "$",
            "${",
            "#",
            "include",
            ")",
            "daemon",
            "on",
            "events {}",
            "http {",
            "worker_processes",
        ]);
        prop::collection::vec(mark, 0..14).prop_map(|marks| marks.concat())
    }

    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "location / {",
            "location ~ ^/(?<n>.) {",
            "location @a {",
            "location = /b {",
            "location /b/c {",
            "}",
            "}",
            "}",
            "if ($host = a) {",
            "if ($n) {",
            "if (-f $uri ) {",
            "set $n 1;",
            "set $m $n;",
            "return 200 $m;",
            "return 301 /;",
            "rewrite ^ /x? last;",
            "rewrite ^/(.*)$ http://a/$1;",
            "break;",
            "internal;",
            "proxy_pass http://127.0.0.1:1;",
            "proxy_pass http://127.0.0.1:1/x;",
            "proxy_pass http://up;",
            "proxy_pass http://$host;",
            "proxy_set_header A $host;",
            "add_header B $host;",
            "client_max_body_size 1m;",
            "keepalive_timeout 5s;",
            "proxy_buffering off;",
            "server_name a b.*;",
            "default_type a/b;",
            "foo;",
            "listen 127.0.0.1:34568;",
        ]);
        prop::collection::vec(piece, 0..10).prop_map(|pieces| {
            let open = pieces.iter().map(|piece| piece.matches('{').count() as isize).sum::<isize>();
            let closed = pieces.iter().filter(|piece| **piece == "}").count() as isize;
            pieces.join("\n") + &"}".repeat(usize::try_from(open - closed).unwrap_or(0))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn is_lexed_as_by_nginx(text in marks()) {
            let text = format!("events {{}}\n{text}");
            let (nginx, ours) = (nginx(&text), ours(&text));
            prop_assert!(agree(&nginx, &ours), "nginx: {nginx:?}\nours:  {ours:?}");
        }

        #[test]
        fn is_understood_as_by_nginx(text in pieces()) {
            let text = format!(
                "events {{}}\nhttp {{\naccess_log off;\nupstream up {{ server 127.0.0.1:1; }}\nserver {{\nlisten \
                 127.0.0.1:34567;\n{text}\n}}\n}}\n"
            );
            let (nginx, ours) = (nginx(&text), ours(&text));
            prop_assert!(agree(&nginx, &ours), "nginx: {nginx:?}\nours:  {ours:?}");
        }
    }
}
