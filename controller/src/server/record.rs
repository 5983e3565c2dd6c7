//! What the store keeps of a node: that there is one, and how it describes itself. Never what it runs; that is the node's to say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::node::Node;

/// A node's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    /// As it said.
    pub labels: BTreeMap<String, String>,
    /// As it said.
    pub agent_version: String,
    /// When this was written, milliseconds since 1970.
    pub seen_unix_ms: i64,
}

impl NodeRecord {
    /// What there is to keep of a node.
    pub(super) fn of(node: &Node) -> Self {
        Self { labels: node.labels.clone(), agent_version: node.agent_version.clone(), seen_unix_ms: node.seen_unix_ms }
    }

    /// Whether it says the same, the time left out.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.labels == other.labels && self.agent_version == other.agent_version
    }

    /// The node, not connected.
    pub(super) fn into_node(self) -> Node {
        Node {
            labels: self.labels,
            agent_version: self.agent_version,
            seen_unix_ms: self.seen_unix_ms,
            ..Node::default()
        }
    }
}
