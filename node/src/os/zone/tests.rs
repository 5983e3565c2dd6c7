use std::rc::Rc;

use super::atomic::Ordering;
use super::*;
use crate::os::fork::{Fork, fork};

#[test]
fn a_child_reads_what_the_parent_published_and_answers_in_its_slot() {
    let zone = Zone::new(64 << 10, 0).unwrap();
    let version = zone.publish(b"a task", false).unwrap().version;
    match fork().unwrap() {
        Fork::Child => {
            let text = zone.lock(false).and_then(|_guard| zone.read(version).ok());
            let reason = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
            zone.slot(3).say(&Said { version, prepare_us: 5, commit_us: 6, reason });
            crate::os::process::exit_now(0);
        }
        Fork::Parent(pid) => {
            nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
            assert_eq!(zone.slot(3).said(), Said { version: 1, prepare_us: 5, commit_us: 6, reason: "a task".into() });
        }
    }
}

#[test]
fn what_a_worker_ran_stays_behind_when_it_dies() {
    let zone = Rc::new(Zone::new(0, 0).unwrap());
    match fork().unwrap() {
        Fork::Child => {
            let pulse = Pulse::new(&zone, 2);
            pulse.enter(0);
            pulse.turn(0);
            pulse.enter(7);
            pulse.turn(8);
            pulse.panicked(9, pulse.running());
            crate::os::process::exit_now(0);
        }
        Fork::Parent(pid) => {
            nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
            assert_eq!(zone.slot(2).beat(), Beat { running: Some(8), polls: 2 });
            assert_eq!((zone.slot(2).panicked(9), zone.slot(2).panicked(8)), (Some(8), None));
            zone.slot(2).claim();
            assert_eq!(zone.slot(2).beat(), Beat::default());
        }
    }
}

#[test]
fn a_dead_holder_does_not_keep_the_mutex() {
    let zone = Zone::new(0, 0).unwrap();
    match fork().unwrap() {
        Fork::Child => {
            std::mem::forget(zone.lock(false));
            crate::os::process::exit_now(0);
        }
        Fork::Parent(pid) => {
            nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
            let guard = zone.lock(true).expect("released by the death of its holder");
            assert!(zone.lock(true).is_none(), "held now");
            drop(guard);
            assert!(zone.lock(true).is_some());
        }
    }
}

#[test]
fn a_holder_that_does_not_go_on_is_given_up() {
    let zone = Zone::new(0, 0).unwrap();
    let (reader, writer) = io::pipe().unwrap();
    match fork().unwrap() {
        Fork::Child => {
            drop(reader);
            let _held = zone.lock(false);
            drop(writer);
            nix::unistd::pause();
            crate::os::process::exit_now(0);
        }
        Fork::Parent(pid) => {
            drop(writer);
            io::Read::read(&mut &reader, &mut [0]).unwrap();
            assert!(zone.lock(true).is_none());
            assert_eq!(zone.publish(b"not yet", true), Err(NotPublished::Taken));
            assert_eq!(zone.publish(b"on we go", false), Ok(Published { version: 1, anew: true }));
            assert_eq!(zone.publish(b"and on", true), Ok(Published { version: 2, anew: false }));
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            nix::sys::wait::waitpid(pid, None).unwrap();
        }
    }
}

#[test]
fn a_confined_worker_writes_its_slot_and_nothing_else() {
    let zone = Zone::new(0, 0).unwrap();
    let version = zone.publish(b"kept", false).unwrap().version;
    let stray: [&dyn Fn(); 3] =
        [&|| zone.board().room[0].store(0, Ordering::Relaxed), &|| zone.board().head.begin(9), &|| {
            zone.slot(2).claim()
        }];
    for (number, write) in stray.into_iter().enumerate() {
        match fork().unwrap() {
            Fork::Child => {
                let confined = zone.confine(1).is_ok() && zone.lock(false).is_some() && zone.read(version).is_ok();
                zone.slot(1).say(&Said { version: number as u64, ..Said::default() });
                if confined {
                    write();
                }
                crate::os::process::exit_now(0);
            }
            Fork::Parent(pid) => {
                let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
                assert!(matches!(status, nix::sys::wait::WaitStatus::Signaled(..)), "{number}: {status:?}");
                assert_eq!(zone.slot(1).said().version, number as u64);
            }
        }
    }
    assert_eq!(zone.read(version).unwrap(), b"kept");
}

#[test]
fn other_versions_and_damage_are_noticed() {
    let zone = Zone::new(0, 0).unwrap();
    let version = zone.publish(b"0123456789", false).unwrap().version;
    assert_eq!(zone.read(version + 1), Err(InvalidMessage::Version { found: 1, wanted: 2 }));
    let word = &zone.board().room[0];
    word.store(word.load(Ordering::Relaxed) ^ 1 << 33, Ordering::Relaxed);
    assert_eq!(zone.read(version), Err(InvalidMessage::Damaged));
    word.store(word.load(Ordering::Relaxed) ^ 1 << 33, Ordering::Relaxed);
    assert_eq!(zone.read(version).as_deref(), Ok(&b"0123456789"[..]));
    zone.board().head.length.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(zone.read(version), Err(InvalidMessage::Damaged));
    zone.board().head.length.store(10, Ordering::Relaxed);
    // The same bytes under another version: what a reader that was overtaken would take for its own.
    zone.board().head.begin(version + 1);
    assert_eq!(zone.read(version + 1), Err(InvalidMessage::Damaged));
}

#[test]
fn a_message_that_is_too_large_travels_by_itself_and_is_what_the_zone_says() {
    let zone = Zone::new(0, 0).unwrap();
    zone.publish(b"small", false).unwrap();
    let large = vec![7; zone.capacity() + 1];
    let version = zone.publish(&large, false).unwrap().version;
    assert_eq!(zone.read(version), Err(InvalidMessage::Absent));
    let sealed = Sealed::new(&large).unwrap();
    assert_eq!(zone.read_sealed(version, &sealed).as_deref(), Ok(&*large));
    assert_eq!(zone.read_sealed(1, &sealed), Err(InvalidMessage::Version { found: 2, wanted: 1 }));
    let mut other = large.clone();
    other[3] = 8;
    for other in [&other[..], &large[1..], b""] {
        assert_eq!(zone.read_sealed(version, &Sealed::new(other).unwrap()), Err(InvalidMessage::Damaged));
    }
    // The next one that fits stands in the zone again.
    let version = zone.publish(b"small again", false).unwrap().version;
    assert_eq!(zone.read(version).as_deref(), Ok(&b"small again"[..]));
}
