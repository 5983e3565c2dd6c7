//! The agent's hands: everything that the machine wants done to files and processes, without waiting for anything but the disk.

mod files;
mod seen;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use dysvr_proto::id::TaskId;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::aside::Aside;
use super::check::check;
use super::disk::{Disk, Staged, Staging};
use super::index::Index;
use super::journal::Journal;
use super::ledger::{Entry, FileChanges, Ledger};
use super::managed::{DIRECTORIES, FileName};
use super::memory;
use super::order::Order;
use super::overlay::Overlay;
use super::plan::Plan;
use super::proxy::{Layout, Settings};
use super::report::{Observed, ProxySeen};
use super::rule::{self, UnitChanges};
use super::state::{Effect, Input, Standing, Wake};
use super::tasks::{self, Prepared};
use crate::os::pidfd::PidFd;
use crate::os::{procfs, signal};
use crate::pid_file;
use crate::task::file::sweep;
use seen::proxy_seen;

/// The file of the state directory whose lock serialises tasks.
const LOCK: &str = "lock";

/// What the hands hold.
#[derive(Debug)]
pub struct Hands {
    layout: Layout,
    meminfo: PathBuf,
    settings: Settings,
    journal: Journal,
    ledger: Ledger,
    disk: Disk,
    /// The files that differ from what the ledger's revision left: kept up with each change of either, since to compare
    /// all for each task would take as long as they are many.
    drifted: BTreeSet<FileName>,
    /// `None` until it is needed, and after something has changed that a task did not.
    index: Option<Index>,
    /// What the task under way makes of the index.
    units: Option<UnitChanges>,
    /// What brings contents to the disk, and looks at the proxy, while this thread does something else.
    aside: Aside,
    /// The contents of the task under way, on their way to the disk.
    staging: Option<io::Result<Staging>>,
    /// The same, until they get their names.
    staged: Staged,
    /// The lines of the task under way, until they get their names.
    prepared: Option<io::Result<Prepared>>,
    /// The master that they are for.
    addressee: Option<PidFd>,
    /// The files that the task replaces, held open until nobody waits.
    replaced: Vec<File>,
    /// Files of earlier tasks, which go when nobody waits.
    outdated: Vec<PathBuf>,
    lock: Option<Flock<File>>,
    /// The master that was signalled last.
    master: Option<PidFd>,
    /// The proxy as it was when the verdict of the task under way went to the disk, for whoever is told of it.
    seen: Option<ProxySeen>,
}

impl Hands {
    /// Opens the state directory and holds its lock, which it waits for: another process may be in the middle of a task.
    pub fn new(layout: Layout, meminfo: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&layout.state)?;
        let lock = Flock::lock(open_lock(&layout.state.join(LOCK))?, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
        let settings = read_settings(&layout);
        let (journal, ledger, _) = Journal::open(&layout.state)?;
        let disk = Disk::new(layout.conf_dir());
        let mut hands = Self {
            layout,
            meminfo,
            settings,
            journal,
            ledger,
            disk,
            drifted: BTreeSet::new(),
            index: None,
            units: None,
            aside: Aside::default(),
            staging: None,
            staged: Staged::default(),
            prepared: None,
            addressee: None,
            replaced: Vec::new(),
            outdated: Vec::new(),
            lock: Some(lock),
            master: None,
            seen: None,
        };
        hands.look_at_all()?;
        hands.sweep();
        Ok(hands)
    }

    /// Leftovers of writers that were killed do no harm, so that they cannot be removed does none either.
    fn sweep(&self) {
        let conf_dir = self.layout.conf_dir();
        let managed = DIRECTORIES.map(|directory| conf_dir.join(directory));
        let others = [self.layout.state.as_path(), conf_dir, self.settings.task_file.parent().unwrap_or(conf_dir)];
        for dir in managed.iter().map(PathBuf::as_path).chain(others) {
            if let Err(error) = sweep(dir)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(dir = %dir.display(), %error, "leftovers cannot be removed");
            }
        }
    }

    /// Where things are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the main configuration says.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the agent knows.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The master that was signalled last.
    pub fn master(&self) -> Option<&PidFd> {
        self.master.as_ref()
    }

    /// Gives the handle of the master that was signalled last away, to be waited for.
    pub fn take_master(&mut self) -> Option<PidFd> {
        self.master.take()
    }

    /// The file whose lock serialises tasks.
    pub fn lock_file(&self) -> io::Result<File> {
        open_lock(&self.layout.state.join(LOCK))
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&mut self) -> io::Result<bool> {
        if self.lock.is_some() {
            return Ok(true);
        }
        match Flock::lock(self.lock_file()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                self.lock = Some(lock);
                Ok(true)
            }
            Err((_, Errno::EWOULDBLOCK)) => Ok(false),
            Err((_, e)) => Err(e.into()),
        }
    }

    /// Holds the lock that was waited for elsewhere.
    pub fn hold(&mut self, lock: Flock<File>) {
        self.lock = Some(lock);
    }

    /// Files were changed, by whom is not known. Says whether the node's state is another one now.
    pub fn look_at(&mut self, names: &[FileName]) -> io::Result<bool> {
        let changed = self.refresh(names.iter());
        if !matches!(changed, Ok(false)) {
            self.index = None;
        }
        changed
    }

    /// Looks at all managed files.
    pub fn look_at_all(&mut self) -> io::Result<bool> {
        let changed = self.disk.refresh_all(self.ledger.files.names());
        self.drifted = self.ledger.files.differing(self.disk.manifest());
        if !matches!(changed, Ok(false)) {
            self.index = None;
        }
        changed
    }

    /// Looks at some files, and at what they are to the ledger.
    fn refresh<'n>(&mut self, names: impl Iterator<Item = &'n FileName> + Clone) -> io::Result<bool> {
        let changed = self.disk.refresh(names.clone());
        self.compare(names);
        changed
    }

    /// These files may have changed, or what the ledger knows of them.
    fn compare<'n>(&mut self, names: impl Iterator<Item = &'n FileName>) {
        for name in names {
            if self.ledger.files.get(name) == self.disk.manifest().get(name) {
                self.drifted.remove(name);
            } else {
                self.drifted.insert(name.clone());
            }
        }
        debug_assert_eq!(self.drifted, self.ledger.files.differing(self.disk.manifest()));
    }

    /// The main configuration, or something that it includes, may have changed.
    pub fn forget_configuration(&mut self) {
        (self.index, self.seen) = (None, None);
        self.settings = read_settings(&self.layout);
    }

    /// Whether a file is managed.
    pub fn is_managed(&self, name: &FileName) -> bool {
        name.is_in_managed_directory() || self.ledger.files.contains(name)
    }

    /// What the node has and runs.
    pub fn observed(&self) -> Observed {
        Observed {
            revision: self.ledger.revision,
            epoch: self.ledger.epoch,
            digest: self.disk.manifest().digest(),
            drifted: self.drifted.clone(),
            proxy: self.seen.clone().unwrap_or_else(|| proxy_seen(&self.settings)),
        }
    }

    /// Does what the machine wants. [`Effect::Lock`] and [`Effect::Check`] come with the lock held. `None`: nothing is
    /// answered, or ([`Effect::Test`], [`Effect::Report`], [`Effect::Exit`]) it is not for the hands.
    pub fn perform(&mut self, effect: &Effect) -> Option<Input> {
        Some(match effect {
            Effect::Lock => Input::Locked(self.catch_up().map(|()| self.ledger.in_flight.clone())),
            Effect::Check(order) => Input::Checked(self.check(order)),
            Effect::Plan { order, disk, reload } => Input::Planned(self.plan(order, disk, reload.clone())),
            Effect::Guard => Input::Guarded(self.guard()),
            Effect::Stage { order, disk, changes } => {
                self.staging = Some(self.disk.stage(order, disk, changes, &mut self.aside));
                return None;
            }
            Effect::Begin { begun, lines, staged } => Input::Began(self.begin(begun.clone(), lines, *staged)),
            Effect::Write => Input::Written(self.write().map_err(|e| format!("disk: {e}"))),
            Effect::Signal(wake) => Input::Signalled(self.signal(*wake)),
            Effect::Settle { changes, found } => Input::Settled(self.settle(changes, *found)),
            Effect::Look => Input::Looked(self.look()),
            Effect::Withdraw { tasks, reason } => {
                Input::Withdrawn(tasks::withdraw(&self.settings.task_file, tasks, reason))
            }
            Effect::Undo => Input::Undone(self.undo()),
            Effect::Record(entry) => {
                self.record(entry.clone());
                return None;
            }
            Effect::Unlock => {
                self.lock = None;
                self.master = None;
                self.seen = None;
                self.units = None;
                self.staging = None;
                self.staged = Staged::default();
                self.prepared = None;
                self.addressee = None;
                self.replaced.clear();
                // They do no harm.
                self.outdated.drain(..).for_each(|path| drop(fs::remove_file(path)));
                return None;
            }
            Effect::Test | Effect::Report(_) | Effect::Exit => return None,
        })
    }

    /// The lines of the task file.
    pub fn look(&self) -> Result<Vec<crate::task::TaskLine>, String> {
        tasks::read(&self.settings.task_file)
    }

    /// Another process may have worked on the journal while this one did not hold the lock.
    fn catch_up(&mut self) -> Result<(), String> {
        let wrong = |e: io::Error| format!("journal: {e}");
        if self.journal.is_stale().map_err(wrong)? {
            let (journal, ledger, _) = Journal::open(&self.layout.state).map_err(wrong)?;
            (self.journal, self.ledger) = (journal, ledger);
            self.look_at_all().map_err(|e| format!("managed files: {e}"))?;
        }
        Ok(())
    }

    fn check(&mut self, order: &Order) -> Result<Standing, String> {
        self.catch_up()?;
        let names: Vec<FileName> = order.write.keys().chain(&order.remove).cloned().collect();
        self.look_at(&names).map_err(|e| format!("managed files: {e}"))?;
        let last_line = self.look().unwrap_or_default().iter().map(|line| line.task_id).max().unwrap_or(TaskId(0));
        Ok(Standing {
            checked: check(order, &self.ledger, self.disk.manifest(), &self.drifted),
            last_task: self.ledger.last_task.max(last_line),
            in_flight: self.ledger.in_flight.clone(),
            task_timeout: self.settings.task_timeout,
        })
    }

    fn plan(&mut self, order: &Order, changes: &FileChanges, reload: Option<String>) -> Result<Plan, String> {
        if !self.settings.enabled && reload.is_none() {
            return self.plan(order, changes, Some("dysvr is off in this configuration".into()));
        }
        let index = match &mut self.index {
            Some(index) => index,
            None => {
                let (index, problems) = Index::build(&mut Overlay::disk(), &self.layout.conf)?;
                problems.iter().for_each(|problem| tracing::warn!(%problem, "a file of the configuration is left out"));
                self.index.insert(index)
            }
        };
        let mut after = Overlay::after(self.layout.conf_dir(), order, changes);
        let (plan, units) = rule::plan(index, &mut Overlay::disk(), &mut after, order, changes, reload)?;
        self.units = Some(units);
        Ok(plan)
    }

    fn guard(&self) -> Result<u64, String> {
        let text = procfs::text(&self.meminfo).map_err(|e| format!("{}: {e}", self.meminfo.display()))?;
        memory::guard(&text)
    }

    fn signal(&mut self, wake: Wake) -> Result<(), String> {
        // One that has ended may have a successor.
        let process = match self.addressee.take().filter(PidFd::is_alive) {
            Some(process) => process,
            None => pid_file::master(&self.settings.pid_file).map_err(|e| e.to_string())?,
        };
        let number = match wake {
            Wake::InPlace => signal::dysvr(),
            Wake::Reload => libc::SIGHUP,
        };
        process.send(number).map_err(|e| format!("signalling master {}: {e}", process.pid()))?;
        if self.master.as_ref().is_none_or(|master| master.pid() != process.pid()) {
            self.master = Some(process);
        }
        Ok(())
    }

    fn record(&mut self, entry: Entry) {
        let done = match &entry {
            Entry::End { report, .. } => Some(report.status == dysvr_proto::status::Status::Done),
            _ => None,
        };
        let changes = match &entry {
            Entry::End { .. } => self.ledger.in_flight.as_ref().map(|begun| &begun.changes),
            Entry::Adopted { changes, .. } => Some(changes),
            _ => None,
        };
        let names: Vec<FileName> = changes.iter().flat_map(|changes| changes.keys()).cloned().collect();
        let settings = self.settings.clone();
        let seen = self.aside.start(move || proxy_seen(&settings));
        let appended = self.journal.append(&mut self.ledger, entry.clone());
        self.seen = seen.wait().ok();
        if let Err(e) = appended {
            // What was done is done; a restart finds the task in flight and its verdict in the task file.
            tracing::error!(error = %e, "a verdict is not on the disk");
            self.ledger.apply(entry);
        }
        self.compare(names.iter());
        match (done, self.units.take(), &mut self.index) {
            (Some(true), Some(units), Some(index)) => {
                if units.keys().any(|path| index.is_whole(path)) {
                    self.index = None;
                } else {
                    units.into_iter().for_each(|(path, unit)| index.set(&path, unit));
                }
            }
            (Some(true), None, _) => self.index = None,
            _ => {}
        }
        let reloaded = self.ledger.answers.back().is_some_and(|a| a.report.mode == Some(super::report::Mode::Reload));
        if done == Some(true) && reloaded {
            // What a reload reads may be settings of ours, and files that are no units.
            self.forget_configuration();
        }
    }
}

fn read_settings(layout: &Layout) -> Settings {
    Settings::read(layout).unwrap_or_else(|problem| {
        tracing::warn!(%problem, "the main configuration cannot be read; its usual settings are assumed");
        Settings::usual(layout)
    })
}

/// A file that exists to be locked.
pub fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}
