//! The member's side: joining a session, preparing, stating, refusing, and recovering what a restart interrupted.

use std::collections::BTreeMap;

use super::{Activation, After, Answer, Message, Parts, Proposal, own_committee, send, tell};
use crate::{
    NodeId, Time, WallTime,
    context::{After as ContextAfter, Context},
    input::RequestKind,
    limits,
    link::Lane,
    planted::{Bug, planted},
    protocol::{KeyShare, Priority},
    report::Report,
    request::{
        admission::{Admitted, admit},
        signing::{
            Decline,
            participant::{admit_proposed, check_participants},
        },
    },
    session::{Owner, Participant, Plan, SessionId},
    store::{Batch, Keyspace},
    tags,
    wallet::{
        Choice, PendingRecord, Prepared as Statement, PreparedRecord, PreparedSession, Refused, SessionFacts, Value,
        cache,
        record::{RefusedRecord, Stored as _, pending_key},
    },
};

/// A proposal that waits for the wallet's records.
pub(super) struct Incoming {
    from: Participant,
    proposal: Proposal,
    request: Admitted,
    pub since: Time,
}

/// A session that runs here.
pub(super) struct Joining {
    pub facts: SessionFacts,
    request: Vec<u8>,
    pub coordinator: NodeId,
    pub deadline: WallTime,
    /// Statements of members that were faster.
    statements: BTreeMap<NodeId, Statement>,
}

/// A session that is prepared here.
pub(super) struct Prepared {
    pub record: PreparedRecord,
    /// Who proposed it, unless that was to an earlier life of this node.
    pub coordinator: Option<NodeId>,
    durable: bool,
    statements: BTreeMap<NodeId, Statement>,
    /// What a member said that never prepares it.
    refusal: Option<Refused>,
    /// When this node begins to decide by itself, if nobody else has.
    decide_at: Time,
    /// When the others are asked what became of it.
    pub ask_at: Time,
}

/// How long the others leave the decision to the coordinator.
const DECIDE_AFTER: crate::Duration = crate::Duration::from_secs(2);

impl Prepared {
    fn new(record: PreparedRecord, coordinator: Option<NodeId>, durable: bool, now: Time) -> Self {
        Self {
            record,
            coordinator,
            durable,
            statements: BTreeMap::new(),
            refusal: None,
            decide_at: now.after(DECIDE_AFTER),
            ask_at: now.after(limits::RECOVERY_INTERVAL),
        }
    }

    pub fn facts(&self) -> &SessionFacts {
        &self.record.statement.session.facts
    }

    /// Whether it lacks a statement that is never made. A member that says so falsely ends nothing: whoever holds
    /// everybody's statements can still have the session decided.
    pub fn is_lost(&self) -> bool {
        self.refusal.is_some() && !self.is_complete()
    }

    pub fn wakes_at(&self) -> Option<Time> {
        if !self.durable || self.is_lost() {
            return None;
        }
        Some(if self.is_complete() { self.decide_at.max(Time(0)) } else { self.ask_at })
    }

    /// Takes in what others showed of everybody's statements.
    pub fn learn(&mut self, value: &Value) {
        for (at, (node, signature)) in value.prepared.iter().enumerate() {
            let (session, result) = (value.session.clone(), value.results.get(at).copied());
            self.statements.entry(*node).or_insert(Statement { session, node: *node, signature: *signature, result });
        }
    }

    fn is_complete(&self) -> bool {
        self.statements.len() + usize::from(planted(Bug::StatementMissing)) >= self.facts().committee.members.len()
    }
}

impl Activation {
    pub(super) fn restore_prepared(&mut self, ctx: &mut Context, record: PreparedRecord) {
        let facts = record.statement.session.facts.clone();
        let mut prepared = Prepared::new(record, None, true, ctx.now.time);
        prepared.statements.insert(ctx.me, prepared.record.statement.clone());
        prepared.ask_at = ctx.now.time;
        self.prepared.entry(facts.wallet).or_default().insert(facts.session, prepared);
    }

    pub(super) fn on_proposal(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, proposal: Proposal) {
        let session = proposal.session();
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        match check(ctx, from, &proposal) {
            Err(decline) => answer(ctx, from, session, Answer::Declined(decline)),
            Ok(request) => {
                if self.incoming.len() >= limits::REQUESTS_MAX {
                    answer(ctx, from, session, Answer::Declined(Decline::Busy));
                    return;
                }
                let wallet = request.wallet().to_owned();
                let since = ctx.now.time;
                self.incoming.insert(session, Incoming { from: (from, incarnation), proposal, request, since });
                self.drive_incoming(ctx, parts, &wallet);
            }
        }
    }

    pub(super) fn drive_incoming(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        let waiting: Vec<SessionId> =
            self.incoming.iter().filter(|(_, i)| i.request.wallet() == wallet).map(|(id, _)| *id).collect();
        for session in waiting {
            let known = match self.lookup(ctx, parts, wallet) {
                cache::Lookup::Loading => return,
                cache::Lookup::Absent => None,
                cache::Lookup::Found(found) => Some(found),
            };
            let Some(incoming) = self.incoming.remove(&session) else { continue };
            if ctx.incarnation_of(incoming.from.0) != Some(incoming.from.1) {
                continue;
            }
            if let Some(known) = known {
                // The coordinator missed it.
                send(ctx, incoming.from.0, Message::Certificate(Box::new(known.certificate.clone())));
                continue;
            }
            let result = self.join(ctx, parts, session, &incoming);
            answer(ctx, incoming.from.0, session, result.map_or_else(Answer::Declined, |()| Answer::Accepted));
        }
    }

    fn join(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        session: SessionId,
        incoming: &Incoming,
    ) -> Result<(), Decline> {
        let Incoming { proposal, request, .. } = incoming;
        let wallet = request.wallet();
        if !ctx.unfit.is_empty() {
            return Err(Decline::Unfit);
        }
        if !self.is_open_slot(ctx, incoming.from.0, wallet, proposal.slot, Some(&proposal.request)) {
            return Err(Decline::Lacks("the wallet's creation is decided in another slot".to_owned()));
        }
        if self.refused.get(wallet).is_some_and(|sessions| sessions.contains_key(&session)) {
            return Err(Decline::Refused("it has refused that session".to_owned()));
        }
        // A session that ran here must not run again: its shares would be overwritten.
        let prepared = self.prepared.get(wallet).is_some_and(|sessions| sessions.contains_key(&session));
        if prepared || parts.sessions.knows(session) {
            return Err(Decline::Refused("that session has run before".to_owned()));
        }
        if self.joining.values().any(|j| j.facts.wallet == wallet) {
            return Err(Decline::Lacks("another session for the wallet runs here".to_owned()));
        }
        // Also those that seem to be lost: whoever said so may have lied. Once the slot is closed there is room again.
        if self.prepared.get(wallet).map_or(0, BTreeMap::len) >= limits::PREPARED_PER_SLOT_MAX {
            self.close(ctx, wallet, &proposal.request);
            return Err(Decline::Lacks("too many prepared sessions for the wallet wait for a decision".to_owned()));
        }
        let suite = ctx.suites.keygen.clone();
        let parties = u16::try_from(proposal.participants.len()).unwrap_or(u16::MAX);
        let pace = suite.pace(parties);
        if !parts.sessions.has_room() || (pace.heavy && parts.sessions.heavy() >= ctx.config.workers.max(1)) {
            return Err(Decline::Busy);
        }
        let committee = own_committee(ctx);
        let threshold = committee.threshold;
        let facts = proposal.facts(wallet, tags::REQUEST.hash(&request.all_fields), committee);
        let execution_id = proposal.execution_id(suite.name(), &facts);
        self.joining.insert(
            session,
            Joining {
                facts,
                request: proposal.request.clone(),
                coordinator: proposal.attempt.coordinator,
                deadline: proposal.deadline,
                statements: BTreeMap::new(),
            },
        );
        parts.sessions.start(
            ctx,
            Plan {
                id: session,
                owner: Owner::Wallet,
                protocol: "keygen".to_owned(),
                wallet: wallet.to_owned(),
                attempt: u32::try_from(proposal.attempt.number).unwrap_or(u32::MAX),
                coordinator: proposal.attempt.coordinator,
                participants: proposal.participants.clone(),
                execution_id,
                pace,
                deadline: Some(proposal.deadline),
                pairs: Vec::new(),
                priority: Priority::Keygen,
                // The lane of the proposal, so that neither overtakes the other.
                lane: Lane::Control,
                start: Box::new(move |run| suite.start(run, threshold)),
            },
        );
        Ok(())
    }

    /// The session is done here: shares and statement become durable together, and only then does anyone hear of it.
    pub(super) fn prepare(&mut self, ctx: &mut Context, session: SessionId, joining: Joining, shares: Vec<KeyShare>) {
        let wallet = joining.facts.wallet.clone();
        let (made, public_shares) = match PreparedSession::new(joining.facts, ctx.me, &shares) {
            Ok(made) => made,
            Err(error) => {
                ctx.report(Report::Alarm {
                    what: format!("key generation for {wallet} made unusable shares: {error}"),
                });
                return;
            }
        };
        let statement = Statement::sign(made, &ctx.identity);
        let record = PreparedRecord { statement, public_shares, request: joining.request };
        let mut batch = Batch::default();
        if let Err(error) = record.clone().store(shares, &mut batch) {
            ctx.report(Report::Alarm { what: format!("key generation for {wallet} made unusable shares: {error}") });
            return;
        }
        let mut prepared = Prepared::new(record, Some(joining.coordinator), false, ctx.now.time);
        if joining.coordinator == ctx.me {
            prepared.decide_at = ctx.now.time;
        } else {
            let jitter = crate::Duration::from_millis(ctx.random_below(1000));
            prepared.decide_at = ctx.now.time.after(DECIDE_AFTER + jitter);
        }
        // What others stated before this node knew the result counts only if it is the same result.
        prepared.statements = joining.statements;
        let made = prepared.record.statement.session.clone();
        prepared.statements.retain(|_, statement| statement.session == made);
        self.prepared.entry(wallet.clone()).or_default().insert(session, prepared);
        if planted(Bug::PreparedBeforeDurable) {
            ctx.persist(batch, ContextAfter::Nothing);
            return self.on_share_durable(ctx, &wallet, session);
        }
        ctx.persist(batch, ContextAfter::Wallet(After::Prepared(wallet, session)));
    }

    pub(super) fn on_share_durable(&mut self, ctx: &mut Context, wallet: &str, session: SessionId) {
        let Some(prepared) = self.prepared.get_mut(wallet).and_then(|s| s.get_mut(&session)) else { return };
        prepared.durable = true;
        prepared.statements.insert(ctx.me, prepared.record.statement.clone());
        let statement = prepared.record.statement.clone();
        for member in statement.session.facts.committee.members.clone() {
            if member != ctx.me {
                send(ctx, member, Message::Prepared(Box::new(statement.clone())));
            }
        }
        self.consider(ctx, wallet, session);
    }

    pub(super) fn on_prepared(&mut self, ctx: &mut Context, from: NodeId, statement: Statement) {
        let facts = &statement.session.facts;
        let (wallet, session) = (facts.wallet.clone(), facts.session);
        let known = self.joining.contains_key(&session)
            || self.prepared.get(&wallet).is_some_and(|sessions| sessions.contains_key(&session));
        if !known {
            return;
        }
        if let Err(error) = statement.verify(&|id| ctx.config.peer(id).map(|p| p.key)) {
            ctx.report(Report::Ignored { peer: ctx.name(from), what: format!("a statement about {wallet}: {error}") });
            return;
        }
        if let Some(joining) = self.joining.get_mut(&session) {
            joining.statements.insert(statement.node, statement);
            return;
        }
        if let Some(prepared) = self.prepared.get_mut(&wallet).and_then(|s| s.get_mut(&session)) {
            if statement.session != prepared.record.statement.session {
                let what = format!(
                    "{} states another result of session {session} for wallet {wallet} than this node",
                    ctx.name(statement.node)
                );
                ctx.report(Report::Alarm { what });
                return;
            }
            prepared.statements.insert(statement.node, statement);
            self.consider(ctx, &wallet, session);
        }
    }

    /// Begins to decide if everybody has stated and it is this node's turn.
    fn consider(&mut self, ctx: &mut Context, wallet: &str, session: SessionId) {
        let Some(prepared) = self.prepared.get_mut(wallet).and_then(|s| s.get_mut(&session)) else { return };
        if !prepared.durable || !prepared.is_complete() || ctx.now.time < prepared.decide_at {
            return;
        }
        // If this attempt comes to nothing the next one is made after a while.
        prepared.decide_at = ctx.now.time.after(limits::RECOVERY_INTERVAL);
        let statements: Vec<Statement> = prepared.statements.values().cloned().collect();
        let session = prepared.record.statement.session.clone();
        match Value::assemble(session, prepared.record.public_shares.clone(), &statements) {
            Ok(value) => self.decide(ctx, wallet, Choice::Session(Box::new(value)), None),
            Err(error) => ctx.report(Report::Alarm { what: format!("wallet {wallet}: {error}") }),
        }
    }

    /// Asks about prepared sessions whose fate is unknown, and decides those that only wait for somebody to do it.
    pub(super) fn recover(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        let now = ctx.now.time;
        let mut due = Vec::new();
        for (wallet, sessions) in &mut self.prepared {
            for (session, prepared) in sessions {
                if prepared.wakes_at().is_some_and(|at| at <= now) {
                    due.push((wallet.clone(), *session));
                }
            }
        }
        for (wallet, session) in due {
            if let cache::Lookup::Found(_) = parts.wallets.lookup(ctx, &wallet) {
                // Another session won before this start; its loser stays on disk and is of no interest any more.
                self.prepared.remove(&wallet);
                continue;
            }
            let Some(prepared) = self.prepared.get_mut(&wallet).and_then(|s| s.get_mut(&session)) else { continue };
            if prepared.is_complete() {
                self.consider(ctx, &wallet, session);
                continue;
            }
            prepared.ask_at = now.after(limits::RECOVERY_INTERVAL);
            let facts = prepared.facts().clone();
            let request = prepared.record.request.clone();
            let slot = self.slot(&wallet).number;
            let me = ctx.me;
            // Not only those that are silent: others may know what became of it.
            for node in facts.committee.members.iter().copied().filter(|member| *member != me) {
                send(ctx, node, Message::Query { facts: Box::new(facts.clone()), slot, request: request.clone() });
            }
        }
    }

    pub(super) fn on_query(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        (facts, slot): (&SessionFacts, u32),
        request: &[u8],
    ) {
        if facts.wallet.len() > limits::ID_BYTES_MAX {
            return;
        }
        let (wallet, session) = (&facts.wallet, facts.session);
        if !self.is_absent(ctx, parts, from, wallet) || !self.is_open_slot(ctx, from, wallet, slot, Some(request)) {
            return;
        }
        if let Some(prepared) = self.prepared.get(wallet).and_then(|s| s.get(&session)) {
            if prepared.durable {
                send(ctx, from, Message::Prepared(Box::new(prepared.record.statement.clone())));
            }
            if let Some(refused) = &prepared.refusal {
                send(ctx, from, Message::Refused(Box::new(refused.clone())));
            }
            return;
        }
        if let Some(refused) = self.refused.get(wallet).and_then(|s| s.get(&session)) {
            send(ctx, from, Message::Refused(Box::new(refused.clone())));
            return;
        }
        // It runs here: the answer comes when it is prepared. And a node that lacks records promises nothing.
        if self.joining.contains_key(&session) || !ctx.unfit.is_empty() || self.sits_out.contains(wallet) {
            return;
        }
        let valid = facts.check().is_ok()
            && facts.committee == own_committee(ctx)
            && admit(ctx, RequestKind::Keygen, request)
                .is_ok_and(|r| r.wallet() == wallet && tags::REQUEST.hash(&r.all_fields) == facts.request_digest);
        let refusals = self.refused.get(wallet).map_or(0, BTreeMap::len);
        if !valid || refusals >= limits::PREPARED_PER_SLOT_MAX {
            return;
        }
        let refused = Refused::sign(wallet, facts.epoch, session, ctx.incarnation, &ctx.identity);
        let mut batch = Batch::default();
        let record = PendingRecord::Refused(RefusedRecord { statement: refused.clone() });
        batch.put(Keyspace::Pending, record.key(), record.encode());
        self.refused.entry(wallet.clone()).or_default().insert(session, refused.clone());
        ctx.persist(batch, ContextAfter::Wallet(After::Refused(Box::new(refused))));
    }

    /// A member never prepares a session. Who waits for it hears of that, also if that member never speaks again.
    pub(super) fn on_refused(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, refused: Refused) {
        let (wallet, session) = (refused.wallet.clone(), refused.session);
        if refused.verify(&|id| ctx.config.peer(id).map(|p| p.key)).is_err() {
            return;
        }
        if self.joining.get(&session).is_some_and(|j| j.facts.committee.position(refused.node).is_some()) {
            self.joining.remove(&session);
            parts.sessions.cancel(ctx, session, "a member has refused the session");
        }
        let Some(prepared) = self.prepared.get_mut(&wallet).and_then(|s| s.get_mut(&session)) else { return };
        if prepared.facts().committee.position(refused.node).is_some() && prepared.refusal.is_none() {
            tell(ctx, &Message::Refused(Box::new(refused.clone())));
            prepared.refusal = Some(refused);
        }
    }

    /// Removes what a decision has settled: the winner's pending record and the acceptor's state. Shares of sessions
    /// that lost stay until a higher epoch's certificate is held.
    pub(super) fn forget_decided(&mut self, batch: &mut Batch, facts: &SessionFacts) {
        if let Some(sessions) = self.prepared.get_mut(&facts.wallet)
            && sessions.remove(&facts.session).is_some()
        {
            batch.remove(Keyspace::Pending, pending_key(&facts.wallet, facts.epoch, facts.session));
        }
        if let Some(acceptor) = self.acceptors.remove(&facts.wallet) {
            batch.remove(Keyspace::Decisions, acceptor.key());
        }
        // Sessions that lost stay on disk; nothing is to be asked about them any more.
        self.prepared.remove(&facts.wallet);
        for session in self.refused.remove(&facts.wallet).unwrap_or_default().into_keys() {
            batch.remove(Keyspace::Pending, pending_key(&facts.wallet, facts.epoch, session));
        }
    }
}

/// Everything about a proposal that needs no record.
fn check(ctx: &Context, from: NodeId, proposal: &Proposal) -> Result<Admitted, Decline> {
    if !ctx.unfit.is_empty() {
        return Err(Decline::Unfit);
    }
    if proposal.attempt.coordinator != from || ctx.incarnation_of(from) != Some(proposal.attempt.incarnation) {
        return Err(Decline::Refused("the proposal names another coordinator than its sender".to_owned()));
    }
    if ctx.now.wall > proposal.deadline {
        return Err(Decline::Deadline);
    }
    if proposal.deadline > ctx.now.wall.after(ctx.config.keygen_deadline + ctx.config.clock_skew) {
        return Err(Decline::Refused("the proposal's deadline is later than any request's can be".to_owned()));
    }
    check_participants(ctx, &proposal.participants)?;
    let members: Vec<NodeId> = proposal.participants.iter().map(|p| p.0).collect();
    if members != own_committee(ctx).members {
        return Err(Decline::Refused("the proposed committee is not the configured one".to_owned()));
    }
    admit_proposed(ctx, RequestKind::Keygen, from, &proposal.request, proposal.deadline)
}

fn answer(ctx: &mut Context, to: NodeId, session: SessionId, answer: Answer) {
    send(ctx, to, Message::Answer { session, answer });
}
