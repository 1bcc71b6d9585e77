//! Answers clients: from a delivery to its one answer.

pub(crate) mod admission;
pub(crate) mod answers;
pub(crate) mod deliveries;
pub(crate) mod keygen;
pub(crate) mod ledger;
pub(crate) mod patience;
pub(crate) mod query;
pub(crate) mod schedule;
pub(crate) mod signing;

use mpcium_client::result::Attestation;

use crate::NodeId;

/// Nodes' signatures over a result without its attestations, under [`tags::RESULT`](crate::tags::RESULT), by node.
pub(crate) type Attestations = Vec<(NodeId, Vec<u8>)>;

/// How a result document shows one of them.
pub(crate) fn attestation((node, signature): (NodeId, Vec<u8>)) -> Attestation {
    Attestation { node_id: node.to_string(), signature }
}
