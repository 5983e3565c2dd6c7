//! What happens to a task's machine, and what it wants done.

use std::rc::Rc;
use std::time::Duration;

use dysvr_proto::id::{Revision, TaskId};

use super::super::check::Checked;
use super::super::ledger::{Begun, Entry, FileChanges};
use super::super::order::Order;
use super::super::plan::{Plan, PlannedLine};
use super::super::report::Report;
use crate::task::{Mode as LineMode, TaskLine};

/// What happens.
#[derive(Debug)]
pub enum Input {
    /// A new order.
    Order(Box<Order>),
    /// Answer to [`Effect::Lock`]: the task that the journal names.
    Locked(Result<Option<Begun>, String>),
    /// Answer to [`Effect::Check`].
    Checked(Result<Standing, String>),
    /// Answer to [`Effect::Plan`].
    Planned(Result<Plan, String>),
    /// Answer to [`Effect::Guard`]: percent of memory.
    Guarded(Result<u64, String>),
    /// Answer to [`Effect::Begin`].
    Began(Result<(), String>),
    /// Answer to [`Effect::Write`].
    Written(Result<(), String>),
    /// Answer to [`Effect::Test`].
    Tested(Result<(), String>),
    /// Answer to [`Effect::Signal`].
    Signalled(Result<(), String>),
    /// Answer to [`Effect::Settle`].
    Settled(Result<(), String>),
    /// The lines of the task file: answer to [`Effect::Look`], and whenever the file was replaced.
    Looked(Result<Vec<TaskLine>, String>),
    /// Answer to [`Effect::Withdraw`]: the task's lines as they were found.
    Withdrawn(Result<Vec<TaskLine>, String>),
    /// The master that was signalled has ended.
    MasterGone,
    /// Answer to [`Effect::Undo`].
    Undone(Result<(), String>),
    /// Only the clock has moved.
    Tick,
    /// End what is under way, begin nothing more.
    Stop,
}

/// What an order is checked against, and the result.
#[derive(Debug)]
pub struct Standing {
    /// The result.
    pub checked: Checked,
    /// The highest number that a task line has had.
    pub last_task: TaskId,
    /// A task that another process left unfinished.
    pub in_flight: Option<Begun>,
    /// How long workers may take for a task.
    pub task_timeout: Duration,
}

/// Which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// SIGRTMIN+9: read the task file.
    InPlace,
    /// SIGHUP: the full reload.
    Reload,
}

/// What must be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Take the lock of the state directory, to go on with an unfinished task.
    Lock,
    /// Take the lock, read journal and disk, check the order.
    Check(Rc<Order>),
    /// Find out what the changes mean to the proxy.
    Plan {
        /// The order.
        order: Rc<Order>,
        /// The files that it changes.
        disk: FileChanges,
        /// Why it goes by reload whatever it means.
        reload: Option<String>,
    },
    /// Read the memory figures.
    Guard,
    /// Write the new contents, which get no names yet, and begin to make them durable. No answer: [`Effect::Begin`] waits
    /// for the disk. Meanwhile it is found out whether they may be used at all.
    Stage {
        /// The order.
        order: Rc<Order>,
        /// The files that it changes.
        disk: FileChanges,
        /// All that becomes different from what the ledger's revision left.
        changes: FileChanges,
    },
    /// Make durable what must be before anything changes: the former contents, the new ones, and the journal's entry. Meanwhile
    /// the lines are written, which get no names yet either.
    Begin {
        /// The entry.
        begun: Begun,
        /// The lines.
        lines: Vec<NumberedLine>,
        /// Whether there are new contents. When the task goes on by another way the files have them already.
        staged: bool,
    },
    /// Give the contents their names, then the configuration files of the lines, then the task file.
    Write,
    /// `dysvr-proxy -t`.
    Test,
    /// Signal the master.
    Signal(Wake),
    /// Make durable which files there are. Whoever tells the master first gains the time of it: should the machine go down
    /// meanwhile, so does the master, and the journal names the task.
    Settle {
        /// The files of the task.
        changes: FileChanges,
        /// An earlier run wrote them, perhaps before the machine went down: it is an error if one is what it was.
        found: bool,
    },
    /// Read the task file.
    Look,
    /// Set the lines of the task that have no verdict to `F`.
    Withdraw {
        /// Which.
        tasks: Vec<TaskId>,
        /// Why.
        reason: String,
    },
    /// Restore the former contents.
    Undo,
    /// Write the entry down.
    Record(Entry),
    /// Tell whoever gave the order.
    Report(Report),
    /// Give the lock back.
    Unlock,
    /// All is done that [`Input::Stop`] asked for.
    Exit,
}

/// A task line to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedLine {
    /// Its number.
    pub task_id: TaskId,
    /// What it says.
    pub line: PlannedLine,
    /// By which way.
    pub mode: LineMode,
    /// The fleet's revision that it belongs to.
    pub revision: Option<Revision>,
}
