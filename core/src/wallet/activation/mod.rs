//! Makes a new wallet's keys exist exactly once, or not at all.
//!
//! As a *member*, a node runs the session, stores its shares as prepared, and states so to all members. As an
//! *acceptor* it promises and votes, durably before it says so. Any member that holds everybody's statements may
//! *decide*: it runs the consensus on which prepared session becomes the epoch. Whoever gets a certificate stores it
//! and tells the others; whoever was away asks ([`Activation::on_wake`]) until it knows.
//!
//! A coordinator that gives its request up has the same consensus decide that none of the sessions so far becomes the
//! epoch ([`closing`]): either that is decided, or one of them is.

mod closing;
mod deciding;
mod member;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::{
    deciding::{Deciding, Tried},
    member::{Joining, Prepared as PreparedHere},
};
use super::{
    AcceptorRecord, Activated, Certificate, CertificateRecord, Choice, Closing, Grounds, PendingRecord, Prepared,
    Promised, Refused, SessionFacts, Slot, StoppedRecord, Vote,
    cache::{Lookup, Wallets},
    record::Stored as _,
};
use crate::{
    NodeId, Secret, Time, WallTime,
    committee::Committee,
    consensus::Ballot,
    context::{Context, Event},
    limits,
    link::Lane,
    message::Message as Envelope,
    node::Table,
    planted::{Bug, planted},
    protocol::{Curve, Outcome},
    report::Report,
    request::{answers::Attempt, signing::Decline},
    session::{Failure, Participant, SessionId, Sessions},
    store::Keyspace,
    tags,
};

/// What a coordinator asks all members to do. They repeat every check: it has no authority.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Proposal {
    /// The client's document, unchanged.
    pub request: Vec<u8>,
    /// No message of the session leaves anyone after this.
    pub deadline: WallTime,
    pub attempt: Attempt,
    /// In which slot the session may be decided.
    pub slot: u32,
    /// All members, in the order of the committee.
    pub participants: Vec<Participant>,
    /// Sixteen random bytes: no two proposals are the same.
    pub nonce: [u8; 16],
}

impl Proposal {
    /// The session that it proposes.
    pub fn session(&self) -> SessionId {
        SessionId(tags::SESSION_WALLET.hash(&postcard::to_stdvec(self).expect("plain data serialises")))
    }

    /// What the protocol is bound to: everything that the proposal lists, the protocol, and what is to become of it.
    pub fn execution_id(&self, suite: &str, facts: &SessionFacts) -> [u8; 32] {
        tags::EXECUTION_WALLET.hash(&postcard::to_stdvec(&(suite, facts, self)).expect("plain data serialises"))
    }

    /// What is fixed about the session before it runs.
    pub fn facts(&self, wallet: &str, request_digest: [u8; 32], committee: Committee) -> SessionFacts {
        SessionFacts {
            request_digest,
            wallet: wallet.to_owned(),
            curves: Curve::ALL.to_vec(),
            epoch: 0,
            previous_certificate: [0; 32],
            session: self.session(),
            committee,
        }
    }
}

/// Between members.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Coordinator to all members.
    Propose(Box<Proposal>),
    /// Member to coordinator.
    Answer { session: SessionId, answer: Answer },
    /// Member to members: my share is durable.
    Prepared(Box<Prepared>),
    /// Does anybody know this wallet? Asked at this time of the sender's own clock.
    Ask { wallet: String, at: Time },
    /// The sender did not when it was asked, at that time of the other's clock.
    Unknown { wallet: String, at: Time },
    /// A decision.
    Certificate(Box<Certificate>),
    /// A decision is durable at the sender.
    Activated(Box<Activated>),
    /// What became of this session of a slot? Carries the request, so that a refusal costs a valid one.
    Query { facts: Box<SessionFacts>, slot: u32, request: Vec<u8> },
    /// The sender has not prepared that session and never will.
    Refused(Box<Refused>),
    /// Proposer to acceptors. Carries the request where they may have prepared nothing.
    Prepare { slot: Slot, ballot: Ballot, request: Option<Vec<u8>> },
    /// Acceptor to proposer: a promise, with what it voted for last, and why it could.
    Promised(Box<Promised>, Option<(Choice, Grounds)>),
    /// Proposer to acceptors, with the promises that allow it.
    VoteFor { slot: Slot, ballot: Ballot, choice: Choice, grounds: Grounds },
    /// Acceptor to proposer.
    Voted(Box<Vote>),
    /// Acceptor to proposer: it promised a higher ballot.
    Rejected { slot: Slot, ballot: Ballot, promised: Ballot },
    /// A slot is closed.
    Closing(Box<Closing>),
    /// Which slot of this wallet was closed last?
    AskClosing { wallet: String },
    /// Coordinator to members: the request's deadline has passed. Give up what runs for it and say what is prepared.
    Close { wallet: String, request_digest: [u8; 32] },
    /// Member to coordinator: nothing more is prepared for the request here, and this is what was and may still win.
    Closed { wallet: String, request_digest: [u8; 32], prepared: Vec<SessionId> },
}

/// A member's answer to a proposal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It has started.
    Accepted,
    /// It does not take part.
    Declined(Decline),
}

/// What continues after a write.
#[derive(Debug)]
pub(crate) enum After {
    /// Shares are durable as prepared.
    Prepared(String, SessionId),
    /// A refusal is durable: everybody hears of it.
    Refused(Box<Refused>),
    /// Nobody waits for it.
    Nothing,
    /// A promise is durable.
    Promised(Box<Promised>, Option<(Choice, Grounds)>, Participant),
    /// A vote is durable.
    Voted(Box<Vote>, Participant),
    /// A certificate is durable.
    Certified(Box<Certificate>),
}

/// This node's part in making wallets exist.
#[derive(Default)]
pub(crate) struct Activation {
    /// Sessions that run here.
    joining: BTreeMap<SessionId, Joining>,
    /// Sessions that are prepared here and not known to be decided, by wallet.
    prepared: BTreeMap<String, BTreeMap<SessionId, PreparedHere>>,
    /// Sessions that this node refused durably, by wallet.
    refused: BTreeMap<String, BTreeMap<SessionId, Refused>>,
    /// Acceptor state of undecided wallets.
    acceptors: BTreeMap<String, AcceptorRecord>,
    /// Decisions that this node drives.
    deciding: BTreeMap<String, Deciding>,
    /// The highest round this incarnation used per wallet that is undecided.
    rounds: BTreeMap<String, u64>,
    /// Whose ballots this node has promised as an acceptor, by wallet.
    tried: BTreeMap<String, BTreeMap<NodeId, Tried>>,
    /// Proposals that wait for the wallet's records.
    incoming: BTreeMap<SessionId, member::Incoming>,
    /// Decisions in which an earlier life of this node, since rolled back, may have promised or voted.
    sits_out: std::collections::BTreeSet<String>,
    /// Wallets that do not exist and that valid requests have named lately. Of these, and of those of which something is
    /// kept, closings are believed.
    asked_for: std::collections::BTreeSet<String>,
    /// Certificates that are being stored, by wallet.
    storing: BTreeMap<String, CertificateRecord>,
    /// Decisions of this node's own that wait for the wallet's records.
    decided: BTreeMap<String, Certificate>,
    /// The same, where a slot was closed.
    closed: BTreeMap<String, Closing>,
    /// Who holds which certificate durably, by its hash, for coordinators that wait for it. Others may be faster than
    /// this node, so what they say is kept before the certificate is known here.
    activated: BTreeMap<[u8; 32], Activations>,
}

/// The parts of the node that activation needs.
pub(crate) struct Parts<'a> {
    pub sessions: &'a mut Sessions,
    pub wallets: &'a mut Wallets,
}

impl Activation {
    /// Takes back what was prepared, refused and promised before this start.
    pub fn restore(&mut self, ctx: &mut Context, records: &[(Keyspace, Vec<u8>, Secret)]) {
        for (keyspace, key, value) in records {
            match keyspace {
                Keyspace::Pending => {
                    // The store authenticates what it returns: an unreadable record is ours and wrong.
                    let record = PendingRecord::decode(value.expose())
                        .unwrap_or_else(|error| panic!("pending record {}: {error}", hex::encode(key)));
                    match record {
                        PendingRecord::Prepared(record) => self.restore_prepared(ctx, *record),
                        PendingRecord::Refused(record) => {
                            let refused = record.statement;
                            self.refused.entry(refused.wallet.clone()).or_default().insert(refused.session, refused);
                        }
                    }
                }
                Keyspace::Decisions if planted(Bug::AcceptorForgets) => {}
                Keyspace::Decisions => {
                    let record = AcceptorRecord::decode(value.expose())
                        .unwrap_or_else(|error| panic!("acceptor record {}: {error}", hex::encode(key)));
                    self.acceptors.insert(record.slot.wallet.clone(), record);
                }
                _ => {}
            }
        }
    }

    pub fn on_message(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, message: Message) {
        match message {
            Message::Propose(proposal) => self.on_proposal(ctx, parts, from, *proposal),
            Message::Prepared(statement) => self.on_prepared(ctx, from, *statement),
            Message::Ask { wallet, at } => self.on_ask(ctx, parts, from, wallet, at),
            Message::Unknown { wallet, at } => parts.wallets.on_unknown(ctx, from, &wallet, at),
            Message::Certificate(certificate) => self.adopt(ctx, parts, Some(from), *certificate),
            Message::Activated(activated) => self.on_activated(ctx, from, &activated),
            Message::Query { facts, slot, request } => self.on_query(ctx, parts, from, (&facts, slot), &request),
            Message::Refused(refused) => self.on_refused(ctx, parts, *refused),
            Message::Prepare { slot, ballot, request } => {
                self.on_prepare(ctx, parts, from, slot, ballot, request.as_deref());
            }
            Message::Promised(promised, voted) => self.on_promised(ctx, from, *promised, voted),
            Message::VoteFor { slot, ballot, choice, grounds } => {
                self.on_vote_for(ctx, parts, from, (slot, ballot), choice, grounds);
            }
            Message::Voted(vote) => self.on_voted(ctx, parts, from, *vote),
            Message::Rejected { slot, ballot, promised } => self.on_rejected(ctx, from, &slot, ballot, promised),
            Message::Closing(closing) => self.on_closing(ctx, parts, Some(from), *closing),
            Message::AskClosing { wallet } => self.say_closing(ctx, from, &wallet),
            Message::Close { wallet, request_digest } => self.on_close(ctx, parts, from, &wallet, request_digest),
            // For the coordinator; routed there by the node.
            Message::Answer { .. } | Message::Closed { .. } => {}
        }
    }

    pub fn on_persisted(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, after: After) {
        match after {
            After::Prepared(wallet, session) => self.on_share_durable(ctx, &wallet, session),
            After::Refused(refused) => tell(ctx, &Message::Refused(refused)),
            After::Nothing => {}
            After::Promised(promised, voted, to) => reply(ctx, to, Message::Promised(promised, voted)),
            After::Voted(vote, to) => reply(ctx, to, Message::Voted(vote)),
            After::Certified(certificate) => self.on_certified(ctx, parts, *certificate),
        }
    }

    pub fn on_session_ended(&mut self, ctx: &mut Context, session: SessionId, result: Result<Outcome, Failure>) {
        let Some(joining) = self.joining.remove(&session) else { return };
        if let Ok(Outcome::Keys(shares)) = result {
            self.prepare(ctx, session, joining, shares);
        }
    }

    pub fn on_wallet_loaded(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        if let Some(certificate) = self.decided.remove(wallet) {
            self.adopt(ctx, parts, None, certificate);
        }
        if let Some(closing) = self.closed.remove(wallet) {
            self.on_closing(ctx, parts, None, closing);
        }
        self.drive_incoming(ctx, parts, wallet);
    }

    pub fn on_link_up(&mut self, ctx: &mut Context) {
        // Whoever came back may know, or need to know, what became of something.
        let now = ctx.now.time;
        for prepared in self.prepared.values_mut().flat_map(BTreeMap::values_mut) {
            prepared.ask_at = now;
        }
        for deciding in self.deciding.values_mut() {
            deciding.say_at = now;
        }
    }

    pub fn on_wake(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        self.recover(ctx, parts);
        self.drive_deciding(ctx);
        let now = ctx.now.time;
        self.incoming.retain(|_, i| now < i.since.after(limits::EARLY_WAIT));
    }

    pub fn wake_at(&self) -> Option<Time> {
        let recover = self.prepared.values().flat_map(BTreeMap::values).filter_map(PreparedHere::wakes_at);
        let deciding = self.deciding.values().map(|d| d.say_at);
        let incoming = self.incoming.values().map(|i| i.since.after(limits::EARLY_WAIT));
        recover.chain(deciding).chain(incoming).min()
    }

    /// Whether a session for this wallet is prepared here and may still be decided.
    pub fn is_undecided(&self, wallet: &str) -> bool {
        self.prepared.get(wallet).is_some_and(|sessions| sessions.values().any(|p| !p.is_lost()))
            || self.deciding.contains_key(wallet)
    }

    /// Whether a session for this wallet runs here, or may still be decided.
    fn is_about_to_exist(&self, wallet: &str) -> bool {
        self.is_undecided(wallet) || self.joining.values().any(|joining| joining.facts.wallet == wallet)
    }

    /// What this node's store has of a wallet. A certificate that is being written is as good as one that is being read:
    /// what led to it is forgotten already.
    fn lookup(&self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) -> Lookup {
        if self.storing.contains_key(wallet) { Lookup::Loading } else { parts.wallets.lookup(ctx, wallet) }
    }

    /// Whether this node's store has no such wallet. One that it has is shown to whoever speaks as if there were none; and
    /// while the record is being read or written nothing is said: the peer asks again.
    fn is_absent(&self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, wallet: &str) -> bool {
        match self.lookup(ctx, parts, wallet) {
            Lookup::Loading => false,
            Lookup::Found(found) => {
                send(ctx, from, Message::Certificate(Box::new(found.certificate.clone())));
                false
            }
            Lookup::Absent => true,
        }
    }

    /// How many nodes have stored the certificate with this hash, as far as this node knows.
    pub fn activations(&self, certificate: &[u8; 32]) -> usize {
        self.activated.get(certificate).map_or(0, |activations| activations.nodes.len())
    }

    pub fn tables(&self) -> Vec<Table> {
        vec![
            ("key generations that run", self.joining.len(), Some(limits::SESSIONS_MAX)),
            ("wallets with prepared sessions", self.prepared.len(), None),
            ("wallets with refused sessions", self.refused.len(), None),
            ("acceptors", self.acceptors.len(), None),
            ("decisions under way", self.deciding.len(), None),
            ("wallets whose rounds are remembered", self.rounds.len(), None),
            ("wallets with promised ballots", self.tried.len(), None),
            ("key generation proposals that wait", self.incoming.len(), Some(limits::REQUESTS_MAX)),
            ("decisions sat out", self.sits_out.len(), None),
            ("certificates being stored", self.storing.len() + self.decided.len(), None),
            ("closings that wait for records", self.closed.len(), None),
            ("wallets that were asked for", self.asked_for.len(), Some(limits::REQUESTS_MAX)),
            ("activations", self.activated.len(), Some(limits::REQUESTS_MAX)),
        ]
    }

    /// Takes no part in the decision about a wallet, for ever. Whether that is new.
    pub fn sit_out(&mut self, wallet: &str) -> bool {
        self.sits_out.insert(wallet.to_owned())
    }

    /// Wallets whose creation is prepared and undecided.
    pub fn undecided(&self) -> Vec<String> {
        self.prepared
            .iter()
            .filter(|(_, sessions)| sessions.values().any(|p| !p.is_lost()))
            .map(|(wallet, _)| wallet.clone())
            .collect()
    }

    /// Wallets about whose creation anything was said here that a node which was rolled back may have answered, and
    /// that do not exist.
    pub fn open_decisions(&self) -> std::collections::BTreeSet<&str> {
        self.prepared.keys().chain(self.acceptors.keys()).map(String::as_str).collect()
    }

    fn on_ask(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: NodeId, wallet: String, at: Time) {
        if wallet.len() > limits::ID_BYTES_MAX {
            return;
        }
        // A wallet that is about to exist is not unknown; and a node that lacks records says nothing of absence.
        let about_to_exist = self.is_about_to_exist(&wallet) && !planted(Bug::AbsenceTooSoon);
        if self.is_absent(ctx, parts, from, &wallet) && !about_to_exist && ctx.unfit.is_empty() {
            send(ctx, from, Message::Unknown { wallet, at });
        }
    }

    /// Verifies a certificate and makes it durable.
    pub fn adopt(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, from: Option<NodeId>, certificate: Certificate) {
        let facts = certificate.facts().clone();
        let by = from.map_or_else(String::new, |from| ctx.name(from));
        // What is held was verified when it came; to verify it again costs two signatures for each member.
        if parts.wallets.in_memory(&facts.wallet).is_some_and(|held| held.certificate_hash == certificate.hash()) {
            self.prepared.remove(&facts.wallet);
            return self.say_activated(ctx, from, &certificate);
        }
        // Later epochs come with resharing; a chain is then needed to verify them.
        let committee = own_committee(ctx);
        let verified = if facts.epoch != 0 || facts.committee != committee {
            Err("it is for another committee than the configured one".to_owned())
        } else {
            certificate.verify(None, &|id| ctx.config.peer(id).map(|p| p.key)).map_err(|e| e.to_string())
        };
        if let Err(error) = verified {
            ctx.report(Report::Ignored {
                peer: by,
                what: format!("a certificate of wallet {}: {error}", facts.wallet),
            });
            return;
        }
        let found = parts.wallets.lookup(ctx, &facts.wallet);
        let known = match &found {
            Lookup::Found(known) => Some((&known.certificate, &known.vote)),
            _ => self.storing.get(&facts.wallet).map(|record| (&record.certificate, &record.vote)),
        };
        if let Some((known, vote)) = known.filter(|(known, _)| known.hash() != certificate.hash()) {
            let record = StoppedRecord { known: known.clone(), other: certificate, vote: vote.clone() };
            return parts.wallets.stop(ctx, &record);
        }
        match found {
            Lookup::Found(_) => {
                self.prepared.remove(&facts.wallet);
                self.say_activated(ctx, from, &certificate);
            }
            // Whoever sent it is asked again, once it is known whether another one is held here.
            Lookup::Loading if from.is_some() => {}
            Lookup::Loading => drop(self.decided.insert(facts.wallet, certificate)),
            // It is durable soon.
            Lookup::Absent if self.storing.contains_key(&facts.wallet) => {}
            Lookup::Absent => {
                let mut batch = crate::store::Batch::default();
                let vote = self.acceptors.get(&facts.wallet).and_then(AcceptorRecord::cast_vote);
                let record = CertificateRecord { certificate: certificate.clone(), vote };
                Wallets::store(&mut batch, &record);
                let prepared = self.prepared.get(&facts.wallet).and_then(|sessions| sessions.get(&facts.session));
                if let Some(coordinator) = prepared.and_then(|prepared| prepared.coordinator) {
                    parts.sessions.succeeded(coordinator);
                }
                self.forget_decided(&mut batch, &facts);
                self.storing.insert(facts.wallet, record);
                ctx.persist(batch, crate::context::After::Wallet(After::Certified(Box::new(certificate))));
            }
        }
    }

    fn on_certified(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, certificate: Certificate) {
        let facts = certificate.facts().clone();
        parts.wallets.activated(&facts.wallet);
        self.storing.remove(&facts.wallet);
        self.deciding.remove(&facts.wallet);
        self.rounds.remove(&facts.wallet);
        self.tried.remove(&facts.wallet);
        self.asked_for.remove(&facts.wallet);
        self.closed.remove(&facts.wallet);
        let running: Vec<SessionId> =
            self.joining.iter().filter(|(_, j)| j.facts.wallet == facts.wallet).map(|(id, _)| *id).collect();
        for session in running {
            parts.sessions.cancel(ctx, session, "another session made the wallet");
        }
        ctx.report(Report::WalletActivated {
            wallet: facts.wallet.clone(),
            epoch: facts.epoch,
            members: ctx.names(facts.committee.members.iter().copied()),
        });
        // Whoever decided tells everybody; whoever was told answers. Telling everybody once more is cheap and reaches
        // those whom the decider could not reach.
        let activated = Activated::sign(certificate.hash(), &ctx.identity);
        tell(ctx, &Message::Activated(Box::new(activated)));
        self.note_activated(ctx.me, certificate.hash()).wallet = Some(facts.wallet.clone());
        self.drive_incoming(ctx, parts, &facts.wallet);
        ctx.event(Event::WalletActivated(facts.wallet));
    }

    fn say_activated(&mut self, ctx: &mut Context, to: Option<NodeId>, certificate: &Certificate) {
        if let Some(to) = to {
            let statement = Activated::sign(certificate.hash(), &ctx.identity);
            send(ctx, to, Message::Activated(Box::new(statement)));
        }
    }

    fn on_activated(&mut self, ctx: &mut Context, from: NodeId, activated: &Activated) {
        if activated.node != from || activated.verify(&|id| ctx.config.peer(id).map(|p| p.key)).is_err() {
            return;
        }
        if let Some(wallet) = self.note_activated(from, activated.certificate).wallet.clone() {
            ctx.event(Event::WalletActivated(wallet));
        }
    }

    fn note_activated(&mut self, node: NodeId, certificate: [u8; 32]) -> &mut Activations {
        if self.activated.len() >= limits::REQUESTS_MAX && !self.activated.contains_key(&certificate) {
            // Those that nothing here speaks for go first.
            let unknown = self.activated.iter().find(|(_, a)| a.wallet.is_none()).map(|(hash, _)| *hash);
            if let Some(any) = unknown.or_else(|| self.activated.keys().next().copied()) {
                self.activated.remove(&any);
            }
        }
        let activations = self.activated.entry(certificate).or_default();
        activations.nodes.insert(node);
        activations
    }
}

/// Who holds one certificate durably.
#[derive(Default)]
struct Activations {
    /// The wallet, once this node holds it too.
    wallet: Option<String>,
    nodes: std::collections::BTreeSet<NodeId>,
}

/// The committee of every new wallet: the configured nodes and threshold.
pub(crate) fn own_committee(ctx: &Context) -> Committee {
    Committee { members: ctx.config.peers.iter().map(|p| p.id).collect(), threshold: ctx.config.threshold }
}

pub(crate) fn send(ctx: &mut Context, to: NodeId, message: Message) {
    ctx.send(to, Lane::Control, Envelope::Wallet(message));
}

/// Tells everybody else that answers.
fn tell(ctx: &mut Context, message: &Message) {
    for node in ctx.reachable() {
        if node != ctx.me {
            send(ctx, node, message.clone());
        }
    }
}

/// Answers the incarnation that asked.
fn reply(ctx: &mut Context, to: Participant, message: Message) {
    if ctx.incarnation_of(to.0) == Some(to.1) {
        send(ctx, to.0, message);
    }
}
