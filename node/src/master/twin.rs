//! The twin: a child of the master that loads the files afresh, as a start would, compares the outcome with its copy of the
//! running cycle, and says what it found. It has nothing of the master's but memory: descriptors are closed, nothing is
//! logged, nothing is bound.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use dysvr_conf::intern::Interner;

use super::options::Options;
use super::start;
use crate::cycle::differ::differences;
use crate::cycle::{self, Cycle};
use crate::dysvr::source::Machine;
use crate::dysvr::verify::finding::{Finding, MAX_TEXT, Outcome};
use crate::log::{self, Log};
use crate::os::process::{close_all_but, end_with, give_way};
use crate::os::time::processor;

/// Vhosts of which what was compiled is compared too, in one look: some tens of microseconds each.
const DEEP: usize = 2_000;
/// Bytes of a reason: all errors of a hundred thousand files would fill a disk.
const MAX_REASON: usize = 4 << 10;

/// Looks and says what it found; gives the exit code. In a child that was just forked and has only to leave afterwards.
pub fn look(
    options: &Options,
    prefix: &Path,
    running: &Cycle,
    out: std::io::PipeWriter,
    parent: u32,
    awaited: bool,
) -> i32 {
    log::set_current(Log::nowhere());
    end_with(parent);
    close_all_but(&out);
    give_way(awaited);
    let mut finding = compare(options, prefix, running);
    finding.cost = processor();
    let mut out = File::from(std::os::fd::OwnedFd::from(out));
    let code = i32::from(out.write_all(&finding.encode()).is_err());
    // The descriptor is closed by the end of the process.
    std::mem::forget(out);
    code
}

fn compare(options: &Options, prefix: &Path, running: &Cycle) -> Finding {
    let finding = Finding {
        digest: running.digest(),
        vhosts: running.vhost_count() as u64,
        upstreams: running.upstream_count() as u64,
        listeners: running.listener_count() as u64,
        ..Finding::default()
    };
    // Strings of its own: what two configurations share cannot differ.
    let mut interner = Interner::default();
    let loaded = cycle::load(&start::load_options(options, prefix), &mut Machine, &mut interner)
        .map_err(|problems| problems.to_string())
        .and_then(|conf| Cycle::look_at(conf).map_err(|refusal| refusal.to_string()));
    let files = match loaded {
        Ok(files) => files,
        Err(reason) => {
            let mut end = reason.len().min(MAX_REASON);
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            return Finding { outcome: Outcome::Unloadable, reason: reason[..end].to_owned(), ..finding };
        }
    };
    let twin = files.counted_digest();
    let (count, text) = if running.region().begin() {
        let found = differences(running, &files, DEEP, MAX_TEXT);
        (found.count, found.text)
    } else {
        // A task was done meanwhile, and the room of what it has replaced is used again: of what ran then only the digest is
        // left. Where it differs the master looks again, as after every difference that something came in between of.
        (u64::from(twin != finding.digest), String::new())
    };
    let outcome = if count == 0 { Outcome::Equal } else { Outcome::Different };
    // Freed by the end of the process, which is quicker.
    std::mem::forget(files);
    Finding { outcome, twin: Some(twin), differences: count, text, ..finding }
}
