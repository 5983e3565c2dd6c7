//! Where the programs under test are. They are built once per run, in the profile of the program that asks, so that
//! `cargo test --workspace` is all that anyone needs to type.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// Names of the programs.
pub const NAMES: [&str; 4] = ["dysvr-proxy", "dysvr-node", "dysvr-controller", "dysvrctl"];

/// The path of one of [`NAMES`], freshly built.
///
/// # Errors
/// When it cannot be built or is not where cargo puts it.
pub fn path(name: &str) -> Result<PathBuf> {
    static DIRECTORY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    let directory = directory.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    let path = directory.join(name);
    ensure!(path.is_file(), "{} is not there", path.display());
    Ok(path)
}

/// The path of the proxy with faults on demand (the feature `poison` of `dysvr-node`), freshly built beside the others:
/// only that package is compiled once more.
///
/// # Errors
/// As [`path`].
pub fn poisoned() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_poisoned().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build_poisoned() -> Result<PathBuf> {
    let options = ["--features", "dysvr-node/poison", "--bin", "dysvr-proxy-poisoned"];
    let directory = cargo_build(&options)?;
    // The agent knows its proxy by this name. Renamed into place: another test may do the same at this moment.
    let folder = directory.join("poisoned");
    std::fs::create_dir_all(&folder)?;
    let (beside, path) = (folder.join(format!(".{}", std::process::id())), folder.join("dysvr-proxy"));
    std::fs::copy(directory.join("dysvr-proxy-poisoned"), &beside).context("copying the poisoned proxy")?;
    std::fs::rename(&beside, &path).context("naming the poisoned proxy")?;
    Ok(path)
}

/// The workspace: the parent of this package.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Builds the programs and gives their directory. `DYSVR_BIN_DIR` names a directory of ready ones instead.
fn build() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("DYSVR_BIN_DIR") {
        return Ok(PathBuf::from(directory));
    }
    cargo_build(&["--bins"])
}

/// Builds in the profile of this program; gives the directory of the programs.
fn cargo_build(options: &[&str]) -> Result<PathBuf> {
    let mut command = cargo("build")?;
    command.arg("--quiet").args(options);
    let output = command.output().context("starting cargo")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    directory()
}

/// A command of cargo about the whole workspace, in the profile of this program and beside it.
///
/// # Errors
/// When this program is not where cargo puts programs.
pub fn cargo(command: &str) -> Result<Command> {
    let directory = directory()?;
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args([command, "--workspace", "--profile", profile]);
    // What cargo tells a test of its package: scripts that look at it would run again, and all above them be compiled.
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        cargo.env_remove(name);
    }
    cargo.arg("--target-dir").arg(directory.parent().context("no directory above the profile's")?);
    Ok(cargo)
}

/// Where programs of this program's profile are.
fn directory() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    // Tests are in target/PROFILE/deps, programs in target/PROFILE.
    let mut directory = own.parent().context("this program has no directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("no directory above deps")?;
    }
    Ok(directory.to_owned())
}
