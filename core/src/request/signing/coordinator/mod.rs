//! The coordinator's side of signing: drives a request that this node took from the queue to exactly one answer for each
//! of its deliveries.
//!
//! Each request is a small state machine whose `drive` looks at the world anew whenever something changed: a record
//! was read, a link came up, a session ended, time passed. Losing or repeating such a nudge is harmless.

mod attempts;
mod deciding;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use mpcium_client::result::ErrorCode;

use self::attempts::Attempting;
use super::{presignatures::Presignatures, result_of};
use crate::{
    Duration, NodeId, Time, WallTime,
    auxiliary::Auxiliary,
    context::{Context, Event},
    input::{DeliveryId, RequestKind},
    limits,
    node::{RequestStatus, Table},
    planted::{Bug, planted},
    request::{
        admission::Admitted,
        answers::{Signed, Value, Verdict, asking::Asking},
        deliveries::{self, Deliveries, Joined},
        ledger::{Ledger, RequestKey},
        schedule::Schedule,
    },
    session::{SessionId, Sessions, millis},
    wallet::cache::Wallets,
};

/// The parts of the node that a coordinator needs.
pub(crate) struct Parts<'a> {
    pub sessions: &'a mut Sessions,
    pub wallets: &'a mut Wallets,
    pub ledger: &'a mut Ledger,
    pub auxiliary: &'a mut Auxiliary,
    pub presignatures: &'a mut Presignatures,
    pub deliveries: &'a mut Deliveries,
}

/// A request's key and the digest of its payload: one id with two payloads is two requests, of which one is refused.
type Name = (RequestKey, [u8; 32]);

/// This node as a coordinator of signing requests.
#[derive(Default)]
pub(crate) struct Coordinator {
    active: BTreeMap<Name, Active>,
    by_session: BTreeMap<SessionId, Name>,
    /// How often each node was chosen lately: the work is spread evenly.
    chosen: BTreeMap<NodeId, u64>,
}

struct Active {
    request: Admitted,
    /// The client's document, for proposals.
    body: Vec<u8>,
    /// Those that are not answered yet.
    deliveries: Vec<Joined>,
    /// Of the delivery that may be worked for longest; the document is that one's too.
    schedule: Schedule,
    /// The highest attempt number known.
    number: u64,
    /// Attempts that this node made.
    tries: u32,
    /// Whether one of them was made with a presignature: only one is, whatever comes of it.
    presigned: bool,
    /// Members that know the request's id with another payload.
    other_payload: BTreeSet<NodeId>,
    /// Who has refused what this node proposed.
    refused: BTreeSet<NodeId>,
    /// Peers that declined lately, until when they are passed over where others can do it.
    avoided: BTreeMap<NodeId, Time>,
    /// In how many failed attempts each node took part: where a failure names nobody, the next attempt is with others.
    failed: BTreeMap<NodeId, u32>,
    /// Why the last attempt failed, for the answer.
    last_failure: String,
    waiting_for: String,
    phase: Phase,
}

enum Phase {
    /// For records, peers, a place, or until a time.
    Waiting { until: Option<Time> },
    /// An attempt runs.
    Running(Attempting),
    /// The members decide what its deliveries are answered with.
    Deciding {
        asking: Asking,
        /// What those are told that the members leave open; `None`: they wait for another attempt.
        own: Option<(ErrorCode, String)>,
        /// Without a quorum by then, something else is done.
        give_up: Time,
    },
}

impl Coordinator {
    pub fn len(&self) -> usize {
        self.active.len()
    }

    pub fn tables(&self) -> [Table; 3] {
        [
            ("signing requests", self.active.len(), Some(limits::REQUESTS_MAX)),
            ("attempts", self.by_session.len(), Some(limits::REQUESTS_MAX)),
            ("nodes chosen to sign", self.chosen.len(), Some(limits::NODES_MAX)),
        ]
    }

    /// Takes a request on, or joins a delivery to one that is under way.
    pub fn take(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        delivery: DeliveryId,
        timestamp: WallTime,
        body: Vec<u8>,
        request: Admitted,
    ) {
        let name = (request.key, request.payload);
        let joined = Joined::new(ctx, delivery, timestamp, &request, ctx.config.signing_deadline);
        let deadline = joined.deadline;
        if let Some(active) = self.active.get_mut(&name) {
            active.deliveries.push(joined);
            if deadline > active.schedule.deadline {
                active.schedule.deadline = deadline;
                (active.request, active.body) = (request, body);
            }
            return;
        }
        self.active.insert(
            name,
            Active {
                request,
                body,
                deliveries: vec![joined],
                schedule: Schedule::new(ctx, deadline),
                number: 0,
                tries: 0,
                presigned: false,
                other_payload: BTreeSet::new(),
                refused: BTreeSet::new(),
                avoided: BTreeMap::new(),
                failed: BTreeMap::new(),
                last_failure: String::new(),
                waiting_for: String::new(),
                phase: Phase::Waiting { until: None },
            },
        );
        self.drive(ctx, parts, name);
    }

    /// Something changed that any waiting request may wait for.
    pub fn resume(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        for name in self.which(|active| matches!(active.phase, Phase::Waiting { .. })) {
            self.drive(ctx, parts, name);
        }
    }

    pub fn on_wallet_loaded(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        for name in self.which(|active| active.request.wallet() == wallet) {
            self.drive(ctx, parts, name);
        }
    }

    pub fn on_ledger_loaded(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        if planted(Bug::LostWakeUp) {
            return;
        }
        for name in self.which(|active| active.request.key == key) {
            self.drive(ctx, parts, name);
        }
    }

    pub fn on_wake(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        for name in self.which(|active| active.wakes_at(ctx) <= ctx.now.time) {
            self.drive(ctx, parts, name);
        }
    }

    pub fn wake_at(&self, ctx: &Context) -> Option<Time> {
        self.active.values().map(|active| active.wakes_at(ctx)).min()
    }

    /// Hands back everything that runs no attempt: the process is about to stop.
    pub fn drain(&mut self, ctx: &mut Context, deliveries: &mut Deliveries) {
        for name in self.which(|active| matches!(active.phase, Phase::Waiting { .. })) {
            self.release(ctx, deliveries, name, Duration::ZERO);
        }
    }

    fn which(&self, which: impl Fn(&Active) -> bool) -> Vec<Name> {
        self.active.iter().filter(|(_, active)| which(active)).map(|(name, _)| *name).collect()
    }

    fn drive(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, name: Name) {
        let Some(active) = self.active.get_mut(&name) else { return };
        active.schedule.look(ctx);
        match &active.phase {
            Phase::Waiting { .. } => self.drive_waiting(ctx, parts, name),
            Phase::Running(_) => self.drive_attempt(ctx, parts, name),
            Phase::Deciding { .. } => self.drive_deciding(ctx, parts, name),
        }
    }

    /// A link went down: attempts that need this peer are over at once, even where this node takes no part, and what it
    /// promised is void.
    pub fn on_link_down(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, peer: NodeId) {
        for name in self.which(|a| matches!(&a.phase, Phase::Running(r) if r.participants.contains(&peer))) {
            let reason = format!("the link to {} went down", ctx.name(peer));
            self.fail(ctx, parts, name, &reason);
        }
        for active in self.active.values_mut() {
            if let Phase::Deciding { asking, .. } = &mut active.phase {
                asking.decision.on_link_down(peer);
            }
        }
    }

    /// A value was decided: answers the deliveries that it is about. Those that are left go on.
    fn answer(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, name: Name, value: &Value) {
        let Some(active) = self.active.get_mut(&name) else { return };
        let request = &active.request;
        active.deliveries.retain(|delivery| {
            let Some(delivery_key) = parts.deliveries.key(delivery.id) else { return false };
            let body = match (value.verdicts.get(&delivery_key), &value.result) {
                (Some(Verdict::Error(body)), _) => body.clone(),
                (Some(Verdict::Success), Some(Signed { signature, attestations, .. })) => {
                    result_of(request, signature, attestations).to_json()
                }
                _ => return true,
            };
            parts.deliveries.publish(ctx, delivery.id, request, body);
            false
        });
        active.phase = Phase::Waiting { until: None };
        if active.deliveries.is_empty() {
            self.active.remove(&name);
        }
        place_is_free(ctx);
    }

    /// Gives a request back to the queue.
    fn release(&mut self, ctx: &mut Context, deliveries: &mut Deliveries, name: Name, delay: Duration) {
        if let Some(active) = self.active.remove(&name) {
            for delivery in active.deliveries {
                deliveries.release(ctx, delivery.id, delay);
            }
            place_is_free(ctx);
        }
    }

    fn running(&self) -> usize {
        self.active.values().filter(|a| !matches!(a.phase, Phase::Waiting { .. })).count()
    }

    pub fn status(&self, ctx: &Context) -> Vec<RequestStatus> {
        self.active
            .values()
            .map(|a| RequestStatus {
                kind: "sign".to_owned(),
                wallet: a.request.wallet().to_owned(),
                id: a.request.id().to_owned(),
                age_ms: millis(ctx.now.time.since(a.schedule.taken)),
                state: match &a.phase {
                    Phase::Running(r) => {
                        format!("attempt {} with {}", a.tries, ctx.names(r.participants.clone()).join(", "))
                    }
                    _ if a.waiting_for.is_empty() => a.last_failure.clone(),
                    _ => format!("waits for {}", a.waiting_for),
                },
            })
            .collect()
    }
}

impl Active {
    /// The deliveries that are told something now: those whose time is over for the same reason, if there are any; the
    /// others may still wait for more than an error. Otherwise all.
    fn told_now(&self, ctx: &Context) -> impl Iterator<Item = DeliveryId> {
        let late = self.late(ctx);
        let told =
            move |delivery: &&Joined| late.is_none_or(|late| delivery.is_late(ctx) && delivery.expired == late.expired);
        self.deliveries.iter().filter(told).map(|delivery| delivery.id)
    }

    /// A delivery whose time is over.
    fn late(&self, ctx: &Context) -> Option<&Joined> {
        self.deliveries.iter().find(|delivery| delivery.is_late(ctx))
    }

    /// Whether others are preferred to this node.
    fn passes_over(&self, ctx: &Context, node: &NodeId) -> bool {
        ctx.is_blamed(*node) || self.avoided.get(node).is_some_and(|until| *until > ctx.now.time)
    }

    fn wakes_at(&self, ctx: &Context) -> Time {
        match &self.phase {
            Phase::Waiting { until } => {
                let earliest = self.deliveries.iter().map(|delivery| delivery.deadline).min();
                self.schedule.wakes_at(ctx, *until, earliest.unwrap_or(self.schedule.deadline))
            }
            Phase::Running(attempting) => attempting.wake_at(),
            Phase::Deciding { asking, give_up, .. } => asking.ask_again().min(*give_up),
        }
    }
}

/// Something that held a place among the running signatures ended or was given back: others may wait for it.
fn place_is_free(ctx: &mut Context) {
    if !planted(Bug::PlaceNotFreed) {
        ctx.event(Event::Resume);
    }
}

fn duplicate_reason(request: &Admitted) -> String {
    format!(
        "Duplicate session: tx_id {} of wallet {} was used before with another payload",
        request.id(),
        request.wallet()
    )
}

fn error(request: &Admitted, code: ErrorCode, reason: &str) -> deliveries::Answer {
    deliveries::error_answer(RequestKind::Sign, Some(&request.request), code, reason)
}
