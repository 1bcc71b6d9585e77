//! Presignatures: signatures but for their last round, made while nothing else runs, for wallets whose clients lately
//! asked in the way that can use them.
//!
//! Invariant: no presignature signs twice. Two messages under one would uncover the key, so a presignature exists only in
//! the memory of the start of a node that made it, never in a record or a backup: whoever restarts or is restored has
//! none, and the others see another incarnation and drop theirs. It is a value that cannot be copied, and it
//! leaves this pool before the run begins that uses it, whatever becomes of that run. That run waits until a commit of
//! the node's own is durable, which the peers learn of with the partial signature: a process whose memory was put back
//! to before it is told so by the next handshake, and ends; and a node whose store turns out to have been rolled back
//! drops all that it holds.
//!
//! Each belongs to one leader, who proposed it and alone may use it as a coordinator. Participants check for themselves
//! that a proposal to make one is for a wallet and signers with whom that leader lately signed for a client.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::participant::check_participants;
use crate::{
    NodeId, Time,
    auxiliary::Auxiliary,
    context::Context,
    limits,
    link::Lane,
    message::{Message as Envelope, SessionMessage},
    node::{PresignatureStatus, Table},
    protocol::{Abort, Curve, Outcome, Party, Preimage, Presignature, Presigning, Priority, Run},
    request::admission::Admitted,
    session::{Failure, Owner, Participant, Plan, SessionId, Sessions},
    tags,
    wallet::cache::{self, Wallets},
};

/// Leader to participants: make a presignature.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub wallet: String,
    /// Hash of the certificate of the key epoch.
    pub certificate: [u8; 32],
    /// In the order of their positions in the session.
    pub participants: Vec<Participant>,
    /// Names of the auxiliary sets.
    pub auxiliary: Vec<[u8; 32]>,
    /// Earlier ones of the same signers that the leader still has: the participants need no others.
    pub kept: Vec<SessionId>,
    /// Sixteen random bytes: no two proposals are the same.
    pub nonce: [u8; 16],
}

impl Proposal {
    /// The session that it proposes, which then names the presignature.
    pub fn session(&self) -> SessionId {
        SessionId(tags::SESSION_PRESIGNING.hash(&postcard::to_stdvec(self).expect("plain data serialises")))
    }

    /// What the protocol is bound to: everything that the proposal lists, the suite, and the public key.
    pub fn execution_id(&self, suite: &str, public_key: &[u8]) -> [u8; 32] {
        let body = (suite, public_key, self);
        tags::EXECUTION_PRESIGNING.hash(&postcard::to_stdvec(&body).expect("plain data serialises"))
    }

    fn group(&self, leader: NodeId) -> Group {
        Group { wallet: self.wallet.clone(), signers: nodes(&self.participants), leader }
    }
}

/// Who signs together for whom, in which order, and which of them proposes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    wallet: String,
    signers: Vec<NodeId>,
    leader: NodeId,
}

/// A session that makes a presignature, and what came of it.
struct Held {
    proposal: Proposal,
    group: Group,
    state: State,
}

enum State {
    Making,
    /// Since then.
    Ready(Box<dyn Presignature>, Time),
    /// This leader has promised it to an attempt, at that time.
    Promised(Box<dyn Presignature>, Time),
}

/// What a group's clients ask for.
struct Asked {
    /// When last.
    at: Time,
    /// Presignatures that may still be begun until they ask again: so nobody makes others compute without end.
    allowed: usize,
}

/// This node's presignatures, and those that it helps to make.
#[derive(Default)]
pub(crate) struct Presignatures {
    held: BTreeMap<SessionId, Held>,
    /// Who lately signed for a request that could have used a presignature.
    asked: BTreeMap<Group, Asked>,
    /// How many have been taken out to sign with.
    used: u64,
    next_try: Time,
}

/// The parts of the node that this one needs.
pub(crate) struct Parts<'a> {
    pub sessions: &'a mut Sessions,
    pub wallets: &'a mut Wallets,
    pub auxiliary: &'a Auxiliary,
}

/// A presignature that a coordinator may name in a proposal, with the participants and auxiliary sets that it is of.
#[derive(Debug)]
pub(crate) struct Choice {
    pub id: SessionId,
    pub participants: Vec<NodeId>,
    pub auxiliary: Vec<[u8; 32]>,
}

/// A presignature that was taken out, and what it is to sign.
pub(crate) struct Taken {
    presignature: Box<dyn Presignature>,
    preimage: Preimage,
}

impl Taken {
    /// Starts the run that uses it.
    pub fn sign(self, run: Run) -> Result<Box<dyn Party>, Abort> {
        self.presignature.sign(run, &self.preimage)
    }
}

/// What a presignature would sign for a request, if one may: it brings the whole message and says how it is hashed, and
/// it is for the wallet's own key. Bare digests and child keys, both chosen after the presignature, would let a client
/// make signatures that nobody approved.
fn preimage(request: &Admitted) -> Option<Preimage> {
    let sign = request.signing();
    let hash = sign.message_hash().ok().flatten()?;
    let own_key = request.curve() == Curve::Secp256k1 && sign.derivation_path.is_empty();
    own_key.then(|| Preimage { hash, message: sign.message().to_vec() })
}

impl Presignatures {
    pub fn tables(&self) -> [Table; 2] {
        [
            ("presignatures", self.held.len(), Some(limits::PRESIGNATURES_MAX)),
            ("signers who asked for presignatures", self.asked.len(), Some(limits::PRESIGNATURE_GROUPS_MAX)),
        ]
    }

    pub fn status(&self, ctx: &Context) -> PresignatureStatus {
        let making = self.held.values().filter(|held| matches!(held.state, State::Making)).count();
        let wanted = if Self::is_on(ctx) { ctx.config.presignatures } else { 0 };
        let own = self.asked.iter().filter(|(group, asked)| group.leader == ctx.me && asked.allowed > 0);
        let missing = own.map(|(group, _)| wanted.saturating_sub(self.count(group))).sum();
        PresignatureStatus { wanted, missing, making, ready: self.held.len() - making, used: self.used }
    }

    /// These signers have signed what a presignature could have signed: some for the next requests are worth while. It
    /// takes a signature, not just an attempt, or a coordinator with one request could have as many made as it likes.
    pub fn on_signed(&mut self, ctx: &Context, request: &Admitted, signers: &[NodeId], leader: NodeId) {
        let group = Group { wallet: request.wallet().to_owned(), signers: signers.to_vec(), leader };
        if !Self::is_on(ctx) || preimage(request).is_none() || !group.signers.contains(&leader) {
            return;
        }
        if !self.asked.contains_key(&group)
            && self.asked.len() >= limits::PRESIGNATURE_GROUPS_MAX
            && let Some(oldest) = self.asked.iter().min_by_key(|(_, asked)| asked.at).map(|(group, _)| group.clone())
        {
            self.asked.remove(&oldest);
        }
        let allowed = 2 * ctx.config.presignatures;
        self.asked.insert(group, Asked { at: ctx.now.time, allowed });
    }

    /// A presignature for an attempt of this coordinator. It is promised to that attempt: no other gets it.
    pub fn choose(
        &mut self,
        ctx: &Context,
        request: &Admitted,
        certificate: [u8; 32],
        usable: impl Fn(&NodeId) -> bool,
    ) -> Option<Choice> {
        preimage(request)?;
        self.forget_old(ctx);
        let id = self.held.iter().find_map(|(id, held)| {
            let fits = matches!(held.state, State::Ready(..))
                && held.group.leader == ctx.me
                && held.group.wallet == request.wallet()
                && held.proposal.certificate == certificate
                && held.proposal.participants.iter().all(|(node, incarnation)| {
                    ctx.incarnation_of(*node) == Some(*incarnation) && (*node == ctx.me || usable(node))
                });
            fits.then_some(*id)
        })?;
        let Held { proposal, group, state } = self.held.remove(&id)?;
        let State::Ready(presignature, _) = state else { return None };
        let choice = Choice { id, participants: group.signers.clone(), auxiliary: proposal.auxiliary.clone() };
        self.held.insert(id, Held { proposal, group, state: State::Promised(presignature, ctx.now.time) });
        Some(choice)
    }

    /// Takes a presignature out, for the one run that uses it. `None`: this node does not hold it, or it is of other
    /// signers, of another epoch, or not this coordinator's.
    pub fn take(
        &mut self,
        ctx: &Context,
        id: SessionId,
        request: &Admitted,
        (coordinator, certificate, participants): (NodeId, [u8; 32], &[Participant]),
    ) -> Option<Taken> {
        self.forget_old(ctx);
        let preimage = preimage(request)?;
        let held = self.held.get(&id)?;
        let fits = held.group.leader == coordinator
            && held.group.wallet == request.wallet()
            && held.proposal.certificate == certificate
            && held.proposal.participants == participants;
        if !fits || matches!(held.state, State::Making) {
            return None;
        }
        self.used += 1;
        match self.held.remove(&id)?.state {
            State::Ready(presignature, _) | State::Promised(presignature, _) => Some(Taken { presignature, preimage }),
            State::Making => None,
        }
    }

    /// What this node's store had written is lost, so its memory may be older than what others have seen: nothing in it
    /// may sign. Runs that would make more go on without a place for what comes of them.
    pub fn on_rolled_back(&mut self) {
        self.held.clear();
    }

    /// Drops what cannot or must not be used any more: too old, or of a start of a node that is over.
    fn forget_old(&mut self, ctx: &Context) {
        let now = ctx.now.time;
        self.asked.retain(|_, asked| now < asked.at.after(limits::PRESIGNATURES_WANTED));
        self.held.retain(|_, held| {
            let over =
                held.proposal.participants.iter().any(|(node, incarnation)| {
                    ctx.incarnation_of(*node).is_some_and(|current| current != *incarnation)
                });
            !over && held.expires_at().is_none_or(|at| now < at)
        });
    }

    fn is_on(ctx: &Context) -> bool {
        ctx.config.presignatures > 0 && ctx.suites.secp256k1.presigning().is_some()
    }

    /// Proposes to make the next one that is missing, if nothing more urgent is to be done.
    pub fn drive(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        if !Self::is_on(ctx) {
            return;
        }
        self.forget_old(ctx);
        let busy = parts.sessions.run_for_clients() || self.held.values().any(|held| held.is_made_by(ctx.me));
        if busy || ctx.now.time < self.next_try || !ctx.unfit.is_empty() {
            return;
        }
        let Some(group) = self.lacking(ctx) else { return };
        self.next_try = ctx.now.time.after(limits::RETRY_MAX);
        let cache::Lookup::Found(wallet) = parts.wallets.lookup(ctx, &group.wallet) else { return };
        let participants: Option<Vec<Participant>> =
            group.signers.iter().map(|node| Some((*node, ctx.incarnation_of(*node)?))).collect();
        let chosen = parts.auxiliary.choose(ctx, &group.signers, group.signers.len());
        let (Some(participants), Some((auxiliary, _))) = (participants, chosen) else { return };
        let (certificate, nonce) = (wallet.certificate_hash, ctx.random_bytes());
        let kept = self.held.iter().filter(|(_, held)| held.group == group).map(|(id, _)| *id).collect();
        let proposal = Proposal { wallet: group.wallet, certificate, participants, auxiliary, kept, nonce };
        // What this node would refuse itself nobody is asked to begin.
        if self.plan(ctx, parts, ctx.me, &proposal).is_err() {
            return;
        }
        for node in group.signers {
            ctx.send(node, Lane::Bulk, Envelope::Presigning(proposal.clone()));
        }
    }

    /// The signers that asked last of all those for whom this leader has too few.
    fn lacking(&self, ctx: &Context) -> Option<Group> {
        self.asked
            .iter()
            .filter(|(group, asked)| {
                group.leader == ctx.me && asked.allowed > 0 && self.count(group) < ctx.config.presignatures
            })
            .filter(|(group, _)| self.of_wallet(&group.wallet) < limits::PRESIGNATURES_PER_WALLET_MAX)
            .filter(|(group, _)| group.signers.iter().all(|node| ctx.is_up(*node) && !ctx.is_blamed(*node)))
            .max_by_key(|(_, asked)| asked.at)
            .map(|(group, _)| group.clone())
    }

    fn count(&self, group: &Group) -> usize {
        let counts = |held: &&Held| held.group == *group && !matches!(held.state, State::Promised(..));
        self.held.values().filter(counts).count()
    }

    /// Presignatures under a wallet's key, whoever their signers are.
    fn of_wallet(&self, wallet: &str) -> usize {
        self.held.values().filter(|held| held.group.wallet == wallet).count()
    }

    pub fn on_proposal(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, proposal: Proposal) {
        self.forget_old(ctx);
        let session = proposal.session();
        match self.plan(ctx, parts, from, &proposal) {
            Ok(plan) => {
                let group = proposal.group(from);
                if let Some(asked) = self.asked.get_mut(&group) {
                    asked.allowed = asked.allowed.saturating_sub(1);
                }
                self.held.retain(|id, held| held.group != group || proposal.kept.contains(id));
                self.held.insert(session, Held { proposal, group, state: State::Making });
                parts.sessions.start(ctx, plan);
            }
            Err(reason) => {
                ctx.send(from, Lane::Bulk, Envelope::Session(SessionMessage::Abort { session, reason }));
            }
        }
    }

    /// Checks a proposal as if nobody had.
    fn plan(
        &self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        proposal: &Proposal,
    ) -> Result<Plan, String> {
        let session = proposal.session();
        let suite = ctx.suites.secp256k1.clone();
        let group = proposal.group(from);
        if !ctx.unfit.is_empty() {
            return Err("its store is damaged or was rolled back".to_owned());
        }
        check_participants(ctx, &proposal.participants).map_err(|decline| decline.to_string())?;
        if !group.signers.contains(&from) {
            return Err("whoever proposes a presignature is one of its signers".to_owned());
        }
        if proposal.kept.len() > limits::PRESIGNATURES_PER_WALLET_MAX {
            return Err("more presignatures of one wallet are kept than anybody may hold".to_owned());
        }
        // Off, or no request that this node took part in signing asked for it.
        if !Self::is_on(ctx) || self.asked.get(&group).is_none_or(|asked| asked.allowed == 0) {
            return Err(
                "no client of this wallet lately asked these signers in a way that uses presignatures".to_owned()
            );
        }
        let kept = self.held.iter().filter(|(id, held)| held.group == group && proposal.kept.contains(id)).count();
        let others = self.held.values().filter(|held| held.group != group && held.group.wallet == group.wallet).count();
        if kept >= 2 * ctx.config.presignatures
            || kept + others >= limits::PRESIGNATURES_PER_WALLET_MAX
            || self.held.len() >= limits::PRESIGNATURES_MAX
        {
            return Err("it holds enough presignatures".to_owned());
        }
        if !parts.sessions.admits(ctx, from) || !parts.sessions.has_room() || parts.sessions.knows(session) {
            return Err("it has no room for another session".to_owned());
        }
        let cache::Lookup::Found(wallet) = parts.wallets.lookup(ctx, &proposal.wallet) else {
            return Err("it does not have the wallet at hand".to_owned());
        };
        if wallet.certificate_hash != proposal.certificate || wallet.frozen {
            return Err("it knows another epoch of the wallet".to_owned());
        }
        let committee = wallet.committee();
        let signers: Option<Vec<u16>> = group.signers.iter().map(|node| committee.position(*node)).collect();
        let signers = signers.filter(|signers| signers.len() == usize::from(committee.threshold));
        let signers = signers.ok_or("the proposed signers are not as many members as sign together")?;
        let key = wallet.share(Curve::Secp256k1).ok_or("its share of the wallet is not in its store")?;
        let view = parts.auxiliary.view(ctx, &proposal.auxiliary, &group.signers)?;
        let Some(presigning) = suite.presigning() else { return Err("its protocol makes no presignatures".to_owned()) };
        let pace = presigning.pace(committee.threshold);
        let execution_id = proposal.execution_id(suite.name(), &key.public_key);
        let starter = suite.clone();
        Ok(Plan {
            id: session,
            owner: Owner::Presigning,
            protocol: "presign secp256k1".to_owned(),
            wallet: proposal.wallet.clone(),
            attempt: 0,
            coordinator: from,
            participants: proposal.participants.clone(),
            execution_id,
            pace,
            deadline: None,
            pairs: view.pairs,
            priority: Priority::Presigning,
            lane: Lane::Bulk,
            start: Box::new(move |run| match starter.presigning() {
                Some(presigning) => presigning.start(run, Presigning { key, signers, auxiliary: view.views }),
                None => Err(Abort::new("the protocol makes no presignatures")),
            }),
        })
    }

    pub fn on_session_ended(&mut self, ctx: &mut Context, session: SessionId, result: Result<Outcome, Failure>) {
        let Some(held) = self.held.get_mut(&session) else { return };
        match result {
            Ok(Outcome::Presignature(presignature)) => {
                held.state = State::Ready(presignature, ctx.now.time);
                if held.group.leader == ctx.me {
                    self.next_try = ctx.now.time;
                }
            }
            Ok(_) => drop(self.held.remove(&session)),
            Err(failure) => {
                // Nothing more is tried until these signers sign again: somebody may want none.
                if let Some(held) = self.held.remove(&session)
                    && let Some(asked) = self.asked.get_mut(&held.group).filter(|_| held.group.leader == ctx.me)
                {
                    asked.allowed = 0;
                }
                // Who is only silent is passed over when a client waits, not for the sake of work that can wait.
                failure.culprits.into_iter().for_each(|node| ctx.blame(node));
            }
        }
    }

    pub fn wake_at(&self, ctx: &Context) -> Option<Time> {
        if !Self::is_on(ctx) {
            return None;
        }
        let next = self.lacking(ctx).map(|_| self.next_try);
        self.held.values().filter_map(Held::expires_at).chain(next).filter(|at| *at > ctx.now.time).min()
    }
}

impl Held {
    fn expires_at(&self) -> Option<Time> {
        match &self.state {
            State::Making => None,
            State::Ready(_, since) => Some(since.after(limits::PRESIGNATURE_AGE_MAX)),
            // By then this node's own part has taken it, or never will.
            State::Promised(_, since) => Some(since.after(limits::EARLY_WAIT)),
        }
    }

    /// Whether this leader waits for it.
    fn is_made_by(&self, leader: NodeId) -> bool {
        self.group.leader == leader && matches!(self.state, State::Making)
    }
}

fn nodes(participants: &[Participant]) -> Vec<NodeId> {
    participants.iter().map(|(node, _)| *node).collect()
}
