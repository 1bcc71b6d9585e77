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

/// What anybody on the bus may send, and bytes of it that may wait for the driver, beside what keeping it costs; more is
/// dropped, as the network would. Datagrams and queries do not take each other's room.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What it costs to keep an input.
const INPUT_BYTES: usize = 256;

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

/// Bytes that wait for the driver.
#[derive(Debug, Default)]
struct Waiting {
    datagrams: AtomicUsize,
    queries: AtomicUsize,
}

impl Waiting {
    /// Where an input counts, and how much, if it is from just anybody.
    fn account(&self, input: &Input) -> Option<(&AtomicUsize, usize)> {
        match input {
            Input::Datagram(bytes) => Some((&self.datagrams, bytes.len() + INPUT_BYTES)),
            Input::Query { body, .. } => Some((&self.queries, body.len() + INPUT_BYTES)),
            _ => None,
        }
    }

    /// Whether there is room for an input; it is taken then.
    fn admits(&self, input: &Input) -> bool {
        let Some((bytes, more)) = self.account(input) else { return true };
        let room = |waiting: usize| waiting.checked_add(more).filter(|waiting| *waiting <= WAITING_BYTES_MAX);
        bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    fn taken(&self, input: &Input) {
        if let Some((bytes, fewer)) = self.account(input) {
            bytes.fetch_sub(fewer, Ordering::Relaxed);
        }
    }
}

/// Where adapters put what happened. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inbox {
    sender: mpsc::UnboundedSender<Event>,
    waiting: Arc<Waiting>,
}

/// The driver's end of an [`Inbox`].
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::UnboundedReceiver<Event>,
    waiting: Arc<Waiting>,
}

impl Events {
    /// The next thing that happens; `None` once nobody can put anything in any more.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.receiver.next().await?;
        self.took(&event);
        Some(event)
    }

    /// The same if it has happened already.
    pub(crate) fn next_now(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok()?;
        self.took(&event);
        Some(event)
    }

    fn took(&self, event: &Event) {
        if let Event::Input(input) = event {
            self.waiting.taken(input);
        }
    }
}

impl Inbox {
    /// A fresh inbox and the end that the driver reads.
    #[must_use]
    pub fn new() -> (Self, Events) {
        let (sender, receiver) = mpsc::unbounded();
        let waiting = Arc::new(Waiting::default());
        (Self { sender, waiting: waiting.clone() }, Events { receiver, waiting })
    }

    /// Something happened. Lost without effect once the driver has stopped.
    pub fn put(&self, input: Input) {
        if self.waiting.admits(&input) {
            let _ = self.sender.unbounded_send(Event::Input(input));
        }
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

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn what_anybody_may_send_waits_in_bounded_memory() {
        let (inbox, mut events) = Inbox::new();
        let half = WAITING_BYTES_MAX / 2 - INPUT_BYTES;
        for _ in 0..3 {
            inbox.put(Input::Datagram(vec![0; half]));
            inbox.put(Input::Query { query: QueryId(1), body: vec![0; half] });
        }
        // What is not from just anybody is never lost.
        inbox.put(Input::Wake);
        let mut waiting = Vec::new();
        while let Some(Event::Input(input)) = events.next_now() {
            waiting.push(input);
        }
        assert_eq!(waiting.iter().filter(|input| matches!(input, Input::Datagram(_))).count(), 2);
        assert_eq!(waiting.iter().filter(|input| matches!(input, Input::Query { .. })).count(), 2);
        assert!(matches!(waiting.last(), Some(Input::Wake)));
        inbox.put(Input::Datagram(vec![1]));
        assert!(matches!(block_on(events.next()), Some(Event::Input(Input::Datagram(bytes))) if bytes == [1]));
    }
}
