//! Columns for people: aligned, three spaces apart, nothing else, so that `awk` can read them too.

use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use owo_colors::AnsiColors;

use super::output::printable;

/// One value of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    text: String,
    color: Option<AnsiColors>,
    right: bool,
}

/// Text; `<none>` stands for nothing, so that a column is never empty.
pub fn text(text: impl Into<String>) -> Value {
    let text = printable(&text.into()).into_owned();
    Value { text: if text.is_empty() { "<none>".into() } else { text }, color: None, right: false }
}

/// Text that may be empty, for the last column.
pub fn remark(text: impl Into<String>) -> Value {
    Value { text: printable(&text.into()).replace('\n', " "), color: None, right: false }
}

/// A number, aligned to the right.
pub fn number(number: impl ToString) -> Value {
    Value { text: number.to_string(), color: None, right: true }
}

/// A state of a node, a rollout or a task, in the colour of its kind.
pub fn state(state: &str) -> Value {
    Value { color: color_of(state), ..text(state) }
}

/// Green is as it should be, red is not, yellow is on its way.
pub fn color_of(state: &str) -> Option<AnsiColors> {
    Some(match state {
        "current" | "done" | "D" => AnsiColors::Green,
        "failed" | "rolled-back" | "aborted" | "drifted" | "degraded" | "away" | "F" => AnsiColors::Red,
        "queued" | "running" | "soaking" | "paused" | "rolling-back" | "updating" | "behind" | "undone" | "I" | "R"
        | "L" => AnsiColors::Yellow,
        _ => return None,
    })
}

/// Draws rows under headings (none: without), each line ended.
pub fn draw(headings: &[&str], rows: Vec<Vec<Value>>, color: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if !headings.is_empty() {
        table.set_header(headings.to_vec());
    }
    let columns = rows.first().map_or(headings.len(), Vec::len);
    if headings.is_empty() && rows.is_empty() {
        return String::new();
    }
    for row in rows {
        table.add_row(row.into_iter().map(cell));
    }
    for index in 0..columns {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 3));
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: Value) -> Cell {
    let mut cell = Cell::new_owned(value.text);
    if value.right {
        cell = cell.set_alignment(CellAlignment::Right);
    }
    match value.color {
        Some(AnsiColors::Green) => cell.fg(Color::DarkGreen),
        Some(AnsiColors::Red) => cell.fg(Color::DarkRed),
        Some(AnsiColors::Yellow) => cell.fg(Color::DarkYellow),
        _ => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let rows = vec![
            vec![text("a"), number(7), state("current"), remark("")],
            vec![text("longer"), number(1234), state("failed"), remark("no\nway")],
            vec![text(""), number(0), state("new"), remark("x")],
        ];
        let drawn = draw(&["NAME", "N", "STATE", "REASON"], rows.clone(), false);
        let wanted = "\
NAME     N      STATE     REASON
a           7   current
longer   1234   failed    no way
<none>      0   new       x
";
        assert_eq!(drawn, wanted);
        let bare = draw(&[], rows, true);
        assert_eq!(bare.lines().count(), 3);
        assert!(bare.contains("\u{1b}["), "{bare:?}");
        assert_eq!(draw(&["NAME"], vec![], false), "NAME\n");
        assert_eq!(draw(&[], vec![], false), "");
    }
}
