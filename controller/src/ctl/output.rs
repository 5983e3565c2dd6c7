//! Standard output: whether it is a terminal, whether colours are wanted, and the form of documents.

use std::io::{self, IsTerminal as _, Write as _};

use owo_colors::{AnsiColors, OwoColorize as _};
use serde::Serialize;

use super::exit::Failure;

/// What a command writes to.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Colours: on a terminal, unless NO_COLOR is set to something or TERM is `dumb`.
    pub color: bool,
    /// Both standard output and standard error are terminals, so that progress can be drawn.
    pub terminal: bool,
}

impl Output {
    /// Of this process.
    pub fn of_process() -> Self {
        let stdout = io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { color: stdout && !dumb && !set("NO_COLOR"), terminal: stdout && !dumb && io::stderr().is_terminal() }
    }

    /// Writes text as it is.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Writes a line.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.print(&format!("{text}\n"))
    }

    /// Text in a colour, if colours are wanted.
    pub fn paint(&self, text: &str, color: AnsiColors) -> String {
        if self.color { text.color(color).to_string() } else { text.to_owned() }
    }
}

/// A document as indented JSON with a newline at its end.
pub fn json<T: Serialize>(document: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(document);
    text.map(|text| text + "\n").map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))
}

/// A document as YAML.
pub fn yaml<T: Serialize>(document: &T) -> Result<String, Failure> {
    serde_yaml_ng::to_string(document).map_err(|error| Failure::Failed(format!("cannot write YAML: {error}")))
}
