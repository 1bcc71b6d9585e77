//! The port for clients' requests: which deliveries this node holds, and what it tells the queue about them.
//!
//! A delivery is in the table from its arrival until it is settled. Settling is confirmed by the server; if it never
//! is, the queue delivers again and the core answers again with the same bytes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Subject, connection::State};
use bytes::Bytes;
use mpcium_core::{
    input::{DeliveryId, RequestKind},
    limits,
    output::Settlement,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

use super::{
    Link, Unconfirmed,
    consumers::{REQUESTS, RequestSpec},
    datagrams::send_now,
};

/// How often an acknowledgement is tried before the queue is left to deliver again.
const CONFIRM_ATTEMPTS: u32 = 6;
/// First wait between those attempts; doubles.
const CONFIRM_WAIT: Duration = Duration::from_millis(250);

const ACK: Bytes = Bytes::from_static(b"+ACK");
const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

/// The deliveries that this node holds.
#[derive(Debug, Default)]
pub(super) struct Table {
    held: Mutex<BTreeMap<DeliveryId, (RequestKind, Subject)>>,
    next: AtomicU64,
    /// Something was settled.
    pub settled: Notify,
}

impl Table {
    /// Remembers where a delivery is to be acknowledged.
    pub fn insert(&self, kind: RequestKind, reply: Subject) -> DeliveryId {
        let id = DeliveryId(self.next.fetch_add(1, Ordering::Relaxed));
        self.lock().insert(id, (kind, reply));
        id
    }

    /// How many more of this kind may be taken.
    pub fn room(&self, kind: RequestKind) -> usize {
        let held = self.lock().values().filter(|(of, _)| *of == kind).count();
        limits::REQUESTS_MAX.saturating_sub(held)
    }

    fn reply(&self, id: DeliveryId) -> Option<Subject> {
        self.lock().get(&id).map(|(_, reply)| reply.clone())
    }

    fn remove(&self, id: DeliveryId) -> Option<Subject> {
        let (_, reply) = self.lock().remove(&id)?;
        self.settled.notify_waiters();
        Some(reply)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<DeliveryId, (RequestKind, Subject)>> {
        // Every change is a single insertion or removal, so a panic elsewhere leaves the map whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes requests from the shared durables, and settles them.
#[derive(Debug)]
pub struct NatsRequests {
    client: Client,
    link: Arc<Link>,
    table: Arc<Table>,
    open: BTreeMap<RequestKind, watch::Sender<bool>>,
    runtime: Handle,
}

impl NatsRequests {
    pub(super) fn new(client: Client, link: Arc<Link>) -> Self {
        let open = REQUESTS.iter().map(|spec| (spec.kind, watch::Sender::new(false))).collect();
        Self { client, link, table: Arc::default(), open, runtime: Handle::current() }
    }

    pub(super) fn table(&self) -> Arc<Table> {
        self.table.clone()
    }

    fn confirm(&self, reply: Subject, payload: Bytes) {
        self.runtime.spawn(confirm(self.client.clone(), self.link.unconfirmed(), reply, payload));
    }

    /// Each queue with the switch that opens it.
    pub(super) fn intakes(&self) -> Vec<(&'static RequestSpec, watch::Receiver<bool>)> {
        REQUESTS.iter().filter_map(|spec| Some((spec, self.open.get(&spec.kind)?.subscribe()))).collect()
    }
}

impl crate::ports::Requests for NatsRequests {
    fn intake(&self, kind: RequestKind, open: bool) {
        if let Some(switch) = self.open.get(&kind) {
            switch.send_replace(open);
        }
    }

    fn settle(&self, delivery: DeliveryId, how: Settlement) {
        match how {
            Settlement::KeepAlive => {
                if let Some(reply) = self.table.reply(delivery)
                    && self.client.connection_state() == State::Connected
                {
                    send_now(&self.client, reply, IN_PROGRESS);
                }
            }
            Settlement::Acknowledge => {
                if let Some(reply) = self.table.remove(delivery) {
                    self.confirm(reply, ACK);
                }
            }
            Settlement::Release(after) => {
                if let Some(reply) = self.table.remove(delivery) {
                    self.confirm(reply, refusal(after));
                }
            }
        }
    }
}

/// The message that gives a delivery back, to be delivered again after a while.
pub(super) fn refusal(after: Duration) -> Bytes {
    if after.is_zero() { "-NAK".into() } else { format!("-NAK {{\"delay\":{}}}", after.as_nanos()).into() }
}

/// Sends a settlement until the server confirms it, or gives up and leaves the matter to redelivery.
async fn confirm(client: Client, _unconfirmed: Unconfirmed, reply: Subject, payload: Bytes) {
    let mut wait = CONFIRM_WAIT;
    for _ in 0..CONFIRM_ATTEMPTS {
        if client.request(reply.clone(), payload.clone()).await.is_ok() {
            return;
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
}
