//! Log files of vhosts that join in place, in folders that workers may not enter.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use dysvr_tests::client::Connection;
use dysvr_tests::origin::Origin;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::{LIMIT, Proxy};
use dysvr_tests::task::Kind;
use dysvr_tests::{procfs, wait};
use nix::sys::signal::Signal;

#[test]
fn a_log_that_only_root_may_open_is_opened_for_the_workers() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: workers are the master's user");
        return Ok(());
    }
    let proxy = Proxy::start(&MainConf::default())?;
    let folder = proxy.prefix.path().join("private");
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    let (access, errors) = (folder.join("access.log"), folder.join("error.log"));
    let text = |id: u64| {
        format!(
            "server {{ vsvc_id {id}; listen 127.0.0.1:{}; server_name v{id}.example; access_log {} combined; error_log {}; \
             return 200; }}\n",
            proxy.prefix.port,
            access.display(),
            errors.display()
        )
    };
    let workers = proxy.workers();
    // The second one logs where the first one does.
    for id in 1..=2 {
        let file = format!("auto_vhost/{id}.conf");
        proxy.prefix.write(&file, &text(id))?;
        let verdict = proxy.task(Kind::Add, &[&file], &[id], &[], id)?;
        ensure!(verdict.done, "{}", verdict.line.reason());
        for reply in proxy.ask_every_worker(&format!("v{id}.example"), &format!("/asked{id}"))? {
            ensure!(reply.status == 200, "{reply:?}");
        }
        wait::eventually("a line of each worker", LIMIT, || -> Result<()> {
            let log = fs::read_to_string(&access)?;
            ensure!(log.matches(&format!("/asked{id} ")).count() == workers.len(), "{log}");
            Ok(())
        })?;
    }
    ensure!(proxy.workers() == workers && errors.exists());
    Ok(())
}

#[test]
fn a_buffered_line_of_a_request_that_an_end_cuts_off_is_written() -> Result<()> {
    let origin = Origin::start("logs")?;
    let proxy = Proxy::start(&MainConf::default())?;
    let log = proxy.prefix.path().join("logs/buffered.log");
    let text = format!(
        "server {{ vsvc_id 1; listen 127.0.0.1:{}; server_name v1.example; access_log {} combined buffer=64k; \
         location / {{ proxy_pass http://{}; }} }}\n",
        proxy.prefix.port,
        log.display(),
        origin.addr
    );
    proxy.prefix.write("auto_vhost/1.conf", &text)?;
    let verdict = proxy.task(Kind::Add, &["auto_vhost/1.conf"], &[1], &[], 1)?;
    ensure!(verdict.done, "{}", verdict.line.reason());
    let mut cut = Connection::open(proxy.prefix.addr())?;
    cut.send("GET", "/drip?count=1000&every_ms=50", &[("Host", "v1.example")], b"")?;
    cut.head()?;
    ensure!(fs::read_to_string(&log)?.is_empty(), "it was not buffered");
    let master = proxy.master();
    proxy.signal(Signal::SIGTERM)?;
    wait::until("the master to end", LIMIT, || !procfs::alive(master))?;
    let lines = fs::read_to_string(&log)?;
    ensure!(lines.contains("\"GET /drip?count=1000&every_ms=50 HTTP/1.1\" 200"), "{lines:?}");
    Ok(())
}
