//! Figures as tables for people and as JSON for programs.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::{Peer, figures, request, update};

/// The table of updates: one row per size and peer, the ratio on nginx's.
pub fn updates(all: &[update::Figures]) -> String {
    let header =
        ["vhosts", "way", "served by every worker", "p99", "asked by pid", "CPU per update", "memory", "start"];
    let mut table = table(&header);
    for one in all {
        let (way, ours) = match one.peer {
            Peer::Dysvr => ("dysvr, in place", true),
            Peer::Nginx => ("nginx, reload", false),
        };
        let beside = all.iter().find(|other| other.vhosts == one.vhosts && other.peer == Peer::Dysvr);
        let times = |mine: f64, base: f64| {
            if ours || base <= 0.0 { String::new() } else { format!(" (× {:.0})", mine / base) }
        };
        let base = beside.unwrap_or(one);
        table.add_row([
            one.vhosts.to_string(),
            way.to_owned(),
            millis(one.served()) + &times(one.served(), base.served()),
            millis(figures::quantile(&one.served_ms, 0.99)),
            millis(figures::median(&one.asked_ms)),
            millis(one.cpu()) + &times(one.cpu(), base.cpu()),
            format!("{:.0} MiB", one.memory_mib),
            millis(one.start_ms),
        ]);
    }
    format!("One vhost more: signal → every worker serves (medians)\n{table}")
}

/// The table of requests.
pub fn requests(all: &request::Figures) -> String {
    let mut table = table(&["proxy", "CPU per request", "of that user", "requests/s", "pairs", "ratio of pairs"]);
    for peer in [Peer::Dysvr, Peer::Nginx] {
        table.add_row([
            peer.name().to_owned(),
            format!("{:.1} µs", all.median(peer, |turn| turn.cpu_us)),
            format!("{:.1} µs", all.median(peer, |turn| turn.user_us)),
            format!("{:.0}", all.median(peer, |turn| turn.rate)),
            all.of(peer).len().to_string(),
            if peer == Peer::Dysvr { format!("{:.2}", all.ratio()) } else { "1".to_owned() },
        ]);
    }
    format!("One proxied request: 1 KiB, keepalive on both sides, one worker (medians)\n{table}")
}

/// All figures.
pub fn json(updates: &[update::Figures], requests: Option<&request::Figures>) -> Value {
    let updates: Vec<Value> = updates
        .iter()
        .map(|one| {
            json!({
                "peer": one.peer.name(), "vhosts": one.vhosts, "served_ms": one.served_ms, "asked_ms": one.asked_ms,
                "cpu_ms": one.cpu_ms, "memory_mib": one.memory_mib, "start_ms": one.start_ms,
            })
        })
        .collect();
    let turns = |peer: Peer| -> Vec<Value> {
        let all = requests.map_or(&[][..], |all| all.of(peer));
        all.iter().map(|turn| json!({"cpu_us": turn.cpu_us, "user_us": turn.user_us, "rate": turn.rate})).collect()
    };
    json!({"updates": updates, "requests": {"dysvr": turns(Peer::Dysvr), "nginx": turns(Peer::Nginx)}})
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Milliseconds with as many digits as mean something.
pub fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}
