//! A worker: obeys its channel as the product's does (`worker/control.rs`, `worker/update.rs`); what it parses is a text.

use dysvr_node::worker::follow::Follower;
use shuttle::rand::{Rng as _, thread_rng};
use shuttle::sync::Arc;
use shuttle::sync::mpsc::{Receiver, Sender};

use super::super::message::InvalidMessage;
use super::super::slot::Said;
use super::ledger::{Ledger, Seen};
use super::{Command, Cycle, Zone, digest};

pub struct Worker {
    pub number: u64,
    pub slot: usize,
    pub zone: Arc<Zone>,
    pub ledger: std::sync::Arc<Ledger>,
    pub seen: std::sync::Arc<Seen>,
    pub version: u64,
    pub cycle: Cycle,
    pub commands: Receiver<(Command, u64)>,
    pub answers: Sender<(Command, u64)>,
}

impl Worker {
    pub fn run(mut self) {
        let mut follower = Follower::new(self.version);
        self.ledger.serves(self.number, &self.cycle);
        self.prove();
        self.answer(Command::Ready, self.version);
        while let Ok((command, version)) = self.commands.recv() {
            match command {
                Command::Prepare => {
                    let answer = self.prepare(&mut follower, version);
                    self.answer(answer, version);
                }
                Command::Commit => {
                    if self.commit(&mut follower, version) {
                        self.answer(Command::Committed, version);
                    }
                }
                Command::Apply => {
                    let prepared = self.prepare(&mut follower, version);
                    let committed = prepared == Command::Prepared && self.commit(&mut follower, version);
                    self.answer(if committed { Command::Committed } else { prepared }, version);
                }
                Command::Abort => follower.abort(version),
                _ => return,
            }
        }
    }

    fn prepare(&self, follower: &mut Follower<Vec<u8>>, version: u64) -> Command {
        if !follower.meet(version) {
            self.seen.lost.note();
            return Command::Lost;
        }
        let read = {
            let _guard = self.zone.board().lock(false);
            self.zone.board().read(version)
        };
        let refusal = match read {
            Ok(bytes) => {
                self.ledger.was_read(version, &bytes);
                if thread_rng().gen_ratio(15, 16) {
                    follower.prepared(bytes);
                    self.say(version, "");
                    return Command::Prepared;
                }
                "it does not like it".to_owned()
            }
            Err(error) => {
                match error {
                    InvalidMessage::Damaged => self.seen.damaged.note(),
                    InvalidMessage::Version { .. } => self.seen.overtaken.note(),
                    InvalidMessage::Absent => panic!("it has room"),
                }
                error.to_string()
            }
        };
        let reason = format!("{} cannot do {version}: {refusal}", self.number);
        self.ledger.refuses(self.number, version, &reason);
        self.say(version, &reason);
        Command::Refused
    }

    fn commit(&mut self, follower: &mut Follower<Vec<u8>>, version: u64) -> bool {
        let Some(text) = follower.commit(version) else { return false };
        self.ledger.commits(version, &text);
        self.cycle.push(text);
        self.ledger.serves(self.number, &self.cycle);
        self.prove();
        self.say(version, "");
        true
    }

    fn prove(&self) {
        self.zone.slots[self.slot].prove(digest(&self.cycle));
    }

    fn say(&self, version: u64, reason: &str) {
        let said = Said { version, prepare_us: self.number, commit_us: 0, reason: reason.to_owned() };
        self.zone.slots[self.slot].say(&said);
    }

    fn answer(&self, command: Command, version: u64) {
        // The other end may be gone.
        let _ = self.answers.send((command, version));
    }
}
