//! The agent's side of the task file: its lines and their configuration files written, looked at, taken back.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dysvr_proto::id::TaskId;

use super::state::NumberedLine;
use crate::task::file::{Beside, Durability, read_task_file, write_whole};
use crate::task::{TaskFile, TaskLine};

/// Of a file that was not there.
const MODE: u32 = 0o644;

/// Lines that are written, and wait for the names that make them seen.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The task file last: it names the others.
    contents: Vec<Beside>,
    /// The configuration files of earlier tasks.
    outdated: Vec<PathBuf>,
}

/// Writes the configuration file of each line, and the task file, beside where they will stand. No lines: nothing.
pub fn prepare(task_file: &Path, lines: &[NumberedLine]) -> io::Result<Prepared> {
    let mut prepared = Prepared::default();
    if lines.is_empty() {
        return Ok(prepared);
    }
    let dir = task_file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let mut file = TaskFile::default();
    for NumberedLine { task_id, line, mode, revision } in lines {
        let conf = dir.join(TaskLine::conf_name(*task_id));
        let text = conf_text(*task_id, &line.files);
        prepared.contents.push(Beside::write(&conf, text.as_bytes(), MODE)?.0);
        file.0.push(TaskLine {
            vsvc_ids: line.vsvc_ids.clone(),
            ups_ids: line.ups_ids.clone(),
            maps: line.maps.clone(),
            formats: line.formats.clone(),
            mode: Some(*mode).filter(|mode| *mode != crate::task::Mode::InPlace),
            revision: *revision,
            ..TaskLine::new(line.kind, *task_id, conf)
        });
    }
    prepared.contents.push(Beside::write(task_file, &file.encode(), MODE)?.0);
    let former = read(task_file).unwrap_or_default().into_iter();
    let outdated = former.filter(|line| {
        let ours = line.conf == dir.join(TaskLine::conf_name(line.task_id));
        ours && line.status.is_final() && !lines.iter().any(|new| new.task_id == line.task_id)
    });
    prepared.outdated = outdated.map(|line| line.conf).collect();
    Ok(prepared)
}

impl Prepared {
    /// Puts the lines where the master looks. Gives the files of earlier tasks, which nothing names any more.
    ///
    /// The task file is as durable as the place that the operator chose for it: on a tmpfs it ends with the boot, and so does
    /// the master that would read it.
    pub fn place(self) -> io::Result<Vec<PathBuf>> {
        self.contents.into_iter().try_for_each(Beside::place)?;
        Ok(self.outdated)
    }
}

/// `dysvr_<id>.conf`: one include per file, as in the original. A delete has none, its ids say what goes.
fn conf_text(task_id: TaskId, files: &[PathBuf]) -> String {
    if files.is_empty() {
        return format!("# Task {task_id} names what it changes by ids alone.\n");
    }
    files.iter().fold(String::new(), |mut text, file| {
        let _ = writeln!(text, "include {};", file.display());
        text
    })
}

/// The lines of the task file; none if there is no file.
pub fn read(task_file: &Path) -> Result<Vec<TaskLine>, String> {
    match read_task_file(task_file) {
        Ok(bytes) => Ok(TaskFile::parse(&bytes).map_err(|e| format!("{}: {e}", task_file.display()))?.0),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e.to_string()),
    }
}

/// Sets lines that have no verdict to `F`. Gives the lines as they were found.
pub fn withdraw(task_file: &Path, tasks: &[TaskId], reason: &str) -> Result<Vec<TaskLine>, String> {
    let found = read(task_file)?;
    let mut file = TaskFile(found.clone());
    let mut open = file.0.iter_mut().filter(|line| tasks.contains(&line.task_id) && !line.status.is_final()).peekable();
    if open.peek().is_some() {
        open.for_each(|line| line.fail(format!("withdrawn by the agent: {reason}")));
        write_whole(task_file, &file.encode(), Durability::Visible).map_err(|e| e.to_string())?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use dysvr_proto::id::Revision;
    use dysvr_proto::status::Status;

    use super::super::plan::PlannedLine;
    use super::*;
    use crate::task::{Kind, Mode};

    fn line(id: u64, kind: Kind, files: &[&str]) -> NumberedLine {
        let files = files.iter().map(PathBuf::from).collect();
        let line =
            PlannedLine { vsvc_ids: vec![131942], ups_ids: vec!["1074728".into()], files, ..PlannedLine::new(kind) };
        NumberedLine { task_id: TaskId(id), line, mode: Mode::InPlace, revision: None }
    }

    fn write(task_file: &Path, lines: &[NumberedLine]) -> Vec<PathBuf> {
        prepare(task_file, lines).unwrap().place().unwrap()
    }

    #[test]
    fn writes_what_the_original_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("common/dy_update_server.conf");
        let vhost = "/p/conf/auto_vhost/lucas-sni-protection-domain-first.qcloudwzgj.com_80.conf";
        let first = [line(25208, Kind::Add, &[vhost])];
        drop(prepare(&path, &first).unwrap());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "what gets no name leaves nothing");
        assert_eq!(write(&path, &first), Vec::<PathBuf>::new());
        let conf = path.with_file_name("dysvr_25208.conf");
        assert_eq!(fs::read_to_string(&conf).unwrap(), format!("include {vhost};\n"));
        let text = format!("type=0 conf={} vsvc_ids=131942 ups_ids=1074728 task_id=25208 status=I\n", conf.display());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);

        withdraw(&path, &[TaskId(25208)], "late").unwrap();
        let next = NumberedLine { revision: Some(Revision(4)), ..line(25209, Kind::Delete, &[]) };
        assert_eq!(write(&path, &[next]), [conf], "the file of the earlier task is of no use");
        let lines = read(&path).unwrap();
        assert_eq!((lines[0].revision, lines[0].kind), (Some(Revision(4)), Kind::Delete));
        assert!(fs::read_to_string(&lines[0].conf).unwrap().starts_with('#'));
    }

    #[test]
    fn takes_back_only_what_is_open_and_says_what_it_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        assert_eq!(read(&path), Ok(vec![]));
        assert_eq!(withdraw(&path, &[TaskId(1)], "x"), Ok(vec![]));
        write(&path, &[line(1, Kind::Delete, &[]), line(2, Kind::Add, &[]), line(3, Kind::Add, &[])]);
        let mut file = TaskFile(read(&path).unwrap());
        file.0[0].set_status(Status::Done);
        file.0[1].set_status(Status::Ready);
        write_whole(&path, &file.encode(), Durability::Visible).unwrap();
        let found = withdraw(&path, &[TaskId(1), TaskId(2)], "late").unwrap();
        let statuses = |lines: &[TaskLine]| lines.iter().map(|line| line.status.letter()).collect::<String>();
        assert_eq!(statuses(&found), "DRI");
        let now = read(&path).unwrap();
        assert_eq!(statuses(&now), "DFI");
        assert_eq!(now[1].reason.as_deref(), Some("withdrawn by the agent: late"));
        fs::write(&path, "torn").unwrap();
        assert!(read(&path).unwrap_err().contains("\"torn\" is not key=value in line 1"));
    }
}
