//! Whole tasks under shuttle: the product's zone, slots, rounds and followers, with a master and workers as threads whose
//! schedules are drawn at random. Workers die and are stopped at any access to the shared memory, messages get lost, workers
//! refuse, and those that do not follow are replaced.
//!
//! `DYSVR_ROUNDS=1000000 cargo test --release -p dysvr-node --test protocol_rounds` tries more schedules, `DYSVR_SEED` others.
//! A failure prints its schedule, which `shuttle::replay` repeats.

#![allow(missing_docs)]

use shuttle as engine;

include!("protocol/product.rs");
#[path = "protocol/world/mod.rs"]
mod world;

/// How often a mutex is tried before its holder is given up: sometimes one that only reads slowly is, too.
const PATIENCE: usize = 6;

/// Schedules among which each thing that may happen does.
const ENOUGH: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_becomes_of_workers_and_messages_every_task_ends_as_it_must() {
    let rounds = number("DYSVR_ROUNDS").unwrap_or(ENOUGH);
    let seed = number("DYSVR_SEED").unwrap_or(1);
    println!("DYSVR_SEED={seed} DYSVR_ROUNDS={rounds}");
    let seen = std::sync::Arc::new(world::Seen::default());
    let mut config = shuttle::Config::new();
    // A panic is told from the stack of its thread.
    config.stack_size = 1 << 19;
    // It knows no weak orders; `protocol_orders.rs` does.
    config.silence_warnings = true;
    let scheduler = shuttle::scheduler::RandomScheduler::new_from_seed(seed, rounds as usize);
    let watched = std::sync::Arc::clone(&seen);
    shuttle::Runner::new(scheduler, config).run(move || world::run(&watched));
    if rounds >= ENOUGH {
        seen.check();
    }
}
