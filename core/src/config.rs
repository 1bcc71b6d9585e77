//! What a node is told about its cluster.

use mpcium_client::{auth::Authorization, auth::InitiatorKey};

use crate::{Duration, NodeId, PeerInfo};

/// A node's configuration: checked when it is built, never read from a file here.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// All nodes of the cluster, this one included, sorted by id.
    pub peers: Vec<PeerInfo>,
    /// How many nodes sign together.
    pub threshold: u16,
    /// Master chain code of every wallet, for child keys.
    pub chain_code: Option<[u8; 32]>,
    /// Whose requests are served.
    pub initiator: InitiatorKey,
    /// Who must approve them besides.
    pub authorization: Authorization,
    /// Key generations that run at once as coordinator.
    pub max_concurrent_keygen: usize,
    /// Signatures that run at once as coordinator.
    pub max_concurrent_signing: usize,
    /// A signing request is answered within this time of its entry in the queue.
    pub signing_deadline: Duration,
    /// A key generation request is answered within this time of its entry in the queue.
    pub keygen_deadline: Duration,
    /// How far the nodes' wall clocks may differ.
    pub clock_skew: Duration,
    /// Worker threads for cryptography.
    pub workers: usize,
    /// Presignatures that this node keeps ready per wallet and signers as coordinator, and helps to make; 0: none.
    pub presignatures: usize,
    /// Ingredients for auxiliary sets (each: all pieces) that are kept in reserve.
    pub ingredients_reserve: usize,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Too few or too many nodes.
    Nodes(usize),
    /// This node is not among the peers.
    NotAPeer(NodeId),
    /// Two peers share an id, a name or a key.
    Duplicate(String),
    /// The threshold is below ⌊n/2⌋ + 1 or above n.
    Threshold {
        /// What was asked for.
        threshold: u16,
        /// The number of nodes.
        nodes: usize,
    },
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nodes(n) => write!(f, "a cluster has 2 to {} nodes, not {n}", crate::limits::NODES_MAX),
            Self::NotAPeer(id) => write!(f, "this node ({id}) is not among the peers"),
            Self::Duplicate(what) => write!(f, "two peers share {what}"),
            Self::Threshold { threshold, nodes } => write!(
                f,
                "{threshold} signers of {nodes} nodes are not allowed: between {} and {nodes} nodes must sign together",
                nodes / 2 + 1
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Checks everything that [`Node::new`](crate::node::Node::new) relies on, and sorts the peers.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn checked(mut self) -> Result<Self, ConfigError> {
        let nodes = self.peers.len();
        if !(2..=crate::limits::NODES_MAX).contains(&nodes) {
            return Err(ConfigError::Nodes(nodes));
        }
        self.peers.sort_by_key(|p| p.id);
        for (at, peer) in self.peers.iter().enumerate() {
            for other in &self.peers[at + 1..] {
                if peer.id == other.id {
                    return Err(ConfigError::Duplicate(format!("the id {}", peer.id)));
                }
                if peer.name == other.name {
                    return Err(ConfigError::Duplicate(format!("the name {}", peer.name)));
                }
                if peer.key == other.key {
                    return Err(ConfigError::Duplicate(format!("one key ({} and {})", peer.name, other.name)));
                }
            }
        }
        if !self.peers.iter().any(|p| p.id == self.me) {
            return Err(ConfigError::NotAPeer(self.me));
        }
        if usize::from(self.threshold) < nodes / 2 + 1 || usize::from(self.threshold) > nodes {
            return Err(ConfigError::Threshold { threshold: self.threshold, nodes });
        }
        Ok(self)
    }

    /// What is known of a peer.
    #[must_use]
    pub fn peer(&self, id: NodeId) -> Option<&PeerInfo> {
        self.peers.iter().find(|p| p.id == id)
    }

    /// A peer's name for people; its id if it is unknown.
    #[must_use]
    pub fn name(&self, id: NodeId) -> String {
        self.peer(id).map_or_else(|| id.to_string(), |p| p.name.clone())
    }
}
