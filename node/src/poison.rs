//! Faults on demand, for tests alone: the feature `poison` compiles them in, and no program that is shipped has it.
//!
//! A request runs into one by `set $anything poison:WHAT;` in its configuration. A step of a task runs into one when the
//! folder that the environment names by `DYSVR_POISON` holds a file called like the step; the file holds WHAT and is gone
//! with the first process that comes by.

use std::path::PathBuf;
use std::time::Duration;

use crate::os::signal;
use crate::os::zone::Zone;

/// Names the folder.
pub const FOLDER: &str = "DYSVR_POISON";

/// A step of a task in the worker that has `slot`, or in the master.
pub fn point(step: &str, zone: &Zone, slot: usize) {
    let Some(file) = std::env::var_os(FOLDER).map(|folder| PathBuf::from(folder).join(step)) else { return };
    let Ok(what) = std::fs::read_to_string(&file) else { return };
    // Only one can remove it.
    if std::fs::remove_file(&file).is_err() {
        return;
    }
    log!(crate::log::Level::Notice, "poison at {step}: {what}");
    match what.trim() {
        "scribble" => zone.scribble(slot),
        what => act(what),
    }
}

/// Whether the folder has a file called like a step, which this takes away.
pub fn taken(step: &str) -> bool {
    std::env::var_os(FOLDER).is_some_and(|folder| std::fs::remove_file(PathBuf::from(folder).join(step)).is_ok())
}

/// A value that a request's configuration makes.
pub fn value(value: &[u8]) {
    if let Some(what) = value.strip_prefix(b"poison:") {
        act(&String::from_utf8_lossy(what));
    }
}

fn act(what: &str) {
    let me = std::process::id().cast_signed();
    match what {
        "abort" => std::process::abort(),
        "panic" => panic!("poison"),
        "overflow" => drop(overflow(&[0; 4096])),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "sleep" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        "leak" => drop(std::hint::black_box(Vec::leak(vec![1_u8; 64 << 20]))),
        "kill" => drop(signal::send(me, libc::SIGKILL)),
        "stop" => drop(signal::send(me, libc::SIGSTOP)),
        "exit" => std::process::exit(3),
        _ => {}
    }
}

/// Runs out of stack.
#[allow(unconditional_recursion)]
fn overflow(before: &[u8; 4096]) -> u64 {
    let mut here = [1; 4096];
    here[usize::from(before[7])] = 3;
    overflow(std::hint::black_box(&here)) + u64::from(here[9])
}
