//! How the sessions of a request that is given up are ended: each of them lacks a member's statement for ever, or becomes
//! the wallet, or the slot in which they could is closed by the consensus that would choose one of them.
//!
//! A session belongs to the slot that its proposal names. Whoever learns that a slot is closed forgets what it prepared
//! in it, and from then on joins, promises and votes in the next one only.

use super::{Activation, After, Joining, Message, Parts, own_committee, send};
use crate::{
    NodeId,
    context::{After as ContextAfter, Context, Event},
    input::RequestKind,
    limits,
    planted::{Bug, planted},
    report::Report,
    request::admission::admit,
    session::SessionId,
    store::{Batch, Keyspace},
    wallet::{
        AcceptorRecord, Choice, Closing, Slot, cache,
        record::{Stored as _, pending_key},
    },
};

impl Activation {
    /// The slot in which a wallet's creation is decided, as far as this node knows.
    pub fn slot(&self, wallet: &str) -> Slot {
        let first = || Slot { wallet: wallet.to_owned(), epoch: 0, number: 0 };
        self.acceptors.get(wallet).map_or_else(first, |acceptor| acceptor.slot.clone())
    }

    /// The same for a wallet that a valid request names.
    pub fn slot_asked_for(&mut self, wallet: &str) -> Slot {
        self.note_asked_for(wallet);
        self.slot(wallet)
    }

    fn note_asked_for(&mut self, wallet: &str) {
        if self.asked_for.len() >= limits::REQUESTS_MAX && !self.asked_for.contains(wallet) {
            self.asked_for.pop_first();
        }
        self.asked_for.insert(wallet.to_owned());
    }

    /// Has the nodes decide that no session so far becomes the wallet, or which one does. `request`: the client's
    /// document, for those that have prepared nothing.
    pub fn close(&mut self, ctx: &mut Context, wallet: &str, request: &[u8]) {
        if ctx.unfit.is_empty() && !self.sits_out.contains(wallet) && !self.propose_close(ctx, wallet, request) {
            self.decide(ctx, wallet, Choice::Close, Some(request.to_vec()));
        }
    }

    /// A coordinator gives its request up: nothing that is too late is prepared for it here, and it hears of the sessions
    /// that may be chosen all the same.
    pub(super) fn on_close(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        wallet: &str,
        request_digest: [u8; 32],
    ) {
        // A node that may have prepared or voted before its store was rolled back cannot say that nothing is open.
        if !ctx.unfit.is_empty() || wallet.len() > limits::ID_BYTES_MAX || self.sits_out.contains(wallet) {
            return;
        }
        if !self.is_absent(ctx, parts, from, wallet) {
            return;
        }
        let now = ctx.now.wall;
        let over =
            |j: &Joining| j.facts.request_digest == request_digest && (j.coordinator == from || j.deadline < now);
        self.cancel_joining(ctx, parts, wallet, over, "the request's deadline has passed");
        // Nothing needs to be written: what was cancelled is bound to this start, and proposals come too late by now.
        let prepared = self.open_for(wallet, request_digest);
        send(ctx, from, Message::Closed { wallet: wallet.to_owned(), request_digest, prepared });
    }

    /// Sessions of a request that are prepared here, or about to be: also those that seem to be lost, because whoever said
    /// so may have lied; and those that run for another coordinator, to which the queue has given another delivery.
    fn open_for(&self, wallet: &str, request_digest: [u8; 32]) -> Vec<SessionId> {
        let prepared = self.prepared.get(wallet).into_iter().flatten().map(|(session, p)| (session, p.facts()));
        let running = self.joining.iter().map(|(session, j)| (session, &j.facts)).filter(|(_, f)| f.wallet == wallet);
        let all = prepared.chain(running).filter(|(_, facts)| facts.request_digest == request_digest);
        all.map(|(session, _)| *session).collect()
    }

    /// Ends what runs here for a wallet, as far as it is `over`.
    fn cancel_joining(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        wallet: &str,
        over: impl Fn(&Joining) -> bool,
        reason: &str,
    ) {
        let running = self.joining.iter().filter(|(_, j)| j.facts.wallet == wallet && over(j));
        let running: Vec<SessionId> = running.map(|(id, _)| *id).collect();
        for session in running {
            // The event that follows would find nothing to prepare.
            self.joining.remove(&session);
            parts.sessions.cancel(ctx, session, reason);
        }
    }

    /// A slot is closed: everything of it is forgotten, except the shares, which stay until a higher epoch is held.
    pub(super) fn on_closing(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: Option<NodeId>,
        closing: Closing,
    ) {
        let wallet = closing.slot.wallet.clone();
        let lead = closing.slot.number.checked_sub(self.slot(&wallet).number);
        // So few votes close a slot that liars alone may have them: nobody keeps anything for wallets that no client asked
        // for, and slots are not used up.
        let known = from.is_none() || self.keeps_of(&wallet) || self.asked_for.contains(&wallet);
        if closing.slot.epoch != 0 || lead.is_none_or(|lead| lead > limits::SLOT_LEAD_MAX) || !known {
            return;
        }
        if let Err(error) = closing.verify(&own_committee(ctx), &|id| ctx.config.peer(id).map(|p| p.key)) {
            let what = format!("the closing of a slot of wallet {wallet}: {error}");
            let peer = from.map_or_else(String::new, |from| ctx.name(from));
            ctx.report(Report::Ignored { peer, what });
            return;
        }
        // A wallet that exists was decided in a later slot. If that is not known yet the closing will be shown again.
        match self.lookup(ctx, parts, &wallet) {
            cache::Lookup::Absent => {}
            // This node's own is shown to it by nobody.
            cache::Lookup::Loading if from.is_none() => return drop(self.closed.insert(wallet, closing)),
            cache::Lookup::Loading | cache::Lookup::Found(_) => return,
        }
        let by = ctx.name(closing.ballot.node);
        let reason = format!("the slot in which it could become the wallet is closed, as {by} has proposed");
        let promised = self.acceptors.get(&wallet).and_then(|acceptor| acceptor.acceptor.promised());
        let Some(acceptor) = AcceptorRecord::after(closing, promised) else { return };
        self.cancel_joining(ctx, parts, &wallet, |_| true, &reason);
        // How often members have tried is not forgotten: closing slots must not end their waiting.
        self.deciding.remove(&wallet);
        let mut batch = Batch::default();
        let ended = if planted(Bug::VotesForClosed) { None } else { self.prepared.remove(&wallet) };
        let prepared = ended.unwrap_or_default().into_keys();
        let refused = self.refused.remove(&wallet).unwrap_or_default().into_keys();
        for session in prepared.chain(refused) {
            batch.remove(Keyspace::Pending, pending_key(&wallet, 0, session));
        }
        batch.put(Keyspace::Decisions, acceptor.key(), acceptor.encode());
        self.acceptors.insert(wallet.clone(), acceptor);
        // Until that is durable this node may wake up in the closed slot again, in which nothing else can be decided.
        ctx.persist(batch, ContextAfter::Wallet(After::Nothing));
        ctx.event(Event::SlotClosed(wallet));
    }

    /// Shows why the slot before the open one is over.
    pub(super) fn say_closing(&self, ctx: &mut Context, to: NodeId, wallet: &str) {
        if let Some(closing) = self.acceptors.get(wallet).and_then(|acceptor| acceptor.closing.as_ref()) {
            send(ctx, to, Message::Closing(Box::new(closing.clone())));
        }
    }

    /// Whether a peer speaks of the slot that is open here. Otherwise whichever of the two is behind is told. `request`: the
    /// client's document that came along.
    pub(super) fn is_open_slot(
        &mut self,
        ctx: &mut Context,
        from: NodeId,
        wallet: &str,
        number: u32,
        request: Option<&[u8]>,
    ) -> bool {
        let here = self.slot(wallet).number;
        if number < here {
            self.say_closing(ctx, from, wallet);
        } else if number > here {
            if request.is_some_and(|request| Self::is_asked_for(ctx, wallet, request)) {
                self.note_asked_for(wallet);
            }
            send(ctx, from, Message::AskClosing { wallet: wallet.to_owned() });
        }
        number == here
    }

    /// Whether anything is kept of a wallet's creation.
    pub(super) fn keeps_of(&self, wallet: &str) -> bool {
        self.prepared.contains_key(wallet)
            || self.acceptors.contains_key(wallet)
            || self.joining.values().any(|joining| joining.facts.wallet == wallet)
    }

    /// Whether a client asked for this wallet: what is kept for one that does not exist costs a valid request.
    pub(super) fn is_asked_for(ctx: &Context, wallet: &str, request: &[u8]) -> bool {
        admit(ctx, RequestKind::Keygen, request).is_ok_and(|request| request.wallet() == wallet)
    }
}
