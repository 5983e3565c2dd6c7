//! What really is, whatever the processes believe. It is told outside of the schedule, so that it orders nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Cycle;

#[derive(Debug, Default)]
pub struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// What was published as each version.
    texts: BTreeMap<u64, Vec<u8>>,
    /// The versions that the master has decided to commit.
    committed: Vec<u64>,
    /// What each living worker serves.
    serves: BTreeMap<u64, Cycle>,
    /// The workers that have begun to.
    begun: BTreeSet<u64>,
    /// Why each worker has refused what version.
    reasons: BTreeMap<(u64, u64), String>,
}

impl Ledger {
    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.0.lock().unwrap()
    }

    pub fn published(&self, version: u64, text: &[u8]) {
        let former = self.entries().texts.insert(version, text.to_vec());
        assert_eq!(former, None, "version {version} was published twice");
    }

    pub fn committed(&self, version: u64) {
        self.entries().committed.push(version);
    }

    pub fn was_read(&self, version: u64, bytes: &[u8]) {
        assert_eq!(self.entries().texts.get(&version).map(Vec::as_slice), Some(bytes), "read as version {version}");
    }

    /// A worker commits.
    pub fn commits(&self, version: u64, text: &[u8]) {
        self.was_read(version, text);
        assert!(self.entries().committed.contains(&version), "a worker commits {version}, which no master has");
    }

    pub fn serves(&self, worker: u64, cycle: &Cycle) {
        let mut entries = self.entries();
        entries.serves.insert(worker, cycle.clone());
        entries.begun.insert(worker);
    }

    /// Whether it serves or has served.
    pub fn has_served(&self, worker: u64) -> bool {
        self.entries().begun.contains(&worker)
    }

    pub fn ended(&self, worker: u64) {
        self.entries().serves.remove(&worker);
    }

    /// `None`: it is dead, whoever knows it, or was born behind the task and does not serve yet.
    pub fn served_by(&self, worker: u64) -> Option<Cycle> {
        self.entries().serves.get(&worker).cloned()
    }

    pub fn refuses(&self, worker: u64, version: u64, reason: &str) {
        self.entries().reasons.insert((worker, version), reason.to_owned());
    }

    pub fn reason(&self, worker: u64, version: u64) -> Option<String> {
        self.entries().reasons.get(&(worker, version)).cloned()
    }
}

macro_rules! seen {
    ($($name:ident),*) => {
        /// How often what was seen in all the schedules: one that never comes to the point proves nothing.
        #[derive(Debug, Default)]
        pub struct Seen { $(pub $name: Count,)* }

        impl Seen {
            pub fn check(&self) {
                println!("{self:?}");
                $(assert_ne!(self.$name.0.load(Ordering::Relaxed), 0, stringify!($name));)*
            }
        }
    };
}

seen!(done, failed, refused, died, late, lost, replaced, anew, damaged, overtaken);

#[derive(Debug, Default)]
pub struct Count(AtomicUsize);

impl Count {
    pub fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
