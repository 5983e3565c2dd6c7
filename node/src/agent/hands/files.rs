//! A task's files: what is durable when. Three places wait for the disk, and each ends a promise that the next step relies on.
//!
//! 1. `begin`: what the files were, what they become (beside them, without names), and the journal's entry of the task. Whatever
//!    is cut off from here on, a restart finds the task and what to go back to, and a name never comes before its
//!    content.
//! 2. `settle`: the names. The master works meanwhile; it goes down with the machine, and the next one starts from the
//!    files, of which the restart then restores those that were changed.
//! 3. The journal's entry of the end (`record`), before the verdict is told. It cannot be left for later: a reboot loses
//!    a task file on a tmpfs, and from files that are the new ones a restart cannot tell a task that was told to be done
//!    from one that was refused.

use std::fs;
use std::io;

use dysvr_proto::planted::{Bug, planted};

use super::super::disk::Staged;
use super::super::ledger::{Begun, Entry, FileChanges};
use super::super::managed::{ContentDigest, FileName};
use super::super::state::NumberedLine;
use super::super::tasks;
use super::super::undo::{self, Former};
use super::Hands;
use crate::pid_file;

impl Hands {
    /// What must be on the disk before the first managed file changes: what the files were, what they become (it is on its
    /// way if this is `staged`), and that the task has begun. The journal speaks of the undo file, so that one comes before.
    pub(super) fn begin(&mut self, mut begun: Begun, lines: &[NumberedLine], staged: bool) -> Result<(), String> {
        if !staged {
            self.prepared = Some(tasks::prepare(&self.settings.task_file, lines));
            begun.former = self.ledger.in_flight.as_ref().and_then(|begun| begun.former.clone());
            return self.journal.append(&mut self.ledger, Entry::Begin(begun)).map_err(|e| format!("disk: {e}"));
        }
        let staging = self.staging.take().unwrap_or_else(|| Err(io::Error::other("the contents were never written")));
        let staging = staging.map_err(|e| format!("disk: {e}"))?;
        let kept = undo::keep(&self.layout.state, self.layout.conf_dir(), begun.changes.keys());
        let kept = kept.map_err(|e| format!("disk: the former contents could not be kept: {e}"))?;
        (begun.former, self.replaced) = (kept.in_journal, kept.open);
        let by_reload = begun.reload.is_some();
        let (settings, staged) = (&self.settings, &mut self.staged);
        let (prepared, addressee) = (&mut self.prepared, &mut self.addressee);
        let appended = self.journal.append_and(&mut self.ledger, Entry::Begin(begun), || {
            *prepared = Some(tasks::prepare(&settings.task_file, lines));
            if !by_reload && !lines.is_empty() {
                // Who is not there now may be so when it is signalled. (A reload is tested before, which takes its time.)
                *addressee = pid_file::master(&settings.pid_file).ok();
            }
            *staged = staging.wait()?;
            Ok(())
        });
        appended.map_err(|e| {
            self.staged = Staged::default();
            format!("disk: {e}")
        })
    }

    /// Nothing is left to do but to give names: all contents are written.
    pub(super) fn write(&mut self) -> io::Result<()> {
        self.disk.place(std::mem::take(&mut self.staged))?;
        self.outdated = self.prepared.take().transpose()?.unwrap_or_default().place()?;
        Ok(())
    }

    pub(super) fn settle(&mut self, changes: &FileChanges, found: bool) -> Result<(), String> {
        if found
            && !planted(Bug::LostNameBelieved)
            && let Some(name) = self.lost(changes)
        {
            return Err(format!("disk: the machine went down before {name} was durable"));
        }
        let settled = self.disk.settle(changes.keys());
        self.compare(changes.keys());
        settled.map_err(|e| format!("disk: {e}"))
    }

    /// A file of a task that was found which has its former content: its new name never reached the disk. One that has
    /// another content still was changed by hand since.
    fn lost(&self, changes: &FileChanges) -> Option<FileName> {
        let former =
            self.former().inspect_err(|error| tracing::warn!(%error, "what files were cannot be read")).ok()?;
        let lost = |former: &&Former| {
            let was = former.digest();
            let is = fs::read(former.name.path(self.layout.conf_dir())).ok().map(|content| ContentDigest::of(&content));
            changes.get(&former.name).is_some_and(|wanted| *wanted != is && was == is)
        };
        former.iter().find(lost).map(|former| former.name.clone())
    }

    /// What the files of the task in flight were.
    fn former(&self) -> io::Result<Vec<Former>> {
        match self.ledger.in_flight.as_ref().and_then(|begun| begun.former.as_ref()) {
            Some(former) => Ok(former.clone()),
            None => undo::read(&self.layout.state),
        }
    }

    pub(super) fn undo(&mut self) -> Result<(), String> {
        (self.staged, self.prepared, self.addressee) = (Staged::default(), None, None);
        let former = self.former().map_err(|e| e.to_string())?;
        undo::restore(self.layout.conf_dir(), &former).map_err(|e| e.to_string())?;
        self.refresh(former.iter().map(|former| &former.name)).map(drop).map_err(|e| e.to_string())
    }
}
