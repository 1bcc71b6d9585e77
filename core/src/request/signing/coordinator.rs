//! The coordinator's side of signing: drives a request that this node took from the queue to exactly one answer.
//!
//! Each request is a small state machine whose `drive` looks at the world anew whenever something changed: a record
//! was read, a link came up, a session ended, time passed. Losing or repeating such a nudge is harmless.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_client::result::ErrorCode;

use super::{
    Answer, Attempt, CloseAnswer, Decline, Message, Proposal, are_attested, message_to_sign,
    participant::{send, verifies},
    result_of, signing_key,
};
use crate::{
    Duration, NodeId, Time, WallTime,
    auxiliary::Auxiliary,
    context::Context,
    input::DeliveryId,
    input::RequestKind,
    limits,
    message::{Message as Envelope, SessionMessage},
    node::{RequestStatus, Table},
    planted::{Bug, planted},
    protocol::Curve,
    report::Report,
    request::{
        Attestations,
        admission::Admitted,
        answers::{Answers, answers_request},
        deliveries::{self, Deliveries},
        ledger::{Held, Ledger, Lookup, RequestKey},
    },
    session::{Failure, SessionId, Sessions, millis},
    wallet::cache::{self, Wallet, Wallets},
};

/// The parts of the node that a coordinator needs.
pub(crate) struct Parts<'a> {
    pub sessions: &'a mut Sessions,
    pub wallets: &'a mut Wallets,
    pub ledger: &'a mut Ledger,
    pub auxiliary: &'a mut Auxiliary,
    pub deliveries: &'a mut Deliveries,
    pub answers: &'a mut Answers,
}

/// This node as a coordinator of signing requests.
#[derive(Default)]
pub(crate) struct Coordinator {
    active: BTreeMap<RequestKey, Active>,
    by_session: BTreeMap<SessionId, RequestKey>,
    /// How often each node was chosen lately: the work is spread evenly.
    chosen: BTreeMap<NodeId, u64>,
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
    /// The highest attempt number known.
    number: u64,
    /// Attempts that this node made.
    tries: u32,
    /// Members that know the request's id with another payload.
    other_payload: BTreeSet<NodeId>,
    backoff: Duration,
    /// Peers that declined lately, until when they are passed over where others can do it.
    avoided: BTreeMap<NodeId, Time>,
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
    /// Members are asked to promise and to say what they hold.
    Closing(Closing),
    /// Members are asked to store a result that was found.
    Adopting(Adopting),
}

struct Attempting {
    session: SessionId,
    participants: Vec<NodeId>,
    accepted: BTreeSet<NodeId>,
    stored: BTreeMap<NodeId, (Vec<u8>, Attestations)>,
    accept_by: Time,
    /// A session that is over everywhere without enough copies of its result is given up.
    give_up: Time,
}

struct Closing {
    attempt: Attempt,
    members: Vec<NodeId>,
    quorum: usize,
    meeting: usize,
    answers: BTreeMap<NodeId, Option<Held>>,
    ask_again: Time,
    /// After the deadline, without a quorum by then, the request goes back to the queue.
    give_up: Time,
}

struct Adopting {
    attempt: Attempt,
    members: Vec<NodeId>,
    meeting: usize,
    held: Held,
    adopted: BTreeSet<NodeId>,
    ask_again: Time,
    give_up: Time,
}

/// How long closing and adopting wait before they ask again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long after the deadline a request without a quorum stays here.
const QUORUM_WAIT: Duration = Duration::from_secs(20);
/// How long a peer that declined is passed over.
const AVOID: Duration = Duration::from_secs(2);

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
        let key = request.key;
        match self.active.get_mut(&key) {
            Some(active) if active.request.payload == request.payload => active.deliveries.push(delivery),
            Some(_) => {
                let reason = duplicate_reason(&request);
                let answer = error(&request, ErrorCode::SessionDuplicate, &reason);
                parts.deliveries.answer_for_good(ctx, parts.answers, delivery, request.id(), &answer, (None, false));
            }
            None => {
                let deadline = request.deadline(ctx, timestamp, ctx.config.signing_deadline);
                self.active.insert(
                    key,
                    Active {
                        request,
                        body,
                        deliveries: vec![delivery],
                        deadline,
                        taken: ctx.now.time,
                        driven: ctx.now.time,
                        number: 0,
                        tries: 0,
                        other_payload: BTreeSet::new(),
                        backoff: limits::RETRY_MIN,
                        avoided: BTreeMap::new(),
                        last_failure: String::new(),
                        waiting_for: String::new(),
                        phase: Phase::Waiting { until: None },
                    },
                );
                self.drive(ctx, parts, key);
            }
        }
    }

    /// Something changed that any waiting request may wait for.
    pub fn resume(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        let keys: Vec<RequestKey> =
            self.active.iter().filter(|(_, a)| matches!(a.phase, Phase::Waiting { .. })).map(|(key, _)| *key).collect();
        for key in keys {
            self.drive(ctx, parts, key);
        }
    }

    pub fn on_wallet_loaded(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        let keys: Vec<RequestKey> =
            self.active.iter().filter(|(_, a)| a.request.wallet() == wallet).map(|(key, _)| *key).collect();
        for key in keys {
            self.drive(ctx, parts, key);
        }
    }

    pub fn on_ledger_loaded(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        if planted(Bug::LostWakeUp) {
            return;
        }
        self.drive(ctx, parts, key);
    }

    pub fn on_wake(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        let keys: Vec<RequestKey> = self
            .active
            .iter()
            .filter(|(_, a)| a.wakes_at(ctx).is_some_and(|at| at <= ctx.now.time))
            .map(|(k, _)| *k)
            .collect();
        for key in keys {
            self.drive(ctx, parts, key);
        }
    }

    pub fn wake_at(&self, ctx: &Context) -> Option<Time> {
        self.active.values().filter_map(|a| a.wakes_at(ctx)).min()
    }

    /// Hands back everything that runs no attempt: the process is about to stop.
    pub fn drain(&mut self, ctx: &mut Context, deliveries: &mut Deliveries) {
        let idle: Vec<RequestKey> =
            self.active.iter().filter(|(_, a)| matches!(a.phase, Phase::Waiting { .. })).map(|(key, _)| *key).collect();
        for key in idle {
            if let Some(active) = self.active.remove(&key) {
                for delivery in active.deliveries {
                    deliveries.release(ctx, delivery, Duration::ZERO);
                }
            }
        }
    }

    fn drive(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        let Some(active) = self.active.get_mut(&key) else { return };
        let now = ctx.now.time;
        active.driven = now;
        match &active.phase {
            Phase::Waiting { .. } => self.drive_waiting(ctx, parts, key),
            Phase::Running(attempting) => {
                if now >= attempting.accept_by && attempting.accepted.len() < attempting.participants.len() {
                    let silent: Vec<NodeId> = attempting
                        .participants
                        .iter()
                        .copied()
                        .filter(|n| !attempting.accepted.contains(n) && *n != ctx.me)
                        .collect();
                    for node in &silent {
                        ctx.blame(*node);
                    }
                    let reason = format!("{} did not answer the proposal", ctx.names(silent).join(", "));
                    self.fail(ctx, parts, key, &reason);
                } else if now >= attempting.give_up {
                    self.fail(ctx, parts, key, "the result is not stored by enough signers");
                }
            }
            Phase::Closing(_) => self.drive_closing(ctx, parts, key),
            Phase::Adopting(_) => self.drive_adopting(ctx, parts, key),
        }
    }

    fn drive_waiting(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        let running = self.running();
        let Some(active) = self.active.get_mut(&key) else { return };
        let request = &active.request;
        let wallet = match parts.wallets.lookup(ctx, request.wallet()) {
            cache::Lookup::Loading => return,
            cache::Lookup::Absent => None,
            cache::Lookup::Found(wallet) => Some(wallet),
        };
        match parts.ledger.lookup(ctx, key) {
            Lookup::Loading => return,
            Lookup::Absent => {}
            Lookup::Held(held) if held.payload != request.payload && !planted(Bug::PayloadUnchecked) => {
                let reason = duplicate_reason(request);
                self.finish(ctx, parts, key, Err((ErrorCode::SessionDuplicate, reason)));
                return;
            }
            Lookup::Held(_) if wallet.is_some() => {
                self.close(ctx, parts, key);
                return;
            }
            Lookup::Held(_) => {}
        }
        if ctx.now.wall > active.deadline {
            if ctx.now.wall > active.deadline.after(ctx.config.clock_skew) {
                self.close(ctx, parts, key);
            } else {
                active.phase = Phase::Waiting { until: Some(ctx.now.time.after(ctx.config.clock_skew)) };
            }
            return;
        }
        if let Phase::Waiting { until: Some(until) } = active.phase
            && ctx.now.time < until
            && !active.last_failure.is_empty()
        {
            return;
        }
        let Some(wallet) = wallet else {
            match parts.wallets.inquire(ctx, request.wallet()) {
                cache::Inquiry::Unknown => {
                    let reason = format!("wallet {} does not exist", request.wallet());
                    self.finish(ctx, parts, key, Err((ErrorCode::KeyNotFound, reason)));
                }
                cache::Inquiry::Asking(whom) => {
                    let what = format!("{} to say whether they know the wallet", ctx.names(whom).join(", "));
                    wait(ctx, active, what);
                }
            }
            return;
        };
        let curve = request.curve();
        let Some(public_key) = wallet.public_key(curve) else {
            self.finish(ctx, parts, key, Err((ErrorCode::KeyNotFound, "the wallet has no key on this curve".into())));
            return;
        };
        let derived =
            signing_key(curve, public_key, ctx.config.chain_code.as_ref(), &request.signing().derivation_path)
                .and_then(|_| message_to_sign(request.signing()));
        if let Err(reason) = derived {
            self.finish(ctx, parts, key, Err((ErrorCode::MsgValidation, reason)));
            return;
        }
        if wallet.frozen {
            wait(ctx, active, "the wallet's resharing to be decided".to_owned());
            return;
        }
        let suite = ctx.suites.signing(curve).clone();
        let heavy = suite.pace(wallet.committee().threshold).heavy;
        if (running >= ctx.config.max_concurrent_signing.max(1) && !planted(Bug::PlacesUnlimited))
            || (heavy && parts.sessions.heavy() >= ctx.config.workers.max(1))
        {
            wait(ctx, active, "a free place among the running signatures".to_owned());
            return;
        }
        match choose(ctx, parts.auxiliary, active, &wallet, suite.auxiliary().is_some(), curve, &self.chosen) {
            Err(missing) => wait(ctx, active, missing),
            Ok((participants, auxiliary)) => {
                for node in &participants {
                    *self.chosen.entry(*node).or_default() += 1;
                }
                self.propose(ctx, parts.deliveries, key, &wallet, (participants, auxiliary), curve);
            }
        }
    }

    fn propose(
        &mut self,
        ctx: &mut Context,
        deliveries: &Deliveries,
        key: RequestKey,
        wallet: &Wallet,
        (nodes, auxiliary): (Vec<NodeId>, Vec<[u8; 32]>),
        curve: Curve,
    ) {
        let nonce = ctx.random_bytes();
        let Some(active) = self.active.get_mut(&key) else { return };
        let clock = if planted(Bug::AttemptNotFromClock) { 0 } else { ctx.now.wall.0 };
        active.number = active.number.saturating_add(1).max(clock);
        active.tries = active.tries.saturating_add(1);
        active.waiting_for.clear();
        let participants = nodes.iter().filter_map(|n| Some((*n, ctx.incarnation_of(*n)?))).collect();
        let proposal = Proposal {
            request: active.body.clone(),
            deadline: active.deadline,
            attempt: Attempt { number: active.number, coordinator: ctx.me },
            tries: active.tries,
            participants,
            certificate: wallet.certificate_hash,
            auxiliary,
            deliveries: active
                .deliveries
                .iter()
                .filter_map(|id| deliveries.key(*id))
                .take(limits::PROPOSAL_DELIVERIES_MAX)
                .collect(),
            nonce,
        };
        let session = proposal.session();
        let pace = ctx.suites.signing(curve).pace(wallet.committee().threshold);
        active.phase = Phase::Running(Attempting {
            session,
            participants: nodes.clone(),
            accepted: BTreeSet::new(),
            stored: BTreeMap::new(),
            accept_by: ctx.now.time.after(limits::PROPOSAL_WAIT),
            give_up: ctx.now.time.after(pace.cap + limits::PROPOSAL_WAIT),
        });
        self.by_session.insert(session, key);
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
        let Some(key) = self.by_session.get(&session).copied() else { return };
        let Some(active) = self.active.get_mut(&key) else { return };
        let Phase::Running(attempting) = &mut active.phase else { return };
        if attempting.session != session || !attempting.participants.contains(&from) {
            return;
        }
        match answer {
            Answer::Accepted => {
                attempting.accepted.insert(from);
            }
            Answer::Holds(held) if held.payload != active.request.payload && !planted(Bug::PayloadUnchecked) => {
                self.on_other_payload(ctx, parts, key, from)
            }
            Answer::Holds(_) => {
                self.abandon(ctx, parts, key);
                self.close(ctx, parts, key);
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
                if decline == Decline::OtherPayload {
                    self.on_other_payload(ctx, parts, key, from);
                    return;
                }
                if let Decline::Answered(body) = &decline
                    && answers_request(RequestKind::Sign, active.request.wallet(), active.request.id(), body)
                {
                    let body = body.clone();
                    self.abandon(ctx, parts, key);
                    if let Some(active) = self.active.remove(&key) {
                        let (wallet, id) = (active.request.wallet(), active.request.id());
                        match active.deliveries.as_slice() {
                            [delivery] => parts.deliveries.repeat(ctx, *delivery, wallet, id, body),
                            // One of them was answered with this. Which one is looked up when they come again; the
                            // others may have been asked when it was not true any more.
                            several => {
                                for delivery in several {
                                    parts.deliveries.release(ctx, *delivery, limits::RETRY_MIN);
                                }
                            }
                        }
                    }
                    ctx.event(crate::context::Event::Resume);
                    return;
                }
                match decline {
                    Decline::Higher(attempt) if attempt.is_plausible(ctx) => {
                        active.number = active.number.max(attempt.number);
                    }
                    _ => drop(active.avoided.insert(from, ctx.now.time.after(AVOID))),
                }
                let reason = format!("{} declined: {decline}", ctx.name(from));
                self.fail(ctx, parts, key, &reason);
            }
        }
    }

    /// A member knows the id with another payload. One member's word is not enough: it might lie.
    fn on_other_payload(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey, from: NodeId) {
        let Some(active) = self.active.get_mut(&key) else { return };
        active.other_payload.insert(from);
        active.avoided.insert(from, ctx.now.time.after(AVOID));
        let liars_max = ctx.config.peers.len() - usize::from(ctx.config.threshold);
        let reason = duplicate_reason(&active.request);
        // After the deadline there is nothing left to win by distrust.
        let late = ctx.now.wall > active.deadline;
        if active.other_payload.len() > liars_max || from == ctx.me || late {
            self.abandon(ctx, parts, key);
            self.finish(ctx, parts, key, Err((ErrorCode::SessionDuplicate, reason)));
        } else {
            let reason = format!("{} says: {reason}", ctx.name(from));
            self.fail(ctx, parts, key, &reason);
        }
    }

    pub fn on_stored(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        session: SessionId,
        result: (Vec<u8>, Attestations),
    ) {
        let Some(key) = self.by_session.get(&session).copied() else { return };
        let Some(active) = self.active.get_mut(&key) else { return };
        let Phase::Running(attempting) = &mut active.phase else { return };
        if attempting.session != session || !attempting.participants.contains(&from) {
            return;
        }
        attempting.accepted.insert(from);
        attempting.stored.insert(from, result.clone());
        let copies = attempting.stored.values().filter(|s| **s == result).count();
        let own_copy = attempting.stored.get(&ctx.me) == Some(&result);
        let cache::Lookup::Found(wallet) = parts.wallets.lookup(ctx, active.request.wallet()) else { return };
        if copies + usize::from(planted(Bug::PublishedTooEarly)) < wallet.committee().meeting_quorum() {
            return;
        }
        // Whatever anybody says, nothing is published that does not verify here.
        let (signature, attestations) = &result;
        let good = verifies(ctx, &wallet, &active.request, signature)
            && !attestations.is_empty()
            // What this node stored itself it has checked.
            && (own_copy || are_attested(ctx, wallet.committee(), &active.request, signature, attestations));
        if !good && !planted(Bug::UnverifiedRelease) {
            ctx.blame(from);
            let reason = format!("{} stored a signature or an attestation that does not verify", ctx.name(from));
            self.fail(ctx, parts, key, &reason);
            return;
        }
        self.finish(ctx, parts, key, Ok(result));
    }

    /// A session that this node takes part in for its own attempt ended.
    pub fn on_session_ended(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        session: SessionId,
        failure: Option<&Failure>,
    ) {
        let Some(key) = self.by_session.get(&session).copied() else { return };
        let Some(active) = self.active.get_mut(&key) else { return };
        let Phase::Running(attempting) = &mut active.phase else { return };
        if attempting.session != session {
            return;
        }
        match failure {
            // The others are about to finish too: they have a moment to store.
            None => attempting.give_up = attempting.give_up.min(ctx.now.time.after(limits::PROPOSAL_WAIT)),
            Some(failure) => {
                for node in failure.culprits.iter().chain(&failure.silent) {
                    ctx.blame(*node);
                }
                let reason = failure.reason.clone();
                self.fail(ctx, parts, key, &reason);
            }
        }
    }

    /// A link went down: attempts that need this peer are over at once, even where this node takes no part.
    pub fn on_link_down(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, peer: NodeId) {
        let hit: Vec<RequestKey> = self
            .active
            .iter()
            .filter(|(_, a)| matches!(&a.phase, Phase::Running(r) if r.participants.contains(&peer)))
            .map(|(key, _)| *key)
            .collect();
        for key in hit {
            let reason = format!("the link to {} went down", ctx.name(peer));
            self.fail(ctx, parts, key, &reason);
        }
        for active in self.active.values_mut() {
            if let Phase::Closing(closing) = &mut active.phase {
                // A promise holds for one incarnation only.
                closing.answers.remove(&peer);
            }
        }
    }

    /// Ends the running attempt and tries again after a while.
    fn fail(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey, reason: &str) {
        self.abandon(ctx, parts, key);
        let jitter = ctx.random_below(1000);
        let Some(active) = self.active.get_mut(&key) else { return };
        active.last_failure = reason.to_owned();
        let wait = active.backoff.mul_f64(0.5 + f64::from(u32::try_from(jitter).unwrap_or(0)) / 1000.0);
        active.backoff = (active.backoff * 2).min(limits::RETRY_MAX);
        active.phase = Phase::Waiting { until: Some(ctx.now.time.after(wait)) };
        ctx.event(crate::context::Event::Resume);
    }

    /// Ends the running attempt everywhere.
    fn abandon(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        let Some(active) = self.active.get_mut(&key) else { return };
        let Phase::Running(attempting) = &active.phase else { return };
        let (session, participants) = (attempting.session, attempting.participants.clone());
        active.phase = Phase::Waiting { until: None };
        self.by_session.remove(&session);
        parts.sessions.cancel(ctx, session, "the coordinator ended the attempt");
        // Also to this node: its own part may still wait for records, and would begin what is over.
        for node in participants {
            let abort = SessionMessage::Abort { session, reason: "the coordinator ended the attempt".to_owned() };
            ctx.send(node, crate::link::Lane::Signing, Envelope::Session(abort));
        }
    }

    /// Asks the members to promise a higher attempt and to say what they hold.
    fn close(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        let Some(active) = self.active.get_mut(&key) else { return };
        let committee = match parts.wallets.lookup(ctx, active.request.wallet()) {
            cache::Lookup::Found(wallet) => wallet.committee().clone(),
            // Nobody can have signed with a wallet that is unknown here and that did not become known in time, unless
            // it exists elsewhere: then its members are among the configured nodes.
            _ => crate::committee::Committee {
                members: ctx.config.peers.iter().map(|p| p.id).collect(),
                threshold: ctx.config.threshold,
            },
        };
        active.number = active.number.saturating_add(1).max(ctx.now.wall.0);
        active.waiting_for = "the members to say whether they hold a result".to_owned();
        active.phase = Phase::Closing(Closing {
            attempt: Attempt { number: active.number, coordinator: ctx.me },
            quorum: usize::from(committee.threshold) - usize::from(planted(Bug::ClosedTooEarly)),
            meeting: committee.meeting_quorum(),
            members: committee.members,
            answers: BTreeMap::new(),
            ask_again: ctx.now.time,
            give_up: ctx.now.time.after(QUORUM_WAIT),
        });
        self.drive_closing(ctx, parts, key);
    }

    fn drive_closing(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        let Some(active) = self.active.get_mut(&key) else { return };
        let late = ctx.now.wall > active.deadline.after(ctx.config.clock_skew);
        let Phase::Closing(closing) = &mut active.phase else { return };
        if closing.answers.len() >= closing.quorum {
            let best = closing.answers.values().flatten().max_by_key(|held| held.attempt).cloned();
            match best {
                Some(mut held) => {
                    // A member that lost or hides the attestations of a result does not hide those of the others.
                    if held.attestations.is_empty()
                        && let Some(other) = closing
                            .answers
                            .values()
                            .flatten()
                            .find(|other| other.signature == held.signature && !other.attestations.is_empty())
                    {
                        held.attestations.clone_from(&other.attestations);
                    }
                    active.phase = Phase::Adopting(Adopting {
                        attempt: closing.attempt,
                        members: closing.answers.keys().copied().collect(),
                        meeting: closing.meeting,
                        held,
                        adopted: BTreeSet::new(),
                        ask_again: ctx.now.time,
                        give_up: ctx.now.time.after(limits::PROPOSAL_WAIT),
                    });
                    self.drive_adopting(ctx, parts, key);
                }
                None if late => {
                    let why = given_up(ctx, active);
                    self.finish(ctx, parts, key, Err(why));
                }
                None => {
                    active.phase = Phase::Waiting { until: None };
                    ctx.event(crate::context::Event::Resume);
                }
            }
            return;
        }
        if ctx.now.time >= closing.give_up && late {
            // Without a quorum nobody may say "no result": even a request that came here first may since have been given
            // to somebody else, who can reach one.
            if let Some(active) = self.active.remove(&key) {
                for delivery in active.deliveries {
                    parts.deliveries.release(ctx, delivery, limits::RETRY_MAX);
                }
            }
            return;
        }
        if ctx.now.time >= closing.ask_again {
            closing.ask_again = ctx.now.time.after(ASK_AGAIN);
            let close = Message::Close { request: active.body.clone(), attempt: closing.attempt };
            let missing: Vec<NodeId> =
                closing.members.iter().copied().filter(|m| !closing.answers.contains_key(m)).collect();
            for node in missing {
                send(ctx, node, close.clone());
            }
        }
    }

    pub fn on_closed(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        key: RequestKey,
        attempt: Attempt,
        answer: CloseAnswer,
    ) {
        let Some(active) = self.active.get_mut(&key) else { return };
        let Phase::Closing(closing) = &mut active.phase else { return };
        if closing.attempt != attempt || !closing.members.contains(&from) {
            return;
        }
        match answer {
            CloseAnswer::Empty => drop(closing.answers.insert(from, None)),
            CloseAnswer::Holds(held) => {
                if held.payload != active.request.payload && !planted(Bug::PayloadUnchecked) {
                    self.on_other_payload(ctx, parts, key, from);
                    return;
                }
                let cache::Lookup::Found(wallet) = parts.wallets.lookup(ctx, active.request.wallet()) else { return };
                if !verifies(ctx, &wallet, &active.request, &held.signature)
                    || !are_attested(ctx, wallet.committee(), &active.request, &held.signature, &held.attestations)
                {
                    ctx.blame(from);
                    return;
                }
                closing.answers.insert(from, Some(held));
            }
            CloseAnswer::Higher(higher) if !higher.is_plausible(ctx) => return,
            CloseAnswer::Higher(higher) => {
                active.number = active.number.max(higher.number);
                self.fail(ctx, parts, key, "another node coordinates the same request");
                return;
            }
            CloseAnswer::Unknown => return,
        }
        self.drive_closing(ctx, parts, key);
    }

    fn drive_adopting(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        let Some(active) = self.active.get_mut(&key) else { return };
        let Phase::Adopting(adopting) = &mut active.phase else { return };
        if adopting.adopted.len() >= adopting.meeting {
            let result = (adopting.held.signature.clone(), adopting.held.attestations.clone());
            self.finish(ctx, parts, key, Ok(result));
            return;
        }
        if ctx.now.time >= adopting.give_up {
            self.fail(ctx, parts, key, "too few members stored the result that was found");
            return;
        }
        if ctx.now.time >= adopting.ask_again {
            adopting.ask_again = ctx.now.time.after(ASK_AGAIN);
            let message = Message::Adopt {
                request: active.body.clone(),
                attempt: adopting.attempt,
                signature: adopting.held.signature.clone(),
                attestations: adopting.held.attestations.clone(),
            };
            let missing: Vec<NodeId> =
                adopting.members.iter().copied().filter(|m| !adopting.adopted.contains(m)).collect();
            for node in missing {
                send(ctx, node, message.clone());
            }
        }
    }

    pub fn on_adopted(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        key: RequestKey,
        attempt: Attempt,
    ) {
        let Some(active) = self.active.get_mut(&key) else { return };
        let Phase::Adopting(adopting) = &mut active.phase else { return };
        if adopting.attempt == attempt && adopting.members.contains(&from) {
            adopting.adopted.insert(from);
            self.drive_adopting(ctx, parts, key);
        }
    }

    fn finish(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        key: RequestKey,
        result: Result<(Vec<u8>, Attestations), (ErrorCode, String)>,
    ) {
        let Some(active) = self.active.remove(&key) else { return };
        if let Phase::Running(attempting) = &active.phase {
            self.by_session.remove(&attempting.session);
        }
        let request = &active.request;
        let answer = match result {
            Ok((signature, attestations)) => deliveries::Answer::Sign(result_of(request, &signature, &attestations)),
            Err((code, reason)) => error(request, code, &reason),
        };
        let late = ctx.now.wall > active.deadline;
        let about = Some((request.key, request.payload));
        for delivery in &active.deliveries {
            parts.deliveries.answer_for_good(ctx, parts.answers, *delivery, request.id(), &answer, (about, late));
        }
        // A place is free.
        if !planted(Bug::PlaceNotFreed) {
            ctx.event(crate::context::Event::Resume);
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
                age_ms: millis(ctx.now.time.since(a.taken)),
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
    fn wakes_at(&self, ctx: &Context) -> Option<Time> {
        match &self.phase {
            Phase::Waiting { until } => {
                // The deadline is on the wall clock; the timer on the monotonic one. Once it has passed, a record is
                // being read: its arrival drives the request, the timer only helps out.
                let left = self.deadline.after(ctx.config.clock_skew + Duration::from_millis(1)).since(ctx.now.wall);
                let left = if left.is_zero() { self.driven.after(limits::RETRY_MIN) } else { ctx.now.time.after(left) };
                Some(until.map_or(left, |until| until.min(left)))
            }
            Phase::Running(r) if r.accepted.len() < r.participants.len() => Some(r.accept_by.min(r.give_up)),
            Phase::Running(r) => Some(r.give_up),
            Phase::Closing(c) => Some(c.ask_again),
            Phase::Adopting(a) => Some(a.ask_again.min(a.give_up)),
        }
    }
}

/// Chooses `t` members that answer, this node first, then those chosen least often; and the auxiliary set that covers them.
fn choose(
    ctx: &Context,
    auxiliary: &Auxiliary,
    active: &Active,
    wallet: &Wallet,
    needs_auxiliary: bool,
    curve: Curve,
    chosen: &BTreeMap<NodeId, u64>,
) -> Result<(Vec<NodeId>, Vec<[u8; 32]>), String> {
    let committee = wallet.committee();
    let threshold = usize::from(committee.threshold);
    let passed_over =
        |node: &NodeId| ctx.is_blamed(*node) || active.avoided.get(node).is_some_and(|until| *until > ctx.now.time);
    let mut candidates: Vec<NodeId> = committee.members.iter().copied().filter(|m| ctx.is_up(*m)).collect();
    if candidates.len() < threshold {
        let missing = committee.members.iter().copied().filter(|m| !ctx.is_up(*m));
        return Err(format!("{} to answer", ctx.names(missing).join(" or ")));
    }
    candidates.sort_by_key(|node| {
        let lacks_own = *node == ctx.me && wallet.share(curve).is_none();
        (passed_over(node) || lacks_own, *node != ctx.me, chosen.get(node).copied().unwrap_or(0), *node)
    });
    if !needs_auxiliary {
        candidates.truncate(threshold);
        candidates.sort();
        return Ok((candidates, Vec::new()));
    }
    match auxiliary.choose(ctx, &candidates, threshold) {
        Some((sets, nodes)) => Ok((nodes, sets)),
        None => Err("the auxiliary data that ECDSA needs (see the auxiliary sets in the status)".to_owned()),
    }
}

fn wait(ctx: &mut Context, active: &mut Active, what: String) {
    active.phase = Phase::Waiting { until: None };
    if active.waiting_for != what {
        ctx.report(Report::RequestWaits {
            kind: "sign",
            wallet: active.request.wallet().to_owned(),
            id: active.request.id().to_owned(),
            waiting_for: what.clone(),
        });
        active.waiting_for = what;
    }
}

fn duplicate_reason(request: &Admitted) -> String {
    format!(
        "Duplicate session: tx_id {} of wallet {} was used before with another payload",
        request.id(),
        request.wallet()
    )
}

/// What the client is told when nothing came of its request in time.
fn given_up(ctx: &Context, active: &Active) -> (ErrorCode, String) {
    if let Some(expired) = active.request.expired(ctx, active.deadline) {
        return expired;
    }
    let mut reason = "the request's deadline has passed".to_owned();
    if !active.last_failure.is_empty() {
        reason.push_str("; last attempt: ");
        reason.push_str(&active.last_failure);
    } else if !active.waiting_for.is_empty() {
        reason.push_str("; it waited for ");
        reason.push_str(&active.waiting_for);
    }
    (ErrorCode::NetworkTimeout, reason)
}

fn error(request: &Admitted, code: ErrorCode, reason: &str) -> deliveries::Answer {
    deliveries::error_answer(RequestKind::Sign, Some(&request.request), code, reason)
}
