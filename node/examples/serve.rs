//! Serves a configuration file in one process, without a master: to measure and to debug the request path alone.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::LoadOptions;
use dysvr_conf::model::ListenAddr;
use dysvr_conf::source::Source;
use dysvr_node::cycle::{Cycle, load};
use dysvr_node::http::{Context, Stream, serve};
use dysvr_node::os::listen;

struct Disk;

impl Source for Disk {
    fn read(&mut self, path: &Path) -> std::io::Result<Arc<[u8]>> {
        std::fs::read(path).map(Into::into)
    }

    fn glob(&mut self, pattern: &Path) -> std::io::Result<Vec<PathBuf>> {
        Ok(glob::glob(&pattern.to_string_lossy()).map_err(std::io::Error::other)?.flatten().collect())
    }

    fn resolve(&mut self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        use std::net::ToSocketAddrs as _;
        Ok((host, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect())
    }
}

fn main() -> anyhow::Result<()> {
    let conf = PathBuf::from(std::env::args().nth(1).unwrap_or_default()).canonicalize()?;
    let prefix = conf.parent().unwrap_or(Path::new("/")).to_owned();
    let options = LoadOptions { conf, prefix: prefix.clone(), globals: String::new(), privileged: true };
    let config = load(&options, &mut Disk, &mut Interner::default())?;
    if !config.main.error_logs.is_empty() {
        dysvr_node::log::set_current(dysvr_node::log::Log::open(&config.main.error_logs, &prefix)?);
    }
    let cycle = Rc::new(Cycle::load(config)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let ctx = Context::new(Rc::clone(&cycle), prefix, Default::default());
        let mut accepting = Vec::new();
        for (addr, options) in cycle.sockets() {
            let socket = listen::listen(&addr, options)?;
            let Some(listener) = cycle.listener(&addr) else { continue };
            let (ctx, cycle) = (Rc::clone(&ctx), Rc::clone(&cycle));
            accepting.push(tokio::task::spawn_local(async move {
                match addr {
                    ListenAddr::Inet(_) => {
                        let socket = tokio::net::TcpListener::from_std(std::net::TcpListener::from(socket))?;
                        loop {
                            let Ok((stream, remote)) = socket.accept().await else { continue };
                            let listener = cycle.route(&listener, || stream.local_addr().ok());
                            let stream = Stream::Tcp(stream);
                            tokio::task::spawn_local(serve(Rc::clone(&ctx), stream, Some(remote), listener));
                        }
                    }
                    ListenAddr::Unix(_) => {
                        let socket =
                            tokio::net::UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?;
                        loop {
                            let Ok((stream, _)) = socket.accept().await else { continue };
                            let stream = Stream::Unix(stream);
                            tokio::task::spawn_local(serve(Rc::clone(&ctx), stream, None, Rc::clone(&listener)));
                        }
                    }
                }
                #[allow(unreachable_code)]
                anyhow::Ok(())
            }));
        }
        for task in accepting {
            task.await??;
        }
        anyhow::Ok(())
    })
}
