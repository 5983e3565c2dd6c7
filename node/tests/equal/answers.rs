//! What a client could tell apart: which vhost answers for each host on each address and what stands behind it; and the
//! answers themselves, by the request path of a worker.

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use dysvr_conf::model::ListenAddr;
use dysvr_node::cycle::Cycle;
use dysvr_node::http::{Context, Stream, serve};
use dysvr_node::log::{Log, set_current};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const HOSTS: [&str; 12] = [
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

const ADDRESSES: [&str; 7] =
    ["0.0.0.0:80", "0.0.0.0:81", "127.0.0.1:80", "[::]:80", "0.0.0.0:82", "127.0.0.1:82", "[::1]:80"];

fn addresses() -> Vec<ListenAddr> {
    let unix = ListenAddr::Unix("/run/dysvr-equal.sock".into());
    ADDRESSES.iter().map(|addr| ListenAddr::Inet(addr.parse().unwrap())).chain([unix]).collect()
}

/// Who answers, and who stands behind.
pub fn answers(cycle: &Cycle) -> String {
    let mut text = String::new();
    for address in addresses() {
        let Some(listener) = cycle.listener(&address) else {
            let _ = writeln!(text, "{address} -");
            continue;
        };
        for host in HOSTS {
            let found = listener.find(host.as_bytes()).unwrap();
            let conf = &found.vhost.conf;
            let _ = write!(text, "{address} {host:?} -> {:?} by {:?}:", conf.vsvc_id, found.regex);
            for cell in &found.vhost.upstreams {
                let upstream = cell.get();
                let _ = write!(text, " {:?} keepalive {:?}", upstream.conf.peers, upstream.conf.keepalive);
            }
            let _ = writeln!(text, " {:?}", conf.loc.headers);
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
                let (mut client, server) = UnixStream::pair().unwrap();
                let served = serve(Rc::clone(&context), Stream::Unix(server), None, Rc::clone(&listener));
                tokio::task::spawn_local(served);
                // Locations that answer by themselves: an origin would answer for both alike.
                for (uri, end) in [("/a/b", "keep-alive"), ("/b.x", "close")] {
                    let request = format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\nConnection: {end}\r\n\r\n");
                    client.write_all(request.as_bytes()).await.unwrap();
                }
                let mut answer = Vec::new();
                let read = client.read_to_end(&mut answer);
                tokio::time::timeout(Duration::from_secs(30), read).await.expect("an answer").unwrap();
                let answer = String::from_utf8_lossy(&answer);
                let lines = answer.lines().filter(|line| !line.starts_with("Date: "));
                all.push(format!("{address} {host}: {}", lines.collect::<Vec<_>>().join("\n")));
            }
        }
        all
    })
}
