//! The machine in a small world of files, journal, task file and master, cut off at every step.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dysvr_proto::id::{Epoch, Revision, RolloutId};

use super::super::check::check;
use super::super::ledger::{Ledger, Served};
use super::super::managed::{ContentDigest, FileName, Manifest};
use super::super::order::{Origin, Step};
use super::super::plan::{Plan, PlannedLine};
use super::super::report::Report;
use super::*;
use crate::task::{Kind, Mode as LineMode, TaskLine};

type Files = BTreeMap<FileName, Vec<u8>>;

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn files(list: &[(&str, &str)]) -> Files {
    list.iter().map(|(n, c)| (name(n), c.as_bytes().to_vec())).collect()
}

fn manifest(files: &Files) -> Manifest {
    files.iter().map(|(n, c)| (n.clone(), ContentDigest::of(c))).collect()
}

/// What the master does with lines.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Master {
    Obeys,
    Refuses,
    WantsReload,
    /// The first line is done, the second refused.
    StopsHalfway,
    Silent,
    /// Ends at the first signal; the next master starts from the files.
    Dies,
    /// Commits and ends before it says so.
    DiesCommitted,
    Absent,
}

struct World {
    disk: Files,
    /// What waits for its names, or goes.
    staged: Option<BTreeMap<FileName, Option<Vec<u8>>>>,
    prepared: Vec<NumberedLine>,
    /// What is left of the files when the machine goes down now, at worst.
    durable: Files,
    /// What settling says.
    settles: Result<(), String>,
    undo: Files,
    undo_names: Vec<FileName>,
    ledger: Ledger,
    lines: Vec<TaskLine>,
    served: Files,
    master: Master,
    memory: Result<u64, String>,
    test: Result<(), String>,
    reports: Vec<Report>,
    signals: usize,
    now: Duration,
}

fn before() -> Files {
    files(&[("auto_vhost/a.conf", "A"), ("auto_vhost/b.conf", "B")])
}

fn target() -> Files {
    files(&[("auto_vhost/a.conf", "A2"), ("auto_vhost/c.conf", "C")])
}

impl World {
    fn new(master: Master) -> Self {
        let ledger = Ledger { revision: Revision(1), epoch: Epoch(1), files: manifest(&before()), ..Ledger::default() };
        Self {
            disk: before(),
            staged: None,
            prepared: vec![],
            durable: before(),
            settles: Ok(()),
            undo: Files::new(),
            undo_names: vec![],
            ledger,
            lines: vec![],
            served: before(),
            master,
            memory: Ok(70),
            test: Ok(()),
            reports: vec![],
            signals: 0,
            now: Duration::ZERO,
        }
    }

    fn order() -> Order {
        let after = target();
        Order {
            id: "t".into(),
            origin: Origin::Controller(Step {
                epoch: Epoch(1),
                from: Revision(1),
                to: Revision(2),
                digest: manifest(&after).digest(),
                whole: false,
                rollout: RolloutId(1),
            }),
            write: after,
            remove: [name("auto_vhost/b.conf")].into(),
            deadline: None,
        }
    }

    /// Does what the machine wants; `half` stops a write in its middle.
    fn perform(&mut self, effect: Effect, half: bool) -> Option<Input> {
        self.now += Duration::from_micros(10);
        Some(match effect {
            Effect::Lock => {
                (self.staged, self.prepared) = (None, vec![]); // an earlier process has taken it along
                Input::Locked(Ok(self.ledger.in_flight.clone()))
            }
            Effect::Check(order) => {
                let disk = manifest(&self.disk);
                Input::Checked(Ok(Standing {
                    checked: check(&order, &self.ledger, &disk, &self.ledger.files.differing(&disk)),
                    last_task: self.ledger.last_task,
                    in_flight: self.ledger.in_flight.clone(),
                    task_timeout: Duration::from_secs(10),
                }))
            }
            Effect::Plan { reload, disk, .. } => {
                let line = |kind, id: u64| PlannedLine { vsvc_ids: vec![id], ..PlannedLine::new(kind) };
                let lines = match disk.is_empty() {
                    true => vec![],
                    false => vec![line(Kind::Delete, 2), line(Kind::Modify, 1), line(Kind::Add, 3)],
                };
                Input::Planned(Ok(Plan { reload, lines }))
            }
            Effect::Guard => Input::Guarded(self.memory.clone()),
            Effect::Stage { order, disk, .. } => {
                let content = |(file, digest): (&FileName, &Option<ContentDigest>)| {
                    (file.clone(), digest.map(|_| order.write[file].clone()))
                };
                self.staged = Some(disk.iter().map(content).collect());
                return None;
            }
            Effect::Begin { begun, lines, staged } => {
                assert_eq!(staged, self.staged.is_some());
                if staged {
                    self.undo_names = begun.changes.keys().cloned().collect();
                    self.undo = self.disk.clone();
                }
                self.prepared = lines;
                self.ledger.apply(Entry::Begin(begun));
                Input::Began(Ok(()))
            }
            Effect::Write => {
                for (i, (file, content)) in self.staged.take().into_iter().flatten().enumerate() {
                    if half && i > 0 {
                        return None;
                    }
                    match content {
                        Some(content) => self.disk.insert(file, content),
                        None => self.disk.remove(&file),
                    };
                }
                self.lines = std::mem::take(&mut self.prepared)
                    .into_iter()
                    .map(|line| TaskLine {
                        vsvc_ids: line.line.vsvc_ids,
                        mode: Some(line.mode),
                        ..TaskLine::new(line.line.kind, line.task_id, PathBuf::from("/x"))
                    })
                    .collect();
                Input::Written(Ok(()))
            }
            Effect::Test => Input::Tested(self.test.clone()),
            Effect::Signal(wake) => {
                self.signals += 1;
                Input::Signalled(self.signal(wake))
            }
            Effect::Settle { changes, found } => {
                let wanted = |name: &FileName| self.disk.get(name).map(|content| ContentDigest::of(content));
                let lost = changes.iter().any(|(name, digest)| wanted(name) != *digest);
                self.durable = self.disk.clone();
                Input::Settled(if found && lost { Err("lost".into()) } else { self.settles.clone() })
            }
            Effect::Look => Input::Looked(Ok(self.lines.clone())),
            Effect::Withdraw { tasks, reason } => {
                let found = self.lines.clone();
                let mine = self.lines.iter_mut().filter(|line| tasks.contains(&line.task_id));
                mine.filter(|line| !line.status.is_final()).for_each(|line| line.fail(reason.clone()));
                Input::Withdrawn(Ok(found))
            }
            Effect::Undo => {
                for file in &self.undo_names {
                    match self.undo.get(file) {
                        Some(content) => self.disk.insert(file.clone(), content.clone()),
                        None => self.disk.remove(file),
                    };
                }
                self.durable = self.disk.clone();
                Input::Undone(Ok(()))
            }
            Effect::Record(entry) => {
                self.ledger.apply(entry);
                return None;
            }
            Effect::Report(report) => {
                if report.status.is_final() {
                    assert_eq!(self.durable, self.disk, "a verdict before the files are durable: {report:?}");
                }
                self.reports.push(report);
                return None;
            }
            Effect::Unlock | Effect::Exit => return None,
        })
    }

    fn signal(&mut self, wake: Wake) -> Result<(), String> {
        match (self.master, wake) {
            (Master::Absent, _) => return Err("no master runs".into()),
            (Master::Dies | Master::DiesCommitted, Wake::InPlace) => {
                self.served = self.disk.clone();
                self.master = Master::Obeys;
                return Err("the master ended".into());
            }
            (Master::Silent, Wake::InPlace) => {}
            (_, Wake::Reload) => {
                self.served = self.disk.clone();
                let pending = self.lines.iter_mut().filter(|line| line.mode == Some(LineMode::Reload));
                pending.for_each(|line| line.set_status(Status::Done));
            }
            (master, Wake::InPlace) => {
                let pending = |line: &&mut TaskLine| line.mode != Some(LineMode::Reload) && !line.status.is_final();
                for (i, line) in self.lines.iter_mut().filter(pending).enumerate() {
                    match master {
                        Master::Refuses => line.fail("unknown directive \"x\" in /p/a.conf:1"),
                        Master::WantsReload => line.fail("needs a reload: 0.0.0.0:81 does not listen yet"),
                        Master::StopsHalfway if i > 0 => line.fail("no"),
                        _ => line.set_status(Status::Done),
                    }
                    if line.status == Status::Done {
                        self.served = self.disk.clone();
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs a machine to its rest, or for so many effects. Says whether it came to rest.
    fn run(&mut self, machine: &mut Machine, mut effects: usize, half: bool) -> bool {
        loop {
            while let Some(effect) = machine.poll_effect() {
                if effects == 0 {
                    if half {
                        self.perform(effect, true);
                    }
                    return false;
                }
                effects -= 1;
                let now = self.now;
                if let Some(input) = self.perform(effect, false) {
                    machine.handle(now, input);
                }
            }
            let Some(at) = machine.poll_timeout() else { return true };
            self.now = self.now.max(at);
            machine.handle(self.now, Input::Tick);
        }
    }

    /// A fresh agent that is given the order, with a cut after so many effects if there is one.
    fn give(&mut self, cut: Option<usize>, half: bool) -> bool {
        let mut machine = Machine::new(self.now);
        machine.handle(self.now, Input::Order(Box::new(Self::order())));
        self.run(&mut machine, cut.unwrap_or(usize::MAX), half)
    }

    fn last(&self) -> &Report {
        self.reports.last().expect("a report")
    }

    /// Everything is as it was, or as it should be, and the last report says which.
    fn assert_whole(&self, what: &str) {
        let report = self.last();
        assert_eq!(self.ledger.in_flight, None, "{what}");
        match report.status {
            Status::Done => {
                assert_eq!(self.disk, target(), "{what}: {report:?}");
                assert_eq!(self.served, target(), "{what}: {report:?}");
                assert_eq!(self.ledger.revision, Revision(2), "{what}");
                assert_eq!(self.ledger.files, manifest(&target()), "{what}");
            }
            Status::Failed => {
                assert!(!report.reason.is_empty());
                assert_eq!(self.disk, before(), "{what}: {report:?}");
                assert_eq!(self.ledger.revision, Revision(1), "{what}");
                if self.ledger.served != Served::Unknown && self.master != Master::Absent {
                    assert_eq!(self.served, before(), "{what}: {report:?}");
                }
            }
            other => panic!("{what}: the last report is {other}"),
        }
        assert!(self.lines.iter().all(|line| line.status.is_final()), "{what}");
    }
}

const MASTERS: [Master; 8] = [
    Master::Obeys,
    Master::Refuses,
    Master::WantsReload,
    Master::StopsHalfway,
    Master::Silent,
    Master::Dies,
    Master::DiesCommitted,
    Master::Absent,
];

#[test]
fn every_master_leads_to_a_verdict_that_is_true() {
    for (master, status, reason) in [
        (Master::Obeys, Status::Done, ""),
        (Master::Refuses, Status::Failed, "unknown directive \"x\" in /p/a.conf:1"),
        (Master::WantsReload, Status::Done, "0.0.0.0:81 does not listen yet"),
        (Master::StopsHalfway, Status::Failed, "no; the former configuration was reloaded"),
        (
            Master::Silent,
            Status::Failed,
            "no verdict of the master within 22000 ms; the former configuration was reloaded",
        ),
        (Master::Dies, Status::Failed, "the master ended"),
        (Master::Absent, Status::Failed, "no master runs"),
    ] {
        let mut world = World::new(master);
        assert!(world.give(None, false));
        let report = world.last();
        assert_eq!((report.status, report.reason.as_str()), (status, reason), "{master:?}");
        if master != Master::Dies {
            world.assert_whole(&format!("{master:?}"));
        }
    }
}

#[test]
fn progress_is_told_of_a_task_that_takes_its_time() {
    for (master, told) in [
        (Master::Obeys, vec![Status::Done]),
        (Master::Silent, vec![Status::Init, Status::Failed]),
        (Master::Refuses, vec![Status::Failed]),
    ] {
        let mut world = World::new(master);
        world.give(None, false);
        assert_eq!(world.reports.iter().map(|report| report.status).collect::<Vec<_>>(), told, "{master:?}");
    }
}

#[test]
fn a_repeated_task_is_answered_without_a_signal() {
    for master in [Master::Obeys, Master::Refuses, Master::WantsReload] {
        let mut world = World::new(master);
        world.give(None, false);
        let (signals, report) = (world.signals, world.last().clone());
        world.give(None, false);
        assert_eq!((world.signals, world.last()), (signals, &report), "{master:?}");
    }
}

#[test]
fn low_memory_and_a_bad_test_change_nothing() {
    let mut world = World::new(Master::Obeys);
    world.memory = Err("low memory: 3 %".into());
    world.give(None, false);
    assert_eq!((world.signals, world.last().reason.as_str()), (0, "low memory: 3 %"));
    world.assert_whole("low memory");

    let mut world = World::new(Master::WantsReload);
    world.test = Err("bad".into());
    world.give(None, false);
    assert_eq!(world.last().reason, "bad");
    world.assert_whole("bad test");
}

#[test]
fn a_kill_at_any_moment_ends_in_a_true_verdict() {
    for master in MASTERS {
        for half in [false, true] {
            for cut in 0.. {
                let mut world = World::new(master);
                if world.give(Some(cut), half) {
                    assert!(cut > 5);
                    break;
                }
                let killed = world.now;
                let what = format!("{master:?}, killed at effect {cut}, half {half}");
                // The restart alone ends what was begun, and soon …
                let mut machine = Machine::new(world.now);
                assert!(world.run(&mut machine, usize::MAX, false), "{what}");
                if master != Master::Silent {
                    assert!(world.now - killed < Duration::from_secs(2), "{what}: {:?}", world.now - killed);
                }
                assert_eq!(world.ledger.in_flight, None, "{what}");
                assert!([before(), target()].contains(&world.disk), "{what}: half of a task on disk");
                // … and the task, given again, ends with a verdict that is true.
                world.give(None, false);
                if !matches!(master, Master::Dies | Master::DiesCommitted) || world.last().status == Status::Done {
                    world.assert_whole(&what);
                }
            }
        }
    }
}

/// The machine goes down: each change of a file since the last sync is there or not, the master is gone, the next one
/// starts from the files. The lines are gone too unless they lie on a disk, where they are as they were.
fn power_cuts(world: &World) -> Vec<Files> {
    let names: Vec<&FileName> = world.disk.keys().chain(world.durable.keys()).collect();
    let pick = |set: usize| {
        let of = |(i, name): (usize, &&FileName)| {
            let files = if set & 1 << i == 0 { &world.durable } else { &world.disk };
            files.get(*name).map(|content| ((*name).clone(), content.clone()))
        };
        names.iter().enumerate().filter_map(of).collect::<Files>()
    };
    (0..1 << names.len()).map(pick).collect()
}

#[test]
fn a_power_cut_at_any_moment_ends_in_a_true_verdict() {
    for master in MASTERS {
        for cut in 0.. {
            let mut world = World::new(master);
            if world.give(Some(cut), false) {
                break;
            }
            for lines_are_kept in [false, true] {
                for disk in power_cuts(&world) {
                    let told = world.reports.iter().find(|report| report.status.is_final()).cloned();
                    let lines = if lines_are_kept { world.lines.clone() } else { vec![] };
                    let mut after = World {
                        durable: disk.clone(),
                        served: disk.clone(),
                        disk,
                        lines,
                        undo: world.undo.clone(),
                        undo_names: world.undo_names.clone(),
                        ledger: world.ledger.clone(),
                        now: world.now,
                        ..World::new(if master == Master::Absent { master } else { Master::Obeys })
                    };
                    let what = format!("{master:?}, down at effect {cut}, {:?}, lines {lines_are_kept}", after.disk);
                    let mut machine = Machine::new(after.now);
                    assert!(after.run(&mut machine, usize::MAX, false), "{what}");
                    assert_eq!(after.ledger.in_flight, None, "{what}");
                    let done = after.ledger.revision == Revision(2);
                    assert_eq!(after.disk, if done { target() } else { before() }, "{what}");
                    if let Some(told) = told {
                        assert_eq!(done, told.status == Status::Done, "{what}: another verdict than the one told");
                    }
                    // A refusal that outlives the machine is believed: nothing of the task has taken effect.
                    if master != Master::Absent && !after.lines.iter().any(|line| line.status == Status::Failed) {
                        assert_eq!(after.served, after.disk, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn without_durable_names_no_verdict_of_the_master_counts() {
    for master in [Master::Obeys, Master::Refuses, Master::Silent, Master::WantsReload] {
        let mut world = World { settles: Err("disk: EIO".into()), ..World::new(master) };
        world.give(None, false);
        assert_eq!(world.last().status, Status::Failed, "{master:?}");
        assert!(world.last().reason.starts_with("disk: EIO"), "{:?}", world.last());
        world.assert_whole(&format!("{master:?}"));
    }
}

#[test]
fn killed_again_and_again_it_still_ends() {
    for master in MASTERS {
        for first in 0..30 {
            for second in 0..12 {
                let mut world = World::new(master);
                if world.give(Some(first), false) {
                    break;
                }
                let mut machine = Machine::new(world.now);
                world.run(&mut machine, second, false);
                let mut machine = Machine::new(world.now);
                assert!(world.run(&mut machine, usize::MAX, false));
                assert_eq!(world.ledger.in_flight, None);
                assert!([before(), target()].contains(&world.disk), "{master:?} {first} {second}");
            }
        }
    }
}

#[test]
fn one_at_a_time_and_the_newest_waits() {
    let mut world = World::new(Master::Obeys);
    let mut machine = Machine::new(world.now);
    assert!(world.run(&mut machine, usize::MAX, false));
    let order = |id: &str| Input::Order(Box::new(Order { id: id.into(), ..World::order() }));
    machine.handle(world.now, order("one"));
    machine.handle(world.now, order("one"));
    machine.handle(world.now, order("two"));
    machine.handle(world.now, order("three"));
    machine.handle(world.now, order("three"));
    assert!(world.run(&mut machine, usize::MAX, false));
    let verdicts: Vec<_> = world.reports.iter().filter(|r| r.status.is_final()).map(|r| (&*r.id, r.status)).collect();
    assert_eq!(verdicts, [("two", Status::Failed), ("one", Status::Done), ("three", Status::Done)]);
    assert_eq!(world.last().mode, Some(Mode::Nothing));
}

#[test]
fn stop_ends_the_task_and_takes_no_more() {
    let mut world = World::new(Master::Obeys);
    let mut machine = Machine::new(world.now);
    machine.handle(world.now, Input::Order(Box::new(World::order())));
    machine.handle(world.now, Input::Stop);
    machine.handle(world.now, Input::Order(Box::new(Order { id: "late".into(), ..World::order() })));
    let mut exits = 0;
    while let Some(effect) = machine.poll_effect() {
        exits += usize::from(effect == Effect::Exit);
        if let Some(input) = world.perform(effect, false) {
            machine.handle(world.now, input);
        }
    }
    assert_eq!(exits, 1);
    assert!(!machine.is_busy());
}
