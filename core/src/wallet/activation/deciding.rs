//! Proposer and acceptor of the decision which prepared session becomes the epoch, or that none of a slot does.
//!
//! An acceptor votes for what the signed promises of others allow, so a proposer that lies has nothing decided that
//! they do not ([`consensus`](crate::consensus)). Nor can it hold a decision up: rounds, which begin at 1 and go up by one,
//! are believed no higher than the clock in milliseconds, so that there are always higher ones that everybody takes part in; and an acceptor promises each
//! member's next ballot only after a while that grows with their number, so that the others' are left alone.

use super::{Activation, After, Message, Parts, own_committee, send, tell};
use crate::{
    NodeId, Time,
    consensus::{Action, Ballot, Decree as _, Promise, Proposer, VoteAnswer, Voted},
    context::{After as ContextAfter, Context},
    limits,
    report::Report,
    store::{Batch, Keyspace},
    wallet::{AcceptorRecord, Certificate, Choice, Closing, Grounds, Promised, Slot, Value, Vote, record::Stored as _},
};

/// A decision that this node drives.
pub(super) struct Deciding {
    slot: Slot,
    proposer: Proposer<Choice>,
    votes: Vec<Vote>,
    /// For acceptors that have prepared nothing.
    request: Option<Vec<u8>>,
    /// Whether votes are asked for in this ballot that are not to be waited for.
    over: bool,
    /// When to say again what is not answered, or to try a higher ballot.
    pub say_at: Time,
}

/// The ballots of one member that this node has promised about a wallet.
pub(super) struct Tried {
    highest: Ballot,
    /// How many they were, and when the last one came.
    number: u32,
    at: Time,
}

impl Tried {
    /// Whether another ballot of the member is promised now. Otherwise it is not answered: it comes again.
    fn admits(&mut self, now: Time, ballot: Ballot) -> bool {
        if ballot <= self.highest {
            return true;
        }
        let wait = limits::BALLOT_WAIT_MIN * (1 << self.number.min(16));
        if now < self.at.after(wait.min(limits::BALLOT_WAIT_MAX)) {
            return false;
        }
        *self = Self { highest: ballot, number: self.number.saturating_add(1), at: now };
        true
    }
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
            let deciding = Deciding { slot, proposer, votes: Vec::new(), request, over: false, say_at };
            self.deciding.insert(wallet.to_owned(), deciding);
        }
        self.say(ctx, wallet);
    }

    /// From now on proposes to close the slot, where this node drives a decision already: a session that lacks promises
    /// or votes of members that are gone must not keep it from that.
    pub(super) fn propose_close(&mut self, ctx: &mut Context, wallet: &str, request: &[u8]) -> bool {
        let Some(deciding) = self.deciding.get_mut(wallet) else { return false };
        if *deciding.proposer.own() != Choice::Close {
            deciding.request = Some(request.to_vec());
            let waits_for_votes = |proposer: &Proposer<_>| matches!(proposer.current(), Some(Action::Vote { .. }));
            deciding.over = waits_for_votes(&deciding.proposer);
            deciding.proposer.propose(Choice::Close);
            if !deciding.over && waits_for_votes(&deciding.proposer) {
                self.say(ctx, wallet);
            }
        }
        true
    }

    pub(super) fn drive_deciding(&mut self, ctx: &mut Context) {
        let due: Vec<String> =
            self.deciding.iter().filter(|(_, d)| d.say_at <= ctx.now.time).map(|(wallet, _)| wallet.clone()).collect();
        for wallet in due {
            if let Some(deciding) = self.deciding.get_mut(&wallet)
                && (deciding.proposer.is_beaten() || deciding.over)
            {
                deciding.over = false;
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
            Some(Action::Vote { ballot, value, grounds }) => {
                Message::VoteFor { slot: deciding.slot.clone(), ballot, choice: value, grounds }
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
        if let Err(promised) = acceptor.acceptor.prepare(ballot) {
            send(ctx, from, Message::Rejected { slot, ballot, promised });
            return;
        }
        let first = Tried { highest: ballot, number: 0, at: ctx.now.time };
        let tried = self.tried.entry(slot.wallet.clone()).or_default().entry(from).or_insert(first);
        if !tried.admits(ctx.now.time, ballot) {
            return;
        }
        let statement = Promised::sign(slot, ballot, acceptor.acceptor.votes(), &ctx.identity);
        let voted = acceptor.acceptor.voted().map(|voted| (voted.value.clone(), voted.grounds.clone()));
        self.keep(ctx, acceptor, After::Promised(Box::new(statement), voted, (from, incarnation)));
    }

    /// As an acceptor: check everything, vote, durably, then say so.
    pub(super) fn on_vote_for(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        (slot, ballot): (Slot, Ballot),
        choice: Choice,
        grounds: Grounds,
    ) {
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        let Some(mut acceptor) = self.may_accept(ctx, parts, from, &slot, ballot, None) else { return };
        let session = match &choice {
            Choice::Session(value) => self.check_session(ctx, &acceptor, value),
            Choice::Close => Ok(()),
        };
        if let Err(problem) = session.and_then(|()| check_grounds(ctx, &slot, &grounds)) {
            return refuse_vote(ctx, from, &slot, &problem);
        }
        let hash = choice.hash(&slot);
        match acceptor.acceptor.vote(&own_committee(ctx), ballot, choice, grounds) {
            VoteAnswer::Unfounded => refuse_vote(ctx, from, &slot, "the promises that come with it do not allow it"),
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
        if !self.is_absent(ctx, parts, from, wallet) {
            return None;
        }
        if self.sits_out.contains(wallet) || !self.is_open_slot(ctx, from, wallet, slot.number, request) {
            return None;
        }
        // Nobody can make this node keep state for wallets that no client asked for.
        if !self.keeps_of(wallet) && !request.is_some_and(|request| Self::is_asked_for(ctx, wallet, request)) {
            return None;
        }
        let acceptor = || AcceptorRecord::new(wallet, slot.epoch);
        (ballot.round <= ctx.highest_by_clock()).then(|| self.acceptors.get(wallet).cloned().unwrap_or_else(acceptor))
    }

    fn keep(&mut self, ctx: &mut Context, acceptor: AcceptorRecord, after: After) {
        let mut batch = Batch::default();
        batch.put(Keyspace::Decisions, acceptor.key(), acceptor.encode());
        self.acceptors.insert(acceptor.slot.wallet.clone(), acceptor);
        ctx.persist(batch, ContextAfter::Wallet(after));
    }

    pub(super) fn on_promised(
        &mut self,
        ctx: &mut Context,
        from: NodeId,
        promised: Promised,
        voted: Option<(Choice, Grounds)>,
    ) {
        let Some(deciding) = self.deciding.get_mut(&promised.slot.wallet) else { return };
        let keys = |id| ctx.config.peer(id).map(|p| p.key);
        if promised.node != from || promised.slot != deciding.slot || promised.verify(&keys).is_err() {
            return;
        }
        let Promised { slot, ballot, votes, signature, .. } = promised;
        let possible = |choice: &Choice| match choice {
            Choice::Session(value) => {
                value.facts().wallet == slot.wallet
                    && value.facts().committee == own_committee(ctx)
                    && value.verify(None, &keys).is_ok()
            }
            Choice::Close => true,
        };
        let voted = match (votes.last, voted) {
            (None, None) => None,
            (Some((ballot, name)), Some((value, grounds)))
                if value.name() == name && possible(&value) && check_grounds(ctx, &slot, &grounds).is_ok() =>
            {
                Some(Voted { ballot, value, grounds })
            }
            _ => return,
        };
        let promise = Promise::Promised { voted, other: votes.other, proof: signature };
        if deciding.proposer.on_promise(from, ballot, promise).is_some() {
            self.say(ctx, &slot.wallet);
        }
    }

    pub(super) fn on_voted(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, vote: Vote) {
        let Some(deciding) = self.deciding.get_mut(&vote.wallet) else { return };
        let keys = |id| ctx.config.peer(id).map(|p| p.key);
        let expected = match deciding.proposer.current() {
            Some(Action::Vote { ballot, value, .. }) => {
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
        // Nobody that is honest has promised more.
        if *slot != deciding.slot || promised.round > ctx.highest_by_clock() {
            return;
        }
        let proposer = &mut deciding.proposer;
        let known = proposer.is_hopeless();
        proposer.on_promise(from, ballot, Promise::Rejected { promised });
        if proposer.is_hopeless() && !known {
            deciding.say_at = ctx.now.time.after(pause);
        }
    }
}

/// Whether all of these promises were made.
fn check_grounds(ctx: &Context, slot: &Slot, grounds: &Grounds) -> Result<(), String> {
    if !grounds.is_small() {
        return Err("more promises come with it than there can be".to_owned());
    }
    grounds.verify(slot, &|id| ctx.config.peer(id).map(|p| p.key)).map_err(|error| format!("a promise: {error}"))
}

fn refuse_vote(ctx: &mut Context, from: NodeId, slot: &Slot, problem: &str) {
    let what = format!("a call to vote on wallet {}: {problem}", slot.wallet);
    ctx.report(Report::Ignored { peer: ctx.name(from), what });
}
