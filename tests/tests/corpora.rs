//! The fuzz targets' properties over their corpora: what fuzzing has found once is looked at in every test run.

#[path = "../fuzz/properties.rs"]
mod properties;

use std::fs;
use std::path::Path;

fn replay(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{} holds {} files", folder.display(), paths.len());
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        if let Err(panic) = std::panic::catch_unwind(|| property(&bytes)) {
            eprintln!("{} breaks the property of {target}", path.display());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn configuration() {
    replay("configuration", properties::configuration);
}

#[test]
fn task_file() {
    replay("task_file", properties::task_file);
}

#[test]
fn message() {
    replay("message", properties::message);
}
