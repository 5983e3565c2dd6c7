//! What becomes of the task file, of signals and of the disk under it: damaged or foreign files are refused and change
//! nothing, signals are hints, a full disk loses no configuration.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use dysvr_tests::poison::Rig;
use dysvr_tests::prefix::MainConf;
use dysvr_tests::proxy::LIMIT;
use dysvr_tests::task::{Kind, Line};
use dysvr_tests::{procfs, signal, wait};
use nix::sys::signal::Signal;

fn rig() -> Result<Rig> {
    Rig::start(&MainConf::default())
}

/// The file of a vhost and the line of its task, which is not written yet.
fn prepared(rig: &Rig, id: u64, name: &str) -> Result<(String, u64)> {
    let prefix = &rig.proxy.prefix;
    prefix.write(&format!("auto_vhost/{id}.conf"), &dysvr_tests::poison::vhost(prefix, id, name, &rig.origin, ""))?;
    let task = rig.next_task();
    let conf = prefix.task_file().path.with_file_name(format!("dysvr_{task}.conf"));
    fs::write(&conf, format!("include {};\n", prefix.conf(&format!("auto_vhost/{id}.conf")).display()))?;
    Ok((Line::text(Kind::Add, &conf, &[id], &[&format!("u{id}")], task), task))
}

#[test]
fn whatever_is_no_task_file_is_refused_and_the_next_task_works() -> Result<()> {
    let rig = rig()?;
    let workers = rig.proxy.workers();
    let (line, task) = prepared(&rig, 2, "a.example")?;
    let path = rig.proxy.prefix.task_file().path;
    let good = path.with_file_name("good.conf");
    fs::write(&good, format!("{line}\n"))?;
    let fifo = |path: &Path| -> Result<()> {
        let path = CString::new(path.to_str().context("no text")?)?;
        Ok(nix::unistd::mkfifo(path.as_c_str(), nix::sys::stat::Mode::S_IRWXU)?)
    };
    type Make<'a> = Box<dyn Fn() -> Result<()> + 'a>;
    let table: Vec<(&str, &str, Make)> = vec![
        ("a symlink", "is a symbolic link", Box::new(|| Ok(symlink(&good, &path)?))),
        ("a FIFO", "is not a regular file", Box::new(|| fifo(&path))),
        ("a folder", "is not a regular file", Box::new(|| Ok(fs::create_dir(&path)?))),
        (
            "a file that all may write",
            "may be written by everybody",
            Box::new(|| {
                fs::copy(&good, &path)?;
                Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?)
            }),
        ),
        (
            "a foreign file",
            "is owned by uid 12345",
            Box::new(|| {
                fs::copy(&good, &path)?;
                Ok(chown(&path, Some(12345), None)?)
            }),
        ),
        ("a huge file", "is larger than", Box::new(|| Ok(fs::File::create(&path)?.set_len(1 << 30)?))),
        ("no file", "No such file", Box::new(|| Ok(()))),
        ("a NUL in a line", "refused", Box::new(|| Ok(fs::write(&path, line.replace("status", "sta\0tus"))?))),
        (
            "bytes that are no text",
            "refused",
            Box::new(|| Ok(fs::write(&path, [line.as_bytes(), b" x=\xff\xfe\n"].concat())?)),
        ),
        ("zeroes", "refused", Box::new(|| Ok(fs::write(&path, [0; 4096])?))),
        ("a device", "is not a regular file", Box::new(|| Ok(symlink("/dev/null", &path)?))),
    ];
    for (what, why, make) in &table {
        if *what == "a foreign file" && !nix::unistd::geteuid().is_root() {
            continue;
        }
        let before = rig.proxy.prefix.error_log().len();
        if path.is_dir() {
            fs::remove_dir(&path)?
        } else {
            drop(fs::remove_file(&path))
        }
        make().with_context(|| (*what).to_owned())?;
        let why = if *what == "a device" { "is a symbolic link" } else { why };
        signal::send_dysvr(rig.proxy.master())?;
        wait::eventually(&format!("the refusal of {what}"), LIMIT * 3, || -> Result<()> {
            let log = rig.proxy.prefix.error_log();
            ensure!(log[before..].contains(why) && log[before..].contains("refused"), "{}", &log[before..]);
            Ok(())
        })?;
        rig.everywhere("a.example", 404).with_context(|| (*what).to_owned())?;
    }
    drop(fs::remove_file(&path));
    let verdict = rig.proxy.line(&line, task)?;
    ensure!(verdict.done, "{verdict:?}");
    rig.everywhere("a.example", 200)?;
    ensure!(rig.proxy.workers() == workers, "workers were replaced");
    Ok(())
}

#[test]
fn a_flipped_bit_is_refused_by_the_master_too() -> Result<()> {
    // Every bit is flipped where the file is read (node/src/task/tests.rs); here a sample goes all the way.
    let step: usize = if std::env::var_os("DYSVR_EVERY_BIT").is_some() { 1 } else { 23 };
    let rig = rig()?;
    let (line, task) = prepared(&rig, 2, "a.example")?;
    let file = rig.proxy.prefix.task_file();
    for bit in (0..line.len() * 8).step_by(step) {
        let mut bytes = line.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let beside = file.path.with_extension("new");
        fs::write(&beside, [&bytes[..], b"\n"].concat())?;
        fs::rename(&beside, &file.path)?;
        signal::send_dysvr(rig.proxy.master())?;
        wait::eventually(&format!("the refusal with bit {bit} flipped"), LIMIT * 3, || -> Result<()> {
            let text = fs::read(&file.path)?;
            let text = String::from_utf8_lossy(&text);
            ensure!(text.contains("status=F") && text.contains("reason="), "{text}");
            Ok(())
        })?;
    }
    rig.everywhere("a.example", 404)?;
    ensure!(rig.proxy.line(&line, task)?.done);
    rig.everywhere("a.example", 200)
}

#[test]
fn signals_in_any_number_and_order_are_hints() -> Result<()> {
    let rig = rig()?;
    let master = rig.proxy.master();
    let ending = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let ending = &ending;
        let noise = scope.spawn(move || {
            let plain = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGCHLD, Signal::SIGHUP];
            let mut sent = 0_usize;
            while !ending.load(std::sync::atomic::Ordering::Relaxed) && sent < 100_000 {
                // HUP rarely: each one makes two processes.
                let which = plain[if sent.is_multiple_of(2000) { 4 } else { sent % 4 }];
                drop(signal::send(master, which));
                drop(signal::send_dysvr(master));
                sent += 1;
                // A queue that is always full would be the test's doing, not the master's.
                if sent.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
            sent
        });
        let work = || -> Result<()> {
            // A reload in between reads the files as they are: what is added would be there already.
            for id in 2..12 {
                rig.done(Kind::Modify, 1, &format!("good.example v{id}.example"), "")?;
            }
            Ok(())
        };
        let worked = work();
        ending.store(true, std::sync::atomic::Ordering::Relaxed);
        let sent = noise.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        println!("{sent} signals of two kinds");
        worked
    })?;
    // Ten thousand at once, while the master cannot take any in; then a task among them.
    signal::send(master, Signal::SIGSTOP)?;
    wait::until("the master to stop", LIMIT, || procfs::state(master) == Some('T'))?;
    let (line, task) = prepared(&rig, 20, "v20.example")?;
    rig.proxy.prefix.task_file().write(&format!("{line}\n"))?;
    let queued = (0..10_000).filter(|_| signal::send_dysvr(master).is_ok()).count();
    ensure!(queued > 0);
    let mut watch = rig.proxy.prefix.task_file().watch()?;
    signal::send(master, Signal::SIGCONT)?;
    ensure!(watch.verdict(task, LIMIT * 3)?.done);
    rig.all_workers()?;
    for id in [11, 20] {
        rig.everywhere(&format!("v{id}.example"), 200)?;
    }
    Ok(())
}

/// A small file system of its own over a folder; gone when this is dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_full_or_read_only_disk_under_the_task_file_costs_answers_and_nothing_else() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: mounting takes root");
        return Ok(());
    }
    let rig = rig()?;
    let path = rig.proxy.prefix.task_file().path;
    let folder = path.parent().context("no folder")?.to_owned();
    let mount = |options: &str| -> Result<bool> {
        Ok(Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&folder).status()?.success())
    };
    if !mount("size=256k,nr_inodes=64")? {
        println!("skipped: mount(2) is not allowed here");
        return Ok(());
    }
    let mounted = Mounted(folder.clone());
    rig.done(Kind::Add, 2, "a.example", "")?;
    // No byte is left behind the task.
    for (what, fill) in [("blocks", true), ("inodes", false)] {
        let (line, task) = prepared(&rig, if fill { 3 } else { 4 }, &format!("{what}.example"))?;
        rig.proxy.prefix.task_file().write(&format!("{line}\n"))?;
        let mut number = 0;
        while let Ok(mut file) = fs::File::create_new(folder.join(format!("fill{number}"))) {
            number += 1;
            if fill && std::io::Write::write_all(&mut file, &[1; 4096]).is_err() {
                break;
            }
        }
        signal::send_dysvr(rig.proxy.master())?;
        rig.proxy.wait_log(&format!("task_id {task} done")).context(what)?;
        rig.everywhere(&format!("{what}.example"), 200).context(what)?;
        for number in 0..number {
            fs::remove_file(folder.join(format!("fill{number}")))?;
        }
        // Room again: the next task is answered.
        rig.done(Kind::Modify, 2, &format!("a.example {what}.after.example"), "").context(what)?;
    }
    let (line, task) = prepared(&rig, 5, "readonly.example")?;
    rig.proxy.prefix.task_file().write(&format!("{line}\n"))?;
    ensure!(Command::new("mount").args(["-o", "remount,ro"]).arg(&folder).status()?.success());
    signal::send_dysvr(rig.proxy.master())?;
    rig.proxy.wait_log(&format!("task_id {task} done"))?;
    rig.proxy.wait_log("[crit]")?;
    rig.everywhere("readonly.example", 200)?;
    ensure!(Command::new("mount").args(["-o", "remount,rw"]).arg(&folder).status()?.success());
    // Asked again, it is answered.
    ensure!(rig.proxy.line(&line, task)?.done);
    rig.done(Kind::Add, 6, "last.example", "")?;
    rig.everywhere("last.example", 200)?;
    let log = rig.proxy.prefix.error_log();
    ensure!(!log.contains("[alert]") && !log.contains("panicked"), "{log}");
    drop(mounted);
    Ok(())
}
