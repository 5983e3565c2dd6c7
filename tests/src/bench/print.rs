//! Tables for people, and numbers with as many digits as mean something.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, CellAlignment, Color, Table};

use super::goals::Goal;

/// A table with its heading above it; the first column is text, the others are figures.
pub fn table(title: &str, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{title}\n{table}")
}

/// Every figure with its goal and whether it is met.
pub fn goals(goals: &[Goal]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["figure", "here", "goal", ""]);
    for goal in goals {
        let verdict = match goal.met {
            Some(true) => Cell::new("met").fg(Color::Green),
            Some(false) => Cell::new("MISSED").fg(Color::Red).add_attribute(Attribute::Bold),
            None => Cell::new(""),
        };
        let right = |text: &str| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(&goal.figure), right(&goal.value), right(&goal.wanted), verdict]);
    }
    format!("Goals\n{table}")
}

/// Milliseconds.
pub fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.3} ms"),
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

/// A ratio.
pub fn times(ratio: f64) -> String {
    if ratio >= 10.0 { format!("{ratio:.0} ×") } else { format!("{ratio:.2} ×") }
}

/// KiB.
pub fn kib(kib: f64) -> String {
    if kib >= 10_240.0 { format!("{:.0} MiB", kib / 1024.0) } else { format!("{kib:.2} KiB") }
}

/// A number of vhosts.
pub fn count(count: usize) -> String {
    if count >= 1000 && count.is_multiple_of(1000) { format!("{}k", count / 1000) } else { count.to_string() }
}
