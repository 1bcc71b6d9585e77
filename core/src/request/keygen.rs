//! The coordinator's side of creating a wallet: drives a request that this node took from the queue to one answer.
//!
//! Success is answered when the certificate is durable at `t` members; failure only when no session of the request can
//! become the wallet any more.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_client::result::{ErrorCode, KeygenResult};

use super::{
    admission::Admitted,
    answers::Answers,
    attestation,
    deliveries::{Answer as ClientAnswer, Deliveries, error_answer},
    signing::{Attempt, Decline},
};
use crate::{
    Duration, NodeId, Time, WallTime,
    context::{Context, Event},
    input::{DeliveryId, RequestKind},
    limits,
    link::Lane,
    message::{Message as Envelope, SessionMessage},
    node::{RequestStatus, Table},
    protocol::Curve,
    report::Report,
    session::{Failure, SessionId, Sessions, millis},
    tags,
    wallet::{
        activation::{Activation, Answer, Message, Proposal, own_committee, send},
        cache::{self, Wallet, Wallets},
    },
};

/// The parts of the node that a coordinator needs.
pub(crate) struct Parts<'a> {
    pub sessions: &'a mut Sessions,
    pub wallets: &'a mut Wallets,
    pub activation: &'a mut Activation,
    pub deliveries: &'a mut Deliveries,
    pub answers: &'a mut Answers,
}

/// This node as a coordinator of key generation requests, by wallet.
#[derive(Default)]
pub(crate) struct Coordinator {
    active: BTreeMap<String, Active>,
    by_session: BTreeMap<SessionId, String>,
}

struct Active {
    request: Admitted,
    /// The client's document, for proposals.
    body: Vec<u8>,
    deliveries: Vec<DeliveryId>,
    /// By the queue's clock.
    deadline: WallTime,
    taken: Time,
    /// When it was last looked at.
    driven: Time,
    number: u32,
    backoff: Duration,
    last_failure: String,
    waiting_for: String,
    /// Another system has a wallet of that name.
    elsewhere: bool,
    phase: Phase,
}

enum Phase {
    /// For records, peers, a place, or until a time.
    Waiting { until: Option<Time> },
    /// An attempt runs, or its decision.
    Running { session: SessionId, accepted: BTreeSet<NodeId>, accept_by: Time, give_up: Time },
    /// The wallet exists; more members are to store its certificate.
    Settling { give_up: Time },
    /// The deadline has passed: members say what is prepared.
    Closing { answers: BTreeMap<NodeId, BTreeSet<SessionId>>, ask_again: Time, give_up: Time },
}

/// How long closing waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long after the deadline a request without a quorum stays here.
const QUORUM_WAIT: Duration = Duration::from_secs(20);
/// How long success waits for further members once the certificate is durable here.
const SETTLE_WAIT: Duration = Duration::from_secs(5);
/// How long a decision may take after the session itself.
const DECISION_WAIT: Duration = Duration::from_secs(10);

impl Coordinator {
    pub fn len(&self) -> usize {
        self.active.len()
    }

    pub fn tables(&self) -> [Table; 2] {
        [
            ("key generation requests", self.active.len(), Some(limits::REQUESTS_MAX)),
            ("key generation attempts", self.by_session.len(), Some(limits::REQUESTS_MAX)),
        ]
    }

    /// Takes a request on, or joins a delivery to one that is under way. `elsewhere`: another system has a wallet of
    /// that name, and no other node has worked on the request.
    #[allow(clippy::too_many_arguments, reason = "the delivery in its parts, of which each goes to another place")]
    pub fn take(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        delivery: DeliveryId,
        timestamp: WallTime,
        body: Vec<u8>,
        request: Admitted,
        elsewhere: bool,
    ) {
        let wallet = request.wallet().to_owned();
        if let Some(active) = self.active.get_mut(&wallet) {
            active.deliveries.push(delivery);
            return;
        }
        let deadline = request.deadline(ctx, timestamp, ctx.config.keygen_deadline);
        self.active.insert(
            wallet.clone(),
            Active {
                request,
                body,
                deliveries: vec![delivery],
                deadline,
                taken: ctx.now.time,
                driven: ctx.now.time,
                number: 0,
                backoff: limits::RETRY_MIN,
                last_failure: String::new(),
                waiting_for: String::new(),
                elsewhere,
                phase: Phase::Waiting { until: None },
            },
        );
        self.drive(ctx, parts, &wallet);
    }

    /// Something changed that any waiting request may wait for.
    pub fn resume(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        let waiting: Vec<String> = self
            .active
            .iter()
            .filter(|(_, a)| matches!(a.phase, Phase::Waiting { .. }))
            .map(|(wallet, _)| wallet.clone())
            .collect();
        for wallet in waiting {
            self.drive(ctx, parts, &wallet);
        }
    }

    pub fn on_wallet_changed(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        self.drive(ctx, parts, wallet);
    }

    pub fn on_wake(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        let due: Vec<String> = self
            .active
            .iter()
            .filter(|(_, a)| a.wakes_at(ctx) <= ctx.now.time)
            .map(|(wallet, _)| wallet.clone())
            .collect();
        for wallet in due {
            self.drive(ctx, parts, &wallet);
        }
    }

    pub fn wake_at(&self, ctx: &Context) -> Option<Time> {
        self.active.values().map(|a| a.wakes_at(ctx)).min()
    }

    /// Hands back everything that runs no attempt: the process is about to stop.
    pub fn drain(&mut self, ctx: &mut Context, deliveries: &mut Deliveries) {
        let idle: Vec<String> = self
            .active
            .iter()
            .filter(|(_, a)| matches!(a.phase, Phase::Waiting { .. }))
            .map(|(wallet, _)| wallet.clone())
            .collect();
        for wallet in idle {
            if let Some(active) = self.active.remove(&wallet) {
                for delivery in active.deliveries {
                    deliveries.release(ctx, delivery, Duration::ZERO);
                }
            }
        }
    }

    fn drive(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        active.driven = ctx.now.time;
        // Whatever the phase, a wallet that exists answers the request.
        match parts.wallets.lookup(ctx, wallet) {
            cache::Lookup::Loading => return,
            cache::Lookup::Found(found) => {
                self.settle(ctx, parts, wallet, &found);
                return;
            }
            cache::Lookup::Absent => {}
        }
        let now = ctx.now.time;
        match &active.phase {
            Phase::Waiting { .. } => self.drive_waiting(ctx, parts, wallet),
            Phase::Running { session, accepted, accept_by, give_up } => {
                let members = ctx.config.peers.len();
                if now >= *accept_by && accepted.len() < members {
                    let silent: Vec<NodeId> =
                        ctx.config.peers.iter().map(|p| p.id).filter(|id| !accepted.contains(id)).collect();
                    let reason = format!("{} did not answer the proposal", ctx.names(silent).join(", "));
                    self.fail(ctx, parts, wallet, &reason);
                } else if now >= *give_up {
                    let reason = format!("session {session} was not decided in time");
                    self.fail(ctx, parts, wallet, &reason);
                }
            }
            // The certificate is durable here, so the wallet cannot be absent.
            Phase::Settling { .. } => {}
            Phase::Closing { .. } => self.drive_closing(ctx, parts, wallet),
        }
    }

    fn drive_waiting(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        let running = self.running();
        let Some(active) = self.active.get_mut(wallet) else { return };
        // This store has been asked and has no such wallet, and no attempt has been made.
        if active.elsewhere && active.number == 0 {
            let reason = format!(
                "Key already exists: Consul's threshold_keyinfo knows the wallet {wallet}, but this store does not: it \
                 belongs to another system and has to be migrated from there; create new wallets under other ids"
            );
            let request = Some(&active.request.request);
            let answer = error_answer(RequestKind::Keygen, request, ErrorCode::KeyAlreadyExists, &reason);
            self.finish(ctx, parts, wallet, &answer);
            return;
        }
        if ctx.now.wall > active.deadline {
            if ctx.now.wall > active.deadline.after(ctx.config.clock_skew) {
                active.phase = Phase::Closing {
                    answers: BTreeMap::new(),
                    ask_again: ctx.now.time,
                    give_up: ctx.now.time.after(QUORUM_WAIT),
                };
                self.drive_closing(ctx, parts, wallet);
            } else {
                // Until the other nodes' clocks have passed the deadline too.
                active.phase = Phase::Waiting { until: None };
            }
            return;
        }
        if let Phase::Waiting { until: Some(until) } = active.phase
            && ctx.now.time < until
        {
            return;
        }
        let missing: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).filter(|id| !ctx.is_up(*id)).collect();
        if !missing.is_empty() {
            let what = format!("{} to answer", ctx.names(missing).join(" and "));
            wait(ctx, active, what);
            return;
        }
        let heavy = ctx.suites.keygen.pace(u16::try_from(ctx.config.peers.len()).unwrap_or(u16::MAX)).heavy;
        if running >= ctx.config.max_concurrent_keygen.max(1)
            || (heavy && parts.sessions.heavy() >= ctx.config.workers.max(1))
        {
            wait(ctx, active, "a free place among the running key generations".to_owned());
            return;
        }
        let nonce = ctx.random_bytes();
        let pace = ctx.suites.keygen.pace(u16::try_from(ctx.config.peers.len()).unwrap_or(u16::MAX));
        active.number = active.number.saturating_add(1);
        active.waiting_for.clear();
        let nodes: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).collect();
        let proposal = Proposal {
            request: active.body.clone(),
            deadline: active.deadline,
            attempt: Attempt { number: u64::from(active.number), coordinator: ctx.me },
            participants: nodes.iter().filter_map(|n| Some((*n, ctx.incarnation_of(*n)?))).collect(),
            nonce,
        };
        let session = proposal.session();
        active.phase = Phase::Running {
            session,
            accepted: BTreeSet::new(),
            accept_by: ctx.now.time.after(limits::PROPOSAL_WAIT),
            give_up: ctx.now.time.after(pace.cap + DECISION_WAIT),
        };
        self.by_session.insert(session, wallet.to_owned());
        for node in nodes {
            send(ctx, node, Message::Propose(Box::new(proposal.clone())));
        }
    }

    pub fn on_answer(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        session: SessionId,
        answer: Answer,
    ) {
        let Some(wallet) = self.by_session.get(&session).cloned() else { return };
        let Some(active) = self.active.get_mut(&wallet) else { return };
        let Phase::Running { session: running, accepted, .. } = &mut active.phase else { return };
        if *running != session {
            return;
        }
        match answer {
            Answer::Accepted => {
                accepted.insert(from);
            }
            Answer::Declined(mut decline) => {
                if let Decline::Links(text) | Decline::Lacks(text) | Decline::Refused(text) = &mut decline {
                    crate::session::truncate(text);
                }
                ctx.report(Report::Declined {
                    session: session.to_string(),
                    by: ctx.name(from),
                    reason: decline.to_string(),
                });
                let reason = format!("{} declined: {decline}", ctx.name(from));
                self.fail(ctx, parts, &wallet, &reason);
            }
        }
    }

    /// A session that this node takes part in for its own attempt ended.
    pub fn on_session_ended(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        session: SessionId,
        failure: Option<&Failure>,
    ) {
        let Some(wallet) = self.by_session.get(&session).cloned() else { return };
        let Some(active) = self.active.get_mut(&wallet) else { return };
        let Phase::Running { session: running, give_up, .. } = &mut active.phase else { return };
        if *running != session {
            return;
        }
        match failure {
            None => *give_up = ctx.now.time.after(DECISION_WAIT),
            Some(failure) => {
                let mut reason = failure.reason.clone();
                if !failure.silent.is_empty() {
                    reason.push_str("; silent: ");
                    reason.push_str(&ctx.names(failure.silent.iter().copied()).join(", "));
                }
                self.fail(ctx, parts, &wallet, &reason);
            }
        }
    }

    /// Ends the running attempt and tries again after a while. A session that is prepared somewhere may still become
    /// the wallet; the decision between them is the activation's business.
    fn fail(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str, reason: &str) {
        let jitter = ctx.random_below(1000);
        let Some(active) = self.active.get_mut(wallet) else { return };
        if let Phase::Running { session, .. } = active.phase {
            self.by_session.remove(&session);
            let text = "the coordinator ended the attempt";
            active.phase = Phase::Waiting { until: None };
            parts.sessions.cancel(ctx, session, text);
            // Also to this node: its own part may still wait for records, and would begin what is over.
            for peer in ctx.config.peers.clone() {
                let abort = SessionMessage::Abort { session, reason: text.to_owned() };
                ctx.send(peer.id, Lane::Control, Envelope::Session(abort));
            }
        }
        let Some(active) = self.active.get_mut(wallet) else { return };
        active.last_failure = reason.to_owned();
        let wait = active.backoff.mul_f64(0.5 + f64::from(u32::try_from(jitter).unwrap_or(0)) / 1000.0);
        active.backoff = (active.backoff * 2).min(limits::RETRY_MAX);
        active.phase = Phase::Waiting { until: Some(ctx.now.time.after(wait)) };
        ctx.event(Event::Resume);
    }

    /// The wallet exists: answers once enough members have it durably.
    fn settle(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str, found: &Wallet) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        let made_by_this = tags::REQUEST.hash(&active.request.all_fields) == found.certificate.facts().request_digest;
        let enough = parts.activation.activations(&found.certificate_hash) >= usize::from(found.committee().threshold);
        // A wallet of an earlier request has long been settled.
        if made_by_this && !enough && matches!(active.phase, Phase::Running { .. } | Phase::Settling { .. }) {
            match active.phase {
                Phase::Settling { give_up } if ctx.now.time >= give_up => {}
                Phase::Settling { .. } => return,
                _ => {
                    active.phase = Phase::Settling { give_up: ctx.now.time.after(SETTLE_WAIT) };
                    return;
                }
            }
        }
        let answer = if *found.committee() == own_committee(ctx) {
            success(wallet, found)
        } else {
            let reason = "Key already exists: the wallet has another committee or threshold".to_owned();
            error_answer(RequestKind::Keygen, Some(&active.request.request), ErrorCode::KeyAlreadyExists, &reason)
        };
        self.finish(ctx, parts, wallet, &answer);
    }

    fn drive_closing(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        let request_digest = tags::REQUEST.hash(&active.request.all_fields);
        let Phase::Closing { answers, ask_again, give_up } = &mut active.phase else { return };
        // A session is over once so many members never vote for it that those left are no quorum.
        let quorum = ctx.config.peers.len() + 1 - usize::from(ctx.config.threshold);
        let members: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).collect();
        if answers.len() >= quorum {
            let mut named = answers.values().flatten().copied().collect::<BTreeSet<SessionId>>();
            named.retain(|session| answers.values().filter(|open| !open.contains(session)).count() < quorum);
            if named.is_empty() {
                let missing: Vec<NodeId> = members.into_iter().filter(|m| !ctx.is_up(*m)).collect();
                let mut reason = "the request's deadline has passed".to_owned();
                if !active.last_failure.is_empty() {
                    reason = format!("{reason}; last attempt: {}", active.last_failure);
                }
                if !missing.is_empty() {
                    reason = format!("{reason}; missing: {}", ctx.names(missing).join(", "));
                } else if !active.waiting_for.is_empty() {
                    reason = format!("{reason}; it waited for {}", active.waiting_for);
                }
                let (code, reason) = given_up(ctx, active, reason);
                let answer = error_answer(RequestKind::Keygen, Some(&active.request.request), code, &reason);
                self.finish(ctx, parts, wallet, &answer);
                return;
            }
        }
        if ctx.now.time >= *give_up {
            // Without a quorum nobody may say that nothing was made: even a request that came here first may since have
            // been given to somebody else.
            if let Some(active) = self.active.remove(wallet) {
                for delivery in active.deliveries {
                    parts.deliveries.release(ctx, delivery, limits::RETRY_MAX);
                }
            }
            return;
        }
        if ctx.now.time >= *ask_again {
            *ask_again = ctx.now.time.after(ASK_AGAIN);
            // Also those that named a session: it may have been closed or decided since.
            for node in members {
                send(ctx, node, Message::Close { wallet: wallet.to_owned(), request_digest });
            }
        }
    }

    pub fn on_closed(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        wallet: &str,
        request_digest: [u8; 32],
        prepared: Vec<SessionId>,
    ) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        if tags::REQUEST.hash(&active.request.all_fields) != request_digest {
            return;
        }
        let Phase::Closing { answers, .. } = &mut active.phase else { return };
        answers.insert(from, prepared.into_iter().take(limits::PREPARED_PER_EPOCH_MAX).collect());
        self.drive_closing(ctx, parts, wallet);
    }

    fn finish(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str, answer: &ClientAnswer) {
        let Some(active) = self.active.remove(wallet) else { return };
        if let Phase::Running { session, .. } = active.phase {
            self.by_session.remove(&session);
        }
        let late = ctx.now.wall > active.deadline;
        for delivery in active.deliveries {
            parts.deliveries.answer_for_good(ctx, parts.answers, delivery, active.request.id(), answer, (None, late));
        }
        // A place is free.
        ctx.event(Event::Resume);
    }

    fn running(&self) -> usize {
        self.active.values().filter(|a| matches!(a.phase, Phase::Running { .. })).count()
    }

    pub fn status(&self, ctx: &Context) -> Vec<RequestStatus> {
        self.active
            .iter()
            .map(|(wallet, a)| RequestStatus {
                kind: "keygen".to_owned(),
                wallet: wallet.clone(),
                id: a.request.id().to_owned(),
                age_ms: millis(ctx.now.time.since(a.taken)),
                state: match &a.phase {
                    Phase::Running { .. } => format!("attempt {}", a.number),
                    Phase::Settling { .. } => "the members store its certificate".to_owned(),
                    Phase::Closing { .. } => "the deadline has passed; members say what is prepared".to_owned(),
                    Phase::Waiting { .. } if a.waiting_for.is_empty() => a.last_failure.clone(),
                    Phase::Waiting { .. } => format!("waits for {}", a.waiting_for),
                },
            })
            .collect()
    }
}

impl Active {
    fn wakes_at(&self, ctx: &Context) -> Time {
        match &self.phase {
            Phase::Waiting { until } => {
                // The deadline is on the wall clock; the timer on the monotonic one. Once it has passed, a record is
                // being read: its arrival drives the request, the timer only helps out.
                let left = self.deadline.after(ctx.config.clock_skew + Duration::from_millis(1)).since(ctx.now.wall);
                let left = if left.is_zero() { self.driven.after(limits::RETRY_MIN) } else { ctx.now.time.after(left) };
                until.map_or(left, |until| until.min(left))
            }
            Phase::Running { accepted, accept_by, give_up, .. } => {
                if accepted.len() < ctx.config.peers.len() {
                    (*accept_by).min(*give_up)
                } else {
                    *give_up
                }
            }
            Phase::Settling { give_up } => *give_up,
            Phase::Closing { ask_again, give_up, .. } => (*ask_again).min(*give_up),
        }
    }
}

/// What the client is told when nothing came of its request in time.
fn given_up(ctx: &Context, active: &Active, reason: String) -> (ErrorCode, String) {
    active.request.expired(ctx, active.deadline).unwrap_or((ErrorCode::NetworkTimeout, reason))
}

fn wait(ctx: &mut Context, active: &mut Active, what: String) {
    active.phase = Phase::Waiting { until: None };
    if active.waiting_for != what {
        ctx.report(Report::RequestWaits {
            kind: "keygen",
            wallet: active.request.wallet().to_owned(),
            id: active.request.id().to_owned(),
            waiting_for: what.clone(),
        });
        active.waiting_for = what;
    }
}

fn success(wallet: &str, found: &Wallet) -> ClientAnswer {
    let ecdsa = found
        .public_key(Curve::Secp256k1)
        .and_then(|key| mpcium_client::derive::secp256k1_coordinates(key.try_into().ok()?).ok());
    let eddsa = found.public_key(Curve::Ed25519).and_then(|key| <[u8; 32]>::try_from(key).ok());
    match (ecdsa, eddsa) {
        (Some(ecdsa), Some(eddsa)) => {
            let mut result = KeygenResult::success(wallet, &ecdsa, &eddsa);
            let signatures = found.certificate.value.attestations().map(|(node, s)| (node, s.0.to_vec()));
            result.attestations = Some(signatures.map(attestation).collect());
            ClientAnswer::Keygen(result)
        }
        // Every member checked the keys before it prepared them.
        _ => panic!("the certified public keys of wallet {wallet} are malformed"),
    }
}
