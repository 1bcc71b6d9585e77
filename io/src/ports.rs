//! What the core needs of the world, as traits.
//!
//! Ports take orders and return at once; whatever comes of an order arrives in the node's [`Inbox`]. An adapter
//! decides nothing: it does not reorder, drop (except datagrams, which may always be lost) or retry differently from
//! what its trait says.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{
    StreamExt as _,
    channel::{mpsc, oneshot},
};
use mpcium_core::{
    Input, NodeId, Now, Time,
    input::{DeliveryId, QueryId, RequestKind},
    node::Status,
    output::{LoadId, PersistId, Publication, Settlement},
    protocol::Job,
    report::Report,
    store::{Batch, Keyspace},
};

/// Datagrams that may wait for the driver; more are dropped, as the network would.
const DATAGRAMS_WAITING_MAX: usize = 16 * 1024;

/// Unreliable bytes to peers.
pub trait Datagrams {
    /// Sends, or loses.
    fn send(&self, to: NodeId, bytes: Vec<u8>);
}

/// The queues of clients' requests.
pub trait Requests {
    /// Take requests of this kind, or stop taking them. Starts closed.
    fn intake(&self, kind: RequestKind, open: bool);
    /// Tell the queue what becomes of a delivery.
    fn settle(&self, delivery: DeliveryId, how: Settlement);
}

/// The stream of results.
pub trait Results {
    /// Publishes, retrying without end until the stream has it; then [`Input::Published`].
    fn publish(&self, publication: Publication);

    /// Replies to a query, or loses the reply. Ports that bring no [`Input::Query`] need not.
    fn reply(&self, query: QueryId, body: Vec<u8>) {
        let _ = (query, body);
    }
}

/// The node's durable records. A failure is fatal: [`Inbox::fatal`].
pub trait Store {
    /// Makes a batch durable, in order; then [`Input::Persisted`].
    fn persist(&self, id: PersistId, batch: Batch);
    /// Reads a record, seeing all batches ordered before; then [`Input::Loaded`].
    fn load(&self, id: LoadId, keyspace: Keyspace, key: Vec<u8>);
    /// Lists records with names above `after`; then [`Input::Scanned`].
    fn scan(&self, id: LoadId, keyspace: Keyspace, after: Vec<u8>, limit: usize);
}

/// Threads for cryptography.
pub trait Workers {
    /// Runs a job by priority; then [`Input::Computed`].
    fn submit(&self, job: Job);
}

/// The machine's clocks.
pub trait Clock {
    /// Both clocks now.
    fn now(&self) -> Now;
    /// Resolves at or after `time`.
    fn sleep_until(&self, time: Time) -> impl Future<Output = ()>;
}

/// Where reports go: logs, metrics, the audit trail.
pub trait Reports {
    /// Takes one fact.
    fn report(&self, report: Report);
}

/// What reaches the driver.
#[derive(Debug)]
pub enum Event {
    /// For the core.
    Input(Input),
    /// Somebody asks how the node is.
    Status(oneshot::Sender<Status>),
    /// A port cannot go on: stop the node with this reason.
    Fatal(String),
    /// Stop now.
    Stop,
}

/// Where adapters put what happened. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inbox {
    sender: mpsc::UnboundedSender<Event>,
    datagrams: Arc<AtomicUsize>,
}

/// The driver's end of an [`Inbox`].
#[derive(Debug)]
pub struct Events {
    pub(crate) receiver: mpsc::UnboundedReceiver<Event>,
    datagrams: Arc<AtomicUsize>,
}

impl Events {
    /// The next thing that happens; `None` once nobody can put anything in any more.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.receiver.next().await?;
        self.taken(&event);
        Some(event)
    }

    /// Keeps account of what has left the inbox.
    pub(crate) fn taken(&self, event: &Event) {
        if matches!(event, Event::Input(Input::Datagram(_))) {
            self.datagrams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Inbox {
    /// A fresh inbox and the end that the driver reads.
    #[must_use]
    pub fn new() -> (Self, Events) {
        let (sender, receiver) = mpsc::unbounded();
        let datagrams = Arc::new(AtomicUsize::new(0));
        (Self { sender, datagrams: datagrams.clone() }, Events { receiver, datagrams })
    }

    /// Something happened. Lost without effect once the driver has stopped.
    pub fn put(&self, input: Input) {
        if matches!(input, Input::Datagram(_))
            && self.datagrams.fetch_add(1, Ordering::Relaxed) >= DATAGRAMS_WAITING_MAX
        {
            self.datagrams.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let _ = self.sender.unbounded_send(Event::Input(input));
    }

    /// How the node is; `None` once the driver has stopped.
    pub async fn status(&self) -> Option<Status> {
        let (sender, receiver) = oneshot::channel();
        self.ask(sender);
        receiver.await.ok()
    }

    /// Asks how the node is; without an answer once the driver has stopped.
    pub(crate) fn ask(&self, reply: oneshot::Sender<Status>) {
        let _ = self.sender.unbounded_send(Event::Status(reply));
    }

    /// A port cannot go on.
    pub fn fatal(&self, reason: impl Into<String>) {
        let _ = self.sender.unbounded_send(Event::Fatal(reason.into()));
    }

    /// Stop the driver.
    pub fn stop(&self) {
        let _ = self.sender.unbounded_send(Event::Stop);
    }
}
