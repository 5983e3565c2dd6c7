//! The same configuration and the same bytes for nginx and for us: status lines, headers, bodies, what the origin saw and
//! what the logs say must be equal but for product name, dates and ports.
//!
//! Skipped where nginx is not installed.

mod http_support;

use std::time::{Duration, Instant};

use http_support::client::{Answer, Client};
use http_support::origin::Origin;
use http_support::{PATIENCE, Proxy, free_port, nginx, ours};

const NGINX: &str = "nginx/1.22.1";

/// Requests on one connection.
type Case<'a> = &'a [&'a str];

fn normalize(text: &str, proxy: &Proxy) -> String {
    text.replace(NGINX, "PRODUCT")
        .replace(dysvr_node::http::PRODUCT, "PRODUCT")
        .replace(&format!(":{}", proxy.port), ":PORT")
        .replace(&*proxy.dir.to_string_lossy(), "DIR")
}

fn show(answer: Option<&Answer>, proxy: &Proxy) -> String {
    let Some(answer) = answer else { return "(closed)\n".to_owned() };
    let mut out = format!("{}\n", answer.line.trim_end());
    for (name, value) in &answer.headers {
        match name.as_str() {
            "date" => out.push_str("date\n"),
            _ => out.push_str(&format!("{name}: {}\n", normalize(value, proxy))),
        }
    }
    let body = normalize(&answer.text(), proxy);
    // The length of a page that names the product differs as the names do.
    let lengths = format!("content-length: {}\n", answer.body.len());
    out = out.replace(&lengths, &format!("content-length: ({})\n", body.len()));
    format!("{out}\n{body}\n")
}

fn run(proxy: &Proxy, case: Case<'_>) -> String {
    let mut client = Client::connect(proxy.port);
    let mut out = String::new();
    for request in case {
        client.send(request.replace("{PORT}", &proxy.port.to_string()).as_bytes());
        let answer = client.answer(request.split(' ').next().unwrap_or_default());
        out.push_str(&show(answer.as_ref(), proxy));
        if answer.as_ref().is_none_or(|answer| answer.header("connection") == Some("close")) {
            out.push_str(if client.is_closed() { "(closed)\n" } else { "(more)\n" });
            break;
        }
    }
    out
}

/// Compares all cases and then the logs.
fn compare(http: &str, cases: &[Case<'_>]) {
    if !nginx::is_installed() {
        eprintln!("nginx is not installed: nothing to compare with");
        return;
    }
    let origin = Origin::start();
    let words = [("ORIGIN", origin.port.to_string()), ("DEAD", free_port().to_string())];
    let (theirs, ours) = (nginx::start(http, &words), ours::start(http, &words));
    let mut wrong = String::new();
    for case in cases {
        let (expected, got) = (run(&theirs, case), run(&ours, case));
        if expected != got {
            wrong.push_str(&format!("== {case:?}\n-- nginx\n{expected}-- ours\n{got}\n"));
        }
    }
    let (expected, got) = logged(&theirs, &ours, |proxy| {
        let log = std::fs::read_to_string(proxy.dir.join("access.log")).unwrap_or_default();
        log.lines().map(|line| normalize(line, proxy)).collect()
    });
    if !expected.is_empty() {
        for (expected, got) in expected.iter().zip(&got) {
            if expected != got {
                wrong.push_str(&format!("== access.log\n-- nginx\n{expected}\n-- ours\n{got}\n"));
            }
        }
        assert_eq!(expected.len(), got.len(), "lines in access.log");
    }
    for proxy in [&theirs, &ours] {
        let log = std::fs::read_to_string(proxy.dir.join("error.log")).unwrap_or_default();
        for level in ["[alert]", "[crit]", "[emerg]"] {
            assert!(!log.contains(level), "{log}");
        }
    }
    let (expected, got) = logged(&theirs, &ours, errors);
    for at in 0..expected.len().max(got.len()) {
        let (expected, got) = (expected.get(at).map_or("", |it| it), got.get(at).map_or("", |it| it));
        if expected != got {
            wrong.push_str(&format!("== error.log\n-- nginx\n{expected}\n-- ours\n{got}\n"));
        }
    }
    let ours_log = std::fs::read_to_string(ours.dir.join("error.log")).unwrap_or_default();
    assert!(wrong.is_empty(), "{wrong}\nerror.log of ours:\n{ours_log}");
}

/// Lines that both have logged. Those of the last answer may come behind it: as many are waited for on either side.
fn logged(theirs: &Proxy, ours: &Proxy, lines: impl Fn(&Proxy) -> Vec<String>) -> (Vec<String>, Vec<String>) {
    let end = Instant::now() + PATIENCE;
    loop {
        let both = (lines(theirs), lines(ours));
        if both.0.len() == both.1.len() || Instant::now() > end {
            return both;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Lines of the error log at `warn` and worse, without time and numbers of processes and connections.
fn errors(proxy: &Proxy) -> Vec<String> {
    let log = std::fs::read_to_string(proxy.dir.join("error.log")).unwrap_or_default();
    let lines = log.lines().filter(|line| line.contains("[error]") || line.contains("[warn]"));
    // nginx looks for a file where nothing else answers.
    let lines = lines.filter(|line| !line.contains(" open() ") && !line.contains("is not found (2:"));
    let text =
        lines.map(|line| line.split_once('*').map_or(line, |(_, text)| text.split_once(' ').map_or(text, |it| it.1)));
    text.map(|text| normalize(text, proxy)).collect()
}

/// GET with a host.
fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn compare_gets(http: &str, gets: &[(&str, &str)]) {
    let requests: Vec<String> = gets.iter().map(|(host, path)| get(host, path)).collect();
    let cases: Vec<[&str; 1]> = requests.iter().map(|request| [request.as_str()]).collect();
    let cases: Vec<Case<'_>> = cases.iter().map(|case| case.as_slice()).collect();
    compare(http, &cases);
}

// No lengths where the name of the product or an early end of parsing makes them differ.
const LOG: &str = "map $status $lengths { ~^[23] '$body_bytes_sent $request_length'; default -; }
    map $status $length { ~^3 -; default $lengths; }
    log_format all '$remote_addr \"$request\" $status $length \
    $host $server_name $uri $args $request_uri $http_x_test $sent_http_content_type $request_completion';\n\
    access_log {DIR}/access.log all;\n";

#[test]
fn vhosts() {
    let http = "
        server { listen {PORT}; server_name a.test www.a.test; return 200 \"a $host $server_name\\n\"; }
        server { listen {PORT}; server_name *.b.test; return 200 \"b* $host\\n\"; }
        server { listen {PORT}; server_name www.c.*; return 200 \"c.* $host\\n\"; }
        server { listen {PORT}; server_name .d.test; return 200 \"d $host\\n\"; }
        server { listen {PORT}; server_name ~^(?<who>\\w+)\\.(e)\\.test$; return 200 \"e $who $1 $2\\n\"; }
        server { listen {PORT}; server_name \"\"; return 200 \"empty $host\\n\"; }
        server { listen {PORT} default_server; server_name _; return 200 \"default $host\\n\"; }
    ";
    let hosts = [
        "a.test",
        "A.TEST",
        "www.a.test:80",
        "a.test.",
        "x.b.test",
        "x.y.b.test",
        "b.test",
        "www.c.org",
        "www.c.a.b",
        "d.test",
        "x.d.test",
        "who.e.test",
        "Who.E.test",
        "nobody",
        "[::1]",
        "[::1]:80",
        "1.2.3.4",
    ];
    let gets: Vec<(&str, &str)> = hosts.iter().map(|host| (*host, "/")).collect();
    compare_gets(&format!("{LOG}{http}"), &gets);
}

#[test]
fn heads() {
    let http =
        "server { listen {PORT}; server_name x; location / { return 200 \"$host|$uri|$args|$request_uri\\n\"; } }";
    compare(
        // nginx logs before it has read a body that nobody wants.
        &format!("{}{http}", LOG.replace(" $request_length", "")),
        &[
            &["GET / HTTP/1.1\r\n\r\n"],
            &["GET / HTTP/1.0\r\n\r\n"],
            &["GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET /2 HTTP/1.0\r\n\r\n"],
            &["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"],
            &["GET / HTTP/1.1\r\nHost:\r\n\r\n"],
            &["GET / HTTP/1.1\r\nHost: a..b\r\n\r\n"],
            &["GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"],
            &["GET http://abs.test:81/p?q HTTP/1.1\r\nHost: other\r\n\r\n"],
            &["GET / HTTP/1.1\nHost: lf\n\n"],
            &["HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /after HTTP/1.1\r\nHost: x\r\n\r\n"],
            &[
                "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
                "GET /after HTTP/1.1\r\nHost: x\r\n\r\n",
            ],
            &[
                "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                "GET /after HTTP/1.1\r\nHost: x\r\n\r\n",
            ],
            &["CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"],
            &["TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"],
            &["GET noslash HTTP/1.1\r\nHost: x\r\n\r\n"],
            &["GET / HTTP/9.9\r\nHost: x\r\n\r\n"],
            &["GET / JUNK\r\nHost: x\r\n\r\n"],
            &["\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"],
            &["GET / HTTP/1.1\r\nHost: x\r\nX-Test: one\r\nX_Test: two\r\n\r\n"],
            &["PATCH /m HTTP/1.1\r\nHost: x\r\n\r\n"],
            &["OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"],
        ],
    );
}

/// hyper has forgotten the request line when it finds these wrong, or shows it in its own way: only the answers are equal.
#[test]
fn heads_whose_log_lines_differ() {
    let http = "server { listen {PORT}; server_name x; location / { return 200 \"$host|$uri|$request_uri\\n\"; } }";
    compare(
        http,
        &[
            &["GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n"],
            &["POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"],
            &["GET http://abs.test HTTP/1.1\r\nHost: other\r\n\r\n"],
            &["GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"],
        ],
    );
}

#[test]
fn paths() {
    let http =
        "server { listen {PORT}; location / { return 200 \"$uri|$args|$request_uri|$is_args|$document_uri\\n\"; } }";
    let paths = [
        "/",
        "/a//b",
        "/a/./b",
        "/a/../b",
        "/..",
        "/%2e%2e/x",
        "/a%2fb",
        "/a%20b?c%20d",
        "/a?b?c",
        "/?",
        "/a%3fb",
        "/%",
        "/%zz",
        "/a+b",
        "/a/..",
        "/a/.",
        "/%00",
        "/a;b=c",
        "/~x",
        "/a%C3%A4",
    ];
    let gets: Vec<(&str, &str)> = paths.iter().map(|path| ("x", *path)).collect();
    compare_gets(&format!("{LOG}{http}"), &gets);
}

#[test]
fn locations() {
    let http = "
        server { listen {PORT};
            location / { return 200 root; }
            location = / { return 200 exact-root; }
            location = /exact { return 200 exact; }
            location /exact { return 200 prefix-exact; }
            location /img/ { return 200 img; }
            location ^~ /static/ { return 200 static; }
            location ~ \\.(png|gif)$ { return 200 \"re-$1\"; }
            location ~* \\.JPG$ { return 200 re-jpg; }
            location ~ ^/(?<first>[a-z]+)/named$ { return 200 \"named-$first\"; }
            location /nest/ { return 200 nest;
                location /nest/in/ { return 200 nest-in; }
                location ~ \\.x$ { return 200 nest-x; } }
            location /hidden { internal; return 200 hidden; }
            location /slash/ { proxy_pass http://127.0.0.1:{ORIGIN}; }
            location /none { }
        }";
    let paths = [
        "/",
        "/x",
        "/exact",
        "/exactly",
        "/exact/",
        "/img/a",
        "/img/a.png",
        "/static/a.png",
        "/a.gif?x",
        "/A.jpg",
        "/abc/named",
        "/nest/",
        "/nest/in/a",
        "/nest/a.x",
        "/nest/in/a.x",
        "/nest/a.png",
        "/hidden",
        "/hidden/x",
        "/slash",
        "/slash?a=b",
        "/none",
        "/none/",
        "/page.html",
    ];
    let gets: Vec<(&str, &str)> = paths.iter().map(|path| ("x", *path)).collect();
    compare_gets(&format!("{LOG}{http}"), &gets);
}

#[test]
fn rewrites() {
    let http = "
        map $arg_m $mapped { default none; a one; ~^b(?<rest>.*)$ \"two-$rest\"; 'C' three; }
        map $host $by_host { hostnames; default d; .m.test wild; www.n.* trail; exact.test e; }
        server { listen {PORT}; server_name x;
            set $top srv;
            if ($arg_top) { set $top $arg_top; }
            rewrite ^/server/(.*)$ /loc/$1;
            if ($http_x_block = yes) { return 403; }
            location /loc/ { return 200 \"loc $uri $args $top\\n\"; }
            location /last/ { rewrite ^/last/(.*)$ /loc/last-$1 last; return 200 no; }
            location /break/ { rewrite ^/break/(.*)$ /broken/$1 break; return 200 \"$uri\\n\"; }
            location /plain/ { rewrite ^/plain/(.*)$ /loc/$1; set $top later; }
            location /redir/ { rewrite ^/redir/(.*)$ /to/$1 redirect; }
            location /perm/ { rewrite ^/perm/(.*)$ /to/$1?x=1 permanent; }
            location /perm2/ { rewrite ^/perm2/(.*)$ /to/$1? permanent; }
            location /abs/ { rewrite ^/abs/(.*)$ http://other.test/$1; }
            location /args/ { rewrite ^/args/(.*)$ /loc/args?a=$1&b=2 last; }
            location /noargs/ { rewrite ^/noargs/(.*)$ /loc/noargs? last; }
            location /loop { rewrite ^ /loop last; }
            location /map { return 200 \"$mapped $by_host\\n\"; }
            location /if {
                set $r none;
                if ($arg_a = 1) { set $r one; }
                if ($arg_a != 1) { set $r \"${r}-not\"; }
                if ($arg_b ~ ^(.)x) { set $r \"$r-re-$1\"; }
                if ($arg_b !~* ^Y) { set $r \"$r-nre\"; }
                if (-f /etc/passwd) { set $r \"$r-file\"; }
                if (!-e /nowhere) { set $r \"$r-noent\"; }
                if (-d /etc) { set $r \"$r-dir\"; }
                if ($arg_c) { return 201 \"created $r\\n\"; }
                if ($arg_d) { break; }
                return 200 \"$r\\n\";
            }
            location /unset { set $u \"\"; return 200 \"[$u]\\n\"; }
            location /setargs { set $args \"n=1\"; return 200 \"$args $arg_n $query_string\\n\"; }
            location /r301 { return 301 /moved; }
            location /r302 { return 302 http://o.test/m?$args; }
            location /r303 { return 303 moved; }
            location /r307 { return 307 https://$host$request_uri; }
            location /r308 { return 308 /x; }
            location /r200 { return 200; }
            location /r204 { return 204; }
            location /r400 { return 400; }
            location /r404t { return 404 \"text\\n\"; }
            location /r418 { return 418; }
            location /r444 { return 444; }
            location /r500 { return 500; }
            location /r503 { return 503; }
            location /url { return http://other.test$uri; }
            location /type.gif { return 200 gif; }
            location /dt { default_type application/json; return 200 \"{}\"; }
            location /add { add_header X-A \"$uri\"; add_header X-B b always; add_header X-Empty \"\"; return 404; }
            location /add2 { add_header X-A \"$sent_http_content_type\"; add_header X-A again; return 200 x; }
        }
        server { listen {PORT}; server_name srv.test; if ($uri ~ ^/if(.*)) { return 200 \"if $1\\n\"; } return 302 /all; }
    ";
    let paths = [
        "/server/a?b=1",
        "/last/a",
        "/last/a?q=2",
        "/break/a",
        "/plain/x",
        "/redir/a%20b?c",
        "/redir/%D0%B0",
        "/perm/a?y=2",
        "/perm/a",
        "/perm2/a?y=2",
        "/abs/p?q=1",
        "/args/1?z=9",
        "/args/a%26b",
        "/noargs/1?z=9",
        "/loop",
        "/map?m=a",
        "/map?m=bxy",
        "/map?m=c",
        "/map?m=z",
        "/if",
        "/if?a=1",
        "/if?a=1&b=zx1",
        "/if?b=Yx",
        "/if?c=1",
        "/if?c=0",
        "/if?d=1",
        "/unset",
        "/setargs?n=2",
        "/r301",
        "/r302?a=b",
        "/r303",
        "/r307?x",
        "/r308",
        "/r200",
        "/r204",
        "/r400",
        "/r404t",
        "/r418",
        "/r444",
        "/r500",
        "/r503",
        "/url/x",
        "/type.gif",
        "/dt",
        "/add",
        "/add2",
        "/loc/z?top=arg",
        "/nothing-here-at-all/x",
    ];
    let mut gets: Vec<(&str, &str)> = paths.iter().map(|path| ("x", *path)).collect();
    gets.extend([
        ("srv.test", "/ifx"),
        ("srv.test", "/other"),
        ("a.m.test", "/map"),
        ("m.test", "/map"),
        ("www.n.org", "/map"),
        ("EXACT.test", "/map"),
    ]);
    compare_gets(&format!("{LOG}{http}"), &gets);
}

#[test]
fn proxying() {
    let http = "
        upstream up { server 127.0.0.1:{ORIGIN}; keepalive 4; }
        server { listen {PORT}; server_name x;
            location / { proxy_pass http://up; }
            location /uri/ { proxy_pass http://up/base/; }
            location /uri2 { proxy_pass http://up/base; }
            location /v11/ { proxy_pass http://up/; proxy_http_version 1.1; proxy_set_header Connection \"\"; }
            location /set/ { proxy_pass http://up; proxy_set_header Host $host; proxy_set_header X-Real $remote_addr;
                proxy_set_header X-Fwd $proxy_add_x_forwarded_for; proxy_set_header Accept \"\"; proxy_set_header X-Empty \"\"; }
            location ~ ^/re/(.*)$ { proxy_pass http://up; }
            location /rw/ { rewrite ^/rw/(.*)$ /rewritten/$1?r=1 break; proxy_pass http://up; }
            location /rwuri/ { rewrite ^/rwuri/(.*)$ /rewritten/$1 break; proxy_pass http://up/ignored/; }
            location /var/ { set $where up; proxy_pass http://$where; }
            location /varuri/ { set $where up; proxy_pass http://$where/fixed$is_args$args; }
            location /varip/ { set $p {ORIGIN}; proxy_pass http://127.0.0.1:$p; }
            location /hide/ { proxy_pass http://up/; proxy_hide_header X-Powered-By; }
            location /small/ { client_max_body_size 10; proxy_pass http://up; }
            location /direct/ { proxy_pass http://127.0.0.1:{ORIGIN}/; }
            location /add/ { proxy_pass http://up/; add_header X-Up \"$upstream_status $upstream_http_x_keep\"; }
            location /off/ { proxy_pass http://up/; proxy_buffering off; }
            location /if/ { if ($arg_x) { proxy_pass http://up; } return 200 no; }
            location /internal/ { internal; return 200 \"internal $uri $args\\n\"; }
            location @named { return 200 \"named $uri\\n\"; }
        }";
    // Two things of nginx that we do not copy are left out: it ends the connection when the origin sends 103 first, and it
    // counts chunk sizes as part of what the origin sent.
    let paths = [
        "/echo",
        "/echo?a=b&c",
        "/a%20b//c?d",
        "/uri/x?y=1",
        "/uri/a%20b",
        "/uri2x",
        "/uri/../z",
        "/v11/echo",
        "/set/x",
        "/re/x%41?z",
        "/rw/x?q=2",
        "/rwuri/y",
        "/var/x%20y?q",
        "/varuri/z?q=1",
        "/varip/x",
        "/v11/status/404",
        "/v11/status/500",
        "/v11/status/201",
        "/v11/chunked",
        "/v11/lf",
        "/v11/nolen",
        "/v11/headers",
        "/hide/headers",
        "/uri/redirect",
        "/redirect",
        "/relative",
        "/v11/accel",
        "/v11/named",
        "/v11/nocontent",
        "/v11/notmodified",
        "/direct/echo",
        "/add/headers",
        "/off/chunked",
        "/off/big/100000",
        "/v11/big/300000",
        "/if/a?x=1",
        "/if/a",
        "/internal/x",
    ];
    let mut requests: Vec<String> = paths.iter().map(|path| get("x", path)).collect();
    for extra in [
        "HEAD /v11/headers HTTP/1.1\r\nHost: x\r\n\r\n",
        "HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v11/chunked HTTP/1.0\r\nHost: x\r\n\r\n",
        "GET /v11/nolen HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
        "POST /set/p HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Type: t/x\r\n\r\nbody",
        "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        "POST /v11/p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "PUT /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /small/ok HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789",
        "POST /small/no HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n01234567890",
        "POST /small/no HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n",
        "GET /h HTTP/1.1\r\nHost: X.y:99\r\nAccept: */*\r\nTE: trailers\r\nKeep-Alive: 3\r\nConnection: close, x-foo\r\nUpgrade: h2c\r\nX-Foo: 1\r\nX_Under: 2\r\nX-Forwarded-For: 9.9.9.9\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
        "GET /set/x HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9\r\nAccept: a\r\n\r\n",
        "DELETE /d HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x/abs?a HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        requests.push(extra.to_owned());
    }
    let cases: Vec<[&str; 1]> = requests.iter().map(|request| [request.as_str()]).collect();
    let cases: Vec<Case<'_>> = cases.iter().map(|case| case.as_slice()).collect();
    let log = "map $uri $length { ~chunked$ -; default $lengths; }
        map $uri $up_length { ~chunked$ -; default $upstream_response_length; }
        map $status $lengths { ~^2 $body_bytes_sent; default -; }
        log_format up '$request $status $upstream_addr $upstream_status $up_length $proxy_host $proxy_port $length';
        access_log {DIR}/access.log up;\n";
    compare(&format!("{log}{http}"), &cases);
}

#[test]
fn failures() {
    let http = "
        upstream dead { server 127.0.0.1:{DEAD}; }
        upstream two { server 127.0.0.1:{DEAD}; server 127.0.0.1:{ORIGIN}; }
        upstream down { server 127.0.0.1:{ORIGIN} down; server 127.0.0.1:{DEAD} down; }
        upstream backup { server 127.0.0.1:{DEAD} max_fails=1; server 127.0.0.1:{ORIGIN} backup; }
        upstream same { server 127.0.0.1:{ORIGIN}; server 127.0.0.1:{ORIGIN}; }
        server { listen {PORT}; server_name x;
            location /dead/ { proxy_pass http://dead/; }
            location /two/ { proxy_pass http://two/; }
            location /down/ { proxy_pass http://down/; }
            location /backup/ { proxy_pass http://backup/; }
            location /same/ { proxy_pass http://same/; proxy_next_upstream error timeout http_500 http_404; }
            location /non/ { proxy_pass http://same/; proxy_next_upstream error http_503 non_idempotent; }
            location /off/ { proxy_pass http://same/; proxy_next_upstream off; }
            location /one/ { proxy_pass http://127.0.0.1:{ORIGIN}/; proxy_read_timeout 100ms; }
            location /nores/ { set $h nobody.invalid; proxy_pass http://$h; }
        }";
    let log = "log_format up '$request $status $upstream_status';
        access_log {DIR}/access.log up;\n";
    let paths = [
        "/dead/x",
        "/dead/y",
        "/two/a",
        "/two/b",
        "/down/x",
        "/backup/x",
        "/backup/y",
        "/same/status/500",
        "/same/status/404",
        "/same/close",
        "/non/status/503",
        "/off/close",
        "/one/close",
        "/one/slow/1000",
        "/one/half-head",
        "/nores/x",
    ];
    let mut requests: Vec<String> = paths.iter().map(|path| get("x", path)).collect();
    requests.push("POST /same/close HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx".to_owned());
    requests.push("POST /same/status/500 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx".to_owned());
    requests.push("POST /non/status/503 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx".to_owned());
    requests.push("POST /two/p HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx".to_owned());
    let cases: Vec<[&str; 1]> = requests.iter().map(|request| [request.as_str()]).collect();
    let cases: Vec<Case<'_>> = cases.iter().map(|case| case.as_slice()).collect();
    compare(&format!("{log}{http}"), &cases);
}
