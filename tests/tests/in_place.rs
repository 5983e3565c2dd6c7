//! The in-place update as the original does it: a task line by hand, `kill -43`, a verdict in the file, and every worker
//! asked by its pid. And each way in which a task is refused, after which nothing has changed.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use dysvr_tests::client::{self, Connection, Reply};
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::{MainConf, Prefix};
use dysvr_tests::proxy::{self, LIMIT, Proxy};
use dysvr_tests::task::{Kind, Line, Verdict};
use dysvr_tests::verify::verify;
use dysvr_tests::{ports, seed, wait};

/// A vhost that passes to an upstream.
fn vhost(vsvc_id: u64, port: u16, name: &str, upstream: &str) -> String {
    format!(
        "server {{\n    vsvc_id {vsvc_id};\n    listen 127.0.0.1:{port};\n    server_name {name};\n    \
         location / {{ proxy_pass http://{upstream}; }}\n}}\n"
    )
}

fn upstream(name: &str, origin: &Origin) -> String {
    format!("upstream {name} {{ server {}; }}\n", origin.addr)
}

fn start() -> Result<(Proxy, Origin)> {
    let proxy = Proxy::start(&MainConf::default())?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    Ok((proxy, Origin::start("one")?))
}

/// The task is done, and what runs is what the files would start.
fn done(proxy: &Proxy, verdict: &Verdict) -> Result<()> {
    ensure!(verdict.done, "the task failed: {}", verdict.line.reason());
    verify(proxy).map(drop)
}

/// Every worker answers with that status, and the body holds the text.
fn everywhere(proxy: &Proxy, host: &str, status: u16, text: &str) -> Result<Vec<Reply>> {
    let answers = proxy.ask_every_worker(host, "/")?;
    ensure!(answers.len() == proxy.workers().len());
    for reply in &answers {
        let right = reply.status == status && reply.text().contains(text);
        ensure!(right, "worker {:?} answers {} {:?} for {host}", reply.worker(), reply.status, reply.text());
    }
    Ok(answers)
}

#[test]
fn the_seeds_vhost_is_added_by_the_seeds_own_task() -> Result<()> {
    let origin = Origin::start("seed")?;
    let proxy = Proxy::start(&MainConf { wide: true, ..MainConf::default() })?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    let (prefix, workers) = (&proxy.prefix, proxy.workers());
    everywhere(&proxy, seed::HOST, 404, "no such vhost")?;

    prefix.write(seed::UPSTREAM_FILE, &seed::upstream(origin.addr))?;
    prefix.write(seed::VHOST_FILE, &seed::vhost_on(prefix.port))?;
    prefix.write(seed::COMMON_FILE, seed::COMMON)?;
    let file = prefix.task_file();
    let (conf, tasks) = (prefix.path().join("conf"), file.path.parent().context("no directory")?.to_owned());
    let here = |text: &str| {
        text.replace(seed::CONF_DIRECTORY, &conf.display().to_string())
            .replace(seed::TASK_DIRECTORY, &tasks.display().to_string())
    };
    fs::write(tasks.join("dysvr_25208.conf"), here(seed::TASK_CONF))?;
    let verdict = proxy.line(&here(seed::TASK_LINE), seed::TASK_ID)?;
    done(&proxy, &verdict)?;
    for reply in everywhere(&proxy, seed::HOST, 200, "origin seed")? {
        let head = &reply.head;
        ensure!(head.header("x-vsvc") == Some("131942") && head.header("x-task") == Some("25208"), "{head:?}");
        // What a header is called does not depend on case; origins do not see the case that the file has.
        let text = reply.text().to_lowercase();
        for line in [
            &format!("Host: {}", seed::HOST),
            "X-Real-IP: 127.0.0.1",
            "X-Forwarded-For-Pound: 127.0.0.1",
            "X-Forwarded-For: 127.0.0.1",
        ] {
            ensure!(
                text.contains(&format!("{line}\n").to_lowercase()),
                "the origin was asked without {line:?}: {text}"
            );
        }
    }
    // All of the location's ifs have run by the time a header is made.
    let forwarded = [("Host", seed::HOST), ("X-Forwarded-For", "10.1.2.3, 10.9.9.9")];
    let reply = Connection::open(prefix.addr())?.request("GET", "/a?b=c", &forwarded, b"")?;
    let text = reply.text().to_lowercase();
    for line in [
        "GET /a?b=c HTTP/1.0",
        "X-Forwarded-For: 10.1.2.3, 10.9.9.9, 127.0.0.1",
        "X-Forwarded-For-Pound: 10.1.2.3",
        "X-Real-IP: 10.1.2.3",
    ] {
        ensure!(text.contains(&format!("{line}\n").to_lowercase()), "the origin was asked without {line:?}: {text}");
    }
    if ports::has_ipv6() {
        let reply = client::get((std::net::Ipv6Addr::LOCALHOST, prefix.port).into(), seed::HOST, "/")?;
        ensure!(reply.status == 200, "over IPv6: {reply:?}");
    }
    ensure!(proxy.workers() == workers, "workers were replaced");
    // The original's lines, for those who read its logs.
    for text in ["dysvr_update begin", "dysvr_update end", "send msg task_id 25208 count 1 version: 1"] {
        proxy.wait_log(text)?;
    }
    // What is on disk starts the same configuration.
    let tested = proxy.command_line(&["-t"])?;
    ensure!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    Ok(())
}

#[test]
fn a_vhost_is_added_modified_deleted_and_added_again() -> Result<()> {
    let (proxy, one) = start()?;
    let two = Origin::start("two")?;
    let (prefix, workers) = (&proxy.prefix, proxy.workers());
    let (file, host, other) = ("auto_vhost/a.conf", "a.example", "other.example");
    prefix.write("auto_vhost/other.conf", &(upstream("other", &one) + &vhost(9, prefix.port, other, "other")))?;
    done(&proxy, &proxy.task(Kind::Add, &["auto_vhost/other.conf"], &[9], &["other"], 1)?)?;
    // Held by each worker all along: no update of another vhost touches it.
    let mut held = client::pin_every_worker(prefix.addr(), other, &workers, LIMIT)?;
    let mut check_held = |what: &str| -> Result<()> {
        for (pid, connection) in &mut held {
            let reply =
                connection.get(other, "/").with_context(|| format!("{what}: the connection to worker {pid}"))?;
            ensure!(reply.status == 200 && reply.worker() == Some(*pid), "{what}: {reply:?}");
        }
        Ok(())
    };

    for round in 0..3_u64 {
        let task = |step: u64| 10 * (round + 1) + step;
        prefix.write(file, &(upstream("ups", &one) + &vhost(1, prefix.port, host, "ups")))?;
        done(&proxy, &proxy.task(Kind::Add, &[file], &[1], &["ups"], task(0))?)?;
        everywhere(&proxy, host, 200, "origin one")?;
        check_held("add")?;

        prefix.write(file, &(upstream("ups", &two) + &vhost(1, prefix.port, &format!("{host} b.example"), "ups")))?;
        done(&proxy, &proxy.task(Kind::Modify, &[file], &[1], &["ups"], task(1))?)?;
        everywhere(&proxy, host, 200, "origin two")?;
        everywhere(&proxy, "b.example", 200, "origin two")?;
        check_held("modify")?;

        fs::remove_file(prefix.conf(file))?;
        done(&proxy, &proxy.task(Kind::Delete, &[], &[1], &["ups"], task(2))?)?;
        everywhere(&proxy, host, 404, "no such vhost")?;
        everywhere(&proxy, "b.example", 404, "no such vhost")?;
        check_held("delete")?;
    }
    ensure!(proxy.workers() == workers, "workers were replaced");
    Ok(())
}

#[test]
fn many_vhosts_go_in_one_task_and_many_tasks_in_one_file() -> Result<()> {
    let (proxy, origin) = start()?;
    let prefix = &proxy.prefix;
    let files: Vec<String> = (1..=5).map(|number| format!("auto_vhost/v{number}.conf")).collect();
    let write = |numbers: std::ops::RangeInclusive<u64>| {
        numbers.into_iter().try_for_each(|number| {
            let (ups, name) = (format!("u{number}"), format!("v{number}.example"));
            let text = upstream(&ups, &origin) + &vhost(number, prefix.port, &name, &ups);
            prefix.write(&files[number as usize - 1], &text)
        })
    };
    write(1..=3)?;
    let names: Vec<&str> = files.iter().map(String::as_str).collect();
    done(&proxy, &proxy.task(Kind::Add, &names[..3], &[1, 2, 3], &["u1", "u2", "u3"], 1)?)?;
    for number in 1..=3 {
        everywhere(&proxy, &format!("v{number}.example"), 200, "origin one")?;
    }
    write(4..=5)?;
    // Two lines, one signal: they run in their order.
    let mut text = String::new();
    for (task, number) in [(2_u64, 4_u64), (3, 5)] {
        let conf = prefix.task_file().path.with_file_name(format!("dysvr_{task}.conf"));
        fs::write(&conf, format!("include {};\n", prefix.conf(&files[number as usize - 1]).display()))?;
        text.push_str(&(Line::text(Kind::Add, &conf, &[number], &[&format!("u{number}")], task) + "\n"));
    }
    done(&proxy, &proxy.line(&text, 3)?)?;
    ensure!(
        prefix.task_file().lines().iter().all(|line| line.status() == Some('D')),
        "{:?}",
        prefix.task_file().lines()
    );
    for number in 4..=5 {
        everywhere(&proxy, &format!("v{number}.example"), 200, "origin one")?;
    }
    Ok(())
}

#[test]
fn a_task_is_done_once() -> Result<()> {
    let (proxy, origin) = start()?;
    let prefix = &proxy.prefix;
    prefix.write("auto_vhost/a.conf", &(upstream("ups", &origin) + &vhost(1, prefix.port, "a.example", "ups")))?;
    for _ in 0..2 {
        done(&proxy, &proxy.task(Kind::Add, &["auto_vhost/a.conf"], &[1], &["ups"], 7)?)?;
        everywhere(&proxy, "a.example", 200, "origin one")?;
    }
    // The number says nothing of what is in the files.
    prefix.write("auto_vhost/a.conf", &(upstream("ups", &origin) + &vhost(1, prefix.port, "b.example", "ups")))?;
    done(&proxy, &proxy.task(Kind::Modify, &["auto_vhost/a.conf"], &[1], &["ups"], 7)?)?;
    everywhere(&proxy, "b.example", 200, "origin one")?;
    Ok(())
}

#[test]
fn the_option_s_dysvr_does_what_the_signal_does() -> Result<()> {
    let (proxy, origin) = start()?;
    let prefix = &proxy.prefix;
    prefix.write("auto_vhost/a.conf", &(upstream("ups", &origin) + &vhost(1, prefix.port, "a.example", "ups")))?;
    let file = prefix.task_file();
    let conf = file.path.with_file_name("dysvr_1.conf");
    fs::write(&conf, format!("include {};\n", prefix.conf("auto_vhost/a.conf").display()))?;
    file.write(&(Line::text(Kind::Add, &conf, &[1], &["ups"], 1) + "\n"))?;
    let mut watch = file.watch()?;
    let sent = proxy.command_line(&["-s", "dysvr"])?;
    ensure!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    done(&proxy, &watch.verdict(1, LIMIT)?)?;
    everywhere(&proxy, "a.example", 200, "origin one")?;
    Ok(())
}

#[test]
fn a_refused_task_has_changed_nothing() -> Result<()> {
    let (proxy, origin) = start()?;
    let (prefix, workers) = (&proxy.prefix, proxy.workers());
    prefix
        .write("auto_vhost/good.conf", &(upstream("good", &origin) + &vhost(1, prefix.port, "good.example", "good")))?;
    done(&proxy, &proxy.task(Kind::Add, &["auto_vhost/good.conf"], &[1], &["good"], 1)?)?;
    let mut held = client::pin_every_worker(prefix.addr(), "good.example", &workers, LIMIT)?;

    let taken = TcpListener::bind(("127.0.0.1", ports::free()?))?;
    let port = prefix.port;
    let ups = upstream("ups", &origin);
    let block = |inner: &str| {
        format!(
            "server {{\n    vsvc_id 2;\n    listen 127.0.0.1:{port};\n    server_name bad.example;\n    {inner}\n}}\n"
        )
    };
    let table: Vec<Bad> = vec![
        ("unknown directive", block("listn 80;"), vec![2], vec![], "unknown directive \"listn\"".into()),
        ("not supported here yet", block("srcache_fetch GET /x;"), vec![2], vec![], "srcache_fetch".into()),
        (
            "wrong context",
            block("worker_processes 2;"),
            vec![2],
            vec![],
            "\"worker_processes\" directive is not allowed here".into(),
        ),
        (
            "arity",
            block("server_name;"),
            vec![2],
            vec![],
            "invalid number of arguments in \"server_name\" directive".into(),
        ),
        ("duplicate vsvc_id", ups.clone() + &vhost(1, port, "bad.example", "ups"), vec![1], vec!["ups"], "1".into()),
        (
            "the same vsvc_id twice",
            vhost(2, port, "bad.example", "good") + &vhost(2, port, "worse.example", "good"),
            vec![2],
            vec![],
            "2".into(),
        ),
        (
            "duplicate upstream",
            upstream("good", &origin) + &vhost(2, port, "bad.example", "good"),
            vec![2],
            vec!["good"],
            "good".into(),
        ),
        ("upstream missing", vhost(2, port, "bad.example", "ups"), vec![2], vec!["ups"], "ups".into()),
        (
            "upstream nowhere",
            vhost(2, port, "bad.example", "no-such-host.invalid"),
            vec![2],
            vec![],
            "host not found in upstream \"no-such-host.invalid\"".into(),
        ),
        (
            "ids that the file does not hold",
            ups.clone() + &vhost(2, port, "bad.example", "ups"),
            vec![3],
            vec!["ups"],
            "vsvc_ids".into(),
        ),
        (
            "listen conflict",
            ups.clone() + &vhost(2, taken.local_addr()?.port(), "bad.example", "ups"),
            vec![2],
            vec!["ups"],
            format!("bind() to {} failed (98: Address already in use)", taken.local_addr()?),
        ),
        ("no vsvc_id", block("").replace("vsvc_id 2;", ""), vec![2], vec![], "vsvc_id".into()),
        (
            "a missing include",
            "include auto_upstream/missing.conf;\n".to_owned() + &block(""),
            vec![2],
            vec![],
            "missing.conf".into(),
        ),
        (
            "unterminated",
            block("").trim_end().trim_end_matches('}').to_owned(),
            vec![2],
            vec![],
            "unexpected end of file".into(),
        ),
    ];
    let mut task_id = 10;
    for (what, text, vsvc_ids, ups_ids, reason) in &table {
        task_id += 1;
        prefix.write("auto_vhost/bad.conf", text)?;
        let verdict = proxy.task(Kind::Add, &["auto_vhost/bad.conf"], vsvc_ids, ups_ids, task_id)?;
        ensure!(!verdict.done, "{what}: the task was done");
        let said = verdict.line.reason();
        ensure!(said.contains(reason), "{what}: the reason is {said:?}, not {reason:?}");
        fs::remove_file(prefix.conf("auto_vhost/bad.conf"))?;
        unchanged(&proxy, &workers, &mut held).with_context(|| (*what).to_owned())?;
    }

    // A vhost whose file no include of the configuration reaches would be gone at the next start.
    let outside = prefix.path().join("outside.conf");
    fs::write(&outside, ups.clone() + &vhost(2, port, "bad.example", "ups"))?;
    let verdict = proxy.task(Kind::Add, &["../outside.conf"], &[2], &["ups"], 100)?;
    ensure!(!verdict.done && verdict.line.reason().contains("include"), "{verdict:?}");
    unchanged(&proxy, &workers, &mut held).context("outside every include")?;

    // After all of that a good one is done.
    prefix.write("auto_vhost/late.conf", &(ups + &vhost(2, port, "late.example", "ups")))?;
    done(&proxy, &proxy.task(Kind::Add, &["auto_vhost/late.conf"], &[2], &["ups"], 101)?)?;
    everywhere(&proxy, "late.example", 200, "origin one")?;
    ensure!(!prefix.error_log().contains("[alert]"), "{}", prefix.error_log());
    Ok(())
}

/// A bad vhost: what is bad about it, what stands in its file, the ids of the task line, and what the reason must say.
type Bad<'a> = (&'a str, String, Vec<u64>, Vec<&'a str>, String);

/// The same workers, the same connections, the same answers.
fn unchanged(
    proxy: &Proxy,
    workers: &BTreeSet<i32>,
    held: &mut std::collections::BTreeMap<i32, Connection>,
) -> Result<()> {
    ensure!(proxy.workers() == *workers, "workers were replaced");
    for (pid, connection) in held {
        for (host, status) in [("good.example", 200), ("bad.example", 404), ("worse.example", 404)] {
            let reply = connection.get(host, "/").with_context(|| format!("the connection to worker {pid}"))?;
            ensure!(reply.status == status && reply.worker() == Some(*pid), "{host}: {reply:?}");
        }
    }
    Ok(())
}

#[test]
fn a_task_file_that_means_nothing_is_refused_whole() -> Result<()> {
    let (proxy, origin) = start()?;
    let (prefix, workers) = (&proxy.prefix, proxy.workers());
    prefix.write("auto_vhost/a.conf", &(upstream("ups", &origin) + &vhost(1, prefix.port, "a.example", "ups")))?;
    let file = prefix.task_file();
    let conf = file.path.with_file_name("dysvr_1.conf");
    fs::write(&conf, format!("include {};\n", prefix.conf("auto_vhost/a.conf").display()))?;
    let good = Line::text(Kind::Add, &conf, &[1], &["ups"], 1);
    let mut table: Vec<(String, String)> = vec![
        ("an unknown status letter".into(), good.replace("status=I", "status=X")),
        ("an unknown type".into(), good.replace("type=0", "type=7")),
        ("an unknown server_type".into(), good.replace("type=0", "type=0 server_type=1")),
        ("no task_id".into(), good.replace("task_id=1 ", "")),
        ("an id that is none".into(), good.replace("vsvc_ids=1", "vsvc_ids=1x")),
        (
            "a second line that is torn".into(),
            format!("{good}\n{}", good.replace("task_id=1", "task_id=2").trim_end_matches("status=I")),
        ),
    ];
    // Torn at every tenth byte: what is left of it is refused or asks for nothing.
    for cut in (10..good.len()).step_by(10) {
        table.push((format!("torn after {cut} bytes"), good[..cut].to_owned()));
    }
    for (what, text) in &table {
        let begun = prefix.error_log().len();
        file.write(&format!("{text}\n"))?;
        dysvr_tests::signal::send_dysvr(proxy.master())?;
        wait::eventually(&format!("the refusal of {what}"), LIMIT, || -> Result<()> {
            let text = fs::read_to_string(&file.path)?;
            ensure!(text.contains("status=F") && text.contains("reason="), "the file holds {text:?}");
            let log = prefix.error_log();
            ensure!(log[begun..].contains("[error]"), "the log says {:?}", &log[begun..]);
            Ok(())
        })?;
        everywhere(&proxy, "a.example", 404, "no such vhost").with_context(|| what.clone())?;
    }
    ensure!(proxy.workers() == workers, "workers were replaced");
    done(&proxy, &proxy.line(&good, 1)?)?;
    everywhere(&proxy, "a.example", 200, "origin one")?;
    Ok(())
}

#[test]
fn a_full_load_gives_what_the_updates_gave() -> Result<()> {
    let (proxy, origin) = start()?;
    let prefix = &proxy.prefix;
    let port = prefix.port;
    // Names that compete: exact, wildcards before and behind, expressions, and a default vhost on a listener of its own.
    let second = ports::free()?;
    let listen = format!("    server {{\n        listen 127.0.0.1:{second};\n        return 404 \"first\";\n    }}\n");
    prefix.write("nginx.conf", &prefix.main_conf(&MainConf { http: listen, ..MainConf::default() }))?;
    let first = proxy.workers();
    proxy.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait::until("the second listener", LIMIT, || proxy.workers().len() == 2 && proxy.workers().is_disjoint(&first))?;

    let vhosts = [
        ("m.conf", 3, port, "www.x.example"),
        ("b.conf", 4, port, "*.x.example"),
        ("z.conf", 1, port, "www.x.*"),
        ("k.conf", 5, port, r"~^w+\.x\."),
        ("c.conf", 2, port, r"~^www\."),
        ("a.conf", 6, second, "a.example"),
        ("y.conf", 7, second, "~example$"),
        ("d.conf", 8, port, "www.x.example"),
    ];
    let mut task_id = 0;
    for (file, vsvc_id, port, name) in vhosts {
        task_id += 1;
        let (file, ups) = (format!("auto_vhost/{file}"), format!("u{vsvc_id}"));
        prefix.write(&file, &(upstream(&ups, &origin) + &vhost(vsvc_id, port, name, &ups)))?;
        done(&proxy, &proxy.task(Kind::Add, &[&file], &[vsvc_id], &[&ups], task_id)?)?;
    }
    fs::remove_file(prefix.conf("auto_vhost/z.conf"))?;
    done(&proxy, &proxy.task(Kind::Delete, &[], &[1], &["u1"], task_id + 1)?)?;

    let names = [
        "www.x.example",
        "a.x.example",
        "x.example",
        "www.x.org",
        "ww.x.org",
        "www.y",
        "a.example",
        "q.example",
        "nothing",
    ];
    let elected = || -> Result<Vec<(u16, &str, Option<String>)>> {
        let mut all = Vec::new();
        for port in [port, second] {
            for name in names {
                let reply = client::get(([127, 0, 0, 1], port).into(), name, "/")?;
                all.push((port, name, reply.head.header("x-vsvc").map(str::to_owned)));
            }
        }
        Ok(all)
    };
    let updated = elected()?;
    let before = proxy.workers();
    proxy.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait::until("the reload", LIMIT, || proxy.workers().len() == 2 && proxy.workers().is_disjoint(&before))?;
    let loaded = elected()?;
    ensure!(updated == loaded, "updates gave {updated:?}\nthe files give {loaded:?}");
    // Of two vhosts with one name the one in the file that sorts first wins, though the other was added first.
    ensure!(updated.iter().any(|(_, _, vsvc)| vsvc.as_deref() == Some("8")), "{updated:?}");
    Ok(())
}

#[test]
fn a_new_worker_has_every_update() -> Result<()> {
    let (proxy, origin) = start()?;
    let prefix = &proxy.prefix;
    prefix.write("auto_vhost/a.conf", &(upstream("ups", &origin) + &vhost(1, prefix.port, "a.example", "ups")))?;
    done(&proxy, &proxy.task(Kind::Add, &["auto_vhost/a.conf"], &[1], &["ups"], 1)?)?;
    for victim in proxy.workers() {
        dysvr_tests::signal::send(victim, nix::sys::signal::Signal::SIGKILL)?;
        wait::until("another worker", LIMIT, || {
            let now = proxy.workers();
            now.len() == 2 && !now.contains(&victim)
        })?;
    }
    everywhere(&proxy, "a.example", 200, "origin one")?;
    prefix.write("auto_vhost/b.conf", &vhost(2, prefix.port, "b.example", "ups"))?;
    done(&proxy, &proxy.task(Kind::Add, &["auto_vhost/b.conf"], &[2], &[], 2)?)?;
    everywhere(&proxy, "b.example", 200, "origin one")?;
    Ok(())
}

#[test]
fn without_the_directive_the_signal_is_ignored() -> Result<()> {
    let prefix = Prefix::new(&MainConf::default())?;
    let text = prefix.main_conf(&MainConf::default()).replace("dysvr on;", "dysvr off;");
    prefix.write("nginx.conf", &text)?;
    let proxy = Proxy::start_from(&proxy::dysvr_binary()?, prefix)?;
    dysvr_tests::signal::kill_by_hand(proxy.master())?;
    proxy.wait_log("dysvr is off")?;
    ensure!(client::get(proxy.prefix.addr(), "x", "/")?.status == 404);
    Ok(())
}
