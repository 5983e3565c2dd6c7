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
    let emerg = said.lines().find_map(|line| {
        let (_, text) = line.split_once("[emerg] ")?;
        // `PID#TID: ` comes first once the log is open.
        let text =
            text.split_once(": ").filter(|(ids, _)| ids.contains('#') && !ids.contains(' ')).map_or(text, |x| x.1);
        Some(text.to_owned())
    });
    assert_eq!(emerg.is_none(), output.status.success(), "{said}");
    emerg
}

/// What we say first.
fn ours(text: &str) -> Option<String> {
    let mut files = Memory::default();
    files.insert("/p/nginx.conf", text);
    let options =
        LoadOptions { conf: "/p/nginx.conf".into(), prefix: "/p".into(), globals: String::new(), privileged: true };
    let problems = load(&options, &mut files, &mut Interner::default()).err()?;
    Some(problems.0[0].to_string().replace("/p/", ""))
}

/// Whether two refusals are one. nginx gives no place for what it finds after parsing; we always do.
fn agree(nginx: &Option<String>, ours: &Option<String>) -> bool {
    match (nginx, ours) {
        (None, None) => true,
        (Some(nginx), Some(ours)) => {
            nginx == ours
                || (!nginx.contains(" in nginx.conf:") && ours.starts_with(&format!("{nginx} in nginx.conf:")))
        }
        _ => false,
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
        if !agree(&nginx, &ours) {
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
