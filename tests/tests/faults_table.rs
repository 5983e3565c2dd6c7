//! `tests/FAULTS.md` names the tests that show each thing: they must exist, as tests, in the files that it links to.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use dysvr_tests::binaries;

#[test]
fn every_test_that_the_table_of_faults_names_exists() -> Result<()> {
    let folder = binaries::workspace().join("tests");
    let text = fs::read_to_string(folder.join("FAULTS.md"))?;
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    ensure!(rows.len() > 40, "{} rows", rows.len());
    for row in rows {
        let links = row.rsplit('|').nth(1).context("no column")?;
        let mut count = 0;
        for link in links.split(", ") {
            let (name, file) = link.trim().trim_start_matches('[').split_once("](").context(row.to_owned())?;
            let file = folder.join(file.trim_end_matches(')'));
            let source = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let before = source.split(&format!("fn {name}()")).next().filter(|before| before.len() < source.len());
            let before = before.with_context(|| format!("{name} is not in {}", file.display()))?;
            // Right above it, whatever stands between (`async`, a macro's indentation).
            let attributes = before.rsplit("}\n").next().unwrap_or(before);
            let is_test = |line: &str| ["#[test]", "#[tokio::test"].iter().any(|it| line.trim_start().starts_with(it));
            ensure!(attributes.lines().any(is_test), "{name} in {} is no test", file.display());
            count += 1;
        }
        ensure!(count > 0, "{row}");
    }
    Ok(())
}
