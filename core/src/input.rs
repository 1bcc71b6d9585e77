//! What happens to a node.

use std::collections::BTreeSet;

pub use mpcium_client::Kind as RequestKind;

use crate::{
    NodeId, Secret, WallTime,
    output::{LoadId, PersistId, PublishId, Record},
    protocol::Computed,
};

/// Names a delivery for as long as this process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub u64);

/// One delivery of one client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its name towards the queue.
    pub id: DeliveryId,
    /// From which queue.
    pub kind: RequestKind,
    /// The JSON document.
    pub body: Vec<u8>,
    /// The `ClientID` header: unauthenticated; only decides the result's subject.
    pub client: Option<String>,
    /// The stream that holds it.
    pub stream: String,
    /// Its sequence number in the stream.
    pub sequence: u64,
    /// When the stream took it.
    pub timestamp: WallTime,
    /// How often it has been delivered, this time included.
    pub deliveries: u64,
}

/// Names a query for as long as this process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// A request was delivered.
    Request(Delivery),
    /// Somebody asks for a wallet: an unauthenticated document.
    Query {
        /// Its name towards the bus.
        query: QueryId,
        /// The JSON document.
        body: Vec<u8>,
    },
    /// Bytes arrived on this node's subject: unauthenticated, perhaps repeated, late, reordered or forged.
    Datagram(Vec<u8>),
    /// What discovery says now: which of the configured peers are registered. A hint, never a permission.
    Peers(Vec<NodeId>),
    /// Wallets that discovery knows from another system: all of them, as it says now. A hint: a reason to refuse to create
    /// a wallet of that name, never a permission.
    WalletsElsewhere(BTreeSet<String>),
    /// A batch is durable.
    Persisted(PersistId),
    /// A read came back; `None`: there is no such record.
    Loaded(LoadId, Option<Secret>),
    /// One page of a listing came back, in order of names.
    Scanned(LoadId, Vec<Record>),
    /// A job finished on a worker.
    Computed(Computed),
    /// The result stream has taken a publication.
    Published(PublishId),
    /// Time has passed [`Node::wake_at`](crate::node::Node::wake_at).
    Wake,
    /// Take no more requests and hand back what has not started: the process is about to stop.
    Drain,
    /// The process ends now: peers hear so. Nothing is handled after it.
    Leave,
}
