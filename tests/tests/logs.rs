//! Log files of vhosts that join in place, in folders that workers may not enter.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::{LIMIT, Proxy};
use dysvr_tests::task::Kind;
use dysvr_tests::wait;

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
