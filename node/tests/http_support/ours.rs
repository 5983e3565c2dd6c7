//! Our request path in a thread of this process, as a worker runs it.

use std::net::TcpListener;
use std::rc::Rc;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::LoadOptions;
use dysvr_conf::model::ListenAddr;
use dysvr_conf::source::Memory;
use dysvr_node::cycle::{Cycle, load};
use dysvr_node::http::{Context, Stream, serve};
use dysvr_node::log::{Log, set_current};
use tokio::sync::oneshot;

use super::{Proxy, fill};

struct Running {
    stop: Option<oneshot::Sender<()>>,
    drain: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

/// Lets a proxy end its connections in good order; waits until it has.
pub fn drain(proxy: &mut Proxy) {
    let running = proxy.running.downcast_mut::<Running>().expect("one of ours");
    running.drain.take().expect("drained once").send(()).expect("it runs");
}

/// Waits until a proxy that drains has ended.
pub fn wait_for_end(proxy: &mut Proxy) {
    let running = proxy.running.downcast_mut::<Running>().expect("one of ours");
    super::wait_for("the end of the worker", || {
        running.thread.as_ref().is_none_or(std::thread::JoinHandle::is_finished)
    });
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            assert!(!matches!(ended, Some(Err(_))), "the worker's thread panicked");
        }
    }
}

/// Starts it with an `http` block.
pub fn start(http: &str, words: &[(&str, String)]) -> Proxy {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    std::fs::create_dir(path.join("logs")).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let port = socket.local_addr().unwrap().port();
    let text = format!("error_log {{DIR}}/error.log info;\nevents {{ }}\nhttp {{\n{http}\n}}\n");
    let mut source = Memory::default();
    source.insert(path.join("nginx.conf"), fill(&text, port, &path, words));
    source.hosts.insert("localhost".to_owned(), vec!["127.0.0.1".parse().unwrap()]);
    let (stop, stopped) = oneshot::channel();
    let (drain, drained) = oneshot::channel();
    let prefix = path.clone();
    let thread = std::thread::spawn(move || {
        let options = LoadOptions {
            conf: prefix.join("nginx.conf"),
            prefix: prefix.clone(),
            globals: String::new(),
            privileged: true,
        };
        let config = load(&options, &mut source, &mut Interner::default()).unwrap_or_else(|error| panic!("{error}"));
        set_current(Log::open(&config.main.error_logs, &prefix).unwrap());
        let cycle = Rc::new(Cycle::load(config).unwrap());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
        runtime.block_on(async {
            let ctx = Context::new(Rc::clone(&cycle), prefix, Default::default());
            let addr = ListenAddr::Inet(socket.local_addr().unwrap());
            let bound =
                cycle.listener(&addr).or_else(|| cycle.listener(&ListenAddr::Inet(([0, 0, 0, 0], port).into())));
            let bound = bound.expect("the configuration listens on {PORT}");
            let accept = async {
                let socket = tokio::net::TcpListener::from_std(socket).unwrap();
                while let Ok((stream, remote)) = socket.accept().await {
                    let listener = cycle.route(&bound, || stream.local_addr().ok());
                    let stream = Stream::Tcp(stream);
                    tokio::task::spawn_local(serve(Rc::clone(&ctx), stream, Some(remote), listener));
                }
            };
            tokio::select! {
                () = accept => {}
                Ok(()) = drained => {
                    ctx.drain().await;
                    ctx.flush_logs();
                    return;
                }
                _ = stopped => {}
            }
            ctx.flush_logs();
        });
    });
    Proxy {
        port,
        dir: path,
        running: Box::new(Running { stop: Some(stop), drain: Some(drain), thread: Some(thread), _dir: dir }),
    }
}
