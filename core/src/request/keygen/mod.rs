//! The coordinator's side of creating a wallet: drives a request that this node took from the queue to one answer for
//! each of its deliveries.
//!
//! Success is answered when the certificate is durable at `t` members; failure only when no session of the request can
//! become the wallet any more. Which of the two a delivery is answered with the nodes [decide](super::answers): their
//! promises are asked for when the request is taken, so that one round trip is left at the end.

mod deciding;

use std::collections::{BTreeMap, BTreeSet};

use mpcium_client::result::ErrorCode;

use super::{
    admission::Admitted,
    answers::asking::Asking,
    deliveries::{Deliveries, Joined},
    patience::Patience,
    schedule::Schedule,
    signing::Decline,
};
use crate::{
    Duration, NodeId, Time, WallTime,
    context::{Context, Event},
    input::DeliveryId,
    limits,
    link::Lane,
    message::{Message as Envelope, SessionMessage},
    node::{RequestStatus, Table},
    report::Report,
    session::{Failure, SessionId, Sessions, millis},
    wallet::{
        activation::{Activation, Answer, Message, Proposal, send},
        cache::{self, Wallets},
    },
};

/// The parts of the node that a coordinator needs.
pub(crate) struct Parts<'a> {
    pub sessions: &'a mut Sessions,
    pub wallets: &'a mut Wallets,
    pub activation: &'a mut Activation,
    pub deliveries: &'a mut Deliveries,
}

/// A delivery to be answered.
pub(crate) struct Delivery {
    pub id: DeliveryId,
    pub timestamp: WallTime,
    /// Nobody had it before.
    pub first: bool,
}

/// This node as a coordinator of key generation requests, by wallet.
#[derive(Default)]
pub(crate) struct Coordinator {
    active: BTreeMap<String, Active>,
    by_session: BTreeMap<SessionId, String>,
}

struct Active {
    request: Admitted,
    /// The client's document, for proposals.
    body: Vec<u8>,
    /// Those that are not answered yet.
    deliveries: Vec<Asked>,
    /// Somebody else may have answered one of them.
    redelivered: bool,
    schedule: Schedule,
    number: u32,
    last_failure: String,
    waiting_for: String,
    /// Another system has a wallet of that name.
    elsewhere: bool,
    /// The ballot about the deliveries; `None`: a higher one was met.
    asking: Option<Asking>,
    /// When a ballot is begun anew.
    ask_at: Time,
    /// The highest ballot's number known.
    ballot: u64,
    phase: Phase,
}

/// A delivery and its document. What runs for a request is bound to one document; whoever asks again with another one
/// has that carried out if nothing comes of the first in its time.
struct Asked {
    joined: Joined,
    request: Admitted,
    body: Vec<u8>,
}

enum Phase {
    /// For records, peers, a place, or until a time.
    Waiting { until: Option<Time> },
    /// An attempt runs, or its decision.
    Running { session: SessionId, accepted: BTreeSet<NodeId>, accept_by: Time, patience: Patience },
    /// The wallet exists; more members are to store its certificate.
    Settling { give_up: Time },
    /// The deadline has passed: members say what is prepared, and the slot is closed if anything is.
    Closing {
        answers: BTreeMap<NodeId, BTreeSet<SessionId>>,
        /// Whether the slot has been closed meanwhile.
        closed: bool,
        ask_again: Time,
        close_at: Time,
        give_up: Time,
    },
    /// The nodes decide what the deliveries are answered with.
    Deciding(deciding::Deciding),
}

/// How long closing waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long success waits for further members once the certificate is durable here.
const SETTLE_WAIT: Duration = Duration::from_secs(5);
/// How long a decision may take after the session itself.
const DECISION_WAIT: Duration = Duration::from_secs(10);

impl Coordinator {
    pub fn len(&self) -> usize {
        self.active.len()
    }

    pub fn tables(&self) -> [Table; 2] {
        [
            ("key generation requests", self.active.len(), Some(limits::REQUESTS_MAX)),
            ("key generation attempts", self.by_session.len(), Some(limits::REQUESTS_MAX)),
        ]
    }

    /// Takes a request on, or joins a delivery to one that is under way. `elsewhere`: another system has a wallet of
    /// that name, and no other node has worked on the request.
    pub fn take(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        delivery: Delivery,
        body: Vec<u8>,
        request: Admitted,
        elsewhere: bool,
    ) {
        let wallet = request.wallet().to_owned();
        let joined = Joined::new(ctx, delivery.id, delivery.timestamp, &request, ctx.config.keygen_deadline);
        let deadline = joined.deadline;
        let asked = Asked { joined, request: request.clone(), body: body.clone() };
        if let Some(active) = self.active.get_mut(&wallet) {
            active.deliveries.push(asked);
            active.redelivered |= !delivery.first;
            // What is stored already is decided first; the next ballot names those that are left.
            if active.asking.as_ref().is_some_and(|asking| !asking.decision.is_storing()) {
                active.asking = None;
                active.ask_at = ctx.now.time;
            }
            self.drive(ctx, parts, &wallet);
            return;
        }
        self.active.insert(
            wallet.clone(),
            Active {
                request,
                body,
                deliveries: vec![asked],
                redelivered: !delivery.first,
                schedule: Schedule::new(ctx, deadline),
                number: 0,
                last_failure: String::new(),
                waiting_for: String::new(),
                elsewhere,
                asking: None,
                ask_at: ctx.now.time,
                ballot: 0,
                phase: Phase::Waiting { until: None },
            },
        );
        self.drive(ctx, parts, &wallet);
    }

    /// Something changed that any waiting request may wait for.
    pub fn resume(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        let waiting: Vec<String> = self
            .active
            .iter()
            .filter(|(_, a)| matches!(a.phase, Phase::Waiting { .. }))
            .map(|(wallet, _)| wallet.clone())
            .collect();
        for wallet in waiting {
            self.drive(ctx, parts, &wallet);
        }
    }

    pub fn on_wallet_changed(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        self.drive(ctx, parts, wallet);
    }

    pub fn on_wake(&mut self, ctx: &mut Context, parts: &mut Parts<'_>) {
        let due: Vec<String> = self
            .active
            .iter()
            .filter(|(_, a)| a.wakes_at(ctx) <= ctx.now.time)
            .map(|(wallet, _)| wallet.clone())
            .collect();
        for wallet in due {
            self.drive(ctx, parts, &wallet);
        }
    }

    pub fn wake_at(&self, ctx: &Context) -> Option<Time> {
        self.active.values().map(|a| a.wakes_at(ctx)).min()
    }

    /// Hands back everything that runs no attempt: the process is about to stop.
    pub fn drain(&mut self, ctx: &mut Context, deliveries: &mut Deliveries) {
        let idle: Vec<String> = self
            .active
            .iter()
            .filter(|(_, a)| matches!(a.phase, Phase::Waiting { .. }))
            .map(|(wallet, _)| wallet.clone())
            .collect();
        for wallet in idle {
            if let Some(active) = self.active.remove(&wallet) {
                for delivery in active.deliveries {
                    deliveries.release(ctx, delivery.joined.id, Duration::ZERO);
                }
            }
        }
    }

    fn drive(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        active.schedule.look(ctx);
        self.ask(ctx, parts, wallet);
        let found = match parts.wallets.lookup(ctx, wallet) {
            cache::Lookup::Loading => return,
            cache::Lookup::Absent => None,
            cache::Lookup::Found(found) => Some(found),
        };
        let Some(active) = self.active.get_mut(wallet) else { return };
        // Whatever the phase, a wallet that exists answers the request.
        match (&active.phase, found) {
            (Phase::Deciding(_), found) => return self.drive_deciding(ctx, parts, wallet, found.as_ref()),
            (_, Some(found)) => return self.settle(ctx, parts, wallet, &found),
            (_, None) => {}
        }
        let now = ctx.now.time;
        match &active.phase {
            Phase::Waiting { .. } => self.drive_waiting(ctx, parts, wallet),
            Phase::Running { session, accepted, accept_by, patience } => {
                let members = ctx.config.peers.len();
                if now >= *accept_by && accepted.len() < members {
                    let silent: Vec<NodeId> =
                        ctx.config.peers.iter().map(|p| p.id).filter(|id| !accepted.contains(id)).collect();
                    let reason = format!("{} did not answer the proposal", ctx.names(silent).join(", "));
                    self.fail(ctx, parts, wallet, &reason);
                } else if now >= patience.until {
                    let reason = format!("session {session} was not decided in time");
                    self.fail(ctx, parts, wallet, &reason);
                }
            }
            // The certificate is durable here, so the wallet cannot be absent.
            Phase::Settling { .. } | Phase::Deciding(_) => {}
            Phase::Closing { .. } => self.drive_closing(ctx, parts, wallet),
        }
    }

    fn drive_waiting(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str) {
        let running = self.running();
        let Some(active) = self.active.get_mut(wallet) else { return };
        if active.is_answered_before() {
            return self.conclude(ctx, parts, wallet, None);
        }
        if ctx.now.wall > active.schedule.deadline {
            if active.schedule.is_late(ctx) {
                self.close(ctx, parts, wallet);
            } else {
                // Until the other nodes' clocks have passed the deadline too.
                active.phase = Phase::Waiting { until: None };
            }
            return;
        }
        if active.redelivered && !active.is_promised() {
            return wait(ctx, active, "the nodes to say whether they have answered it".to_owned());
        }
        // This store has been asked and has no such wallet, and no attempt has been made.
        if active.elsewhere && active.number == 0 {
            let reason = format!(
                "Key already exists: Consul's threshold_keyinfo knows the wallet {wallet}, but this store does not: it \
                 belongs to another system and has to be migrated from there; create new wallets under other ids"
            );
            return self.conclude(ctx, parts, wallet, Some((ErrorCode::KeyAlreadyExists, reason)));
        }
        if let Phase::Waiting { until: Some(until) } = active.phase
            && ctx.now.time < until
        {
            return;
        }
        let missing: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).filter(|id| !ctx.is_up(*id)).collect();
        if !missing.is_empty() {
            let what = format!("{} to answer", ctx.names(missing).join(" and "));
            wait(ctx, active, what);
            return;
        }
        let heavy = ctx.suites.keygen.pace(u16::try_from(ctx.config.peers.len()).unwrap_or(u16::MAX)).heavy;
        if running >= ctx.config.max_concurrent_keygen.max(1)
            || (heavy && parts.sessions.heavy() >= ctx.config.workers.max(1))
        {
            wait(ctx, active, "a free place among the running key generations".to_owned());
            return;
        }
        let nonce = ctx.random_bytes();
        let pace = ctx.suites.keygen.pace(u16::try_from(ctx.config.peers.len()).unwrap_or(u16::MAX));
        active.number = active.number.saturating_add(1);
        active.waiting_for.clear();
        let nodes: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).collect();
        let proposal = Proposal {
            request: active.body.clone(),
            deadline: active.schedule.deadline,
            attempt: ctx.attempt(u64::from(active.number)),
            slot: parts.activation.slot_asked_for(wallet).number,
            participants: nodes.iter().filter_map(|n| Some((*n, ctx.incarnation_of(*n)?))).collect(),
            nonce,
        };
        let session = proposal.session();
        active.phase = Phase::Running {
            session,
            accepted: BTreeSet::new(),
            accept_by: ctx.now.time.after(limits::PROPOSAL_WAIT),
            patience: Patience::new(ctx.now.time, pace.cap, DECISION_WAIT),
        };
        self.by_session.insert(session, wallet.to_owned());
        for node in nodes {
            send(ctx, node, Message::Propose(Box::new(proposal.clone())));
        }
    }

    pub fn on_answer(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        from: NodeId,
        session: SessionId,
        answer: Answer,
    ) {
        let Some(wallet) = self.by_session.get(&session).cloned() else { return };
        let Some(active) = self.active.get_mut(&wallet) else { return };
        let Phase::Running { session: running, accepted, .. } = &mut active.phase else { return };
        if *running != session {
            return;
        }
        match answer {
            Answer::Accepted => {
                accepted.insert(from);
            }
            Answer::Declined(mut decline) => {
                if let Decline::Links(text) | Decline::Lacks(text) | Decline::Refused(text) = &mut decline {
                    crate::session::truncate(text);
                }
                ctx.report(Report::Declined {
                    session: session.to_string(),
                    by: ctx.name(from),
                    reason: decline.to_string(),
                });
                let reason = format!("{} declined: {decline}", ctx.name(from));
                self.fail(ctx, parts, &wallet, &reason);
            }
        }
    }

    /// A member is at its last step.
    pub fn on_still_computing(&mut self, now: Time, session: SessionId, from: NodeId) {
        let Some(active) = self.by_session.get(&session).and_then(|wallet| self.active.get_mut(wallet)) else { return };
        if let Phase::Running { session: running, patience, accepted, .. } = &mut active.phase
            && *running == session
            && accepted.contains(&from)
        {
            patience.go_on(now);
        }
    }

    /// A session that this node takes part in for its own attempt ended.
    pub fn on_session_ended(
        &mut self,
        ctx: &mut Context,
        parts: &mut Parts<'_>,
        session: SessionId,
        failure: Option<&Failure>,
    ) {
        let Some(wallet) = self.by_session.get(&session).cloned() else { return };
        let Some(active) = self.active.get_mut(&wallet) else { return };
        let Phase::Running { session: running, patience, .. } = &mut active.phase else { return };
        if *running != session {
            return;
        }
        match failure {
            None => patience.finishing(ctx.now.time),
            Some(failure) => {
                let mut reason = failure.reason.clone();
                if !failure.silent.is_empty() {
                    reason.push_str("; silent: ");
                    reason.push_str(&ctx.names(failure.silent.iter().copied()).join(", "));
                }
                self.fail(ctx, parts, &wallet, &reason);
            }
        }
    }

    /// Ends the running attempt and tries again after a while. A session that is prepared somewhere may still become
    /// the wallet; the decision between them is the activation's business.
    fn fail(&mut self, ctx: &mut Context, parts: &mut Parts<'_>, wallet: &str, reason: &str) {
        let Some(active) = self.active.get_mut(wallet) else { return };
        if let Phase::Running { session, .. } = active.phase {
            self.by_session.remove(&session);
            let text = "the coordinator ended the attempt";
            active.phase = Phase::Waiting { until: None };
            parts.sessions.cancel(ctx, session, text);
            // Also to this node: its own part may still wait for records, and would begin what is over.
            for peer in ctx.config.peers.clone() {
                let abort = SessionMessage::Abort { session, reason: text.to_owned() };
                ctx.send(peer.id, Lane::Control, Envelope::Session(abort));
            }
        }
        let Some(active) = self.active.get_mut(wallet) else { return };
        active.last_failure = reason.to_owned();
        active.phase = Phase::Waiting { until: Some(active.schedule.rest(ctx)) };
        ctx.event(Event::Resume);
    }

    fn running(&self) -> usize {
        self.active.values().filter(|a| matches!(a.phase, Phase::Running { .. })).count()
    }

    pub fn status(&self, ctx: &Context) -> Vec<RequestStatus> {
        self.active
            .iter()
            .map(|(wallet, a)| RequestStatus {
                kind: "keygen".to_owned(),
                wallet: wallet.clone(),
                id: a.request.id().to_owned(),
                age_ms: millis(ctx.now.time.since(a.schedule.taken)),
                state: match &a.phase {
                    Phase::Running { .. } => format!("attempt {}", a.number),
                    Phase::Settling { .. } => "the members store its certificate".to_owned(),
                    Phase::Closing { .. } => "the deadline has passed; members say what is prepared".to_owned(),
                    Phase::Deciding(_) => "the nodes decide what it is answered with".to_owned(),
                    Phase::Waiting { .. } if a.waiting_for.is_empty() => a.last_failure.clone(),
                    Phase::Waiting { .. } => format!("waits for {}", a.waiting_for),
                },
            })
            .collect()
    }
}

impl Active {
    fn wakes_at(&self, ctx: &Context) -> Time {
        let ask_at = self.asking.as_ref().map_or(self.ask_at, |asking| asking.ask_again());
        ask_at.min(self.schedule.due(match &self.phase {
            Phase::Waiting { until } => self.schedule.wakes_at(ctx, *until, self.schedule.deadline),
            Phase::Running { accepted, accept_by, patience, .. } => {
                if accepted.len() < ctx.config.peers.len() {
                    (*accept_by).min(patience.until)
                } else {
                    patience.until
                }
            }
            Phase::Settling { give_up } => *give_up,
            // The next question is also the next time that closing is tried.
            Phase::Closing { ask_again, give_up, .. } => (*ask_again).min(*give_up),
            Phase::Deciding(deciding) => deciding.give_up,
        }))
    }
}

fn wait(ctx: &mut Context, active: &mut Active, what: String) {
    active.phase = Phase::Waiting { until: None };
    if active.waiting_for != what {
        ctx.report(Report::RequestWaits {
            kind: "keygen",
            wallet: active.request.wallet().to_owned(),
            id: active.request.id().to_owned(),
            waiting_for: what.clone(),
        });
        active.waiting_for = what;
    }
}
