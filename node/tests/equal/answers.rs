//! What a client could tell apart: which vhost answers for each host on each address and what stands behind it; and the
//! answers themselves, by the request path of a worker.

use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use dysvr_conf::model::ListenAddr;
use dysvr_node::cycle::Cycle;
use dysvr_node::http::{Context, Stream, serve};
use dysvr_node::log::{Log, set_current};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::tls;

pub const HOSTS: [&str; 12] = [
    "a.example.com",
    "b.example.com",
    "x.b.example.com",
    "example.com",
    "z.example.com",
    "www.example.org",
    "www.example.net",
    "www.x.y",
    "",
    "_",
    "c.d.e",
    "nobody",
];

const ADDRESSES: [&str; 10] = [
    "0.0.0.0:80",
    "0.0.0.0:81",
    "127.0.0.1:80",
    "[::]:80",
    "0.0.0.0:82",
    "127.0.0.1:82",
    "[::1]:80",
    "0.0.0.0:443",
    "127.0.0.1:443",
    "0.0.0.0:8443",
];

fn addresses() -> Vec<ListenAddr> {
    let unix = ListenAddr::Unix("/run/dysvr-equal.sock".into());
    ADDRESSES.iter().map(|addr| ListenAddr::Inet(addr.parse().unwrap())).chain([unix]).collect()
}

/// Who answers, and who stands behind.
pub fn answers(cycle: &Cycle) -> String {
    let mut text = String::new();
    let main = cycle.main();
    for address in addresses() {
        let Some(listener) = cycle.listener(&address) else {
            let _ = writeln!(text, "{address} -");
            continue;
        };
        for host in HOSTS {
            let found = listener.find(cycle, host.as_bytes()).unwrap();
            let conf = &found.vhost.conf;
            let _ = write!(text, "{address} {host:?} -> {:?} by {:?}:", conf.vsvc_id, found.regex);
            for cell in &found.vhost.upstreams {
                let upstream = cell.get();
                let _ = write!(text, " {:?} keepalive {:?}", upstream.conf.peers, upstream.conf.keepalive);
            }
            let _ = write!(text, " {:?}", conf.loc.headers);
            for log in conf.loc.log.access_logs.iter() {
                let format = &main.log.formats[usize::from(log.format)];
                let _ = write!(text, " log {} {}", format.name, format.digest);
            }
            let ssl = &conf.srv.ssl;
            let _ = writeln!(text, " tls {} {:?} {:?}", listener.is_ssl(), ssl.pairs, ssl.protocols);
        }
    }
    let _ = writeln!(text, "{} vhosts, sockets {:?}", cycle.vhost_count(), cycle.sockets());
    text
}

/// The answers of a worker that runs the cycle: one connection for each address and host, two requests on each.
pub fn served(cycle: &Rc<Cycle>) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    // Origins that are not there are an answer like any other here.
    set_current(Log::nowhere());
    runtime.block_on(async {
        let context = Context::new(Rc::clone(cycle), "/etc/dysvr".into(), Default::default());
        let mut all = Vec::new();
        for address in addresses() {
            let Some(listener) = cycle.listener(&address) else {
                all.push(format!("{address} -"));
                continue;
            };
            for host in HOSTS {
                let versions: &[_] = if listener.is_ssl() { &[&TLS12, &TLS13] } else { &[&TLS13] };
                for version in versions {
                    let (client, server) = UnixStream::pair().unwrap();
                    let served = serve(Rc::clone(&context), Stream::Unix(server), None, Rc::clone(&listener));
                    tokio::task::spawn_local(served);
                    let answer = match listener.is_ssl() {
                        true => ask_tls(client, host, version).await,
                        false => ask(client, host).await,
                    };
                    all.push(format!("{address} {host} {}", answer.unwrap_or_else(|error| error.to_string())));
                }
            }
        }
        all
    })
}

/// What a connection gives: two requests for locations that answer by themselves (an origin would answer for both alike).
async fn ask(mut client: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> io::Result<String> {
    for (uri, end) in [("/a/b", "keep-alive"), ("/b.x", "close")] {
        let request = format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\nConnection: {end}\r\n\r\n");
        client.write_all(request.as_bytes()).await?;
    }
    let mut answer = Vec::new();
    let read = client.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(120), read).await.expect("an answer")?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.lines().filter(|line| !line.starts_with("Date: ")).collect::<Vec<_>>().join("\n"))
}

/// The same after a handshake, and whose certificate was shown in it.
async fn ask_tls(client: UnixStream, host: &str, version: &'static SupportedProtocolVersion) -> io::Result<String> {
    let (connector, name) = tls::client(host, &[version]);
    let stream = connector.connect(name, client).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|all| tls::shown(all.first()?));
    Ok(format!("{:?} {certificate:?}: {}", version.version, ask(stream, host).await?))
}
