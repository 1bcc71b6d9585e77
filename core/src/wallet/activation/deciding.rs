//! Proposer and acceptor of the decision which prepared session becomes the epoch, or that none of a slot does.

use super::{Activation, After, Message, Parts, is_absent, own_committee, send, tell};
use crate::{
    NodeId, Time,
    consensus::{Action, Ballot, Promise, Proposer, VoteAnswer},
    context::{After as ContextAfter, Context},
    limits,
    report::Report,
    store::{Batch, Keyspace},
    wallet::{AcceptorRecord, Certificate, Choice, Closing, Promised, Slot, Value, Vote, record::Stored as _},
};

/// A decision that this node drives.
pub(super) struct Deciding {
    slot: Slot,
    proposer: Proposer<Choice>,
    votes: Vec<Vote>,
    /// For acceptors that have prepared nothing.
    request: Option<Vec<u8>>,
    /// When to say again what is not answered, or to try a higher ballot.
    pub say_at: Time,
}

/// How soon unanswered questions are repeated.
const SAY_AGAIN: crate::Duration = crate::Duration::from_secs(1);

impl Activation {
    /// Proposes `choice` in the open slot, unless this node drives that decision already.
    pub(super) fn decide(&mut self, ctx: &mut Context, wallet: &str, choice: Choice, request: Option<Vec<u8>>) {
        if let Some(deciding) = self.deciding.get_mut(wallet) {
            deciding.say_at = ctx.now.time;
        } else {
            let after_round = self.rounds.get(wallet).copied().unwrap_or(0);
            let proposer = Proposer::new(&own_committee(ctx), ctx.me, ctx.incarnation, choice, after_round);
            let (slot, say_at) = (self.slot(wallet), ctx.now.time);
            self.deciding.insert(wallet.to_owned(), Deciding { slot, proposer, votes: Vec::new(), request, say_at });
        }
        self.say(ctx, wallet);
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
            Some(Action::Prepare { ballot }) => {
                Message::Prepare { slot: deciding.slot.clone(), ballot, request: deciding.request.clone() }
            }
            Some(Action::Vote { ballot, value }) => {
                Message::VoteFor { slot: deciding.slot.clone(), ballot, choice: value }
            }
            None => return,
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
        slot: Slot,
        ballot: Ballot,
        request: Option<&[u8]>,
    ) {
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        if ballot.incarnation != incarnation {
            return;
        }
        let Some(mut acceptor) = self.may_accept(ctx, parts, from, &slot, ballot, request) else { return };
        match acceptor.acceptor.prepare(ballot) {
            Promise::Rejected { promised } => send(ctx, from, Message::Rejected { slot, ballot, promised }),
            Promise::Promised { voted } => {
                let hash = voted.as_ref().map(|(ballot, choice)| (*ballot, choice.hash(&slot)));
                let statement = Promised::sign(slot, ballot, hash, &ctx.identity);
                let choice = voted.map(|(_, choice)| choice);
                self.keep(ctx, acceptor, After::Promised(Box::new(statement), choice, (from, incarnation)));
            }
        }
    }

    /// As an acceptor: check everything, vote, durably, then say so.
    pub(super) fn on_vote_for(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        slot: Slot,
        ballot: Ballot,
        choice: Choice,
    ) {
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        let Some(mut acceptor) = self.may_accept(ctx, parts, from, &slot, ballot, None) else { return };
        if let Choice::Session(value) = &choice
            && let Err(problem) = self.check_session(ctx, &acceptor, value)
        {
            let what = format!("a call to vote on wallet {}: {problem}", slot.wallet);
            ctx.report(Report::Ignored { peer: ctx.name(from), what });
            return;
        }
        let hash = choice.hash(&slot);
        match acceptor.acceptor.vote(ballot, choice) {
            VoteAnswer::Rejected { promised } => send(ctx, from, Message::Rejected { slot, ballot, promised }),
            VoteAnswer::Voted => {
                let vote = Vote::sign(&slot.wallet, slot.epoch, ballot, hash, &ctx.identity);
                self.keep(ctx, acceptor, After::Voted(Box::new(vote), (from, incarnation)));
            }
        }
    }

    /// Whether a session may become the wallet as far as this member knows.
    ///
    /// It checked the initiator's request, and in which slot the session may be decided, when it prepared the session;
    /// whoever asks for a vote on one that is not prepared here shows that this store lacks something, or lies.
    fn check_session(&mut self, ctx: &Context, acceptor: &AcceptorRecord, value: &Value) -> Result<(), String> {
        let facts = value.facts();
        let prepared = self.prepared.get_mut(&acceptor.slot.wallet).and_then(|s| s.get_mut(&facts.session));
        let Some(prepared) = prepared.filter(|p| p.record.statement.session == value.session) else {
            return Err("the session is not prepared here".to_owned());
        };
        if facts.committee != own_committee(ctx) {
            return Err("its committee is not the configured one".to_owned());
        }
        value.verify(None, &|id| ctx.config.peer(id).map(|p| p.key)).map_err(|error| error.to_string())?;
        if acceptor.refused.binary_search(&facts.session).is_ok() {
            return Err("this node has said that it never votes for the session".to_owned());
        }
        prepared.learn(value);
        Ok(())
    }

    /// This node's memory of a decision that it takes part in, with a ballot that its sender may use. If the decision is
    /// over the sender hears of it.
    fn may_accept(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        slot: &Slot,
        ballot: Ballot,
        request: Option<&[u8]>,
    ) -> Option<AcceptorRecord> {
        let wallet = slot.wallet.as_str();
        if !ctx.unfit.is_empty() || slot.epoch != 0 || wallet.len() > limits::ID_BYTES_MAX || ballot.node != from {
            return None;
        }
        if !is_absent(ctx, parts, from, wallet) {
            return None;
        }
        if self.sits_out.contains(wallet) || !self.is_open_slot(ctx, from, wallet, slot.number) {
            return None;
        }
        // Nobody can make this node keep state for wallets that no client asked for.
        let known = self.prepared.contains_key(wallet) || self.acceptors.contains_key(wallet);
        if !known && !request.is_some_and(|request| Self::is_asked_for(ctx, wallet, request)) {
            return None;
        }
        let acceptor = self.acceptors.get(wallet).cloned().unwrap_or_else(|| AcceptorRecord::new(wallet, slot.epoch));
        let highest = acceptor.acceptor.promised().map_or(0, |promised| promised.round);
        (ballot.round <= highest.saturating_add(limits::ROUND_LEAD_MAX)).then_some(acceptor)
    }

    fn keep(&mut self, ctx: &mut Context, acceptor: AcceptorRecord, after: After) {
        let mut batch = Batch::default();
        batch.put(Keyspace::Decisions, acceptor.key(), acceptor.encode());
        self.acceptors.insert(acceptor.slot.wallet.clone(), acceptor);
        ctx.persist(batch, ContextAfter::Wallet(after));
    }

    pub(super) fn on_promised(&mut self, ctx: &mut Context, from: NodeId, promised: &Promised, choice: Option<Choice>) {
        let Some(deciding) = self.deciding.get_mut(&promised.slot.wallet) else { return };
        let keys = |id| ctx.config.peer(id).map(|p| p.key);
        if promised.node != from || promised.slot != deciding.slot || promised.verify(&keys).is_err() {
            return;
        }
        let possible = |choice: &Choice| match choice {
            Choice::Session(value) => {
                value.facts().wallet == promised.slot.wallet
                    && value.facts().committee == own_committee(ctx)
                    && value.verify(None, &keys).is_ok()
            }
            Choice::Close => true,
        };
        let voted = match (promised.voted, choice) {
            (None, None) => None,
            (Some((ballot, hash)), Some(choice)) if choice.hash(&promised.slot) == hash && possible(&choice) => {
                Some((ballot, choice))
            }
            _ => return,
        };
        if deciding.proposer.on_promise(from, promised.ballot, Promise::Promised { voted }).is_some() {
            self.say(ctx, &promised.slot.wallet);
        }
    }

    pub(super) fn on_voted(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, vote: Vote) {
        let Some(deciding) = self.deciding.get_mut(&vote.wallet) else { return };
        let keys = |id| ctx.config.peer(id).map(|p| p.key);
        let expected = match deciding.proposer.current() {
            Some(Action::Vote { ballot, value }) => {
                ballot == vote.ballot && value.hash(&deciding.slot) == vote.value_hash
            }
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
        match decided.value {
            Choice::Session(value) => match Certificate::assemble(*value, &votes, None, &keys) {
                Ok(certificate) => {
                    tell(ctx, &Message::Certificate(Box::new(certificate.clone())));
                    self.adopt(ctx, parts, None, certificate);
                }
                Err(error) => ctx.report(Report::Alarm { what: format!("a decision without a certificate: {error}") }),
            },
            Choice::Close => {
                let closing = Closing::assemble(deciding.slot.clone(), ballot, &votes);
                tell(ctx, &Message::Closing(Box::new(closing.clone())));
                self.on_closing(ctx, parts, None, closing);
            }
        }
    }

    pub(super) fn on_rejected(
        &mut self,
        ctx: &mut Context,
        from: NodeId,
        slot: &Slot,
        ballot: Ballot,
        promised: Ballot,
    ) {
        let pause = crate::Duration::from_millis(50 + ctx.random_below(450));
        let Some(deciding) = self.deciding.get_mut(&slot.wallet) else { return };
        let lead = promised.round.saturating_sub(deciding.proposer.ballot().round);
        if *slot != deciding.slot || lead > limits::ROUND_LEAD_MAX {
            return;
        }
        deciding.proposer.on_promise(from, ballot, Promise::Rejected { promised });
        if deciding.proposer.is_beaten() {
            deciding.say_at = ctx.now.time.after(pause);
        }
    }
}
