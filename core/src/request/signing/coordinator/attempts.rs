//! One attempt: with whom, what they say, and how it ends.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_client::result::ErrorCode;

use super::{Active, Coordinator, Name, Parts, Phase, duplicate_reason};
use crate::{
    Duration, NodeId, Time,
    auxiliary::Auxiliary,
    context::{Context, Event},
    limits,
    message::{Message as Envelope, SessionMessage},
    planted::{Bug, planted},
    protocol::Curve,
    report::Report,
    request::{
        answers::{DeliveryKey, Signed, Value, Verdict, decision::majority},
        deliveries::Deliveries,
        patience::Patience,
        signing::{
            Answer, Decline, Message, Proposal, are_attested,
            participant::send,
            presignatures::{Choice, Presignatures},
            verifies,
        },
    },
    session::{Failure, SessionId},
    wallet::{
        activation::own_committee,
        cache::{self, Wallet},
    },
};

/// An attempt that runs.
pub(super) struct Attempting {
    session: SessionId,
    pub participants: Vec<NodeId>,
    /// Whether they sign with a presignature.
    presigned: bool,
    /// What its result answers.
    deliveries: Vec<DeliveryKey>,
    accepted: BTreeSet<NodeId>,
    stored: BTreeMap<NodeId, Signed>,
    accept_by: Time,
    /// A session that is over everywhere without enough copies of its result is given up.
    patience: Patience,
}

impl Attempting {
    pub fn wake_at(&self) -> Time {
        let give_up = self.patience.until;
        if self.accepted.len() < self.participants.len() { self.accept_by.min(give_up) } else { give_up }
    }
}

/// Who is to sign, and with what.
pub(super) struct Chosen {
    pub participants: Vec<NodeId>,
    /// Names of the auxiliary sets that cover them.
    pub auxiliary: Vec<[u8; 32]>,
    pub presignature: Option<SessionId>,
}

/// How long a peer that declined is passed over.
const AVOID: Duration = Duration::from_secs(2);

impl Coordinator {
    pub(super) fn propose(
        &mut self,
        ctx: &mut Context,
        deliveries: &Deliveries,
        name: Name,
        wallet: &Wallet,
        chosen: Chosen,
        curve: Curve,
    ) {
        let Chosen { participants: nodes, auxiliary, presignature } = chosen;
        let nonce = ctx.random_bytes();
        let Some(active) = self.active.get_mut(&name) else { return };
        let attempt = ctx.next_attempt(active.number);
        active.number = attempt.number;
        active.tries = active.tries.saturating_add(1);
        active.waiting_for.clear();
        let participants = nodes.iter().filter_map(|n| Some((*n, ctx.incarnation_of(*n)?))).collect();
        let proposal = Proposal {
            request: active.body.clone(),
            deadline: active.schedule.deadline,
            attempt,
            tries: active.tries,
            participants,
            certificate: wallet.certificate_hash,
            auxiliary,
            deliveries: deliveries.keys(active.deliveries.iter().map(|delivery| delivery.id)),
            presignature,
            nonce,
        };
        let session = proposal.session();
        let pace = ctx.suites.signing(curve).pace(wallet.committee().threshold);
        active.phase = Phase::Running(Attempting {
            session,
            participants: nodes.clone(),
            presigned: presignature.is_some(),
            deliveries: proposal.deliveries.clone(),
            accepted: BTreeSet::new(),
            stored: BTreeMap::new(),
            accept_by: ctx.now.time.after(limits::PROPOSAL_WAIT),
            patience: Patience::new(ctx.now.time, pace.cap, limits::PROPOSAL_WAIT),
        });
        self.by_session.insert(session, name);
        for node in nodes {
            send(ctx, node, Message::Propose(Box::new(proposal.clone())));
        }
    }

    /// The attempt of a session, while it runs.
    fn attempting(&mut self, session: SessionId) -> Option<(Name, &mut Active)> {
        let name = *self.by_session.get(&session)?;
        let active = self.active.get_mut(&name)?;
        let runs = matches!(&active.phase, Phase::Running(attempting) if attempting.session == session);
        runs.then_some((name, active))
    }

    pub(super) fn drive_attempt(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, name: Name) {
        let Some(active) = self.active.get_mut(&name) else { return };
        let Phase::Running(attempting) = &active.phase else { return };
        if ctx.now.time >= attempting.accept_by && attempting.accepted.len() < attempting.participants.len() {
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
            self.fail(ctx, parts, name, &reason);
        } else if ctx.now.time >= attempting.patience.until {
            self.fail(ctx, parts, name, "the result is not stored by enough signers");
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
        let Some((name, active)) = self.attempting(session) else { return };
        let Phase::Running(attempting) = &mut active.phase else { return };
        if !attempting.participants.contains(&from) {
            return;
        }
        match answer {
            Answer::Accepted => drop(attempting.accepted.insert(from)),
            Answer::Holds => {
                // If that turns out not to be so, others are asked to sign.
                active.avoided.insert(from, ctx.now.time.after(AVOID));
                self.abandon(ctx, parts, name);
                self.decide(ctx, parts, name, None);
            }
            Answer::Declined(decline) => self.on_declined(ctx, parts, name, (from, session), decline),
        }
    }

    fn on_declined(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        name: Name,
        (from, session): (NodeId, SessionId),
        mut decline: Decline,
    ) {
        let Some(active) = self.active.get_mut(&name) else { return };
        if let Decline::Links(text) | Decline::Lacks(text) | Decline::Refused(text) = &mut decline {
            crate::session::truncate(text);
        }
        ctx.report(Report::Declined { session: session.to_string(), by: ctx.name(from), reason: decline.to_string() });
        let presigned = matches!(&active.phase, Phase::Running(attempting) if attempting.presigned);
        match decline {
            Decline::OtherPayload => return self.on_other_payload(ctx, parts, name, from),
            Decline::Higher(attempt) if attempt.is_plausible(ctx) => {
                active.number = active.number.max(attempt.number);
            }
            // It signs in the ordinary way all the same.
            Decline::Presignature if presigned => {}
            Decline::Refused(_) => {
                active.avoided.insert(from, ctx.now.time.after(AVOID));
                active.refused.insert(from);
                // So many cannot all lie: what this node proposes is wrong, as when its clock is. Others may do better.
                if active.refused.len() >= own_committee(ctx).meeting_quorum() {
                    self.abandon(ctx, parts, name);
                    return self.release(ctx, parts.deliveries, name, limits::RETRY_MAX);
                }
            }
            _ => drop(active.avoided.insert(from, ctx.now.time.after(AVOID))),
        }
        let reason = format!("{} declined: {decline}", ctx.name(from));
        self.fail(ctx, parts, name, &reason);
    }

    /// A member knows the id with another payload. One member's word is not enough: it might lie.
    pub(super) fn on_other_payload(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, name: Name, from: NodeId) {
        let Some(active) = self.active.get_mut(&name) else { return };
        active.other_payload.insert(from);
        active.avoided.insert(from, ctx.now.time.after(AVOID));
        let reason = duplicate_reason(&active.request);
        if active.other_payload.len() >= own_committee(ctx).meeting_quorum() || from == ctx.me {
            self.abandon(ctx, parts, name);
            self.decide(ctx, parts, name, Some((ErrorCode::SessionDuplicate, reason)));
        } else {
            let reason = format!("{} says: {reason}", ctx.name(from));
            self.fail(ctx, parts, name, &reason);
        }
    }

    /// A participant has stored the result.
    pub fn on_stored(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        session: SessionId,
        (signature, attestations): (Vec<u8>, crate::request::Attestations),
    ) {
        let Some((name, active)) = self.attempting(session) else { return };
        let Phase::Running(attempting) = &mut active.phase else { return };
        if !attempting.participants.contains(&from) {
            return;
        }
        let signed = Signed { payload: active.request.payload, signature, attestations };
        attempting.accepted.insert(from);
        attempting.patience.go_on(ctx.now.time);
        attempting.stored.insert(from, signed.clone());
        let copies = attempting.stored.values().filter(|s| **s == signed).count();
        let own_copy = attempting.stored.get(&ctx.me) == Some(&signed);
        let cache::Lookup::Found(wallet) = parts.wallets.lookup(ctx, active.request.wallet()) else { return };
        if copies + usize::from(planted(Bug::PublishedTooEarly)) < majority(wallet.committee().members.len()) {
            return;
        }
        // Whatever anybody says, nothing is published that does not verify here; what this node stored it has verified.
        let good = own_copy
            || verifies(ctx, &wallet, &active.request, &signed.signature)
                && are_attested(ctx, wallet.committee(), &active.request, &signed);
        if !good && !planted(Bug::UnverifiedRelease) {
            ctx.blame(from);
            let reason = format!("{} stored a signature or an attestation that does not verify", ctx.name(from));
            self.fail(ctx, parts, name, &reason);
            return;
        }
        let verdicts = attempting.deliveries.iter().map(|delivery| (*delivery, Verdict::Success)).collect();
        self.by_session.remove(&session);
        self.answer(ctx, parts, name, &Value { result: Some(signed), verdicts });
    }

    /// A participant is at its last step.
    pub fn on_still_computing(&mut self, now: Time, session: SessionId, from: NodeId) {
        if let Some((_, active)) = self.attempting(session)
            && let Phase::Running(attempting) = &mut active.phase
            && attempting.participants.contains(&from)
        {
            attempting.patience.go_on(now);
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
        let Some((name, active)) = self.attempting(session) else { return };
        let Phase::Running(attempting) = &mut active.phase else { return };
        match failure {
            // The others are about to finish too: they have a moment to store, and more if they say that they compute.
            None => attempting.patience.finishing(ctx.now.time),
            Some(failure) => {
                for node in failure.culprits.iter().chain(&failure.silent) {
                    ctx.blame(*node);
                }
                let reason = failure.reason.clone();
                self.fail(ctx, parts, name, &reason);
            }
        }
    }

    /// Ends what runs for a request, and tries again after a while; at once if it was to be signed with a presignature,
    /// which is tried once.
    pub(super) fn fail(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, name: Name, reason: &str) {
        let mut presigned = false;
        if let Some(Active { phase: Phase::Running(attempting), failed, .. }) = self.active.get_mut(&name) {
            attempting.participants.iter().for_each(|node| *failed.entry(*node).or_default() += 1);
            presigned = attempting.presigned;
        }
        self.abandon(ctx, parts, name);
        let Some(active) = self.active.get_mut(&name) else { return };
        active.last_failure = reason.to_owned();
        active.phase = Phase::Waiting { until: (!presigned).then(|| active.schedule.rest(ctx)) };
        ctx.event(Event::Resume);
    }

    /// Ends the running attempt everywhere.
    fn abandon(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, name: Name) {
        let Some(active) = self.active.get_mut(&name) else { return };
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
}

/// A presignature for this request among members that answer, unless one was tried.
pub(super) fn choose_presigned(
    ctx: &Context,
    presignatures: &mut Presignatures,
    active: &Active,
    wallet: &Wallet,
) -> Option<Chosen> {
    if active.presigned {
        return None;
    }
    let usable = |node: &NodeId| !active.passes_over(ctx, node);
    let Choice { id, participants, auxiliary } =
        presignatures.choose(ctx, &active.request, wallet.certificate_hash, usable)?;
    Some(Chosen { participants, auxiliary, presignature: Some(id) })
}

/// Chooses `t` members that answer, this node first, then those that took part in the fewest failed attempts at the
/// request, then those chosen least often; and the auxiliary set that covers them.
pub(super) fn choose(
    ctx: &Context,
    auxiliary: &Auxiliary,
    active: &Active,
    wallet: &Wallet,
    needs_auxiliary: bool,
    curve: Curve,
    chosen: &BTreeMap<NodeId, u64>,
) -> Result<Chosen, String> {
    let committee = wallet.committee();
    let threshold = usize::from(committee.threshold);
    let mut candidates: Vec<NodeId> = committee.members.iter().copied().filter(|m| ctx.is_up(*m)).collect();
    if candidates.len() < threshold {
        let missing = committee.members.iter().copied().filter(|m| !ctx.is_up(*m));
        return Err(format!("{} to answer", ctx.names(missing).join(" or ")));
    }
    candidates.sort_by_key(|node| {
        let lacks_own = *node == ctx.me && wallet.share(curve).is_none();
        let failed = active.failed.get(node).copied().unwrap_or(0);
        (
            active.passes_over(ctx, node) || lacks_own,
            *node != ctx.me,
            failed,
            chosen.get(node).copied().unwrap_or(0),
            *node,
        )
    });
    if !needs_auxiliary {
        candidates.truncate(threshold);
        candidates.sort();
        return Ok(Chosen { participants: candidates, auxiliary: Vec::new(), presignature: None });
    }
    match auxiliary.choose(ctx, &candidates, threshold) {
        Some((auxiliary, participants)) => Ok(Chosen { participants, auxiliary, presignature: None }),
        None => Err("the auxiliary data that ECDSA needs (see the auxiliary sets in the status)".to_owned()),
    }
}
