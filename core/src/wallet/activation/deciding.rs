//! Proposer and acceptor of the decision which prepared session becomes the epoch.

use super::{Activation, After, Message, Parts, own_committee, send};
use crate::{
    NodeId, Time,
    consensus::{Action, Ballot, Promise, Proposer, VoteAnswer},
    context::{After as ContextAfter, Context},
    limits,
    planted::{Bug, planted},
    report::Report,
    session::SessionId,
    store::{Batch, Keyspace},
    wallet::{AcceptorRecord, Certificate, Promised, Refused, Value, Vote, cache, record::Stored as _},
};

/// A decision that this node drives.
pub(super) struct Deciding {
    proposer: Proposer<Value>,
    votes: Vec<Vote>,
    /// When to say again what is not answered, or to try a higher ballot.
    pub say_at: Time,
}

/// How soon unanswered questions are repeated.
const SAY_AGAIN: crate::Duration = crate::Duration::from_secs(1);

impl Activation {
    /// Proposes `value`, unless this node is at it already.
    pub(super) fn decide(&mut self, ctx: &mut Context, wallet: &str, value: Value) {
        if let Some(deciding) = self.deciding.get_mut(wallet) {
            deciding.proposer.offer(value);
            deciding.say_at = ctx.now.time;
        } else {
            let after_round = self.rounds.get(wallet).copied().unwrap_or(0);
            let committee = value.facts().committee.clone();
            let proposer = Proposer::new(&committee, ctx.me, ctx.incarnation, Some(value), after_round);
            self.deciding.insert(wallet.to_owned(), Deciding { proposer, votes: Vec::new(), say_at: ctx.now.time });
        }
        self.say(ctx, wallet);
    }

    /// Ends this node's own proposing of a session that can never be chosen.
    pub(super) fn stop_deciding(&mut self, wallet: &str, session: SessionId) {
        let concerned = self.deciding.get(wallet).is_some_and(|deciding| match deciding.proposer.current() {
            Some(Action::Vote { value, .. }) => value.facts().session == session,
            // Whatever it was about to propose, another attempt begins anew.
            _ => true,
        });
        if concerned {
            self.deciding.remove(wallet);
        }
    }

    pub(super) fn drive_deciding(&mut self, ctx: &mut Context) {
        let due: Vec<String> =
            self.deciding.iter().filter(|(_, d)| d.say_at <= ctx.now.time).map(|(wallet, _)| wallet.clone()).collect();
        for wallet in due {
            if let Some(deciding) = self.deciding.get_mut(&wallet)
                && deciding.proposer.is_beaten()
            {
                deciding.votes.clear();
                if deciding.proposer.retry().is_none() {
                    self.deciding.remove(&wallet);
                    continue;
                }
            }
            self.say(ctx, &wallet);
        }
    }

    /// Says what the proposer has to say to those that have not answered.
    fn say(&mut self, ctx: &mut Context, wallet: &str) {
        let Some(deciding) = self.deciding.get_mut(wallet) else { return };
        deciding.say_at = ctx.now.time.after(SAY_AGAIN);
        let ballot = deciding.proposer.ballot();
        self.rounds.insert(wallet.to_owned(), ballot.round);
        let message = match deciding.proposer.current() {
            Some(Action::Prepare { ballot }) => Message::Prepare { wallet: wallet.to_owned(), epoch: 0, ballot },
            Some(Action::Vote { ballot, value }) => Message::VoteFor { ballot, value: Box::new(value) },
            Some(Action::Open { .. }) | None => return,
        };
        for node in deciding.proposer.unanswered() {
            send(ctx, node, message.clone());
        }
    }

    /// As an acceptor: promise, durably, then say so.
    pub(super) fn on_prepare(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        wallet: &str,
        epoch: u32,
        ballot: Ballot,
    ) {
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        if ballot.node != from || ballot.incarnation != incarnation || !self.may_accept(ctx, parts, from, wallet, epoch)
        {
            return;
        }
        let mut acceptor = self.acceptors.get(wallet).cloned().unwrap_or_else(|| AcceptorRecord::new(wallet, epoch));
        let highest = acceptor.acceptor.promised().map_or(0, |promised| promised.round);
        if ballot.round > highest.saturating_add(limits::ROUND_LEAD_MAX) {
            return;
        }
        match acceptor.acceptor.prepare(ballot) {
            Promise::Rejected { promised } => {
                send(ctx, from, Message::Rejected { wallet: wallet.to_owned(), epoch, ballot, promised });
            }
            Promise::Promised { voted } => {
                let hash = voted.as_ref().map(|(ballot, value)| (*ballot, value.hash()));
                let statement = Promised::sign(wallet, epoch, ballot, hash, &ctx.identity);
                let value = voted.map(|(_, value)| Box::new(value));
                let after = After::Promised(Box::new(statement), value, (from, incarnation));
                self.keep(ctx, acceptor, after);
            }
        }
    }

    /// As an acceptor: check everything, vote, durably, then say so.
    pub(super) fn on_vote_for(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        ballot: Ballot,
        value: Value,
    ) {
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        let facts = value.facts().clone();
        let wallet = facts.wallet.clone();
        if ballot.node != from || !self.may_accept(ctx, parts, from, &wallet, facts.epoch) {
            return;
        }
        // This node checked the initiator's request when it prepared the session, and holds it; whoever asks for a vote
        // on a session that is not prepared here shows that this store lacks something, or lies.
        let prepared_here = self
            .prepared
            .get(&wallet)
            .and_then(|sessions| sessions.get(&facts.session))
            .is_some_and(|p| p.record.statement.session == value.session);
        let problem = if !prepared_here {
            Some("the session is not prepared here".to_owned())
        } else if facts.committee != own_committee(ctx) {
            Some("its committee is not the configured one".to_owned())
        } else {
            value.verify(None, &|id| ctx.config.peer(id).map(|p| p.key)).err().map(|e| e.to_string())
        };
        if let Some(problem) = problem {
            let what = format!("a call to vote on wallet {wallet}: {problem}");
            ctx.report(Report::Ignored { peer: ctx.name(from), what });
            return;
        }
        let mut acceptor =
            self.acceptors.get(&wallet).cloned().unwrap_or_else(|| AcceptorRecord::new(&wallet, facts.epoch));
        let highest = acceptor.acceptor.promised().map_or(0, |promised| promised.round);
        if ballot.round > highest.saturating_add(limits::ROUND_LEAD_MAX) {
            return;
        }
        if acceptor.closed.binary_search(&facts.session).is_ok() && !planted(Bug::VotesForClosed) {
            let refused = Refused::sign(&wallet, facts.epoch, facts.session, ctx.incarnation, &ctx.identity);
            send(ctx, from, Message::Refused(Box::new(refused)));
            return;
        }
        if let Some(prepared) = self.prepared.get_mut(&wallet).and_then(|s| s.get_mut(&facts.session)) {
            prepared.learn(&value);
        }
        let hash = value.hash();
        match acceptor.acceptor.vote(ballot, value) {
            VoteAnswer::Rejected { promised } => {
                send(ctx, from, Message::Rejected { wallet, epoch: facts.epoch, ballot, promised });
            }
            VoteAnswer::Voted => {
                let vote = Vote::sign(&wallet, facts.epoch, ballot, hash, &ctx.identity);
                self.keep(ctx, acceptor, After::Voted(Box::new(vote), (from, incarnation)));
            }
        }
    }

    /// Whether this node takes part in a decision; answers with the certificate if it is made already.
    fn may_accept(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, wallet: &str, epoch: u32) -> bool {
        // Only wallets for which something is prepared here have a decision that this node is asked about, so nobody
        // can make it keep state for invented ones.
        if !ctx.unfit.is_empty() || epoch != 0 || wallet.len() > crate::limits::ID_BYTES_MAX {
            return false;
        }
        match parts.wallets.lookup(ctx, wallet) {
            cache::Lookup::Loading => false,
            cache::Lookup::Found(found) => {
                send(ctx, from, Message::Certificate(Box::new(found.certificate.clone())));
                false
            }
            cache::Lookup::Absent => self.prepared.contains_key(wallet) && !self.sits_out.contains(wallet),
        }
    }

    fn keep(&mut self, ctx: &mut Context, acceptor: AcceptorRecord, after: After) {
        let mut batch = Batch::default();
        batch.put(Keyspace::Decisions, acceptor.key(), acceptor.encode());
        self.acceptors.insert(acceptor.wallet.clone(), acceptor);
        ctx.persist(batch, ContextAfter::Wallet(after));
    }

    pub(super) fn on_promised(&mut self, ctx: &mut Context, from: NodeId, promised: &Promised, value: Option<Value>) {
        let Some(deciding) = self.deciding.get_mut(&promised.wallet) else { return };
        let keys = |id| ctx.config.peer(id).map(|p| p.key);
        let voted = match (promised.voted, value) {
            (None, None) => None,
            (Some((ballot, hash)), Some(value))
                if value.hash() == hash
                    && value.facts().wallet == promised.wallet
                    && value.facts().committee == own_committee(ctx)
                    && value.verify(None, &keys).is_ok() =>
            {
                Some((ballot, value))
            }
            _ => return,
        };
        if promised.node != from || promised.epoch != 0 || promised.verify(&keys).is_err() {
            return;
        }
        if deciding.proposer.on_promise(from, promised.ballot, Promise::Promised { voted }).is_some() {
            let wallet = promised.wallet.clone();
            self.say(ctx, &wallet);
        }
    }

    pub(super) fn on_voted(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, vote: Vote) {
        let Some(deciding) = self.deciding.get_mut(&vote.wallet) else { return };
        let keys = |id| ctx.config.peer(id).map(|p| p.key);
        let expected = match deciding.proposer.current() {
            Some(Action::Vote { ballot, value }) => ballot == vote.ballot && value.hash() == vote.value_hash,
            _ => false,
        };
        if !expected || vote.node != from || vote.epoch != 0 || vote.verify(&keys).is_err() {
            return;
        }
        let ballot = vote.ballot;
        deciding.votes.retain(|v| v.node != from);
        deciding.votes.push(vote);
        let Some(decided) = deciding.proposer.on_vote(from, ballot, VoteAnswer::Voted) else { return };
        let votes: Vec<Vote> =
            deciding.votes.iter().filter(|v| v.ballot == ballot && decided.voters.contains(&v.node)).cloned().collect();
        match Certificate::assemble(decided.value, &votes, None, &keys) {
            Ok(certificate) => {
                for node in ctx.reachable() {
                    if node != ctx.me {
                        send(ctx, node, Message::Certificate(Box::new(certificate.clone())));
                    }
                }
                self.adopt(ctx, parts, None, certificate);
            }
            Err(error) => ctx.report(Report::Alarm { what: format!("a decision without a certificate: {error}") }),
        }
    }

    pub(super) fn on_rejected(
        &mut self,
        ctx: &mut Context,
        from: NodeId,
        wallet: &str,
        epoch: u32,
        ballot: Ballot,
        promised: Ballot,
    ) {
        let pause = crate::Duration::from_millis(50 + ctx.random_below(450));
        let Some(deciding) = self.deciding.get_mut(wallet) else { return };
        let lead = promised.round.saturating_sub(deciding.proposer.ballot().round);
        if epoch != 0 || lead > limits::ROUND_LEAD_MAX {
            return;
        }
        deciding.proposer.on_promise(from, ballot, Promise::Rejected { promised });
        if deciding.proposer.is_beaten() {
            deciding.say_at = ctx.now.time.after(pause);
        }
    }
}
