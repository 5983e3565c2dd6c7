use std::fs;

use dysvr_proto::id::TaskId;

use super::super::file::{Durability, write_whole};
use super::super::{Kind, WorkerTime};
use super::*;

/// A folder with a task file of `count` lines at `I`, as the agent writes it, and that file opened.
fn lines(count: u64) -> (tempfile::TempDir, OpenTaskFile) {
    let tasks = (1..=count).map(|id| TaskLine::new(Kind::Add, TaskId(id), "/x".into())).collect();
    text(&TaskFile(tasks).to_string())
}

fn text(text: &str) -> (tempfile::TempDir, OpenTaskFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    write_whole(&path, text.as_bytes(), Durability::Visible).unwrap();
    let file = open(&path);
    (dir, file)
}

fn open(path: &Path) -> OpenTaskFile {
    OpenTaskFile::parse(Held::read(path).unwrap()).unwrap()
}

fn read(file: &OpenTaskFile) -> String {
    fs::read_to_string(file.path()).unwrap()
}

fn done(task: &TaskLine) -> TaskLine {
    let workers = vec![WorkerTime { pid: 11, prepare_us: 40, commit_us: 9 }];
    TaskLine { status: Status::Done, mode: Some(Mode::InPlace), master_us: Some(81), workers, ..task.clone() }
}

fn failed(task: &TaskLine) -> TaskLine {
    let mut task = task.clone();
    task.fail("no");
    task
}

#[test]
fn the_one_task_of_a_file_comes_to_its_verdict_in_place() {
    let (_dir, mut file) = lines(1);
    let inode = fs::metadata(file.path()).unwrap().ino();
    let asked = "type=0 conf=/x task_id=1 status=";
    assert_eq!(read(&file), format!("{asked}I\n"));
    file.mark(0, Status::Ready).unwrap();
    assert_eq!(read(&file), format!("{asked}R\n"));
    file.mark(0, Status::Loading).unwrap();
    let task = done(file.task(0));
    file.conclude(0, |line| *line = task.clone()).unwrap();
    assert_eq!(read(&file), format!("{asked}D mode=in_place master_us=81 workers=11:40:9\n"));
    assert_eq!(fs::metadata(file.path()).unwrap().ino(), inode);
    assert_eq!(TaskFile::parse(read(&file).as_bytes()).unwrap().0, [task]);
    assert_eq!(open(file.path()).held.bytes, file.held.bytes, "what is in memory is what was written");
}

#[test]
fn spellings_of_a_line_that_take_their_own_way() {
    let line = "type=0 conf=/x task_id=1 ";
    for (before, after) in [
        // As the original wrote it, and as an editor may.
        ("status=I ", "status=D  mode=in_place master_us=81 workers=11:40:9\n"),
        ("status=I d=4\n\n# end\n", "mode=in_place task_id=1 status=D d=4 master_us=81 workers=11:40:9\n\n# end\n"),
        ("status=\"I\"\n", "status=D mode=in_place master_us=81 workers=11:40:9\n"),
        ("status=I master_us=7\n", "mode=in_place task_id=1 status=D master_us=81 workers=11:40:9\n"),
    ] {
        let (_dir, mut file) = text(&format!("# head\n{line}{before}"));
        file.mark(0, Status::Ready).unwrap();
        let task = done(file.task(0));
        file.conclude(0, |line| *line = task).unwrap();
        let expected = match after.starts_with("status") {
            true => format!("# head\n{line}{after}"),
            false => format!("# head\ntype=0 conf=/x {after}"),
        };
        assert_eq!(read(&file), expected, "{before:?}");
        assert_eq!(open(file.path()).task(0).status, Status::Done);
    }
}

#[test]
fn a_tail_that_crosses_a_page_is_not_appended() {
    for length in 3900..4200 {
        let (_dir, mut file) = text(&format!("#{}\ntype=0 conf=/x task_id=1 status=I\n", "x".repeat(length)));
        let inode = fs::metadata(file.path()).unwrap().ino();
        let task = done(file.task(0));
        file.conclude(0, |line| *line = task.clone()).unwrap();
        let now = read(&file);
        assert_eq!(TaskFile::parse(now.as_bytes()).unwrap().0, [task]);
        if fs::metadata(file.path()).unwrap().ino() == inode {
            assert_eq!((length + 36) / PAGE, (now.len() - 1) / PAGE, "{length}");
        }
    }
}

#[test]
fn every_line_has_its_letter_at_once_and_its_times_with_the_last_one() {
    let (_dir, mut file) = lines(4);
    let letters =
        |file: &OpenTaskFile| -> String { open(file.path()).tasks().map(|task| task.status.letter()).collect() };
    let inode = fs::metadata(file.path()).unwrap().ino();
    let task = done(file.task(0));
    file.conclude(0, |line| *line = task).unwrap();
    assert_eq!((letters(&file), file.next_from(1)), ("DIII".into(), Some(1)));
    assert_eq!(fs::metadata(file.path()).unwrap().ino(), inode);
    let task = failed(file.task(1));
    file.conclude(1, |line| *line = task).unwrap();
    assert_eq!(letters(&file), "DFII");
    for index in 2..4 {
        file.mark(index, Status::Ready).unwrap();
        let task = done(file.task(index));
        file.conclude(index, |line| *line = task).unwrap();
    }
    assert_eq!((letters(&file), file.next_from(0)), ("DFDD".into(), None));
    let file = open(file.path());
    assert!(file.tasks().all(|task| (task.status == Status::Done) == (task.master_us == Some(81))), "{}", read(&file));
    assert_eq!(file.task(1).reason.as_deref(), Some("no"));
}

#[test]
fn a_thousand_lines_cost_a_thousand_bytes_and_one_file() {
    let (_dir, mut file) = lines(1000);
    let mut inodes = std::collections::BTreeSet::new();
    for index in 0..1000 {
        inodes.insert(fs::metadata(file.path()).unwrap().ino());
        assert_eq!(file.next_from(index), Some(index));
        file.mark(index, Status::Ready).unwrap();
        file.mark(index, Status::Loading).unwrap();
        let task = done(file.task(index));
        file.conclude(index, |line| *line = task).unwrap();
    }
    assert_eq!(inodes.len(), 1, "only the last verdict took a new file");
    assert!(open(file.path()).tasks().all(|task| task.master_us == Some(81)));
}

#[test]
fn a_newer_file_is_never_touched() {
    let newer = b"type=0 conf=/y task_id=9 status=I\n";
    for verdict in [done, failed] {
        let (dir, mut file) = lines(2);
        file.mark(0, Status::Ready).unwrap();
        assert!(file.is_current() && !file.is_gone());
        write_whole(file.path(), newer, Durability::Visible).unwrap();
        assert!(!file.is_current() && file.is_gone());
        file.mark(0, Status::Loading).unwrap();
        for index in 0..2 {
            let task = verdict(file.task(index));
            let _ = file.conclude(index, |line| *line = task);
        }
        assert!(matches!(file.held.refuse("why"), Err(NotWritten::Superseded)));
        assert_eq!(read(&file).as_bytes(), newer);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_file(file.path()).unwrap();
        assert!(matches!(file.held.refuse("why"), Err(NotWritten::Superseded)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "what was removed does not come back");
    }
}

#[test]
fn a_file_that_cannot_be_written_in_place_is_replaced() {
    let (_dir, mut file) = lines(1);
    file.held.writable = false;
    file.mark(0, Status::Ready).unwrap();
    assert_eq!(read(&file), "type=0 conf=/x task_id=1 status=R\n");
    assert!(file.is_current(), "the new file is held");
}

#[test]
fn a_file_that_is_none_keeps_its_lines_as_comments() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    fs::write(&path, "type=0 conf=/x task_id=1 status=I\ntorn").unwrap();
    let (error, mut held) = OpenTaskFile::parse(Held::read(&path).unwrap()).unwrap_err();
    held.refuse(&error.to_string()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# status=F reason=\"\\\"torn\\\" is not key=value in line 2\"\n"), "{text}");
    assert!(text.ends_with("# type=0 conf=/x task_id=1 status=I\n# torn\n"), "{text}");
    assert!(open(&path).tasks().next().is_none());
}
