//! A master, its workers, and what must hold of them.

mod ledger;
mod master;
mod worker;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::sync::Arc;

use super::atomic::{AtomicU64, Fate};
use super::message::{Board, Head};
use super::mutex::Mutex;
use super::slot::Slot;

pub use self::ledger::Seen;

const SLOTS: usize = 8;
const TASKS: u64 = 4;

#[derive(Debug, Default)]
struct Zone {
    mutex: Mutex,
    head: Head,
    room: [AtomicU64; 3],
    slots: [Slot; SLOTS],
}

impl Zone {
    fn board(&self) -> Board<'_> {
        Board { mutex: &self.mutex, head: &self.head, room: &self.room }
    }
}

/// What travels on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Prepare,
    Commit,
    Apply,
    Abort,
    Quit,
    Ready,
    Prepared,
    Refused,
    Committed,
    Lost,
}

/// A configuration, as the tasks that it has come of.
type Cycle = Vec<Vec<u8>>;

fn digest(cycle: &Cycle) -> u128 {
    cycle
        .iter()
        .flatten()
        .fold(7, |sum: u128, byte| sum.wrapping_mul(0x1_0000_0000_01b3).wrapping_add(u128::from(*byte)))
}

fn draw_fate() -> Fate {
    let mut rng = thread_rng();
    match rng.gen_range(0..10) {
        0..6 => Fate::Lives,
        6..8 => Fate::Dies(rng.gen_range(0..60)),
        _ => Fate::Stops(rng.gen_range(0..60), rng.gen_range(1..400)),
    }
}

/// A master's life, with some workers and tasks.
pub fn run(seen: &std::sync::Arc<Seen>) {
    let zone = Arc::new(Zone::default());
    let mut master = master::Master::new(&zone, seen);
    for _ in 0..thread_rng().gen_range(1..=3) {
        master.spawn();
    }
    for task in 1..=TASKS {
        master.task(task);
    }
    master.leave();
}
