//! Bugs that are planted are found: those here whose suites take seconds. `make planted` shows it for all.

use anyhow::Result;
use dysvr_proto::planted::Bug;
use dysvr_tests::planted::{Programs, suite};

#[test]
fn each_planted_bug_is_found_by_its_suite_which_passes_without() -> Result<()> {
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(|bug| suite(*bug).quick).collect();
    let mut programs = Programs::build(bugs.iter().copied().map(suite))?;
    for bug in bugs {
        let shown = programs.show(bug)?;
        println!("{:24} {:.1} s {}", bug.name(), shown.took.as_secs_f64(), shown.found_in.join(" "));
    }
    Ok(())
}
