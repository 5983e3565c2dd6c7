//! `dysvr-node run`: the agent's loop. It passes things on between the driver of tasks, the supervisor of the proxy and
//! the line to a controller.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use dysvr_proto::wire::fleet as wire;
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::drive::{Driver, Outcome};
use super::hands::{Hands, open_lock};
use super::link::{self, Event, Out};
use super::order::Order;
use super::proxy::Layout;
use super::report::{Observed, Report};
use super::supervise::Supervisor;
use crate::pid_file;

/// How long the line waits for the proxy: a node that introduces itself without one counts as ill.
const FIRST: Duration = Duration::from_secs(10);
/// Changes that come together are told together.
const SETTLE: Duration = Duration::from_millis(50);

/// What the agent is told to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's identity.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Controllers, `http://host:port`, in the order in which they are tried.
    pub controllers: Vec<String>,
    /// Where things are.
    pub layout: Layout,
    /// Whether somebody else starts and stops the proxy.
    pub attach: bool,
    /// The memory figures.
    pub meminfo: PathBuf,
}

/// Runs until it is told to stop.
pub fn run(options: Options) -> io::Result<()> {
    std::fs::create_dir_all(&options.layout.state)?;
    let lock = open_lock(&options.layout.state.join("agent.lock"))?;
    let _only = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| {
        let state = options.layout.state.display();
        io::Error::new(io::Error::from(e).kind(), format!("another agent uses the state directory {state}"))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // First, so that whoever ends an agent that has just begun ends it gracefully. QUIT too: it is what an image that
        // is made for the proxy sends to each of its containers.
        let ends = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::quit())?];
        Agent::new(options)?.serve(ends).await
    })
}

struct Agent {
    options: Options,
    boot: u64,
    driver: Driver,
    supervisor: Supervisor,
    line: Option<mpsc::Receiver<Event>>,
    out: Option<Out>,
    beat: Duration,
    beats: u64,
    next_beat: Option<Instant>,
    /// What was last told.
    told: Option<Observed>,
    /// What it introduced itself with to a controller that has not welcomed it yet.
    introduced: Option<Observed>,
    /// When to see whether there is news.
    look: Option<Instant>,
}

impl Agent {
    fn new(options: Options) -> io::Result<Self> {
        let hands = Hands::new(options.layout.clone(), options.meminfo.clone())?;
        let supervisor = Supervisor::new(options.layout.clone(), options.attach);
        Ok(Self {
            boot: rand::random(),
            driver: Driver::new(hands)?,
            supervisor,
            line: None,
            out: None,
            beat: Duration::from_secs(1),
            beats: 0,
            next_beat: None,
            told: None,
            introduced: None,
            look: None,
            options,
        })
    }

    async fn serve(mut self, mut ends: [Signal; 3]) -> io::Result<()> {
        let dial_at = Instant::now() + FIRST;
        tracing::info!(node = self.options.id, state = %self.options.layout.state.display(), "agent started");
        loop {
            let pid_file = self.driver.hands.settings().pid_file.clone();
            // The pid file comes when the sockets listen, and wakes this loop.
            if self.line.is_none() && (pid_file::master(&pid_file).is_ok() || Instant::now() >= dial_at) {
                self.dial();
            }
            tokio::select! {
                outcome = self.driver.next() => match outcome? {
                    Outcome::Report(report) => {
                        self.report(&report);
                        // On the wire before what is left to do behind a verdict.
                        tokio::task::yield_now().await;
                        log(&report);
                    }
                    Outcome::Changed => {
                        self.supervisor.pid_file_changed();
                        self.news();
                    }
                    Outcome::Exit => {}
                },
                changed = self.supervisor.next(&pid_file) => if changed? { self.news() },
                event = next_event(&mut self.line) => self.event(event),
                () = until(self.next_beat) => self.beat(),
                () = until(self.look) => self.tell(),
                () = sleep_until(dial_at), if self.line.is_none() => {}
                () = stopped(&mut ends) => break,
            }
        }
        self.stop(&mut ends).await
    }

    /// Ends the task under way, then the proxy if it is ours.
    async fn stop(mut self, ends: &mut [Signal; 3]) -> io::Result<()> {
        tracing::info!("stopping: no more tasks");
        self.driver.stop();
        loop {
            match self.driver.next().await? {
                Outcome::Report(report) => {
                    self.report(&report);
                    log(&report);
                }
                Outcome::Changed => {}
                Outcome::Exit => break,
            }
        }
        let pid_file = self.driver.hands.settings().pid_file.clone();
        self.supervisor.stop(libc::SIGQUIT, &pid_file);
        while !self.supervisor.is_over() {
            tokio::select! {
                changed = self.supervisor.next(&pid_file) => drop(changed?),
                () = stopped(ends) => self.supervisor.stop(libc::SIGTERM, &pid_file),
            }
        }
        tracing::info!("stopped");
        Ok(())
    }

    fn dial(&mut self) {
        let (events, line) = mpsc::channel(16);
        if self.options.controllers.is_empty() {
            tracing::info!("no controller is named: tasks come by hand");
        } else {
            tokio::spawn(link::run(self.options.controllers.clone(), events));
        }
        self.line = Some(line);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Introduce(answer) => {
                let observed = self.driver.hands.observed();
                let hello = wire::Hello {
                    node: self.options.id.clone(),
                    labels: self.options.labels.clone().into_iter().collect(),
                    agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                    boot: self.boot,
                    observed: Some(observed.to_wire()),
                };
                self.introduced = Some(observed);
                drop(answer.send(hello));
            }
            Event::Up { beat, out, .. } => {
                self.out = Some(out);
                self.beat = beat;
                self.next_beat = Some(Instant::now() + beat);
                // What has changed between the introduction and the welcome was told to nobody.
                self.told = self.introduced.take();
                self.news();
            }
            Event::Down => self.hang_up(),
            Event::Task(task) => self.task(task),
        }
    }

    fn task(&mut self, task: wire::Task) {
        tracing::info!(task = task.id, to = task.to_revision, whole = task.whole, "task received");
        let (id, rollout, to_revision) = (task.id.clone(), task.rollout, task.to_revision);
        match Order::try_from(task) {
            Ok(order) => self.driver.order(order),
            Err(invalid) => {
                let observed = Some(self.driver.hands.observed().to_wire());
                self.send(wire::from_node::Kind::Report(wire::TaskReport {
                    id,
                    rollout,
                    to_revision,
                    status: wire::Status::Failed.into(),
                    reason: invalid.to_string(),
                    observed,
                    ..wire::TaskReport::default()
                }));
            }
        }
    }

    fn report(&mut self, report: &Report) {
        if report.status.is_final() {
            let observed = self.driver.hands.observed();
            self.send(wire::from_node::Kind::Report(report.to_wire(Some(&observed))));
            self.told = Some(observed);
        } else {
            self.send(wire::from_node::Kind::Report(report.to_wire(None)));
        }
    }

    /// What the node has or runs may have changed.
    fn news(&mut self) {
        self.look.get_or_insert(Instant::now() + SETTLE);
    }

    fn tell(&mut self) {
        self.look = None;
        if self.driver.is_busy() {
            return; // the verdict tells
        }
        let observed = self.driver.hands.observed();
        if self.told.as_ref() == Some(&observed) {
            return;
        }
        if let Some(first) = observed.drifted.first()
            && self.told.as_ref().is_none_or(|told| told.drifted != observed.drifted)
        {
            tracing::warn!(files = observed.drifted.len(), %first, "drift: changed by hand");
        }
        self.send(wire::from_node::Kind::Observed(observed.to_wire()));
        self.told = Some(observed);
    }

    fn beat(&mut self) {
        self.beats += 1;
        self.next_beat = Some(Instant::now() + self.beat);
        self.send(wire::from_node::Kind::Beat(wire::Beat { sequence: self.beats }));
        // Workers come and go without a file that would tell.
        self.news();
    }

    fn send(&mut self, kind: wire::from_node::Kind) {
        if self.out.as_ref().is_some_and(|out| !out.send(kind)) {
            self.hang_up();
        }
    }

    fn hang_up(&mut self) {
        self.out = None;
        self.next_beat = None;
    }
}

async fn next_event(line: &mut Option<mpsc::Receiver<Event>>) -> Event {
    match line {
        Some(line) => match line.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn stopped([term, int, quit]: &mut [Signal; 3]) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = quit.recv() => {}
    }
}

/// One line per verdict, with what it took.
fn log(report: &Report) {
    let mode = report.mode.map_or("none", |mode| mode.name());
    let (id, task, t) = (&report.id, report.local_task_id, &report.timings);
    if !report.status.is_final() {
        tracing::debug!(id, %task, status = %report.status, mode, "task");
    } else if report.status == dysvr_proto::status::Status::Done {
        let (files, total, master) = (t.files_us, t.total_us, t.master_us);
        tracing::info!(id, %task, status = "D", mode, reason = report.reason, files, master, total, "task done");
    } else {
        tracing::error!(id, %task, status = "F", mode, reason = report.reason, "task failed");
    }
}
