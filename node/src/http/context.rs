//! What all connections of a worker share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use dysvr_conf::http::MainConf;
use dysvr_conf::http::log::AccessLog;
use dysvr_conf::main_conf::ErrorLog;
use rustc_hash::FxBuildHasher;
use tokio::sync::Notify;

use super::client::{Client, Stage};
use super::clock::Clock;
use super::log::Plan;
use super::request::Request;
use super::upstream::Reaper;
use super::variable;
use crate::cycle::Cycle;
use crate::log::{self, Log};
use crate::os::zone::Pulse;

/// What was made of a shared list of a configuration, found again by the list's address, which the entry keeps alive.
struct Made<K, V> {
    known: HashMap<usize, (Arc<[K]>, V), FxBuildHasher>,
    /// The size at which entries whose list no configuration has any more are looked for.
    sweep_at: usize,
}

/// What access logs need, with the formats and maps that it was made from.
#[derive(Default)]
struct Plans {
    main: Option<Arc<MainConf>>,
    made: Made<AccessLog, Rc<Plan>>,
}

/// Below this many entries a sweep is not worth it.
const SWEEP_MIN: usize = 64;

impl<K, V> Default for Made<K, V> {
    fn default() -> Self {
        Self { known: HashMap::default(), sweep_at: SWEEP_MIN }
    }
}

impl<K, V: Clone> Made<K, V> {
    fn get(&self, list: &Arc<[K]>) -> Option<V> {
        self.known.get(&(Arc::as_ptr(list).cast::<u8>() as usize)).map(|(_, made)| made.clone())
    }

    fn insert(&mut self, list: &Arc<[K]>, made: V) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, (list, _)| Arc::strong_count(list) > 1);
            self.sweep_at = SWEEP_MIN.max(self.known.len() * 2);
        }
        self.known.insert(Arc::as_ptr(list).cast::<u8>() as usize, (Arc::clone(list), made));
    }
}

/// Figures of a worker since it began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted.
    pub accepted: Cell<u64>,
    /// Connections that are open.
    pub active: Cell<u64>,
    /// Requests that were begun.
    pub requests: Cell<u64>,
}

/// See the module.
pub struct Context {
    /// The configuration that runs.
    pub cycle: Rc<Cycle>,
    /// The time.
    pub clock: Clock,
    /// `$hostname`.
    pub hostname: Box<str>,
    /// `$pid`.
    pub pid: u32,
    /// Figures.
    pub counters: Counters,
    /// Where header values are put together.
    pub arena: RefCell<BytesMut>,
    /// For values that are put together.
    pub scratch: Cell<Vec<u8>>,
    /// Watches idle connections to peers.
    pub reaper: Rc<Reaper>,
    /// Says whose request runs.
    pub pulse: Pulse,
    /// Requests that have panicked, and whoever passes that on.
    pub panics: Panics,
    prefix: PathBuf,
    clients: RefCell<Vec<Option<Rc<Client>>>>,
    free: RefCell<Vec<usize>>,
    draining: Cell<bool>,
    left: Notify,
    error_logs: RefCell<Made<ErrorLog, Log>>,
    plans: RefCell<Plans>,
}

/// How many requests have panicked, with a wake-up for whoever passes it on.
#[derive(Debug, Default)]
pub struct Panics {
    count: Cell<u64>,
    told: Cell<u64>,
    more: Notify,
}

impl Panics {
    /// Counts one; gives its number, from 1.
    pub(super) fn add(&self) -> u64 {
        self.count.set(self.count.get() + 1);
        self.more.notify_one();
        self.count.get()
    }

    /// The number of the next one that was not given yet. May be dropped and called again.
    pub async fn next(&self) -> u64 {
        while self.told.get() == self.count.get() {
            self.more.notified().await;
        }
        self.told.set(self.told.get() + 1);
        self.told.get()
    }
}

impl Plans {
    /// Writes what buffered access logs still hold.
    fn flush(&self) {
        self.made.known.values().for_each(|(_, plan)| plan.flush());
    }
}

impl Context {
    /// The context of this process, which is a worker already: its pid goes into variables. Relative log files are below
    /// `prefix`. Whose request runs is said by `pulse`.
    pub fn new(cycle: Rc<Cycle>, prefix: PathBuf, pulse: Pulse) -> Rc<Self> {
        let hostname = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().to_lowercase();
        Rc::new(Self {
            cycle,
            clock: Clock::default(),
            hostname: hostname.into(),
            pid: std::process::id(),
            counters: Counters::default(),
            arena: RefCell::default(),
            scratch: Cell::default(),
            reaper: Rc::default(),
            pulse,
            panics: Panics::default(),
            prefix,
            clients: RefCell::default(),
            free: RefCell::default(),
            draining: Cell::new(false),
            left: Notify::new(),
            error_logs: RefCell::default(),
            plans: RefCell::default(),
        })
    }

    pub(super) fn next_connection(&self) -> u64 {
        let number = self.counters.accepted.get() + 1;
        self.counters.accepted.set(number);
        number
    }

    /// Puts a connection on the list of those that a drain waits for; gives its place on it.
    pub(super) fn enter(&self, client: &Rc<Client>) -> usize {
        self.counters.active.set(self.counters.active.get() + 1);
        let mut clients = self.clients.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(place) => {
                clients[place] = Some(Rc::clone(client));
                place
            }
            None => {
                clients.push(Some(Rc::clone(client)));
                clients.len() - 1
            }
        }
    }

    pub(super) fn leave(&self, place: usize) {
        self.counters.active.set(self.counters.active.get() - 1);
        self.clients.borrow_mut()[place] = None;
        self.free.borrow_mut().push(place);
        if self.counters.active.get() == 0 {
            self.left.notify_waiters();
        }
    }

    pub(super) fn request_began(&self) {
        self.counters.requests.set(self.counters.requests.get() + 1);
    }

    pub(super) fn request_ended(&self) {}

    /// Listeners have gone: connections that nobody serves any more end in good order.
    pub fn addresses_closed(&self) {
        for client in self.clients.borrow().iter().flatten() {
            client.route();
            if client.is_homeless() && client.stage.get() == Stage::Idle {
                client.wake();
            }
        }
    }

    /// Whether connections are to end.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Ends the connections in good order: idle ones at once, the others after their request. Resolves when none is left;
    /// may be dropped and called again.
    pub async fn drain(&self) {
        self.draining.set(true);
        self.reaper.clear();
        for client in self.clients.borrow().iter().flatten() {
            if client.stage.get() == Stage::Idle {
                client.wake();
            }
        }
        loop {
            let left = self.left.notified();
            if self.counters.active.get() == 0 {
                return;
            }
            left.await;
        }
    }

    /// The error log of a location.
    pub fn error_log(&self, logs: &Arc<[ErrorLog]>) -> Log {
        if logs.is_empty() {
            return log::current();
        }
        let mut known = self.error_logs.borrow_mut();
        if let Some(log) = known.get(logs) {
            return log;
        }
        match Log::open(logs, &self.prefix) {
            Ok(log) => {
                known.insert(logs, log.clone());
                log
            }
            Err(_) => log::current(),
        }
    }

    /// The access logs of a location, with their files open, for a request that began with `main`. That of a request
    /// which has outlived its formats and maps is its own.
    pub(super) fn access_plan(&self, main: &Arc<MainConf>, logs: &Arc<[AccessLog]>) -> Rc<Plan> {
        let mut plans = self.plans.borrow_mut();
        let is = |other: &Arc<MainConf>| Arc::ptr_eq(main, other);
        if !plans.main.as_ref().is_some_and(is) {
            if !is(&self.cycle.main()) {
                return Rc::new(Plan::open(logs, &self.prefix, main));
            }
            *plans = Plans { main: Some(Arc::clone(main)), made: Made::default() };
        }
        if let Some(plan) = plans.made.get(logs) {
            return plan;
        }
        let plan = Rc::new(Plan::open(logs, &self.prefix, main));
        plans.made.insert(logs, Rc::clone(&plan));
        plan
    }

    /// Whether an access log of a location asks for headers of an answer, which are gone when it has been sent.
    pub(super) fn logs_headers(&self, main: &Arc<MainConf>, logs: &Arc<[AccessLog]>) -> bool {
        !logs.is_empty() && self.access_plan(main, logs).wants_headers
    }

    /// Writes what buffered access logs still hold: before the worker ends, and when logs are reopened.
    pub fn flush_logs(&self) {
        self.plans.borrow().flush();
    }

    /// A file without a name.
    pub(super) fn temp_file(&self) -> io::Result<File> {
        tempfile::tempfile()
    }

    /// `$request_id` for a request that has none yet.
    pub(super) fn request_id(&self, _: &Request) -> [u8; 16] {
        variable::new_id()
    }
}
