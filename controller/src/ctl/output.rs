//! Standard output: whether it is a terminal, whether colours are wanted, and the form of documents.

use std::borrow::Cow;
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

    /// Writes a line to standard error. Nobody can be told when that is closed.
    pub fn note(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Text in a colour, if colours are wanted.
    pub fn paint(&self, text: &str, color: AnsiColors) -> String {
        if self.color { text.color(color).to_string() } else { text.to_owned() }
    }
}

/// Text for a terminal: what nodes and files say may hold bytes that would steer it. Line ends and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return text.into();
    }
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect::<String>().into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_node_says_steers_the_terminal() {
        assert_eq!(printable("a\tb\nc é"), "a\tb\nc é");
        assert_eq!(printable("\u{1b}[2Jgone\r\u{7f}\u{9b}"), "\u{fffd}[2Jgone\u{fffd}\u{fffd}\u{fffd}");
    }
}
