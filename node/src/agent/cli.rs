//! The command line of `dysvr-node`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::disk::Disk;
use super::hands::Hands;
use super::journal::Journal;
use super::probe::{self, Question};
use super::proxy::{Layout, Settings};

use super::report::Observed;
use super::run::{self, Options};
use super::{hand, show, verify};
use crate::dysvr::verify::Outcome;
use crate::master::options::{CONF, PREFIX};
use crate::os::process::hostname;
use crate::task::Kind;
use crate::version::PROGRAM;

/// The agent of a node: takes tasks from controllers or from the shell and has the proxy apply them in place.
#[derive(Debug, Parser)]
#[command(name = "dysvr-node", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent
    Run(RunArgs),
    /// Change vhosts from the shell, without a controller (exit 0: done, 1: failed, with the reason)
    Task {
        #[command(subcommand)]
        verb: Verb,
        #[command(flatten)]
        place: PlaceArgs,
        /// Where free memory is read from: for containers whose limit is elsewhere
        #[arg(long, global = true, env = "DYSVR_MEMINFO", default_value = "/proc/meminfo")]
        meminfo: PathBuf,
    },
    /// Answer Kubernetes' probes (exit 0: yes, 1: no); neither asks about the control plane
    Probe {
        /// live: the master runs; ready: it has workers too
        what: Probed,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Have the master compare what it runs with what its files would start (exit 0: equal, 1: different, with both sides,
    /// or the files do not load; 2: not known)
    Verify {
        #[command(flatten)]
        place: PlaceArgs,
        /// How long to wait, in seconds: a difference is looked at twice, and tasks go first
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        timeout: u64,
    },
    /// Show what this node has and runs
    Status {
        #[command(flatten)]
        place: PlaceArgs,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Add the vhosts and upstreams of files; files from elsewhere are copied to auto_vhost/ or auto_upstream/
    Add {
        /// Configuration files
        #[arg(required = true)]
        files: Vec<String>,
    },
    /// Modify the vhosts and upstreams of files that are there
    Modify {
        /// Configuration files
        #[arg(required = true)]
        files: Vec<String>,
    },
    /// Delete vhosts
    Delete {
        /// Files of auto_vhost/, or vsvc_ids
        #[arg(required = true)]
        what: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Probed {
    Live,
    Ready,
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// The proxy's prefix
    #[arg(short, long, global = true, env = "DYSVR_PREFIX", default_value = PREFIX)]
    prefix: PathBuf,
    /// The main configuration file, relative to the prefix
    #[arg(short, long, global = true, env = "DYSVR_CONF", default_value = CONF)]
    conf: PathBuf,
    /// The dysvr-proxy program [default: beside this program]
    #[arg(long, global = true, env = "DYSVR_PROXY")]
    proxy: Option<PathBuf>,
    /// Where the agent keeps its journal [default: state/ below the prefix]
    #[arg(long, global = true, env = "DYSVR_NODE_STATE")]
    state: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The node's identity in the fleet [default: the host name]
    #[arg(long, env = "DYSVR_NODE_ID")]
    id: Option<String>,
    /// Labels of the node, KEY=VALUE; several by comma or by repeating the option
    #[arg(long = "label", env = "DYSVR_NODE_LABELS", value_delimiter = ',')]
    labels: Vec<String>,
    /// Controllers, http://HOST:PORT; several by comma or by repeating the option; without one tasks come by hand alone
    #[arg(long = "controller", env = "DYSVR_CONTROLLER", value_delimiter = ',')]
    controllers: Vec<String>,
    /// Use a proxy that somebody else starts and stops
    #[arg(long, env = "DYSVR_NODE_ATTACH")]
    attach: bool,
    #[command(flatten)]
    place: PlaceArgs,
    /// Where free memory is read from: for containers whose limit is elsewhere
    #[arg(long, env = "DYSVR_MEMINFO", default_value = "/proc/meminfo")]
    meminfo: PathBuf,
}

impl PlaceArgs {
    fn layout(self) -> io::Result<Layout> {
        let prefix = std::path::absolute(&self.prefix)?;
        // `..` of the caller's is nobody's business later: includes and reports name clean paths.
        let prefix = std::fs::canonicalize(&prefix).unwrap_or(prefix);
        let proxy = match self.proxy {
            Some(proxy) => proxy,
            None => std::env::current_exe()?.with_file_name(PROGRAM),
        };
        let state = self.state.map_or_else(|| Ok(prefix.join("state")), std::path::absolute)?;
        Ok(Layout { conf: prefix.join(self.conf), proxy, state, prefix })
    }
}

impl RunArgs {
    fn options(self) -> Result<Options, String> {
        let id = self.id.filter(|id| !id.is_empty()).unwrap_or_else(hostname);
        let mut labels = BTreeMap::new();
        for label in self.labels.iter().map(|label| label.trim()).filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').ok_or_else(|| format!("label \"{label}\" is not KEY=VALUE"))?;
            labels.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        let controllers = self.controllers.iter().map(|controller| controller.trim().to_owned());
        let controllers: Vec<String> = controllers.filter(|controller| !controller.is_empty()).collect();
        if let Some(odd) = controllers.iter().find(|c| !c.starts_with("http://") && !c.starts_with("https://")) {
            return Err(format!("controller \"{odd}\" is not http://HOST:PORT"));
        }
        let layout = self.place.layout().map_err(|e| e.to_string())?;
        Ok(Options { id, labels, controllers, layout, attach: self.attach, meminfo: self.meminfo })
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("DYSVR_LOG");
    let quiet = if matches!(cli.command, Command::Run(_)) { "info" } else { "error" };
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| quiet.into()))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    match command(cli.command) {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("dysvr-node: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> Result<ExitCode, String> {
    let text = |e: io::Error| e.to_string();
    match command {
        Command::Run(args) => run::run(args.options()?).map(|()| ExitCode::SUCCESS).map_err(text),
        Command::Task { verb, place, meminfo } => task(verb, place.layout().map_err(text)?, meminfo),
        Command::Probe { what, place } => {
            let question = match what {
                Probed::Live => Question::Live,
                Probed::Ready => Question::Ready,
            };
            print(&format!("{}\n", probe::ask(&place.layout().map_err(text)?, question)?))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { place, timeout } => verify(&place.layout().map_err(text)?, timeout).or_else(|problem| {
            eprintln!("dysvr-node: {problem}");
            Ok(ExitCode::from(2))
        }),
        Command::Status { place } => {
            let layout = place.layout().map_err(text)?;
            print(&status(&layout).map_err(text)?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Where output goes may be full or gone: that is an error like any other.
fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| format!("standard output: {e}"))
}

fn task(verb: Verb, layout: Layout, meminfo: PathBuf) -> Result<ExitCode, String> {
    let (kind, targets) = match verb {
        Verb::Add { files } => (Kind::Add, files),
        Verb::Modify { files } => (Kind::Modify, files),
        Verb::Delete { what } => (Kind::Delete, what),
    };
    let order = hand::order(&layout, kind, &targets).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let report = runtime.block_on(async {
        let hands = Hands::new(layout, meminfo)?;
        hand::carry_out(hands, order).await
    });
    let report = report.map_err(|e| e.to_string())?;
    print(&show::report(&report))?;
    Ok(if report.status == dysvr_proto::status::Status::Done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify(layout: &Layout, timeout: u64) -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let finding = runtime.block_on(verify::ask(layout, Duration::from_secs(timeout))).map_err(|e| e.to_string())?;
    print(&format!("{}\n{}", finding.sentence(), finding.text))?;
    Ok(match finding.outcome {
        Outcome::Equal => ExitCode::SUCCESS,
        Outcome::Different | Outcome::Unloadable => ExitCode::FAILURE,
        Outcome::Unknown => ExitCode::from(2),
    })
}

fn status(layout: &Layout) -> io::Result<String> {
    let settings = Settings::read(layout).unwrap_or_else(|_| Settings::usual(layout));
    let ledger = Journal::peek(&layout.state)?;
    let observed = match &ledger {
        Some(ledger) => Some(look(layout.conf_dir(), ledger)?),
        None => None,
    };
    Ok(show::status(layout, &settings, ledger.as_ref(), observed.as_ref()))
}

fn look(conf_dir: &Path, ledger: &super::ledger::Ledger) -> io::Result<Observed> {
    let mut disk = Disk::new(conf_dir);
    disk.refresh_all(ledger.files.names())?;
    Ok(Observed {
        digest: disk.manifest().digest(),
        drifted: ledger.files.differing(disk.manifest()),
        ..Observed::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    fn options(args: &[&str]) -> Result<Options, String> {
        let args = ["dysvr-node", "run", "--prefix", "/p"].iter().chain(args);
        match Cli::try_parse_from(args).map_err(|e| e.to_string())?.command {
            Command::Run(args) => args.options(),
            _ => unreachable!("run was asked for"),
        }
    }

    #[test]
    fn what_run_understands() {
        let all = options(&[
            "--id",
            "n1",
            "--label",
            "zone=a,pool=x",
            "--label",
            "gen=2",
            "--controller",
            "http://a:1,http://b:2",
            "--state",
            "/s",
        ])
        .unwrap();
        assert_eq!(all.id, "n1");
        let labels: Vec<String> = all.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["gen=2", "pool=x", "zone=a"]);
        assert_eq!(all.controllers, ["http://a:1", "http://b:2"]);
        assert_eq!(
            (all.layout.conf.as_path(), all.layout.state.as_path()),
            (Path::new("/p/conf/nginx.conf"), Path::new("/s"))
        );
        assert!(all.layout.proxy.ends_with("dysvr-proxy"));
        let least = options(&["--label", "", "--controller", ""]).unwrap();
        assert_eq!((least.labels.len(), least.controllers.len(), least.id.is_empty()), (0, 0, false));
        assert_eq!(least.layout.state, Path::new("/p/state"));
        assert_eq!(options(&["--label", "x"]).unwrap_err(), "label \"x\" is not KEY=VALUE");
        assert_eq!(options(&["--controller", "a:1"]).unwrap_err(), "controller \"a:1\" is not http://HOST:PORT");
    }
}
