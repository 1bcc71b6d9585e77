//! The deliveries that this node took from the queue. Invariant: each is settled exactly once, after its answer is in
//! the result stream, or released for somebody else; until then it is kept alive.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_client::{
    request::Request,
    result::{ErrorCode, KeygenResult, ReshareResult, SigningResult},
    subjects,
};

use super::{
    admission::Admitted,
    answers::{DeliveryKey, delivery_key},
    attestation,
};
use crate::{
    Duration, Time, WallTime,
    context::Context,
    input::{Delivery, DeliveryId, RequestKind},
    limits,
    node::Table,
    output::Settlement,
    planted::{Bug, planted},
    report::Report,
    session::millis,
    tags,
};

/// A result for a client.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Keygen(KeygenResult),
    Sign(SigningResult),
    Reshare(ReshareResult),
}

impl Answer {
    /// Reads a document that answers a request of this kind.
    fn read(kind: RequestKind, body: &[u8]) -> Option<Self> {
        match kind {
            RequestKind::Keygen => KeygenResult::from_json(body).ok().map(Self::Keygen),
            RequestKind::Sign => SigningResult::from_json(body).ok().map(Self::Sign),
            RequestKind::Reshare => ReshareResult::from_json(body).ok().map(Self::Reshare),
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        match self {
            Self::Keygen(r) => r.to_json(),
            Self::Sign(r) => r.to_json(),
            Self::Reshare(r) => r.to_json(),
        }
    }

    fn error_code(&self) -> &str {
        match self {
            Self::Keygen(r) => &r.error_code,
            Self::Sign(r) => &r.error_code,
            Self::Reshare(r) => &r.error_code,
        }
    }

    fn error_reason(&self) -> &str {
        match self {
            Self::Keygen(r) => &r.error_reason,
            Self::Sign(r) => &r.error_reason,
            Self::Reshare(r) => &r.error_reason,
        }
    }

    /// The document of an error that this node gives up with, signed: part of it from then on, so that whoever repeats it
    /// repeats the same.
    pub fn attested(mut self, ctx: &Context) -> Vec<u8> {
        let (bytes, attestations) = match &mut self {
            Self::Keygen(r) => (r.attested_bytes(), &mut r.attestations),
            Self::Sign(r) => (r.attested_bytes(), &mut r.attestations),
            Self::Reshare(r) => (r.attested_bytes(), &mut r.attestations),
        };
        *attestations = Some(vec![attestation((ctx.me, ctx.identity.sign(tags::RESULT, &bytes).to_vec()))]);
        self.to_json()
    }
}

/// A delivery of a request that is under way. A client that asks again may allow more time than it had before: how long
/// a delivery is worked for, and what it is told if that was not enough, follows from its own document and its own time in
/// the queue.
pub(crate) struct Joined {
    pub id: DeliveryId,
    /// Until when it is worked for.
    pub deadline: WallTime,
    /// What it is told after that, if its document's own expiry is why.
    pub expired: Option<(ErrorCode, String)>,
}

impl Joined {
    /// A delivery of this document that the queue took at `taken`, given how long requests of its kind are.
    pub fn new(ctx: &Context, id: DeliveryId, taken: WallTime, request: &Admitted, within: Duration) -> Self {
        let deadline = request.deadline(ctx, taken, within);
        Self { id, deadline, expired: request.expired(ctx, deadline) }
    }

    /// Whether its deadline has passed for everybody, however clocks differ.
    pub fn is_late(&self, ctx: &Context) -> bool {
        ctx.now.wall > self.deadline.after(ctx.config.clock_skew)
    }
}

struct Taken {
    kind: RequestKind,
    client: Option<String>,
    stream: String,
    sequence: u64,
    timestamp: WallTime,
    deliveries: u64,
    since: Time,
    keep_alive: Time,
    /// Set once the answer is on its way.
    answered: Option<Report>,
}

/// All deliveries that are not settled.
#[derive(Default)]
pub(crate) struct Deliveries {
    open: BTreeMap<DeliveryId, Taken>,
}

impl Deliveries {
    /// Takes charge of a delivery.
    pub fn take(&mut self, ctx: &Context, delivery: &Delivery) {
        self.open.insert(
            delivery.id,
            Taken {
                kind: delivery.kind,
                client: delivery.client.clone().filter(|c| subjects::check_client_id(c).is_ok()),
                stream: delivery.stream.clone(),
                sequence: delivery.sequence,
                timestamp: delivery.timestamp,
                deliveries: delivery.deliveries,
                since: ctx.now.time,
                keep_alive: ctx.now.time.after(limits::KEEP_ALIVE),
                answered: None,
            },
        );
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// The initiator signed under which client id the answer is to be published.
    pub fn answer_to(&mut self, id: DeliveryId, client: &str) {
        if let Some(taken) = self.open.get_mut(&id) {
            taken.client = Some(client.to_owned());
        }
    }

    pub fn tables(&self) -> [Table; 1] {
        // One more than is taken on may be here for the moment of giving it back.
        [("deliveries", self.open.len(), Some(limits::REQUESTS_MAX + 1))]
    }

    /// The name of a delivery for all nodes.
    pub fn key(&self, id: DeliveryId) -> Option<DeliveryKey> {
        self.open.get(&id).map(|taken| delivery_key(&taken.stream, taken.sequence, taken.timestamp))
    }

    /// The names of these deliveries, in order and without repetition, as many as one ballot may name.
    pub fn keys(&self, ids: impl Iterator<Item = DeliveryId>) -> Vec<DeliveryKey> {
        let keys: BTreeSet<DeliveryKey> = ids.filter_map(|id| self.key(id)).collect();
        keys.into_iter().take(limits::PROPOSAL_DELIVERIES_MAX).collect()
    }

    /// Answers with something that depends on this document alone: every node would say the same, at any time.
    pub fn answer(&mut self, ctx: &mut Context, id: DeliveryId, (wallet, request_id): (&str, &str), answer: &Answer) {
        self.send(ctx, id, (wallet, request_id), answer, answer.to_json());
    }

    /// Answers with what was decided.
    pub fn publish(&mut self, ctx: &mut Context, id: DeliveryId, request: &Admitted, body: Vec<u8>) {
        let Some(kind) = self.open.get(&id).map(|taken| taken.kind) else { return };
        // Whatever was decided was read before it was stored.
        if let Some(answer) = Answer::read(kind, &body) {
            self.send(ctx, id, (request.wallet(), request.id()), &answer, body);
        }
    }

    /// Publishes a document; the delivery is acknowledged once the result stream has it.
    fn send(
        &mut self,
        ctx: &mut Context,
        id: DeliveryId,
        (wallet, request_id): (&str, &str),
        answer: &Answer,
        mut body: Vec<u8>,
    ) {
        let Some(taken) = self.open.get_mut(&id).filter(|taken| taken.answered.is_none()) else { return };
        if planted(Bug::SecondAnswer) && taken.deliveries > 1 {
            body.push(b' ');
        }
        taken.answered = Some(Report::RequestAnswered {
            kind: kind_name(taken.kind),
            wallet: wallet.to_owned(),
            id: request_id.to_owned(),
            error_code: answer.error_code().to_owned(),
            reason: answer.error_reason().to_owned(),
            took_ms: millis(ctx.now.time.since(taken.since)),
        });
        let client = taken.client.as_deref().filter(|_| !planted(Bug::ClientIgnored));
        let subject = subjects::result_subject(taken.kind, client, request_id);
        let (stream, time) = (&taken.stream, taken.timestamp.0);
        let dedup = subjects::dedup_id(taken.kind, request_id, client, stream, taken.sequence, time);
        ctx.publish(id, subject, dedup, body);
    }

    pub fn on_published(&mut self, ctx: &mut Context, id: DeliveryId) {
        let Some(taken) = self.open.remove(&id) else { return };
        if let Some(report) = taken.answered {
            ctx.report(report);
        }
        ctx.settle(id, Settlement::Acknowledge);
    }

    /// Gives a delivery back to the queue.
    pub fn release(&mut self, ctx: &mut Context, id: DeliveryId, delay: Duration) {
        if self.open.get(&id).is_some_and(|taken| taken.answered.is_none()) {
            self.open.remove(&id);
            ctx.settle(id, Settlement::Release(delay));
        }
    }

    pub fn on_wake(&mut self, ctx: &mut Context) {
        let now = ctx.now.time;
        let mut due = Vec::new();
        for (id, taken) in &mut self.open {
            if now >= taken.keep_alive {
                taken.keep_alive = now.after(limits::KEEP_ALIVE);
                due.push(*id);
            }
        }
        if planted(Bug::NotKeptAlive) {
            due.clear();
        }
        for id in due {
            ctx.settle(id, Settlement::KeepAlive);
        }
    }

    pub fn wake_at(&self) -> Option<Time> {
        self.open.values().map(|t| t.keep_alive).min()
    }
}

/// A kind's name in reports.
pub(crate) fn kind_name(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Keygen => "keygen",
        RequestKind::Sign => "sign",
        RequestKind::Reshare => "reshare",
    }
}

/// The error answer to a request, with what could be read of it.
pub(crate) fn error_answer(kind: RequestKind, request: Option<&Request>, code: ErrorCode, reason: &str) -> Answer {
    match (kind, request) {
        (RequestKind::Keygen, request) => {
            Answer::Keygen(KeygenResult::error(request.map_or("", |r| r.wallet_id()), code, reason))
        }
        (RequestKind::Sign, Some(Request::Sign(r))) => {
            Answer::Sign(SigningResult::error(&r.network_internal_code, &r.wallet_id, &r.tx_id, code, reason))
        }
        (RequestKind::Sign, _) => Answer::Sign(SigningResult::error("", "", "", code, reason)),
        (RequestKind::Reshare, Some(Request::Reshare(r))) => {
            Answer::Reshare(ReshareResult::error(&r.wallet_id, r.new_threshold, &r.key_type, code, reason))
        }
        (RequestKind::Reshare, _) => Answer::Reshare(ReshareResult::error("", 0, "", code, reason)),
    }
}
