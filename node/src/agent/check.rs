//! Whether an order may begin at all: a pure function of the order, the ledger and the disk.

use std::collections::{BTreeMap, BTreeSet};

use dysvr_proto::digest::{self, Digest};
use dysvr_proto::planted::{Bug, planted};
use dysvr_proto::status::Status;

use super::ledger::{FileChanges, Ledger, Served};
use super::managed::{ContentDigest, FileName, Manifest};
use super::order::{Order, Origin, Step};
use super::report::Report;

/// At most so many drifted files are named in a reason.
const NAMED: usize = 5;

/// What to do with an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It was answered before: say the same again.
    Repeated(Box<Report>),
    /// It may not begin. Not recorded: when the node has moved on, the same order may be right.
    Refused(String),
    /// The files and what is served are what it leads to.
    Nothing {
        /// What becomes different from what the ledger's revision left (made by hand, now adopted).
        changes: FileChanges,
    },
    /// It may begin.
    Run {
        /// What must go by reload, and why.
        reload: Option<String>,
        /// The files that are to be written or removed.
        disk: FileChanges,
        /// All that becomes different from what the ledger's revision left.
        changes: FileChanges,
    },
}

/// Checks an order. `disk` are the managed files as they are, `drifted` those in which they differ from the ledger's: of a
/// task that names a few files nothing goes through all of them.
pub fn check(order: &Order, ledger: &Ledger, disk: &Manifest, drifted: &BTreeSet<FileName>) -> Checked {
    let step = match &order.origin {
        Origin::Hand(_) => return by_hand(order, disk),
        Origin::Controller(step) => step,
    };
    let target = ContentDigest(step.digest);
    if let Some(report) = ledger.answer(&order.id, target) {
        // A node that has moved on since must not claim to be there still.
        if report.status != Status::Done || report.to_revision == ledger.revision {
            return Checked::Repeated(Box::new(report.clone()));
        }
    }
    if let Some(why) = refusal(step, ledger, drifted) {
        return Checked::Refused(why);
    }
    let after = After::of(order, step, disk);
    let digest = after.digest();
    if digest != step.digest {
        return Checked::Refused(format!(
            "the files of this task have the digest {}, it promises {}",
            digest::hex(&digest),
            digest::hex(&step.digest)
        ));
    }
    let disk_changes = after.changes(disk);
    let served = match &ledger.served {
        Served::Unknown => Err("what the proxy serves is not known since a failed task".to_owned()),
        Served::Known(by_hand) => {
            let is_served = |name: &FileName| match by_hand.get(name) {
                Some(digest) => disk.get(name) == digest.as_ref(),
                None => false,
            };
            match drifted.iter().find(|name| !is_served(name)) {
                Some(name) => Err(format!("{name} was changed by hand, what the proxy serves of it is not known")),
                None => Ok(()),
            }
        }
    };
    // What is neither drifted nor changed is what the ledger's revision left.
    let mut all: FileChanges = drifted
        .iter()
        .map(|name| (name.clone(), after.get(name)))
        .filter(|(name, digest)| ledger.files.get(name) != digest.as_ref())
        .collect();
    if served.is_ok() && disk_changes.is_empty() {
        return Checked::Nothing { changes: all };
    }
    all.extend(disk_changes.clone());
    Checked::Run { reload: served.err(), disk: disk_changes, changes: all }
}

fn by_hand(order: &Order, disk: &Manifest) -> Checked {
    let mut changed = FileChanges::new();
    for (name, content) in &order.write {
        let digest = ContentDigest::of(content);
        if disk.get(name) != Some(&digest) {
            changed.insert(name.clone(), Some(digest));
        }
    }
    let removed = order.remove.iter().filter(|name| disk.contains(name));
    changed.extend(removed.map(|name| (name.clone(), None)));
    // Files that stand on disk already, changed by hand, are part of what becomes served.
    let mut all = changed.clone();
    all.extend(order.write.iter().map(|(name, content)| (name.clone(), Some(ContentDigest::of(content)))));
    Checked::Run { reload: None, disk: changed, changes: all }
}

/// Why a controller's task may not begin.
fn refusal(step: &Step, ledger: &Ledger, drifted: &BTreeSet<FileName>) -> Option<String> {
    if step.epoch < ledger.epoch && !planted(Bug::StaleEpochObeyed) {
        return Some(format!("stale: epoch {} is below {}, which this node has obeyed", step.epoch, ledger.epoch));
    }
    // A step back (the end of a failed rollout) names where it starts, or brings everything.
    if step.to < ledger.revision && !step.whole && step.from != ledger.revision {
        return Some(format!("stale: revision {} is older than {}, which this node has", step.to, ledger.revision));
    }
    if step.to == ledger.revision && step.digest != ledger.files.digest() {
        return Some(format!("revision {} is here with another digest", step.to));
    }
    if step.whole {
        return None;
    }
    if !drifted.is_empty() && !planted(Bug::DriftOverwritten) {
        let mut names: Vec<&str> = drifted.iter().take(NAMED).map(FileName::as_str).collect();
        let more = format!("and {} more", drifted.len().saturating_sub(NAMED));
        if drifted.len() > NAMED {
            names.push(&more);
        }
        return Some(format!("drift: changed by hand since revision {}: {}", ledger.revision, names.join(", ")));
    }
    if step.from != ledger.revision && step.to != ledger.revision {
        return Some(format!("behind: the task starts from revision {}, this node has {}", step.from, ledger.revision));
    }
    None
}

/// The set of files that the order leads to: some of those that there are, and what it changes of them.
struct After<'a> {
    /// None when the order brings all.
    kept: Option<&'a Manifest>,
    changed: BTreeMap<&'a FileName, Option<ContentDigest>>,
}

impl<'a> After<'a> {
    fn of(order: &'a Order, step: &Step, disk: &'a Manifest) -> Self {
        let removed = order.remove.iter().map(|name| (name, None));
        let written = order.write.iter().map(|(name, content)| (name, Some(ContentDigest::of(content))));
        Self { kept: (!step.whole).then_some(disk), changed: removed.chain(written).collect() }
    }

    fn get(&self, name: &FileName) -> Option<ContentDigest> {
        match self.changed.get(name) {
            Some(digest) => *digest,
            None => self.kept.and_then(|kept| kept.get(name)).copied(),
        }
    }

    /// Of all its files.
    fn digest(&self) -> Digest {
        let changed = self.changed.iter().map(|(name, digest)| (*name, *digest));
        match self.kept {
            Some(kept) => kept.digest_with(changed),
            None => Manifest::default().digest_with(changed),
        }
    }

    /// What makes it of the files that there are.
    fn changes(&self, disk: &Manifest) -> FileChanges {
        let gone = self.kept.is_none().then(|| disk.names()).into_iter().flatten().map(|name| (name, None));
        let named = gone.chain(self.changed.iter().map(|(name, digest)| (*name, *digest)));
        let named: BTreeMap<&FileName, Option<ContentDigest>> = named.collect();
        let differ = named.into_iter().filter(|(name, digest)| disk.get(name) != digest.as_ref());
        differ.map(|(name, digest)| (name.clone(), digest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dysvr_proto::id::{Epoch, Revision, RolloutId, TaskId};

    use super::super::ledger::Answer;
    use super::*;

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    fn manifest(files: &[(&str, &str)]) -> Manifest {
        files.iter().map(|(n, c)| (name(n), ContentDigest::of(c.as_bytes()))).collect()
    }

    /// A node at revision 5 and epoch 2 that has a.conf and b.conf.
    fn ledger() -> Ledger {
        let files = manifest(&[("a.conf", "A"), ("b.conf", "B")]);
        Ledger { epoch: Epoch(2), revision: Revision(5), files, ..Ledger::default() }
    }

    fn order(write: &[(&str, &str)], remove: &[&str], step: Step) -> Order {
        Order {
            id: "t".into(),
            origin: Origin::Controller(step),
            write: write.iter().map(|(n, c)| (name(n), c.as_bytes().to_vec())).collect(),
            remove: remove.iter().map(|n| name(n)).collect::<BTreeSet<_>>(),
            deadline: None,
        }
    }

    fn step(from: u64, to: u64, digest: Digest) -> Step {
        Step { epoch: Epoch(2), from: Revision(from), to: Revision(to), digest, whole: false, rollout: RolloutId(1) }
    }

    fn checked(order: &Order, ledger: &Ledger, disk: &Manifest) -> Checked {
        check(order, ledger, disk, &ledger.files.differing(disk))
    }

    fn refused(order: &Order, disk: &Manifest) -> String {
        match checked(order, &ledger(), disk) {
            Checked::Refused(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_difference_runs_in_place() {
        let disk = ledger().files;
        let target = manifest(&[("a.conf", "A2"), ("c.conf", "C")]).digest();
        let order = order(&[("a.conf", "A2"), ("c.conf", "C")], &["b.conf"], step(5, 6, target));
        let Checked::Run { reload: None, disk: changed, changes } = checked(&order, &ledger(), &disk) else { panic!() };
        let names: Vec<&str> = changed.keys().map(FileName::as_str).collect();
        assert_eq!(names, ["a.conf", "b.conf", "c.conf"]);
        assert_eq!(changed[&name("b.conf")], None);
        assert_eq!(changes, changed);
    }

    #[test]
    fn the_digest_is_of_what_is_kept_and_what_is_changed() {
        let disk = manifest(&[("b.conf", "B"), ("d.conf", "D")]);
        for written in ["a.conf", "b.conf", "c.conf", "d.conf", "e.conf"] {
            for removed in ["a.conf", "b.conf", "c.conf", "d.conf", "e.conf"] {
                for whole in [false, true] {
                    let step = Step { whole, ..step(5, 6, [0; 32]) };
                    let order = order(&[(written, "new")], &[removed], step.clone());
                    let mut files = if whole { Manifest::default() } else { disk.clone() };
                    files.remove(&name(removed));
                    files.insert(name(written), ContentDigest::of(b"new"));
                    let after = After::of(&order, &step, &disk);
                    assert_eq!(after.digest(), files.digest(), "{written} is written, {removed} removed");
                    let changes = after.changes(&disk);
                    assert!(changes.keys().eq(&disk.differing(&files)), "{changes:?}");
                    assert!(changes.iter().all(|(name, digest)| files.get(name) == digest.as_ref()));
                }
            }
        }
    }

    #[test]
    fn what_is_old_or_elsewhere_is_refused() {
        let disk = ledger().files;
        let same = disk.digest();
        let other = [9; 32];
        for (order, why) in [
            (
                order(&[], &[], Step { epoch: Epoch(1), ..step(5, 6, same) }),
                "stale: epoch 1 is below 2, which this node has obeyed",
            ),
            (order(&[], &[], step(3, 4, same)), "stale: revision 4 is older than 5, which this node has"),
            (order(&[], &[], step(5, 5, other)), "revision 5 is here with another digest"),
            (order(&[], &[], step(4, 6, same)), "behind: the task starts from revision 4, this node has 5"),
        ] {
            assert_eq!(refused(&order, &disk), why);
        }
        let lies = refused(&order(&[("a.conf", "x")], &[], step(5, 6, other)), &disk);
        assert!(lies.starts_with("the files of this task have the digest "), "{lies}");
    }

    #[test]
    fn a_step_back_runs() {
        let disk = ledger().files;
        let back = manifest(&[("a.conf", "old"), ("b.conf", "B")]).digest();
        let incremental = order(&[("a.conf", "old")], &[], step(5, 4, back));
        assert!(matches!(checked(&incremental, &ledger(), &disk), Checked::Run { reload: None, .. }));
        let whole = Step { whole: true, ..step(0, 4, back) };
        let whole = order(&[("a.conf", "old"), ("b.conf", "B")], &[], whole);
        assert!(matches!(checked(&whole, &ledger(), &disk), Checked::Run { reload: None, .. }));
    }

    #[test]
    fn equal_files_are_nothing_to_do() {
        let disk = ledger().files;
        let nothing = Checked::Nothing { changes: FileChanges::new() };
        assert_eq!(checked(&order(&[], &[], step(5, 6, disk.digest())), &ledger(), &disk), nothing);
        assert_eq!(checked(&order(&[], &[], step(5, 5, disk.digest())), &ledger(), &disk), nothing);
    }

    #[test]
    fn drift_stops_a_difference_and_a_whole_task_reverts_it_by_reload() {
        let disk = manifest(&[("a.conf", "hand"), ("b.conf", "B"), ("z.conf", "Z")]);
        let target = manifest(&[("a.conf", "A"), ("b.conf", "B2")]).digest();
        assert_eq!(
            refused(&order(&[("b.conf", "B2")], &[], step(5, 6, target)), &disk),
            "drift: changed by hand since revision 5: a.conf, z.conf"
        );
        let whole = order(&[("a.conf", "A"), ("b.conf", "B2")], &[], Step { whole: true, ..step(0, 6, target) });
        let Checked::Run { reload: Some(why), disk: changed, changes } = checked(&whole, &ledger(), &disk) else {
            panic!()
        };
        assert_eq!(why, "a.conf was changed by hand, what the proxy serves of it is not known");
        let names: Vec<&str> = changed.keys().map(FileName::as_str).collect();
        assert_eq!(names, ["a.conf", "b.conf", "z.conf"]);
        assert_eq!(changed[&name("z.conf")], None);
        assert_eq!(changes, changed);
    }

    #[test]
    fn a_hand_change_that_went_through_the_agent_is_known_to_be_served() {
        let disk = manifest(&[("a.conf", "hand"), ("b.conf", "B")]);
        let by_hand = FileChanges::from([(name("a.conf"), Some(ContentDigest::of(b"hand")))]);
        let ledger = Ledger { served: Served::Known(by_hand), ..ledger() };
        let target = manifest(&[("a.conf", "A"), ("b.conf", "B")]).digest();
        let whole = order(&[("a.conf", "A"), ("b.conf", "B")], &[], Step { whole: true, ..step(0, 5, target) });
        let Checked::Run { reload: None, disk: changed, .. } = checked(&whole, &ledger, &disk) else { panic!() };
        assert_eq!(changed.len(), 1);
        // Adopting it: the revision's file is the one that was made by hand.
        let whole =
            order(&[("a.conf", "hand"), ("b.conf", "B")], &[], Step { whole: true, ..step(0, 6, disk.digest()) });
        let Checked::Nothing { changes } = checked(&whole, &ledger, &disk) else { panic!() };
        assert_eq!(changes.keys().collect::<Vec<_>>(), [&name("a.conf")]);
    }

    #[test]
    fn after_an_unclear_failure_the_next_task_reloads() {
        let ledger = Ledger { served: Served::Unknown, ..ledger() };
        let disk = ledger.files.clone();
        let order = order(&[], &[], step(5, 6, disk.digest()));
        let Checked::Run { reload: Some(_), disk: changed, .. } = checked(&order, &ledger, &disk) else { panic!() };
        assert!(changed.is_empty());
    }

    #[test]
    fn a_repeated_task_gets_the_recorded_answer() {
        let mut ledger = ledger();
        let report = Report {
            id: "t".into(),
            rollout: RolloutId(1),
            to_revision: Revision(6),
            status: Status::Failed,
            reason: "no".into(),
            mode: None,
            local_task_id: TaskId(3),
            timings: Default::default(),
        };
        ledger.apply(super::super::ledger::Entry::Answered(Answer {
            digest: ContentDigest([9; 32]),
            report: report.clone(),
        }));
        let disk = ledger.files.clone();
        let again = order(&[("a.conf", "x")], &[], step(5, 6, [9; 32]));
        assert_eq!(checked(&again, &ledger, &disk), Checked::Repeated(Box::new(report)));
        assert!(matches!(checked(&order(&[], &[], step(5, 6, [8; 32])), &ledger, &disk), Checked::Refused(_)));
    }
}
