//! How a request for a wallet ends: the wallet exists, or nothing can come of the request any more, and the nodes decide
//! what its deliveries are told.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_client::result::{ErrorCode, KeygenResult};

use super::{ASK_AGAIN, Active, Asked, Coordinator, Parts, Phase, SETTLE_WAIT};
use crate::{
    NodeId, Time,
    context::{Context, Event},
    input::RequestKind,
    limits,
    planted::{Bug, planted},
    protocol::Curve,
    request::{
        answers::{Attempt, Report, Value, Verdict, asking::Asking, decision::Bound, is_error_for},
        attestation,
        deliveries::error_answer,
        ledger::RequestKey,
        schedule::Schedule,
    },
    session::{Participant, SessionId},
    tags,
    wallet::{
        activation::{Message, own_committee, send},
        cache::{self, Wallet},
    },
};

/// What is to be decided.
pub(super) struct Deciding {
    /// What those are told that the nodes leave open, unless the wallet exists; `None`: they wait for another attempt.
    own: Option<(ErrorCode, String)>,
    /// The document of the wallet, once success was chosen for some.
    success: Option<Vec<u8>>,
    pub give_up: Time,
}

impl Asked {
    /// Whether the time of this delivery is over, for this reason.
    fn is_over_for(&self, ctx: &Context, expired: Option<&(ErrorCode, String)>) -> bool {
        self.joined.is_late(ctx) && self.joined.expired.as_ref() == expired
    }
}

impl Active {
    /// Whether a majority has promised this node's ballot.
    pub(super) fn is_promised(&self) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.decision.is_open())
    }

    /// Whether the promises show that some delivery was, or may have been, answered with an error.
    pub(super) fn is_answered_before(&self) -> bool {
        self.is_promised()
            && self.asking.as_ref().is_some_and(|asking| {
                let decision = &asking.decision;
                decision.deliveries().iter().any(|d| matches!(decision.bound(d), Bound::Error(_)))
            })
    }

    /// The time of the document is over, nothing can come of it any more, and who asked for it has been told: the others
    /// are worked for with one of their own.
    fn begin_anew(&mut self, ctx: &Context) {
        let over = self.request.expired(ctx, self.schedule.deadline);
        if self.schedule.is_late(ctx)
            && !self.deliveries.iter().any(|asked| asked.is_over_for(ctx, over.as_ref()))
            && let Some(next) = self.deliveries.first()
        {
            self.schedule = Schedule::new(ctx, next.joined.deadline);
            (self.request, self.body) = (next.request.clone(), next.body.clone());
        }
    }

    /// A higher ballot was met: another one is begun after a random while.
    fn step_back(&mut self, ctx: &mut Context) {
        self.asking = None;
        self.ask_at = self.schedule.rest(ctx);
    }
}

impl Coordinator {
    /// Keeps the ballot about the deliveries going.
    pub(super) fn ask(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        if let Some(number) = active.asking.as_ref().and_then(|asking| asking.outbid(ctx)) {
            active.ballot = active.ballot.max(number);
            active.step_back(ctx);
        }
        if active.asking.is_none() && ctx.now.time >= active.ask_at {
            let names = parts.deliveries.keys(active.deliveries.iter().map(|asked| asked.joined.id));
            let ballot = ctx.next_attempt(active.ballot);
            active.ballot = ballot.number;
            let acceptors = own_committee(ctx).members;
            active.asking = Some(Asking::new(ctx, ballot, active.request.payload, acceptors, names));
        }
        let Some(asking) = &mut active.asking else { return };
        let again = asking.ask(ctx, RequestKind::Keygen, &active.body);
        self.show_certificate(ctx, parts, wallet, &again);
    }

    /// The wallet exists: answers once enough members have it durably.
    pub(super) fn settle(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str, found: &Wallet) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        let made_by_this = tags::REQUEST.hash(&active.request.all_fields) == found.certificate.facts().request_digest;
        let enough = parts.activation.activations(&found.certificate_hash) >= usize::from(found.committee().threshold);
        // A wallet of an earlier request has long been settled.
        if made_by_this && !enough && matches!(active.phase, Phase::Running { .. } | Phase::Settling { .. }) {
            match active.phase {
                Phase::Settling { give_up } if ctx.now.time >= give_up => {}
                Phase::Settling { .. } => return,
                Phase::Running { session, .. } => {
                    self.by_session.remove(&session);
                    active.phase = Phase::Settling { give_up: ctx.now.time.after(SETTLE_WAIT) };
                    return;
                }
                _ => {}
            }
        }
        self.conclude(ctx, parts, wallet, None);
    }

    /// The deadline has passed: asks the members what is prepared.
    pub(super) fn close(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        active.phase = Phase::Closing {
            answers: BTreeMap::new(),
            closed: false,
            ask_again: ctx.now.time,
            close_at: ctx.now.time,
            give_up: ctx.now.time.after(limits::QUORUM_WAIT),
        };
        self.drive_closing(ctx, parts, wallet);
    }

    /// None of the sessions so far becomes the wallet: asks who has prepared anything since.
    pub fn on_slot_closed(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        if let Some(Active { phase: Phase::Closing { answers, closed, ask_again, .. }, .. }) =
            self.active.get_mut(wallet)
        {
            answers.clear();
            *closed = true;
            *ask_again = ctx.now.time;
            self.drive_closing(ctx, parts, wallet);
        }
    }

    pub(super) fn drive_closing(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        let request_digest = tags::REQUEST.hash(&active.request.all_fields);
        let Phase::Closing { answers, closed, ask_again, close_at, give_up } = &mut active.phase else { return };
        // A session lacks a statement for ever if one honest member has not prepared it and never will: if `t` say so, one
        // of them is honest. Where fewer than `t` answer, the slot is closed: then nothing that was prepared in it is left,
        // and what has been since only a coordinator that lies can have proposed, so late. That as many as close a slot
        // have not prepared it is then enough, or one member could name such sessions for ever.
        let committee = own_committee(ctx);
        let quorum = committee.meeting_quorum();
        let needed = if *closed { quorum } else { usize::from(committee.threshold) };
        if answers.len() >= quorum {
            let mut named = answers.values().flatten().copied().collect::<BTreeSet<SessionId>>();
            named.retain(|session| answers.values().filter(|open| !open.contains(session)).count() < needed);
            if named.is_empty() && answers.len() >= needed {
                let own = given_up(ctx, active);
                self.conclude(ctx, parts, wallet, Some(own));
                return;
            }
            // Not more often than it is asked: a member may name sessions that nobody else knows.
            if ctx.now.time >= *close_at {
                *close_at = ctx.now.time.after(ASK_AGAIN);
                parts.activation.close(ctx, wallet, &active.body);
            }
        }
        if ctx.now.time >= *give_up {
            // Without a quorum nobody may say that nothing was made: even a request that came here first may since have
            // been given to somebody else.
            self.release(ctx, parts, wallet);
            return;
        }
        if ctx.now.time >= *ask_again {
            *ask_again = ctx.now.time.after(ASK_AGAIN);
            // Also those that named a session: it may have been decided since.
            for node in committee.members {
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
        answers.insert(from, prepared.into_iter().take(limits::PREPARED_PER_SLOT_MAX).collect());
        self.drive_closing(ctx, parts, wallet);
    }

    /// Nothing more is tried: the nodes decide what the deliveries are answered with. `own`: what those are told that
    /// they leave open, unless the wallet exists.
    pub(super) fn conclude(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        wallet: &str,
        own: Option<(ErrorCode, String)>,
    ) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        if let Phase::Running { session, .. } = active.phase {
            self.by_session.remove(&session);
            // Its place is free.
            ctx.event(Event::Resume);
        }
        let give_up = ctx.now.time.after(limits::QUORUM_WAIT);
        active.phase = Phase::Deciding(Deciding { own, success: None, give_up });
        match parts.wallets.lookup(ctx, wallet) {
            cache::Lookup::Loading => {}
            cache::Lookup::Absent => self.drive_deciding(ctx, parts, wallet, None),
            cache::Lookup::Found(found) => self.drive_deciding(ctx, parts, wallet, Some(&found)),
        }
    }

    pub(super) fn drive_deciding(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        wallet: &str,
        found: Option<&Wallet>,
    ) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        let late = active.schedule.is_late(ctx);
        let Phase::Deciding(deciding) = &mut active.phase else { return };
        if ctx.now.time >= deciding.give_up {
            if late {
                // Without a quorum nobody may say anything.
                self.release(ctx, parts, wallet);
                return;
            }
            deciding.give_up = ctx.now.time.after(limits::QUORUM_WAIT);
        }
        let Some(asking) = active.asking.as_mut().filter(|asking| asking.decision.is_open()) else { return };
        let ours = found.is_some_and(|found| *found.committee() == own_committee(ctx));
        let error = |(code, reason): &(ErrorCode, String)| {
            error_answer(RequestKind::Keygen, Some(&active.request.request), *code, reason).attested(ctx)
        };
        // Whoever asked again and has time left, or ran out of it for another reason, is not told the reason of this one.
        let over = active.request.expired(ctx, active.schedule.deadline);
        let told = active.deliveries.iter().filter(|asked| !late || asked.is_over_for(ctx, over.as_ref()));
        let told: BTreeSet<_> = told.filter_map(|asked| parts.deliveries.key(asked.joined.id)).collect();
        let mut value = Value::default();
        for delivery in asking.decision.deliveries() {
            let own = deciding.own.as_ref().filter(|_| told.contains(delivery));
            let verdict = match (asking.decision.bound(delivery), own) {
                (Bound::Error(body), _) => Verdict::Error(body),
                (Bound::Success(_), _) if found.is_some() => Verdict::Success,
                (_, _) if found.is_some_and(|found| found.frozen) => {
                    let reason = "the wallet has two certificates for one epoch, so its keys sign no more".to_owned();
                    Verdict::Error(error(&(ErrorCode::DataCorruption, reason)))
                }
                (_, _) if ours => Verdict::Success,
                (_, _) if found.is_some() => {
                    let reason = "Key already exists: the wallet has another committee or threshold".to_owned();
                    Verdict::Error(error(&(ErrorCode::KeyAlreadyExists, reason)))
                }
                (Bound::Free | Bound::Taken, Some(own)) => Verdict::Error(error(own)),
                (Bound::Free | Bound::Taken | Bound::Success(_), _) => continue,
            };
            value.verdicts.insert(*delivery, verdict);
        }
        if value.verdicts.is_empty() {
            active.phase = Phase::Waiting { until: Some(ctx.now.time.after(limits::RETRY_MIN)) };
            active.begin_anew(ctx);
            return;
        }
        deciding.give_up = ctx.now.time.after(limits::QUORUM_WAIT);
        deciding.success = found.filter(|_| value.succeeds()).map(|found| success(wallet, found));
        if planted(Bug::ErrorNotRemembered) && !value.succeeds() {
            return self.answer(ctx, parts, wallet, &value);
        }
        asking.choose(ctx, RequestKind::Keygen, &active.body, value);
    }

    /// A value was decided: answers the deliveries that it is about. Those that are left go on.
    fn answer(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str, value: &Value) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        let Phase::Deciding(Deciding { success, .. }) = &active.phase else { return };
        let request = &active.request;
        active.deliveries.retain(|delivery| {
            let Some(name) = parts.deliveries.key(delivery.joined.id) else { return false };
            let body = match (value.verdicts.get(&name), success) {
                (Some(Verdict::Error(body)), _) => body.clone(),
                (Some(Verdict::Success), Some(body)) => body.clone(),
                _ => return true,
            };
            parts.deliveries.publish(ctx, delivery.joined.id, request, body);
            false
        });
        active.phase = Phase::Waiting { until: None };
        active.asking = None;
        active.ask_at = ctx.now.time;
        active.begin_anew(ctx);
        if active.deliveries.is_empty() {
            self.active.remove(wallet);
        }
        // A place is free.
        ctx.event(Event::Resume);
    }

    /// Gives a request back to the queue.
    fn release(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        if let Some(active) = self.active.remove(wallet) {
            for delivery in active.deliveries {
                parts.deliveries.release(ctx, delivery.joined.id, limits::RETRY_MAX);
            }
        }
    }

    /// The wallet that a node's answer to a ballot is about.
    fn asked(&mut self, key: RequestKey, ballot: Attempt) -> Option<(String, &mut Active)> {
        self.active
            .iter_mut()
            .find(|(_, active)| {
                active.request.key == key && active.asking.as_ref().is_some_and(|a| a.decision.ballot() == ballot)
            })
            .map(|(wallet, active)| (wallet.clone(), active))
    }

    pub fn on_promised(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: Participant,
        (key, ballot): (RequestKey, Attempt),
        mut report: Report,
    ) {
        let Some((wallet, active)) = self.asked(key, ballot) else { return };
        // The certificate is the result.
        report.result = None;
        for (_, verdict) in report.verdicts.values() {
            match verdict {
                Verdict::Error(body) if !is_error_for(RequestKind::Keygen, &wallet, active.request.id(), body) => {
                    ctx.blame(from.0);
                    return;
                }
                Verdict::Error(_) => {}
                // Whoever says so has sent the certificate; once it is durable here the promise comes again.
                Verdict::Success if matches!(parts.wallets.lookup(ctx, &wallet), cache::Lookup::Found(_)) => {}
                Verdict::Success => return,
            }
        }
        let Some(asking) = &mut active.asking else { return };
        let late = asking.decision.is_storing();
        asking.decision.on_promise(from.0, from.1, report);
        if !late {
            return self.drive(ctx, parts, &wallet);
        }
        self.show_certificate(ctx, parts, &wallet, &[from.0]);
        if let Some(Active { asking: Some(asking), body, .. }) = self.active.get(&wallet) {
            asking.ask_late(ctx, RequestKind::Keygen, body, from.0);
        }
    }

    /// A node has stored what was chosen.
    pub fn on_decision_stored(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: Participant,
        (key, ballot): (RequestKey, Attempt),
    ) {
        let Some((wallet, active)) = self.asked(key, ballot) else { return };
        let Some(asking) = &mut active.asking else { return };
        if let Some(value) = asking.decision.on_stored(from.0, from.1).cloned() {
            self.answer(ctx, parts, &wallet, &value);
        }
    }

    /// A node promised a higher ballot.
    pub fn on_rejected(
        &mut self,
        ctx: &mut Context,
        from: NodeId,
        (key, ballot): (RequestKey, Attempt),
        higher: Attempt,
    ) {
        let Some((_, active)) = self.asked(key, ballot) else { return };
        let Some(asking) = &mut active.asking else { return };
        if higher.is_plausible(ctx)
            && let Some(number) = asking.decision.on_rejected(from, higher.number)
        {
            active.ballot = active.ballot.max(number);
            active.step_back(ctx);
        }
    }

    pub fn on_link_down(&mut self, peer: NodeId) {
        for asking in self.active.values_mut().filter_map(|active| active.asking.as_mut()) {
            asking.decision.on_link_down(peer);
        }
    }

    /// Shows the wallet to those that are to store that it answers the request.
    fn show_certificate(&self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str, nodes: &[NodeId]) {
        if let cache::Lookup::Found(found) = parts.wallets.lookup(ctx, wallet) {
            for node in nodes {
                send(ctx, *node, Message::Certificate(Box::new(found.certificate.clone())));
            }
        }
    }
}

/// What the client is told when nothing came of its request in time.
fn given_up(ctx: &Context, active: &Active) -> (ErrorCode, String) {
    if let Some(expired) = active.request.expired(ctx, active.schedule.deadline) {
        return expired;
    }
    let missing: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).filter(|m| !ctx.is_up(*m)).collect();
    let mut reason = "the request's deadline has passed".to_owned();
    if !active.last_failure.is_empty() {
        reason = format!("{reason}; last attempt: {}", active.last_failure);
    }
    if !missing.is_empty() {
        reason = format!("{reason}; missing: {}", ctx.names(missing).join(", "));
    } else if !active.waiting_for.is_empty() {
        reason = format!("{reason}; it waited for {}", active.waiting_for);
    }
    (ErrorCode::NetworkTimeout, reason)
}

/// The document that answers with a wallet.
fn success(wallet: &str, found: &Wallet) -> Vec<u8> {
    let ecdsa = found
        .public_key(Curve::Secp256k1)
        .and_then(|key| mpcium_client::derive::secp256k1_coordinates(key.try_into().ok()?).ok());
    let eddsa = found.public_key(Curve::Ed25519).and_then(|key| <[u8; 32]>::try_from(key).ok());
    match (ecdsa, eddsa) {
        (Some(ecdsa), Some(eddsa)) => {
            let mut result = KeygenResult::success(wallet, &ecdsa, &eddsa);
            let signatures = found.certificate.value.attestations().map(|(node, s)| (node, s.0.to_vec()));
            result.attestations = Some(signatures.map(attestation).collect());
            result.to_json()
        }
        // Every member checked the keys before it prepared them.
        _ => panic!("the certified public keys of wallet {wallet} are malformed"),
    }
}
