//! What a table shows of each kind of thing.

use super::resource::Kind;
use super::table::{Value, number, remark, state, text};
use super::time::{age, millis};
use super::view::{Node, Revision, Rollout, Task, Upstream, Vhost};

/// A thing that lists and tables can show.
pub trait Listed: serde::Serialize {
    /// Its kind.
    const KIND: Kind;

    /// What follows the slash in `-o name`.
    fn name(&self) -> String;

    /// Whether the operator's word for it means this one.
    fn is_called(&self, word: &str) -> bool {
        self.name() == word
    }

    /// The headings.
    fn headings(wide: bool) -> Vec<&'static str>;

    /// As many values as headings.
    fn values(&self, wide: bool, now_ms: i64) -> Vec<Value>;
}

impl Listed for Vhost {
    const KIND: Kind = Kind::Vhost;

    fn name(&self) -> String {
        self.vsvc_id.to_string()
    }

    fn is_called(&self, word: &str) -> bool {
        self.name() == word || self.server_names.iter().any(|name| name == word) || self.file == word
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings = vec!["VSVC_ID", "SERVER_NAMES", "LISTEN", "UPSTREAMS", "REVISION"];
        if wide {
            headings.push("FILE");
        }
        headings
    }

    fn values(&self, wide: bool, _: i64) -> Vec<Value> {
        let mut values = vec![
            text(self.name()),
            text(some_of(&self.server_names, wide)),
            text(some_of(&self.listens, wide)),
            text(some_of(&self.upstreams, wide)),
            number(self.revision),
        ];
        if wide {
            values.push(text(&self.file));
        }
        values
    }
}

impl Listed for Upstream {
    const KIND: Kind = Kind::Upstream;

    fn name(&self) -> String {
        self.ups_id.clone()
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings = vec!["UPS_ID", "SERVERS", "VHOSTS", "REVISION"];
        if wide {
            headings.push("FILE");
        }
        headings
    }

    fn values(&self, wide: bool, _: i64) -> Vec<Value> {
        let vhosts: Vec<String> = self.vhosts.iter().map(u64::to_string).collect();
        let mut values = vec![
            text(&self.ups_id),
            text(some_of(&self.servers, wide)),
            text(some_of(&vhosts, wide)),
            number(self.revision),
        ];
        if wide {
            values.push(text(&self.file));
        }
        values
    }
}

impl Listed for Node {
    const KIND: Kind = Kind::Node;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        match wide {
            false => vec!["NAME", "STATE", "REVISION", "DESIRED", "PROXY", "SEEN", "REASON"],
            true => vec![
                "NAME", "STATE", "REVISION", "DESIRED", "PROXY", "MASTER", "WORKERS", "UPDATES", "AGENT", "SEEN",
                "LABELS", "REASON",
            ],
        }
    }

    fn values(&self, wide: bool, now_ms: i64) -> Vec<Value> {
        let observed = self.observed.as_ref();
        let proxy = observed.and_then(|observed| observed.proxy.as_ref());
        let mut values = vec![
            text(&self.name),
            state(&self.state),
            number(observed.map_or(0, |observed| observed.revision)),
            number(self.desired_revision),
            text(match proxy {
                Some(proxy) if proxy.running => "running",
                Some(_) => "stopped",
                None => "unknown",
            }),
        ];
        if wide {
            values.push(number(proxy.map_or(0, |proxy| proxy.master_pid)));
            values.push(number(proxy.map_or(0, |proxy| proxy.worker_pids.len())));
            values.push(number(proxy.map_or(0, |proxy| proxy.updates)));
            values.push(text(&self.agent_version));
        }
        values.push(text(age(now_ms, self.seen.0)));
        if wide {
            let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            values.push(text(labels.join(",")));
        }
        values.push(remark(&self.reason));
        values
    }
}

impl Listed for Rollout {
    const KIND: Kind = Kind::Rollout;

    fn name(&self) -> String {
        self.rollout.to_string()
    }

    fn is_called(&self, word: &str) -> bool {
        super::quantity::rollout(word) == Ok(self.rollout)
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        match wide {
            false => vec!["ROLLOUT", "FROM", "TO", "PHASE", "WAVE", "NODES", "FAILED", "AGE", "REASON"],
            true => {
                vec!["ROLLOUT", "FROM", "TO", "PHASE", "WAVE", "NODES", "FAILED", "BUDGET", "AGE", "TOOK", "REASON"]
            }
        }
    }

    fn values(&self, wide: bool, now_ms: i64) -> Vec<Value> {
        let mut values = vec![
            text(self.name()),
            number(self.from_revision),
            number(self.to_revision),
            state(&self.phase),
            text(format!("{}/{}", self.wave, self.waves.len())),
            text(format!("{}/{}", self.nodes_in("done"), self.nodes())),
            number(self.failed_nodes),
        ];
        if wide {
            values.push(number(self.failure_budget));
        }
        values.push(text(age(now_ms, self.created.0)));
        if wide {
            values.push(text(took(self)));
        }
        values.push(remark(&self.reason));
        values
    }
}

/// From the beginning of a rollout to its end; `<none>` while it runs.
pub fn took(rollout: &Rollout) -> String {
    match rollout.ended.0 {
        0 => "<none>".into(),
        ended => super::time::precise(ended - rollout.created.0),
    }
}

impl Listed for Revision {
    const KIND: Kind = Kind::Revision;

    fn name(&self) -> String {
        self.revision.to_string()
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        match wide {
            false => vec!["REVISION", "PARENT", "FILES", "ROLLOUT", "AGE", "AUTHOR", "MESSAGE"],
            true => vec!["REVISION", "PARENT", "FILES", "ROLLOUT", "AGE", "AUTHOR", "DIGEST", "MESSAGE"],
        }
    }

    fn values(&self, wide: bool, now_ms: i64) -> Vec<Value> {
        let mut values = vec![
            text(self.name()),
            number(self.parent),
            number(self.changes.len()),
            text(self.rollout.map(|id| id.to_string()).unwrap_or_default()),
            text(age(now_ms, self.created.0)),
            text(&self.author),
        ];
        if wide {
            values.push(text(self.digest.clone().unwrap_or_default()));
        }
        values.push(remark(&self.message));
        values
    }
}

impl Listed for Task {
    const KIND: Kind = Kind::Task;

    fn name(&self) -> String {
        self.task.clone()
    }

    fn is_called(&self, word: &str) -> bool {
        self.task == word || self.node == word
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings = vec!["NODE", "TASK", "ROLLOUT", "STATUS", "MODE"];
        headings.extend(["FILES(ms)", "GUARD(ms)", "READY(ms)", "LOADING(ms)", "DONE(ms)", "TOTAL(ms)"]);
        if wide {
            headings.extend(["MASTER(ms)", "PREPARE(ms)", "COMMIT(ms)", "WORKERS", "TO", "AGE", "ID"]);
        }
        headings.push("REASON");
        headings
    }

    fn values(&self, wide: bool, now_ms: i64) -> Vec<Value> {
        let timings = &self.timings;
        let mut values = vec![
            text(&self.node),
            number(self.local_task_id),
            text(self.rollout.map(|id| id.to_string()).unwrap_or_default()),
            state(&self.status.to_string()),
            text(self.mode),
        ];
        let phases = [timings.files_us, timings.guard_us, timings.ready_us, timings.loading_us, timings.done_us];
        values.extend(phases.into_iter().chain([timings.total_us]).map(|us| number(millis(us))));
        if wide {
            // Of the slowest worker: it is the one that everybody waits for.
            let prepare = timings.workers.iter().map(|worker| worker.prepare_us).max().unwrap_or(0);
            let commit = timings.workers.iter().map(|worker| worker.commit_us).max().unwrap_or(0);
            values.extend([timings.master_us, prepare, commit].map(|us| number(millis(us))));
            values.push(number(timings.workers.len()));
            values.push(number(self.to_revision));
            values.push(text(age(now_ms, self.at.0)));
            values.push(text(&self.task));
        }
        values.push(remark(&self.reason));
        values
    }
}

/// The first three of a list, and how many more there are.
fn some_of(all: &[String], wide: bool) -> String {
    const SHOWN: usize = 3;
    // One that is left out would take no more room than the note that it is.
    if wide || all.len() <= SHOWN + 1 {
        return all.join(",");
    }
    format!("{} + {} more", all[..SHOWN].join(","), all.len() - SHOWN)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::super::table;
    use super::*;

    fn drawn<T: Listed>(items: &[T], wide: bool) -> String {
        let rows = items.iter().map(|item| item.values(wide, samples::NOW_MS)).collect();
        table::draw(&T::headings(wide), rows, false)
    }

    #[test]
    fn vhosts_and_upstreams() {
        let wanted = "\
VSVC_ID   SERVER_NAMES                    LISTEN       UPSTREAMS   REVISION
131942    lucas.example                   80,[::]:80   1074728            5
131943    a.example,b.example,c.example   80           <none>             6
131944    n0,n1,n2 + 3 more               80           u                  7
";
        assert_eq!(drawn(&samples::vhosts(), false), wanted);
        let wanted = "\
UPS_ID    SERVERS               VHOSTS   REVISION   FILE
1074728   127.0.0.1:8081        131942          5   auto_upstream/lucas.upstream.conf
spare     127.0.0.1:1,[::1]:2   <none>          4   auto_vhost/spare.conf
";
        assert_eq!(drawn(&samples::upstreams(), true), wanted);
    }

    #[test]
    fn nodes() {
        let wanted = "\
NAME   STATE     REVISION   DESIRED   PROXY     SEEN     REASON
n1     current          7         7   running   2s
n2     failed           6         7   stopped   4m       unknown directive \"x\" in auto_vhost/a.conf:3
n3     away             0         7   unknown   <none>
";
        assert_eq!(drawn(&samples::nodes(), false), wanted);
        let wide = drawn(&samples::nodes(), true);
        assert!(wide.lines().nth(1).is_some_and(|line| line.contains("rack=3,zone=a")), "{wide}");
    }

    #[test]
    fn rollouts_and_revisions() {
        let wanted = "\
ROLLOUT   FROM   TO   PHASE         WAVE   NODES   FAILED   AGE   REASON
7            6    7   running       2/2    1/3          0   10s
6            5    6   rolled-back   1/2    0/3          1   60s   n1: no such upstream
";
        assert_eq!(drawn(&samples::rollouts(), false), wanted);
        let wanted = "\
REVISION   PARENT   FILES   ROLLOUT   AGE   AUTHOR   MESSAGE
7               6       2   7         10s   ops      add lucas
6               5       1   <none>    60s   <none>
";
        assert_eq!(drawn(&samples::revisions(), false), wanted);
    }

    #[test]
    fn tasks_show_every_phase_in_milliseconds() {
        let wanted = "\
NODE   TASK    ROLLOUT   STATUS   MODE       FILES(ms)   GUARD(ms)   READY(ms)   LOADING(ms)   DONE(ms)   TOTAL(ms)   REASON
n1     25208   7         D        in_place       0.412       0.080       0.300         0.100      0.250       1.142
n2     25208   7         F        <none>         0.400       0.000       0.000         0.000      0.000       0.400   low memory: 12 %
";
        assert_eq!(drawn(&samples::tasks(), false), wanted);
        let wide = drawn(&samples::tasks(), true);
        assert!(wide.lines().nth(1).is_some_and(|line| line.contains(" 0.210 ") && line.contains(" 2 ")), "{wide}");
    }

    #[test]
    fn things_answer_to_their_names() {
        let vhost = &samples::vhosts()[0];
        for word in ["131942", "lucas.example", "auto_vhost/lucas.conf"] {
            assert!(vhost.is_called(word), "{word}");
        }
        assert!(!vhost.is_called("lucas") && !vhost.is_called("13194"));
        assert!(samples::rollouts()[0].is_called("7"));
        assert!(samples::tasks()[0].is_called("n1"));
    }
}
