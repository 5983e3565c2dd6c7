//! The command line: what can be said, in kubectl's habits.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::{exit, quantity};

/// Where a controller is, unless told otherwise.
pub const DEFAULT_CONTROLLER: &str = "http://127.0.0.1:7480";
/// The environment's word for `--controller`.
pub const CONTROLLER_ENV: &str = "DYSVR_CONTROLLER";

/// Rolls vhosts out over a fleet of dysvr nodes.
#[derive(Debug, Parser)]
#[command(name = "dysvrctl", version, after_help = exit::HELP, after_long_help = exit::HELP)]
#[command(disable_help_subcommand = true, max_term_width = 120)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The controllers, tried in this order [env: DYSVR_CONTROLLER] [default: http://127.0.0.1:7480]
    #[arg(long, global = true, value_name = "URL[,URL]", value_delimiter = ',', help_heading = "Global options")]
    pub controller: Vec<String>,
    /// How long one request to a controller may take (such as 500ms, 30s, 2m; 0: for ever)
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", help_heading = "Global options")]
    #[arg(value_parser = quantity::duration)]
    pub request_timeout: Duration,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Check files without storing anything; every problem is printed as FILE:LINE: TEXT
    Validate(Validate),
    /// Show what applying files would change, as a unified diff
    Diff(Diff),
    /// Store files as a new revision and roll it out
    Apply(Apply),
    /// Take vhosts out of the fleet
    Delete(Delete),
    /// List vhosts, upstreams, nodes, rollouts, revisions or tasks
    Get(Get),
    /// Show everything about a vhost, upstream, node, rollout or revision
    Describe(Describe),
    /// Look at and steer rollouts
    #[command(subcommand)]
    Rollout(Rollout),
    /// Decide about a node whose files were changed by hand
    #[command(subcommand)]
    Node(Node),
    /// Print a shell's completion script (source <(dysvrctl completion bash))
    Completion(Completion),
    /// Print the version
    Version(Version),
}

/// Where the operator's files are.
#[derive(Clone, Debug, Args)]
pub struct Inputs {
    /// A vhost file, a configuration directory (its auto_vhost/*.conf, or its *.conf), or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub filename: Vec<PathBuf>,
    /// Look for configurations in the subdirectories of a directory, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// The name of the vhost file that standard input holds
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

impl Global {
    /// The controllers' URLs: of the option, else of the environment (`env`), else the default.
    pub fn controllers(&self, env: Option<String>) -> Vec<String> {
        if !self.controller.is_empty() {
            return self.controller.clone();
        }
        let urls = env.filter(|urls| !urls.is_empty()).unwrap_or_else(|| DEFAULT_CONTROLLER.to_owned());
        urls.split(',').map(str::to_owned).collect()
    }
}

/// `validate`
#[derive(Debug, Args)]
pub struct Validate {
    /// Where the files are.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Ask no controller, even when a file is missing here that the fleet may have
    #[arg(long)]
    pub offline: bool,
}

/// `diff`
#[derive(Debug, Args)]
pub struct Diff {
    /// Where the files are.
    #[command(flatten)]
    pub inputs: Inputs,
}

/// How a rollout moves.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Rollout")]
pub struct Strategy {
    /// Sizes of the waves, in nodes or in percent of the fleet; the last one repeats [default: 1,25%,100%]
    #[arg(long, value_name = "N|P%,…", value_delimiter = ',', value_parser = quantity::wave)]
    pub waves: Vec<String>,
    /// How many nodes may fail before everything is undone [default: 0]
    #[arg(long, value_name = "N|P%", value_parser = quantity::budget)]
    pub failure_budget: Option<String>,
    /// How long health is watched after each wave [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    pub soak: Option<Duration>,
    /// A node that has not answered by then has failed [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    pub node_deadline: Option<Duration>,
    /// Only nodes with these labels
    #[arg(short = 'l', long = "selector", value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = quantity::label)]
    pub selector: Vec<(String, String)>,
    /// Leave a failed rollout where it is
    #[arg(long)]
    pub no_auto_undo: bool,
}

/// Whether a command stays until its rollout has ended.
#[derive(Clone, Debug, Args)]
pub struct Waiting {
    /// Follow the rollout and exit by how it ends
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this time, which does not stop the rollout (0: never)
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = quantity::duration, requires = "wait")]
    pub timeout: Duration,
}

/// What a change is called in the history.
#[derive(Clone, Debug, Args)]
pub struct Note {
    /// What the change is for, for the history
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub message: Option<String>,
}

/// `apply`
#[derive(Debug, Args)]
pub struct Apply {
    /// Where the files are.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Check and show what would change; store nothing
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// For the history.
    #[command(flatten)]
    pub note: Note,
    /// Output format
    #[arg(
        short,
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "json|yaml|name",
        conflicts_with = "wait"
    )]
    pub output: Option<Machine>,
    /// Whether to stay.
    #[command(flatten)]
    pub waiting: Waiting,
    /// How to roll out.
    #[command(flatten)]
    pub strategy: Strategy,
}

/// `delete`
#[derive(Debug, Args)]
pub struct Delete {
    /// vhost and its names (a vsvc_id, a server name or a file), or vhost/NAME
    #[arg(value_name = "vhost NAME", required_unless_present = "filename")]
    pub words: Vec<String>,
    /// Delete the vhosts of these files
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR", conflicts_with = "words")]
    pub filename: Vec<PathBuf>,
    /// Look for configurations in the subdirectories of a directory, too
    #[arg(short = 'R', long, requires = "filename")]
    pub recursive: bool,
    /// Check and show what would change; store nothing
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// For the history.
    #[command(flatten)]
    pub note: Note,
    /// Whether to stay.
    #[command(flatten)]
    pub waiting: Waiting,
    /// How to roll out.
    #[command(flatten)]
    pub strategy: Strategy,
}

/// `get`
#[derive(Debug, Args)]
pub struct Get {
    /// A type (vhosts, upstreams, nodes, rollouts, revisions, tasks) and names, or TYPE/NAME
    #[arg(value_name = "TYPE [NAME]", required = true)]
    pub words: Vec<String>,
    /// Output format
    #[arg(short, long, value_enum, hide_possible_values = true, value_name = "table|wide|json|yaml|name", default_value_t = Format::Table)]
    pub output: Format,
    /// Leave the headings of a table out
    #[arg(long)]
    pub no_headers: bool,
    /// After the list, print again what changes, until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// Nodes: only those with these labels
    #[arg(short = 'l', long = "selector", value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = quantity::label)]
    pub selector: Vec<(String, String)>,
    /// Tasks: only those of this rollout
    #[arg(long, value_name = "ID", value_parser = quantity::rollout)]
    pub rollout: Option<u64>,
    /// Tasks: only those of this node
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Tasks: at most so many, the newest
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
}

/// `describe`
#[derive(Debug, Args)]
pub struct Describe {
    /// A type (vhost, upstream, node, rollout, revision) and names, or TYPE/NAME; all of them without a name
    #[arg(value_name = "TYPE [NAME]", required = true)]
    pub words: Vec<String>,
}

/// A rollout, the newest one if it is not named.
#[derive(Clone, Copy, Debug, Args)]
pub struct WhichRollout {
    /// The rollout, such as 7 or rollout/7 [default: the newest]
    #[arg(value_name = "ID", value_parser = quantity::rollout)]
    pub id: Option<u64>,
}

/// `rollout …`
#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Show where a rollout is; exits with 1 when it did not succeed
    Status(WhichRollout),
    /// Follow a rollout to its end; exits by how it ends
    Watch {
        /// Which one.
        #[command(flatten)]
        which: WhichRollout,
        /// Give up after this time, which does not stop the rollout (0: never)
        #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = quantity::duration)]
        timeout: Duration,
    },
    /// Start no further node until it is resumed
    Pause(WhichRollout),
    /// Go on with a paused rollout
    Resume(WhichRollout),
    /// End a rollout; nodes stay as they are
    Abort(WhichRollout),
    /// Roll out the content of an earlier revision
    Undo(Undo),
    /// List the rollouts with what they were for
    History(History),
}

/// `rollout undo`
#[derive(Debug, Args)]
pub struct Undo {
    /// The rollout to undo [default: the newest]
    #[command(flatten)]
    pub which: WhichRollout,
    /// The revision to go back to [default: what the rollout started from]
    #[arg(long, value_name = "N")]
    pub to_revision: Option<u64>,
    /// For the history.
    #[command(flatten)]
    pub note: Note,
    /// Whether to stay.
    #[command(flatten)]
    pub waiting: Waiting,
    /// How to roll out.
    #[command(flatten)]
    pub strategy: Strategy,
}

/// `rollout history`
#[derive(Debug, Args)]
pub struct History {
    /// Which one; all of them without it.
    #[command(flatten)]
    pub which: WhichRollout,
    /// Output format
    #[arg(short, long, value_enum, hide_possible_values = true, value_name = "table|wide|json|yaml|name", default_value_t = Format::Table)]
    pub output: Format,
    /// Leave the headings of a table out
    #[arg(long)]
    pub no_headers: bool,
}

/// `node …`
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Overwrite what was changed by hand with what the fleet should have
    Revert {
        /// Its name
        name: String,
    },
    /// Leave the node as it is: it gets no tasks until it is reverted
    Hold {
        /// Its name
        name: String,
    },
}

/// `completion`
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `version`
#[derive(Debug, Args)]
pub struct Version {
    /// Output format
    #[arg(short, long, value_enum, hide_possible_values = true, value_name = "json|yaml")]
    pub output: Option<Document>,
}

/// What `-o` takes for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns
    Table,
    /// More columns
    Wide,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
    /// TYPE/NAME, one per line
    Name,
}

/// What `-o` takes for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Machine {
    /// For programs
    Json,
    /// For programs and people
    Yaml,
    /// TYPE/NAME, one per line
    Name,
}

/// What `-o` takes for single documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// For programs
    Json,
    /// For programs and people
    Yaml,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_parses() {
        for line in [
            "validate -f x --offline",
            "validate -f -  --name x.conf",
            "diff -f dir -R",
            "apply -f a -f b -R --wait --timeout 5m -m why --waves 1,25%,100% --failure-budget 5% --soak 10s \
             --node-deadline 1m -l zone=a,rack=3 --no-auto-undo",
            "apply -f a --dry-run -o json",
            "delete vhost 131942 a.example --wait",
            "delete vhost/131942",
            "delete -f a.conf",
            "get vhosts",
            "get vh 131942 -o yaml",
            "get rollouts -w --no-headers",
            "get tasks --rollout 7 --node n1 --limit 5 -o wide",
            "get no -l zone=a -o name",
            "describe vhost 131942",
            "describe rollout/7",
            "rollout status",
            "rollout watch 7 --timeout 1m",
            "rollout pause rollout/7",
            "rollout resume",
            "rollout abort 7",
            "rollout undo --to-revision 3 --wait",
            "rollout history -o json",
            "node revert n1",
            "node hold n1",
            "completion fish",
            "version -o json",
            "--controller http://a:1,http://b:2 get nodes --request-timeout 5s",
        ] {
            let words = std::iter::once("dysvrctl").chain(line.split_whitespace());
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn the_option_goes_before_the_environment() {
        let global = |urls: &[&str]| Global {
            controller: urls.iter().map(|url| (*url).to_owned()).collect(),
            request_timeout: Duration::ZERO,
        };
        assert_eq!(global(&["a"]).controllers(Some("b".into())), ["a"]);
        assert_eq!(global(&[]).controllers(Some("b,c".into())), ["b", "c"]);
        assert_eq!(global(&[]).controllers(Some(String::new())), [DEFAULT_CONTROLLER]);
        assert_eq!(global(&[]).controllers(None), [DEFAULT_CONTROLLER]);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "apply",
            "apply -f a --waves 0",
            "apply -f a --timeout 5s",
            "apply -f a --dry-run --wait",
            "delete",
            "delete vhost 1 -f x",
            "get",
            "get nodes -o xml",
            "rollout",
            "rollout pause x",
            "completion tcl",
        ] {
            let words = std::iter::once("dysvrctl").chain(line.split_whitespace());
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
