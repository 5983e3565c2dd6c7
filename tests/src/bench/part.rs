//! What every part of a run gives: tables for people, goals, pictures, JSON for programs.

use serde_json::Value;

use super::goals::Goal;
use super::plot::Panel;

/// The figures of one part.
pub trait Part {
    /// Its key in the JSON.
    fn name(&self) -> &'static str;

    /// What is printed.
    fn table(&self) -> String;

    /// Its lines in the table of goals.
    fn goals(&self) -> Vec<Goal>;

    /// Its pictures.
    fn panels(&self) -> Vec<Panel>;

    /// All that was measured.
    fn json(&self) -> Value;
}
