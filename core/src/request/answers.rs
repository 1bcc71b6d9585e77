//! Answers that must not be contradicted by a redelivery.
//!
//! An error that depends on the state of the world ("this wallet does not exist") could become a success by the time
//! the queue delivers the same request again, because an acknowledgement was lost. So such an answer is made durable at
//! `n − t + 1` nodes before it is published; and whoever takes a delivery that is not the first, or is late with a
//! success, asks until `t` nodes have said what they remember. Any `t` meet any `n − t + 1`, so an answer that was
//! given is found, and given again to the byte. First deliveries, the common case, cost nothing.
//!
//! What a node remembers is written once and only ever an error that names the request: a node that lies about it can
//! spoil a redelivered request, but cannot make up a key or a signature.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use mpcium_client::result::{KeygenResult, ReshareResult, SigningResult};

use super::{deliveries::Prepared, ledger::RequestKey};
use crate::{
    Duration, NodeId, Secret, Time,
    context::{After as ContextAfter, Context, Event, Wanted},
    input::{Delivery, DeliveryId, RequestKind},
    limits,
    link::Lane,
    message::Message as Envelope,
    node::Table,
    session::{Participant, SessionId},
    store::{Batch, Keyspace},
    tags,
};

/// Names a delivery for all nodes and for ever: a hash of its stream, sequence number and time.
pub(crate) type DeliveryKey = [u8; 32];

/// Between nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Remember that this is the answer to a delivery, unless the request that it is about has a result, or may have
    /// one soon.
    Remember { key: DeliveryKey, about: Option<About>, body: Vec<u8> },
    /// The request has a result at the sender: the error is not true any more.
    HasResult { key: DeliveryKey },
    /// It is durable at the sender.
    Remembered { key: DeliveryKey },
    /// Was this delivery answered?
    Recall { key: DeliveryKey },
    /// With this, or not that the sender knows.
    Recalled { key: DeliveryKey, body: Option<Vec<u8>> },
}

/// A signing request: its key, and the digest of its payload.
pub(crate) type About = (RequestKey, [u8; 32]);

/// What continues after a write.
#[derive(Debug)]
pub(crate) enum After {
    /// An answer is durable here: tell who asked.
    Remembered(DeliveryKey, Participant),
}

/// Why an answer is read.
#[derive(Debug)]
pub(crate) enum Reading {
    /// A proposal is about to be decided on.
    Propose(SessionId),
    /// Somebody recalls.
    Recall(Participant),
    /// Somebody wants this remembered, if nothing else is.
    Remember(Participant, Vec<u8>),
}

#[derive(Serialize, Deserialize)]
enum Stored {
    V1(Vec<u8>),
}

struct Remembering {
    prepared: Prepared,
    durable: BTreeSet<NodeId>,
    ask_again: Time,
}

/// What a look-up is for.
enum Purpose {
    /// A redelivery that is to be taken on.
    TakeOn(Box<Delivery>),
    /// A success that is late: others may have given the request up.
    Publish(Box<Prepared>),
}

struct Recalling {
    purpose: Purpose,
    without: BTreeSet<NodeId>,
    ask_again: Time,
}

/// How soon those that have not answered are asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Answers on their way out, and deliveries that are looked up. Two deliveries of one request may be here at once.
#[derive(Default)]
pub(crate) struct Answers {
    remembering: BTreeMap<(DeliveryKey, DeliveryId), Remembering>,
    recalling: BTreeMap<(DeliveryKey, DeliveryId), Recalling>,
}

/// The name of a delivery.
pub(crate) fn delivery_key(stream: &str, sequence: u64, timestamp: crate::WallTime) -> DeliveryKey {
    let body = (stream, sequence, timestamp);
    tags::DELIVERY.hash(&postcard::to_stdvec(&body).expect("plain data serialises"))
}

/// Apart from the names of results, which have 32 bytes.
fn record_key(key: &DeliveryKey) -> Vec<u8> {
    let mut name = b"answer ".to_vec();
    name.extend(key);
    name
}

/// Whether a body is an error that answers this request.
fn is_error_for(kind: RequestKind, wallet: &str, id: &str, body: &[u8]) -> bool {
    match kind {
        RequestKind::Keygen => KeygenResult::from_json(body).is_ok_and(|r| !r.is_success() && r.wallet_id == wallet),
        RequestKind::Sign => SigningResult::from_json(body)
            .is_ok_and(|r| !r.is_success() && r.wallet_id == wallet && r.tx_id == id && r.signature.is_none()),
        RequestKind::Reshare => ReshareResult::from_json(body).is_ok_and(|r| !r.is_success() && r.wallet_id == wallet),
    }
}

/// Whether a body is any error answer: all that is ever remembered.
fn is_error(body: &[u8]) -> bool {
    body.len() <= limits::ANSWER_BYTES_MAX
        && (KeygenResult::from_json(body).is_ok_and(|r| !r.is_success())
            || SigningResult::from_json(body).is_ok_and(|r| !r.is_success())
            || ReshareResult::from_json(body).is_ok_and(|r| !r.is_success()))
}

impl Answers {
    /// Publishes an error once enough nodes remember it.
    pub fn remember(&mut self, ctx: &mut Context, prepared: Prepared) {
        let name = (prepared.key, prepared.delivery);
        self.remembering.insert(name, Remembering { prepared, durable: BTreeSet::new(), ask_again: ctx.now.time });
        self.drive(ctx);
    }

    /// Looks a redelivery up; [`Event::Recalled`] follows.
    pub fn recall(&mut self, ctx: &mut Context, delivery: Delivery) {
        let key = delivery_key(&delivery.stream, delivery.sequence, delivery.timestamp);
        let name = (key, delivery.id);
        self.look_up(ctx, name, Purpose::TakeOn(Box::new(delivery)));
    }

    /// Publishes a late success unless the request was answered with an error meanwhile.
    pub fn publish_unless_answered(&mut self, ctx: &mut Context, prepared: Prepared) {
        let name = (prepared.key, prepared.delivery);
        self.look_up(ctx, name, Purpose::Publish(Box::new(prepared)));
    }

    fn look_up(&mut self, ctx: &mut Context, name: (DeliveryKey, DeliveryId), purpose: Purpose) {
        self.recalling.insert(name, Recalling { purpose, without: BTreeSet::new(), ask_again: ctx.now.time });
        self.drive(ctx);
    }

    /// Reads what is remembered for a delivery that a proposal is to answer; [`Event::AnswerRead`] follows.
    pub fn read_for_proposal(ctx: &mut Context, key: &DeliveryKey, session: SessionId) {
        ctx.load(Keyspace::Ledger, record_key(key), Wanted::Answer(*key, Reading::Propose(session)));
    }

    /// The request has a result: its deliveries whose errors were to be remembered.
    pub fn forget(&mut self, key: DeliveryKey) -> Vec<DeliveryId> {
        let names: Vec<_> = self.remembering.range(names(key)).map(|(name, _)| *name).collect();
        for name in &names {
            self.remembering.remove(name);
        }
        names.into_iter().map(|(_, id)| id).collect()
    }

    /// Gives up the look-ups of requests that are not begun: the process is about to stop.
    pub fn drain(&mut self) -> Vec<DeliveryId> {
        let idle = |r: &Recalling| matches!(r.purpose, Purpose::TakeOn(_));
        let ids = self.recalling.iter().filter(|(_, r)| idle(r)).map(|((_, id), _)| *id).collect();
        self.recalling.retain(|_, r| !idle(r));
        ids
    }

    pub fn drive(&mut self, ctx: &mut Context) {
        let now = ctx.now.time;
        let nodes: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).collect();
        let mut messages = Vec::new();
        for ((key, _), remembering) in &mut self.remembering {
            if now >= remembering.ask_again {
                remembering.ask_again = now.after(ASK_AGAIN);
                for node in nodes.iter().filter(|n| !remembering.durable.contains(n)) {
                    messages.push((
                        *node,
                        Message::Remember {
                            key: *key,
                            about: remembering.prepared.about,
                            body: remembering.prepared.body.clone(),
                        },
                    ));
                }
            }
        }
        for ((key, _), recalling) in &mut self.recalling {
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

    pub fn tables(&self) -> [Table; 2] {
        [
            ("answers to be remembered", self.remembering.len(), Some(limits::REQUESTS_MAX)),
            ("deliveries to be looked up", self.recalling.len(), Some(2 * limits::REQUESTS_MAX)),
        ]
    }

    pub fn wake_at(&self) -> Option<Time> {
        let remembering = self.remembering.values().map(|r| r.ask_again);
        remembering.chain(self.recalling.values().map(|r| r.ask_again)).min()
    }

    pub fn on_message(&mut self, ctx: &mut Context, from: NodeId, message: Message) {
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        let sender = (from, incarnation);
        match message {
            // Routed to `deliveries` by the node.
            Message::HasResult { .. } => {}
            Message::Remember { key, body, .. } => {
                if is_error(&body) {
                    let wanted = Wanted::Answer(key, Reading::Remember(sender, body));
                    ctx.load(Keyspace::Ledger, record_key(&key), wanted);
                }
            }
            Message::Remembered { key } => self.on_remembered(ctx, from, key),
            // A node that lacks records says nothing of absence.
            Message::Recall { key } if ctx.unfit.is_empty() => {
                ctx.load(Keyspace::Ledger, record_key(&key), Wanted::Answer(key, Reading::Recall(sender)));
            }
            Message::Recall { .. } => {}
            Message::Recalled { key, body } => self.on_recalled(ctx, from, key, body.as_deref()),
        }
    }

    fn on_remembered(&mut self, ctx: &mut Context, from: NodeId, key: DeliveryKey) {
        let quorum = ctx.config.peers.len() + 1 - usize::from(ctx.config.threshold);
        let mut done = Vec::new();
        for (name, remembering) in self.remembering.range_mut(names(key)) {
            remembering.durable.insert(from);
            if remembering.durable.len() >= quorum {
                done.push(*name);
            }
        }
        for name in done {
            if let Some(remembering) = self.remembering.remove(&name) {
                remembering.prepared.publish(ctx);
            }
        }
    }

    fn on_recalled(&mut self, ctx: &mut Context, from: NodeId, key: DeliveryKey, body: Option<&[u8]>) {
        // Another coordinator's answer to the same delivery was first.
        let mut done = Vec::new();
        for (name, remembering) in self.remembering.range_mut(names(key)) {
            if let Some(body) = body
                && remembering.prepared.is_answered_by(body)
            {
                remembering.prepared.body = body.to_vec();
                remembering.ask_again = ctx.now.time;
                done.push(*name);
            }
        }
        for name in done {
            // It is asked for again with the first answer, until enough nodes remember that one.
            if let Some(remembering) = self.remembering.get_mut(&name) {
                remembering.durable.clear();
                remembering.durable.insert(from);
            }
            self.on_remembered(ctx, from, key);
        }
        let mut done = Vec::new();
        for (name, recalling) in self.recalling.range_mut(names(key)) {
            match body {
                None => {
                    recalling.without.insert(from);
                    if recalling.without.len() >= usize::from(ctx.config.threshold) {
                        done.push(*name);
                    }
                }
                Some(_) => done.push(*name),
            }
        }
        for name in done {
            let Some(recalling) = self.recalling.remove(&name) else { continue };
            match recalling.purpose {
                Purpose::TakeOn(delivery) => {
                    ctx.event(Event::Recalled(delivery, body.map(<[u8]>::to_vec)));
                }
                Purpose::Publish(mut prepared) => {
                    if let Some(body) = body
                        && prepared.is_answered_by(body)
                    {
                        prepared.body = body.to_vec();
                    }
                    prepared.publish(ctx);
                }
            }
        }
    }

    pub fn on_loaded(ctx: &mut Context, key: DeliveryKey, wanted: Reading, value: Option<Secret>) {
        let known = value.and_then(|bytes| match postcard::from_bytes(bytes.expose()) {
            Ok(Stored::V1(body)) => Some(body),
            Err(_) => None,
        });
        match (wanted, known) {
            (Reading::Propose(session), body) => ctx.event(Event::AnswerRead(session, body)),
            (Reading::Recall(to), body) => reply(ctx, to, Message::Recalled { key, body }),
            (Reading::Remember(to, body), Some(known)) if known != body => {
                reply(ctx, to, Message::Recalled { key, body: Some(known) });
            }
            (Reading::Remember(to, _), Some(_)) => reply(ctx, to, Message::Remembered { key }),
            (Reading::Remember(to, body), None) => {
                let mut batch = Batch::default();
                let record = postcard::to_stdvec(&Stored::V1(body)).expect("plain data serialises");
                batch.put(Keyspace::Ledger, record_key(&key), record);
                ctx.persist(batch, ContextAfter::Answers(After::Remembered(key, to)));
            }
        }
    }

    pub fn on_persisted(ctx: &mut Context, after: After) {
        let After::Remembered(key, to) = after;
        reply(ctx, to, Message::Remembered { key });
    }
}

/// All names of one delivery key.
fn names(key: DeliveryKey) -> std::ops::RangeInclusive<(DeliveryKey, DeliveryId)> {
    (key, DeliveryId(0))..=(key, DeliveryId(u64::MAX))
}

/// Whether `body` is an error that answers this request: what a redelivery is answered with again.
pub(crate) fn answers_request(kind: RequestKind, wallet: &str, id: &str, body: &[u8]) -> bool {
    body.len() <= limits::ANSWER_BYTES_MAX && is_error_for(kind, wallet, id, body)
}

fn reply(ctx: &mut Context, to: Participant, message: Message) {
    if ctx.incarnation_of(to.0) == Some(to.1) {
        send(ctx, to.0, message);
    }
}

fn send(ctx: &mut Context, to: NodeId, message: Message) {
    ctx.send(to, Lane::Control, Envelope::Answers(message));
}
