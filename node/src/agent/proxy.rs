//! The proxy as the agent meets it: where its files are, and how it is started.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dysvr_conf::intern::Interner;
use dysvr_conf::load::{LoadOptions, load};
use dysvr_conf::syntax;

use super::overlay::Overlay;
use crate::dysvr;
use crate::os::procfs::{self, parent};

/// Where things are on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `-p`.
    pub prefix: PathBuf,
    /// The main configuration file, absolute.
    pub conf: PathBuf,
    /// `dysvr-proxy` itself.
    pub proxy: PathBuf,
    /// Where the agent keeps its journal.
    pub state: PathBuf,
}

impl Layout {
    /// The directory that managed files are named relative to.
    pub fn conf_dir(&self) -> &Path {
        self.conf.parent().unwrap_or(Path::new("/"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.proxy);
        command.arg("-p").arg(&self.prefix).arg("-c").arg(&self.conf);
        command
    }

    /// `dysvr-proxy -t`. An error is the first line that it says at `emerg`, or the first at all.
    pub fn test(&self) -> Result<(), String> {
        let mut command = self.command();
        let done = command.arg("-t").stdin(Stdio::null()).output();
        let done = done.map_err(|e| format!("{} -t: {e}", self.proxy.display()))?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let line = said.lines().find(|line| line.contains("[emerg]")).or(said.lines().next());
        let line = line.map(|line| line.split_once("[emerg] ").map_or(line, |(_, text)| text));
        Err(line.map_or_else(|| format!("{} -t: {}", self.proxy.display(), done.status), str::to_owned))
    }

    /// Starts the proxy as a child of this process, in a process group of its own: Ctrl-C in a terminal is for the agent,
    /// which ends the proxy gracefully. Where the configuration has a `daemon` of its own a second one would be refused;
    /// a proxy that goes to the background is found by its pid file.
    pub fn start(&self) -> io::Result<Child> {
        let mut command = self.command();
        if !self.says_daemon() {
            command.args(["-g", "daemon off;"]);
        }
        command.stdin(Stdio::null()).process_group(0).spawn()
    }

    fn says_daemon(&self) -> bool {
        let text = fs::read(&self.conf).unwrap_or_default();
        syntax::parse(&text, &syntax::Arena::new()).directives.iter().any(|directive| directive.name() == "daemon")
    }
}

/// What the agent must know of the main configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `pid`.
    pub pid_file: PathBuf,
    /// `dysvr_reload_conf`.
    pub task_file: PathBuf,
    /// `dysvr_task_timeout`.
    pub task_timeout: Duration,
    /// `dysvr`.
    pub enabled: bool,
}

impl Settings {
    /// Reads them, with the vhosts left out: a bad vhost must not keep the agent from the task that repairs it.
    pub fn read(layout: &Layout) -> Result<Self, String> {
        let options = LoadOptions {
            conf: layout.conf.clone(),
            prefix: layout.prefix.clone(),
            globals: String::new(),
            privileged: nix::unistd::geteuid().is_root(),
        };
        let mut source = Overlay::without_patterns();
        let config = load(&options, &mut source, &mut Interner::default()).map_err(|problems| problems.to_string())?;
        let dysvr = config.http.as_ref().map(|http| http.main.dysvr.clone()).unwrap_or_default();
        Ok(Self {
            pid_file: layout.prefix.join(&config.main.pid),
            task_file: dysvr::task_file(config.http.as_ref(), &layout.prefix),
            task_timeout: dysvr.task_timeout,
            enabled: dysvr.enable,
        })
    }
}

impl Settings {
    /// Those of a configuration that sets none.
    pub fn usual(layout: &Layout) -> Self {
        Self {
            pid_file: layout.prefix.join("logs/nginx.pid"),
            task_file: dysvr::default_task_file(&layout.prefix),
            task_timeout: Duration::from_secs(10),
            enabled: true,
        }
    }
}

impl Settings {
    /// What can be made out of a main configuration that does not load: the two paths, wherever they stand in it.
    pub fn guess(layout: &Layout) -> Self {
        let text = fs::read(&layout.conf).unwrap_or_default();
        let arena = syntax::Arena::new();
        let tree = syntax::parse(&text, &arena);
        let path_of = |name: &str| {
            let http = tree.directives.iter().filter_map(|directive| directive.block.as_ref());
            let all = tree.directives.iter().chain(http.flat_map(|block| block.directives.iter()));
            let found = all.filter(|directive| directive.name() == name).find_map(|directive| directive.words.get(1));
            found.map(|word| layout.prefix.join(word.text))
        };
        let usual = Self::usual(layout);
        Self {
            pid_file: path_of("pid").unwrap_or(usual.pid_file),
            task_file: path_of("dysvr_reload_conf").unwrap_or(usual.task_file),
            ..usual
        }
    }
}

/// The children of a process, without a master's twin, which serves nobody.
pub fn children(pid: u32) -> Vec<u32> {
    // Each thread has the children that it forked.
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts: Vec<String> = tasks.filter_map(|task| procfs::text(task.path().join("children")).ok()).collect();
    if !texts.is_empty() {
        let pids = texts.iter().flat_map(|text| text.split_whitespace()).filter_map(|pid| pid.parse().ok());
        return pids.filter(|pid| serves(*pid)).collect();
    }
    // A kernel without that file.
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&child| parent(child) == Some(pid) && serves(child)).collect()
}

fn serves(child: u32) -> bool {
    procfs::running(child).is_some_and(|name| name != dysvr::verify::TWIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_its_own_children() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children(std::process::id()).contains(&child.id()));
    }
}
