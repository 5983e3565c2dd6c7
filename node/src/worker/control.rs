//! The worker's main task: obeys the master's channel and signals while the other tasks serve.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::Birth;
use super::accept::{Accepts, Ready};
use super::update::Updater;
use crate::cycle::Cycle;
use crate::http::Context;
use crate::log::{self, Level};
use crate::os::channel::{Channel, Command};
use crate::os::errno;
use crate::os::signal::Signals;
use crate::os::zone::{Pulse, TASK};

/// What the control task goes on with.
enum Next {
    Serve,
    /// Gracefully: when the last connection has ended.
    Drain,
    Leave,
}

struct Control {
    context: Rc<Context>,
    cycle: Rc<Cycle>,
    accepts: Accepts,
    updater: Updater,
    channel: AsyncFd<Channel>,
    signals: AsyncFd<Signals>,
    /// When a graceful leave becomes a fast one.
    deadline: Option<Instant>,
    draining: bool,
    /// The channel has ended.
    orphaned: bool,
}

/// Serves until the worker may leave.
pub async fn control(birth: Birth, signals: Signals) -> io::Result<()> {
    let Birth { slot, channel, sockets, zone, version, cycle, interner, prefix, .. } = birth;
    let context = Context::new(Rc::clone(&cycle), prefix, Pulse::new(&zone, slot));
    let accepts = Accepts::new(cycle.conf.events.worker_connections);
    for (addr, fd) in sockets {
        accepts.begin(&context, Ready::new(addr, fd)?);
    }
    let control = Control {
        context,
        cycle,
        accepts,
        updater: Updater::new(zone, slot, version, interner),
        channel: channel.into_async()?,
        signals: signals.into_async()?,
        deadline: None,
        draining: false,
        orphaned: false,
    };
    control.updater.prove(&control.cycle);
    control.answer(Command::Ready, version);
    // The process ends with it: to free a large configuration would first copy what is shared with the master.
    std::mem::forget(Rc::clone(&control.cycle));
    control.run().await
}

impl Control {
    async fn run(mut self) -> io::Result<()> {
        loop {
            let next = tokio::select! {
                biased;
                ready = self.channel.readable(), if !self.orphaned => {
                    ready?.clear_ready();
                    self.on_channel()?
                }
                ready = self.signals.readable() => {
                    ready?.clear_ready();
                    self.on_signals()?
                }
                number = self.context.panics.next() => {
                    self.answer(Command::Panicked, number);
                    Next::Serve
                }
                () = self.context.drain(), if self.draining => Next::Leave,
                () = until(self.deadline), if self.deadline.is_some() => {
                    log!(Level::Notice, "worker_shutdown_timeout is over");
                    Next::Leave
                }
            };
            match next {
                Next::Serve => {}
                Next::Drain => self.drain(),
                Next::Leave => {
                    self.context.flush_logs();
                    log!(Level::Notice, "exiting");
                    return Ok(());
                }
            }
        }
    }

    fn on_channel(&mut self) -> io::Result<Next> {
        // Written behind the answer, which the master waits for.
        let _lines = log::gather();
        loop {
            let message = match self.channel.get_ref().receive() {
                Ok(Some(message)) => message,
                // The master is gone: what is served is still right, so it is served on.
                Ok(None) => {
                    log!(Level::Error, "the master is gone: serving on");
                    self.orphaned = true;
                    return Ok(Next::Serve);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Serve),
                Err(error) => {
                    log!(Level::Error, "channel failed ({})", errno(&error));
                    return Ok(Next::Serve);
                }
            };
            match message.command {
                Command::Sockets => self.updater.receive(message.version, message.fds),
                Command::Log => self.updater.receive_log(message.version, message.fds),
                Command::Text => self.updater.receive_text(message.version, message.fds),
                Command::Prepare => {
                    self.context.pulse.enter(TASK);
                    let answer = self.updater.prepare(&self.cycle, &self.accepts, message.version);
                    self.context.pulse.turn(0);
                    self.answer(answer, message.version);
                }
                Command::Apply => {
                    self.context.pulse.enter(TASK);
                    let prepared = self.updater.prepare(&self.cycle, &self.accepts, message.version);
                    let committed = match prepared {
                        Command::Prepared => self.updater.commit(&self.context, &self.accepts, message.version),
                        _ => None,
                    };
                    self.context.pulse.turn(0);
                    self.answer(committed.unwrap_or(prepared), message.version);
                    self.updater.tidy();
                }
                Command::Commit => {
                    self.context.pulse.enter(TASK);
                    match self.updater.commit(&self.context, &self.accepts, message.version) {
                        Some(answer) => self.answer(answer, message.version),
                        // Nobody waits for it to be told to prepare, which its channel had no room for.
                        None if self.updater.has_missed(message.version) => self.answer(Command::Lost, message.version),
                        None => {}
                    }
                    self.updater.tidy();
                    self.context.pulse.turn(0);
                }
                Command::Abort => self.updater.abort(message.version),
                Command::Quarantine => {
                    if let Some(vhost) = self.cycle.marked(message.version) {
                        vhost.quarantine(true);
                    }
                }
                Command::Reopen => self.reopen(),
                Command::Quit => return Ok(Next::Drain),
                Command::Terminate => return Ok(Next::Leave),
                // What only a worker says.
                _ => {}
            }
        }
    }

    fn on_signals(&mut self) -> io::Result<Next> {
        while let Some(received) = self.signals.get_ref().next()? {
            match received.signal {
                libc::SIGTERM | libc::SIGINT => return Ok(Next::Leave),
                libc::SIGQUIT | libc::SIGWINCH => return Ok(Next::Drain),
                libc::SIGUSR1 => self.reopen(),
                _ => {}
            }
        }
        Ok(Next::Serve)
    }

    fn answer(&self, command: Command, version: u64) {
        if let Err(error) = self.channel.get_ref().send(command, version, &[]) {
            log!(Level::Error, "answer to the master failed ({})", errno(&error));
        }
    }

    fn reopen(&self) {
        self.context.flush_logs();
        for (path, error) in log::reopen_all() {
            log!(Level::Emerg, "open() \"{}\" failed ({})", path.display(), errno(&error));
        }
    }

    fn drain(&mut self) {
        if self.draining {
            return;
        }
        log!(Level::Notice, "gracefully shutting down");
        self.draining = true;
        self.accepts.stop(&self.context);
        let timeout = self.cycle.conf.main.worker_shutdown_timeout;
        self.deadline = timeout.map(|timeout: Duration| Instant::now() + timeout);
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
