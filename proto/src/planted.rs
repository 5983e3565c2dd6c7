//! Bugs on demand, to test the tests: the feature `planted` compiles them in, and no program that is shipped has it. A process has
//! the one that the environment names by `DYSVR_PLANTED`; `make planted` shows that a suite finds each.

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)*) => {
        /// A bug that a process may have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug { $($(#[$doc])* $bug,)* }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// Its name in the environment.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$bug => $name,)* }
            }
        }
    };
}

bugs! {
    /// A file is renamed into place before its content is on the disk.
    SkipFsync = "skip_fsync",
    /// A task is done before the names of its files are on the disk.
    NamesUnsynced = "names_unsynced",
    /// What the task file says is believed although the disk has lost a name.
    LostNameBelieved = "lost_name_believed",
    /// A file is written where it stands.
    WriteInPlace = "write_in_place",
    /// An entry of the journal counts before it is on the disk.
    JournalUnsynced = "journal_unsynced",
    /// The journal of the time before a restart is forgotten.
    JournalForgotten = "journal_forgotten",
    /// A task is taken for another one of the same id, whatever it asks for.
    IdsForDigests = "ids_for_digests",
    /// The master answers a task as done when one of its id was, whatever the files say by now.
    ContentsIgnored = "contents_ignored",
    /// Files that were changed by hand are written over.
    DriftOverwritten = "drift_overwritten",
    /// A node obeys a leader that was deposed.
    StaleEpochObeyed = "stale_epoch_obeyed",
    /// The next leader has the epoch of the last one.
    EpochForgotten = "epoch_forgotten",
    /// A leader that was deposed writes on.
    FenceForgotten = "fence_forgotten",
    /// The last wave is left out.
    WaveOffByOne = "wave_off_by_one",
    /// A wave begins without the soak of the one before it.
    SoakSkipped = "soak_skipped",
    /// A rollout goes on however many nodes have failed.
    BudgetIgnored = "budget_ignored",
    /// A write whose outcome was unknown is made again.
    UnknownRetried = "unknown_retried",
    /// The default server is the first that came, not the first in the source.
    DefaultByArrival = "default_by_arrival",
    /// A task is done when the first worker has committed it.
    AckBeforeAll = "ack_before_all",
    /// A task is done before the worker serves that stands in for one that died.
    DoneBeforeReplacement = "done_before_replacement",
    /// A worker commits what it has prepared, whatever version is meant.
    AnyVersionCommitted = "any_version_committed",
    /// A worker keeps what it was told to forget.
    AbortIgnored = "abort_ignored",
    /// A worker goes on over a version that it has missed.
    MissedVersionGuessed = "missed_version_guessed",
    /// A message is believed whatever its sum says.
    SumUnchecked = "sum_unchecked",
    /// A message of another version has the right sum.
    SumWithoutVersion = "sum_without_version",
    /// A signal stands for one task, not for a look at all that there are.
    OneTaskPerSignal = "one_task_per_signal",
}

/// The name of the variable.
pub const VARIABLE: &str = "DYSVR_PLANTED";

/// Whether this process has a bug.
#[cfg(feature = "planted")]
pub fn planted(bug: Bug) -> bool {
    static PLANTED: std::sync::LazyLock<Option<std::ffi::OsString>> =
        std::sync::LazyLock::new(|| std::env::var_os(VARIABLE));
    PLANTED.as_ref().is_some_and(|name| name == bug.name())
}

/// It has none.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}
