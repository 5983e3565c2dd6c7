//! The immutable plan of a rollout.

use dysvr_proto::id::Revision;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

use super::strategy::Strategy;

/// A node of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Its name.
    #[serde(rename = "n")]
    pub node: String,
    /// What it goes back to.
    #[serde(rename = "f")]
    pub from: Revision,
}

/// Which node moves in which wave. Written once, before anything moves.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    waves: Vec<Vec<Planned>>,
    places: HashMap<String, (usize, usize)>,
}

impl Plan {
    /// Cuts nodes into waves, in the order of their names: the same fleet always has the same first node.
    pub fn new(mut nodes: Vec<Planned>, strategy: &Strategy) -> Self {
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        nodes.dedup_by(|a, b| a.node == b.node);
        let total = nodes.len();
        let mut waves = Vec::new();
        let mut sizes = strategy.waves.iter().copied();
        let mut size = 1;
        while !nodes.is_empty() {
            size = sizes.next().map_or(size, |next| next.of_wave(total));
            let rest = nodes.split_off(size.min(nodes.len()));
            waves.push(std::mem::replace(&mut nodes, rest));
        }
        Self::from_waves(waves)
    }

    /// As it was stored.
    pub fn from_waves(waves: Vec<Vec<Planned>>) -> Self {
        let mut places = HashMap::default();
        for (w, wave) in waves.iter().enumerate() {
            for (n, planned) in wave.iter().enumerate() {
                places.insert(planned.node.clone(), (w, n));
            }
        }
        Self { waves, places }
    }

    /// All waves in order.
    pub fn waves(&self) -> &[Vec<Planned>] {
        &self.waves
    }

    /// The wave of a node and what it goes back to.
    pub fn find(&self, node: &str) -> Option<(usize, &Planned)> {
        self.places.get(node).map(|&(wave, n)| (wave, &self.waves[wave][n]))
    }

    /// How many nodes it moves.
    pub fn total(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Size;

    #[test]
    fn the_last_size_repeats_until_all_nodes_are_in() {
        let nodes = |count: usize| -> Vec<Planned> {
            (0..count).rev().map(|n| Planned { node: format!("n{n:02}"), from: Revision(1) }).collect()
        };
        let sizes = |count: usize, waves: Vec<Size>| -> Vec<usize> {
            let strategy = Strategy { waves, ..Strategy::default() };
            Plan::new(nodes(count), &strategy).waves().iter().map(Vec::len).collect()
        };
        let usual = vec![Size::Count(1), Size::Percent(25), Size::Percent(100)];
        assert_eq!(sizes(0, usual.clone()), [0usize; 0]);
        assert_eq!(sizes(3, usual.clone()), [1, 1, 1]);
        assert_eq!(sizes(10, usual), [1, 3, 6]);
        assert_eq!(sizes(5, vec![Size::Count(2)]), [2, 2, 1]);
        let plan = Plan::new(nodes(3), &Strategy::default());
        assert_eq!(plan.find("n00").map(|(wave, _)| wave), Some(0));
        assert_eq!(plan.find("n03"), None);
    }
}
