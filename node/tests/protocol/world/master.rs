//! A master: does what a round says, as the product's does (`master/task.rs`, `master/supervise.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use dysvr_node::dysvr::round::{Effect, Input, Round, SlotId, Verdict};
use shuttle::rand::{Rng as _, thread_rng};
use shuttle::sync::Arc;
use shuttle::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use shuttle::thread::{self, JoinHandle};

use super::super::atomic::lives;
use super::super::mutex::i_am;
use super::ledger::{Ledger, Seen};
use super::worker::Worker;
use super::{Command, Cycle, SLOTS, Zone, digest, draw_fate};

/// How long a phase of a task may take: so many looks at channels on which nothing has come.
const TIMEOUT: Duration = Duration::from_secs(40);

pub struct Master {
    zone: Arc<Zone>,
    ledger: std::sync::Arc<Ledger>,
    seen: std::sync::Arc<Seen>,
    workers: BTreeMap<SlotId, Child>,
    /// All that were ever born.
    threads: Vec<JoinHandle<()>>,
    cycle: Cycle,
    now: Duration,
    /// Workers that are to be born.
    due: usize,
    running: Option<Running>,
}

struct Child {
    number: u64,
    commands: Sender<(Command, u64)>,
    answers: Receiver<(Command, u64)>,
    leaving: bool,
    digest: u128,
    /// So many messages do not get through.
    full: u32,
}

struct Running {
    round: Round,
    text: Option<Vec<u8>>,
    replacements: Vec<(Option<SlotId>, SlotId)>,
    verdict: Option<Verdict>,
}

impl Master {
    pub fn new(zone: &Arc<Zone>, seen: &std::sync::Arc<Seen>) -> Self {
        i_am(1);
        Self {
            zone: Arc::clone(zone),
            ledger: Default::default(),
            seen: std::sync::Arc::clone(seen),
            workers: BTreeMap::new(),
            threads: Vec::new(),
            cycle: Cycle::new(),
            now: Duration::ZERO,
            due: 0,
            running: None,
        }
    }

    pub fn spawn(&mut self) {
        let Some(slot) = (0..SLOTS).find(|slot| !self.workers.contains_key(slot)) else {
            self.due += 1;
            return;
        };
        let (commands, theirs) = channel();
        let (answers, ours) = channel();
        self.zone.slots[slot].claim();
        let number = self.threads.len() as u64 + 2;
        let worker = Worker {
            number,
            slot,
            zone: Arc::clone(&self.zone),
            ledger: std::sync::Arc::clone(&self.ledger),
            seen: std::sync::Arc::clone(&self.seen),
            version: self.zone.head.version(),
            cycle: self.cycle.clone(),
            commands: theirs,
            answers,
        };
        let (fate, ledger, seen) =
            (draw_fate(), std::sync::Arc::clone(&self.ledger), std::sync::Arc::clone(&self.seen));
        self.threads.push(thread::spawn(move || {
            i_am(number);
            if lives(fate, || worker.run()).is_none() {
                seen.died.note();
            }
            ledger.ended(number);
        }));
        let digest = digest(&self.cycle);
        self.workers.insert(slot, Child { number, commands, answers: ours, leaving: false, digest, full: 0 });
        if let Some(running) = &mut self.running
            && let Some(wanted) = running.replacements.iter_mut().find(|(slot, _)| slot.is_none())
        {
            wanted.0 = Some(slot);
        }
    }

    /// One task, from its publication to its verdict.
    pub fn task(&mut self, number: u64) {
        for _ in 0..std::mem::take(&mut self.due) {
            self.spawn();
        }
        let text = format!("task {number}{}", "!".repeat(number as usize)).into_bytes();
        let Ok(published) = self.zone.board().publish(&text, false) else { return };
        if published.anew {
            self.seen.anew.note();
        }
        let version = published.version;
        self.ledger.published(version, &text);
        let members: Vec<SlotId> = self.serving().collect();
        // Some tasks are such that workers need not prepare them first, or may while they are still checked.
        let way = thread_rng().gen_range(0..3);
        for &slot in members.iter().filter(|_| way != 0) {
            self.send(slot, Command::Prepare, version);
        }
        if way == 1 && thread_rng().gen_ratio(1, 4) {
            for slot in members {
                self.send(slot, Command::Abort, version);
            }
            return self.seen.failed.note();
        }
        let begin = [Round::direct, Round::early, Round::new][way];
        let round = begin(self.now, version, members, TIMEOUT);
        self.running = Some(Running { round, text: Some(text), replacements: Vec::new(), verdict: None });
        self.effects();
        while let Some(Running { verdict: None, .. }) = self.running {
            if !self.receive() {
                self.now += Duration::from_secs(1);
                thread::yield_now();
            }
            self.input(Input::Tick);
            let committed = self.running.as_ref().is_some_and(|running| running.round.is_committed());
            for _ in 0..if committed { std::mem::take(&mut self.due) } else { 0 } {
                self.spawn();
            }
        }
        let Some(Running { verdict, replacements, .. }) = self.running.take() else { return };
        match verdict {
            Some(Verdict::Done) => {
                self.seen.done.note();
                for slot in replacements.into_iter().filter_map(|(new, _)| new) {
                    let number = self.workers[&slot].number;
                    assert!(self.ledger.has_served(number), "done, and replacement {number} does not serve yet");
                }
                for slot in self.serving() {
                    let number = self.workers[&slot].number;
                    if let Some(serves) = self.ledger.served_by(number) {
                        assert_eq!(serves, self.cycle, "version {version} is done, and worker {number} serves another");
                    }
                }
            }
            _ => self.seen.failed.note(),
        }
    }

    /// Ends all of them.
    pub fn leave(mut self) {
        self.workers.clear();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }

    fn serving(&self) -> impl Iterator<Item = SlotId> {
        self.workers.iter().filter(|(_, worker)| !worker.leaving).map(|(slot, _)| *slot)
    }

    /// Now and then a channel is full for a while.
    fn send(&mut self, slot: SlotId, command: Command, version: u64) {
        let Some(worker) = self.workers.get_mut(&slot) else { return };
        if thread_rng().gen_ratio(1, 20) {
            worker.full = thread_rng().gen_range(1..=4);
        }
        match worker.full.checked_sub(1) {
            Some(left) => worker.full = left,
            None => drop(worker.commands.send((command, version))),
        }
    }

    /// Takes in what has come; whether anything has.
    fn receive(&mut self) -> bool {
        let mut any = false;
        for slot in self.workers.keys().copied().collect::<Vec<_>>() {
            match self.workers[&slot].answers.try_recv() {
                Ok((command, version)) => {
                    any = true;
                    self.on_answer(slot, command, version);
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    any = true;
                    self.on_death(slot);
                }
            }
        }
        any
    }

    fn on_answer(&mut self, slot: SlotId, command: Command, version: u64) {
        let said = self.zone.slots[slot].said();
        let child = &self.workers[&slot];
        let proved = self.zone.slots[slot].proof();
        // Of a task that is over the worker may have gone on to the next one.
        let current = self.running.as_ref().is_some_and(|running| running.round.version() == version);
        match command {
            Command::Ready => {
                // Of one that is at work on a task the answer to that counts, and one that was given up counts for nothing.
                let awaited = self.running.as_ref().is_some_and(|running| running.round.awaits(slot));
                assert!(awaited || child.leaving || proved == child.digest, "what it was born with");
                let running = self.running.as_ref();
                let replaced =
                    running.and_then(|running| running.replacements.iter().find(|(new, _)| *new == Some(slot)));
                if let Some(&(_, old)) = replaced {
                    self.seen.replaced.note();
                    self.input(Input::Replaced { old });
                }
            }
            Command::Prepared => {
                assert!(!current || (said.version, said.prepare_us) == (version, child.number), "{said:?}");
                self.input(Input::Prepared(slot, version));
            }
            Command::Refused => {
                if current {
                    self.seen.refused.note();
                    assert_eq!(said.version, version);
                    assert_eq!(Some(&said.reason), self.ledger.reason(child.number, version).as_ref());
                }
                self.input(Input::Refused(slot, version, said.reason));
            }
            Command::Committed => {
                assert!(!current || proved == digest(&self.cycle), "committed, and serves something else");
                self.input(Input::Committed(slot, version));
            }
            Command::Lost => {
                self.input(Input::Died(slot));
                self.retire(slot);
            }
            other => panic!("a worker says {other:?}"),
        }
    }

    fn on_death(&mut self, slot: SlotId) {
        if self.workers.remove(&slot).is_some_and(|worker| !worker.leaving) {
            self.due += 1;
        }
        if let Some(running) = &mut self.running {
            for (new, _) in running.replacements.iter_mut().filter(|(new, _)| *new == Some(slot)) {
                *new = None;
            }
        }
        self.input(Input::Died(slot));
    }

    fn input(&mut self, input: Input) {
        if let Some(running) = &mut self.running {
            running.round.handle(self.now, input);
            self.effects();
        }
    }

    fn effects(&mut self) {
        while let Some(running) = &mut self.running
            && let Some(effect) = running.round.poll_effect()
        {
            let version = running.round.version();
            match effect {
                Effect::Commit(ref slots) | Effect::Apply(ref slots) => {
                    let command = match effect {
                        Effect::Apply(_) => Command::Apply,
                        _ => Command::Commit,
                    };
                    self.ledger.committed(version);
                    let text = running.text.take().expect("a round commits once");
                    for &slot in slots {
                        self.send(slot, command, version);
                    }
                    self.cycle.push(text);
                }
                Effect::Abort(slots) => {
                    for slot in slots {
                        self.send(slot, Command::Abort, version);
                    }
                }
                Effect::Retire(slots) => {
                    for slot in slots {
                        self.seen.late.note();
                        self.retire(slot);
                    }
                }
                Effect::Replace(slot) => {
                    self.retire(slot);
                    if let Some(running) = &mut self.running {
                        running.replacements.push((None, slot));
                    }
                    self.due = self.due.saturating_sub(1);
                    self.spawn();
                }
                Effect::End(verdict) => running.verdict = Some(verdict),
            }
        }
    }

    fn retire(&mut self, slot: SlotId) {
        if let Some(worker) = self.workers.get_mut(&slot)
            && !std::mem::replace(&mut worker.leaving, true)
        {
            self.due += 1;
            self.send(slot, Command::Quit, 0);
        }
    }
}
