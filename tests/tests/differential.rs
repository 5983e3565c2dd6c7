//! The same configuration and the same bytes to nginx and to dysvr-proxy: the answers must be the same. nginx is the
//! oracle; what may differ (dates, the program's own name, the ports of this test) is taken out first.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dysvr_tests::bench::installed;
use dysvr_tests::http::{Framing, read_body, read_head};
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::{MainConf, Prefix};
use dysvr_tests::proxy::{self, LIMIT, Proxy};

const VHOSTS: &str = include_str!("../fixtures/differential/vhosts.conf");

/// The two programs with the same configuration, and an origin.
struct Pair {
    ours: Proxy,
    nginx: Proxy,
    origin: Origin,
}

impl Pair {
    fn start() -> Result<Self> {
        let origin = Origin::start("o")?;
        let start = |program: &Path, ours: bool| -> Result<Proxy> {
            let prefix = Prefix::new(&MainConf { workers: 1, ours, ..MainConf::default() })?;
            let port = prefix.port.to_string();
            let text = VHOSTS.replace("PORT", &port).replace("ORIGIN", &origin.addr.to_string());
            prefix.write("auto_vhost/all.conf", &text)?;
            Proxy::start_from(program, prefix)
        };
        let nginx = start(&installed("nginx")?, false)?;
        let ours = start(&proxy::dysvr_binary()?, true)?;
        Ok(Self { ours, nginx, origin })
    }

    /// What one of the two says to some bytes, without what may differ.
    fn said(&self, proxy: &Proxy, bytes: &str) -> Result<String> {
        let port = proxy.prefix.port.to_string();
        let text = exchange(proxy.prefix.addr(), &bytes.replace("PORT", &port))?;
        Ok(text.replace(&port, "PORT").replace(&self.origin.addr.port().to_string(), "ORIGIN"))
    }

    /// Sends each request to both and lists where the answers differ.
    fn compare(&self, requests: &[String]) -> Result<()> {
        let mut differences = Vec::new();
        for request in requests {
            let (nginx, ours) = (self.said(&self.nginx, request), self.said(&self.ours, request));
            let text = |said: Result<String>| said.unwrap_or_else(|error| format!("error: {error:#}"));
            let (nginx, ours) = (text(nginx), text(ours));
            if nginx != ours {
                differences.push(format!("=== {}\n--- nginx\n{nginx}\n--- dysvr\n{ours}", shorten(request)));
            }
        }
        let log = self.ours.prefix.error_log();
        ensure!(!log.contains("[alert]"), "{log}");
        let count = differences.len();
        ensure!(count == 0, "{count} of {} answers differ:\n{}", requests.len(), differences.join("\n"));
        Ok(())
    }
}

/// Sends bytes on a connection of its own and gives all answers, until the connection is closed.
fn exchange(addr: SocketAddr, bytes: &str) -> Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(bytes.as_bytes())?;
    let mut all = Vec::new();
    // An answer that stays open, or is reset after it, is an answer.
    if let Err(error) = stream.read_to_end(&mut all) {
        ensure!(!all.is_empty() || error.kind() == std::io::ErrorKind::ConnectionReset, "no answer: {error}");
    }
    let mut rest = all.as_slice();
    let mut text = String::new();
    let method = bytes.split(' ').next().unwrap_or_default();
    while let Some(head) = read_head(&mut rest).context("an answer")? {
        let body = read_body(&mut rest, Framing::of_response(&head, method)?).context("a body")?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let shown = without_name(&body);
        // The length of a page that has the program's name in it, or would have for HEAD, is as different as the names.
        let named = shown != body || (method == "HEAD" && head.status()? >= 300);
        text.push_str(&format!("{}\n", head.start));
        let mut headers: Vec<String> = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value))
            .filter(|(name, _)| !["date", "server", "x-worker", "x-vsvc", "x-task"].contains(&name.as_str()))
            .filter(|(name, _)| !(named && name == "content-length"))
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect();
        headers.sort();
        text.extend(headers);
        text.push_str(&format!("\n{shown}\n"));
    }
    Ok(text)
}

/// The error pages end with the program's own name.
fn without_name(body: &str) -> String {
    match (body.find("<hr><center>"), body.rfind("</center>")) {
        (Some(from), Some(to)) if from < to => format!("{}<hr><center>NAME{}", &body[..from], &body[to..]),
        _ => body.to_owned(),
    }
}

fn get(host: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

fn gets(host: &str, targets: &[&str]) -> Vec<String> {
    targets.iter().map(|target| get(host, target)).collect()
}

#[test]
fn names() -> Result<()> {
    let hosts = [
        "exact.test",
        "EXACT.test",
        "exact.test.",
        "exact.test:PORT",
        "exact.test:99",
        "a.wild.test",
        "b.wild.test",
        "b.c.wild.test",
        "wild.test",
        "dot.test",
        "a.dot.test",
        "www.tail.org",
        "www.tail.co.uk",
        "tail.org",
        "abc.re.test",
        "second.re.test",
        "ABC.re.test",
        "1.re.test",
        "nothing.test",
        "",
        "127.0.0.1",
        "[::1]",
        "a_b.wild.test",
    ];
    Pair::start()?.compare(&hosts.map(|host| get(host, "/")))
}

#[test]
fn locations() -> Result<()> {
    let targets = [
        "/",
        "/?a",
        "/x",
        "/same",
        "/same/",
        "/same/x",
        "/samex",
        "/prefix",
        "/prefix/",
        "/prefix/longer",
        "/prefix/longer/x",
        "/static/a.gif",
        "/a.gif",
        "/a.jpeg",
        "/a.GIF",
        "/a.png",
        "/a.PnG",
        "/cap/word/42",
        "/cap/word/x",
        "/nested/",
        "/nested/inner/x",
        "/nested/x.txt",
        "/nested/inner/x.txt",
        "/nested/a.gif",
        "/with%20space",
        "/inside",
        "/to-inside",
        "/nothing",
        "/a/../b",
        "/a/./b",
        "//a//b",
        "/%61%62",
        "/a%2fb",
        "/a%00b",
        "/a%zz",
        "/../x",
        "/a/..",
        "/a/.",
        "/x#frag",
        "/%2e%2e/x",
        "/a%3fb?c",
        "/ä",
        "/a+b",
        "*",
        "http://loc.test/abs",
        "http://exact.test/abs",
        "x",
    ];
    Pair::start()?.compare(&gets("loc.test", &targets))
}

#[test]
fn rewrites() -> Result<()> {
    let targets = [
        "/",
        "/?a=b",
        "/server/x?y",
        "/last/x",
        "/last/x?q=1",
        "/break/y",
        "/break/y?q=1",
        "/chain",
        "/dropargs?a=b",
        "/moreargs?a=b",
        "/moreargs",
        "/redirect/a",
        "/redirect/a?b=c",
        "/permanent/a?b",
        "/absolute",
        "/absolute?a",
        "/loop",
        "/encoded/a%20b",
        "/encoded/a%3fb",
        "/enc-redirect/a%20b",
        "/enc-redirect/a%3fb%25",
        "/enc-redirect/%C3%A4",
        "/if",
        "/if?a",
        "/if?a=",
        "/if?a=0",
        "/if?a=one",
        "/if?a=two",
        "/if?a=Two",
        "/if-return",
        "/if-return?stop=1",
        "/if-return?stop=0",
        "/if-pass",
        "/if-pass?other=1",
        "/break-stops",
        "/map",
        "/map?kind=",
        "/map?kind=red",
        "/map?kind=RED",
        "/map?kind=green",
        "/map?kind=blue",
        "/map?kind=a.example",
        "/map?kind=x",
        "/tenant",
    ];
    let mut requests = gets("rw.test", &targets);
    requests
        .push("POST /if?a=one HTTP/1.1\r\nHost: rw.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned());
    Pair::start()?.compare(&requests)
}

#[test]
fn answers() -> Result<()> {
    let targets = [
        "/200",
        "/204",
        "/301",
        "/302",
        "/303",
        "/url",
        "/307",
        "/308",
        "/400",
        "/403",
        "/404",
        "/405",
        "/410",
        "/418",
        "/429",
        "/444",
        "/500",
        "/502",
        "/503",
        "/504",
        "/599",
        "/typed",
        "/own",
        "/always",
        "/not-always",
        "/vars?a=1&b=2",
        "/vars",
        "/301?a=b",
        "/unknown",
    ];
    let mut requests = gets("ret.test", &targets);
    for target in ["/200", "/404", "/301", "/204"] {
        requests.push(format!("HEAD {target} HTTP/1.1\r\nHost: ret.test\r\nConnection: close\r\n\r\n"));
        requests.push(format!("GET {target} HTTP/1.0\r\nHost: ret.test\r\n\r\n"));
    }
    requests.push(
        "GET /vars?a=x HTTP/1.1\r\nHost: RET.test:PORT\r\nX-Thing: t\r\nCookie: b=1; c=two\r\nContent-Type: a/b\r\nConnection: close\r\n\r\n"
            .to_owned(),
    );
    requests
        .push("PUT /vars HTTP/1.1\r\nHost: ret.test\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc".to_owned());
    Pair::start()?.compare(&requests)
}

#[test]
fn proxying() -> Result<()> {
    let targets = [
        "/",
        "/a/b?c=d",
        "/strip/a?b",
        "/strip/",
        "/replace/a%20b?c",
        "/noslash/a",
        "/noslashx",
        "/re/x?y",
        "/rewritten/a?b=c",
        "/variable/x?a=b",
        "/vhost/x?y",
        "/by-address/x",
        "/v11/x",
        "/headers/x?a=z",
        "/plain-host/",
        "/fails-over/a",
        "/dead/",
        "/backup/a",
        "/unbuffered/a",
        "/added/a",
        "/strip/status?code=404",
        "/strip/status?code=503",
        "/strip/bytes?n=0",
        "/strip/bytes?n=100000",
        "/v11/bytes?n=100000",
        "/strip/drip?count=3&every_ms=5",
        "/v11/drip?count=3&every_ms=5",
        "/short/drip?count=1&every_ms=1",
        "/a%2fb/../c",
        "/strip/a//b",
        "/strip/%c3%a4",
        "/added/status?code=500",
    ];
    let mut requests = gets("px.test", &targets);
    let post = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: px.test\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    requests.push(post("/", "hello"));
    requests.push(post("/small-body/", "0123456789"));
    requests.push(post("/small-body/", "0123456789a"));
    requests.push(post("/fails-over/", "hello"));
    for path in ["/", "/small-body/"] {
        requests.push(format!(
            "POST {path} HTTP/1.1\r\nHost: px.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n8\r\n, world!\r\n0\r\n\r\n"
        ));
    }
    requests.push(
        "GET /headers/ HTTP/1.1\r\nHost: px.test\r\nAccept: x\r\nX-Empty: y\r\nX-Forwarded-For: 10.0.0.1\r\nTE: trailers\r\nKeep-Alive: 5\r\nConnection: close\r\n\r\n"
            .to_owned(),
    );
    requests.push("HEAD /strip/bytes?n=10 HTTP/1.1\r\nHost: px.test\r\nConnection: close\r\n\r\n".to_owned());
    requests.push("GET / HTTP/1.0\r\nHost: px.test\r\n\r\n".to_owned());
    requests.push("GET /v11/drip?count=2&every_ms=1 HTTP/1.0\r\nHost: px.test\r\n\r\n".to_owned());
    requests.push("DELETE /x HTTP/1.1\r\nHost: px.test\r\nConnection: close\r\n\r\n".to_owned());
    requests.push("OPTIONS * HTTP/1.1\r\nHost: px.test\r\nConnection: close\r\n\r\n".to_owned());
    Pair::start()?.compare(&requests)
}

#[test]
fn messages() -> Result<()> {
    let long = "a".repeat(9000);
    let many: String = (0..40).map(|number| format!("X-{number}: {}\r\n", "b".repeat(1000))).collect();
    let requests = [
        // Two on one connection, then a pipeline.
        "GET /200 HTTP/1.1\r\nHost: ret.test\r\n\r\nGET /404 HTTP/1.1\r\nHost: ret.test\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /200 HTTP/1.0\r\nHost: ret.test\r\nConnection: keep-alive\r\n\r\nGET /200 HTTP/1.0\r\nHost: ret.test\r\n\r\n".to_owned(),
        // LF alone, empty lines before the request.
        "GET /200 HTTP/1.1\nHost: ret.test\nConnection: close\n\n".to_owned(),
        "\r\nGET /200 HTTP/1.1\r\nHost: ret.test\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /200 HTTP/1.1\r\nHost:ret.test  \r\nConnection:   close\r\n\r\n".to_owned(),
        // What is no request.
        "GET\r\n\r\n".to_owned(),
        "hello\r\n\r\n".to_owned(),
        "GET /200 HTTP/2.0\r\nHost: ret.test\r\n\r\n".to_owned(),
        "GET /200 HTTP/9.9\r\nHost: ret.test\r\n\r\n".to_owned(),
        "GET /200 HTCPCP/1.0\r\nHost: ret.test\r\n\r\n".to_owned(),
        "get /200 HTTP/1.1\r\nHost: ret.test\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /200 HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /200 HTTP/1.1\r\nHost: ret.test\r\nHost: px.test\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /200 HTTP/1.1\r\nHost: re/t.test\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /200 HTTP/1.1\r\nHost: ret.test\r\nContent-Length: x\r\n\r\n".to_owned(),
        "GET /200 HTTP/1.1\r\nHost: ret.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: px.test\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: px.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nxyz\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: px.test\r\nContent-Length: 99999999999\r\n\r\n".to_owned(),
        "CONNECT a:1 HTTP/1.1\r\nHost: px.test\r\nConnection: close\r\n\r\n".to_owned(),
        "TRACE / HTTP/1.1\r\nHost: px.test\r\nConnection: close\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nHost: ret.test\r\nConnection: close\r\n\r\n"),
        format!("GET /200 HTTP/1.1\r\nHost: ret.test\r\nX-Long: {long}\r\nConnection: close\r\n\r\n"),
        format!("GET /200 HTTP/1.1\r\nHost: ret.test\r\n{many}Connection: close\r\n\r\n"),
        // The body of a request that nobody reads must not become the next request.
        "POST /200 HTTP/1.1\r\nHost: ret.test\r\nContent-Length: 5\r\n\r\nhelloGET /404 HTTP/1.1\r\nHost: ret.test\r\nConnection: close\r\n\r\n".to_owned(),
        "POST /strip/ HTTP/1.1\r\nHost: px.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\nhello".to_owned(),
    ];
    Pair::start()?.compare(&requests)
}

/// What differs and is known to: each entry says why, and goes when it no longer differs.
#[test]
fn known_differences() -> Result<()> {
    let table = [
        // The parser that we use takes one blank between the words of the request line, and no HTTP/0.9.
        "GET  /200 HTTP/1.1\r\nHost: ret.test\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /200\r\n".to_owned(),
        // Lines that are no header are ignored where nginx refuses the request.
        "GET /200 HTTP/1.1\r\nHost: ret.test\r\nno colon\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /200 HTTP/1.1\r\nHost: ret.test\r\nBad Name: x\r\nConnection: close\r\n\r\n".to_owned(),
        // A length beside chunks is ignored, as RFC 9112 allows, where nginx refuses the request.
        "POST / HTTP/1.1\r\nHost: px.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_owned(),
        // A length where no body may be is not passed on.
        get("px.test", "/strip/status?code=204"),
        get("px.test", "/strip/status?code=304"),
    ];
    let pair = Pair::start()?;
    for request in &table {
        let (nginx, ours) = (pair.said(&pair.nginx, request), pair.said(&pair.ours, request));
        let (nginx, ours) = (nginx.unwrap_or_default(), ours.with_context(|| shorten(request))?);
        ensure!(nginx != ours, "no longer a difference: {}", shorten(request));
    }
    Ok(())
}

fn shorten(request: &str) -> String {
    let shown: String = request.chars().take(200).collect();
    if shown.len() < request.len() { format!("{shown:?} …") } else { format!("{shown:?}") }
}
