//! How a node is: what `mpcium status` shows. Plain data, no secrets.

use serde::{Deserialize, Serialize};

/// A node's state at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node's id.
    pub id: String,
    /// The node's name.
    pub name: String,
    /// This start.
    pub incarnation: String,
    /// Whether links to enough nodes are up and requests are being taken.
    pub ready: bool,
    /// What it waits for, in words; empty when nothing.
    pub waiting_for: Vec<String>,
    /// Nodes that sign together.
    pub threshold: u16,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// Ingredients of auxiliary sets (safe primes).
    pub ingredients: IngredientStatus,
    /// Auxiliary sets.
    pub auxiliary_sets: Vec<AuxiliaryStatus>,
    /// The set-up with every other node, where the ECDSA protocol has one for each pair.
    #[serde(default)]
    pub pairs: Vec<PairStatus>,
    /// Presignatures.
    #[serde(default)]
    pub presignatures: PresignatureStatus,
    /// Runs of protocols in which this node takes part.
    pub sessions: Vec<SessionStatus>,
    /// Requests that this node coordinates.
    pub requests: Vec<RequestStatus>,
    /// Key generations that are prepared and not yet decided.
    pub undecided: Vec<String>,
    /// What the store lacks, and other things that somebody must look at.
    pub alarms: Vec<String>,
    /// Wallets whose keys sign no more because two certificates exist for their epoch, in words; not more than
    /// [`STOPPED_SHOWN`](crate::limits::STOPPED_SHOWN).
    #[serde(default)]
    pub stopped: Vec<String>,
    /// How full everything is that the node keeps in memory.
    #[serde(default)]
    pub tables: Vec<TableStatus>,
}

/// One table, queue or buffer of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStatus {
    /// What it holds.
    pub name: String,
    /// Its entries, or bytes where the name says so.
    pub entries: usize,
    /// The most that it may hold; `None` for what the number of undecided wallets or of what is under way limits.
    pub limit: Option<usize>,
}

/// A table as its owner counts it: name, entries, limit.
pub(crate) type Table = (&'static str, usize, Option<usize>);

impl From<Table> for TableStatus {
    fn from((name, entries, limit): Table) -> Self {
        Self { name: name.to_owned(), entries, limit }
    }
}

/// A peer as seen from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Whether it answers.
    pub up: bool,
    /// Whether discovery lists it.
    pub registered: bool,
    /// More in words: since when, or what the link waits for.
    pub detail: String,
}

/// Ingredients in store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngredientStatus {
    /// Pieces in store.
    pub pieces: usize,
    /// Pieces wanted.
    pub wanted: usize,
    /// Whether pieces are being made now.
    pub making: bool,
}

/// Presignatures of this node and others, in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresignatureStatus {
    /// How many are kept ready for each wallet and signers that clients lately asked for; 0: none are made.
    pub wanted: usize,
    /// Those that this node is still to have made.
    pub missing: usize,
    /// Those that are being made.
    pub making: usize,
    /// Those that can be used.
    pub ready: usize,
    /// Those that this start has used up.
    pub used: u64,
}

/// One auxiliary set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuxiliaryStatus {
    /// Its name.
    pub name: String,
    /// Its members.
    pub members: Vec<String>,
    /// Whether every member has agreed to it, so that it can be used.
    pub agreed: bool,
    /// Why it must never be used again; empty if it may.
    #[serde(default)]
    pub banned: String,
}

/// Whether this node and another can sign together, where the ECDSA protocol has a set-up for each pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairStatus {
    /// The other node.
    pub peer: String,
    /// Whether they can.
    pub state: PairState,
    /// In words: how long a ban lasts and why, or what a missing set-up waits for. Empty if it is ready.
    pub detail: String,
}

/// How the set-up of a pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairState {
    /// Both members agreed to it.
    Ready,
    /// It has not been made (again) yet.
    Missing,
    /// The last one was banned, and it is too early for a new one.
    Banned,
}

impl PairState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Missing, Self::Banned];

    /// Its word in statuses and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Missing => "missing",
            Self::Banned => "banned",
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The session's id, shortened.
    pub session: String,
    /// Which protocol.
    pub protocol: String,
    /// For which wallet, if any.
    pub wallet: String,
    /// Milliseconds since it started here.
    pub age_ms: u64,
    /// From whom it waits for a message.
    pub waits_for: Vec<String>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatus {
    /// `keygen`, `sign` or `reshare`.
    pub kind: String,
    /// The wallet.
    pub wallet: String,
    /// The client's transaction or session id.
    pub id: String,
    /// Milliseconds since this node took it.
    pub age_ms: u64,
    /// What happens to it now, in words.
    pub state: String,
}
