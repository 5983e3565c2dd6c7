//! What the request path does over time: connections that are kept, closed, switched, slow or cut. Real sockets; nothing
//! waits for a time, only for conditions, and what must not be over too soon takes seconds.

mod http_support;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use http_support::client::{Client, ask, get};
use http_support::origin::Origin;
use http_support::{PATIENCE, Proxy, ours, wait_for};

const KEEP: &str = "
    upstream up { server 127.0.0.1:{ORIGIN}; keepalive 2; }
    proxy_http_version 1.1; proxy_set_header Connection \"\";
    log_format f '$request|$status|$body_bytes_sent|$upstream_status|$request_completion';
    access_log {DIR}/access.log f;
";

fn start(origin: &Origin, http: &str) -> Proxy {
    ours::start(&format!("{KEEP}{http}"), &[("ORIGIN", origin.port.to_string())])
}

const PLAIN: &str = "server { listen {PORT}; location / { proxy_pass http://up; } }";

#[test]
fn connections_to_peers_are_kept_and_reused() {
    let origin = Origin::start();
    let proxy = start(&origin, PLAIN);
    for _ in 0..20 {
        assert_eq!(get(proxy.port, "x", "/echo").status(), 200);
    }
    assert_eq!(origin.connections.load(SeqCst), 1);
    // Five at once need five, of which two stay.
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| assert_eq!(get(proxy.port, "x", "/slow/2000").status(), 200));
        }
    });
    let made = origin.connections.load(SeqCst);
    wait_for("all but two connections closed", || origin.closed.load(SeqCst) + 2 == made);
    for _ in 0..10 {
        assert_eq!(get(proxy.port, "x", "/echo").status(), 200);
    }
    assert_eq!(origin.connections.load(SeqCst), made);
}

#[test]
fn a_peer_that_closes_an_idle_connection_is_noticed() {
    let origin = Origin::start();
    let proxy = start(&origin, PLAIN);
    for round in 1..=3 {
        assert_eq!(get(proxy.port, "x", "/once/20").text(), "once");
        wait_for("the origin has closed", || origin.closed.load(SeqCst) == round);
        assert_eq!(origin.connections.load(SeqCst), round);
    }
    // Whatever the order of the two events: no request sees it.
    for _ in 0..50 {
        assert_eq!(get(proxy.port, "x", "/once/0").text(), "once");
    }
}

#[test]
fn a_request_on_a_connection_that_was_just_closed_is_sent_again() {
    let origin = Origin::start();
    let proxy = start(&origin, PLAIN);
    assert_eq!(get(proxy.port, "x", "/cut").text(), "cut");
    assert_eq!(get(proxy.port, "x", "/cut").text(), "cut");
    assert_eq!((origin.connections.load(SeqCst), origin.requests.load(SeqCst)), (2, 3));
    // But not one that may have had an effect.
    let post = "POST /cut HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    assert_eq!(ask(proxy.port, post).unwrap().status(), 502);
    assert_eq!(ask(proxy.port, post).unwrap().status(), 200);
}

#[test]
fn a_switch_of_protocols_makes_a_tunnel() {
    let origin = Origin::start();
    let http = "server { listen {PORT}; location / { proxy_pass http://up;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; } }";
    let proxy = start(&origin, http);
    let mut client = Client::connect(proxy.port);
    // The first line comes with the head.
    client.send(b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\nearly\n");
    let answer = client.answer("GET").unwrap();
    assert_eq!(answer.line, "HTTP/1.1 101 Switching Protocols");
    assert_eq!((answer.header("upgrade"), answer.header("connection")), (Some("test"), Some("upgrade")));
    assert_eq!(client.line().as_deref(), Some("hello"));
    assert_eq!(client.line().as_deref(), Some("EARLY"));
    for i in 0..10 {
        client.send(format!("line {i}\n").as_bytes());
        assert_eq!(client.line(), Some(format!("LINE {i}")));
    }
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.line().as_deref(), Some("bye"), "the other direction stays open");
    assert!(client.is_closed());
    assert_eq!(proxy.log("access.log", 1)[0], "GET /upgrade HTTP/1.1|101|86|101|OK");
}

#[test]
fn what_the_peer_does_not_finish_the_client_does_not_take_for_finished() {
    let origin = Origin::start();
    let proxy = start(&origin, PLAIN);
    for path in ["/early", "/nolen"] {
        let mut client = Client::connect(proxy.port);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let answer = client.answer("GET");
        match path {
            "/early" => assert_eq!(answer.unwrap().text(), "only this", "and then the end"),
            _ => assert_eq!(answer.unwrap().text(), "until the end"),
        }
        if path == "/early" {
            assert!(client.is_closed());
        }
    }
    let lines = proxy.log("access.log", 2);
    assert_eq!(lines[0], "GET /early HTTP/1.1|200|9|200|");
    let errors = proxy.log("error.log", 1);
    assert!(errors[0].contains("upstream prematurely closed connection while reading upstream"), "{errors:?}");
}

#[test]
fn a_peer_that_pauses_too_long_in_its_body_is_cut_off() {
    let origin = Origin::start();
    let http = "server { listen {PORT}; location / { proxy_pass http://up; proxy_read_timeout 3s; } }";
    let proxy = start(&origin, http);
    let begin = Instant::now();
    let mut client = Client::connect(proxy.port);
    client.send(b"GET /pause/600000 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer("GET").unwrap().text(), "ab");
    assert!(client.is_closed());
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(3) && took < PATIENCE, "{took:?}");
    assert_eq!(get(proxy.port, "x", "/slow/600000").status(), 504);
    assert_eq!(get(proxy.port, "x", "/pause/20").text(), "abcd");
}

#[test]
fn a_client_that_goes_takes_its_request_along() {
    let origin = Origin::start();
    let proxy = start(&origin, PLAIN);
    let mut client = Client::connect(proxy.port);
    client.send(b"GET /slow/4000 HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the origin has the request", || origin.requests.load(SeqCst) == 1);
    drop(client);
    assert_eq!(proxy.log("access.log", 1)[0], "GET /slow/4000 HTTP/1.1|499|0|-|");
    wait_for("the connection to the origin is closed", || origin.closed.load(SeqCst) == 1);
}

#[test]
fn bodies_of_requests() {
    let origin = Origin::start();
    let http = "server { listen {PORT}; client_max_body_size 8m; location / { proxy_pass http://up; } }";
    let proxy = start(&origin, http);
    for length in [0_usize, 1, 16_384, 16_385, 100_000, 5_000_000] {
        let mut client = Client::connect(proxy.port);
        client.send(format!("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        client.send(&vec![b'a'; length]);
        let answer = client.answer("POST").unwrap();
        assert!(answer.text().contains(&format!("({length} bytes)")), "{length}: {}", answer.text());
        // The connection goes on.
        client.send(b"GET /after HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer("GET").unwrap().status(), 200);
    }
    // The client is told to go on, and only then sends.
    let mut client = Client::connect(proxy.port);
    client.send(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.line().as_deref(), Some("HTTP/1.1 100 Continue"));
    assert_eq!(client.line().as_deref(), Some(""));
    client.send(b"body");
    assert!(client.answer("POST").unwrap().text().contains("(4 bytes)\nbody"));
    // Too large: refused before it is sent, and the answer arrives although the client goes on sending.
    let mut client = Client::connect(proxy.port);
    client.send(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n");
    client.send(&vec![b'a'; 1_000_000]);
    assert_eq!(client.answer("POST").unwrap().status(), 413);
}

#[test]
fn a_slow_client_does_not_hold_the_peer() {
    let origin = Origin::start();
    let http = "server { listen {PORT};
        location / { proxy_pass http://up; }
        location /off/ { proxy_pass http://up/; proxy_buffering off; } }";
    let proxy = start(&origin, http);
    const LENGTH: usize = 30_000_000;
    let check = |client: &mut Client| {
        let answer = client.answer("GET").unwrap();
        assert_eq!(answer.body.len(), LENGTH);
        let right = answer.body.chunks(65536).all(|chunk| chunk.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
        assert!(right, "the bytes are in order");
    };
    let mut client = Client::connect(proxy.port);
    client.send(format!("GET /big/{LENGTH} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    wait_for("the origin is done while the client has read nothing", || origin.delivered.load(SeqCst) == 1);
    check(&mut client);
    // Without buffering the origin waits for the client.
    let mut client = Client::connect(proxy.port);
    client.send(format!("GET /off/big/{LENGTH} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    wait_for("the origin has the request", || origin.requests.load(SeqCst) == 2);
    check(&mut client);
    wait_for("the origin is done", || origin.delivered.load(SeqCst) == 2);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start();
    let proxy = start(
        &origin,
        "server { listen {PORT}; location / { return 200 $uri; } location /p { proxy_pass http://up; } }",
    );
    let mut client = Client::connect(proxy.port);
    let paths = ["/1", "/p/echo", "/2", "/p/chunked", "/3"];
    let all: String = paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    client.send(all.as_bytes());
    for path in paths {
        let text = client.answer("GET").unwrap().text();
        assert!(text.contains(path), "{path}: {text}");
    }
    assert_eq!(proxy.log("access.log", 5)[4], "GET /3 HTTP/1.1|200|2|-|OK");
}

#[test]
fn heads_that_are_too_large() {
    let origin = Origin::start();
    let proxy = start(&origin, "server { listen {PORT}; return 200 ok; }");
    let long = "a".repeat(9000);
    let table = [
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", long.repeat(6)), 414),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", format!("X-A: {}\r\n", &long[..7000]).repeat(6)), 400),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", &long[..8000], &long[..8000]), 200),
    ];
    for (request, status) in table {
        let answer = ask(proxy.port, &request).unwrap();
        assert_eq!(answer.status(), status, "{}…", &request[..60]);
        if status == 400 {
            assert!(answer.text().contains("Request Header Or Cookie Too Large"));
        }
    }
}

#[test]
fn idle_connections_end_in_time() {
    let origin = Origin::start();
    let http = "server { listen {PORT}; keepalive_requests 3; location / { proxy_pass http://up; }
        location /short { keepalive_timeout 150ms 7; proxy_pass http://up; }
        location /close { keepalive_timeout 0; return 200 x; } }";
    let proxy = start(&origin, http);
    let begin = Instant::now();
    let mut client = Client::connect(proxy.port);
    client.send(b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.answer("GET").unwrap();
    assert_eq!((answer.header("keep-alive"), answer.header("connection")), (Some("timeout=7"), Some("keep-alive")));
    assert!(client.is_closed());
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(150) && took < PATIENCE, "{took:?}");

    let mut client = Client::connect(proxy.port);
    for expected in ["keep-alive", "keep-alive", "close"] {
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer("GET").unwrap().header("connection"), Some(expected));
    }
    assert!(client.is_closed());
    assert_eq!(get(proxy.port, "x", "/close").header("connection"), Some("close"));
}

#[test]
fn a_drain_ends_idle_connections_at_once_and_active_ones_after_their_answer() {
    let origin = Origin::start();
    let mut proxy = start(&origin, PLAIN);
    let mut idle = Client::connect(proxy.port);
    idle.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.answer("GET").unwrap().header("connection"), Some("keep-alive"));
    let mut active = Client::connect(proxy.port);
    active.send(b"GET /slow/3000 HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the origin has it", || origin.requests.load(SeqCst) == 2);
    ours::drain(&mut proxy);
    assert!(idle.is_closed());
    let answer = active.answer("GET").unwrap();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("slow", Some("close")));
    assert!(active.is_closed());
    ours::wait_for_end(&mut proxy);
}

#[test]
fn answers_before_the_answer_are_not_the_answer() {
    let origin = Origin::start();
    let proxy = start(&origin, PLAIN);
    assert_eq!(get(proxy.port, "x", "/hints").text(), "final");
}

#[test]
fn access_logs_are_buffered_escaped_and_conditional() {
    let origin = Origin::start();
    let http = "
        map $status $bad { ~^[45] 1; default 0; }
        log_format j escape=json '{\"ua\":\"$http_user_agent\",\"x\":\"$http_x\"}';
        log_format n escape=none '$http_user_agent';
        log_format d '$http_user_agent $http_x';
        server { listen {PORT};
            access_log {DIR}/json.log j; access_log {DIR}/none.log n; access_log {DIR}/default.log d;
            access_log {DIR}/bad.log combined if=$bad;
            access_log {DIR}/buffered.log f buffer=4k flush=50ms;
            location / { return 200 x; } location /bad { return 404; } location /off { access_log off; return 200 x; } }";
    let proxy = start(&origin, http);
    let agent = "a\"b\\c\td\u{e4}";
    for path in ["/", "/bad", "/off"] {
        ask(proxy.port, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"))
            .unwrap();
    }
    assert_eq!(proxy.log("json.log", 2)[0], "{\"ua\":\"a\\\"b\\\\c\\td\u{e4}\",\"x\":\"\"}");
    assert_eq!(proxy.log("none.log", 2)[0], agent);
    assert_eq!(proxy.log("default.log", 2)[0], "a\\x22b\\x5Cc\\x09d\\xC3\\xA4 -");
    let bad = proxy.log("bad.log", 1);
    assert!(bad.len() == 1 && bad[0].contains("\"GET /bad HTTP/1.1\" 404"), "{bad:?}");
    assert_eq!(proxy.log("buffered.log", 2)[0], "GET / HTTP/1.1|200|1|-|OK");
}

#[test]
fn garbage_never_harms() {
    let origin = Origin::start();
    let proxy = start(&origin, PLAIN);
    let seed = 0xdead_beef_u64;
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let good = b"POST /a/../b?c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for _ in 0..300 {
        let mut bytes = good.to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len() as u64) as usize;
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let mut client = Client::connect(proxy.port);
        client.send(&bytes);
        let _ = client.stream().shutdown(Shutdown::Write);
        let _ = client.read_to_end();
    }
    assert_eq!(get(proxy.port, "x", "/echo").status(), 200, "seed {seed:x}");
    let log = std::fs::read_to_string(proxy.dir.join("error.log")).unwrap();
    assert!(!["[alert]", "[crit]", "[emerg]"].iter().any(|level| log.contains(level)), "{log}");
}

#[test]
fn bytes_that_come_one_by_one_make_a_request() {
    let origin = Origin::start();
    let proxy = start(&origin, PLAIN);
    let mut client = Client::connect(proxy.port);
    for byte in b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" {
        client.send(&[*byte]);
    }
    assert!(client.answer("POST").unwrap().text().ends_with("(5 bytes)\nhello"));
    let mut stream = client.stream();
    stream.write_all(b"GET /x HTTP/1.0\n\n").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200 OK\r\n"));
}
