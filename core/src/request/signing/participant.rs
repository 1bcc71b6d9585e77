//! The participant's side of signing: checks a proposal as if nobody had, promises, signs, stores, tells.

use std::collections::BTreeMap;

use super::{
    After, Answer, Decline, Message, Proposal, message_to_sign, presignatures::Presignatures, result_of, signing_key,
};
use crate::{
    NodeId, Time, WallTime,
    auxiliary::{Auxiliary, View},
    context::{After as ContextAfter, Context},
    identity::verify,
    input::RequestKind,
    limits,
    link::Lane,
    message::Message as Envelope,
    node::Table,
    planted::{Bug, planted},
    protocol::{Curve, Outcome, Priority, Signing},
    request::{
        Attestations,
        admission::{Admitted, admit, read},
        answers::{
            Attempt, DeliveryKey, Report, Signed, Verdict,
            promises::{Asked, Promises, Refusal},
        },
        ledger::{Ledger, RequestKey},
        patience::Patience,
    },
    session::{Participant, Plan, SessionId, Sessions},
    store::Batch,
    tags,
    wallet::cache::{self, Wallets},
};

/// A proposal that waits for records, or for a ban to be durable.
struct Incoming {
    from: Participant,
    proposal: Proposal,
    request: Admitted,
    since: Time,
}

/// A session that runs here for somebody's attempt.
struct Taking {
    key: RequestKey,
    payload: [u8; 32],
    request: Admitted,
    attempt: Attempt,
    /// The deliveries that the result will answer.
    deliveries: Vec<DeliveryKey>,
    coordinator: Participant,
    participants: Vec<NodeId>,
    /// The participants' signatures over the result document, unverified until this node has the result.
    attestations: BTreeMap<NodeId, Vec<u8>>,
    /// How long the others' attestations are waited for once the result is there.
    patience: Patience,
    /// A run with a presignature, until it is durable that the presignature is used.
    held_back: Option<Plan>,
    finished: Option<Finished>,
}

/// A result that is not stored before every participant has attested it.
struct Finished {
    signature: Vec<u8>,
    /// The result document that is attested.
    document: Vec<u8>,
}

/// This node as a participant in signing.
#[derive(Default)]
pub(crate) struct Participants {
    incoming: BTreeMap<SessionId, Incoming>,
    taking: BTreeMap<SessionId, Taking>,
}

/// The parts of the node that a participant needs.
pub(crate) struct Parts<'a> {
    pub sessions: &'a mut Sessions,
    pub wallets: &'a mut Wallets,
    pub ledger: &'a mut Ledger,
    pub promises: &'a mut Promises,
    pub auxiliary: &'a Auxiliary,
    pub presignatures: &'a mut Presignatures,
}

impl Participants {
    pub fn tables(&self) -> [Table; 2] {
        [
            ("proposals that wait for records", self.incoming.len(), Some(limits::REQUESTS_MAX)),
            ("signatures in which this node takes part", self.taking.len(), Some(limits::SESSIONS_MAX)),
        ]
    }

    pub fn on_proposal(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, proposal: Proposal) {
        let session = proposal.session();
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        match check(ctx, (from, incarnation), &proposal) {
            Err(decline) => answer(ctx, from, session, Answer::Declined(decline)),
            Ok(request) => {
                if self.incoming.len() >= limits::REQUESTS_MAX {
                    answer(ctx, from, session, Answer::Declined(Decline::Busy));
                    return;
                }
                let since = ctx.now.time;
                self.incoming.insert(session, Incoming { from: (from, incarnation), proposal, request, since });
                self.drive(ctx, parts, session);
            }
        }
    }

    /// Goes on with proposals that waited for this wallet's records.
    pub fn on_wallet_loaded(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        for session in self.waiting(|i| i.request.wallet() == wallet) {
            self.drive(ctx, parts, session);
        }
    }

    /// Goes on with proposals that waited for a request's records.
    pub fn on_ledger_loaded(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        for session in self.waiting(|i| i.request.key == key) {
            self.drive(ctx, parts, session);
        }
    }

    /// Goes on with proposals of which nothing could be said before a ban was durable.
    pub fn on_banned(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        for session in self.waiting(|i| !i.proposal.auxiliary.is_empty()) {
            self.drive(ctx, parts, session);
        }
    }

    fn waiting(&self, which: impl Fn(&Incoming) -> bool) -> Vec<SessionId> {
        self.incoming.iter().filter(|(_, i)| which(i)).map(|(id, _)| *id).collect()
    }

    fn drive(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, session: SessionId) {
        let Some(incoming) = self.incoming.get(&session) else { return };
        // All reads begin at once.
        let held = parts.ledger.report(ctx, incoming.request.key, &incoming.proposal.deliveries);
        let wallet = match parts.wallets.lookup(ctx, incoming.request.wallet()) {
            cache::Lookup::Loading => return,
            cache::Lookup::Absent => None,
            cache::Lookup::Found(wallet) => Some(wallet),
        };
        let Some(held) = held else { return };
        if parts.auxiliary.holds_back(&incoming.proposal.auxiliary) {
            return;
        }
        let Some(incoming) = self.incoming.remove(&session) else { return };
        // The sender's link may have changed while records were read.
        if ctx.incarnation_of(incoming.from.0) != Some(incoming.from.1) {
            return;
        }
        let result = self.decide(ctx, parts, session, &incoming, wallet, held);
        answer(ctx, incoming.from.0, session, result.unwrap_or_else(Answer::Declined));
    }

    fn decide(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        session: SessionId,
        incoming: &Incoming,
        wallet: Option<cache::Wallet>,
        held: Report,
    ) -> Result<Answer, Decline> {
        let Incoming { proposal, request, .. } = incoming;
        if !ctx.unfit.is_empty() {
            return Err(Decline::Unfit);
        }
        if held.result.as_ref().is_some_and(|(_, signed)| signed.payload != request.payload)
            && !planted(Bug::PayloadUnchecked)
        {
            return Err(Decline::OtherPayload);
        }
        if !held.is_empty() {
            return Ok(Answer::Holds);
        }
        let Some(wallet) = wallet else {
            return Err(Decline::Lacks(format!("it does not know wallet {}", request.wallet())));
        };
        if wallet.certificate_hash != proposal.certificate {
            return Err(Decline::Lacks("it knows another epoch of the wallet".to_owned()));
        }
        if wallet.frozen {
            return Err(Decline::Lacks(
                "two certificates exist for the wallet's epoch, so its keys sign no more".to_owned(),
            ));
        }
        let curve = request.curve();
        let committee = wallet.committee();
        let mut signers = Vec::with_capacity(proposal.participants.len());
        for (node, _) in &proposal.participants {
            let Some(at) = committee.position(*node) else {
                return Err(Decline::Refused(format!("{} holds no share of the wallet", ctx.name(*node))));
            };
            signers.push(at);
        }
        if signers.len() != usize::from(committee.threshold) {
            return Err(Decline::Refused(format!(
                "{} participants are proposed and {} sign",
                signers.len(),
                committee.threshold
            )));
        }
        let Some(share) = wallet.share(curve) else {
            return Err(Decline::Lacks("its share of the wallet is not in its store".to_owned()));
        };
        let key =
            signing_key(curve, &share.public_key, ctx.config.chain_code.as_ref(), &request.signing().derivation_path)
                .map_err(Decline::Refused)?;
        let message = message_to_sign(request.signing()).map_err(Decline::Refused)?;
        let suite = ctx.suites.signing(curve).clone();
        let nodes: Vec<NodeId> = proposal.participants.iter().map(|p| p.0).collect();
        let view = match suite.auxiliary() {
            None => View { views: Vec::new(), pairs: Vec::new() },
            Some(_) => parts.auxiliary.view(ctx, &proposal.auxiliary, &nodes).map_err(Decline::Lacks)?,
        };
        let pace = suite.pace(u16::try_from(signers.len()).unwrap_or(u16::MAX));
        if !parts.sessions.has_room() || (pace.heavy && parts.sessions.heavy() >= ctx.config.workers.max(1)) {
            return Err(Decline::Busy);
        }
        if parts.sessions.knows(session) {
            return Err(Decline::Refused("that session has run before".to_owned()));
        }
        // Taken out before anything else happens: whatever becomes of the attempt, nobody uses it again.
        let coordinator = proposal.attempt.coordinator;
        let presignature = match proposal.presignature {
            None => None,
            Some(id) => {
                let of = (coordinator, proposal.certificate, proposal.participants.as_slice());
                Some(parts.presignatures.take(ctx, id, request, of).ok_or(Decline::Presignature)?)
            }
        };
        let asked = Asked {
            key: request.key,
            payload: request.payload,
            ballot: proposal.attempt,
            deliveries: &proposal.deliveries,
            until: proposal.deadline.after(ctx.config.clock_skew),
            to_sign: true,
        };
        if !parts.promises.affords(ctx.now.time, &asked, ctx.me) {
            return Err(Decline::Busy);
        }
        parts.promises.promise(ctx.now.wall, &asked, &held).map_err(|refusal| match refusal {
            Refusal::Higher(attempt) => Decline::Higher(attempt),
            Refusal::OtherPayload => Decline::OtherPromised,
            Refusal::Full => Decline::Busy,
        })?;
        // The promise ends every lower attempt here.
        let superseded: Vec<SessionId> =
            self.taking.iter().filter(|(_, t)| t.key == request.key).map(|(id, _)| *id).collect();
        for old in superseded {
            self.taking.remove(&old);
            parts.sessions.cancel(ctx, old, "a higher attempt has begun");
        }
        let execution_id = proposal.execution_id(suite.name(), &key.public_key, &request.all_fields);
        let presigned = presignature.is_some();
        let mut taking = Taking {
            key: request.key,
            payload: request.payload,
            request: request.clone(),
            attempt: proposal.attempt,
            deliveries: proposal.deliveries.clone(),
            coordinator: incoming.from,
            participants: nodes,
            attestations: BTreeMap::new(),
            patience: Patience::new(ctx.now.time, pace.cap, limits::PROPOSAL_WAIT),
            held_back: None,
            finished: None,
        };
        let plan = Plan {
            id: session,
            owner: crate::session::Owner::Signing,
            protocol: if presigned { PRESIGNED } else { protocol_name(curve) }.to_owned(),
            wallet: request.wallet().to_owned(),
            attempt: proposal.tries,
            coordinator,
            participants: proposal.participants.clone(),
            execution_id,
            pace,
            deadline: Some(proposal.deadline),
            pairs: view.pairs,
            priority: Priority::Signing,
            lane: Lane::Signing,
            start: Box::new(move |run| {
                if let Some(presignature) = presignature {
                    return presignature.sign(run);
                }
                let key = match &key.shift {
                    None => share,
                    Some(shift) => std::sync::Arc::new(share.shifted(shift)?),
                };
                suite.start(run, Signing { key, signers, message, auxiliary: view.views })
            }),
        };
        if presigned && !planted(Bug::PresignatureUseNotDurable) {
            taking.held_back = Some(plan);
            self.taking.insert(session, taking);
            // The count of commits is all that it writes.
            ctx.persist(Batch::default(), ContextAfter::Signing(After::Used { session }));
        } else {
            self.taking.insert(session, taking);
            parts.sessions.start(ctx, plan);
        }
        Ok(Answer::Accepted)
    }

    /// It is durable that a presignature is used: the run may begin, if nothing has come between.
    fn on_used(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, session: SessionId) {
        let Some(taking) = self.taking.get_mut(&session) else { return };
        let Some(plan) = taking.held_back.take() else { return };
        let unfit = (!ctx.unfit.is_empty()).then_some(Decline::Unfit);
        match unfit.or_else(|| check_participants(ctx, &plan.participants).err()) {
            None => parts.sessions.start(ctx, plan),
            Some(decline) => {
                let coordinator = taking.coordinator.0;
                self.taking.remove(&session);
                answer(ctx, coordinator, session, Answer::Declined(decline));
            }
        }
    }

    /// A session that this node took part in ended. Its result is attested, and stored with everybody's attestation
    /// unless a higher attempt was promised meanwhile: what is durable is then the whole answer, and every coordinator
    /// that ever finds it publishes the same bytes.
    pub fn on_session_ended(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        session: SessionId,
        outcome: Option<Outcome>,
    ) {
        let Some(Outcome::Signature(signature)) = outcome else {
            self.taking.remove(&session);
            return;
        };
        let Some(taking) = self.taking.get_mut(&session) else { return };
        parts.presignatures.on_signed(ctx, &taking.request, &taking.participants, taking.coordinator.0);
        let document = result_of(&taking.request, &signature, &Attestations::new()).attested_bytes();
        let mine = ctx.identity.sign(tags::RESULT, &document).to_vec();
        let others: Vec<NodeId> = taking.participants.iter().copied().filter(|node| *node != ctx.me).collect();
        for node in others {
            send(ctx, node, Message::Attested { session, signature: mine.clone() });
        }
        taking.attestations.insert(ctx.me, mine);
        taking.finished = Some(Finished { signature, document });
        taking.patience.finishing(ctx.now.time);
        self.store_when_attested(ctx, parts, session);
    }

    /// Another participant attests the result of a session.
    pub fn on_attested(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        session: SessionId,
        signature: Vec<u8>,
    ) {
        let Some(taking) = self.taking.get_mut(&session) else { return };
        if from != ctx.me && taking.participants.contains(&from) && signature.len() == ATTESTATION_BYTES {
            taking.attestations.entry(from).or_insert(signature);
            self.store_when_attested(ctx, parts, session);
        }
    }

    /// Another participant is at its last step: its attestation is waited for.
    pub fn on_still_computing(&mut self, now: Time, session: SessionId, from: NodeId) {
        if let Some(taking) = self.taking.get_mut(&session)
            && taking.finished.is_some()
            && taking.participants.contains(&from)
        {
            taking.patience.go_on(now);
        }
    }

    fn store_when_attested(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, session: SessionId) {
        let Some(taking) = self.taking.get(&session) else { return };
        let Some(finished) = &taking.finished else { return };
        if taking.attestations.len() < taking.participants.len() {
            return;
        }
        let bad = taking.attestations.iter().find(|(node, signature)| {
            **node != ctx.me
                && ctx
                    .config
                    .peer(**node)
                    .is_none_or(|peer| !verify(&peer.key, tags::RESULT, &finished.document, signature))
        });
        if let Some((node, _)) = bad {
            let (node, coordinator) = (*node, taking.coordinator.0);
            self.taking.remove(&session);
            ctx.blame(node);
            let reason = format!("the attestation of {} does not verify", ctx.name(node));
            answer(ctx, coordinator, session, Answer::Declined(Decline::Refused(reason)));
            return;
        }
        let Some(taking) = self.taking.remove(&session) else { return };
        let Taking { key, payload, attempt, deliveries, coordinator, attestations, .. } = taking;
        let Some(finished) = taking.finished else { return };
        // Unless a higher attempt was promised meanwhile.
        if !parts.promises.allows(&key, attempt, deliveries.iter()) {
            return;
        }
        let attestations: Attestations = attestations.into_iter().collect();
        let signed = Signed { payload, signature: finished.signature, attestations };
        let mut batch = Batch::default();
        parts.ledger.hold(&mut batch, ctx.now.wall, key, attempt, signed.clone());
        for delivery in deliveries {
            parts.ledger.rule(&mut batch, key, delivery, attempt, Verdict::Success);
        }
        let after = After::Stored { session, coordinator, signed };
        if planted(Bug::SaidBeforeWritten) {
            ctx.persist(batch, ContextAfter::Nothing);
            return self.on_persisted(ctx, parts, after);
        }
        ctx.persist(batch, ContextAfter::Signing(after));
    }

    /// A write is durable.
    pub fn on_persisted(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, after: After) {
        let (session, coordinator, signed) = match after {
            After::Used { session } => return self.on_used(ctx, parts, session),
            After::Stored { session, coordinator, signed } => (session, coordinator, signed),
        };
        let Signed { signature, attestations, .. } = signed;
        // Said to the incarnation that asked.
        if ctx.incarnation_of(coordinator.0) == Some(coordinator.1) {
            send(ctx, coordinator.0, Message::Stored { session, signature, attestations });
        }
    }

    pub fn on_link_down(&mut self, peer: Participant) {
        self.incoming.retain(|_, i| i.from != peer);
    }

    pub fn on_wake(&mut self, ctx: &mut Context) {
        // A record that the store never returned would be a bug of the store; the proposal must not stay for ever.
        let now = ctx.now.time;
        self.incoming.retain(|_, i| now < i.since.after(limits::EARLY_WAIT));
        // The coordinator repeats the attempt: a result that not everybody attests is not stored anywhere here.
        self.taking.retain(|_, taking| taking.finished.is_none() || now < taking.patience.until);
    }

    pub fn wake_at(&self) -> Option<Time> {
        let unattested = self.taking.values().filter(|taking| taking.finished.is_some());
        let incoming = self.incoming.values().map(|incoming| incoming.since.after(limits::EARLY_WAIT));
        unattested.map(|taking| taking.patience.until).chain(incoming).min()
    }
}

/// Bytes of an attestation: an Ed25519 signature.
const ATTESTATION_BYTES: usize = 64;

/// For reports: signing on secp256k1 with a presignature.
const PRESIGNED: &str = "sign secp256k1 presigned";

/// For reports.
pub(crate) fn protocol_name(curve: Curve) -> &'static str {
    match curve {
        Curve::Secp256k1 => "sign secp256k1",
        Curve::Ed25519 => "sign ed25519",
    }
}

/// Everything about a proposal that needs no record.
fn check(ctx: &Context, from: Participant, proposal: &Proposal) -> Result<Admitted, Decline> {
    if !ctx.unfit.is_empty() {
        return Err(Decline::Unfit);
    }
    if (proposal.attempt.coordinator, proposal.attempt.incarnation) != from {
        return Err(Decline::Refused("the proposal names another coordinator than its sender".to_owned()));
    }
    if !proposal.attempt.is_plausible(ctx) {
        return Err(Decline::Refused("the attempt's number is far ahead of this node's clock".to_owned()));
    }
    if ctx.now.wall > proposal.deadline {
        return Err(Decline::Deadline);
    }
    if proposal.deliveries.len() > limits::PROPOSAL_DELIVERIES_MAX {
        return Err(Decline::Refused("the proposal answers too many deliveries".to_owned()));
    }
    // A coordinator that set a deadline of its own could keep a request alive for ever.
    if proposal.deadline > ctx.now.wall.after(ctx.config.signing_deadline + ctx.config.clock_skew) {
        return Err(Decline::Refused("the proposal's deadline is later than any request's can be".to_owned()));
    }
    check_participants(ctx, &proposal.participants)?;
    if planted(Bug::InitiatorUnchecked) {
        return read(RequestKind::Sign, &proposal.request).map_err(|refusal| Decline::Refused(refusal.reason));
    }
    admit_proposed(ctx, RequestKind::Sign, from.0, &proposal.request, proposal.deadline)
}

/// Checks a request that `from` proposes as if nobody had, and that nobody is to work for it after its own expiry.
pub(crate) fn admit_proposed(
    ctx: &Context,
    kind: RequestKind,
    from: NodeId,
    body: &[u8],
    deadline: WallTime,
) -> Result<Admitted, Decline> {
    // What this node proposes itself it has admitted when it took the request.
    let request = if from == ctx.me { read(kind, body) } else { admit(ctx, kind, body) };
    let request = request.map_err(|refusal| Decline::Refused(refusal.reason))?;
    if request.expiry(ctx).is_some_and(|expiry| deadline > expiry) {
        return Err(Decline::Refused("the proposal's deadline is later than the request's own expiry".to_owned()));
    }
    Ok(request)
}

/// Whether the participants are distinct, include this start of this node, and answer under the named incarnations.
pub(crate) fn check_participants(ctx: &Context, participants: &[Participant]) -> Result<(), Decline> {
    if participants.len() > limits::NODES_MAX {
        return Err(Decline::Refused("more participants than a cluster has nodes".to_owned()));
    }
    for (at, (node, incarnation)) in participants.iter().enumerate() {
        if participants[at + 1..].iter().any(|p| p.0 == *node) {
            return Err(Decline::Refused(format!("{} is proposed twice", ctx.name(*node))));
        }
        match ctx.incarnation_of(*node) {
            Some(known) if known == *incarnation || planted(Bug::StaleIncarnation) => {}
            Some(_) => return Err(Decline::Links(format!("{} has restarted", ctx.name(*node)))),
            None => return Err(Decline::Links(format!("it has no link to {}", ctx.name(*node)))),
        }
    }
    if !participants.iter().any(|p| p.0 == ctx.me) {
        return Err(Decline::Refused("the proposal does not name the node that it was sent to".to_owned()));
    }
    Ok(())
}

fn answer(ctx: &mut Context, to: NodeId, session: SessionId, answer: Answer) {
    send(ctx, to, Message::Answer { session, answer });
}

pub(super) fn send(ctx: &mut Context, to: NodeId, message: Message) {
    ctx.send(to, Lane::Signing, Envelope::Signing(message));
}
