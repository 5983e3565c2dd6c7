use dysvr_conf::source::Memory;
use dysvr_proto::id::{Epoch, Revision, RolloutId};

use super::super::managed::ContentDigest;
use super::super::order::Step;
use super::*;

const MAIN: &str = "include main.d/*.conf; events { include events.d/*.conf; } \
                    http { include http.d/*.conf; include auto_vhost/*.conf; }";

fn vhost(id: u64) -> String {
    format!("server {{ vsvc_id {id}; include common.conf; }}")
}

fn with_upstream(id: u64, upstream: &str) -> String {
    format!("upstream {upstream} {{ }}\n{}", vhost(id))
}

/// A node with a.conf (1, upstream ua), b.conf (2), both with common.conf, and z.conf (8, with upstream ub in a file).
fn before() -> Memory {
    let mut memory = Memory::default();
    memory.insert("/c/nginx.conf", MAIN);
    memory.insert("/c/http.d/map.conf", "map $a $b { include values.conf; }");
    memory.insert("/c/values.conf", "x y;");
    memory.insert("/c/http.d/set.conf", "default_type a;");
    memory.insert("/c/main.d/set.conf", "");
    memory.insert("/c/events.d/set.conf", "");
    memory.insert("/c/common.conf", "location / {}");
    memory.insert("/c/auto_vhost/a.conf", with_upstream(1, "ua"));
    memory.insert("/c/auto_vhost/b.conf", vhost(2));
    let z = "include ./auto_upstream/b.conf; server { vsvc_id 8; include parts/z_*.conf; }";
    memory.insert("/c/auto_vhost/z.conf", z);
    memory.insert("/c/auto_upstream/b.conf", "upstream ub {}");
    memory
}

/// The plan of an order that writes and removes files, as text.
fn plan_of(origin: Origin, write: &[(&str, &str)], remove: &[&str]) -> Result<String, String> {
    let mut memory = before();
    let mut now = before();
    let (index, problems) = Index::build(&mut memory, Path::new("/c/nginx.conf")).unwrap();
    assert_eq!(problems, [""; 0]);
    let mut disk = FileChanges::new();
    for (name, text) in write {
        memory.insert(format!("/c/{name}"), text);
        disk.insert(FileName::new(name).unwrap(), Some(ContentDigest::of(text.as_bytes())));
    }
    for name in remove {
        memory.files.remove(&PathBuf::from(format!("/c/{name}")));
        disk.insert(FileName::new(name).unwrap(), None);
    }
    let order = Order {
        id: "t".into(),
        origin,
        write: write.iter().map(|(n, c)| (FileName::new(n).unwrap(), c.as_bytes().to_vec())).collect(),
        remove: remove.iter().map(|n| FileName::new(n).unwrap()).collect(),
        deadline: None,
    };
    let (plan, _) = plan(&index, &mut now, &mut memory, &order, &disk, None)?;
    let line = |line: &PlannedLine| {
        let files: Vec<_> = line.files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        let mut text = format!("{} {:?} {:?} {files:?}", line.kind, line.vsvc_ids, line.ups_ids);
        for (key, names) in [("maps", &line.maps), ("formats", &line.formats)] {
            if !names.is_empty() {
                text += &format!(" {key}={}", names.join(","));
            }
        }
        text
    };
    let lines: Vec<String> = plan.lines.iter().map(line).collect();
    Ok(match plan.reload {
        Some(reason) => format!("reload: {reason}"),
        None => lines.join("; "),
    })
}

fn controller() -> Origin {
    let step = Step {
        epoch: Epoch(1),
        from: Revision(1),
        to: Revision(2),
        digest: [0; 32],
        whole: false,
        rollout: RolloutId(1),
    };
    Origin::Controller(step)
}

#[test]
fn what_a_task_asks_of_the_proxy() {
    let (a, b, c) = ("auto_vhost/a.conf", "auto_vhost/b.conf", "auto_vhost/c.conf");
    let two = format!("{}{}", vhost(2), vhost(4));
    for (write, remove, expected) in [
        (vec![(c, with_upstream(3, "uc"))], vec![], r#"add_server [3] ["uc"] ["c.conf"]"#),
        (vec![], vec![a], r#"del_server [1] ["ua"] []"#),
        (vec![(a, with_upstream(1, "ua2"))], vec![], r#"mod_server [1] ["ua", "ua2"] ["a.conf"]"#),
        // A shared include: all that use it.
        (vec![("common.conf", String::new())], vec![], r#"mod_server [1, 2] ["ua"] ["a.conf", "b.conf"]"#),
        // Everything at once.
        (vec![(b, vhost(2)), (c, vhost(3))], vec![a], r#"set_server [1, 2, 3] ["ua"] ["b.conf", "c.conf"]"#),
        // A vhost that moves to another file is modified.
        (vec![(c, vhost(2))], vec![b], r#"mod_server [2] [] ["c.conf"]"#),
        // Another vhost in the same file, or beside it.
        (vec![(b, vhost(5))], vec![], r#"set_server [2, 5] [] ["b.conf"]"#),
        (vec![(b, two)], vec![], r#"set_server [2, 4] [] ["b.conf"]"#),
        // An upstream that moves.
        (vec![(b, with_upstream(2, "ua")), (a, vhost(1))], vec![], r#"mod_server [1, 2] ["ua"] ["a.conf", "b.conf"]"#),
        // Upstreams alone: vhosts that include them stay as they are, unless none of the names stays.
        (vec![("auto_upstream/b.conf", "upstream ub { x; }".into())], vec![], r#"mod_server [] ["ub"] ["b.conf"]"#),
        (
            vec![("auto_upstream/b.conf", "upstream ub {} upstream more {}".into())],
            vec![],
            r#"mod_server [] ["more", "ub"] ["b.conf"]"#,
        ),
        (
            vec![("auto_upstream/b.conf", "upstream other {}".into())],
            vec![],
            r#"mod_server [8] ["other", "ub"] ["z.conf"]"#,
        ),
        (
            vec![("auto_upstream/b.conf", "upstream ub {} map $a $c {}".into())],
            vec![],
            r#"mod_server [8] ["ub"] ["z.conf"] maps=c"#,
        ),
        // A file that a pattern in a vhost finds.
        (vec![("parts/z_1.conf", "location /z {}".into())], vec![], r#"mod_server [8] ["ub"] ["z.conf"]"#),
        // Files that nothing reads yet.
        (vec![("auto_upstream/x.conf", "upstream x {}".into())], vec![], ""),
        (vec![(b, with_upstream(2, "ua"))], vec![a], r#"set_server [1, 2] ["ua"] ["b.conf"]"#),
        // Maps and log formats.
        (vec![("http.d/map.conf", String::new())], vec![], r#"del_server [] [] ["map.conf"] maps=b"#),
        (vec![], vec!["http.d/map.conf"], r#"del_server [] [] [] maps=b"#),
        (vec![("values.conf", "x z;".into())], vec![], r#"mod_server [] [] ["map.conf"] maps=b"#),
        (
            vec![("http.d/new.conf", "map $a $c {} log_format f x;".into())],
            vec![],
            r#"add_server [] [] ["new.conf"] maps=c formats=f"#,
        ),
        // What belongs to all.
        (
            vec![("http.d/set.conf", "default_type b;".into())],
            vec![],
            r#"reload: "default_type" in /c/http.d/set.conf:1 changes http as a whole"#,
        ),
        (
            vec![("http.d/new.conf", "client_max_body_size 1;".into())],
            vec![],
            r#"reload: "client_max_body_size" in /c/http.d/new.conf:1 changes http as a whole"#,
        ),
        (vec![(c, "server { }".into())], vec![], r#"reload: server without "vsvc_id" in /c/auto_vhost/c.conf:1"#),
        (
            vec![(c, format!("access_log off;\n{}", vhost(3)))],
            vec![],
            r#"reload: "access_log" in /c/auto_vhost/c.conf:1 changes http as a whole"#,
        ),
    ] {
        let write: Vec<(&str, &str)> = write.iter().map(|(name, text)| (*name, text.as_str())).collect();
        assert_eq!(plan_of(controller(), &write, &remove).unwrap(), expected, "{write:?} {remove:?}");
    }
}

#[test]
fn what_is_refused_before_anything_is_written() {
    for (name, text, expected) in [
        (
            "auto_vhost/c.conf",
            "server { vsvc_id 2; }",
            "duplicate vsvc_id 2 in /c/auto_vhost/b.conf and /c/auto_vhost/c.conf",
        ),
        ("auto_vhost/c.conf", "server { vsvc_id 3;", ""),
        (
            "auto_vhost/below/c.conf",
            "server { vsvc_id 3; }",
            "\"/c/auto_vhost/below/c.conf\" is reached by no include of nginx.conf: it would be lost at the next start",
        ),
        (
            "auto_vhost/c.conf",
            "include absent.conf; server { vsvc_id 3; }",
            "open() \"/c/absent.conf\" failed (No such file or directory (os error 2))",
        ),
    ] {
        let refused = plan_of(controller(), &[(name, text)], &[]).unwrap_err();
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[test]
fn by_hand_the_operator_says_what_it_is() {
    let c = "auto_vhost/c.conf";
    let hand = |kind| Origin::Hand(kind);
    assert_eq!(plan_of(hand(Kind::Add), &[(c, &vhost(3))], &[]).unwrap(), r#"add_server [3] [] ["c.conf"]"#);
    let same = with_upstream(1, "ua");
    assert_eq!(
        plan_of(hand(Kind::Modify), &[("auto_vhost/a.conf", &same)], &[]).unwrap(),
        r#"mod_server [1] ["ua"] ["a.conf"]"#
    );
    assert_eq!(plan_of(hand(Kind::Delete), &[], &["auto_vhost/a.conf"]).unwrap(), r#"del_server [1] ["ua"] []"#);
    assert_eq!(plan_of(hand(Kind::Delete), &[(c, &vhost(3))], &[]).unwrap_err(), "/c/auto_vhost/c.conf is still there");
    assert_eq!(
        plan_of(hand(Kind::Add), &[("auto_upstream/x.conf", "upstream x {}")], &[]).unwrap_err(),
        "no vhost, upstream, map or log_format is in these files"
    );
}

#[test]
fn each_directive_outside_vhosts_names_the_rule_that_forbids_it() {
    use dysvr_conf::directive::{EVENTS, HTTP, MAIN, Setter, all};
    let mut seen = 0;
    for (context, file, what) in [
        (MAIN, "main.d/set.conf", "the process as a whole"),
        (EVENTS, "events.d/set.conf", "events as a whole"),
        (HTTP, "http.d/set.conf", "http as a whole"),
    ] {
        let is_named = |name| context == HTTP && matches!(name, "server" | "upstream" | "map" | "log_format");
        for row in all().filter(|row| row.contexts.meets(context) && !is_named(row.name) && row.name != "include") {
            let name = row.name;
            let text = match row.set {
                Setter::Block(_) => format!("{name} x y {{ }}"),
                _ => format!("{name} x;"),
            };
            let what = if context == MAIN && all().any(|row| row.name == name && row.contexts.meets(HTTP)) {
                "http as a whole"
            } else {
                what
            };
            let expected = format!("reload: \"{name}\" in /c/{file}:1 changes {what}");
            assert_eq!(plan_of(controller(), &[(file, &text)], &[]).unwrap(), expected);
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}
