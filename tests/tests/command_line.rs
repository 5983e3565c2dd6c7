//! What nginx's tools rely on when they run a program called nginx. Every test asks nginx itself, too, where it is
//! installed: a contract that nginx breaks is not its contract.

use std::collections::BTreeSet;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dysvr_tests::bench::installed;
use dysvr_tests::client::{self, Connection};
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::{MainConf, Prefix};
use dysvr_tests::proxy::{self, LIMIT, Proxy};
use dysvr_tests::{process, procfs, wait};
use nix::sys::signal::Signal;

/// Runs a check for dysvr-proxy and, as far as it is installed, for nginx; the second argument is whether it is ours.
fn for_both(check: impl Fn(&Path, bool) -> Result<()>) {
    let ours = proxy::dysvr_binary().unwrap();
    let programs: Vec<(PathBuf, bool)> =
        [(ours, true)].into_iter().chain(installed("nginx").map(|path| (path, false))).collect();
    for (program, ours) in programs {
        if let Err(error) = check(&program, ours) {
            panic!("{}: {error:?}", program.display());
        }
    }
}

fn conf(ours: bool) -> MainConf {
    MainConf { ours, ..MainConf::default() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A configuration whose default vhost passes to an origin.
fn passing(ours: bool, origin: &Origin) -> Result<(Prefix, MainConf)> {
    let conf = MainConf { http: format!("    upstream origin {{ server {}; }}\n", origin.addr), ..conf(ours) };
    let prefix = Prefix::new(&conf)?;
    pass(&prefix, &conf)?;
    Ok((prefix, conf))
}

fn pass(prefix: &Prefix, conf: &MainConf) -> Result<()> {
    let pass = "location / { proxy_pass http://origin; proxy_buffering off; }";
    prefix.write("nginx.conf", &prefix.main_conf(conf).replace("return 404 \"no such vhost\\n\";", pass))
}

#[test]
fn a_configuration_is_tested() {
    for_both(|program, ours| {
        let prefix = Prefix::new(&conf(ours))?;
        let file = prefix.conf("nginx.conf");
        let good = proxy::run(program, &prefix, &["-t"])?;
        let (is_ok, successful) = ("syntax is ok", "test is successful");
        let said = text(&good.stderr);
        let wanted = format!(
            "nginx: the configuration file {0} {is_ok}\nnginx: configuration file {0} {successful}\n",
            file.display()
        );
        ensure!(good.status.code() == Some(0) && said == wanted && good.stdout.is_empty(), "-t: {good:?}");
        let quiet = proxy::run(program, &prefix, &["-t", "-q"])?;
        ensure!(quiet.status.code() == Some(0) && quiet.stderr.is_empty(), "-t -q: {quiet:?}");

        prefix.write("auto_vhost/bad.conf", "server {\n    listn 80;\n}\n")?;
        let bad = proxy::run(program, &prefix, &["-t"])?;
        let said = text(&bad.stderr);
        let emerg = format!(
            "nginx: [emerg] unknown directive \"listn\" in {}:2\n",
            prefix.conf("auto_vhost/bad.conf").display()
        );
        let failed = format!("nginx: configuration file {} test failed\n", file.display());
        ensure!(bad.status.code() == Some(1), "{bad:?}");
        ensure!(said.contains(&emerg) && said.ends_with(&failed), "{said:?} lacks {emerg:?} or {failed:?}");
        Ok(())
    });
}

#[test]
fn a_configuration_is_dumped_each_file_once() {
    for_both(|program, ours| {
        let prefix = Prefix::new(&conf(ours))?;
        prefix.write("shared.conf", "# shared\n")?;
        for name in ["auto_vhost/a.conf", "auto_vhost/b.conf"] {
            prefix.write(name, "include shared.conf;\n")?;
        }
        let dumped = proxy::run(program, &prefix, &["-T"])?;
        let said = text(&dumped.stdout);
        ensure!(dumped.status.code() == Some(0), "{dumped:?}");
        let mut length = 0;
        for name in ["nginx.conf", "auto_vhost/a.conf", "auto_vhost/b.conf", "shared.conf"] {
            let path = prefix.conf(name);
            let wanted = format!("# configuration file {}:\n{}\n", path.display(), std::fs::read_to_string(&path)?);
            ensure!(said.matches(&wanted).count() == 1, "{name} is not there once: {said}");
            ensure!(name != "nginx.conf" || said.starts_with(&wanted), "the main file is not the first: {said}");
            length += wanted.len();
        }
        ensure!(said.len() == length, "there is more: {said}");
        prefix.write("auto_vhost/a.conf", "listn;\n")?;
        let bad = proxy::run(program, &prefix, &["-T"])?;
        ensure!(bad.status.code() == Some(1) && bad.stdout.is_empty(), "{bad:?}");
        Ok(())
    });
}

#[test]
fn a_program_says_what_it_is() {
    for_both(|program, ours| {
        let prefix = Prefix::new(&conf(ours))?;
        let short = proxy::run(program, &prefix, &["-v"])?;
        let version = text(&short.stderr);
        ensure!(short.status.code() == Some(0) && version.starts_with("nginx version: "), "{short:?}");
        let long = proxy::run(program, &prefix, &["-V"])?;
        let said = text(&long.stderr);
        ensure!(long.status.code() == Some(0) && said.starts_with(&version), "{said}");
        ensure!(said.contains("\nbuilt ") && said.contains("\nconfigure arguments:"), "{said}");
        for (options, wanted) in [
            (&["-z"][..], "nginx: invalid option: \"z\""),
            (&["-s", "dance"][..], "nginx: invalid option: \"-s dance\""),
        ] {
            let refused = proxy::run(program, &prefix, options)?;
            ensure!(
                refused.status.code() == Some(1) && text(&refused.stderr).contains(wanted),
                "{options:?}: {refused:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_bad_configuration_does_not_start() {
    let table = [
        ("listn 80;\n", "unknown directive \"listn\"", 1),
        ("\nworker_processes 2;\n", "\"worker_processes\" directive is not allowed here", 2),
        ("server {\n    listen;\n}\n", "invalid number of arguments in \"listen\" directive", 2),
        ("server {\n    listen 80;\n", "unexpected end of file, expecting \"}\"", 3),
        ("server {\n    listen nowhere:port;\n}\n", "invalid port in \"nowhere:port\" of the \"listen\" directive", 2),
        (
            "upstream u {\n    server 127.0.0.1:1;\n}\nupstream u {\n    server 127.0.0.1:1;\n}\n",
            "duplicate upstream \"u\"",
            4,
        ),
        ("server {\n    return 200 \"a;\n}\n", "unexpected end of file, expecting \";\" or \"}\"", 4),
    ];
    for_both(|program, ours| {
        let prefix = Prefix::new(&conf(ours))?;
        for (bad, problem, line) in table {
            prefix.write("auto_vhost/bad.conf", bad)?;
            let refused = proxy::run(program, &prefix, &[])?;
            let said = text(&refused.stderr);
            let place = format!("in {}:{line}\n", prefix.conf("auto_vhost/bad.conf").display());
            let wanted = format!("nginx: [emerg] {problem} {place}");
            ensure!(refused.status.code() == Some(1) && said.contains(&wanted), "{bad:?}: {said:?} lacks {wanted:?}");
            ensure!(prefix.error_log().contains(&format!("{problem} {place}")), "{bad:?}: the log lacks it");
            ensure!(!prefix.pid_file().exists(), "{bad:?}: there is a pid file");
        }
        Ok(())
    });
}

#[test]
fn a_port_in_use_does_not_start() {
    for_both(|program, ours| {
        let prefix = Prefix::new(&conf(ours))?;
        let taken = std::net::TcpListener::bind(prefix.addr())?;
        let refused = proxy::run(program, &prefix, &[])?;
        let said = text(&refused.stderr);
        let wanted = format!("[emerg] bind() to {} failed (98: ", taken.local_addr()?);
        ensure!(refused.status.code() == Some(1) && said.contains(&wanted), "{said}");
        let tested = proxy::run(program, &prefix, &["-t"])?;
        ensure!(tested.status.code() == Some(0), "-t does not mind: {tested:?}");
        Ok(())
    });
}

#[test]
fn a_daemon_is_driven_by_its_options() {
    for_both(|program, ours| {
        let conf = MainConf { daemon: true, ..conf(ours) };
        let prefix = Prefix::new(&conf)?;
        for signal in ["stop", "reload"] {
            let nobody = proxy::run(program, &prefix, &["-s", signal])?;
            let said = text(&nobody.stderr);
            let wanted = format!(
                "nginx: [error] open() \"{}\" failed (2: No such file or directory)",
                prefix.pid_file().display()
            );
            ensure!(nobody.status.code() == Some(1) && said.contains(&wanted), "-s {signal}: {said}");
        }
        for (signal, last) in [("quit", false), ("stop", true)] {
            let started = proxy::run(program, &prefix, &[])?;
            ensure!(started.status.code() == Some(0), "{started:?}");
            // The pid file is there when the command returns, and a connection is queued at once.
            let master = prefix.master_pid()?;
            let ended = Ended(master);
            let reply = client::get(prefix.addr(), "x", "/")?;
            ensure!(reply.status == 404 && reply.worker().is_some_and(|pid| pid != master), "{reply:?}");

            if !last {
                let old = procfs::live_children(master);
                let reloaded = proxy::run(program, &prefix, &["-s", "reload"])?;
                ensure!(reloaded.status.code() == Some(0), "{reloaded:?}");
                wait::until("new workers after -s reload", LIMIT, || {
                    let now = procfs::live_children(master);
                    now.len() == 2 && now.is_disjoint(&old)
                })?;
                let log = prefix.path().join("logs/error.log");
                std::fs::rename(&log, log.with_extension("old"))?;
                ensure!(proxy::run(program, &prefix, &["-s", "reopen"])?.status.code() == Some(0));
                wait::until("a new log after -s reopen", LIMIT, || log.exists())?;
            }
            let stopped = proxy::run(program, &prefix, &["-s", signal])?;
            ensure!(stopped.status.code() == Some(0), "{stopped:?}");
            wait::until("its end", LIMIT, || !procfs::alive(master))?;
            ensure!(!prefix.pid_file().exists(), "the pid file is still there after -s {signal}");
            drop(ended);
        }
        Ok(())
    });
}

/// Ends a daemon that a test leaves behind.
struct Ended(i32);

impl Drop for Ended {
    fn drop(&mut self) {
        process::end_all(&BTreeSet::from([self.0]));
    }
}

/// An answer that drips through the proxy, read on a thread of its own to its end.
fn drip(addr: std::net::SocketAddr, millis: u64) -> Result<std::thread::JoinHandle<std::io::Result<String>>> {
    let mut connection = Connection::open(addr)?;
    connection.send(
        "GET",
        &format!("/drip?count={}&every_ms=20", millis / 20),
        &[("Host", "x"), ("Connection", "close")],
        b"",
    )?;
    let head = connection.head().context("the head of the dripping answer")?;
    ensure!(head.status()? == 200, "{head:?}");
    Ok(std::thread::spawn(move || {
        let mut text = String::new();
        connection.stream().read_to_string(&mut text)?;
        Ok(text)
    }))
}

fn whole(drip: std::thread::JoinHandle<std::io::Result<String>>, millis: u64) -> Result<()> {
    let text = drip.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?.context("the answer was cut")?;
    let last = format!("drop {}\n", millis / 20 - 1);
    ensure!(text.contains(&last), "the answer lacks its end: {:?}", process::tail(&text));
    Ok(())
}

#[test]
fn quit_lets_requests_end_and_closes_what_is_idle() {
    for_both(|program, ours| {
        let origin = Origin::start("slow")?;
        let mut proxy = Proxy::start_from(program, passing(ours, &origin)?.0)?;
        let mut idle = Connection::open(proxy.prefix.addr())?;
        ensure!(idle.get("x", "/")?.status == 200);
        let active = drip(proxy.prefix.addr(), 600)?;
        let pid_file = proxy.prefix.pid_file();
        ensure!(std::fs::read_to_string(&pid_file)? == format!("{}\n", proxy.master()), "the pid file");

        proxy.signal(Signal::SIGQUIT)?;
        ensure!(idle.stream().fill_buf()?.is_empty(), "an idle connection is closed without a word");
        wait::until("connections to be refused", LIMIT, || Connection::open(proxy.prefix.addr()).is_err())?;
        whole(active, 600)?;
        let status = proxy.process().wait(LIMIT)?;
        ensure!(status.code() == Some(0) && !pid_file.exists(), "{status:?}");
        Ok(())
    });
}

#[test]
fn term_does_not_wait() {
    for_both(|program, ours| {
        let origin = Origin::start("slow")?;
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut proxy = Proxy::start_from(program, passing(ours, &origin)?.0)?;
            let active = drip(proxy.prefix.addr(), 600_000)?;
            proxy.signal(signal)?;
            // Long before the answer would be over.
            let status = proxy.process().wait(LIMIT)?;
            ensure!(status.code() == Some(0) && !proxy.prefix.pid_file().exists(), "{signal}: {status:?}");
            ensure!(whole(active, 600_000).is_err(), "{signal}: the answer went on");
        }
        Ok(())
    });
}

#[test]
fn a_pid_file_under_another_path_is_the_same_one() {
    let prefix = Prefix::new(&MainConf::default()).unwrap();
    std::os::unix::fs::symlink("logs", prefix.path().join("link")).unwrap();
    let conf = std::fs::read_to_string(prefix.conf("nginx.conf")).unwrap();
    let program = proxy::dysvr_binary().unwrap();
    let proxy = Proxy::start_from(&program, prefix).unwrap();
    let pid = format!("{}\n", proxy.master());
    for (path, elsewhere) in [("logs/../logs/nginx.pid", false), ("link/nginx.pid", false), ("logs/moved.pid", true)] {
        let before = proxy.workers();
        proxy.prefix.write("nginx.conf", &conf.replace("pid logs/nginx.pid;", &format!("pid {path};"))).unwrap();
        proxy.signal(Signal::SIGHUP).unwrap();
        wait::until("new workers", LIMIT, || {
            let now = proxy.workers();
            now.len() == before.len() && now.is_disjoint(&before)
        })
        .unwrap();
        assert_eq!(std::fs::read_to_string(proxy.prefix.path().join(path)).unwrap(), pid, "{path}");
        assert_eq!(proxy.prefix.pid_file().exists(), !elsewhere, "{path}");
        // Whoever asks for the master finds it by its lock.
        let reopened = proxy::run(&program, &proxy.prefix, &["-s", "reopen"]).unwrap();
        assert_eq!(reopened.status.code(), Some(0), "{path}: {reopened:?}");
    }
}

#[test]
fn a_reload_replaces_workers_and_lets_the_old_ones_finish() {
    for_both(|program, ours| {
        let origin = Origin::start("slow")?;
        let (prefix, conf) = passing(ours, &origin)?;
        let proxy = Proxy::start_from(program, prefix)?;
        let first = proxy.workers();
        let active = drip(proxy.prefix.addr(), 800)?;

        let more = MainConf { workers: 3, http: format!("{}    add_header X-Round two always;\n", conf.http), ..conf };
        pass(&proxy.prefix, &more)?;
        proxy.signal(Signal::SIGHUP)?;
        wait::until("three new workers beside the busy one", LIMIT, || {
            proxy.workers().difference(&first).count() == 3
        })?;
        let new: BTreeSet<i32> = proxy.workers().difference(&first).copied().collect();
        let answers = client::ask_every_worker(proxy.prefix.addr(), || new.clone(), "x", "/", LIMIT)?;
        ensure!(answers.values().all(|reply| reply.head.header("x-round") == Some("two")), "{answers:?}");
        whole(active, 800)?;
        wait::eventually("the old workers to leave", LIMIT, || {
            if proxy.workers() == new { Ok(()) } else { Err(format!("{:?}", proxy.workers())) }
        })?;
        for worker in &first {
            proxy.wait_log(&format!("worker process {worker} exited with code 0"))?;
        }

        // A bad file keeps what there is, and says so.
        proxy.prefix.write("auto_vhost/bad.conf", "listn;\n")?;
        proxy.signal(Signal::SIGHUP)?;
        proxy.wait_log("[emerg]")?;
        ensure!(proxy.prefix.error_log().contains("unknown directive \"listn\" in"), "{}", proxy.prefix.error_log());
        ensure!(proxy.workers() == new && client::get(proxy.prefix.addr(), "x", "/")?.status == 200);
        ensure!(!proxy.prefix.error_log().contains("[alert]"), "{}", proxy.prefix.error_log());
        Ok(())
    });
}

#[test]
fn a_worker_that_dies_is_replaced() {
    for_both(|program, ours| {
        let proxy = Proxy::start_from(program, Prefix::new(&conf(ours))?)?;
        wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
        let first = proxy.workers();
        let victim = *first.first().context("no worker")?;
        dysvr_tests::signal::send(victim, Signal::SIGKILL)?;
        wait::until("another worker", LIMIT, || {
            let now = proxy.workers();
            now.len() == 2 && !now.contains(&victim)
        })?;
        let answers = client::ask_every_worker(proxy.prefix.addr(), || proxy.workers(), "x", "/", LIMIT)?;
        ensure!(answers.len() == 2, "{answers:?}");
        proxy.wait_log(&format!("worker process {victim} exited on signal 9"))?;
        Ok(())
    });
}

#[test]
fn logs_are_reopened() {
    for_both(|program, ours| {
        let mut conf = conf(ours);
        conf.http = "    access_log logs/access.log;\n".to_owned();
        let prefix = Prefix::new(&conf)?;
        let text = prefix.main_conf(&conf).replacen("    access_log off;\n", "", 1);
        prefix.write("nginx.conf", &text)?;
        let proxy = Proxy::start_from(program, prefix)?;
        let log = proxy.prefix.path().join("logs/access.log");
        let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
        client::get(proxy.prefix.addr(), "x", "/one")?;
        wait::until("the first line", LIMIT, || lines(&log) == 1)?;
        let old = log.with_extension("old");
        std::fs::rename(&log, &old)?;
        proxy.signal(Signal::SIGUSR1)?;
        wait::until("a new log", LIMIT, || log.exists())?;
        // Every worker writes to the new one; the master made it before it told them.
        wait::until("lines in the new log alone", LIMIT, || {
            let before = lines(&old);
            client::get(proxy.prefix.addr(), "x", "/two").is_ok() && lines(&old) == before && lines(&log) > 0
        })?;
        Ok(())
    });
}

#[test]
fn directives_of_the_command_line_come_first() {
    for_both(|program, ours| {
        let prefix = Prefix::new(&conf(ours))?;
        let twice = proxy::run(program, &prefix, &["-t", "-g", "worker_processes 3;"])?;
        let wanted = format!(
            "nginx: [emerg] \"worker_processes\" directive is duplicate in {}:1\n",
            prefix.conf("nginx.conf").display()
        );
        ensure!(twice.status.code() == Some(1) && text(&twice.stderr).contains(&wanted), "{twice:?}");
        let bad = proxy::run(program, &prefix, &["-t", "-g", "dance;"])?;
        let said = text(&bad.stderr);
        ensure!(said.contains("[emerg] unknown directive \"dance\" in command line"), "{said}");
        Ok(())
    });
}
