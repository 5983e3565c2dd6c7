//! Tasks and task files of many vhosts: a task that is larger than the zone, and a file of many lines.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Result, ensure};
use dysvr_tests::prefix::{MainConf, Prefix};
use dysvr_tests::proxy::{LIMIT, Proxy};
use dysvr_tests::task::{Kind, Line};
use dysvr_tests::{verify, wait};

fn start(http: &str) -> Result<Proxy> {
    let proxy = Proxy::start(&MainConf { http: http.to_owned(), ..MainConf::default() })?;
    wait::until("two workers", LIMIT, || proxy.workers().len() == 2)?;
    Ok(proxy)
}

/// A vhost that says its name.
fn vhost(number: u64, port: u16) -> String {
    format!(
        "server {{ vsvc_id {number}; listen 127.0.0.1:{port}; server_name v{number}.example; return 200 v{number}; }}\n"
    )
}

/// The line of a task of one file, and the list that it names.
fn line(prefix: &Prefix, task_id: u64, kind: Kind, file: &str, ids: &[u64]) -> Result<String> {
    let conf = prefix.task_file().path.with_file_name(format!("dysvr_{task_id}.conf"));
    fs::write(&conf, format!("include {};\n", prefix.conf(file).display()))?;
    Ok(Line::text(kind, &conf, ids, &[], task_id) + "\n")
}

fn serves(proxy: &Proxy, number: u64) -> Result<()> {
    for reply in proxy.ask_every_worker(&format!("v{number}.example"), "/")? {
        ensure!(reply.status == 200 && reply.text() == format!("v{number}"), "{} {:?}", reply.status, reply.text());
    }
    Ok(())
}

#[test]
fn memory_comes_in_small_pages() -> Result<()> {
    let proxy = start("")?;
    for pid in proxy.workers().into_iter().chain([proxy.master()]) {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        // Kernels without huge pages have no such line.
        let huge = status.lines().find(|line| line.starts_with("THP_enabled:"));
        ensure!(huge.is_none_or(|line| line.ends_with('0')), "{pid}: {huge:?}");
    }
    Ok(())
}

#[test]
fn a_task_that_is_larger_than_the_zone_goes_in_place_and_small_ones_around_it() -> Result<()> {
    let proxy = start("    dysvr_shm_zone dysvr 64k;\n")?;
    let prefix = &proxy.prefix;
    prefix.write("auto_vhost/first.conf", &vhost(1, prefix.port))?;
    let large: String = (2..1002).map(|number| vhost(number, prefix.port)).collect();
    ensure!(large.len() > 64 << 10);
    prefix.write("auto_vhost/large.conf", &large)?;
    prefix.write("auto_vhost/last.conf", &vhost(1002, prefix.port))?;
    let ids: Vec<u64> = (2..1002).collect();
    let workers = proxy.workers();
    for (task_id, file, ids) in [
        (1, "auto_vhost/first.conf", &[1][..]),
        (2, "auto_vhost/large.conf", &ids),
        (3, "auto_vhost/last.conf", &[1002]),
    ] {
        for repeated in [false, true] {
            let verdict = proxy.task(Kind::Add, &[file], ids, &[], task_id)?;
            ensure!(verdict.done, "{file}, repeated: {repeated}: {}", verdict.line.reason());
        }
    }
    for number in [1, 2, 500, 1001, 1002] {
        serves(&proxy, number)?;
    }
    // One that is refused as a whole has changed nothing.
    let verdict = proxy.task(Kind::Add, &["auto_vhost/large.conf"], &ids, &[], 4)?;
    ensure!(!verdict.done && verdict.line.reason().contains("duplicate vsvc_id 2"), "{}", verdict.line.reason());
    serves(&proxy, 2)?;
    ensure!(proxy.workers() == workers, "workers were replaced");
    Ok(())
}

#[test]
fn what_workers_prepare_while_a_large_task_is_checked_comes_to_nothing_if_it_is_refused() -> Result<()> {
    const LAST: u64 = 2001;
    let proxy = start("    dysvr_verify off;\n")?;
    let prefix = &proxy.prefix;
    let workers = proxy.workers();
    let whole: String = (2..=LAST).map(|number| vhost(number, prefix.port)).collect();
    let prepared = || prefix.error_log().matches("dyreload_process begin").count();
    let ids: Vec<u64> = (2..=LAST).collect();
    let others: Vec<u64> = (3..=LAST + 1).collect();
    let twice = whole.replace(&format!("{};", prefix.port), &format!("{} default_server;", prefix.port));
    let refused = [
        // Each is wrong only as a whole.
        (&whole, Kind::Add, &others, "vsvc_ids="),
        (&twice, Kind::Set, &ids, "a duplicate default server"),
        (&whole.replace("vsvc_id 1000;", "vsvc_id 999;"), Kind::Add, &ids, "duplicate vsvc_id 999"),
    ];
    for (task_id, (text, kind, ids, reason)) in (1..).zip(refused) {
        prefix.write("auto_vhost/large.conf", text)?;
        let before = prepared();
        let verdict = proxy.task(kind, &["auto_vhost/large.conf"], ids, &[], task_id)?;
        ensure!(!verdict.done && verdict.line.reason().contains(reason), "{}", verdict.line.reason());
        wait::until("both workers to have begun", LIMIT, || prepared() == before + 2)?;
        for reply in proxy.ask_every_worker("v5.example", "/")? {
            ensure!(reply.text() != "v5", "task {task_id} was refused");
        }
    }
    // What workers refuse as well has nothing to do with the task that follows at once.
    prefix.write("auto_vhost/large.conf", &twice)?;
    prefix.write("auto_vhost/next.conf", &vhost(LAST + 1, prefix.port))?;
    let lines = [
        line(prefix, 4, Kind::Set, "auto_vhost/large.conf", &ids)?,
        line(prefix, 5, Kind::Add, "auto_vhost/next.conf", &[LAST + 1])?,
    ];
    ensure!(proxy.line(&lines.concat(), 5)?.done);
    ensure!(prefix.task_file().lines().iter().any(|line| line.task_id() == Some(4) && line.status() == Some('F')));
    serves(&proxy, LAST + 1)?;

    prefix.write("auto_vhost/large.conf", &whole)?;
    let verdict = proxy.task(Kind::Set, &["auto_vhost/large.conf"], &ids, &[], 10)?;
    verify::done(&proxy, &verdict)?;
    // Asked again, it is done already: nobody prepares it.
    let before = prepared();
    let verdict = proxy.task(Kind::Set, &["auto_vhost/large.conf"], &ids, &[], 10)?;
    ensure!(verdict.done && prepared() == before, "{}", verdict.line.reason());
    prefix.write("auto_vhost/small.conf", &vhost(1, prefix.port))?;
    let verdict = proxy.task(Kind::Add, &["auto_vhost/small.conf"], &[1], &[], 11)?;
    verify::done(&proxy, &verdict)?;
    for number in [1, 2, 999, 1000, LAST] {
        serves(&proxy, number)?;
    }
    ensure!(proxy.workers() == workers, "workers were replaced");
    Ok(())
}

#[test]
fn a_large_task_with_a_map_reaches_workers_as_a_whole() -> Result<()> {
    const LAST: u64 = 1500;
    let proxy = start("    dysvr_verify off;\n")?;
    let prefix = &proxy.prefix;
    let workers = proxy.workers();
    let vhosts: String = (2..=LAST).map(|number| vhost(number, prefix.port)).collect();
    let asks = vhost(LAST + 1, prefix.port).replace(&format!("return 200 v{}", LAST + 1), "return 200 $what");
    let text = "map $host $what { default other; v1501.example mapped; }\n".to_owned() + &vhosts + &asks;
    prefix.write("auto_vhost/large.conf", &text)?;
    let ids: Vec<u64> = (2..=LAST + 1).collect();
    let line = line(prefix, 1, Kind::Add, "auto_vhost/large.conf", &ids)?;
    let verdict = proxy.line(&line.replace(" task_id=", " maps=what task_id="), 1)?;
    verify::done(&proxy, &verdict)?;
    for reply in proxy.ask_every_worker(&format!("v{}.example", LAST + 1), "/")? {
        ensure!(reply.status == 200 && reply.text() == "mapped", "{} {:?}", reply.status, reply.text());
    }
    ensure!(proxy.workers() == workers, "workers were replaced");
    Ok(())
}

#[test]
fn each_of_many_lines_gets_its_verdict_whatever_becomes_of_the_others() -> Result<()> {
    const LINES: u64 = 300;
    let proxy = start("")?;
    let prefix = &proxy.prefix;
    let task_file = prefix.task_file();
    let mut text = String::from("# many\n");
    let wrong = |number: u64| number % 50 == 7;
    for number in 1..=LINES {
        let file = format!("auto_vhost/v{number}.conf");
        prefix.write(&file, &if wrong(number) { "server { nonsense; }".into() } else { vhost(number, prefix.port) })?;
        text += &line(prefix, number, Kind::Add, &file, &[number])?;
    }
    let workers = proxy.workers();
    ensure!(proxy.line(&text, LINES)?.done);
    // The times of all lines come with the last verdict.
    wait::until("times in every line", LIMIT, || {
        task_file.lines().iter().filter(|line| line.fields.contains_key("master_us")).count() as u64
            == LINES - (1..=LINES).filter(|number| wrong(*number)).count() as u64
    })?;
    for line in task_file.lines().iter().filter(|line| line.task_id().is_some()) {
        let number = line.task_id().unwrap_or_default();
        let expected = if wrong(number) { 'F' } else { 'D' };
        ensure!(line.status() == Some(expected), "{line:?}");
        ensure!(line.reason().contains("nonsense") == wrong(number), "{line:?}");
    }
    ensure!(fs::read_to_string(&task_file.path)?.starts_with("# many\n"), "comments stay");
    for number in [1, 6, 8, LINES] {
        serves(&proxy, number)?;
    }
    ensure!(proxy.workers() == workers, "workers were replaced");
    Ok(())
}

#[test]
fn the_one_task_of_a_file_is_answered_in_the_file_that_asked() -> Result<()> {
    let proxy = start("")?;
    let prefix = &proxy.prefix;
    prefix.write("auto_vhost/v1.conf", &vhost(1, prefix.port))?;
    let task_file = prefix.task_file();
    task_file.write(&line(prefix, 1, Kind::Add, "auto_vhost/v1.conf", &[1])?)?;
    let asked = fs::metadata(&task_file.path)?.ino();
    let mut watch = task_file.watch()?;
    ensure!(proxy.command_line(&["-s", "dysvr"])?.status.success());
    let verdict = watch.verdict(1, LIMIT)?;
    ensure!(verdict.done, "{:?}", verdict.line);
    ensure!(verdict.line.fields.contains_key("workers"), "the times are there before the D: {:?}", verdict.line);
    ensure!(fs::metadata(&task_file.path)?.ino() == asked);
    serves(&proxy, 1)
}
