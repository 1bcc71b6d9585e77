//! The participant's side of signing: checks a proposal as if nobody had, promises, signs, stores, tells.

use std::collections::BTreeMap;

use super::{
    After, Answer, Attempt, CloseAnswer, Decline, Message, Proposal, are_attested, message_to_sign, result_of,
    signing_key,
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
        answers::Answers,
        ledger::{Held, Ledger, Lookup, RequestKey},
    },
    session::{Participant, Plan, SessionId, Sessions},
    store::Batch,
    tags,
    wallet::cache::{self, Wallets},
};

/// What this incarnation promised for a request.
struct Promise {
    attempt: Attempt,
    payload: [u8; 32],
    /// After this, nobody runs an attempt at the request any more.
    until: WallTime,
}

/// A proposal that waits for records.
struct Incoming {
    from: Participant,
    proposal: Proposal,
    request: Admitted,
    /// Deliveries for which it is not known yet whether an error is remembered.
    unread: usize,
    /// The error that one of them was answered with.
    answered: Option<Vec<u8>>,
    since: Time,
}

/// A session that runs here for somebody's attempt.
struct Taking {
    key: RequestKey,
    payload: [u8; 32],
    request: Admitted,
    attempt: Attempt,
    coordinator: Participant,
    participants: Vec<NodeId>,
    /// The participants' signatures over the result document, unverified until this node has the result.
    attestations: BTreeMap<NodeId, Vec<u8>>,
    finished: Option<Finished>,
}

/// A result that is not stored before every participant has attested it.
struct Finished {
    signature: Vec<u8>,
    /// The result document that is attested.
    document: Vec<u8>,
    until: Time,
}

/// This node as a participant in signing.
#[derive(Default)]
pub(crate) struct Participants {
    promises: BTreeMap<RequestKey, Promise>,
    incoming: BTreeMap<SessionId, Incoming>,
    taking: BTreeMap<SessionId, Taking>,
}

/// The parts of the node that a participant needs.
pub(crate) struct Parts<'a> {
    pub sessions: &'a mut Sessions,
    pub wallets: &'a mut Wallets,
    pub ledger: &'a mut Ledger,
    pub auxiliary: &'a Auxiliary,
}

impl Participants {
    pub fn tables(&self) -> [Table; 3] {
        [
            ("promises", self.promises.len(), Some(PROMISES_MAX)),
            ("proposals that wait for records", self.incoming.len(), Some(limits::REQUESTS_MAX)),
            ("signatures in which this node takes part", self.taking.len(), Some(limits::SESSIONS_MAX)),
        ]
    }

    pub fn on_proposal(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, proposal: Proposal) {
        let session = proposal.session();
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        match self.check(ctx, from, &proposal) {
            Err(decline) => answer(ctx, from, session, Answer::Declined(decline)),
            Ok(request) => {
                if self.incoming.len() >= limits::REQUESTS_MAX {
                    answer(ctx, from, session, Answer::Declined(Decline::Busy));
                    return;
                }
                let since = ctx.now.time;
                let unread = proposal.deliveries.len();
                for key in &proposal.deliveries {
                    Answers::read_for_proposal(ctx, key, session);
                }
                let from = (from, incarnation);
                self.incoming.insert(session, Incoming { from, proposal, request, unread, answered: None, since });
                self.drive(ctx, parts, session);
            }
        }
    }

    /// Everything about a proposal that needs no record.
    fn check(&self, ctx: &Context, from: NodeId, proposal: &Proposal) -> Result<Admitted, Decline> {
        if !ctx.unfit.is_empty() {
            return Err(Decline::Unfit);
        }
        if proposal.attempt.coordinator != from {
            return Err(Decline::Refused("the proposal names another coordinator than its sender".to_owned()));
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
        admit_proposed(ctx, RequestKind::Sign, &proposal.request, proposal.deadline)
    }

    /// It is known now whether an error is remembered for one of a proposal's deliveries.
    pub fn on_answer_read(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        session: SessionId,
        answer: Option<Vec<u8>>,
    ) {
        let Some(incoming) = self.incoming.get_mut(&session) else { return };
        incoming.unread = incoming.unread.saturating_sub(1);
        incoming.answered = incoming.answered.take().or(answer);
        self.drive(ctx, parts, session);
    }

    /// Whether this node takes part in signing exactly this.
    pub fn is_taking(&self, key: RequestKey, payload: [u8; 32]) -> bool {
        self.taking.values().any(|taking| taking.key == key && taking.payload == payload)
    }

    /// Goes on with proposals that waited for this wallet's records.
    pub fn on_wallet_loaded(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        for session in self.waiting(|i| i.request.wallet() == wallet) {
            self.drive(ctx, parts, session);
        }
    }

    /// Goes on with proposals that waited for this ledger record.
    pub fn on_ledger_loaded(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, key: RequestKey) {
        for session in self.waiting(|i| i.request.key == key) {
            self.drive(ctx, parts, session);
        }
    }

    fn waiting(&self, which: impl Fn(&Incoming) -> bool) -> Vec<SessionId> {
        self.incoming.iter().filter(|(_, i)| which(i)).map(|(id, _)| *id).collect()
    }

    fn drive(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, session: SessionId) {
        let Some(incoming) = self.incoming.get(&session) else { return };
        if incoming.unread > 0 {
            return;
        }
        let wallet = match parts.wallets.lookup(ctx, incoming.request.wallet()) {
            cache::Lookup::Loading => return,
            cache::Lookup::Absent => None,
            cache::Lookup::Found(wallet) => Some(wallet),
        };
        let held = match parts.ledger.lookup(ctx, incoming.request.key) {
            Lookup::Loading => return,
            Lookup::Absent => None,
            Lookup::Held(held) => Some(held),
        };
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
        held: Option<Held>,
    ) -> Result<Answer, Decline> {
        let Incoming { proposal, request, .. } = incoming;
        if !ctx.unfit.is_empty() {
            return Err(Decline::Unfit);
        }
        if let Some(answered) = &incoming.answered {
            return Err(Decline::Answered(answered.clone()));
        }
        let until = proposal.deadline.after(ctx.config.clock_skew);
        if let Some(held) = held {
            if held.payload != request.payload && !planted(Bug::PayloadUnchecked) {
                return Err(Decline::OtherPayload);
            }
            self.promise(ctx, request, proposal.attempt, until, false)?;
            return Ok(Answer::Holds(held));
        }
        let Some(wallet) = wallet else {
            return Err(Decline::Lacks(format!("it does not know wallet {}", request.wallet())));
        };
        if wallet.certificate_hash != proposal.certificate {
            return Err(Decline::Lacks("it knows another epoch of the wallet".to_owned()));
        }
        if wallet.frozen {
            return Err(Decline::Lacks("the wallet's key is moving to another committee".to_owned()));
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
        self.promise(ctx, request, proposal.attempt, until, false)?;
        // The promise ends every lower attempt here.
        let superseded: Vec<SessionId> =
            self.taking.iter().filter(|(_, t)| t.key == request.key).map(|(id, _)| *id).collect();
        for old in superseded {
            self.taking.remove(&old);
            parts.sessions.cancel(ctx, old, "a higher attempt has begun");
        }
        let execution_id = proposal.execution_id(suite.name(), &key.public_key, &request.all_fields);
        let taking = Taking {
            key: request.key,
            payload: request.payload,
            request: request.clone(),
            attempt: proposal.attempt,
            coordinator: incoming.from,
            participants: nodes,
            attestations: BTreeMap::new(),
            finished: None,
        };
        self.taking.insert(session, taking);
        parts.sessions.start(
            ctx,
            Plan {
                id: session,
                owner: crate::session::Owner::Signing,
                protocol: protocol_name(curve).to_owned(),
                wallet: request.wallet().to_owned(),
                attempt: proposal.tries,
                coordinator: proposal.attempt.coordinator,
                participants: proposal.participants.clone(),
                execution_id,
                pace,
                deadline: Some(proposal.deadline),
                pairs: view.pairs,
                priority: Priority::Signing,
                lane: Lane::Signing,
                start: Box::new(move |run| {
                    let key = match &key.shift {
                        None => share,
                        Some(shift) => std::sync::Arc::new(share.shifted(shift)?),
                    };
                    suite.start(run, Signing { key, signers, message, auxiliary: view.views })
                }),
            },
        );
        Ok(Answer::Accepted)
    }

    /// Promises an attempt, for this incarnation, unless a higher one or another payload was promised. One attempt runs
    /// only once; closing may ask again (`again`).
    fn promise(
        &mut self,
        ctx: &Context,
        request: &Admitted,
        attempt: Attempt,
        until: WallTime,
        again: bool,
    ) -> Result<(), Decline> {
        self.forget_promises(ctx);
        let known = self.promises.get(&request.key);
        if known.is_none() && self.promises.len() >= PROMISES_MAX {
            return Err(Decline::Busy);
        }
        if let Some(known) = known {
            // Closing asks about the id, whatever was promised to be signed under it.
            if known.payload != request.payload && !again {
                return Err(Decline::OtherPayload);
            }
            if (known.attempt > attempt && !planted(Bug::PromiseIgnored)) || (known.attempt == attempt && !again) {
                return Err(Decline::Higher(known.attempt));
            }
        }
        if !attempt.is_plausible(ctx) {
            return Err(Decline::Refused("the attempt's number is far ahead of this node's clock".to_owned()));
        }
        let until = known.map_or(until, |known| known.until.max(until));
        let payload = known.map_or(request.payload, |known| known.payload);
        self.promises.insert(request.key, Promise { attempt, payload, until });
        Ok(())
    }

    /// Promises to a closing coordinator.
    pub fn on_close(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        request: &[u8],
        attempt: Attempt,
    ) {
        let Ok(request) = admit(ctx, RequestKind::Sign, request) else { return };
        let key = request.key;
        let answer = if !ctx.unfit.is_empty() || attempt.coordinator != from {
            CloseAnswer::Unknown
        } else {
            // The coordinator asks again until it is answered; by then the record has been read.
            let held = match parts.ledger.lookup(ctx, key) {
                Lookup::Loading => return,
                Lookup::Absent => None,
                Lookup::Held(held) => Some(held),
            };
            let until = ctx.now.wall.after(ctx.config.signing_deadline + ctx.config.clock_skew);
            match (self.promise(ctx, &request, attempt, until, true), held) {
                (Err(Decline::Higher(higher)), _) => CloseAnswer::Higher(higher),
                (Err(_), None) => return,
                // Another payload: the result says which.
                (_, Some(held)) => CloseAnswer::Holds(held),
                (Ok(()), None) => CloseAnswer::Empty,
            }
        };
        send(ctx, from, Message::Closed { key, attempt, answer });
    }

    /// Stores a result that an attempt found instead of signing again.
    pub fn on_adopt(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        request: &[u8],
        attempt: Attempt,
        (signature, attestations): (Vec<u8>, Attestations),
    ) {
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        let Ok(request) = admit(ctx, RequestKind::Sign, request) else { return };
        // Only exactly the attempt that this incarnation promised; a lost promise makes the coordinator start again.
        if !ctx.unfit.is_empty() || self.promises.get(&request.key).is_none_or(|p| p.attempt != attempt) {
            return;
        }
        let cache::Lookup::Found(wallet) = parts.wallets.lookup(ctx, request.wallet()) else { return };
        if !verifies(ctx, &wallet, &request, &signature)
            || !are_attested(ctx, wallet.committee(), &request, &signature, &attestations)
        {
            ctx.blame(from);
            ctx.report(crate::report::Report::Ignored {
                peer: ctx.name(from),
                what: "a result to adopt whose signature or attestations do not verify".to_owned(),
            });
            return;
        }
        let mut batch = Batch::default();
        let held = Held { payload: request.payload, attempt, signature, at: ctx.now.wall, attestations };
        parts.ledger.hold(&mut batch, request.key, held);
        let after = After::Adopted { key: request.key, attempt, coordinator: (from, incarnation) };
        ctx.persist(batch, ContextAfter::Signing(after));
    }

    /// A session that this node took part in ended. Its result is attested, and stored with everybody's attestation
    /// unless a higher attempt was promised meanwhile: what is durable is then the whole answer, and every coordinator
    /// that ever finds it publishes the same bytes.
    pub fn on_session_ended(
        &mut self,
        ctx: &mut Context,
        ledger: &mut Ledger,
        session: SessionId,
        outcome: Option<Outcome>,
    ) {
        let Some(Outcome::Signature(signature)) = outcome else {
            self.taking.remove(&session);
            return;
        };
        let Some(taking) = self.taking.get_mut(&session) else { return };
        let document = result_of(&taking.request, &signature, &Attestations::new()).attested_bytes();
        let mine = ctx.identity.sign(tags::RESULT, &document).to_vec();
        let others: Vec<NodeId> = taking.participants.iter().copied().filter(|node| *node != ctx.me).collect();
        for node in others {
            send(ctx, node, Message::Attested { session, signature: mine.clone() });
        }
        taking.attestations.insert(ctx.me, mine);
        taking.finished = Some(Finished { signature, document, until: ctx.now.time.after(limits::PROPOSAL_WAIT) });
        self.store_when_attested(ctx, ledger, session);
    }

    /// Another participant attests the result of a session.
    pub fn on_attested(
        &mut self,
        ctx: &mut Context,
        ledger: &mut Ledger,
        from: NodeId,
        session: SessionId,
        signature: Vec<u8>,
    ) {
        let Some(taking) = self.taking.get_mut(&session) else { return };
        if from != ctx.me && taking.participants.contains(&from) && signature.len() == ATTESTATION_BYTES {
            taking.attestations.entry(from).or_insert(signature);
            self.store_when_attested(ctx, ledger, session);
        }
    }

    fn store_when_attested(&mut self, ctx: &mut Context, ledger: &mut Ledger, session: SessionId) {
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
        let Some(Taking { key, payload, attempt, coordinator, attestations, finished: Some(finished), .. }) =
            self.taking.remove(&session)
        else {
            return;
        };
        if self.promises.get(&key).is_none_or(|p| p.attempt != attempt) {
            return;
        }
        let signature = finished.signature;
        let attestations: Attestations = attestations.into_iter().collect();
        let held = Held {
            payload,
            attempt,
            signature: signature.clone(),
            at: ctx.now.wall,
            attestations: attestations.clone(),
        };
        let mut batch = Batch::default();
        ledger.hold(&mut batch, key, held);
        let after = After::Stored { session, coordinator, signature, attestations };
        if planted(Bug::SaidBeforeWritten) {
            ctx.persist(batch, ContextAfter::Nothing);
            return Self::on_persisted(ctx, after);
        }
        ctx.persist(batch, ContextAfter::Signing(after));
    }

    /// A write is durable: say so, to the incarnation that asked.
    pub fn on_persisted(ctx: &mut Context, after: After) {
        let (coordinator, message) = match after {
            After::Stored { session, coordinator, signature, attestations } => {
                (coordinator, Message::Stored { session, signature, attestations })
            }
            After::Adopted { key, attempt, coordinator } => (coordinator, Message::Adopted { key, attempt }),
        };
        if ctx.incarnation_of(coordinator.0) == Some(coordinator.1) {
            send(ctx, coordinator.0, message);
        }
    }

    pub fn on_link_down(&mut self, peer: Participant) {
        self.incoming.retain(|_, i| i.from != peer);
    }

    fn forget_promises(&mut self, ctx: &Context) {
        if self.promises.len() >= PROMISES_MAX / 2 {
            let now = ctx.now.wall;
            self.promises.retain(|_, p| p.until >= now);
        }
    }

    pub fn on_wake(&mut self, ctx: &mut Context) {
        // A record that the store never returned would be a bug of the store; the proposal must not stay for ever.
        let now = ctx.now.time;
        self.incoming.retain(|_, i| now < i.since.after(limits::EARLY_WAIT));
        // The coordinator repeats the attempt: a result that not everybody attests is not stored anywhere here.
        self.taking.retain(|_, taking| taking.finished.as_ref().is_none_or(|finished| now < finished.until));
    }

    pub fn wake_at(&self) -> Option<Time> {
        self.taking.values().filter_map(|taking| taking.finished.as_ref()).map(|finished| finished.until).min()
    }
}

/// Bytes of an attestation: an Ed25519 signature.
const ATTESTATION_BYTES: usize = 64;
/// Promises kept in memory.
const PROMISES_MAX: usize = 65_536;

/// For reports.
pub(crate) fn protocol_name(curve: Curve) -> &'static str {
    match curve {
        Curve::Secp256k1 => "sign secp256k1",
        Curve::Ed25519 => "sign ed25519",
    }
}

/// Whether a signature is the right one for a request, under the wallet's (derived) key.
pub(crate) fn verifies(ctx: &Context, wallet: &cache::Wallet, request: &Admitted, signature: &[u8]) -> bool {
    let curve = request.curve();
    let Some(public_key) = wallet.public_key(curve) else { return false };
    let Ok(key) = signing_key(curve, public_key, ctx.config.chain_code.as_ref(), &request.signing().derivation_path)
    else {
        return false;
    };
    let Ok(message) = message_to_sign(request.signing()) else { return false };
    ctx.suites.signing(curve).verify(&key.public_key, &message, signature)
}

/// Checks a proposed request as if nobody had, and that nobody is to work for it after its own expiry.
pub(crate) fn admit_proposed(
    ctx: &Context,
    kind: RequestKind,
    body: &[u8],
    deadline: WallTime,
) -> Result<Admitted, Decline> {
    let request = admit(ctx, kind, body).map_err(|refusal| Decline::Refused(refusal.reason))?;
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
