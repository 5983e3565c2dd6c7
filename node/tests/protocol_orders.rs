//! The zone under loom: the product's own files, compiled with atomics whose every schedule and every value that the memory
//! model allows is tried.
//!
//! `LOOM_MAX_PREEMPTIONS=5 cargo test --release -p dysvr-node --test protocol_orders` looks further than the short form.

#![allow(missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering as Std};

use loom as engine;
use loom::sync::Arc;
use loom::thread;

include!("protocol/product.rs");

use atomic::{AtomicU64, Fate, lives};
use message::{Board, Head, InvalidMessage};
use mutex::{Mutex, i_am};
use slot::{Said, Slot};

/// How often a mutex is tried before its holder is given up. Once: to wait longer is to come later, which is tried as well.
const PATIENCE: usize = 1;

#[derive(Debug, Default)]
struct Zone {
    mutex: Mutex,
    head: Head,
    room: [AtomicU64; 2],
    slot: Slot,
}

impl Zone {
    fn board(&self) -> Board<'_> {
        Board { mutex: &self.mutex, head: &self.head, room: &self.room }
    }
}

/// The message of a version: no two have a word or a length in common.
fn text(version: u64) -> Vec<u8> {
    vec![b'a' + version as u8; 16 - version as usize]
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(4));
    builder.check(model);
}

/// What was seen in all the schedules of a test: one that never comes to the point proves nothing.
struct Seen(AtomicUsize);

impl Seen {
    const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    fn note(&self, happened: bool) {
        self.0.fetch_add(usize::from(happened), Std::Relaxed);
    }

    #[track_caller]
    fn check(&self) {
        assert_ne!(self.0.load(Std::Relaxed), 0, "no schedule came to this point");
    }
}

/// What a worker has read, and whether under the mutex.
type Read = (Result<Vec<u8>, InvalidMessage>, bool);

/// A worker reads a version as the product does: it goes on without the mutex when it does not get it.
fn read(zone: &Zone, version: u64) -> Read {
    let guard = zone.board().lock(false);
    (zone.board().read(version), guard.is_some())
}

/// A zone with a message, which a worker reads at any moment from now on.
fn published_and_read() -> (Arc<Zone>, thread::JoinHandle<Read>) {
    i_am(1);
    let zone = Arc::new(Zone::default());
    zone.board().publish(&text(1), false).unwrap();
    let worker = thread::spawn({
        let zone = Arc::clone(&zone);
        move || {
            i_am(2);
            read(&zone, 1)
        }
    });
    (zone, worker)
}

#[test]
fn what_is_read_is_the_message_of_that_version_whole_or_an_error() {
    static READ: Seen = Seen::new();
    static DAMAGED: Seen = Seen::new();
    static ANEW: Seen = Seen::new();
    explore(|| {
        let (zone, worker) = published_and_read();
        let published = zone.board().publish(&text(2), false).unwrap();
        assert_eq!(published.version, 2);
        let (got, held) = worker.join().unwrap();
        READ.note(got.is_ok());
        DAMAGED.note(got == Err(InvalidMessage::Damaged));
        ANEW.note(published.anew);
        match got {
            Ok(bytes) => assert_eq!(bytes, text(1)),
            Err(InvalidMessage::Version { found, .. }) => assert_eq!(found, 2),
            Err(error) => assert!(published.anew || !held, "{error} under the mutex"),
        }
        assert_eq!(zone.board().read(2).unwrap(), text(2));
    });
    READ.check();
    DAMAGED.check();
    ANEW.check();
}

/// Its commands travel by a channel, as here; the kernel orders what was written before a message for whoever has read it.
#[test]
fn a_worker_that_was_told_of_a_version_reads_it_and_its_answer_stands_in_its_slot() {
    explore(|| {
        i_am(1);
        let zone = Arc::new(Zone::default());
        let (command, commands) = loom::sync::mpsc::channel();
        let (answer, answers) = loom::sync::mpsc::channel();
        let worker = thread::spawn({
            let zone = Arc::clone(&zone);
            move || {
                i_am(2);
                let version = commands.recv().unwrap();
                let (got, _) = read(&zone, version);
                let reason = String::from_utf8(got.unwrap()).unwrap();
                zone.slot.prove(u128::MAX - 7);
                zone.slot.say(&Said { version, prepare_us: 5, commit_us: 6, reason });
                answer.send(version).unwrap();
            }
        });
        let version = zone.board().publish(&text(1), false).unwrap().version;
        command.send(version).unwrap();
        // At any moment: numbers that were said, whole.
        let early = zone.slot.said();
        assert!(early.version == 0 || (early.prepare_us, early.commit_us) == (5, 6), "{early:?}");
        assert_eq!(answers.recv().unwrap(), version);
        let reason = String::from_utf8(text(1)).unwrap();
        assert_eq!(zone.slot.said(), Said { version, prepare_us: 5, commit_us: 6, reason });
        assert_eq!(zone.slot.proof(), u128::MAX - 7);
        worker.join().unwrap();
    });
}

/// At each of its accesses, some of which it makes while it holds the mutex.
#[test]
fn a_worker_that_dies_leaves_the_master_and_the_others_as_they_were() {
    static DIED: Seen = Seen::new();
    static LIVED: Seen = Seen::new();
    for last in 0..10 {
        explore(move || {
            i_am(1);
            let zone = Arc::new(Zone::default());
            zone.board().publish(&text(1), false).unwrap();
            let worker = |number, fate| {
                let zone = Arc::clone(&zone);
                thread::spawn(move || {
                    i_am(number);
                    lives(fate, || {
                        let got = read(&zone, 1).0;
                        zone.slot.say(&Said { version: 1, prepare_us: number, ..Said::default() });
                        got
                    })
                })
            };
            let doomed = worker(2, Fate::Dies(last));
            let published = zone.board().publish(&text(2), false).unwrap();
            let dead = doomed.join().unwrap();
            DIED.note(dead.is_none());
            LIVED.note(matches!(dead, Some(Ok(_))));
            assert!(!matches!(dead, Some(Ok(bytes)) if bytes != text(1)));
            // Whatever it held: the next one gets the mutex and reads.
            assert_eq!(published.version, 2);
            let (got, held) = read(&zone, 2);
            assert!(held);
            assert_eq!(got.unwrap(), text(2));
        });
    }
    DIED.check();
    LIVED.check();
}

#[test]
fn with_trylock_a_task_is_refused_and_nothing_written() {
    static TAKEN: Seen = Seen::new();
    explore(|| {
        let (zone, worker) = published_and_read();
        let published = zone.board().publish(&text(2), true);
        let (got, held) = worker.join().unwrap();
        TAKEN.note(published.is_err());
        assert!(!held || matches!(got, Ok(_) | Err(InvalidMessage::Version { .. })), "{got:?} under the mutex");
        let now = if published.is_ok() { 2 } else { 1 };
        assert_eq!(zone.board().read(now).unwrap(), text(now));
    });
    TAKEN.check();
}
