//! Sessions: this node's part in runs of protocols.
//!
//! A session binds one [`Party`] to its participants, each with the incarnation under which it agreed to take part.
//! The party computes on workers; messages wait meanwhile. Invariant: every session that was started ends with exactly
//! one [`Event::SessionEnded`], by outcome, failure, silence, cap, deadline or cancellation.

mod early;
mod quota;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Weak},
};

use serde::{Deserialize, Serialize};

use self::{early::Early, quota::Quotas};
use crate::{
    Duration, Incarnation, NodeId, Time, WallTime,
    context::{Context, Event, JobFor},
    limits,
    link::Lane,
    message::{Message, SessionMessage},
    node::{SessionStatus, Table},
    planted::{Bug, planted},
    protocol::{Abort, Done, Incoming, Outcome, Pace, Party, Priority, Run, Status, Step},
    report::Report,
    tags,
};

/// Names a session: a hash of the proposal that it comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 32]);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0[..4]))
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// A node together with the start of it that takes part.
pub(crate) type Participant = (NodeId, Incarnation);

/// Which part of the node a session belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Signing,
    Wallet,
    Auxiliary,
    Presigning,
}

/// Why a session ended without an outcome.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub reason: String,
    /// Whom the evidence names.
    pub culprits: Vec<NodeId>,
    /// Who said nothing.
    pub silent: Vec<NodeId>,
}

/// The end of a session that is not told to anybody yet.
#[derive(Debug)]
pub(crate) struct Unsaid {
    session: SessionId,
    owner: Owner,
    failure: Failure,
    others: Vec<NodeId>,
    lane: Lane,
}

impl Unsaid {
    /// Tells the participants and the session's owner.
    pub fn say(self, ctx: &mut Context) {
        let Self { session, owner, failure, others, lane } = self;
        for node in others {
            let abort = SessionMessage::Abort { session, reason: failure.reason.clone() };
            ctx.send(node, lane, Message::Session(abort));
        }
        ctx.event(Event::SessionEnded { session, owner, result: Err(failure) });
    }
}

/// Starts a party; runs on a worker.
pub(crate) type StartParty = Box<dyn FnOnce(Run) -> Result<Box<dyn Party>, Abort> + Send>;

/// All that a session needs.
pub(crate) struct Plan {
    pub id: SessionId,
    pub owner: Owner,
    /// For reports: `sign secp256k1`, `keygen`, `auxiliary`, `presign secp256k1`.
    pub protocol: String,
    /// For reports; empty if the session is for no wallet.
    pub wallet: String,
    pub attempt: u32,
    pub coordinator: NodeId,
    pub participants: Vec<Participant>,
    pub execution_id: [u8; 32],
    pub pace: Pace,
    /// Nothing is sent after this.
    pub deadline: Option<WallTime>,
    /// The pairs' auxiliary sets that this node's party uses, by the other member.
    pub pairs: Vec<(NodeId, [u8; 32])>,
    pub priority: Priority,
    pub lane: Lane,
    pub start: StartParty,
}

enum Place {
    /// With a worker.
    Away,
    /// Here, waiting for messages.
    Here(Box<dyn Party>),
}

struct Running {
    /// Jobs see by it whether anybody still wants what they are to compute.
    wanted: Arc<()>,
    owner: Owner,
    coordinator: NodeId,
    protocol: String,
    wallet: String,
    participants: Vec<Participant>,
    pace: Pace,
    deadline: Option<WallTime>,
    pairs: Vec<(NodeId, [u8; 32])>,
    priority: Priority,
    lane: Lane,
    place: Place,
    inbox: Vec<Incoming>,
    /// What each participant has sent so far.
    received: Vec<Received>,
    /// Positions that sent something since this node's last step.
    heard: BTreeSet<u16>,
    started: Time,
    progress: Time,
    said_computing: Time,
}

/// What one participant has sent in a session.
#[derive(Clone, Copy, Default)]
struct Received {
    messages: usize,
    bytes: usize,
}

/// What becomes of a message.
enum Absorbed {
    /// It waits for the party.
    Taken,
    /// Its sender does not take part, under that incarnation.
    Strange,
    /// It is more than its sender has to say in the whole run. A link delivers once, so nobody honest repeats itself.
    Surplus,
}

/// While a step takes long, the others hear so this often.
const COMPUTING_NOTICE: Duration = Duration::from_secs(1);

/// Ended sessions whose late messages are dropped rather than kept for a proposal that may come.
const ENDED_REMEMBERED: usize = 4096;

/// All sessions of this node.
#[derive(Default)]
pub(crate) struct Sessions {
    running: BTreeMap<SessionId, Running>,
    early: Early,
    quotas: Quotas,
    /// Bytes of each peer's messages that wait for parties.
    waiting: BTreeMap<NodeId, usize>,
    ended: BTreeSet<SessionId>,
    ended_order: VecDeque<SessionId>,
    /// Sessions that ended while a worker had their party.
    away: BTreeMap<SessionId, Away>,
}

/// What a failed check of a session that is over still has to end.
struct Away {
    participants: Vec<Participant>,
    pairs: Vec<(NodeId, [u8; 32])>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions({})", self.running.len())
    }
}

impl Sessions {
    /// Whether this session runs or has run here: it must not be run again.
    pub fn knows(&self, id: SessionId) -> bool {
        self.running.contains_key(&id) || self.ended.contains(&id)
    }

    pub fn tables(&self) -> Vec<Table> {
        let mut tables = vec![
            ("sessions", self.running.len(), Some(limits::SESSIONS_MAX)),
            ("ended sessions", self.ended.len(), Some(ENDED_REMEMBERED)),
            ("ended sessions with a worker", self.away.len(), None),
        ];
        let most = self.waiting.values().max().copied().unwrap_or(0);
        tables.push(("bytes of one peer's messages that wait for sessions", most, Some(limits::PEER_INBOX_BYTES_MAX)));
        tables.extend(self.early.tables());
        tables
    }

    /// Whether a proposal of this coordinator is looked at: it may take up so much of this node and no more.
    pub fn admits(&mut self, ctx: &Context, coordinator: NodeId) -> bool {
        let running = self.running.values().filter(|r| r.coordinator == coordinator).count();
        coordinator == ctx.me || self.quotas.admits(ctx.now.time, coordinator, running)
    }

    /// What this coordinator proposed has succeeded, and so costs it nothing.
    pub fn succeeded(&mut self, coordinator: NodeId) {
        self.quotas.succeeded(coordinator);
    }

    pub fn has_room(&self) -> bool {
        self.running.len() < limits::SESSIONS_MAX
    }

    /// Heavy sessions of clients' requests that run here.
    pub fn heavy(&self) -> usize {
        self.running.values().filter(|r| r.pace.heavy && r.priority < Priority::Presigning).count()
    }

    /// Whether anything runs here that a client waits for.
    pub fn run_for_clients(&self) -> bool {
        self.running.values().any(|r| r.priority < Priority::Presigning)
    }

    /// Joins a session. The caller has checked that this node is among the participants.
    pub fn start(&mut self, ctx: &mut Context, plan: Plan) {
        let Some(index) = position(&plan.participants, ctx.me) else { return };
        let parties = u16::try_from(plan.participants.len()).unwrap_or(u16::MAX);
        ctx.report(Report::SessionStarted {
            session: plan.id.to_string(),
            protocol: plan.protocol.clone(),
            wallet: plan.wallet.clone(),
            coordinator: ctx.name(plan.coordinator),
            attempt: plan.attempt,
            participants: ctx.names(plan.participants.iter().map(|p| p.0)),
        });
        let seed = ctx.session_seed(&plan.execution_id);
        let run = Run { execution_id: plan.execution_id, index, parties, seed: *seed };
        let start = plan.start;
        let wanted = Arc::new(());
        let wish = Arc::downgrade(&wanted);
        let work = Box::new(move |entropy: [u8; 32]| {
            if is_over(&wish) {
                return Done::Nothing;
            }
            // A cloned machine has the same seed: fresh entropy keeps it from repeating a nonce.
            let seed = tags::SESSION_SEED.derive(&run.seed, &entropy);
            match start(Run { seed: *seed, ..run }) {
                Ok(party) => advance(party, Vec::new()),
                Err(abort) => Done::Party(None, Step { messages: Vec::new(), status: Status::Failed(abort) }),
            }
        });
        ctx.compute(JobFor::Session(plan.id), plan.priority, "session start", plan.pace.heavy, work);
        let mut running = Running {
            wanted,
            owner: plan.owner,
            coordinator: plan.coordinator,
            protocol: plan.protocol,
            wallet: plan.wallet,
            participants: plan.participants,
            pace: plan.pace,
            deadline: plan.deadline,
            pairs: plan.pairs,
            priority: plan.priority,
            lane: plan.lane,
            place: Place::Away,
            inbox: Vec::new(),
            received: vec![Received::default(); usize::from(parties)],
            heard: BTreeSet::new(),
            started: ctx.now.time,
            progress: ctx.now.time,
            said_computing: ctx.now.time,
        };
        let mut surplus = None;
        for (from, incoming) in self.early.take(plan.id) {
            if matches!(running.absorb(&mut self.waiting, from, incoming), Absorbed::Surplus) {
                surplus = Some(from.0);
            }
        }
        let given_up = self.early.given_up(plan.id).into_iter().find(|from| running.may_be_ended_by(*from));
        self.running.insert(plan.id, running);
        if let Some(from) = surplus {
            self.end_for_surplus(ctx, plan.id, from);
        } else if let Some((from, _)) = given_up {
            let reason = format!("{} gave up before this node had started", ctx.name(from));
            self.end(ctx, plan.id, Err(Failure { reason, culprits: Vec::new(), silent: Vec::new() }), false);
        }
    }

    pub fn on_message(&mut self, ctx: &mut Context, from: NodeId, message: SessionMessage) {
        let Some(incarnation) = ctx.incarnation_of(from) else { return };
        match message {
            SessionMessage::Round { session, broadcast, bytes } => {
                let incoming = Incoming { from: 0, broadcast, bytes };
                match self.running.get_mut(&session) {
                    Some(running) => match running.absorb(&mut self.waiting, (from, incarnation), incoming) {
                        Absorbed::Taken => {
                            running.progress = ctx.now.time;
                            self.step(ctx, session);
                        }
                        Absorbed::Strange => ctx.report(Report::Ignored {
                            peer: ctx.name(from),
                            what: format!("a message for session {session}, in which it does not take part"),
                        }),
                        Absorbed::Surplus => self.end_for_surplus(ctx, session, from),
                    },
                    None if self.ended.contains(&session) => {}
                    None => self.early.keep(ctx.now.time, session, (from, incarnation), incoming),
                }
            }
            SessionMessage::Computing { session } => match self.running.get_mut(&session) {
                Some(running) if running.participants.contains(&(from, incarnation)) => {
                    // It is not counted as heard: whoever only ever computes is named when the cap ends the session.
                    running.progress = ctx.now.time;
                }
                Some(_) => {}
                None => ctx.event(Event::StillComputing { session, from }),
            },
            SessionMessage::Abort { session, mut reason } => {
                match self.running.get(&session) {
                    Some(running) if running.may_be_ended_by((from, incarnation)) => {
                        // A participant that declines tells only the coordinator, which tells the others.
                        let tell = running.coordinator == ctx.me;
                        truncate(&mut reason);
                        let reason = format!("{} gave up: {reason}", ctx.name(from));
                        let failure = Failure { reason, culprits: Vec::new(), silent: Vec::new() };
                        self.end(ctx, session, Err(failure), tell);
                    }
                    Some(_) => {}
                    None if self.ended.contains(&session) => {}
                    None => self.early.give_up(ctx.now.time, session, (from, incarnation)),
                }
            }
        }
    }

    /// A worker gives a party back.
    pub fn on_computed(&mut self, ctx: &mut Context, id: SessionId, done: Done) {
        let away = self.away.remove(&id);
        let Done::Party(party, step) = done else { return };
        // A cancelled session ignores late results; its party's secrets are zeroized as it is dropped here. But what a
        // failed check says about the secrets of its sets is true all the same.
        if let (Some(away), Status::Failed(abort)) = (away, &step.status) {
            let sets = banned_sets(&away.participants, &away.pairs, abort);
            if !sets.is_empty() {
                ctx.event(Event::Ban { sets, reason: abort.reason.clone(), unsaid: Vec::new() });
            }
        }
        self.on_step(ctx, id, party, step);
        // It is not with a worker any more, if that has ended it.
        self.away.remove(&id);
    }

    fn on_step(&mut self, ctx: &mut Context, id: SessionId, party: Option<Box<dyn Party>>, step: Step) {
        let Some(running) = self.running.get_mut(&id) else { return };
        running.progress = ctx.now.time;
        let late = running.deadline.is_some_and(|deadline| ctx.now.wall > deadline);
        if !step.messages.is_empty() && late && !planted(Bug::DeadlineIgnored) {
            let reason = "the request's deadline has passed".to_owned();
            self.end(ctx, id, Err(Failure { reason, culprits: Vec::new(), silent: Vec::new() }), true);
            return;
        }
        let participants: Vec<NodeId> = running.participants.iter().map(|p| p.0).collect();
        let lane = running.lane;
        let mut unreachable = None;
        for outgoing in step.messages {
            let broadcast = outgoing.to.is_none();
            let message = Message::Session(SessionMessage::Round { session: id, broadcast, bytes: outgoing.bytes });
            for (at, node) in participants.iter().enumerate() {
                let addressed = outgoing.to.is_none_or(|to| usize::from(to) == at);
                if addressed && *node != ctx.me && ctx.try_send(*node, lane, &message).is_err() {
                    unreachable = Some(*node);
                }
            }
        }
        let Some(running) = self.running.get_mut(&id) else { return };
        match step.status {
            Status::Done(outcome) => self.end(ctx, id, Ok(outcome), false),
            Status::Failed(abort) => {
                let sets = banned_sets(&running.participants, &running.pairs, &abort);
                let culprits =
                    abort
                        .culprits
                        .iter()
                        .map(|at| {
                            if planted(Bug::WrongCulprit) { (at + 1) % running.participants.len() as u16 } else { *at }
                        })
                        .filter_map(|at| participants.get(usize::from(at)).copied())
                        .filter(|node| *node != ctx.me)
                        .collect();
                let failure = Failure { reason: abort.reason, culprits, silent: Vec::new() };
                if sets.is_empty() {
                    self.end(ctx, id, Err(failure), true);
                } else {
                    // Nobody hears of it before the ban is durable.
                    let reason = failure.reason.clone();
                    let unsaid = self.end_unsaid(ctx, id, failure);
                    ctx.event(Event::Ban { sets, reason, unsaid: unsaid.into_iter().collect() });
                }
            }
            Status::Waiting => {
                if let Some(node) = unreachable {
                    let reason = format!("{} cannot be reached", ctx.name(node));
                    self.end(ctx, id, Err(Failure { reason, culprits: Vec::new(), silent: vec![node] }), true);
                    return;
                }
                let Some(party) = party else { return };
                running.place = Place::Here(party);
                running.heard.clear();
                for incoming in &running.inbox {
                    running.heard.insert(incoming.from);
                }
                self.step(ctx, id);
            }
        }
    }

    /// A confirmed new incarnation, or silence, of a participant ends its sessions at once.
    pub fn on_link_down(&mut self, ctx: &mut Context, peer: NodeId, incarnation: Incarnation) {
        self.early.drop_peer(peer);
        if planted(Bug::SessionSurvivesRestart) {
            return;
        }
        let hit: Vec<SessionId> = self
            .running
            .iter()
            .filter(|(_, r)| r.participants.contains(&(peer, incarnation)))
            .map(|(id, _)| *id)
            .collect();
        for id in hit {
            let reason = format!("the link to {} went down", ctx.name(peer));
            self.end(ctx, id, Err(Failure { reason, culprits: Vec::new(), silent: vec![peer] }), true);
        }
    }

    /// Ends a session because its owner has no use for it any more.
    pub fn cancel(&mut self, ctx: &mut Context, id: SessionId, reason: &str) {
        if self.running.contains_key(&id) {
            let failure = Failure { reason: reason.to_owned(), culprits: Vec::new(), silent: Vec::new() };
            self.end(ctx, id, Err(failure), true);
        }
    }

    pub fn on_wake(&mut self, ctx: &mut Context) {
        self.early.expire(ctx.now.time);
        let ids: Vec<SessionId> = self.running.keys().copied().collect();
        for id in ids {
            let Some(running) = self.running.get_mut(&id) else { continue };
            let now = ctx.now.time;
            if matches!(running.place, Place::Away) && now >= running.said_computing.after(COMPUTING_NOTICE) {
                running.said_computing = now;
                let others: Vec<NodeId> = running.participants.iter().map(|p| p.0).filter(|n| *n != ctx.me).collect();
                let lane = running.lane;
                for node in others {
                    ctx.send(node, lane, Message::Session(SessionMessage::Computing { session: id }));
                }
            }
            let Some(running) = self.running.get(&id) else { continue };
            if now >= running.fails_at() {
                let silent = running.silent(ctx.me);
                let reason = if now >= running.started.after(running.pace.cap) {
                    format!("the session took longer than {} s", running.pace.cap.as_secs())
                } else {
                    format!("no progress for {} s", running.pace.progress.as_secs())
                };
                self.end(ctx, id, Err(Failure { reason, culprits: Vec::new(), silent }), true);
            }
        }
    }

    pub fn wake_at(&self) -> Option<Time> {
        let running = self.running.values().map(|r| match r.place {
            Place::Away => r.said_computing.after(COMPUTING_NOTICE).min(r.fails_at()),
            Place::Here(_) => r.fails_at(),
        });
        running.chain(self.early.wake_at()).min()
    }

    pub fn status(&self, ctx: &Context) -> Vec<SessionStatus> {
        self.running
            .iter()
            .map(|(id, r)| SessionStatus {
                session: id.to_string(),
                protocol: r.protocol.clone(),
                wallet: r.wallet.clone(),
                age_ms: millis(ctx.now.time.since(r.started)),
                waits_for: match r.place {
                    Place::Away => vec!["a worker".to_owned()],
                    Place::Here(_) => ctx.names(r.silent(ctx.me)),
                },
            })
            .collect()
    }

    /// Gives the party to a worker if it is here and has something to absorb.
    fn step(&mut self, ctx: &mut Context, id: SessionId) {
        let Some(running) = self.running.get_mut(&id) else { return };
        if running.inbox.is_empty() || matches!(running.place, Place::Away) {
            return;
        }
        let Place::Here(party) = std::mem::replace(&mut running.place, Place::Away) else { return };
        let inbox = std::mem::take(&mut running.inbox);
        forget_waiting(&mut self.waiting, &running.participants, &inbox);
        running.said_computing = ctx.now.time;
        let wish = Arc::downgrade(&running.wanted);
        let work =
            Box::new(move |_entropy: [u8; 32]| if is_over(&wish) { Done::Nothing } else { advance(party, inbox) });
        ctx.compute(JobFor::Session(id), running.priority, "session step", running.pace.heavy, work);
    }

    /// Whether a session runs here whose party uses an auxiliary set of this node's with `peer`.
    pub fn uses(&self, peer: NodeId, set: [u8; 32]) -> bool {
        self.running.values().any(|r| r.pairs.contains(&(peer, set)))
    }

    /// Ends every session whose party here uses an auxiliary set, without a word.
    pub fn end_users_of(&mut self, ctx: &mut Context, set: [u8; 32], reason: &str) -> Vec<Unsaid> {
        let users: Vec<SessionId> = self
            .running
            .iter()
            .filter(|(_, r)| r.pairs.iter().any(|(_, name)| *name == set))
            .map(|(id, _)| *id)
            .collect();
        let failure = || Failure { reason: reason.to_owned(), culprits: Vec::new(), silent: Vec::new() };
        users.into_iter().filter_map(|id| self.end_unsaid(ctx, id, failure())).collect()
    }

    /// Ends a session here and gives back what the participants and its owner have to hear.
    fn end_unsaid(&mut self, ctx: &mut Context, id: SessionId, failure: Failure) -> Option<Unsaid> {
        let running = self.take_out(ctx, id, Some(&failure))?;
        let others = running.participants.iter().map(|p| p.0).filter(|node| *node != ctx.me).collect();
        Some(Unsaid { session: id, owner: running.owner, failure, others, lane: running.lane })
    }

    fn end(&mut self, ctx: &mut Context, id: SessionId, result: Result<Outcome, Failure>, tell: bool) {
        let Some(running) = self.take_out(ctx, id, result.as_ref().err()) else { return };
        // A session that made keys has succeeded once they are a wallet: many may be made and closed for one request.
        if result.is_ok() && running.owner != Owner::Wallet {
            self.succeeded(running.coordinator);
        }
        if let (true, Err(failure)) = (tell, &result) {
            for (node, _) in &running.participants {
                if *node != ctx.me {
                    let abort = SessionMessage::Abort { session: id, reason: failure.reason.clone() };
                    ctx.send(*node, running.lane, Message::Session(abort));
                }
            }
        }
        ctx.event(Event::SessionEnded { session: id, owner: running.owner, result });
    }

    fn end_for_surplus(&mut self, ctx: &mut Context, id: SessionId, from: NodeId) {
        let reason = format!("{} said more than there is to say", ctx.name(from));
        self.end(ctx, id, Err(Failure { reason, culprits: vec![from], silent: Vec::new() }), true);
    }

    /// Forgets a session, but for its name, and reports its end.
    fn take_out(&mut self, ctx: &mut Context, id: SessionId, failure: Option<&Failure>) -> Option<Running> {
        let running = self.running.remove(&id)?;
        if matches!(running.place, Place::Away) && !running.pairs.is_empty() {
            let away = Away { participants: running.participants.clone(), pairs: running.pairs.clone() };
            self.away.insert(id, away);
        }
        forget_waiting(&mut self.waiting, &running.participants, &running.inbox);
        if self.ended.insert(id) {
            self.ended_order.push_back(id);
        }
        if self.ended_order.len() > ENDED_REMEMBERED
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        let (reason, culprits, silent) = match failure {
            None => (String::new(), Vec::new(), Vec::new()),
            Some(f) => (f.reason.clone(), ctx.names(f.culprits.clone()), ctx.names(f.silent.clone())),
        };
        ctx.report(Report::SessionEnded {
            session: id.to_string(),
            protocol: running.protocol.clone(),
            wallet: running.wallet.clone(),
            reason,
            culprits,
            silent,
            took_ms: millis(ctx.now.time.since(running.started)),
        });
        Some(running)
    }
}

impl Running {
    /// Whether it is over if this one gives it up. Who coordinates need not take part.
    fn may_be_ended_by(&self, from: Participant) -> bool {
        self.participants.contains(&from) || self.coordinator == from.0
    }

    /// Takes a message in. What one participant sends takes nobody else's room.
    fn absorb(&mut self, waiting: &mut BTreeMap<NodeId, usize>, from: Participant, mut incoming: Incoming) -> Absorbed {
        let Some(at) = self.participants.iter().position(|p| *p == from) else { return Absorbed::Strange };
        let (Ok(position), Some(received)) = (u16::try_from(at), self.received.get_mut(at)) else {
            return Absorbed::Strange;
        };
        let size = incoming.bytes.len();
        received.messages += 1;
        received.bytes += size;
        let waiting = waiting.entry(from.0).or_default();
        if received.messages > limits::SESSION_MESSAGES_MAX
            || received.bytes > self.pace.bytes
            || *waiting + size > limits::PEER_INBOX_BYTES_MAX
        {
            return Absorbed::Surplus;
        }
        *waiting += size;
        self.heard.insert(position);
        incoming.from = position;
        self.inbox.push(incoming);
        Absorbed::Taken
    }

    fn fails_at(&self) -> Time {
        let cap = self.started.after(self.pace.cap);
        match self.place {
            // Own computing is progress: only the cap counts.
            Place::Away => cap,
            Place::Here(_) => cap.min(self.progress.after(self.pace.progress)),
        }
    }

    fn silent(&self, me: NodeId) -> Vec<NodeId> {
        self.participants
            .iter()
            .enumerate()
            .filter(|(at, p)| p.0 != me && !u16::try_from(*at).is_ok_and(|at| self.heard.contains(&at)))
            .map(|(_, p)| p.0)
            .collect()
    }
}

/// The sets about whose secrets a failed check says something.
fn banned_sets(participants: &[Participant], pairs: &[(NodeId, [u8; 32])], abort: &Abort) -> Vec<(NodeId, [u8; 32])> {
    let banned: Vec<NodeId> = abort.bans.iter().filter_map(|at| Some(participants.get(usize::from(*at))?.0)).collect();
    pairs.iter().filter(|(node, _)| banned.contains(node)).copied().collect()
}

/// Messages are handed to a party, or dropped.
fn forget_waiting(waiting: &mut BTreeMap<NodeId, usize>, participants: &[Participant], inbox: &[Incoming]) {
    for incoming in inbox {
        if let Some((node, _)) = participants.get(usize::from(incoming.from))
            && let Some(waiting) = waiting.get_mut(node)
        {
            *waiting -= incoming.bytes.len();
        }
    }
}

/// Whether a session has ended while its job waited for a worker.
fn is_over(wanted: &Weak<()>) -> bool {
    wanted.strong_count() == 0
}

fn advance(mut party: Box<dyn Party>, inbox: Vec<Incoming>) -> Done {
    let step = party.advance(inbox);
    match step.status {
        Status::Waiting => Done::Party(Some(party), step),
        Status::Done(_) | Status::Failed(_) => Done::Party(None, step),
    }
}

/// A node's position among participants.
pub(crate) fn position(participants: &[Participant], node: NodeId) -> Option<u16> {
    participants.iter().position(|p| p.0 == node).and_then(|at| u16::try_from(at).ok())
}

/// A duration in whole milliseconds; saturates.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Longest text of a peer that goes into reports and answers, in bytes.
const PEER_TEXT_MAX: usize = 300;

/// Cuts a peer's text to a length that is fit for reports.
pub(crate) fn truncate(text: &mut String) {
    if text.len() > PEER_TEXT_MAX {
        let mut at = PEER_TEXT_MAX;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.truncate(at);
        text.push('…');
    }
}
