//! `version`

use serde::Serialize;

use crate::ctl::cli::{self, Document};
use crate::ctl::exit::Failure;
use crate::ctl::output::{self, Output};

#[derive(Serialize)]
struct Version {
    client_version: &'static str,
}

pub(super) fn run(options: &cli::Version, output: Output) -> Result<(), Failure> {
    let version = Version { client_version: env!("CARGO_PKG_VERSION") };
    output.print(&match options.output {
        Some(Document::Json) => output::json(&version)?,
        Some(Document::Yaml) => output::yaml(&version)?,
        None => format!("dysvrctl {}\n", version.client_version),
    })
}
