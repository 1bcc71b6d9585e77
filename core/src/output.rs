//! What core asks its shell to do.

use crate::{
    Duration, NodeId, Secret,
    input::{DeliveryId, QueryId, RequestKind},
    protocol::Job,
    report::Report,
    store::{Batch, Keyspace},
};

/// Names a batch; comes back in [`Input::Persisted`](crate::Input::Persisted).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// Names a read or one page of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(pub u64);

/// Names a publication; comes back in [`Input::Published`](crate::Input::Published).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishId(pub u64);

/// One thing to do. Shells carry outputs out in order and decide nothing.
#[derive(Debug)]
pub enum Output {
    /// Send bytes to a peer's subject. May be lost.
    Datagram {
        /// The addressee.
        to: NodeId,
        /// At most [`limits::DATAGRAM_BYTES_MAX`](crate::limits::DATAGRAM_BYTES_MAX).
        bytes: Vec<u8>,
    },
    /// Make a batch durable, then give [`Input::Persisted`](crate::Input::Persisted). Batches become durable in order.
    Persist {
        /// Its name.
        id: PersistId,
        /// The changes.
        batch: Batch,
    },
    /// Read one record, then give [`Input::Loaded`](crate::Input::Loaded). Sees every batch emitted before it.
    Load {
        /// Its name.
        id: LoadId,
        /// Where.
        keyspace: Keyspace,
        /// The record's name.
        key: Vec<u8>,
    },
    /// Read up to `limit` records with names greater than `after`, then give [`Input::Scanned`](crate::Input::Scanned).
    Scan {
        /// Its name.
        id: LoadId,
        /// Where.
        keyspace: Keyspace,
        /// Exclusive lower bound; empty: from the start.
        after: Vec<u8>,
        /// The page's size.
        limit: usize,
    },
    /// Run on a worker, then give [`Input::Computed`](crate::Input::Computed).
    Compute(Job),
    /// Publish a result, retrying until the stream has taken it, then give [`Input::Published`](crate::Input::Published).
    Publish(Publication),
    /// Reply to a query. May be lost.
    Reply {
        /// Which query.
        query: QueryId,
        /// The JSON document.
        body: Vec<u8>,
    },
    /// Tell the queue about a delivery.
    Settle {
        /// Which delivery.
        delivery: DeliveryId,
        /// What to tell.
        how: Settlement,
    },
    /// Whether this node takes further requests of this kind from the queue. Emitted when it changes; shells start closed.
    Intake {
        /// Which queue.
        kind: RequestKind,
        /// Take requests, or do not.
        open: bool,
    },
    /// One structured fact: the only source of logs, metrics and the audit trail.
    Report(Report),
}

/// A result for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its name.
    pub id: PublishId,
    /// The subject, per the contract with clients.
    pub subject: String,
    /// De-duplication id (`Nats-Msg-Id`).
    pub dedup: String,
    /// The JSON document.
    pub body: Vec<u8>,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is answered: remove it from the queue.
    Acknowledge,
    /// It waits or runs here: do not deliver it to another node yet.
    KeepAlive,
    /// Give it to another node, or again to this one, after a while.
    Release(Duration),
}

/// A record read back: the name and the value.
pub type Record = (Vec<u8>, Secret);
