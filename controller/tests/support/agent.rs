//! An agent that speaks the Fleet protocol and keeps its files in memory. It does what it is told to do with tasks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dysvr_proto::digest;
use dysvr_proto::wire::fleet::fleet_client::FleetClient;
use dysvr_proto::wire::fleet::{
    Beat, FromNode, Hello, Mode, Observed, Proxy, Status, Task, TaskReport, Timings, from_node, to_node,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// What an agent does with a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Does it.
    Obey,
    /// Answers F with a reason to tasks that go to a revision; does others.
    Refuse(u64, String),
    /// Never answers.
    Silent,
    /// Waits until it is told another manner.
    Wait,
}

/// One thing that an agent did, in the order of the whole fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    pub node: String,
    pub task: String,
    pub to: u64,
    /// `begin`, `done` or `failed`.
    pub what: &'static str,
}

/// What all agents of a test did.
pub type Journal = Arc<Mutex<Vec<Deed>>>;

/// What an agent has on its disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub files: BTreeMap<String, Vec<u8>>,
    pub revision: u64,
    pub epoch: u64,
    /// Digest that `revision` left.
    pub left: Vec<u8>,
    pub verdicts: BTreeMap<String, TaskReport>,
    pub whole: usize,
    pub proxy_down: bool,
}

impl Disk {
    pub fn digest(&self) -> Vec<u8> {
        let files = self.files.iter().map(|(name, content)| (name.as_str(), digest::of_content(content))).collect();
        digest::of_files(&files).to_vec()
    }

    pub fn observed(&self) -> Observed {
        let empty = self.revision == 0 && self.files.is_empty();
        let drift = !empty && self.digest() != self.left;
        Observed {
            revision: self.revision,
            epoch: self.epoch,
            digest: self.digest(),
            drift,
            drifted: if drift { vec!["by-hand.conf".into()] } else { vec![] },
            proxy: Some(Proxy { running: !self.proxy_down, ..Proxy::default() }),
        }
    }
}

/// A running agent; ends when dropped.
pub struct Agent {
    pub name: String,
    pub address: String,
    pub disk: Arc<Mutex<Disk>>,
    pub refusals: Arc<Mutex<Vec<String>>>,
    manner: watch::Sender<Manner>,
    nudge: Arc<tokio::sync::Notify>,
    task: JoinHandle<()>,
}

impl Agent {
    /// Dials `address` until it is dropped.
    pub fn start(name: &str, address: &str, journal: &Journal) -> Self {
        Self::start_with(name, address, journal, Disk::default(), &[], 1)
    }

    /// With files, labels and a boot number.
    pub fn start_with(
        name: &str,
        address: &str,
        journal: &Journal,
        disk: Disk,
        labels: &[(&str, &str)],
        boot: u64,
    ) -> Self {
        let disk = Arc::new(Mutex::new(disk));
        let manner = watch::Sender::new(Manner::Obey);
        let refusals = Arc::new(Mutex::new(Vec::new()));
        let nudge = Arc::new(tokio::sync::Notify::new());
        let run = Run {
            name: name.to_owned(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            boot,
            disk: Arc::clone(&disk),
            journal: Arc::clone(journal),
            manner: manner.subscribe(),
            refusals: Arc::clone(&refusals),
            nudge: Arc::clone(&nudge),
        };
        let (address, url) = (address.to_owned(), format!("http://{address}"));
        let task = tokio::spawn(async move {
            let mut run = run;
            loop {
                let _ = run.attach(&url).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { name: name.to_owned(), address, disk, refusals, manner, nudge, task }
    }

    /// From now on.
    pub fn set(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// Says what it has now.
    pub fn observe(&self) {
        self.nudge.notify_one();
    }

    pub fn revision(&self) -> u64 {
        self.disk.lock().unwrap().revision
    }

    /// Ends its stream; its disk stays.
    pub fn kill(self) -> Disk {
        self.disk.lock().unwrap().clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Run {
    name: String,
    labels: Vec<(String, String)>,
    boot: u64,
    disk: Arc<Mutex<Disk>>,
    journal: Journal,
    manner: watch::Receiver<Manner>,
    refusals: Arc<Mutex<Vec<String>>>,
    nudge: Arc<tokio::sync::Notify>,
}

impl Run {
    async fn attach(&mut self, address: &str) -> anyhow::Result<()> {
        let channel = Endpoint::from_shared(address.to_owned())?.connect().await?;
        let mut client = FleetClient::new(channel).max_decoding_message_size(64 << 20);
        let (out, messages) = mpsc::channel(16);
        let hello = Hello {
            node: self.name.clone(),
            labels: self.labels.iter().cloned().collect(),
            agent_version: "test".into(),
            boot: self.boot,
            observed: Some(self.disk.lock().unwrap().observed()),
        };
        say(&out, from_node::Kind::Hello(hello)).await?;
        let mut inbound = client.attach(ReceiverStream::new(messages)).await?.into_inner();
        let mut beat = tokio::time::interval(Duration::from_secs(2));
        loop {
            let message = tokio::select! {
                message = inbound.message() => message?,
                _ = beat.tick() => {
                    say(&out, from_node::Kind::Beat(Beat::default())).await?;
                    continue;
                }
                () = self.nudge.notified() => {
                    let observed = self.disk.lock().unwrap().observed();
                    say(&out, from_node::Kind::Observed(observed)).await?;
                    continue;
                }
            };
            match message.and_then(|message| message.kind) {
                Some(to_node::Kind::Task(task)) => self.task(task, &out).await?,
                Some(to_node::Kind::Refused(refused)) => self.refusals.lock().unwrap().push(refused.reason),
                Some(to_node::Kind::Welcome(welcome)) => assert_ne!(welcome.epoch, 0),
                None => return Ok(()),
            }
        }
    }

    fn note(&self, task: &Task, what: &'static str) {
        let deed = Deed { node: self.name.clone(), task: task.id.clone(), to: task.to_revision, what };
        self.journal.lock().unwrap().push(deed);
    }

    async fn task(&mut self, task: Task, out: &mpsc::Sender<FromNode>) -> anyhow::Result<()> {
        let again = self.disk.lock().unwrap().verdicts.get(&task.id).cloned();
        if let Some(report) = again {
            return say(out, from_node::Kind::Report(report)).await;
        }
        self.note(&task, "begin");
        let manner = self.manner.wait_for(|manner| *manner != Manner::Wait).await?.clone();
        let verdict = match manner {
            Manner::Silent => return Ok(()),
            Manner::Refuse(to, reason) if to == task.to_revision => Err(reason),
            _ => self.apply(&task),
        };
        let (status, reason) = match verdict {
            Ok(()) => (Status::Done, String::new()),
            Err(reason) => (Status::Failed, reason),
        };
        self.note(&task, if status == Status::Done { "done" } else { "failed" });
        let report = TaskReport {
            id: task.id.clone(),
            rollout: task.rollout,
            to_revision: task.to_revision,
            status: status.into(),
            reason,
            mode: Mode::InPlace.into(),
            local_task_id: 1,
            timings: Some(Timings { total_us: 1500, ..Timings::default() }),
            observed: Some(self.disk.lock().unwrap().observed()),
        };
        self.disk.lock().unwrap().verdicts.insert(task.id, report.clone());
        say(out, from_node::Kind::Report(report)).await
    }

    fn apply(&self, task: &Task) -> Result<(), String> {
        let mut disk = self.disk.lock().unwrap();
        if task.epoch < disk.epoch {
            return Err(format!("stale epoch {}", task.epoch));
        }
        if !task.whole && task.from_revision != disk.revision {
            return Err(format!("it has revision {}, the task is from {}", disk.revision, task.from_revision));
        }
        let mut files = if task.whole { BTreeMap::new() } else { disk.files.clone() };
        files.extend(task.files.iter().map(|file| (file.name.clone(), file.content.clone())));
        files.retain(|name, _| !task.remove.contains(name));
        let after = Disk { files, ..Disk::default() };
        if after.digest() != task.digest {
            return Err("the digest differs".into());
        }
        disk.files = after.files;
        disk.revision = task.to_revision;
        disk.epoch = task.epoch;
        disk.left.clone_from(&task.digest);
        disk.whole += usize::from(task.whole);
        Ok(())
    }
}

async fn say(out: &mpsc::Sender<FromNode>, kind: from_node::Kind) -> anyhow::Result<()> {
    Ok(out.send(FromNode { kind: Some(kind) }).await?)
}
