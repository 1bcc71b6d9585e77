//! The deliveries that this node took from the queue. Invariant: each is settled exactly once, after its answer is in
//! the result stream, or released for somebody else; until then it is kept alive.

use std::collections::BTreeMap;

use mpcium_client::{
    request::{Kind, Request},
    result::{ErrorCode, KeygenResult, ReshareResult, SigningResult},
    subjects,
};

use super::{
    answers::{About, Answers, DeliveryKey, answers_request, delivery_key},
    attestation,
};
use crate::{
    Duration, Time,
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
    /// Signs an error that will be remembered: part of it from then on, so that whoever repeats it repeats the same.
    fn attest_error(&mut self, ctx: &Context) {
        let (is_success, bytes, attestations) = match self {
            Self::Keygen(r) => (r.is_success(), r.attested_bytes(), &mut r.attestations),
            Self::Sign(r) => (r.is_success(), r.attested_bytes(), &mut r.attestations),
            Self::Reshare(r) => (r.is_success(), r.attested_bytes(), &mut r.attestations),
        };
        if !is_success {
            *attestations = Some(vec![attestation((ctx.me, ctx.identity.sign(tags::RESULT, &bytes).to_vec()))]);
        }
    }
}

struct Taken {
    kind: RequestKind,
    client: Option<String>,
    stream: String,
    sequence: u64,
    timestamp: crate::WallTime,
    deliveries: u64,
    since: Time,
    keep_alive: Time,
    /// Set once the answer is on its way.
    answered: Option<Report>,
}

impl Taken {
    fn prepared(
        &self,
        delivery: DeliveryId,
        wallet: &str,
        request_id: &str,
        body: Vec<u8>,
        is_error: bool,
    ) -> Prepared {
        let kind = match self.kind {
            RequestKind::Keygen => Kind::Keygen,
            RequestKind::Sign => Kind::Sign,
            RequestKind::Reshare => Kind::Reshare,
        };
        let client = self.client.as_deref().filter(|_| !planted(Bug::ClientIgnored));
        Prepared {
            delivery,
            kind: self.kind,
            wallet: wallet.to_owned(),
            request_id: request_id.to_owned(),
            key: delivery_key(&self.stream, self.sequence, self.timestamp),
            subject: subjects::result_subject(kind, client, request_id),
            dedup: subjects::dedup_id(kind, request_id, client, &self.stream, self.sequence, self.timestamp.0),
            body,
            about: None,
            is_error,
        }
    }
}

/// An answer that is ready to be published.
pub(crate) struct Prepared {
    pub delivery: DeliveryId,
    kind: RequestKind,
    wallet: String,
    request_id: String,
    pub key: DeliveryKey,
    subject: String,
    dedup: String,
    pub body: Vec<u8>,
    /// The signing request that it answers, if it is one.
    pub about: Option<About>,
    is_error: bool,
}

impl Prepared {
    /// Whether `body` is an error that answers the same request.
    pub fn is_answered_by(&self, body: &[u8]) -> bool {
        answers_request(self.kind, &self.wallet, &self.request_id, body)
    }

    /// Publishes it; the delivery is acknowledged once the result stream has it.
    pub fn publish(self, ctx: &mut Context) {
        ctx.publish(self.delivery, self.subject, self.dedup, self.body);
    }
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

    /// An error that was about to be published is not true any more: the queue gives the request out again.
    pub fn reconsider(&mut self, ctx: &mut Context, id: DeliveryId) {
        if let Some(taken) = self.open.get_mut(&id) {
            taken.answered = None;
            self.release(ctx, id, limits::RETRY_MIN);
        }
    }

    /// Answers with something that depends on this document alone: every node would say the same, at any time.
    pub fn answer(&mut self, ctx: &mut Context, id: DeliveryId, request_id: &str, answer: &Answer) {
        if let Some(prepared) = self.prepare(ctx, id, request_id, answer) {
            prepared.publish(ctx);
        }
    }

    /// Answers so that no redelivery is answered otherwise: results are stored by their signers or certified already,
    /// errors are remembered first. `late`: the request's deadline has passed, so that others may have given it up.
    pub fn answer_for_good(
        &mut self,
        ctx: &mut Context,
        answers: &mut Answers,
        id: DeliveryId,
        request_id: &str,
        answer: &Answer,
        (about, late): (Option<About>, bool),
    ) {
        let mut answer = answer.clone();
        answer.attest_error(ctx);
        if let Some(mut prepared) = self.prepare(ctx, id, request_id, &answer) {
            prepared.about = about;
            match (prepared.is_error, late) {
                (true, _) if planted(Bug::ErrorNotRemembered) => prepared.publish(ctx),
                (true, _) => answers.remember(ctx, prepared),
                (false, true) => answers.publish_unless_answered(ctx, prepared),
                (false, false) => prepared.publish(ctx),
            }
        }
    }

    fn prepare(&mut self, ctx: &Context, id: DeliveryId, request_id: &str, answer: &Answer) -> Option<Prepared> {
        let (wallet, error_code, reason, mut body) = match answer {
            Answer::Keygen(r) => (&r.wallet_id, &r.error_code, &r.error_reason, r.to_json()),
            Answer::Sign(r) => (&r.wallet_id, &r.error_code, &r.error_reason, r.to_json()),
            Answer::Reshare(r) => (&r.wallet_id, &r.error_code, &r.error_reason, r.to_json()),
        };
        let taken = self.open.get_mut(&id)?;
        if taken.answered.is_some() {
            return None;
        }
        if planted(Bug::SecondAnswer) && taken.deliveries > 1 {
            body.push(b' ');
        }
        taken.answered = Some(Report::RequestAnswered {
            kind: kind_name(taken.kind),
            wallet: wallet.clone(),
            id: request_id.to_owned(),
            error_code: error_code.clone(),
            reason: reason.clone(),
            took_ms: millis(ctx.now.time.since(taken.since)),
        });
        Some(taken.prepared(id, wallet, request_id, body, !error_code.is_empty()))
    }

    /// Gives an answer that was given before, to the byte.
    pub fn repeat(&mut self, ctx: &mut Context, id: DeliveryId, wallet: &str, request_id: &str, body: Vec<u8>) {
        let Some(taken) = self.open.get_mut(&id) else { return };
        taken.answered = Some(Report::RequestAnswered {
            kind: kind_name(taken.kind),
            wallet: wallet.to_owned(),
            id: request_id.to_owned(),
            error_code: "as before".to_owned(),
            reason: "the same delivery was answered before".to_owned(),
            took_ms: millis(ctx.now.time.since(taken.since)),
        });
        let prepared = taken.prepared(id, wallet, request_id, body, false);
        prepared.publish(ctx);
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
