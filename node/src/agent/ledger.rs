//! What the agent knows across restarts: what was applied, what was answered, what was under way. A value that entries
//! move on; `journal` keeps the entries on disk.

use std::collections::{BTreeMap, VecDeque};

use dysvr_proto::id::{Epoch, Revision, RolloutId, TaskId};
use dysvr_proto::planted::{Bug, planted};
use dysvr_proto::status::Status;
use serde::{Deserialize, Serialize};

use super::managed::{ContentDigest, FileName, Manifest};
use super::report::Report;
use super::undo::Former;

/// Recorded answers that are kept. A controller repeats a task soon or never; each answer is below a kilobyte.
const MAX_ANSWERS: usize = 64;

/// Changes of files: the new digest, or `None` for a file that goes.
pub type FileChanges = BTreeMap<FileName, Option<ContentDigest>>;

/// The state that survives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The highest epoch that was obeyed.
    pub epoch: Epoch,
    /// The last revision that was applied.
    pub revision: Revision,
    /// The files that it left.
    pub files: Manifest,
    /// Where what the proxy serves differs from `files`.
    pub served: Served,
    /// The highest number of a task line.
    pub last_task: TaskId,
    /// The latest verdicts, oldest first.
    pub answers: VecDeque<Answer>,
    /// A task whose verdict is not recorded yet.
    pub in_flight: Option<Begun>,
}

/// What the proxy is known to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Served {
    /// The revision's files, but for these, which were changed by hand through this agent.
    Known(FileChanges),
    /// A failed task could not be undone for sure; the next one reloads.
    Unknown,
}

impl Default for Served {
    fn default() -> Self {
        Self::Known(FileChanges::new())
    }
}

/// A recorded verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the files that the task led to; with the report's id it names the task.
    pub digest: ContentDigest,
    /// What was said.
    pub report: Report,
}

/// A task that has begun to change things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The order's id.
    pub id: String,
    /// What it leads to; `None` by hand.
    pub step: Option<BegunStep>,
    /// The numbers of its task lines.
    pub tasks: Vec<TaskId>,
    /// Why it goes by reload; `None` in place.
    pub reload: Option<String>,
    /// What becomes of files.
    pub changes: FileChanges,
    /// What the files were; `None` when that lies in the undo file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Vec<Former>>,
    /// A line of an earlier way of it took effect.
    pub touched: bool,
    /// It has failed with this reason after something may have taken effect: the files are restored, then the proxy
    /// reloads them.
    pub reverting: Option<String>,
}

/// The revision of a task that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunStep {
    /// Of the controller.
    pub epoch: Epoch,
    /// The revision afterwards.
    pub to: Revision,
    /// The digest of the files afterwards.
    pub digest: ContentDigest,
    /// Named in reports.
    pub rollout: RolloutId,
}

/// What happens to the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// All of it, at the head of a journal.
    Whole(Box<Ledger>),
    /// A task begins (or goes on by another way): written before anything is changed.
    Begin(Begun),
    /// The task in flight has its verdict.
    End {
        /// What is said of it.
        report: Report,
        /// Whether what the proxy serves is still known.
        served_known: bool,
    },
    /// A verdict without anything changed.
    Answered(Answer),
    /// The node's files are those of a revision already: it is adopted.
    Adopted {
        /// The reign that said so.
        epoch: Epoch,
        /// The revision.
        revision: Revision,
        /// Files that were changed by hand and are now the revision's.
        changes: FileChanges,
        /// What is said of it.
        answer: Answer,
    },
}

impl Ledger {
    /// Moves on.
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Whole(ledger) => *self = *ledger,
            Entry::Begin(begun) => {
                if let Some(step) = &begun.step {
                    self.epoch = self.epoch.max(step.epoch);
                }
                self.last_task = begun.tasks.iter().copied().fold(self.last_task, TaskId::max);
                self.in_flight = Some(begun);
            }
            Entry::End { report, served_known } => self.end(report, served_known),
            Entry::Answered(answer) => self.remember(answer),
            Entry::Adopted { epoch, revision, changes, answer } => {
                self.epoch = self.epoch.max(epoch);
                self.revision = revision;
                self.change_files(changes);
                self.served = Served::default();
                self.remember(answer);
            }
        }
    }

    fn end(&mut self, report: Report, served_known: bool) {
        let Some(begun) = self.in_flight.take() else { return };
        let done = report.status == Status::Done;
        if done {
            let reloaded = begun.reload.is_some();
            match &begun.step {
                Some(step) => {
                    self.revision = step.to;
                    self.change_files(begun.changes);
                    // A controller's task begins with nothing changed by hand, or ends it.
                    self.served = Served::default();
                }
                None => match &mut self.served {
                    Served::Known(changes) => changes.extend(begun.changes),
                    Served::Unknown if reloaded => self.served = Served::Known(begun.changes),
                    Served::Unknown => {}
                },
            }
        } else if !served_known {
            self.served = Served::Unknown;
        }
        if let Some(step) = begun.step {
            self.remember(Answer { digest: step.digest, report });
        }
    }

    fn change_files(&mut self, changes: FileChanges) {
        for (name, digest) in changes {
            match digest {
                Some(digest) => self.files.insert(name, digest),
                None => self.files.remove(&name),
            };
        }
    }

    fn remember(&mut self, answer: Answer) {
        self.answers.retain(|old| old.report.id != answer.report.id);
        self.answers.push_back(answer);
        while self.answers.len() > MAX_ANSWERS {
            self.answers.pop_front();
        }
    }

    /// The verdict of a task that was answered before.
    pub fn answer(&self, id: &str, digest: ContentDigest) -> Option<&Report> {
        let same = |a: &&Answer| a.report.id == id && (a.digest == digest || planted(Bug::IdsForDigests));
        self.answers.iter().find(same).map(|answer| &answer.report)
    }
}
