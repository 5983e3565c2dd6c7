//! Notices idle connections that their peers close, and those that nobody has used for too long.
//!
//! One task per worker for all pools: each pool has a waker that puts the pool's number on a list and wakes the task.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustc_hash::FxBuildHasher;

use super::Pool;

/// How often pools are looked at without a sign from a peer.
const INTERVAL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub struct Reaper {
    pools: RefCell<HashMap<u64, Weak<Pool>, FxBuildHasher>>,
    next: Cell<u64>,
    signals: Arc<Signals>,
    runs: Cell<bool>,
}

#[derive(Default)]
struct Signals {
    woken: Mutex<(Vec<u64>, Option<Waker>)>,
}

struct PoolWaker {
    pool: u64,
    signals: Arc<Signals>,
}

impl Wake for PoolWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut woken = self.signals.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if woken.0.last() != Some(&self.pool) {
            woken.0.push(self.pool);
        }
        if let Some(task) = woken.1.take() {
            task.wake();
        }
    }
}

impl Reaper {
    /// The waker of a pool that is about to keep its first connection.
    pub(super) fn watch(self: &Rc<Self>, pool: &Rc<Pool>) -> Waker {
        let number = self.next.get();
        self.next.set(number + 1);
        self.pools.borrow_mut().insert(number, Rc::downgrade(pool));
        if !self.runs.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).run());
        }
        Waker::from(Arc::new(PoolWaker { pool: number, signals: Arc::clone(&self.signals) }))
    }

    async fn run(self: Rc<Self>) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let signs = std::future::poll_fn(|cx| {
                let mut woken = self.signals.woken.lock().unwrap_or_else(PoisonError::into_inner);
                if !woken.0.is_empty() {
                    return Poll::Ready(Some(std::mem::take(&mut woken.0)));
                }
                woken.1 = Some(cx.waker().clone());
                interval.poll_tick(cx).map(|_| None)
            });
            match signs.await {
                Some(numbers) => {
                    for number in numbers {
                        let pool = self.pools.borrow().get(&number).and_then(Weak::upgrade);
                        if let Some(pool) = pool {
                            pool.sweep(Instant::now());
                        }
                    }
                }
                None => self.sweep_all(),
            }
        }
    }

    fn sweep_all(&self) {
        let now = Instant::now();
        self.pools.borrow_mut().retain(|_, pool| match pool.upgrade() {
            Some(pool) => {
                pool.sweep(now);
                true
            }
            None => false,
        });
    }

    /// Closes all idle connections: the worker is about to end.
    pub fn clear(&self) {
        for pool in self.pools.borrow().values().filter_map(Weak::upgrade) {
            pool.clear();
        }
    }
}
