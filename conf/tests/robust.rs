//! No text makes a load panic or run away, and the same text gives the same result.

use dysvr_conf::bundle::{Assumptions, Bundle, assign_vsvc_ids, validate_bundle};
use dysvr_conf::http::TABLES;
use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, Running, load, load_fragment};
use dysvr_conf::main_conf;
use dysvr_conf::source::{Memory, Sources};
use proptest::prelude::*;

fn options() -> LoadOptions {
    LoadOptions { conf: "/p/nginx.conf".into(), prefix: "/p".into(), globals: String::new(), privileged: false }
}

/// Any directive with any arguments, blocks within blocks.
fn directives() -> impl Strategy<Value = String> {
    let names: Vec<&str> =
        main_conf::DIRECTIVES.iter().chain(TABLES.iter().copied().flatten()).map(|row| row.name).collect();
    let word = prop::sample::select(vec![
        "a",
        "$a",
        "${a}",
        "$",
        "$host",
        "$1",
        "0",
        "1",
        "99999999999999999999",
        "-1",
        "1s",
        "10k",
        "on",
        "off",
        "\"\"",
        "'$a b'",
        "~",
        "~*",
        "=",
        "^~",
        "~(?<a>.)",
        "(",
        ")",
        "($a",
        "$a)",
        "($host)",
        "/",
        "/a",
        "@a",
        "*.a",
        ".a",
        "a.*",
        "80",
        "[::]:80",
        "unix:/a",
        "unix:",
        "http://1.2.3.4",
        "http://1.2.3.4/$a",
        "http://u",
        "always",
        "default_server",
        "backlog=1",
        "weight=2",
        "buffer=1k",
        "flush=1s",
        "if=$a",
        "escape=json",
        "default",
        "hostnames",
        "é",
        "last",
        "f.conf",
        "*.conf",
        "nginx.conf",
        "{2}",
        "\\",
        "\\;",
        "200",
        "301",
        "-f",
        "!-e",
        "!~",
        "?",
    ]);
    let words = prop::collection::vec(word, 0..5);
    let simple = (prop::sample::select(names.clone()), words.clone())
        .prop_map(|(name, words)| format!("{name} {};\n", words.join(" ")));
    simple.prop_recursive(4, 40, 6, move |inner| {
        let block = prop::collection::vec(inner, 0..6);
        (prop::sample::select(names.clone()), words.clone(), block)
            .prop_map(|(name, words, block)| format!("{name} {} {{\n{}}}\n", words.join(" "), block.concat()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_directives_are_answered(inside in prop::collection::vec(directives(), 0..6), file in directives()) {
        let mut files = Memory::default();
        let inside = inside.concat();
        files.insert("/p/nginx.conf", format!("events {{}}\nhttp {{ server {{ {inside} }}\n{inside}\n}}\n{inside}"));
        files.insert("/p/f.conf", &file);
        let first = format!("{:?}", load(&options(), &mut files, &mut Interner::default()));
        let again = format!("{:?}", load(&options(), &mut files, &mut Interner::default()));
        prop_assert_eq!(first, again);

        let mut base = Memory::default();
        base.insert("/p/nginx.conf", "events {}\nhttp { include *.conf; }");
        base.files.retain(|path, _| path.ends_with("nginx.conf"));
        base.insert("/p/nginx.conf", "events {}\nhttp { include f*.conf; }");
        let http = load(&options(), &mut base, &mut Interner::default()).unwrap().http.unwrap();
        base.insert("/p/f.conf", format!("server {{ {inside} }}\n{inside}\n{file}"));
        base.insert("/task", "include /p/f.conf;");
        let _ = load_fragment(&Running::new(&http, &|name| (name == "u").then(|| "u".into())), "/task".as_ref(), &mut base, &mut Interner::default());
    }

    #[test]
    fn any_bundle_is_answered(text in prop::collection::vec(directives(), 0..4)) {
        let text = text.concat();
        let assigned = assign_vsvc_ids(&text, u64::MAX - 1);
        prop_assert!(assigned.text.len() >= text.len());
        let mut bundle = Bundle::default();
        bundle.insert(b"auto_vhost/a.conf", assigned.text.as_bytes()).unwrap();
        let _ = validate_bundle(&bundle, &Assumptions::default());
    }

    #[test]
    fn any_record_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Sources::decode(&bytes);
        let _ = Sources::decode(&[&[1][..], &bytes].concat());
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut files = Memory::default();
        files.insert("/p/nginx.conf", &bytes);
        let _ = load(&options(), &mut files, &mut Interner::default());
    }
}
