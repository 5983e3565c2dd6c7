//! A short soak: traffic, tunnels and downloads while vhosts and upstreams change all the time. Nobody may notice.

use anyhow::{Result, ensure};
use dysvr_tests::soak::{self, Options};

#[test]
fn nobody_notices_that_vhosts_change_all_the_time() -> Result<()> {
    let options = Options {
        vhosts: 100,
        changing: 20,
        rate: 200.0,
        connections: 20,
        lasting: 16,
        updates_rate: 25.0,
        updates: 250,
        // In a run of seconds pools and buffers still fill: only what leaks much with each update shows.
        growth: 0.1,
        slack_kib: 16_384.0,
        slack_descriptors: 400.0,
        seed: std::env::var("DYSVR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random),
    };
    let report = soak::run(&options, |_| {})?;
    println!("{}", report.table());
    ensure!(report.violations.is_empty(), "DYSVR_SEED={}: {:#?}", options.seed, report.violations);
    let changes = &report.changes;
    ensure!(changes.count() == options.updates, "only {changes:?}");
    ensure!(
        changes.adds > 0 && changes.modifies > 0 && changes.deletes > 0 && changes.upstreams > 0 && changes.ports > 0
    );
    let seen = &report.seen;
    ensure!(seen.answers > 200 && seen.absent > 0 && seen.echoed > 50 && seen.drops > 20 && seen.loaded > 1 << 20);
    Ok(())
}
