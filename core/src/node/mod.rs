//! The node: routes inputs to its parts and outputs to the shell. It decides nothing itself, except whether the node takes
//! requests.

mod boot;
mod catch_up;
pub(crate) mod records;
mod status;

use std::collections::{BTreeMap, BTreeSet};

pub use boot::facets;
pub(crate) use catch_up::{Cursor as CatchUpCursor, Message as CatchUpMessage};
pub use status::*;

use self::{catch_up::CatchUp, records::Starts};

use crate::{
    Config, Identity, Incarnation, Input, NodeId, Now, Output, Time,
    auxiliary::Auxiliary,
    context::{After, Context, Event, JobFor, Wanted},
    input::{Delivery, RequestKind},
    limits,
    link::{Lane, LinkConfig, LinkOutput, Links, Start},
    message::Message,
    planted::{Bug, planted},
    protocol::{Done, Suites},
    report::Report,
    request::{
        admission::admit,
        answers::{
            self,
            acceptor::{self, Acceptor},
        },
        deliveries::{Deliveries, error_answer, kind_name},
        keygen,
        ledger::Ledger,
        query::Queries,
        signing,
    },
    session::{Owner, Sessions},
    store::BootRecord,
    wallet::{
        activation::{self, Activation},
        cache::Wallets,
    },
};

/// A node of the cluster.
pub struct Node {
    ctx: Context,
    /// What links begin with once this node's incarnation is durable.
    link_config: Option<LinkConfig>,
    sessions: Sessions,
    wallets: Wallets,
    ledger: Ledger,
    auxiliary: Auxiliary,
    activation: Activation,
    deliveries: Deliveries,
    acceptor: Acceptor,
    queries: Queries,
    signing: signing::coordinator::Coordinator,
    signers: signing::participant::Participants,
    presignatures: signing::presignatures::Presignatures,
    keygen: keygen::Coordinator,
    catch_up: CatchUp,
    registered: Vec<NodeId>,
    /// Wallets of another system.
    elsewhere: BTreeSet<String>,
    intake: BTreeMap<RequestKind, bool>,
    draining: bool,
    ready: bool,
    waiting_for: String,
    resume: bool,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({:?})", self.ctx)
    }
}

impl Node {
    /// A node that has just started.
    ///
    /// `config` has been [`checked`](Config::checked), `identity` is that of `config.me`, `boot` is what the store held,
    /// and `seed` is 32 fresh random bytes. [`poll`](Self::poll) has something to do at once.
    ///
    /// # Panics
    /// If a record of the store cannot be read although the store authenticated it: the software is older than its data.
    #[must_use]
    pub fn new(config: Config, identity: Identity, suites: Suites, boot: BootRecord, seed: [u8; 32], now: Now) -> Self {
        let starts = Starts::read(&boot);
        let mut ctx = Context::new(config, identity, suites, starts.commits, seed, now);
        let mut auxiliary = Auxiliary::default();
        let mut activation = Activation::default();
        auxiliary.restore(&mut ctx, &boot.records);
        activation.restore(&mut ctx, &boot.records);
        let mut wallets = Wallets::default();
        wallets.restore(&mut ctx, &boot.records);
        let catch_up = CatchUp::restore(&mut ctx, &mut activation, &boot);
        // Whatever an earlier start has promised, it took the number for possible.
        let forgotten = if starts.own.is_empty() { 0 } else { ctx.highest_by_clock() };
        let link_config = boot::begin(&mut ctx, &boot, starts);
        let mut node = Self {
            ctx,
            link_config: Some(link_config),
            sessions: Sessions::default(),
            wallets,
            ledger: Ledger::default(),
            auxiliary,
            activation,
            deliveries: Deliveries::default(),
            acceptor: Acceptor::after(forgotten),
            queries: Queries::new(now.time),
            signing: signing::coordinator::Coordinator::default(),
            signers: signing::participant::Participants::default(),
            presignatures: signing::presignatures::Presignatures::default(),
            keygen: keygen::Coordinator::default(),
            catch_up,
            registered: Vec::new(),
            elsewhere: BTreeSet::new(),
            intake: BTreeMap::new(),
            draining: false,
            ready: false,
            waiting_for: String::new(),
            resume: false,
        };
        node.auxiliary.drive(&mut node.ctx);
        if planted(Bug::StartedBeforeDurable) {
            node.on_persisted(After::Boot);
        }
        node.settle();
        node
    }

    /// Handles one input. Never blocks, never fails: bad input becomes a report.
    pub fn handle(&mut self, now: Now, input: Input) {
        // A clock that went backwards must not take timers with it.
        self.ctx.now = Now { time: self.ctx.now.time.max(now.time), wall: now.wall };
        let time = self.ctx.now.time;
        match input {
            Input::Request(delivery) => self.take(delivery),
            Input::Query { query, body } => self.queries.take(&mut self.ctx, &mut self.wallets, query, &body),
            Input::Datagram(bytes) => {
                if let Some(links) = self.ctx.links.as_mut() {
                    links.handle_datagram(time, &bytes);
                }
            }
            Input::Peers(ids) => self.registered = ids,
            Input::WalletsElsewhere(wallets) => {
                self.elsewhere = wallets.into_iter().take(limits::WALLETS_ELSEWHERE_MAX).collect();
            }
            Input::Persisted(id) => {
                if let Some(after) = self.ctx.persisted(id) {
                    self.on_persisted(after);
                }
            }
            Input::Loaded(id, value) => match self.ctx.loaded(id) {
                Some(Wanted::Wallet(wanted)) => self.wallets.on_loaded(&mut self.ctx, wanted, value),
                Some(Wanted::Result(key)) => self.ledger.on_result_loaded(&mut self.ctx, key, value),
                Some(Wanted::Verdict(key, delivery)) => {
                    self.ledger.on_verdict_loaded(&mut self.ctx, key, delivery, value);
                }
                Some(Wanted::CatchUp(..)) | None => {}
            },
            Input::Scanned(id, records) => {
                if let Some(Wanted::CatchUp(to, after)) = self.ctx.loaded(id) {
                    self.catch_up.on_scanned(&mut self.ctx, &self.activation, to, after, &records);
                }
            }
            Input::Computed(computed) => match (self.ctx.computed(computed.id), computed.done) {
                (Some(JobFor::Session(session)), done) => {
                    self.sessions.on_computed(&mut self.ctx, session, done);
                    self.resume = true;
                }
                (Some(JobFor::Piece), Done::Piece(piece)) => self.auxiliary.on_piece(&mut self.ctx, piece),
                (Some(JobFor::Precomputation), Done::Precomputed(made)) => {
                    self.auxiliary.on_precomputed(&mut self.ctx, made);
                }
                _ => {}
            },
            Input::Published(id) => {
                if let Some(delivery) = self.ctx.published(id) {
                    self.deliveries.on_published(&mut self.ctx, delivery);
                }
            }
            Input::Wake => self.on_wake(),
            Input::Drain => {
                self.draining = true;
                self.signing.drain(&mut self.ctx, &mut self.deliveries);
                self.keygen.drain(&mut self.ctx, &mut self.deliveries);
            }
            Input::Leave => {
                if let Some(links) = self.ctx.links.as_mut() {
                    links.leave(now.time);
                }
            }
        }
        self.settle();
    }

    /// The next thing to do; drain until `None` after [`new`](Self::new) and after every [`handle`](Self::handle).
    pub fn poll(&mut self) -> Option<Output> {
        self.ctx.poll()
    }

    /// When the node next wants an [`Input::Wake`].
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        [
            self.ctx.links.as_ref().and_then(Links::wake_at),
            self.sessions.wake_at(),
            self.deliveries.wake_at(),
            self.acceptor.wake_at(),
            self.queries.wake_at(),
            self.signing.wake_at(&self.ctx),
            self.signers.wake_at(),
            self.keygen.wake_at(&self.ctx),
            self.activation.wake_at(),
            self.auxiliary.wake_at(&self.ctx),
            self.presignatures.wake_at(&self.ctx),
            self.wallets.wake_at(),
            self.catch_up.wake_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn on_wake(&mut self) {
        let time = self.ctx.now.time;
        if let Some(links) = self.ctx.links.as_mut() {
            links.handle_wake(time);
        }
        self.sessions.on_wake(&mut self.ctx);
        self.deliveries.on_wake(&mut self.ctx);
        self.acceptor.on_wake(&self.ctx);
        self.wallets.on_wake(&mut self.ctx);
        self.queries.on_wake(&mut self.ctx, &mut self.wallets);
        self.signers.on_wake(&mut self.ctx);
        self.auxiliary.on_wake(&mut self.ctx);
        self.with_presignatures(|presignatures, ctx, parts| presignatures.drive(ctx, parts));
        self.catch_up.drive(&mut self.ctx);
        let mut parts = activation::Parts { sessions: &mut self.sessions, wallets: &mut self.wallets };
        self.activation.on_wake(&mut self.ctx, &mut parts);
        self.with_signing(|signing, ctx, parts| signing.on_wake(ctx, parts));
        self.with_keygen(|keygen, ctx, parts| keygen.on_wake(ctx, parts));
    }

    /// Carries on until nothing is left to route, then lets links build their packets.
    fn settle(&mut self) {
        loop {
            if let Some(event) = self.ctx.next_event() {
                self.on_event(event);
            } else if self.resume {
                self.resume = false;
                self.with_signing(|signing, ctx, parts| signing.resume(ctx, parts));
                self.with_keygen(|keygen, ctx, parts| keygen.resume(ctx, parts));
                self.with_presignatures(|presignatures, ctx, parts| presignatures.drive(ctx, parts));
            } else if let Some(output) = self.ctx.links.as_mut().and_then(Links::poll) {
                self.on_link_output(output);
            } else {
                break;
            }
        }
        self.gate();
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Message { from, message } => self.on_message(from, message),
            Event::SessionEnded { session, owner, result } => match owner {
                Owner::Signing => {
                    let (outcome, failure) = match result {
                        Ok(outcome) => (Some(outcome), None),
                        Err(failure) => (None, Some(failure)),
                    };
                    self.with_signers(|signers, ctx, parts| signers.on_session_ended(ctx, parts, session, outcome));
                    self.with_signing(|signing, ctx, parts| {
                        signing.on_session_ended(ctx, parts, session, failure.as_ref());
                    });
                }
                Owner::Wallet => {
                    let failure = result.as_ref().err().cloned();
                    self.activation.on_session_ended(&mut self.ctx, session, result);
                    self.with_keygen(|keygen, ctx, parts| {
                        keygen.on_session_ended(ctx, parts, session, failure.as_ref());
                    });
                }
                Owner::Auxiliary => {
                    self.auxiliary.on_session_ended(&mut self.ctx, session, result);
                    self.auxiliary.drive(&mut self.ctx);
                }
                Owner::Presigning => self.presignatures.on_session_ended(&mut self.ctx, session, result),
            },
            Event::StillComputing { session, from } => {
                let now = self.ctx.now.time;
                self.signers.on_still_computing(now, session, from);
                self.signing.on_still_computing(now, session, from);
                self.keygen.on_still_computing(now, session, from);
            }
            Event::Ban { sets, reason, unsaid } => {
                let me = self.ctx.me;
                self.auxiliary.ban(&mut self.ctx, &mut self.sessions, &sets, me, &reason, unsaid);
            }
            Event::WalletLoaded(wallet) => {
                self.queries.on_wallet(&mut self.ctx, &mut self.wallets, &wallet);
                let mut parts = activation::Parts { sessions: &mut self.sessions, wallets: &mut self.wallets };
                self.activation.on_wallet_loaded(&mut self.ctx, &mut parts, &wallet);
                self.catch_up.on_wallet_loaded(&mut self.ctx, &mut self.activation, &mut parts, &wallet);
                self.with_acceptor(|acceptor, ctx, parts| acceptor.on_wallet(ctx, parts, &wallet));
                self.with_signers(|signers, ctx, parts| signers.on_wallet_loaded(ctx, parts, &wallet));
                self.with_signing(|signing, ctx, parts| signing.on_wallet_loaded(ctx, parts, &wallet));
                self.with_keygen(|keygen, ctx, parts| keygen.on_wallet_changed(ctx, parts, &wallet));
            }
            Event::LedgerLoaded(key) => {
                self.with_acceptor(|acceptor, ctx, parts| acceptor.on_ledger_loaded(ctx, parts, key));
                self.with_signers(|signers, ctx, parts| signers.on_ledger_loaded(ctx, parts, key));
                self.with_signing(|signing, ctx, parts| signing.on_ledger_loaded(ctx, parts, key));
            }
            Event::WalletActivated(wallet) => {
                self.queries.on_wallet(&mut self.ctx, &mut self.wallets, &wallet);
                self.with_acceptor(|acceptor, ctx, parts| acceptor.on_wallet(ctx, parts, &wallet));
                self.with_signing(|signing, ctx, parts| signing.on_wallet_loaded(ctx, parts, &wallet));
                self.with_keygen(|keygen, ctx, parts| keygen.on_wallet_changed(ctx, parts, &wallet));
            }
            Event::SlotClosed(wallet) => {
                self.with_keygen(|keygen, ctx, parts| keygen.on_slot_closed(ctx, parts, &wallet));
            }
            Event::Resume => self.resume = true,
        }
    }

    fn on_message(&mut self, from: NodeId, message: Message) {
        match message {
            Message::Session(message) => self.sessions.on_message(&mut self.ctx, from, message),
            Message::Signing(message) => self.on_signing(from, message),
            Message::Wallet(activation::Message::Answer { session, answer }) => {
                self.with_keygen(|keygen, ctx, parts| keygen.on_answer(ctx, parts, from, session, answer));
            }
            Message::Wallet(activation::Message::Closed { wallet, request_digest, prepared }) => {
                self.with_keygen(|keygen, ctx, parts| {
                    keygen.on_closed(ctx, parts, from, &wallet, request_digest, prepared);
                });
            }
            Message::Wallet(activation::Message::Propose(proposal)) if !self.sessions.admits(&self.ctx, from) => {
                let answer = activation::Answer::Declined(signing::Decline::Busy);
                let message = activation::Message::Answer { session: proposal.session(), answer };
                self.ctx.send(from, Lane::Control, Message::Wallet(message));
            }
            Message::Wallet(message) => {
                let mut parts = activation::Parts { sessions: &mut self.sessions, wallets: &mut self.wallets };
                self.activation.on_message(&mut self.ctx, &mut parts, from, message);
            }
            Message::Answers(message) => self.on_answers(from, message),
            Message::CatchUp(message) => {
                let mut parts = activation::Parts { sessions: &mut self.sessions, wallets: &mut self.wallets };
                self.catch_up.on_message(&mut self.ctx, &mut self.activation, &mut parts, from, message);
            }
            Message::Auxiliary(message) => {
                self.auxiliary.on_message(&mut self.ctx, &mut self.sessions, from, message);
            }
            Message::Presigning(proposal) => self.with_presignatures(|presignatures, ctx, parts| {
                presignatures.on_proposal(ctx, parts, from, proposal);
            }),
        }
    }

    fn on_answers(&mut self, from: NodeId, message: answers::Message) {
        use answers::Message as M;
        let Some(incarnation) = self.ctx.incarnation_of(from) else { return };
        let from = (from, incarnation);
        match message {
            M::Prepare { kind, request, ballot, deliveries } => self.with_acceptor(|acceptor, ctx, parts| {
                acceptor.on_prepare(ctx, parts, from, (kind, &request), ballot, deliveries);
            }),
            M::Store { kind, request, ballot, value } => self.with_acceptor(|acceptor, ctx, parts| {
                acceptor.on_store(ctx, parts, from, (kind, &request), ballot, value);
            }),
            // A ballot is of one of them.
            M::Promised { key, ballot, report } => {
                let again = report.clone();
                self.with_signing(|signing, ctx, parts| signing.on_promised(ctx, parts, from, (key, ballot), report));
                self.with_keygen(|keygen, ctx, parts| keygen.on_promised(ctx, parts, from, (key, ballot), again));
            }
            M::Stored { key, ballot } => {
                self.with_signing(|signing, ctx, parts| signing.on_decision_stored(ctx, parts, from, (key, ballot)));
                self.with_keygen(|keygen, ctx, parts| keygen.on_decision_stored(ctx, parts, from, (key, ballot)));
            }
            M::Rejected { key, ballot, higher } => {
                let from = from.0;
                self.with_signing(|signing, ctx, parts| signing.on_rejected(ctx, parts, from, (key, ballot), higher));
                self.with_keygen(|keygen, ctx, _| keygen.on_rejected(ctx, from, (key, ballot), higher));
            }
        }
    }

    fn on_signing(&mut self, from: NodeId, message: signing::Message) {
        use signing::Message as M;
        match message {
            M::Propose(proposal) if !self.sessions.admits(&self.ctx, from) => {
                let answer = signing::Answer::Declined(signing::Decline::Busy);
                let message = M::Answer { session: proposal.session(), answer };
                self.ctx.send(from, Lane::Signing, Message::Signing(message));
            }
            M::Propose(proposal) => {
                self.with_signers(|signers, ctx, parts| signers.on_proposal(ctx, parts, from, *proposal));
            }
            M::Attested { session, signature } => {
                self.with_signers(|signers, ctx, parts| signers.on_attested(ctx, parts, from, session, signature));
            }
            M::Answer { session, answer } => {
                self.with_signing(|signing, ctx, parts| signing.on_answer(ctx, parts, from, session, answer));
            }
            M::Stored { session, signature, attestations } => {
                let result = (signature, attestations);
                self.with_signing(|signing, ctx, parts| signing.on_stored(ctx, parts, from, session, result));
            }
        }
    }

    fn on_persisted(&mut self, after: After) {
        match after {
            After::Boot => {
                if let Some(config) = self.link_config.take() {
                    let config = LinkConfig { commits: self.ctx.commits(), ..config };
                    self.ctx.links = Some(Links::new(config, self.ctx.now.time));
                }
            }
            After::Conceded(incarnation) => {
                let time = self.ctx.now.time;
                if let Some(links) = self.ctx.links.as_mut() {
                    links.conceded(time, incarnation);
                }
            }
            After::Signing(after) => {
                self.with_signers(|signers, ctx, parts| signers.on_persisted(ctx, parts, after));
            }
            After::Wallet(after) => {
                let mut parts = activation::Parts { sessions: &mut self.sessions, wallets: &mut self.wallets };
                self.activation.on_persisted(&mut self.ctx, &mut parts, after);
            }
            After::Auxiliary(after) => {
                self.auxiliary.on_persisted(&mut self.ctx, after);
                self.with_signers(|signers, ctx, parts| signers.on_banned(ctx, parts));
            }
            After::Answers(after) => Acceptor::on_persisted(&mut self.ctx, after),
            After::Nothing => {}
        }
    }

    fn on_link_output(&mut self, output: LinkOutput) {
        match output {
            LinkOutput::Datagram { to, bytes } => self.ctx.output(Output::Datagram { to, bytes }),
            LinkOutput::Remember { peer, mark } => self.ctx.remember(peer, mark),
            LinkOutput::PutBack { peer } => panic!(
                "{} remembers what this very process has said and does not know: the machine was put back with its \
                 memory, or copied while it ran; nothing that is in this memory may be used any more, so the process \
                 ends",
                self.ctx.name(peer)
            ),
            LinkOutput::RolledBack { peer, incarnation, start } => self.on_rolled_back(peer, incarnation, start),
            LinkOutput::Up { peer, incarnation } => self.on_link_up(peer, incarnation),
            LinkOutput::Down { peer, incarnation, reason } => {
                let peer_name = self.ctx.name(peer);
                self.ctx.report(Report::LinkDown { peer: peer_name, reason: reason.to_string() });
                self.signers.on_link_down((peer, incarnation));
                self.sessions.on_link_down(&mut self.ctx, peer, incarnation);
                self.auxiliary.on_link_down(peer);
                self.acceptor.on_link_down((peer, incarnation));
                self.with_signing(|signing, ctx, parts| signing.on_link_down(ctx, parts, peer));
                self.keygen.on_link_down(peer);
                self.resume = true;
            }
            LinkOutput::Message { peer, bytes, .. } => match Message::decode(&bytes) {
                Some(message) => self.ctx.event(Event::Message { from: peer, message }),
                None => {
                    let peer = self.ctx.name(peer);
                    self.ctx.report(Report::Ignored { peer, what: "a message of an unknown form".to_owned() });
                }
            },
            LinkOutput::Trouble(trouble) => {
                let alarm = trouble.is_alarm();
                self.ctx.report(Report::LinkTrouble { what: trouble.to_string(), alarm });
            }
        }
    }

    fn on_rolled_back(&mut self, peer: NodeId, incarnation: Incarnation, start: Start) {
        // What must not be used again is gone before the loss counts as known.
        self.auxiliary.on_rolled_back(&mut self.ctx);
        self.presignatures.on_rolled_back();
        let name = self.ctx.name(peer);
        self.catch_up.on_rolled_back(&mut self.ctx, &name, incarnation, start);
    }

    fn on_link_up(&mut self, peer: NodeId, incarnation: Incarnation) {
        let name = self.ctx.name(peer);
        self.ctx.report(Report::LinkUp { peer: name, incarnation: incarnation.to_string() });
        self.catch_up.drive(&mut self.ctx);
        self.ctx.forgive(peer);
        self.auxiliary.on_link_up(&mut self.ctx, peer);
        self.auxiliary.drive(&mut self.ctx);
        self.activation.on_link_up(&mut self.ctx);
        let mut parts = activation::Parts { sessions: &mut self.sessions, wallets: &mut self.wallets };
        self.activation.on_wake(&mut self.ctx, &mut parts);
        self.resume = true;
    }

    /// A request came from the queue.
    fn take(&mut self, delivery: Delivery) {
        self.deliveries.take(&self.ctx, &delivery);
        if self.draining || self.deliveries.len() > limits::REQUESTS_MAX {
            self.deliveries.release(&mut self.ctx, delivery.id, limits::RETRY_MIN);
            return;
        }
        let request = match admit(&self.ctx, delivery.kind, &delivery.body) {
            Ok(request) => request,
            Err(refusal) => {
                let answer = error_answer(delivery.kind, refusal.request.as_deref(), refusal.code, &refusal.reason);
                let names = refusal.request.as_ref().map_or(("", ""), |r| (r.wallet_id(), r.request_id()));
                self.deliveries.answer(&mut self.ctx, delivery.id, names, &answer);
                return;
            }
        };
        if let Some(client) = request.signed_client() {
            self.deliveries.answer_to(delivery.id, client);
        }
        self.ctx.report(Report::RequestTaken {
            kind: kind_name(delivery.kind),
            wallet: request.wallet().to_owned(),
            id: request.id().to_owned(),
            delivery: delivery.deliveries,
        });
        let Delivery { id, timestamp, body, kind, deliveries, .. } = delivery;
        match kind {
            RequestKind::Sign => self.with_signing(|signing, ctx, parts| {
                signing.take(ctx, parts, id, timestamp, body, request);
            }),
            RequestKind::Keygen => {
                // Once another node may have worked on the request, an answer is only given together with the others.
                let first = deliveries == 1;
                let elsewhere = first && self.elsewhere.contains(request.wallet());
                let delivery = keygen::Delivery { id, timestamp, first };
                self.with_keygen(|keygen, ctx, parts| {
                    keygen.take(ctx, parts, delivery, body, request, elsewhere);
                });
            }
            RequestKind::Reshare => {
                let code = mpcium_client::result::ErrorCode::ReshareFailure;
                let reason = "resharing is not available in this version";
                let answer = error_answer(kind, Some(&request.request), code, reason);
                self.deliveries.answer(&mut self.ctx, id, (request.wallet(), request.id()), &answer);
            }
        }
    }

    /// Opens and closes the intake of requests, and says when the node becomes ready or stops being so.
    fn gate(&mut self) {
        let threshold = usize::from(self.ctx.config.threshold);
        let reachable = self.ctx.reachable().len();
        let waiting_for = if self.ctx.links.is_none() {
            "its store".to_owned()
        } else if let Some(reason) = self.ctx.unfit.first() {
            format!("an operator: {reason}")
        } else if reachable < threshold {
            let missing = self.ctx.config.peers.iter().map(|p| p.id).filter(|id| !self.ctx.is_up(*id));
            let names = self.ctx.names(missing);
            format!("{} more of {} to answer", threshold - reachable, names.join(", "))
        } else {
            String::new()
        };
        let ready = waiting_for.is_empty();
        if ready && !self.ready {
            self.ctx.report(Report::Ready { reachable });
        } else if !ready && (self.ready || waiting_for != self.waiting_for) {
            self.ctx.report(Report::NotReady { waiting_for: waiting_for.clone() });
        }
        self.ready = ready;
        self.waiting_for = waiting_for;
        let room = self.deliveries.len() < limits::REQUESTS_MAX / 2;
        for kind in [RequestKind::Keygen, RequestKind::Sign, RequestKind::Reshare] {
            let open = ready && !self.draining && room;
            if self.intake.get(&kind).copied().unwrap_or(false) != open {
                self.intake.insert(kind, open);
                self.ctx.output(Output::Intake { kind, open });
            }
        }
    }

    fn with_signing(
        &mut self,
        run: impl FnOnce(&mut signing::coordinator::Coordinator, &mut Context, &mut signing::coordinator::Parts<'_>),
    ) {
        let mut parts = signing::coordinator::Parts {
            sessions: &mut self.sessions,
            wallets: &mut self.wallets,
            ledger: &mut self.ledger,
            auxiliary: &mut self.auxiliary,
            presignatures: &mut self.presignatures,
            deliveries: &mut self.deliveries,
        };
        run(&mut self.signing, &mut self.ctx, &mut parts);
    }

    fn with_signers(
        &mut self,
        run: impl FnOnce(&mut signing::participant::Participants, &mut Context, &mut signing::participant::Parts<'_>),
    ) {
        let mut parts = signing::participant::Parts {
            sessions: &mut self.sessions,
            wallets: &mut self.wallets,
            ledger: &mut self.ledger,
            promises: &mut self.acceptor.promises,
            auxiliary: &self.auxiliary,
            presignatures: &mut self.presignatures,
        };
        run(&mut self.signers, &mut self.ctx, &mut parts);
    }

    fn with_acceptor(&mut self, run: impl FnOnce(&mut Acceptor, &mut Context, &mut acceptor::Parts<'_>)) {
        let mut parts = acceptor::Parts { ledger: &mut self.ledger, wallets: &mut self.wallets };
        run(&mut self.acceptor, &mut self.ctx, &mut parts);
    }

    fn with_presignatures(
        &mut self,
        run: impl FnOnce(&mut signing::presignatures::Presignatures, &mut Context, &mut signing::presignatures::Parts<'_>),
    ) {
        let mut parts = signing::presignatures::Parts {
            sessions: &mut self.sessions,
            wallets: &mut self.wallets,
            auxiliary: &self.auxiliary,
        };
        run(&mut self.presignatures, &mut self.ctx, &mut parts);
    }

    fn with_keygen(&mut self, run: impl FnOnce(&mut keygen::Coordinator, &mut Context, &mut keygen::Parts<'_>)) {
        let mut parts = keygen::Parts {
            sessions: &mut self.sessions,
            wallets: &mut self.wallets,
            activation: &mut self.activation,
            deliveries: &mut self.deliveries,
        };
        run(&mut self.keygen, &mut self.ctx, &mut parts);
    }

    /// How the node is.
    #[must_use]
    pub fn status(&self, now: Now) -> Status {
        let ctx = &self.ctx;
        let states = ctx.links.as_ref().map(Links::states).unwrap_or_default();
        let peers = ctx.config.peers.iter().filter(|p| p.id != ctx.me).map(|peer| {
            let state = states.iter().find(|s| s.peer == peer.id);
            PeerStatus {
                name: peer.name.clone(),
                id: peer.id.to_string(),
                up: ctx.is_up(peer.id),
                registered: self.registered.contains(&peer.id),
                detail: match state {
                    None => "the links have not begun yet".to_owned(),
                    Some(s) if s.up_since.is_some() => format!(
                        "answers since {} s, heard {} ms ago",
                        now.time.since(s.up_since.unwrap_or_default()).as_secs(),
                        now.time.since(s.last_heard.unwrap_or_default()).as_millis()
                    ),
                    Some(s) => s.waits_for.clone(),
                },
            }
        });
        let (ingredients, auxiliary_sets) = self.auxiliary.status(ctx);
        let mut requests = self.signing.status(ctx);
        requests.extend(self.keygen.status(ctx));
        let mut waiting_for = Vec::new();
        if !self.waiting_for.is_empty() {
            waiting_for.push(self.waiting_for.clone());
        }
        if ctx.suites.secp256k1.auxiliary().is_some() && !self.auxiliary.is_ready(ctx) {
            waiting_for.push("auxiliary data: ECDSA signatures wait until the nodes have made it".to_owned());
        }
        Status {
            id: ctx.me.to_string(),
            name: ctx.name(ctx.me),
            incarnation: ctx.incarnation.to_string(),
            ready: self.ready,
            waiting_for,
            threshold: ctx.config.threshold,
            peers: peers.collect(),
            ingredients,
            auxiliary_sets,
            pairs: self.auxiliary.pairs_status(ctx),
            presignatures: self.presignatures.status(ctx),
            sessions: self.sessions.status(ctx),
            requests,
            undecided: self.activation.undecided(),
            alarms: ctx.unfit.clone(),
            stopped: self.wallets.stopped().take(limits::STOPPED_SHOWN).cloned().collect(),
            tables: self.tables().into_iter().map(TableStatus::from).collect(),
        }
    }

    /// Everything that could grow.
    fn tables(&self) -> Vec<Table> {
        let mut tables = self.ctx.tables();
        tables.extend(self.sessions.tables());
        tables.extend(self.deliveries.tables());
        tables.extend(self.acceptor.tables());
        tables.extend(self.signing.tables());
        tables.extend(self.signers.tables());
        tables.extend(self.keygen.tables());
        tables.extend(self.ledger.tables());
        tables.extend(self.wallets.tables());
        tables.extend(self.activation.tables());
        tables.extend(self.auxiliary.tables());
        tables.extend(self.presignatures.tables());
        tables.extend(self.catch_up.tables());
        tables.extend(self.queries.tables());
        tables.push(("wallets of another system", self.elsewhere.len(), Some(limits::WALLETS_ELSEWHERE_MAX)));
        tables
    }

    /// Requests that this node coordinates.
    #[must_use]
    pub fn coordinated(&self) -> usize {
        self.signing.len() + self.keygen.len()
    }
}
