//! The driver: feeds the machine with what happens and lets the hands do what it wants. Shared by the agent and by
//! `dysvr-node task`.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use tokio::task::JoinHandle;

use super::hands::Hands;
use super::order::Order;
use super::report::Report;
use super::state::{Effect, Input, Machine};
use super::verify;
use super::watch::{Changes, Watch};
use crate::dysvr::verify::finding::News;
use crate::os::pidfd::{Ending, PidFd};

/// Longest time that `dysvr-proxy -t` may take: a configuration that takes longer to read cannot be reloaded either.
const TEST: Duration = Duration::from_secs(60);

/// What comes out.
#[derive(Debug)]
pub enum Outcome {
    /// News of a task.
    Report(Report),
    /// What the node has or runs may have changed.
    Changed,
    /// All that [`Input::Stop`] asked for is done.
    Exit,
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    /// The hands.
    pub hands: Hands,
    machine: Machine,
    watch: Watch,
    began: Instant,
    /// An effect that takes its time elsewhere.
    pending: Option<JoinHandle<Background>>,
    /// What waits for the lock.
    after_lock: Option<Effect>,
    /// The master that was signalled, to be told of its end.
    master: Option<Ending>,
    /// What was told last of what the master found.
    found: Option<News>,
}

#[derive(Debug)]
enum Background {
    Locked(io::Result<Flock<File>>),
    Tested(Result<(), String>),
}

impl Driver {
    /// Starts, which first ends a task that an earlier run left unfinished.
    pub fn new(hands: Hands) -> io::Result<Self> {
        let settings = hands.settings();
        let watch = Watch::new(hands.layout().conf_dir(), &settings.task_file, &settings.pid_file)?;
        let machine = Machine::new(Duration::ZERO);
        let began = Instant::now();
        Ok(Self { hands, machine, watch, began, pending: None, after_lock: None, master: None, found: None })
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Gives an order.
    pub fn order(&mut self, order: Order) {
        self.machine.handle(self.now(), Input::Order(Box::new(order)));
    }

    /// Ends what is under way and takes no more.
    pub fn stop(&mut self) {
        self.machine.handle(self.now(), Input::Stop);
    }

    /// Whether a task is under way.
    pub fn is_busy(&self) -> bool {
        self.machine.is_busy()
    }

    /// Runs to the next outcome. Cancelling it loses nothing.
    pub async fn next(&mut self) -> io::Result<Outcome> {
        loop {
            if let Some(outcome) = self.effects()? {
                return Ok(outcome);
            }
            let timeout = self.machine.poll_timeout().map(|at| self.began + at);
            let timer = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let master = async {
                match &self.master {
                    Some(master) => drop(master.wait().await),
                    None => std::future::pending().await,
                }
            };
            let pending = async {
                match &mut self.pending {
                    Some(pending) => pending.await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                biased;
                changes = self.watch.changed() => match self.changed(changes?)? {
                    Some(outcome) => return Ok(outcome),
                    None => continue,
                },
                done = pending => {
                    self.pending = None;
                    match done.map_err(io::Error::other)? {
                        Background::Locked(lock) => {
                            self.hands.hold(lock?);
                            continue;
                        }
                        Background::Tested(result) => Input::Tested(result),
                    }
                }
                () = timer => Input::Tick,
                () = master => {
                    self.master = None;
                    Input::MasterGone
                }
            };
            self.machine.handle(self.now(), input);
        }
    }

    /// Lets the hands do all that the machine wants, up to the next outcome.
    fn effects(&mut self) -> io::Result<Option<Outcome>> {
        while self.pending.is_none() {
            let Some(effect) = self.after_lock.take().or_else(|| self.machine.poll_effect()) else { break };
            match effect {
                Effect::Lock | Effect::Check(_) if !self.hands.try_lock()? => {
                    let file = self.hands.lock_file()?;
                    self.after_lock = Some(effect);
                    self.pending = Some(tokio::task::spawn_blocking(move || {
                        let lock = Flock::lock(file, FlockArg::LockExclusive);
                        Background::Locked(lock.map_err(|(_, e)| e.into()))
                    }));
                    break;
                }
                Effect::Test => {
                    let layout = self.hands.layout().clone();
                    self.pending = Some(tokio::spawn(async move {
                        let test = tokio::task::spawn_blocking(move || layout.test());
                        Background::Tested(match tokio::time::timeout(TEST, test).await {
                            Ok(Ok(result)) => result,
                            Ok(Err(e)) => Err(e.to_string()),
                            Err(_) => Err(format!("dysvr-proxy -t took longer than {} s", TEST.as_secs())),
                        })
                    }));
                    break;
                }
                Effect::Report(report) => return Ok(Some(Outcome::Report(report))),
                Effect::Exit => return Ok(Some(Outcome::Exit)),
                effect => {
                    let signalled = matches!(effect, Effect::Signal(_));
                    let unlocked = matches!(effect, Effect::Unlock);
                    let input = self.hands.perform(&effect);
                    if signalled {
                        self.watch_master()?;
                    }
                    if unlocked {
                        self.master = None;
                        self.rewatch()?;
                    }
                    if let Some(input) = input {
                        self.machine.handle(self.now(), input);
                    }
                }
            }
        }
        Ok(None)
    }

    /// The end of the master that was signalled ends the wait for it.
    fn watch_master(&mut self) -> io::Result<()> {
        let Some(pid) = self.hands.master().map(PidFd::pid) else { return Ok(()) };
        if self.master.as_ref().is_some_and(|master| master.pid() == pid) {
            return Ok(());
        }
        self.master = match self.hands.take_master() {
            Some(process) => Some(Ending::of(process)?),
            None => None,
        };
        Ok(())
    }

    /// A reload may have moved the files that are watched.
    fn rewatch(&mut self) -> io::Result<()> {
        let settings = self.hands.settings();
        if !self.watch.is_for(&settings.task_file, &settings.pid_file) {
            self.watch = Watch::new(self.hands.layout().conf_dir(), &settings.task_file, &settings.pid_file)?;
        }
        Ok(())
    }

    fn changed(&mut self, changes: Changes) -> io::Result<Option<Outcome>> {
        if changes.task_file && self.machine.is_waiting() {
            let looked = self.hands.look();
            self.machine.handle(self.now(), Input::Looked(looked));
        }
        let mut news = changes.pid_file || changes.quarantine;
        if changes.verified {
            // A look that found what the one before it found is no news: there is one every minute on every node.
            let found = verify::last(&self.hands.settings().task_file).map(|finding| finding.news());
            news |= found != self.found;
            self.found = found;
        }
        if changes.all {
            news |= self.hands.look_at_all()?;
        }
        if changes.configuration {
            self.hands.forget_configuration();
            self.rewatch()?;
        }
        let (managed, others): (Vec<_>, Vec<_>) =
            changes.files.into_iter().partition(|name| self.hands.is_managed(name));
        if !others.is_empty() {
            self.hands.forget_configuration();
        }
        if !managed.is_empty() {
            news |= self.hands.look_at(&managed)?;
        }
        Ok((news && !self.machine.is_busy()).then_some(Outcome::Changed))
    }
}
