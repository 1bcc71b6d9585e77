//! What a cluster of an earlier version of the program left behind: its disks, what its clients know, and what they
//! were answered. Profile *upgrade* starts from it, so that a version which cannot read old records any more fails.
//!
//! The file is made once per version of the formats (`cargo run -p sim -- --freeze FILE`) and never made again: it is
//! what old versions wrote, not what this one writes.

use mpcium_core::{input::RequestKind, protocol::Curve, store::Keyspace};
use serde::{Deserialize, Serialize};

use crate::scenario::At;

/// The seed of the run that was frozen; identities and clients' keys come from it.
pub const SEED: u64 = 20_251_125;

/// The disks and clients of the first version.
const FIRST: &[u8] = include_bytes!("../fixtures/records-v1.bin");

/// One request as its client sent it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OldRequest {
    /// Which queue.
    pub kind: RequestKind,
    /// The wallet's id.
    pub wallet: String,
    /// The transaction's id; empty for key generation.
    pub transaction: String,
    /// The curve; `None` for key generation.
    pub curve: Option<Curve>,
    /// What was to be signed.
    pub message: Vec<u8>,
    /// Child key indices.
    pub path: Vec<u32>,
    /// Whether it was properly signed.
    pub honest: bool,
    /// The document.
    pub body: Vec<u8>,
    /// Its place in the stream.
    pub sequence: u64,
    /// When it was sent, by the queue's clock in milliseconds.
    pub wall_ms: u64,
}

/// One answer as it was published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OldAnswer {
    /// The subject.
    pub subject: String,
    /// The de-duplication id.
    pub dedup: String,
    /// The document.
    pub body: Vec<u8>,
}

/// A record: keyspace, name, value.
pub type OldRecord = (Keyspace, Vec<u8>, Vec<u8>);

/// A cluster at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Frozen {
    /// Per node, its records.
    pub disks: Vec<Vec<OldRecord>>,
    /// Requests in the order in which they were sent.
    pub requests: Vec<OldRequest>,
    /// Answers in the order in which they were published.
    pub answers: Vec<OldAnswer>,
    /// How long the cluster had run, in microseconds.
    pub at: At,
}

impl Frozen {
    /// As a file.
    ///
    /// # Errors
    /// Never for plain data.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(self)
    }

    /// What the first version left.
    ///
    /// # Errors
    /// If the file in the source tree is damaged.
    pub fn first() -> Result<Self, postcard::Error> {
        postcard::from_bytes(FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frozen_cluster_holds_every_kind_of_record() {
        let frozen = Frozen::first().expect("the file is what was written");
        for keyspace in Keyspace::ALL {
            let there = frozen.disks.iter().flatten().any(|(of, _, _)| *of == keyspace);
            // A cluster at rest has decided everything, and its reserve of ingredients may be used up.
            let passing = matches!(keyspace, Keyspace::Pending | Keyspace::Decisions | Keyspace::Ingredients);
            assert!(there || passing, "no {} in the frozen cluster", keyspace.name());
        }
    }
}
