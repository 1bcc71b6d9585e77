//! Answers that must not be contradicted by a redelivery.
//!
//! An error that depends on the state of the world ("this wallet does not exist") could become a success by the time
//! the queue delivers the same request again, because an acknowledgement was lost. So such an answer is made durable at
//! `n − t + 1` nodes before it is published; and whoever takes a delivery that is not the first asks until `t` nodes
//! have said what they remember. Any `t` meet any `n − t + 1`, so an answer that was given is found, and given again
//! to the byte. First deliveries, the common case, cost nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::deliveries::Prepared;
use crate::{
    Duration, NodeId, Secret, Time,
    context::{After as ContextAfter, Context, Event, Wanted},
    input::Delivery,
    limits,
    link::Lane,
    message::Message as Envelope,
    session::Participant,
    store::{Batch, Keyspace},
    tags,
};

/// Names a delivery for all nodes and for ever: a hash of its stream, sequence number and time.
pub(crate) type DeliveryKey = [u8; 32];

/// Between nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Remember that this is the answer to a delivery.
    Remember { key: DeliveryKey, body: Vec<u8> },
    /// It is durable at the sender.
    Remembered { key: DeliveryKey },
    /// Was this delivery answered?
    Recall { key: DeliveryKey },
    /// With this, or not that the sender knows.
    Recalled { key: DeliveryKey, body: Option<Vec<u8>> },
}

/// What continues after a write.
#[derive(Debug)]
pub(crate) enum After {
    /// An answer is durable here: tell who asked.
    Remembered(DeliveryKey, Participant),
}

#[derive(Serialize, Deserialize)]
enum Stored {
    V1(Vec<u8>),
}

struct Remembering {
    prepared: Prepared,
    body: Vec<u8>,
    durable: BTreeSet<NodeId>,
    ask_again: Time,
}

struct Recalling {
    delivery: Delivery,
    without: BTreeSet<NodeId>,
    ask_again: Time,
}

/// How soon those that have not answered are asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Answers on their way out, and redeliveries that are looked up.
#[derive(Default)]
pub(crate) struct Answers {
    remembering: BTreeMap<DeliveryKey, Remembering>,
    recalling: BTreeMap<DeliveryKey, Recalling>,
}

/// The name of a delivery.
pub(crate) fn delivery_key(stream: &str, sequence: u64, timestamp: crate::WallTime) -> DeliveryKey {
    let body = (stream, sequence, timestamp);
    tags::DELIVERY.hash(&postcard::to_stdvec(&body).expect("plain data serialises"))
}

impl Answers {
    /// Publishes an answer once enough nodes remember it.
    pub fn remember(&mut self, ctx: &mut Context, prepared: Prepared) {
        let key = prepared.key;
        let body = prepared.body.clone();
        let remembering = Remembering { prepared, body, durable: BTreeSet::new(), ask_again: ctx.now.time };
        self.remembering.insert(key, remembering);
        self.drive(ctx);
    }

    /// Looks a redelivery up; [`Event::Recalled`] follows.
    pub fn recall(&mut self, ctx: &mut Context, delivery: Delivery) {
        let key = delivery_key(&delivery.stream, delivery.sequence, delivery.timestamp);
        let recalling = Recalling { delivery, without: BTreeSet::new(), ask_again: ctx.now.time };
        self.recalling.insert(key, recalling);
        self.drive(ctx);
    }

    /// Gives up the look-ups: the process is about to stop.
    pub fn drain(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.recalling).into_values().map(|r| r.delivery).collect()
    }

    pub fn drive(&mut self, ctx: &mut Context) {
        let now = ctx.now.time;
        let nodes: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).collect();
        let mut messages = Vec::new();
        for (key, remembering) in &mut self.remembering {
            if now >= remembering.ask_again {
                remembering.ask_again = now.after(ASK_AGAIN);
                for node in nodes.iter().filter(|n| !remembering.durable.contains(n)) {
                    messages.push((*node, Message::Remember { key: *key, body: remembering.body.clone() }));
                }
            }
        }
        for (key, recalling) in &mut self.recalling {
            if now >= recalling.ask_again {
                recalling.ask_again = now.after(ASK_AGAIN);
                for node in nodes.iter().filter(|n| !recalling.without.contains(n)) {
                    messages.push((*node, Message::Recall { key: *key }));
                }
            }
        }
        for (node, message) in messages {
            send(ctx, node, message);
        }
    }

    pub fn wake_at(&self) -> Option<Time> {
        let remembering = self.remembering.values().map(|r| r.ask_again);
        remembering.chain(self.recalling.values().map(|r| r.ask_again)).min()
    }

    pub fn on_message(&mut self, ctx: &mut Context, from: NodeId, message: Message) {
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        match message {
            Message::Remember { key, body } => {
                if body.len() > limits::REQUEST_BYTES_MAX {
                    return;
                }
                let mut batch = Batch::default();
                let record = postcard::to_stdvec(&Stored::V1(body)).expect("plain data serialises");
                batch.put(Keyspace::Ledger, key.to_vec(), record);
                let after = After::Remembered(key, (from, incarnation));
                ctx.persist(batch, ContextAfter::Answers(after));
            }
            Message::Remembered { key } => {
                let Some(remembering) = self.remembering.get_mut(&key) else { return };
                remembering.durable.insert(from);
                let quorum = ctx.config.peers.len() + 1 - usize::from(ctx.config.threshold);
                if remembering.durable.len() >= quorum
                    && let Some(remembering) = self.remembering.remove(&key)
                {
                    remembering.prepared.publish(ctx);
                }
            }
            Message::Recall { key } => {
                // A node that lacks records says nothing of absence.
                if ctx.unfit.is_empty() {
                    ctx.load(Keyspace::Ledger, key.to_vec(), Wanted::Answer(key, (from, incarnation)));
                }
            }
            Message::Recalled { key, body } => {
                let Some(recalling) = self.recalling.get_mut(&key) else { return };
                if body.is_none() {
                    recalling.without.insert(from);
                    if recalling.without.len() < usize::from(ctx.config.threshold) {
                        return;
                    }
                }
                if let Some(recalling) = self.recalling.remove(&key) {
                    ctx.event(Event::Recalled(Box::new(recalling.delivery), body));
                }
            }
        }
    }

    pub fn on_loaded(ctx: &mut Context, key: DeliveryKey, to: Participant, value: Option<Secret>) {
        let body = value.map(|bytes| match postcard::from_bytes(bytes.expose()) {
            Ok(Stored::V1(body)) => body,
            // The store authenticates what it returns: an unreadable record is ours and wrong.
            Err(error) => panic!("answer {} cannot be read: {error}", hex::encode(key)),
        });
        if ctx.incarnation_of(to.0) == Some(to.1) {
            send(ctx, to.0, Message::Recalled { key, body });
        }
    }

    pub fn on_persisted(ctx: &mut Context, after: After) {
        let After::Remembered(key, to) = after;
        if ctx.incarnation_of(to.0) == Some(to.1) {
            send(ctx, to.0, Message::Remembered { key });
        }
    }
}

fn send(ctx: &mut Context, to: NodeId, message: Message) {
    ctx.send(to, Lane::Control, Envelope::Answers(message));
}
