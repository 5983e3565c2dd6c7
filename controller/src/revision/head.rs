//! What moves with each change: the one record that every steering write compares and sets.

use std::collections::BTreeMap;

use dysvr_proto::id::{Revision, RolloutId};
use serde::{Deserialize, Serialize};

/// Where the fleet stands. A rollout that does not reach its end gives `base` back to the revision before it, so that
/// later changes are not built on what was taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// What the next change builds on: what the fleet is meant to run.
    pub base: Revision,
    /// The highest number that was given out.
    pub last: Revision,
    /// Never given out twice, even when its vhost is gone.
    pub next_vsvc_id: u64,
    /// The highest number that was given out.
    pub last_rollout: RolloutId,
    /// What nodes run that no rollout moves at the moment.
    pub settled: Vec<Settled>,
    /// The rollout that moves nodes now, and those that wait for it, in order.
    pub rollouts: Vec<RolloutId>,
    /// The newest rollout that ended before its goal and left its nodes where they were. 0 is none.
    pub left: RolloutId,
}

/// The end of a rollout: nodes with these labels run that revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Labels that a node must have; none is every node.
    pub selector: BTreeMap<String, String>,
    /// What it runs.
    pub revision: Revision,
}

/// Whether a node's labels have all that a selector names.
pub fn matches(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Head {
    /// Before the first change.
    pub fn new() -> Self {
        Self { next_vsvc_id: 1, ..Self::default() }
    }

    /// The revision of a node that no rollout moves: of the last settled selector that it has.
    pub fn settled_for(&self, labels: &BTreeMap<String, String>) -> Revision {
        let last = self.settled.iter().rev().find(|settled| matches(&settled.selector, labels));
        last.map_or(Revision(0), |settled| settled.revision)
    }

    /// Nodes with these labels run `revision` from now on. What it overrules is forgotten.
    pub fn settle(&mut self, selector: &BTreeMap<String, String>, revision: Revision) {
        if selector.is_empty() {
            self.settled.clear();
        } else {
            self.settled.retain(|settled| settled.selector != *selector);
        }
        self.settled.push(Settled { selector: selector.clone(), revision });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn the_last_settled_selector_of_a_node_decides() {
        let mut head = Head::new();
        assert_eq!(head.settled_for(&labels("zone=a")), Revision(0));
        head.settle(&labels(""), Revision(4));
        head.settle(&labels("zone=a"), Revision(5));
        assert_eq!(head.settled_for(&labels("zone=a tier=1")), Revision(5));
        assert_eq!(head.settled_for(&labels("zone=b")), Revision(4));
        head.settle(&labels("zone=a"), Revision(6));
        assert_eq!(head.settled.len(), 2);
        assert_eq!(head.settled_for(&labels("zone=a")), Revision(6));
        head.settle(&labels(""), Revision(7));
        assert_eq!(head.settled_for(&labels("zone=a")), Revision(7));
        assert_eq!(head.settled.len(), 1);
    }
}
