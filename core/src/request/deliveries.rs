//! The deliveries that this node took from the queue. Invariant: each is settled exactly once, after its answer is in
//! the result stream, or released for somebody else; until then it is kept alive.

use std::collections::BTreeMap;

use mpcium_client::{
    request::{Kind, Request},
    result::{ErrorCode, KeygenResult, ReshareResult, SigningResult},
    subjects,
};

use crate::{
    Duration, Time,
    context::Context,
    input::{Delivery, DeliveryId, RequestKind},
    limits,
    output::Settlement,
    report::Report,
    session::millis,
};

/// A result for a client.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Keygen(KeygenResult),
    Sign(SigningResult),
    Reshare(ReshareResult),
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

    /// Whether the queue has never given this request to anyone else.
    pub fn is_first(&self, id: DeliveryId) -> bool {
        self.open.get(&id).is_some_and(|taken| taken.deliveries <= 1)
    }

    /// Publishes the answer; the delivery is acknowledged once the result stream has it.
    pub fn answer(&mut self, ctx: &mut Context, id: DeliveryId, request_id: &str, answer: &Answer) {
        let Some(taken) = self.open.get_mut(&id) else { return };
        if taken.answered.is_some() {
            return;
        }
        let (kind, wallet, error_code, reason, body) = match answer {
            Answer::Keygen(r) => (Kind::Keygen, &r.wallet_id, &r.error_code, &r.error_reason, r.to_json()),
            Answer::Sign(r) => (Kind::Sign, &r.wallet_id, &r.error_code, &r.error_reason, r.to_json()),
            Answer::Reshare(r) => (Kind::Reshare, &r.wallet_id, &r.error_code, &r.error_reason, r.to_json()),
        };
        taken.answered = Some(Report::RequestAnswered {
            kind: kind_name(taken.kind),
            wallet: wallet.clone(),
            id: request_id.to_owned(),
            error_code: error_code.clone(),
            reason: reason.clone(),
            took_ms: millis(ctx.now.time.since(taken.since)),
        });
        let client = taken.client.as_deref();
        let subject = subjects::result_subject(kind, client, request_id);
        let dedup = subjects::dedup_id(kind, request_id, client, &taken.stream, taken.sequence, taken.timestamp.0);
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
