//! The task file as the master reads it and answers in it.

use std::path::Path;

use dysvr_proto::planted::{Bug, planted};
use dysvr_proto::status::Status;

use super::super::Master;
use crate::dysvr;
use crate::log::Level;
use crate::os::errno;
use crate::task::TaskLine;
use crate::task::file::{Durability, read_to_quote, write_whole};
use crate::task::opened::{Held, NotWritten, OpenTaskFile, refusal};

impl Master {
    /// Reads the task file that stands there now. A file that is none is answered.
    pub(super) fn open_task_file(&self) -> Option<OpenTaskFile> {
        let path = dysvr::task_file(self.cycle.http().as_deref(), &self.prefix);
        if !self.cycle.http().is_some_and(|http| http.main.dysvr.enable) {
            log!(Level::Error, "[dysvr] signal ignored: dysvr is off");
            return None;
        }
        let refused = |error: &str| log!(Level::Error, "[dysvr] task file \"{}\" refused: {error}", path.display());
        match Held::read(&path).map(OpenTaskFile::parse) {
            Ok(Ok(file)) => Some(file),
            Ok(Err((error, mut held))) => {
                refused(&error.to_string());
                say_unwritten(held.refuse(&error.to_string()), &path);
                None
            }
            Err(error) => {
                refused(&errno(&error));
                refuse_file(&path, &errno(&error));
                None
            }
        }
    }

    /// Writes a verdict.
    pub(super) fn conclude(file: &mut OpenTaskFile, index: usize, verdict: impl FnOnce(&mut TaskLine)) {
        say_unwritten(file.conclude(index, verdict), file.path());
        if file.is_gone() {
            // Whoever has replaced the file may have kept this line as it stood then: it gets its verdict there.
            let said = file.task(index);
            carry_over(file.path(), |task| {
                let same = task.task_id == said.task_id && matches!(task.status, Status::Ready | Status::Loading);
                if same {
                    *task = said.clone();
                }
                same
            });
        }
    }

    /// Goes on with the file behind a task that has its verdict, if it has more; else closes it. Gives that task.
    pub(super) fn go_on(&mut self, file: OpenTaskFile, index: usize) -> TaskLine {
        if file.is_gone() || file.next_from(index + 1).is_none() || planted(Bug::OneTaskPerSignal) {
            return file.into_task(index);
        }
        let task = file.task(index).clone();
        self.tasks.file = Some((file, index + 1));
        task
    }

    /// A reload comes before the next task: what is open is written, and read anew behind it.
    pub(in crate::master) fn close_task_file(&mut self) {
        if let Some((mut file, _)) = self.tasks.file.take() {
            say_unwritten(file.settle(), file.path());
            self.tasks.wanted = true;
        }
    }
}

/// Gives lines of the task file that stands there now the verdict of those that were read before it.
pub(in crate::master) fn carry_over(path: &Path, verdict: impl FnMut(&mut TaskLine) -> bool) {
    if let Ok(Ok(mut file)) = Held::read(path).map(OpenTaskFile::parse) {
        say_unwritten(file.conclude_all(verdict), path);
    }
}

/// A verdict that could not be written the agent does not learn, but what was done is done: the log says it.
pub(in crate::master) fn say_unwritten(result: Result<(), NotWritten>, path: &Path) {
    match result {
        Ok(()) => {}
        Err(NotWritten::Superseded) => log!(Level::Notice, "\"{}\" was replaced meanwhile", path.display()),
        Err(NotWritten::Failed(error)) => {
            log!(Level::Crit, "writing \"{}\" failed ({})", path.display(), errno(&error));
        }
    }
}

/// Answers a file that must not be read as tasks, or cannot be.
fn refuse_file(path: &Path, error: &str) {
    let Ok(bytes) = read_to_quote(path) else { return };
    if let Err(error) = write_whole(path, &refusal(&bytes, error), Durability::Visible) {
        log!(Level::Crit, "writing \"{}\" failed ({})", path.display(), errno(&error));
    }
}
