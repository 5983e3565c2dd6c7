//! The controller: serves nodes and operators from a store.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use dysvr_conf::bundle::Assumptions;
use dysvr_controller::{server, store};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Keeps the revisions of a fleet's configuration and rolls them out to its nodes.
#[derive(Debug, Parser)]
#[command(name = "dysvr-controller", version)]
struct Args {
    /// Where nodes and operators reach it
    #[arg(long, env = "DYSVR_LISTEN", default_value = "127.0.0.1:7480")]
    listen: SocketAddr,

    /// Where its state is: file:PATH (one controller) or etcd://HOST:PORT,HOST:PORT (several)
    #[arg(long, env = "DYSVR_STORE", default_value = "file:/var/lib/dysvr/controller.redb")]
    store: String,

    /// Its name among the controllers [default: the host's name]
    #[arg(long, env = "DYSVR_NAME")]
    name: Option<String>,

    /// The address that it tells those who ask while another one leads [default: --listen]
    #[arg(long, env = "DYSVR_ADVERTISE")]
    advertise: Option<String>,

    /// Where nodes' nginx.conf includes the vhosts from
    #[arg(long, env = "DYSVR_INCLUDE", default_value = "auto_vhost/*.conf")]
    include: String,

    /// A file with the other directives of nodes' http {}, which vhosts may refer to: log formats, maps
    #[arg(long, env = "DYSVR_HTTP", value_name = "FILE")]
    http: Option<PathBuf>,

    /// What to log, as `level` or `target=level,…`
    #[arg(long, env = "DYSVR_LOG", default_value = "info")]
    log: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_new(&args.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    // Before the first slow step: a TERM during it must not be lost.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
    };
    let http = match &args.http {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => String::new(),
    };
    let assumptions = Assumptions { include: args.include, http };
    let store = store::open(&args.store).await?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    let me = store::Candidate {
        name: args.name.unwrap_or_else(host_name),
        address: args.advertise.unwrap_or_else(|| address.to_string()),
    };
    tracing::info!(%address, store = args.store, name = me.name, "listening");
    server::serve(store, me, assumptions, listener, stop).await
}

/// The host's name as the kernel has it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "controller".to_owned() } else { name.to_owned() }
}
