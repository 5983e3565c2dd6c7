//! A rollout's progress: what to say when it has moved, and how full each wave's bar is. Pure; `follow.rs` shows it.

use std::collections::BTreeMap;

use super::columns::took;
use super::output::printable;
use super::view::{NodeProgress, Outcome, Rollout, Wave};

/// Waves with more nodes are summed up instead of naming each node that moves.
const NAMED: usize = 16;
/// So many bars leave room for what was on a small terminal before them.
const SCREEN: usize = 12;

/// Remembers what has been said.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The line that says how far it is to go.
    headed: bool,
    phase: Option<String>,
    /// Of each node: the state that was last said.
    states: BTreeMap<String, String>,
    /// Of each wave: the sum that was last said.
    sums: BTreeMap<usize, String>,
}

/// Something to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Without a newline.
    pub text: String,
    /// A node has failed: worth a line where bars show the rest.
    pub failure: bool,
}

/// One wave's bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// `wave 1/3`
    pub label: String,
    /// Nodes in it.
    pub length: u64,
    /// Nodes that have ended.
    pub position: u64,
    /// What is not plain success: `2 failed, 1 updating`.
    pub message: String,
}

impl Progress {
    /// The lines to print after the rollout was seen in this state.
    pub fn lines(&mut self, rollout: &Rollout) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut say = |text: String, failure: bool| lines.push(Line { text, failure });
        let title = format!("rollout/{}", rollout.rollout);
        // A rollout that waits for another one has no waves yet.
        if !self.headed && !rollout.waves.is_empty() {
            self.headed = true;
            let (nodes, waves) = (count(rollout.nodes(), "node"), count(rollout.waves.len(), "wave"));
            let (from, to) = (rollout.from_revision, rollout.to_revision);
            say(format!("{title}: revision {from} -> {to}, {nodes} in {waves}"), false);
        }
        for (index, wave) in rollout.waves.iter().enumerate() {
            let label = format!("{title} {}", label(index, rollout));
            let summed = wave.nodes.len() > NAMED;
            for node in &wave.nodes {
                let known = self.states.get(&node.node).map_or("waiting", String::as_str);
                if known == node.state {
                    continue;
                }
                let failure = node.state == "failed";
                if !summed || failure {
                    say(format!("{label}: {} {}{}", node.node, node.state, because(&node.reason)), failure);
                }
                self.states.insert(node.node.clone(), node.state.clone());
            }
            let sum = sum_of(wave);
            if summed && !wave.nodes.iter().all(|node| node.state == "waiting") && self.sums.get(&index) != Some(&sum) {
                say(format!("{label}: {sum}"), false);
                self.sums.insert(index, sum);
            }
        }
        if self.phase.as_ref() != Some(&rollout.phase) {
            let first = self.phase.is_none() && rollout.phase == "running";
            if rollout.outcome().is_none() && !first {
                say(format!("{title} {}{}", rollout.phase, because(&rollout.reason)), false);
            }
            self.phase = Some(rollout.phase.clone());
        }
        lines
    }
}

/// How full the bar of each wave is.
pub fn bars(rollout: &Rollout) -> Vec<Bar> {
    rollout.waves.iter().enumerate().map(|(index, wave)| bar(label(index, rollout), &wave.nodes)).collect()
}

/// The bars that fit on a screen: more waves than that are one bar for all and one for the current wave.
pub fn screen(rollout: &Rollout) -> Vec<Bar> {
    if rollout.waves.len() <= SCREEN {
        return bars(rollout);
    }
    let all: Vec<NodeProgress> = rollout.waves.iter().flat_map(|wave| &wave.nodes).cloned().collect();
    let current = (rollout.wave as usize).saturating_sub(1);
    let now = rollout.waves.get(current).map(|wave| bar(label(current, rollout), &wave.nodes));
    std::iter::once(bar(count(rollout.waves.len(), "wave"), &all)).chain(now).collect()
}

fn bar(label: String, nodes: &[NodeProgress]) -> Bar {
    let ended = nodes.iter().filter(|node| matches!(node.state.as_str(), "done" | "failed" | "undone"));
    Bar { label, length: nodes.len() as u64, position: ended.count() as u64, message: unfinished(nodes).join(", ") }
}

/// `1 updating`, `2 failed`: the states that are not plain success.
fn unfinished(nodes: &[NodeProgress]) -> Vec<String> {
    let counted = ["updating", "failed", "undone"].map(|state| (state, in_state(nodes, state)));
    counted.iter().filter(|(_, n)| *n > 0).map(|(state, n)| format!("{n} {state}")).collect()
}

/// The last word: `rollout/7 done: 3 of 3 nodes at revision 7 in 1.3s`, or where it is now.
pub fn verdict(rollout: &Rollout) -> String {
    let title = format!("rollout/{}", rollout.rollout);
    let (done, nodes) = (rollout.nodes_in("done"), rollout.nodes());
    match rollout.outcome() {
        Some(Outcome::Succeeded) => {
            format!(
                "{title} done: {done} of {} at revision {} in {}",
                count(nodes, "node"),
                rollout.to_revision,
                took(rollout)
            )
        }
        Some(Outcome::Unsuccessful) => format!(
            "{title} {}{} ({} failed, {} undone, {done} of {nodes} done)",
            rollout.phase,
            because(&rollout.reason),
            rollout.nodes_in("failed"),
            rollout.nodes_in("undone"),
        ),
        None => format!(
            "{title} {}{}: wave {} of {}, {done} of {} at revision {}",
            rollout.phase,
            because(&rollout.reason),
            rollout.wave,
            rollout.waves.len(),
            count(nodes, "node"),
            rollout.to_revision,
        ),
    }
}

fn label(index: usize, rollout: &Rollout) -> String {
    format!("wave {}/{}", index + 1, rollout.waves.len())
}

fn in_state(nodes: &[NodeProgress], state: &str) -> usize {
    nodes.iter().filter(|node| node.state == state).count()
}

fn sum_of(wave: &Wave) -> String {
    let done = format!("{} of {} done", in_state(&wave.nodes, "done"), count(wave.nodes.len(), "node"));
    std::iter::once(done).chain(unfinished(&wave.nodes)).collect::<Vec<_>>().join(", ")
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {}", printable(reason)) }
}

/// `1 node`, `2 nodes`
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_line_for_each_thing_that_moved_and_none_twice() {
        let mut rollout = samples::rollouts().remove(0);
        let mut progress = Progress::default();
        let wanted = [
            "rollout/7: revision 6 -> 7, 3 nodes in 2 waves",
            "rollout/7 wave 1/2: n1 done",
            "rollout/7 wave 2/2: n2 updating",
        ];
        assert_eq!(texts(progress.lines(&rollout)), wanted);
        assert!(progress.lines(&rollout).is_empty());
        rollout.waves[1].nodes[0].state = "failed".into();
        rollout.waves[1].nodes[0].reason = "low memory: 12 %".into();
        rollout.phase = "rolling-back".into();
        rollout.reason = "failure budget spent".into();
        let wanted =
            ["rollout/7 wave 2/2: n2 failed: low memory: 12 %", "rollout/7 rolling-back: failure budget spent"];
        assert_eq!(texts(progress.lines(&rollout)), wanted);
        rollout.phase = "rolled-back".into();
        assert!(progress.lines(&rollout).is_empty(), "the end is the verdict's to tell");
    }

    #[test]
    fn a_rollout_that_waits_says_how_far_it_goes_when_it_starts() {
        let running = samples::rollouts().remove(0);
        let queued = Rollout { phase: "queued".into(), waves: vec![], wave: 0, ..running.clone() };
        let mut progress = Progress::default();
        assert_eq!(texts(progress.lines(&queued)), ["rollout/7 queued"]);
        let said = texts(progress.lines(&running));
        assert_eq!(said[0], "rollout/7: revision 6 -> 7, 3 nodes in 2 waves");
        assert_eq!(said.len(), 4, "{said:?}");
    }

    #[test]
    fn large_waves_are_summed_up() {
        let mut rollout = samples::rollouts().remove(0);
        let node = rollout.waves[1].nodes[1].clone();
        rollout.waves[1].nodes =
            (0..20).map(|i| super::super::view::NodeProgress { node: format!("m{i}"), ..node.clone() }).collect();
        let mut progress = Progress::default();
        assert_eq!(progress.lines(&rollout).len(), 2);
        for node in &mut rollout.waves[1].nodes[..5] {
            node.state = "done".into();
        }
        rollout.waves[1].nodes[6].state = "failed".into();
        let wanted = ["rollout/7 wave 2/2: m6 failed", "rollout/7 wave 2/2: 5 of 20 nodes done, 1 failed"];
        assert_eq!(texts(progress.lines(&rollout)), wanted);
        assert!(progress.lines(&rollout).is_empty());
    }

    #[test]
    fn more_waves_than_lines_on_a_screen_are_two_bars() {
        let mut rollout = samples::rollouts().remove(0);
        assert_eq!(screen(&rollout), bars(&rollout));
        let one = rollout.waves[1].nodes[0].clone();
        rollout.waves.extend((0..20).map(|_| Wave { nodes: vec![one.clone()] }));
        rollout.wave = 3;
        let wanted = [("22 waves", 23, 1, "21 updating"), ("wave 3/22", 1, 0, "1 updating")];
        let wanted = wanted.map(|(label, length, position, message)| Bar {
            label: label.into(),
            length,
            position,
            message: message.into(),
        });
        assert_eq!(screen(&rollout), wanted);
    }

    #[test]
    fn bars_and_verdicts() {
        let [running, undone] = <[Rollout; 2]>::try_from(samples::rollouts()).expect("two");
        let bar = |label: &str, length, position, message: &str| Bar {
            label: label.into(),
            length,
            position,
            message: message.into(),
        };
        assert_eq!(bars(&running), [bar("wave 1/2", 1, 1, ""), bar("wave 2/2", 2, 0, "1 updating")]);
        assert_eq!(bars(&undone)[0], bar("wave 1/2", 1, 1, "1 failed"));
        assert_eq!(verdict(&running), "rollout/7 running: wave 2 of 2, 1 of 3 nodes at revision 7");
        let wanted = "rollout/6 rolled-back: n1: no such upstream (1 failed, 0 undone, 0 of 3 done)";
        assert_eq!(verdict(&undone), wanted);
        let done = Rollout { phase: "done".into(), reason: String::new(), ..undone };
        assert_eq!(verdict(&done), "rollout/6 done: 0 of 3 nodes at revision 6 in 1.4s");
    }
}
