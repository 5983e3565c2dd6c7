//! From the command line to a serving master, in nginx's order: parse, open the logs, bind and listen, and only then
//! write the pid file.

use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::rc::Rc;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::LoadOptions;
use dysvr_conf::main_conf::{ErrorLog, LogTarget};
use dysvr_conf::model::Config;
use dysvr_conf::recording::Recording;
use dysvr_conf::source::Source;

use super::options::{ERROR_LOG, Options};
use super::sockets::Sockets;
use super::takeover::{Takeover, open_or_clear};
use super::{Master, all_signals};
use crate::cycle::{self, Cycle, Loaded};
use crate::dysvr::ahead::ReadAhead;
use crate::log::{self, Level, Log};
use crate::os::channel::Channel;
use crate::os::errno;
use crate::os::fork::{daemonize, redirect};
use crate::os::marks::Marks;
use crate::os::memory;
use crate::os::process::{Owner, is_root};
use crate::os::signal::{self, Signals};
use crate::os::zone::Zone;
use crate::pid_file::{self, NoMaster};
use crate::worker::{self, Birth};

/// Runs the program; gives its exit code.
pub fn run(options: Options) -> i32 {
    if options.version || options.configure {
        eprint!("{}", crate::version::text(options.configure));
        return 0;
    }
    memory::small_pages();
    match begin(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nginx: [emerg] {error}");
            log!(Level::Emerg, "{error}");
            1
        }
    }
}

fn begin(options: Options) -> Result<i32, String> {
    let prefix = std::path::absolute(&options.prefix).map_err(|error| errno(&error))?;
    // The log exists from the very start, whatever the configuration will say.
    log::set_current(early_log(&options, &prefix));
    log::log_panics();
    let mut interner = Interner::default();
    if options.test || options.dump {
        return Ok(test(&options, &prefix, &mut interner));
    }
    let conf = load(&options, &prefix, &mut interner)?;
    if let Some(name) = options.signal {
        return Ok(send(&prefix.join(&conf.main.pid), name.number()));
    }
    let cycle = Cycle::load(conf).map_err(|refusal| refusal.to_string())?;
    interner.forget_dead();
    let log = open_log(&options, &cycle.conf, &prefix)?;
    let keep_stderr = options.error_log.as_deref() == Some(Path::new("stderr")) || has_stderr(&cycle.conf);
    let owner = owner(&cycle.conf)?;
    let mut sockets = Sockets::default();
    let count = cycle.conf.main.worker_processes.unwrap_or_else(crate::os::process::processors) as usize;
    let pid_file = prefix.join(&cycle.conf.main.pid);
    let marks = open_marks(&pid_file)?;
    let mut takeover = Takeover::begin(&pid_file, &marks).map_err(|error| of_marks(&pid_file, &error))?;
    sockets.adopt(takeover.sockets());
    let opened = open_or_clear(&mut takeover, || sockets.open(&cycle.sockets(), count))?;
    sockets.take_over(opened);
    sockets.follow(&cycle, count);
    if let Some(owner) = &owner {
        log::chown_all(owner.uid);
    }
    let mut starter = None;
    if cycle.conf.main.daemon {
        starter = Some(daemonize().map_err(|error| format!("daemon() failed ({})", errno(&error)))?);
        if !keep_stderr {
            let null = std::fs::OpenOptions::new().write(true).open("/dev/null").map_err(|error| errno(&error))?;
            redirect(&null, 2).map_err(|error| errno(&error))?;
        }
    }
    // From here on the configuration's log alone.
    log::set_current(log);
    for warning in &cycle.conf.warnings {
        log!(Level::Warn, "{warning}");
    }
    signal::ignore_pipe();
    let signals = Signals::block(&all_signals()).map_err(|error| format!("signalfd() failed ({})", errno(&error)))?;
    let zone = zone(&cycle, None).map_err(|error| format!("mmap() failed ({})", errno(&error)))?;
    make_task_folder(&cycle, &prefix);
    write_pid(&pid_file, &marks)?;
    takeover.settled();
    if let Some(starter) = starter {
        starter.release();
    }
    log!(Level::Notice, "{}", crate::version::NAME);
    if !cycle.conf.main.master_process {
        takeover.dismiss();
        return Ok(alone(cycle, interner, sockets, zone, owner, prefix, marks));
    }
    let master = Master {
        options,
        prefix,
        marks: Rc::new(marks),
        cycle: Rc::new(cycle),
        is_damaged: false,
        interner,
        sockets,
        zone,
        signals,
        workers: Default::default(),
        owner,
        generation: 0,
        tasks: Default::default(),
        reload: Default::default(),
        births: Default::default(),
        quarantine: Default::default(),
        watchdog: Default::default(),
        verify: Default::default(),
        leaving: None,
        takeover,
        children: false,
    };
    match master.serve() {
        Ok(()) => Ok(0),
        Err(error) => Err(format!("master failed ({})", errno(&error))),
    }
}

/// `master_process off`: this process is the one worker. There is no master that could reload or update in place.
fn alone(
    cycle: Cycle,
    interner: Interner,
    mut sockets: Sockets,
    zone: Rc<Zone>,
    owner: Option<Owner>,
    prefix: std::path::PathBuf,
    marks: Marks,
) -> i32 {
    let pid = prefix.join(&cycle.conf.main.pid);
    let channel = Channel::pair().and_then(|(ours, theirs)| Ok((ours, theirs, sockets.of_worker(0)?)));
    let code = match channel {
        Ok((_ours, channel, own)) => {
            let cycle = Rc::new(cycle);
            sockets.close_all();
            worker::run(Birth {
                slot: 0,
                confined: false,
                channel,
                sockets: own,
                zone,
                version: 0,
                cycle,
                interner,
                owner,
                prefix,
                marks: Rc::new(marks),
            })
        }
        Err(error) => {
            log!(Level::Emerg, "socketpair() failed ({})", errno(&error));
            1
        }
    };
    sockets.remove_files();
    let _ = std::fs::remove_file(pid);
    code
}

/// Reads the configuration. The error is one line per problem, each as nginx words it.
pub(super) fn load(options: &Options, prefix: &Path, interner: &mut Interner) -> Result<Loaded, String> {
    load_from(options, prefix, interner, &mut ReadAhead::default())
}

fn load_from(
    options: &Options,
    prefix: &Path,
    interner: &mut Interner,
    source: &mut dyn Source,
) -> Result<Loaded, String> {
    memory::give_back_at_once();
    cycle::load(&load_options(options, prefix), source, interner)
        .map_err(|problems| problems.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nnginx: [emerg] "))
}

/// What the command line says about a load.
pub(super) fn load_options(options: &Options, prefix: &Path) -> LoadOptions {
    LoadOptions {
        conf: prefix.join(&options.conf),
        prefix: prefix.to_owned(),
        globals: options.globals.clone().unwrap_or_default(),
        privileged: is_root(),
    }
}

/// `-t` and `-T`.
fn test(options: &Options, prefix: &Path, interner: &mut Interner) -> i32 {
    let conf = prefix.join(&options.conf);
    let conf = conf.display();
    let mut recording = Recording::new(ReadAhead::default());
    let loaded = match options.dump {
        true => load_from(options, prefix, interner, &mut recording),
        false => load(options, prefix, interner),
    };
    let tested = loaded.and_then(|loaded| {
        for warning in &loaded.warnings {
            eprintln!("nginx: [warn] {warning}");
        }
        // The process ends soon: to free a large configuration piece by piece would be a quarter of all that it does.
        let cycle = ManuallyDrop::new(Cycle::load(loaded).map_err(|refusal| refusal.to_string())?);
        if !options.quiet {
            eprintln!("nginx: the configuration file {conf} syntax is ok");
        }
        owner(&cycle.conf)?;
        open_log(options, &cycle.conf, prefix).map(drop)
    });
    match tested {
        Ok(()) => {
            if !options.quiet {
                eprintln!("nginx: configuration file {conf} test is successful");
            }
            if options.dump {
                dump(&recording);
            }
            0
        }
        Err(error) => {
            eprintln!("nginx: [emerg] {error}");
            eprintln!("nginx: configuration file {conf} test failed");
            1
        }
    }
}

fn dump(recording: &Recording<ReadAhead>) {
    let mut out = io::stdout().lock();
    for (path, bytes) in recording.sources().files() {
        let _ = writeln!(out, "# configuration file {}:", path.display());
        let _ = out.write_all(bytes);
        let _ = out.write_all(b"\n");
    }
}

fn early_log(options: &Options, prefix: &Path) -> Log {
    let target = match &options.error_log {
        Some(path) if path.as_os_str() == "stderr" => LogTarget::Stderr,
        Some(path) => LogTarget::File(path.clone()),
        None => LogTarget::File(ERROR_LOG.into()),
    };
    Log::open(&[ErrorLog { target, level: Level::Error }], prefix).unwrap_or_else(|error| {
        let path = prefix.join(options.error_log.as_deref().unwrap_or(Path::new(ERROR_LOG)));
        eprintln!(
            "nginx: [alert] could not open error log file: open() \"{}\" failed ({})",
            path.display(),
            errno(&error)
        );
        Log::nowhere()
    })
}

fn has_stderr(conf: &Config) -> bool {
    conf.main.error_logs.iter().any(|log| log.target == LogTarget::Stderr)
}

/// The error log of a configuration.
pub(super) fn open_log(options: &Options, conf: &Config, prefix: &Path) -> Result<Log, String> {
    if conf.main.error_logs.is_empty() {
        return Ok(early_log(options, prefix));
    }
    Log::open(&conf.main.error_logs, prefix).map_err(|error| format!("open() of error_log failed ({})", errno(&error)))
}

/// The user of the workers; without root there is none, as in nginx.
pub(super) fn owner(conf: &Config) -> Result<Option<Owner>, String> {
    if !is_root() {
        return Ok(None);
    }
    let (user, group) = match &conf.main.user {
        Some((user, group)) => (user.as_str(), group.as_deref()),
        None => ("nobody", None),
    };
    Owner::find(user, group).map(Some)
}

/// The zone for a cycle: the one that there is if its size fits, so that versions go on rising.
pub(super) fn zone(cycle: &Cycle, old: Option<&Rc<Zone>>) -> io::Result<Rc<Zone>> {
    let size = cycle.http().map_or(0, |http| http.main.dysvr.shm_size);
    match old {
        Some(zone) if zone.is_for(size) => Ok(Rc::clone(zone)),
        _ => Zone::new(size, old.map_or(0, |zone| zone.version())).map(Rc::new),
    }
}

/// The folder of the task file, so that a shell can write a task without the agent.
fn make_task_folder(cycle: &Cycle, prefix: &Path) {
    let path = crate::dysvr::task_file(cycle.http().as_deref(), prefix);
    // Whatever the umask (a daemon has none): who may write there may put a task file there.
    let mut make = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(make.recursive(true), 0o755);
    if let Some(folder) = path.parent()
        && let Err(error) = make.create(folder)
    {
        log!(Level::Error, "mkdir() \"{}\" failed ({})", folder.display(), errno(&error));
    }
}

/// The file with the marks of a pid file.
pub(super) fn open_marks(pid_file: &Path) -> Result<Marks, String> {
    let path = pid_file::marks(pid_file);
    Marks::open(&path).map_err(|error| format!("open() \"{}\" failed ({})", path.display(), errno(&error)))
}

/// The same, where `held` may be that file under another path: a second descriptor of it, once closed, would take its
/// marks away.
pub(super) fn marks_at(pid_file: &Path, held: &Rc<Marks>) -> Result<Rc<Marks>, String> {
    if held.are_at(&pid_file::marks(pid_file)).map_err(|error| of_marks(pid_file, &error))? {
        return Ok(Rc::clone(held));
    }
    open_marks(pid_file).map(Rc::new)
}

fn of_marks(pid_file: &Path, error: &io::Error) -> String {
    format!("locks of \"{}\" cannot be read ({})", pid_file::marks(pid_file).display(), errno(error))
}

/// Makes this process the master of a pid file.
pub(super) fn write_pid(path: &Path, marks: &Marks) -> Result<(), String> {
    pid_file::write(path, marks).map_err(|error| format!("open() \"{}\" failed ({})", path.display(), errno(&error)))
}

/// `-s`: signals the master of a pid file; gives the exit code. In nginx's words, for the tools that read them.
fn send(path: &Path, number: i32) -> i32 {
    let fail = |level: Level, text: String| {
        eprintln!("nginx: [{}] {text}", level.name());
        log!(level, "{text}");
        1
    };
    if let Err(error) = std::fs::metadata(path) {
        return fail(Level::Error, format!("open() \"{}\" failed ({})", path.display(), errno(&error)));
    }
    match pid_file::master(path) {
        Ok(master) => match master.send(number) {
            Ok(()) => 0,
            Err(error) => fail(Level::Alert, format!("kill({}, {number}) failed ({})", master.pid(), errno(&error))),
        },
        Err(NoMaster::Ended(pid)) => fail(Level::Alert, format!("kill({pid}, {number}) failed (3: No such process)")),
        Err(NoMaster::NoPid { path, text }) => {
            fail(Level::Error, format!("invalid PID number \"{text}\" in \"{path}\""))
        }
        Err(error) => fail(Level::Alert, error.to_string()),
    }
}
