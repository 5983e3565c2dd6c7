//! The classic full reload: the new configuration beside the old one, new workers, then the old ones leave gracefully.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use dysvr_proto::status::Status;

use super::task::{carry_over, say_unwritten};
use super::workers::SlotId;
use super::{Master, start};
use crate::cycle::{Cycle, Refusal};
use crate::dysvr;
use crate::dysvr::update::guarded;
use crate::log::{self, Level};
use crate::os::channel::Command;
use crate::os::errno;
use crate::os::memory;
use crate::os::time::monotonic;
use crate::task::Mode;
use crate::task::opened::{Held, NotWritten, OpenTaskFile};

/// What the master knows of reloads.
#[derive(Debug, Default)]
pub struct Reload {
    /// A HUP has come.
    pub wanted: bool,
    /// The workers of the new generation that do not serve yet.
    waiting: Vec<SlotId>,
    running: bool,
    /// The task lines that wait for this reload's verdict.
    asked: Option<OpenTaskFile>,
    began: Duration,
}

impl Reload {
    /// Whether new workers are on their way.
    pub fn is_busy(&self) -> bool {
        self.running
    }

    /// A worker has ended: it is not waited for (its successor serves the same configuration).
    pub fn gone(&mut self, slot: SlotId) {
        self.waiting.retain(|waiting| *waiting != slot);
    }
}

impl Master {
    /// Begins a reload that is wanted, and ends the one whose workers all serve.
    pub(super) fn reload_tick(&mut self) {
        if self.reload.running {
            let workers = &self.workers;
            self.reload.waiting.retain(|slot| workers.get(*slot).is_some_and(|worker| !worker.ready));
            if self.reload.waiting.is_empty() && self.serves_anew() {
                self.end_reload();
            }
        }
        // One whose workers cannot live is overtaken by the next.
        if self.reload.wanted
            && (!self.reload.running || !self.serves_anew())
            && !self.tasks.is_running()
            && self.leaving.is_none()
        {
            self.reload.wanted = false;
            self.begin_reload();
        }
    }

    /// The cycle cannot be trusted any more: the files are loaded anew, as soon as the task that runs has its verdict.
    pub(super) fn damage(&mut self) {
        log!(Level::Alert, "[dysvr] a commit has panicked in the master, a defect of the proxy: reloading");
        self.is_damaged = true;
        self.reload.wanted = true;
    }

    /// Whether a worker of the newest generation serves: until then the old one goes on.
    fn serves_anew(&self) -> bool {
        let generation = self.generation;
        self.workers.iter().any(|(_, worker)| worker.generation == generation && worker.ready && !worker.leaving)
    }

    fn begin_reload(&mut self) {
        self.reload.began = monotonic();
        self.close_task_file();
        self.verify_disturbed(self.reload.began);
        self.reload.asked = self.reload_tasks();
        let loaded = self.load_anew();
        memory::give_back();
        match loaded {
            Ok(()) => {}
            Err(error) => {
                log!(Level::Emerg, "{error}");
                self.answer(|task| task.fail(error.clone()));
                return;
            }
        }
        self.generation += 1;
        self.births.forget();
        let count = self.worker_count();
        log!(Level::Notice, "start worker processes");
        let now = self.reload.began;
        self.reload.waiting = (0..count).filter_map(|ordinal| self.give_birth(now, ordinal)).collect();
        self.reload.running = true;
    }

    /// Loads the files into a cycle of their own and, when all is well, makes it the master's.
    fn load_anew(&mut self) -> Result<(), String> {
        let load = || {
            let loaded = start::load(&self.options, &self.prefix, &mut self.interner).map_err(Refusal::Wrong)?;
            Cycle::load(loaded)
        };
        let cycle = guarded(load).map_err(|refusal| refusal.to_string())?;
        self.interner.forget_dead();
        let log = start::open_log(&self.options, &cycle.conf, &self.prefix)?;
        let count = cycle.conf.main.worker_processes.unwrap_or_else(crate::os::process::processors) as usize;
        let opened = self.sockets.open(&cycle.sockets(), count)?;
        let owner = start::owner(&cycle.conf)?;
        let zone =
            start::zone(&cycle, Some(&self.zone)).map_err(|error| format!("mmap() failed ({})", errno(&error)))?;
        self.move_pid_file(&cycle);
        self.sockets.take_over(opened);
        self.sockets.follow(&cycle, count);
        log::set_current(log);
        if let Some(owner) = &owner {
            log::chown_all(owner.uid);
        }
        self.owner = owner;
        self.zone = zone;
        self.carry_quarantine(&cycle);
        self.cycle = Rc::new(cycle);
        self.is_damaged = false;
        self.lift_quarantine();
        Ok(())
    }

    /// The pid file follows the configuration.
    fn move_pid_file(&mut self, cycle: &Cycle) {
        let (old, new) = (self.prefix.join(&self.cycle.conf.main.pid), self.prefix.join(&cycle.conf.main.pid));
        if old != new {
            let marks = start::marks_at(&new, &self.marks);
            match marks.and_then(|marks| start::write_pid(&new, &marks).map(|()| marks)) {
                Ok(marks) => {
                    self.marks = marks;
                    if !is_one_file(&old, &new) {
                        let _ = std::fs::remove_file(old);
                    }
                }
                Err(error) => log!(Level::Emerg, "{error}"),
            }
        }
    }

    fn end_reload(&mut self) {
        self.reload.running = false;
        self.sockets.let_go();
        let old: Vec<SlotId> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.generation < self.generation && !worker.leaving)
            .map(|(slot, _)| slot)
            .collect();
        for slot in old {
            self.workers.send(slot, Command::Quit, 0);
            if let Some(worker) = self.workers.get_mut(slot) {
                worker.leaving = true;
            }
        }
        let cost = monotonic().saturating_sub(self.reload.began);
        log!(Level::Notice, "reload end cost {}ms", cost.as_millis());
        self.answer(|task| {
            task.set_status(Status::Done);
            task.master_us = Some(cost.as_micros() as u64);
        });
    }

    /// The task file, if tasks in it wait for a reload.
    fn reload_tasks(&self) -> Option<OpenTaskFile> {
        let path = dysvr::task_file(self.cycle.http().as_deref(), &self.prefix);
        let file = OpenTaskFile::parse(Held::read(&path).ok()?).ok()?;
        let waits = file.tasks().any(waits_for_reload);
        waits.then_some(file)
    }

    fn answer(&mut self, verdict: impl Fn(&mut crate::task::TaskLine)) {
        let Some(mut file) = self.reload.asked.take() else { return };
        let asked: Vec<_> = file.tasks().filter(|task| waits_for_reload(task)).map(|task| task.task_id).collect();
        let mut judge = |task: &mut crate::task::TaskLine| {
            let waits = waits_for_reload(task) && asked.contains(&task.task_id);
            if waits {
                verdict(task);
            }
            waits
        };
        match file.conclude_all(&mut judge) {
            // Whoever has replaced the file may have kept lines that this reload has answered.
            Err(NotWritten::Superseded) => carry_over(file.path(), judge),
            written => say_unwritten(written, file.path()),
        }
    }
}

fn is_one_file(a: &Path, b: &Path) -> bool {
    let identity = |path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    identity(a).is_some_and(|a| Some(a) == identity(b))
}

fn waits_for_reload(task: &crate::task::TaskLine) -> bool {
    task.mode == Some(Mode::Reload) && task.status == Status::Init
}
