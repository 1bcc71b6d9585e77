//! What core asks of the disk: named records in keyspaces, changed by atomic durable batches.
//!
//! Core sees plain records; sealing, integrity and erasure belong to the adapter. A batch is durable as a whole
//! before [`Input::Persisted`](crate::Input::Persisted) may be given back, or not at all.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// The keyspaces of a node's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Keyspace {
    /// This node's own incarnations and commits, what it sits out, which keys are stopped.
    Meta,
    /// How far each peer has come, as far as this node has heard.
    Peers,
    /// Sessions that were prepared, refused or are being decided: what recovery starts from.
    Pending,
    /// Acceptor state of undecided epochs.
    Decisions,
    /// Certificates, for ever, and each wallet's newest epoch.
    Certificates,
    /// Key shares. Erasable.
    Shares,
    /// Which request had which payload, attempt and result.
    Ledger,
    /// Auxiliary sets with this node's secrets. Erasable.
    Auxiliary,
    /// Ingredients of future auxiliary sets (safe primes). Erasable.
    Ingredients,
}

impl Keyspace {
    /// Every keyspace, in a fixed order.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Peers,
        Self::Pending,
        Self::Decisions,
        Self::Certificates,
        Self::Shares,
        Self::Ledger,
        Self::Auxiliary,
        Self::Ingredients,
    ];

    /// The name under which the adapter stores it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Peers => "peers",
            Self::Pending => "pending",
            Self::Decisions => "decisions",
            Self::Certificates => "certificates",
            Self::Shares => "shares",
            Self::Ledger => "ledger",
            Self::Auxiliary => "auxiliary",
            Self::Ingredients => "ingredients",
        }
    }

    /// Small keyspaces are handed to core whole at start (in the boot record); the others are loaded on demand.
    #[must_use]
    pub fn loaded_at_boot(self) -> bool {
        !matches!(self, Self::Certificates | Self::Shares | Self::Ledger)
    }

    /// Records that must be erasable: the adapter seals each under a key of its own and destroys that key.
    #[must_use]
    pub fn erasable(self) -> bool {
        matches!(self, Self::Shares | Self::Auxiliary | Self::Ingredients)
    }
}

/// One change: a value to store, or `None` to remove (in an erasable keyspace: to destroy).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub keyspace: Keyspace,
    /// The record's name: at most [`limits::RECORD_KEY_BYTES_MAX`](crate::limits::RECORD_KEY_BYTES_MAX) bytes.
    pub key: Vec<u8>,
    /// The record, or `None` to remove it.
    pub value: Option<Secret>,
}

/// Changes that become durable together. Later writes to the same name win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes, in order.
    pub writes: Vec<Write>,
}

impl Batch {
    /// Adds a record.
    pub fn put(&mut self, keyspace: Keyspace, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push(Write { keyspace, key, value: Some(Secret::new(value)) });
    }

    /// Adds a removal.
    pub fn remove(&mut self, keyspace: Keyspace, key: Vec<u8>) {
        self.writes.push(Write { keyspace, key, value: None });
    }
}

/// What the shell read from the store before it made the node: all records of the keyspaces that are
/// [`loaded_at_boot`](Keyspace::loaded_at_boot), and what the store found missing or damaged.
#[derive(Clone, Debug, Default)]
pub struct BootRecord {
    /// All records of the keyspaces that are loaded at boot.
    pub records: Vec<(Keyspace, Vec<u8>, Secret)>,
    /// What the integrity check missed, in words. Not empty: the node refuses to sign.
    pub damage: Vec<String>,
}
