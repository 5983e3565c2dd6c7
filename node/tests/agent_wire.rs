//! What the agent says and obeys on the wire: the real agent with the real proxy, and this test in the place of its
//! controllers, so that it can send what no good controller would.

#[path = "agent_node/mod.rs"]
mod agent_node;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use agent_node::{LIMIT, Node, free_port, wait};
use dysvr_proto::digest;
use dysvr_proto::wire::fleet::fleet_server::{Fleet, FleetServer};
use dysvr_proto::wire::fleet::{
    File, FromNode, Hello, Mode, Observed, Status, Task, TaskReport, ToNode, Welcome, from_node, to_node,
};
use futures_util::Stream;
use nix::sys::signal::Signal;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Streaming};

type Out = mpsc::Sender<Result<ToNode, tonic::Status>>;

/// The end of the line: it tells the test what comes, with the way back for each stream.
struct Line {
    events: Sender<Event>,
    /// One for each node that may be welcomed.
    welcomes: Arc<Semaphore>,
}

enum Event {
    /// A node has introduced itself and is not welcomed yet.
    Came,
    Attached(Hello, Out),
    Message(from_node::Kind),
    Detached,
}

#[tonic::async_trait]
impl Fleet for Line {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ToNode, tonic::Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<FromNode>>,
    ) -> Result<Response<Self::AttachStream>, tonic::Status> {
        let (out, answers) = mpsc::channel(16);
        let (events, mut inbound) = (self.events.clone(), request.into_inner());
        let welcomes = Arc::clone(&self.welcomes);
        tokio::spawn(async move {
            let mut out = Some(out);
            while let Some(Ok(FromNode { kind: Some(kind) })) = inbound.next().await {
                let event = match kind {
                    from_node::Kind::Hello(hello) => {
                        let Some(out) = out.take() else { break };
                        drop(events.send(Event::Came));
                        welcomes.acquire().await.unwrap().forget();
                        let welcome = Welcome { controller: "test".into(), epoch: 1, beat_seconds: 1 };
                        out.send(Ok(ToNode { kind: Some(to_node::Kind::Welcome(welcome)) })).await.unwrap();
                        Event::Attached(hello, out)
                    }
                    kind => Event::Message(kind),
                };
                if events.send(event).is_err() {
                    break;
                }
            }
            let _ = events.send(Event::Detached);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// Listens as a controller.
fn listen() -> (SocketAddr, Receiver<Event>) {
    listen_with(Arc::new(Semaphore::new(100)))
}

/// Listens as a controller that welcomes as many nodes as it may.
fn listen_with(welcomes: Arc<Semaphore>) -> (SocketAddr, Receiver<Event>) {
    let (events, received) = channel();
    let (address, bound) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
            let server = tonic::transport::Server::builder().add_service(FleetServer::new(Line { events, welcomes }));
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
    });
    (bound.recv().unwrap(), received)
}

/// The controller's side of one node.
struct Controller {
    events: Receiver<Event>,
    out: Option<Out>,
    /// The files as the last good task left them.
    files: BTreeMap<String, String>,
}

impl Controller {
    fn event(&self) -> Event {
        match self.events.recv_timeout(LIMIT) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("nothing came"),
        }
    }

    fn hello(&mut self) -> Hello {
        loop {
            if let Event::Attached(hello, out) = self.event() {
                self.out = Some(out);
                return hello;
            }
        }
    }

    fn digest(files: &BTreeMap<String, String>) -> Vec<u8> {
        digest::of_files(&files.iter().map(|(n, c)| (n.as_str(), digest::of_content(c.as_bytes()))).collect()).to_vec()
    }

    fn send(&self, task: Task) {
        let message = ToNode { kind: Some(to_node::Kind::Task(task)) };
        self.out.as_ref().unwrap().blocking_send(Ok(message)).unwrap();
    }

    /// The verdict of a task, and how many reports came before it.
    fn verdict(&self, id: &str) -> TaskReport {
        // Beats come all the time.
        let end = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < end, "no verdict of {id}");
            if let Event::Message(from_node::Kind::Report(report)) = self.event()
                && report.id == id
                && matches!(report.status(), Status::Done | Status::Failed)
            {
                return report;
            }
        }
    }

    fn observed(&self, wanted: impl Fn(&Observed) -> bool) -> Observed {
        let end = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < end, "the node has not told what was waited for");
            if let Event::Message(from_node::Kind::Observed(observed)) = self.event()
                && wanted(&observed)
            {
                return observed;
            }
        }
    }

    /// A task that makes the node's files these.
    fn task(&self, id: &str, from: u64, to: u64, files: &BTreeMap<String, String>) -> Task {
        let changed = files.iter().filter(|(name, content)| self.files.get(*name) != Some(content));
        let gone = self.files.keys().filter(|name| !files.contains_key(*name));
        Task {
            id: id.into(),
            epoch: 5,
            from_revision: from,
            to_revision: to,
            digest: Self::digest(files),
            whole: false,
            files: changed.map(|(name, text)| File { name: name.clone(), content: text.clone().into() }).collect(),
            remove: gone.cloned().collect(),
            rollout: 1,
            deadline_ms: 100_000,
        }
    }

    /// The same with everything in it.
    fn whole(&self, id: &str, to: u64, files: &BTreeMap<String, String>) -> Task {
        let all = files.iter().map(|(name, text)| File { name: name.clone(), content: text.clone().into() });
        Task { whole: true, from_revision: 0, files: all.collect(), remove: vec![], ..self.task(id, 0, to, files) }
    }

    /// Sends a task and wants it done.
    fn done(&mut self, task: Task, files: &BTreeMap<String, String>) -> TaskReport {
        let (id, to, digest) = (task.id.clone(), task.to_revision, task.digest.clone());
        self.send(task);
        let report = self.verdict(&id);
        assert_eq!(report.status(), Status::Done, "{report:?}");
        let observed = report.observed.as_ref().unwrap();
        assert_eq!((observed.revision, &observed.digest, observed.drift), (to, &digest, false), "{report:?}");
        self.files = files.clone();
        report
    }

    /// Sends a task and wants it refused.
    fn refused(&self, task: Task, reason: &str) {
        let id = task.id.clone();
        self.send(task);
        let report = self.verdict(&id);
        assert_eq!(report.status(), Status::Failed, "{report:?}");
        assert!(report.reason.starts_with(reason), "{:?} is not {reason:?}", report.reason);
        assert!(report.observed.is_some());
    }
}

fn files(list: &[(&str, String)]) -> BTreeMap<String, String> {
    list.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect()
}

#[test]
fn a_node_obeys_what_it_should_and_nothing_else() {
    let mut node = Node::new();
    let (addr, events) = listen();
    let mut controller = Controller { events, out: None, files: BTreeMap::new() };
    // The first of the two is not there.
    let controllers = format!("http://127.0.0.1:{},http://{addr}", free_port());
    node.start_agent(&["--controller", &controllers, "--label", "zone=a"]);
    let hello = controller.hello();
    assert_eq!((hello.node.as_str(), hello.labels["zone"].as_str()), ("node-1", "a"));
    let observed = hello.observed.unwrap();
    assert_eq!((observed.revision, observed.drift), (0, false));
    assert_eq!(observed.digest, Controller::digest(&BTreeMap::new()));
    assert!(observed.proxy.unwrap().running);

    // A whole revision, with an upstream file and a shared include.
    let (a, b, c) = ("auto_vhost/a.conf", "auto_vhost/b.conf", "auto_vhost/c.conf");
    let with_common = |id, name, word| node.vhost(id, name, word).replace("return", "include common.conf;\n    return");
    let one = files(&[
        (a, with_common(1, "a.test", "a1")),
        (b, node.vhost(2, "b.test", "b1")),
        ("common.conf", "add_header X-Common one;\n".into()),
    ]);
    let task = controller.whole("t1", 1, &one);
    let report = controller.done(task.clone(), &one);
    assert_eq!(report.mode(), Mode::InPlace);
    let timings = report.timings.clone().unwrap();
    assert!(timings.files_us > 0 && timings.total_us >= timings.master_us && timings.workers.len() == 2, "{timings:?}");
    assert_eq!((node.word("a.test"), node.word("b.test")), ("a1".into(), "b1".into()));
    assert_eq!(fs::read_to_string(node.path("conf/common.conf")).unwrap(), one["common.conf"]);
    let workers = node.workers();

    // Again: the recorded answer, no task line.
    let line = fs::read_to_string(node.task_file()).unwrap();
    assert!(line.contains("revision=1") && line.contains("status=D"), "{line}");
    controller.send(task);
    assert_eq!(controller.verdict("t1"), report);
    assert_eq!(fs::read_to_string(node.task_file()).unwrap(), line);

    // What it must not obey.
    let two = files(&[
        (a, with_common(1, "a.test", "a2")),
        (c, node.vhost(3, "c.test", "c1")),
        ("common.conf", one["common.conf"].clone()),
    ]);
    let good = controller.task("x", 1, 2, &two);
    controller.refused(Task { epoch: 4, ..good.clone() }, "stale: epoch 4 is below 5");
    controller
        .refused(Task { from_revision: 7, ..good.clone() }, "behind: the task starts from revision 7, this node has 1");
    controller.refused(Task { to_revision: 0, from_revision: 7, ..good.clone() }, "stale: revision 0 is older than 1");
    controller.refused(Task { to_revision: 1, ..good.clone() }, "revision 1 is here with another digest");
    controller.refused(Task { digest: vec![1; 32], ..good.clone() }, "the files of this task have the digest ");
    controller.refused(Task { digest: vec![1; 3], ..good.clone() }, "the task's digest has 3 bytes");
    let odd = File { name: "../nginx.conf".into(), content: vec![] };
    controller.refused(Task { files: vec![odd], ..good.clone() }, "file name \"../nginx.conf\": ");
    assert_eq!(fs::read_to_string(node.task_file()).unwrap(), line, "none of these has reached the master");

    // One that modifies, adds and deletes at once, in place; then one that fails, twice with one answer.
    let report = controller.done(good, &two);
    assert_eq!(report.mode(), Mode::InPlace);
    let words = |node: &Node| ["a.test", "b.test", "c.test"].map(|name| node.word(name));
    assert_eq!(words(&node), ["a2", "", "c1"]);
    let bad = files(&[(a, two[a].replace("return", "retrun")), (c, two[c].clone()), ("common.conf", "".into())]);
    let task = controller.task("bad", 2, 3, &bad);
    controller.refused(task.clone(), "unknown directive \"retrun\"");
    controller.refused(task, "unknown directive \"retrun\"");
    assert_eq!(words(&node), ["a2", "", "c1"]);
    assert_eq!(fs::read_to_string(node.path("conf").join(a)).unwrap(), two[a]);

    // A shared include: everything that uses it, in place; and nobody's connection or worker was touched by any of it.
    let three =
        files(&[(a, two[a].clone()), (c, two[c].clone()), ("common.conf", "add_header X-Common two;\n".into())]);
    let report = controller.done(controller.task("t3", 2, 3, &three), &three);
    assert_eq!((report.mode(), node.workers()), (Mode::InPlace, workers));

    // A step back names where it starts.
    let report = controller.done(controller.task("back", 3, 2, &two), &two);
    assert_eq!(report.mode(), Mode::InPlace);
    controller.done(controller.task("t3-again", 2, 3, &three), &three);

    // Changed by hand: reported at once, a difference is refused, everything whole reverts it.
    node.write("conf/auto_vhost/hand.conf", &node.vhost(9, "hand.test", "h"));
    let drifted = controller.observed(|observed| observed.drift);
    assert_eq!(drifted.drifted, ["auto_vhost/hand.conf"]);
    controller
        .refused(controller.task("t4", 3, 4, &two), "drift: changed by hand since revision 3: auto_vhost/hand.conf");
    let report = controller.done(controller.whole("revert", 3, &three), &three);
    assert_eq!(report.mode(), Mode::Reload);
    assert!(report.reason.contains("auto_vhost/hand.conf was changed by hand"), "{report:?}");
    assert!(!node.path("conf/auto_vhost/hand.conf").exists());

    // Equal files: nothing to do but to take the number.
    let report = controller.done(controller.task("same", 3, 5, &three), &three);
    assert_eq!(report.mode(), Mode::Nothing);

    // The line breaks: what is served stays, and the same agent comes back with what it has.
    controller.out = None;
    let again = controller.hello();
    assert_eq!((again.boot, again.observed.unwrap().revision), (hello.boot, 5));
    assert_eq!(words(&node), ["a2", "", "c1"]);

    // The whole node is started again, without a controller that would answer: it serves what it had.
    controller.out = None;
    assert_eq!(node.end_agent(Signal::SIGTERM), Some(0));
    node.start_agent(&[]);
    assert_eq!(words(&node), ["a2", "", "c1"]);
    let status = node.run(&["status"]);
    assert_eq!(
        (agent_node::cell(&status, "revision"), agent_node::cell(&status, "drift")),
        ("5".into(), "none".into())
    );
    wait("the end of the line", || matches!(controller.events.try_recv(), Ok(Event::Detached) | Err(_)).then_some(()));
}

#[test]
fn what_changes_before_the_welcome_is_told_behind_it() {
    let mut node = Node::new();
    // What a look finds would be told, and all else with it.
    let conf = fs::read_to_string(node.path("conf/nginx.conf")).unwrap();
    node.write("conf/nginx.conf", &conf.replace("access_log off;", "access_log off;\n    dysvr_verify off;"));
    let welcomes = Arc::new(Semaphore::new(0));
    let (addr, events) = listen_with(Arc::clone(&welcomes));
    let mut controller = Controller { events, out: None, files: BTreeMap::new() };
    node.start_agent(&["--controller", &format!("http://{addr}")]);
    assert!(matches!(controller.event(), Event::Came));
    node.write("conf/auto_vhost/hand.conf", &node.vhost(9, "hand.test", "h"));
    wait("the agent to see it", || node.agent_log().contains("drift").then_some(()));
    welcomes.add_permits(100);
    // An agent that has waited for too long introduces itself once more, with what it has then.
    let introduced = controller.hello().observed.unwrap();
    let drifted = if introduced.drift { introduced } else { controller.observed(|observed| observed.drift) };
    assert_eq!(drifted.drifted, ["auto_vhost/hand.conf"]);
}
