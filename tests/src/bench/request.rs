//! What a proxied request costs on one core: 1 KiB of body, keepalive on both sides, one worker, fifty connections of
//! wrk. The peers take turns, so that a drift of the machine meets both.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use serde_json::{Value, json};

use super::goals::Goal;
use super::part::Part;
use super::plot::{Panel, Shape};
use super::{Peer, figures, installed, print, progress};
use crate::prefix::{MainConf, Prefix};
use crate::process;
use crate::procfs;
use crate::proxy::Proxy;

/// What one turn of one peer gave.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Processor time of the worker per request, in µs.
    pub cpu_us: f64,
    /// Of that in user space, in µs (in clock ticks: coarse, but it does not drift with the machine).
    pub user_us: f64,
    /// Requests per second.
    pub rate: f64,
}

/// All turns of both peers; turn `n` of the one ran right beside turn `n` of the other.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Ours.
    pub dysvr: Vec<Turn>,
    /// nginx's.
    pub nginx: Vec<Turn>,
}

impl Figures {
    /// The turns of a peer.
    pub fn of(&self, peer: Peer) -> &[Turn] {
        match peer {
            Peer::Dysvr => &self.dysvr,
            Peer::Nginx => &self.nginx,
            Peer::Haproxy => &[],
        }
    }

    /// The median of a figure of a peer.
    pub fn median(&self, peer: Peer, figure: impl Fn(&Turn) -> f64) -> f64 {
        figures::median(&self.of(peer).iter().map(figure).collect::<Vec<f64>>())
    }

    /// The median of the pairs' ratios dysvr : nginx of processor time.
    pub fn ratio(&self) -> f64 {
        let cpu = |turns: &[Turn]| turns.iter().map(|turn| turn.cpu_us).collect::<Vec<f64>>();
        figures::paired_ratio(&cpu(&self.dysvr), &cpu(&self.nginx))
    }
}

impl Part for Figures {
    fn name(&self) -> &'static str {
        "requests"
    }

    fn table(&self) -> String {
        let rows = [Peer::Dysvr, Peer::Nginx].map(|peer| {
            vec![
                peer.name().to_owned(),
                format!("{:.1} µs", self.median(peer, |turn| turn.cpu_us)),
                format!("{:.1} µs", self.median(peer, |turn| turn.user_us)),
                format!("{:.0}", self.median(peer, |turn| turn.rate)),
                self.of(peer).len().to_string(),
                if peer == Peer::Dysvr { format!("{:.2}", self.ratio()) } else { "1".to_owned() },
            ]
        });
        print::table(
            "One proxied request: 1 KiB, keepalive on both sides, one worker (medians)",
            &["proxy", "CPU per request", "of that user", "requests/s", "pairs", "ratio of pairs"],
            rows,
        )
    }

    fn goals(&self) -> Vec<Goal> {
        vec![Goal::beside("CPU per proxied request against nginx's", print::times(self.ratio()))]
    }

    fn panels(&self) -> Vec<Panel> {
        let bars = [Peer::Dysvr, Peer::Nginx]
            .map(|peer| (peer.name().to_owned(), self.median(peer, |turn| turn.cpu_us)))
            .to_vec();
        vec![Panel { title: "CPU per proxied request (1 KiB), µs".to_owned(), shape: Shape::Bars(bars) }]
    }

    fn json(&self) -> Value {
        let turns = |peer: Peer| -> Vec<Value> {
            let turns = self.of(peer).iter();
            turns.map(|turn| json!({"cpu_us": turn.cpu_us, "user_us": turn.user_us, "rate": turn.rate})).collect()
        };
        json!({"dysvr": turns(Peer::Dysvr), "nginx": turns(Peer::Nginx)})
    }
}

/// Runs `pairs` pairs of turns of `seconds` each.
///
/// # Errors
/// When a peer does not start, or wrk saw an error.
pub fn measure(pairs: usize, seconds: u64) -> Result<Figures> {
    let wrk = installed("wrk")?;
    let taskset = installed("taskset").ok();
    let origin = Proxy::start_from(&installed("nginx")?, origin_prefix()?)?;
    let start = |peer: Peer| -> Result<Proxy> {
        let proxy = Proxy::start_from(&peer.binary()?, front_prefix(peer, origin.prefix.port)?)?;
        if let Some(taskset) = &taskset {
            pin(taskset, &proxy, "0")?;
        }
        Ok(proxy)
    };
    if let Some(taskset) = &taskset {
        pin(taskset, &origin, "1")?;
    }
    let (dysvr, nginx) = (start(Peer::Dysvr)?, start(Peer::Nginx)?);
    let mut all = Figures::default();
    let bar = progress("CPU per proxied request".to_owned(), pairs as u64 * 2);
    // One turn each before it counts: pools fill, branches are learnt.
    for proxy in [&dysvr, &nginx] {
        turn(&wrk, taskset.as_deref(), proxy, 1)?;
    }
    for pair in 0..pairs {
        for ours in [pair % 2 == 0, pair % 2 == 1] {
            let (turns, proxy) = if ours { (&mut all.dysvr, &dysvr) } else { (&mut all.nginx, &nginx) };
            turns.push(turn(&wrk, taskset.as_deref(), proxy, seconds)?);
            bar.inc(1);
        }
    }
    bar.finish();
    Ok(all)
}

fn turn(wrk: &Path, taskset: Option<&Path>, proxy: &Proxy, seconds: u64) -> Result<Turn> {
    let workers = proxy.workers();
    let worker = *workers.first().context("no worker")?;
    ensure!(workers.len() == 1, "one worker is measured, there are {workers:?}");
    let mut command = match taskset {
        Some(taskset) => {
            let mut command = Command::new(taskset);
            command.args(["-c", "1"]).arg(wrk);
            command
        }
        None => Command::new(wrk),
    };
    command.args(["-t1", "-c50", &format!("-d{seconds}s"), &format!("http://{}/", proxy.prefix.addr())]);
    let (cpu, ticks) = (procfs::cpu_ns(worker), procfs::user_system_ticks(worker));
    let output = process::run(&mut command, Duration::from_secs(seconds + 30))?;
    let (cpu_after, ticks_after) = (procfs::cpu_ns(worker), procfs::user_system_ticks(worker));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let clean = output.status.success() && !text.contains("Socket errors") && !text.contains("Non-2xx");
    ensure!(clean, "wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    let requests = requests(&text)?;
    let gone = "the worker is gone";
    let user = ticks_after.context(gone)?.0 - ticks.context(gone)?.0;
    Ok(Turn {
        cpu_us: (cpu_after.context(gone)? - cpu.context(gone)?) as f64 / 1e3 / requests,
        user_us: user as f64 * 1e4 / requests,
        rate: requests / seconds as f64,
    })
}

/// From `  123456 requests in 3.00s, 150.00MB read`.
fn requests(text: &str) -> Result<f64> {
    let line = text.lines().find(|line| line.contains(" requests in ")).with_context(|| format!("wrk said: {text}"))?;
    let count: f64 = line.split_whitespace().next().unwrap_or_default().parse().context(line.to_owned())?;
    ensure!(count > 0.0, "wrk had no answer: {text}");
    Ok(count)
}

fn pin(taskset: &Path, proxy: &Proxy, cpu: &str) -> Result<()> {
    for worker in proxy.workers() {
        let output =
            process::run(Command::new(taskset).args(["-pc", cpu, &worker.to_string()]), Duration::from_secs(5))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn origin_prefix() -> Result<Prefix> {
    let conf = MainConf { workers: 1, ours: false, ..MainConf::default() };
    let prefix = Prefix::new(&conf)?;
    let body = "x".repeat(1024);
    // The default vhost answers 404; this one takes its place.
    let text = prefix.main_conf(&conf).replace("return 404 \"no such vhost\\n\";", &format!("return 200 \"{body}\";"));
    prefix.write("nginx.conf", &text)?;
    Ok(prefix)
}

fn front_prefix(peer: Peer, origin: u16) -> Result<Prefix> {
    let conf = MainConf { workers: 1, ours: peer == Peer::Dysvr, ..MainConf::default() };
    let prefix = Prefix::new(&conf)?;
    let pass = "location / {\n            proxy_http_version 1.1;\n            proxy_set_header Connection \"\";\n            \
                proxy_pass http://origin;\n        }";
    let upstream =
        format!("    upstream origin {{\n        server 127.0.0.1:{origin};\n        keepalive 64;\n    }}\n");
    let text = prefix
        .main_conf(&MainConf { http: upstream, ..conf })
        .replace("return 404 \"no such vhost\\n\";", pass)
        // What only tests need costs time in both.
        .replace("    add_header X-Worker $pid always;\n", "")
        .replace("    add_header X-Vsvc $dysvr_vsvc_id always;\n", "")
        .replace("    add_header X-Task $dysvr_task_id always;\n", "");
    prefix.write("nginx.conf", &text)?;
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    #[test]
    fn requests_are_read_from_wrks_words() {
        let text =
            "Running 3s test @ http://127.0.0.1:1/\n  123456 requests in 3.00s, 150.00MB read\nRequests/sec: 41152";
        assert_eq!(super::requests(text).unwrap(), 123_456.0);
        assert!(super::requests("  0 requests in 3.00s, 0.00B read").is_err());
    }
}
