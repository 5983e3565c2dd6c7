//! Law 1: after any history of tasks the running configuration is what a fresh load of the same files gives. Random histories
//! of adds, modifies, deletes and sets, of one vhost and of many, of upstreams alone, of maps and log formats, of shared
//! includes and of certificates, over overlapping names, default servers and addresses that come and go, plain and TLS; after each step the digests are compared, after some the answers
//! to requests. `DYSVR_SEED` repeats a history, `DYSVR_STEPS` makes it longer (a million takes a minute or two in a release build).

mod equal;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dysvr_conf::intern::Interner;
use dysvr_node::cycle::differ::differences;
use dysvr_node::cycle::{Cycle, Refusal};
use dysvr_node::task::Kind;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use equal::answers::{answers, served};
use equal::site::{Names, Site, Task};

/// What a history has seen.
#[derive(Debug, Default)]
struct Tally {
    done: u64,
    wrong: u64,
    reload: u64,
}

/// Runs a task in place; the site becomes what the task leads to when it is done.
fn run(cycle: &Cycle, interner: &mut Interner, site: &mut Site, task: &Task, id: u64) -> Result<(), Refusal> {
    let after = site.after(task);
    let change = after.change(cycle, interner, task, id)?;
    let prepared = cycle.prepare(change)?;
    drop(cycle.commit(prepared));
    // Whoever reads what is no part of it any more finds something else.
    cycle.region().sweep();
    *site = after;
    Ok(())
}

/// Fails with both sides' text when the running cycle is not the fresh one.
fn compare(running: &Cycle, fresh: &Cycle, what: &dyn Fn() -> String) {
    if running.digest() != fresh.digest() || running.digest() != running.counted_digest() {
        panic!("{}\n{}", what(), differences(running, fresh, usize::MAX, 1 << 20).text);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn any_history_in_place_is_a_fresh_load() {
    let seed = number("DYSVR_SEED").unwrap_or_else(rand::random::<u64>);
    let steps = number("DYSVR_STEPS").unwrap_or(10_000);
    println!("DYSVR_SEED={seed} DYSVR_STEPS={steps}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut site = Site::default();
    let mut interner = Interner::default();
    let mut cycle = site.load().unwrap();
    let mut tally = Tally::default();
    let mut kinds = BTreeSet::new();
    for id in 1..=steps {
        let task = site.random_task(&mut rng);
        let what = || format!("DYSVR_SEED={seed} step {id}: {task:#?}\n{site:#?}");
        let before = cycle.digest();
        let wanted = site.after(&task);
        let mut now = site.clone();
        match run(&cycle, &mut interner, &mut now, &task, id) {
            Ok(()) => {
                tally.done += 1;
                kinds.insert(task.shape());
                // A load costs ten times what the task does: after each of the first, then after some.
                if id < 300 || rng.random_bool(0.03) {
                    let fresh = wanted.load().unwrap_or_else(|e| panic!("{}\nin place was done, a load: {e}", what()));
                    compare(&cycle, &fresh, &what);
                    if rng.random_bool(0.1) {
                        let found = differences(&cycle, &fresh, usize::MAX, 1 << 20);
                        assert_eq!(found.count, 0, "{}\n{}", what(), found.text);
                        let (ours, theirs) = (answers(&cycle), answers(&fresh));
                        let differ = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
                        assert_eq!(differ, None, "{}: in place, fresh", what());
                    }
                } else {
                    assert_eq!(cycle.digest(), cycle.counted_digest(), "{}: kept, counted", what());
                }
                site = wanted;
            }
            Err(refusal) => {
                assert_eq!(cycle.digest(), before, "{}: refused ({refusal}), but something changed", what());
                assert_eq!(cycle.digest(), cycle.counted_digest(), "{}: refused ({refusal})", what());
                match refusal {
                    Refusal::Wrong(reason) => {
                        tally.wrong += 1;
                        if id < 300 || rng.random_bool(0.03) {
                            assert!(wanted.load().is_err(), "{}: refused in place ({reason}), but it loads", what());
                        }
                    }
                    Refusal::NeedsReload(_) => {
                        tally.reload += 1;
                        // As a master does it.
                        if let Ok(fresh) = wanted.load() {
                            cycle = fresh;
                            site = wanted;
                        }
                    }
                }
            }
        }
    }
    println!("{tally:?} {kinds:?}");
    assert!(tally.done > steps / 2 && tally.wrong > 0, "{tally:?}");
    assert!(steps < 10_000 || kinds.len() > 30, "{kinds:?}");
}

#[test]
fn requests_are_answered_in_place_as_after_a_fresh_load() {
    let seed = number("DYSVR_SEED").unwrap_or_else(rand::random::<u64>);
    println!("DYSVR_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut site = Site::default();
    let mut interner = Interner::default();
    let cycle = std::rc::Rc::new(site.load().unwrap());
    let end = Instant::now() + Duration::from_secs(20);
    let (mut compared, mut over_tls) = (0, 0);
    // A slow machine too compares until it has seen TLS.
    for id in 1..=300 {
        let task = site.random_task(&mut rng);
        let mut now = site.clone();
        if run(&cycle, &mut interner, &mut now, &task, id).is_err() {
            continue;
        }
        site = now;
        if id % 10 == 0 && (compared < 3 || over_tls <= compared || Instant::now() < end) {
            let fresh = std::rc::Rc::new(site.load().unwrap());
            let (ours, theirs) = (served(&cycle), served(&fresh));
            assert_eq!(ours.len(), theirs.len(), "DYSVR_SEED={seed} step {id}: in place, fresh\n{site:#?}");
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!(ours, theirs, "DYSVR_SEED={seed} step {id}: in place, fresh\n{site:#?}");
                over_tls += u32::from(ours.contains("TLSv1_") && ours.contains("200 OK"));
            }
            compared += 1;
        }
    }
    println!("{over_tls} answers over TLS in {compared} steps");
    assert!(over_tls > compared, "{over_tls} answers over TLS in {compared} steps");
}

/// Whatever [`answers`] can tell apart, the digest tells apart: sites that differ in one thing.
#[test]
fn one_thing_changed_is_another_digest() {
    let seed = number("DYSVR_SEED").unwrap_or_else(rand::random::<u64>);
    println!("DYSVR_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut site = Site::default();
    let (mut told, mut changed) = (0, 0);
    while changed < 400 {
        let task = site.random_task(&mut rng);
        let wanted = site.after(&task);
        let (Ok(before), Ok(after)) = (site.load(), wanted.load()) else { continue };
        changed += 1;
        if answers(&before) != answers(&after) {
            told += 1;
            assert_ne!(before.digest(), after.digest(), "DYSVR_SEED={seed}: {task:#?}\n{site:#?}");
        }
        let differ = differences(&before, &after, usize::MAX, 1 << 20);
        assert_eq!(before.digest() == after.digest(), differ.count == 0, "DYSVR_SEED={seed}: {}", differ.text);
        site = wanted;
    }
    assert!(told > 100, "{told} of {changed}");
}

/// A cycle that lost or kept what it should not: the tables are what is summed, not what was put in.
#[test]
fn places_and_comments_do_not_count_but_the_order_does() {
    let vhost =
        |id: u64, name: &str| format!("server {{ vsvc_id {id}; listen 80; server_name {name}; return 204; }}\n");
    let load = |one: &str, two: &str| Site::of(&[("a.conf", one), ("b.conf", two)]).load().unwrap();
    let plain = load(&vhost(1, "~^a"), &vhost(2, "~a"));
    let commented = load(&format!("# a comment\n\n\n{}", vhost(1, "~^a")), &vhost(2, "\"~a\""));
    assert_eq!(plain.digest(), commented.digest());
    let both = load(&(vhost(1, "~^a") + &vhost(2, "~a")), "# nothing\n");
    assert_eq!(plain.digest(), both.digest(), "in one file");
    let swapped = load(&vhost(2, "~a"), &vhost(1, "~^a"));
    assert_ne!(plain.digest(), swapped.digest(), "another one is the default server");
    assert_ne!(plain.digest(), load(&vhost(1, "~^a"), &vhost(2, "~a b")).digest());
}

#[test]
fn the_last_vhost_that_sets_what_http_uses_stays() {
    let set = |id: u64| format!("server {{ vsvc_id {id}; listen 80; set $tenant t{id}; return 204; }}\n");
    let mut site = Site::of(&[("a.conf", &set(1)), ("b.conf", &set(2))]);
    site.http = "log_format t $tenant;".into();
    let mut interner = Interner::default();
    let cycle = site.load().unwrap();
    let delete = |file: &str, id| {
        let names = Names { vsvc: [id].into(), ..Names::default() };
        Task { kind: Kind::Delete, files: vec![(file.to_owned(), None)], names }
    };
    run(&cycle, &mut interner, &mut site, &delete("auto_vhost/a.conf", 1), 1).unwrap();
    let refusal = run(&cycle, &mut interner, &mut site, &delete("auto_vhost/b.conf", 2), 2).unwrap_err();
    assert!(refusal.to_string().contains("unknown \"tenant\" variable"), "{refusal}");
}
