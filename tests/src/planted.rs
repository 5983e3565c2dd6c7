//! Test the tests: each bug that can be planted ([`dysvr_proto::planted`]) is found by the suite that is there for it, which
//! passes without it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dysvr_proto::planted::{Bug, VARIABLE};
use serde_json::Value;

use crate::{binaries, process};

/// How long a suite may take: one that hangs has found nothing.
const LIMIT: Duration = Duration::from_secs(600);

/// Some tests of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suite {
    /// As cargo calls its target.
    pub target: &'static str,
    /// What their names begin with.
    pub filter: &'static str,
    /// It takes seconds.
    pub quick: bool,
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.target, self.filter)
    }
}

/// The suite that must find a bug.
pub fn suite(bug: Bug) -> Suite {
    let (quick, target, filter) = match bug {
        Bug::SkipFsync | Bug::JournalUnsynced | Bug::NamesUnsynced => (true, "agent_durable", "a_file_is_on_the_disk"),
        Bug::LostNameBelieved => (false, "agent_power", ""),
        Bug::WriteInPlace => (false, "agent_killed", "killed_at_any_call"),
        Bug::JournalForgotten => (true, "dysvr_node", "agent::journal::"),
        Bug::IdsForDigests | Bug::DriftOverwritten | Bug::StaleEpochObeyed => (true, "dysvr_node", "agent::check::"),
        Bug::EpochForgotten => (true, "store_contract", "file::"),
        Bug::WaveOffByOne | Bug::SoakSkipped | Bug::BudgetIgnored => (true, "rollout_laws", ""),
        Bug::FenceForgotten => (true, "revision_laws", "a_deposed_leader"),
        Bug::UnknownRetried => (true, "revision_laws", "a_write_of_unknown_outcome"),
        Bug::DefaultByArrival => (true, "in_place_equals_load", "any_history"),
        Bug::AckBeforeAll | Bug::DoneBeforeReplacement => (true, "protocol_rounds", ""),
        Bug::AnyVersionCommitted | Bug::AbortIgnored | Bug::MissedVersionGuessed => {
            (true, "dysvr_node", "worker::follow::")
        }
        Bug::SumUnchecked | Bug::SumWithoutVersion => (true, "protocol_orders", "what_is_read"),
        Bug::ContentsIgnored => (false, "in_place", "a_task_is_done_once"),
        Bug::OneTaskPerSignal => (false, "many", "each_of_many_lines"),
    };
    Suite { target, filter, quick }
}

/// The programs of suites, built.
#[derive(Debug)]
pub struct Programs {
    /// By target: the program, and where it runs.
    programs: HashMap<String, (PathBuf, PathBuf)>,
    /// Those that have passed without a bug.
    passed: HashSet<Suite>,
}

impl Programs {
    /// Builds those of some suites, as `cargo test --workspace` does.
    ///
    /// # Errors
    /// When they cannot be built.
    pub fn build(suites: impl IntoIterator<Item = Suite>) -> Result<Self> {
        let mut command = binaries::cargo("test")?;
        command.args(["--lib", "--no-run", "--message-format", "json"]);
        for suite in suites.into_iter().filter(|suite| !suite.target.starts_with("dysvr_")) {
            command.args(["--test", suite.target]);
        }
        let output = command.output().context("starting cargo")?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        let mut programs = HashMap::new();
        for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let said: Value = serde_json::from_slice(line).context("reading what cargo says")?;
            let manifest = said["manifest_path"].as_str().and_then(|path| Path::new(path).parent());
            if let (Some(name), Some(program), Some(folder)) =
                (said["target"]["name"].as_str(), said["executable"].as_str(), manifest)
            {
                programs.insert(name.to_owned(), (program.into(), folder.to_owned()));
            }
        }
        Ok(Self { programs, passed: HashSet::new() })
    }

    /// Runs a suite, with a bug or without; gives the tests that failed.
    ///
    /// # Errors
    /// When it has no test, ends without a result, or not at all.
    pub fn run(&self, suite: Suite, bug: Option<Bug>) -> Result<Vec<String>> {
        let (program, folder) = self.programs.get(suite.target).with_context(|| format!("{suite} was not built"))?;
        let mut command = Command::new(program);
        // Enough of the random ones: a bug shows in the first hundreds.
        command.arg(suite.filter).current_dir(folder).env("DYSVR_STEPS", "1000").env_remove(VARIABLE);
        // The same ones each time: what passed without a bug, and only then, says something of what fails with it.
        command.env("DYSVR_SEED", "1");
        command.env("RUST_BACKTRACE", "0");
        if let Some(bug) = bug {
            command.env(VARIABLE, bug.name());
        }
        let output = process::run(&mut command, LIMIT)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let verdicts = |verdict: &str| -> Vec<String> {
            let name = |line: &str| line.strip_prefix("test ")?.strip_suffix(verdict).map(str::to_owned);
            said.lines().filter_map(name).collect()
        };
        let failed = verdicts(" ... FAILED");
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("\ntest result: "), "{suite} ended without a result: {said}{errors}");
        ensure!(!failed.is_empty() || !verdicts(" ... ok").is_empty(), "{suite} has no test");
        Ok(failed)
    }

    /// Shows that a suite finds a bug and passes without it.
    ///
    /// # Errors
    /// When it does not.
    pub fn show(&mut self, bug: Bug) -> Result<Shown> {
        let (suite, began) = (suite(bug), Instant::now());
        // First: a suite that fails anyway finds nothing.
        if !self.passed.contains(&suite) {
            let without = self.run(suite, None)?;
            ensure!(without.is_empty(), "{suite} fails without a bug: {without:?}");
            self.passed.insert(suite);
        }
        let found_in = self.run(suite, Some(bug))?;
        ensure!(!found_in.is_empty(), "{} is found by no test of {suite}", bug.name());
        Ok(Shown { bug, suite, found_in, took: began.elapsed() })
    }
}

/// A bug that was found.
#[derive(Debug)]
pub struct Shown {
    /// Which.
    pub bug: Bug,
    /// By whom.
    pub suite: Suite,
    /// The tests that failed.
    pub found_in: Vec<String>,
    /// With the bug and, the first time, without.
    pub took: Duration,
}
