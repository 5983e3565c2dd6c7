//! The master: one thread, no runtime. It holds the configuration that workers are forked from, obeys signals and task
//! files, and keeps the workers alive.

pub mod options;
pub mod quarantine;
mod reload;
mod sockets;
mod start;
mod supervise;
mod takeover;
mod task;
mod twin;
mod verify;
mod watchdog;
mod workers;

use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use dysvr_conf::intern::Interner;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use start::run;

use crate::cycle::Cycle;
use crate::dysvr;
use crate::dysvr::round::Input;
use crate::log::{self, Level};
use crate::os::channel::Command;
use crate::os::errno;
use crate::os::fork::{Exit, reap};
use crate::os::marks::Marks;
use crate::os::process::Owner;
use crate::os::signal::{self, Received, Signals};
use crate::os::time::monotonic;
use crate::os::zone::{TASK, Zone};
use options::Options;
use sockets::Sockets;
use workers::{SlotId, Workers};

/// The master process.
pub struct Master {
    options: Options,
    /// Absolute.
    prefix: PathBuf,
    /// Of the pid file.
    marks: Rc<Marks>,
    cycle: Rc<Cycle>,
    /// A commit has panicked in the cycle: nothing is forked from it, compared with it or changed in it any more, until a
    /// load has made another one.
    is_damaged: bool,
    interner: Interner,
    sockets: Sockets,
    zone: Rc<Zone>,
    signals: Signals,
    workers: Workers,
    /// Who the workers run as; `None` without root.
    owner: Option<Owner>,
    /// Raised by each reload.
    generation: u64,
    tasks: task::Tasks,
    reload: reload::Reload,
    births: supervise::Births,
    quarantine: quarantine::Quarantine,
    watchdog: watchdog::Watchdog,
    verify: verify::Verify,
    /// The signal that told the master to leave: QUIT, TERM or INT.
    leaving: Option<i32>,
    /// Workers of a former master, until ours serve.
    takeover: takeover::Takeover,
    /// Children may have ended.
    children: bool,
}

/// What there is to read after a sleep.
#[derive(Default)]
struct Awake {
    signals: bool,
    /// Of these workers.
    channels: Vec<SlotId>,
}

/// The signals that a master reads.
fn all_signals() -> [i32; 10] {
    [
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGWINCH,
        libc::SIGCHLD,
        libc::SIGALRM,
        signal::dysvr(),
    ]
}

impl Master {
    /// Serves until it is told to leave and the last worker has left.
    fn serve(mut self) -> io::Result<()> {
        self.write_quarantine();
        let count = self.worker_count();
        self.spawn_generation(count)?;
        loop {
            let ready = self.wait()?;
            // What one wake-up has to say is written when all that it has to do is done.
            let _lines = log::gather();
            if ready.signals {
                for received in self.signals.pending()? {
                    self.on_signal(received);
                }
            }
            self.receive(ready.channels);
            if std::mem::take(&mut self.children) {
                self.reap()?;
            }
            let now = monotonic();
            self.task_tick(now)?;
            self.reload_tick();
            self.respawn_due(now);
            self.watch(now);
            self.verify_tick(now);
            self.sockets.expire(now);
            if self.leaving.is_some() && self.workers.is_empty() {
                self.finish();
                // The process ends: to free a large configuration piece by piece would take longer than all else of it.
                std::mem::forget(self);
                return Ok(());
            }
        }
    }

    /// Sleeps until a signal, a message or a deadline; says which of them there are.
    fn wait(&self) -> io::Result<Awake> {
        let deadlines = [
            self.tasks.deadline(),
            self.births.deadline().filter(|_| !self.is_damaged),
            self.watchdog.deadline(),
            self.verify_deadline(),
            self.sockets.deadline(),
        ];
        let deadline = deadlines.into_iter().flatten().min();
        let timeout = match deadline {
            None => PollTimeout::NONE,
            // Rounded up: waking before the deadline would spin.
            Some(at) => {
                let ms = at.saturating_sub(monotonic()).as_millis() + 1;
                PollTimeout::try_from(ms.min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX)
            }
        };
        let channels = self.workers.iter().map(|(_, worker)| worker.channel.as_fd());
        let mut fds: Vec<_> = std::iter::once(self.signals.as_fd())
            .chain(channels)
            .chain(self.verify.pipe())
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(Awake::default()),
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let signals = ready.next().unwrap_or(true);
        let slots = self.workers.iter().map(|(slot, _)| slot);
        Ok(Awake { signals, channels: slots.zip(ready).filter_map(|(slot, ready)| ready.then_some(slot)).collect() })
    }

    fn on_signal(&mut self, Received { signal, pid, value }: Received) {
        let say = |what: &str| log!(Level::Notice, "signal {signal} ({}) received from {pid}{what}", name_of(signal));
        match signal {
            libc::SIGCHLD => self.children = true,
            libc::SIGALRM => {}
            libc::SIGHUP => {
                say(", reconfiguring");
                self.reload.wanted = true;
            }
            libc::SIGUSR1 => {
                say(", reopening logs");
                self.reopen();
            }
            // Read, so that it does not kill the master as its default action would.
            libc::SIGUSR2 => say(", ignored: a new binary takes a restart"),
            libc::SIGWINCH => {
                say(", gracefully shutting down workers");
                self.births.stop();
                self.tell_all(Command::Quit);
            }
            libc::SIGQUIT => {
                say(", shutting down");
                self.leave(signal, Command::Quit);
            }
            libc::SIGTERM | libc::SIGINT => {
                say(", exiting");
                self.leave(signal, Command::Terminate);
            }
            _ if signal == signal::dysvr() && value != 0 => {
                log!(Level::Notice, "signal {signal} (SIGRTMIN+9) received from {pid}, verifying");
                self.verify_asked(value);
            }
            _ if signal == signal::dysvr() => {
                log!(Level::Notice, "signal {signal} (SIGRTMIN+9) received from {pid}, dysvr reconfiguring");
                self.tasks.wanted = true;
            }
            _ => {}
        }
    }

    /// Lets the workers of a former master go once all of ours serve.
    fn relieve(&mut self) {
        if !self.takeover.is_over() && self.workers.iter().all(|(_, worker)| worker.ready) {
            self.sockets.let_go();
            self.takeover.dismiss();
        }
    }

    fn leave(&mut self, signal: i32, command: Command) {
        // A fast stop overtakes a graceful one, not the other way round.
        if self.leaving.is_none_or(|before| before == libc::SIGQUIT) {
            self.leaving = Some(signal);
        }
        self.births.stop();
        self.sockets.close_all();
        self.takeover.dismiss();
        self.tell_all(command);
        if command == Command::Terminate {
            self.watch_end();
        }
    }

    fn tell_all(&mut self, command: Command) {
        let slots: Vec<SlotId> = self.workers.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.workers.send(slot, command, 0);
            if let Some(worker) = self.workers.get_mut(slot) {
                worker.leaving |= command != Command::Reopen;
            }
        }
    }

    fn reopen(&mut self) {
        for (path, error) in log::reopen_all() {
            log!(Level::Emerg, "open() \"{}\" failed ({})", path.display(), errno(&error));
        }
        if let Some(owner) = &self.owner {
            log::chown_all(owner.uid);
        }
        self.tell_all(Command::Reopen);
    }

    /// Takes in what workers have to say: one message of each that is `ready`, since a channel that has more stays
    /// readable. When one may have ended, all that is left of all of them: afterwards it cannot be had.
    fn receive(&mut self, ready: Vec<SlotId>) {
        let slots = if self.children { self.workers.iter().map(|(slot, _)| slot).collect() } else { ready };
        let mut messages = Vec::with_capacity(slots.len());
        for slot in slots {
            while let Some(worker) = self.workers.get(slot) {
                match worker.channel.receive() {
                    Ok(Some(message)) => messages.push((slot, message)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The other end is gone, and the process with it or soon.
                    Ok(None) | Err(_) => {
                        self.children = true;
                        break;
                    }
                }
                if !self.children {
                    break;
                }
            }
        }
        let now = monotonic();
        for (slot, message) in messages {
            match message.command {
                Command::Ready => self.on_ready(now, slot),
                Command::Prepared => self.round_input(now, Input::Prepared(slot, message.version)),
                Command::Committed => self.on_committed(now, slot, message.version),
                Command::Refused => {
                    let said = self.zone.slot(slot).said();
                    let reason = if said.reason.is_empty() { "no reason given".into() } else { said.reason };
                    let pid = self.workers.get(slot).map_or(0, |worker| worker.pid);
                    self.round_input(now, Input::Refused(slot, message.version, format!("worker {pid}: {reason}")));
                }
                Command::Lost => {
                    self.round_input(now, Input::Died(slot));
                    self.retire(now, slot, "has missed a version");
                }
                Command::Panicked => {
                    let worker = self.workers.get(slot);
                    let mark = worker.and_then(|worker| worker.zone.slot(slot).panicked(message.version));
                    let what = format!("worker process {} panicked", worker.map_or(0, |worker| worker.pid));
                    if let Some(mark) = mark {
                        self.blame(mark, &what);
                    }
                }
                // What only a master says: a confused worker; its deadline will find it.
                _ => {}
            }
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Some((pid, exit)) = reap() {
            let Some((slot, worker)) = self.workers.remove(pid) else {
                self.verify_reaped(pid, exit);
                continue;
            };
            match exit {
                Exit::Code(code) => log!(Level::Notice, "worker process {pid} exited with code {code}"),
                Exit::Signal(signal) => log!(Level::Alert, "worker process {pid} exited on signal {signal}"),
            }
            let now = monotonic();
            if !worker.leaving {
                self.births.died(now, worker.born, worker.ordinal);
            }
            let crash = match exit {
                Exit::Signal(signal) if worker.stuck || is_crash(signal) => Some(signal),
                _ => None,
            };
            self.task_lost(slot);
            self.round_input(now, Input::Died(slot));
            self.reload.gone(slot);
            if let Some((signal, mark)) = crash.zip(worker.zone.slot(slot).beat().running.filter(|mark| *mark != TASK))
            {
                let how = if worker.stuck { "was stuck".to_owned() } else { format!("exited on signal {signal}") };
                self.blame(mark, &format!("worker process {pid} {how}"));
            }
        }
        Ok(())
    }

    /// The last act: the files that say that it runs.
    fn finish(&mut self) {
        self.sockets.remove_files();
        let _ = std::fs::remove_file(self.prefix.join(&self.cycle.conf.main.pid));
        let _ = std::fs::remove_file(
            dysvr::task_file(self.cycle.http().as_deref(), &self.prefix).with_file_name(quarantine::FILE),
        );
        log!(Level::Notice, "exit");
    }

    /// How many workers the configuration asks for.
    fn worker_count(&self) -> usize {
        self.cycle.conf.main.worker_processes.unwrap_or_else(crate::os::process::processors) as usize
    }

    /// How long a phase of a task may take.
    fn task_timeout(&self) -> Duration {
        self.cycle.http().map_or(Duration::from_secs(10), |http| http.main.dysvr.task_timeout)
    }
}

/// Whether a process brings this signal upon itself; what others send (KILL of an operator or of a machine without memory)
/// says nothing about the request that ran.
fn is_crash(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGABRT | libc::SIGTRAP | libc::SIGSYS
    )
}

fn name_of(signal: i32) -> &'static str {
    match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGWINCH => "SIGWINCH",
        _ => "SIGCHLD",
    }
}
