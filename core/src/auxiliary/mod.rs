//! Auxiliary data of the ECDSA suite: made in the background by the nodes that answer, once, for all wallets.
//!
//! What follows is about suites whose sets have a whole committee as members; where every pair of nodes has a set of its
//! own, [`pairs`] says who makes it, what covers the signers, and how a set ends whose secrets may have suffered.
//!
//! Every node makes ingredients (safe primes, for CGGMP24) at low priority and keeps a reserve. The lowest node that
//! answers and has one proposes a run among all nodes; if some are missing for long, among those that answer. A set
//! may be used once every member has stored it and signed that its public rows are the same: then no two members
//! disagree about it. Several sets may exist; a signature uses one that contains its signers.
//!
//! A run costs minutes of computing and leaves a record, and any member can propose one, or keep its word on the set back.
//! So nobody joins a run for members that have a set, or soon after one of the same proposer that led to nothing
//! ([`pace`]), nor again and again for a member that says it has lost what everybody had agreed to; and sets that nobody
//! needs are dropped.

mod pace;
mod pairs;
mod precomputed;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    Duration, Identity, NodeId, Secret, Time,
    context::{After as ContextAfter, Context, Event, JobFor},
    decode, identity, limits,
    link::Lane,
    message::{Message as Envelope, SessionMessage},
    node::{AuxiliaryStatus, IngredientStatus, Table},
    protocol::{AuxiliarySet, AuxiliaryView, Coverage, Done, Opened, Outcome, Priority},
    report::Report,
    request::signing::participant::check_participants,
    session::{Failure, Owner, Participant, Plan, SessionId, Sessions, Unsaid},
    store::{Batch, Keyspace},
    tags,
};

/// Between nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// What the sender has: said when a link comes up and when it changes. `sets` are those that it holds; `agreed`
    /// is every member's word on them that it knows, so that a word survives the node that gave it.
    /// `pairs` are the sets that it would sign with, by the other member; `banned` those that it never will again.
    State {
        has_ingredient: bool,
        sets: Vec<[u8; 32]>,
        agreed: Vec<Agreed>,
        pairs: Vec<(NodeId, [u8; 32])>,
        banned: Vec<[u8; 32]>,
    },
    /// Leader to participants.
    Propose(Proposal),
}

/// A member's signed word that it stored a set with exactly these public rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Agreed {
    name: [u8; 32],
    node: NodeId,
    signature: crate::wallet::Signature,
}

#[cfg(test)]
impl Agreed {
    /// The name of a set, and a member's word on it.
    pub fn sign(suite: &str, members: &[NodeId], set: &AuxiliarySet, by: &crate::Identity) -> ([u8; 32], Self) {
        let name = set_name(suite, members, &set.rows);
        let signature = by.sign(tags::AUXILIARY_AGREED, &agreed_body(&name, by.id()));
        (name, Self { name, node: by.id(), signature: crate::wallet::Signature(signature) })
    }
}

/// A run among these participants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Proposal {
    participants: Vec<Participant>,
    nonce: [u8; 16],
}

/// What continues after a write.
#[derive(Debug)]
pub(crate) enum After {
    /// What is left here of sets is durable, and this one if it was made just now: say so.
    Stored(Option<[u8; 32]>),
    /// The bans of these sets are durable here: say so, and what was held back until then.
    Banned(Vec<[u8; 32]>, Vec<Unsaid>),
}

#[derive(Clone, Serialize, Deserialize)]
struct Set {
    members: Vec<NodeId>,
    index: u16,
    data: AuxiliarySet,
    /// Names of the pieces that went into it; they are kept until every member agrees, so that a run that half failed
    /// can be repeated at once.
    pieces: Vec<Vec<u8>>,
    agreed: BTreeMap<NodeId, crate::wallet::Signature>,
    /// When it was made, and whose [`pace`](pace::Pace) that counts for, if this start of the node took part.
    #[serde(skip)]
    made: Option<(Time, NodeId)>,
    /// Whether it is durable here: before that nobody hears of it, nor that this node agrees to it.
    #[serde(skip)]
    durable: bool,
    /// `data` as the suite has read it, or what it has computed in advance. Gone with the set, and so with a ban.
    #[serde(skip)]
    opened: Option<Opened>,
}

#[derive(Serialize, Deserialize)]
enum StoredSet {
    V1(Set),
    /// What is left of a set that must never be used again: its secrets are gone with the record that this replaced.
    Banned(Ban),
}

/// Reads a stored set; `false`: it is none. See [`crate::decode`].
pub(crate) fn reads_stored(bytes: &[u8]) -> bool {
    decode::exact(bytes).is_some_and(|stored| {
        if let StoredSet::V1(set) = &stored {
            let _ = set.is_agreed();
        }
        true
    })
}

/// For the tests of encodings.
#[cfg(test)]
pub(crate) fn codec() -> crate::codecs::Codec {
    crate::codecs::codec::<StoredSet>("auxiliary record")
}

impl Set {
    fn is_agreed(&self) -> bool {
        self.agreed.len() == self.members.len()
    }

    fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(&StoredSet::V1(self.clone())).expect("a record of plain data serialises")
    }
}

use pace::Part;
use pairs::{Ban, Tries};

struct Joining {
    by: NodeId,
    members: Vec<NodeId>,
    pieces: Vec<Vec<u8>>,
}

/// How long a missing node is waited for before a set is made without it.
const PATIENCE: Duration = Duration::from_secs(300);
/// Sets of the same members that are kept although somebody's word is missing: it may have been given and be on its way.
const UNAGREED_KEPT: usize = 4;
/// First wait before a failed run is repeated; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(2);
/// Longest wait before a failed run is repeated.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// This node's auxiliary data.
pub(crate) struct Auxiliary {
    sets: BTreeMap<[u8; 32], Set>,
    pieces: BTreeMap<Vec<u8>, Secret>,
    /// Pieces that are being made.
    making: usize,
    joining: BTreeMap<SessionId, Joining>,
    has_ingredient: BTreeMap<NodeId, bool>,
    /// Sets that a member does not hold (any more), by its own word.
    lacks: BTreeMap<NodeId, BTreeSet<[u8; 32]>>,
    /// Since when no agreed set contains everybody that it should.
    lacking_since: Option<Time>,
    next_try: Time,
    backoff: Duration,
    /// Sets that must never be used again.
    bans: BTreeMap<[u8; 32], Ban>,
    /// Sets that a peer would sign with, by the other member.
    claims: BTreeMap<NodeId, BTreeMap<NodeId, [u8; 32]>>,
    /// When a set-up with a peer may be tried again.
    tries: BTreeMap<NodeId, Tries>,
    /// When the next run that a node proposes is joined.
    paces: BTreeMap<NodeId, pace::Pace>,
    precomputed: precomputed::Progress,
    /// Records of pairs' sets that are not in use: of a suite that the cluster signed with before, or unusable.
    dormant: BTreeSet<Vec<u8>>,
    /// Members that said they lost sets that everybody had agreed to.
    losses: BTreeMap<NodeId, pace::Loss>,
}

impl Default for Auxiliary {
    fn default() -> Self {
        Self {
            sets: BTreeMap::new(),
            pieces: BTreeMap::new(),
            making: 0,
            joining: BTreeMap::new(),
            has_ingredient: BTreeMap::new(),
            lacks: BTreeMap::new(),
            lacking_since: None,
            next_try: Time(0),
            backoff: RETRY_MIN,
            bans: BTreeMap::new(),
            claims: BTreeMap::new(),
            tries: BTreeMap::new(),
            paces: BTreeMap::new(),
            precomputed: precomputed::Progress::default(),
            dormant: BTreeSet::new(),
            losses: BTreeMap::new(),
        }
    }
}

impl Auxiliary {
    /// Takes back what the store holds.
    pub fn restore(&mut self, ctx: &mut Context, records: &[(Keyspace, Vec<u8>, Secret)]) {
        for (keyspace, key, value) in records {
            match keyspace {
                Keyspace::Ingredients => drop(self.pieces.insert(key.clone(), value.clone())),
                Keyspace::Auxiliary => {
                    let suite = ctx.suites.secp256k1.clone();
                    let Some(auxiliary) = suite.auxiliary() else { continue };
                    // The store authenticates what it returns: an unreadable record is ours and wrong.
                    let stored: StoredSet = decode::exact(value.expose())
                        .unwrap_or_else(|| panic!("the auxiliary set {} cannot be read", hex::encode(key)));
                    let mut set = match stored {
                        StoredSet::V1(set) => set,
                        StoredSet::Banned(ban) => {
                            self.restore_ban(ctx, key, ban);
                            continue;
                        }
                    };
                    let name = set_name(suite.name(), &set.members, &set.data.rows);
                    let is_pair = set.members.len() == 2;
                    if name.as_slice() != key.as_slice() {
                        // The cluster signed with another protocol then, and may do so again.
                        if is_pair {
                            self.dormant.insert(key.clone());
                        }
                        continue;
                    }
                    match auxiliary.check(&set.data, set.index) {
                        Ok(()) => {
                            set.opened = auxiliary.open(&set.data);
                            set.durable = true;
                            self.sets.insert(name, set);
                        }
                        Err(abort) => {
                            if is_pair {
                                self.dormant.insert(key.clone());
                            }
                            ctx.report(Report::Alarm {
                                what: format!("auxiliary set {} is unusable: {}", hex::encode(key), abort.reason),
                            });
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Looks at what is to be done: pieces to make, a run to propose.
    pub fn drive(&mut self, ctx: &mut Context) {
        let suite = ctx.suites.secp256k1.clone();
        let Some(auxiliary) = suite.auxiliary() else { return };
        if auxiliary.coverage() == Coverage::Pairs {
            self.propose_pairs(ctx);
            return;
        }
        let wanted = self.wanted(ctx);
        let parallel = ctx.config.workers.saturating_sub(1).max(1);
        while self.pieces.len() + self.making < wanted && self.making < parallel {
            self.making += 1;
            let seed = Zeroizing::new(ctx.random_bytes::<32>());
            let suite = suite.clone();
            let work = Box::new(move |entropy: [u8; 32]| match suite.auxiliary() {
                Some(auxiliary) => {
                    let seed = tags::INGREDIENT_SEED.derive(seed.as_slice(), &entropy);
                    Done::Piece(auxiliary.make_ingredient_piece(*seed))
                }
                None => Done::Piece(Secret::new(Vec::new())),
            });
            ctx.compute(JobFor::Piece, Priority::Background, "safe prime", false, work);
        }
        self.precompute(ctx);
        self.propose(ctx);
    }

    pub fn on_piece(&mut self, ctx: &mut Context, piece: Secret) {
        self.making = self.making.saturating_sub(1);
        let key = ctx.random_bytes::<16>().to_vec();
        let had = self.has_own_ingredient(ctx);
        let mut batch = Batch::default();
        batch.put(Keyspace::Ingredients, key.clone(), piece.expose().to_vec());
        self.pieces.insert(key, piece);
        ctx.persist(batch, ContextAfter::Nothing);
        let wanted = self.wanted(ctx);
        ctx.report(Report::IngredientMade { pieces: self.pieces.len(), wanted });
        if !had && self.has_own_ingredient(ctx) {
            self.tell_everybody(ctx);
        }
        self.drive(ctx);
    }

    pub fn on_link_up(&mut self, ctx: &mut Context, peer: NodeId) {
        self.has_ingredient.remove(&peer);
        self.tell(ctx, peer);
    }

    pub fn on_link_down(&mut self, peer: NodeId) {
        self.has_ingredient.remove(&peer);
        self.claims.remove(&peer);
    }

    pub fn on_message(&mut self, ctx: &mut Context, sessions: &mut Sessions, from: NodeId, message: Message) {
        match message {
            Message::State { has_ingredient, sets, agreed, pairs, banned } => {
                self.on_banned(ctx, sessions, from, &banned);
                self.claims.insert(from, pairs.into_iter().take(limits::NODES_MAX).collect());
                self.has_ingredient.insert(from, has_ingredient);
                let lacks = self.sets.iter().filter(|(name, set)| set.members.contains(&from) && !sets.contains(name));
                let lacks: BTreeSet<[u8; 32]> = lacks.map(|(name, _)| *name).collect();
                let before = self.lacks.insert(from, lacks.clone()).unwrap_or_default();
                let mut news = false;
                for agreed in agreed.into_iter().take(limits::AUXILIARY_SETS_MAX * limits::NODES_MAX) {
                    news |= self.on_agreed(ctx, from, &agreed);
                }
                // A set that another one has replaced is none.
                let lost = |name| self.sets.get(name).is_some_and(|set| set.is_agreed() && !self.covers(&set.members));
                if lacks.difference(&before).any(lost) {
                    self.lost(ctx, from);
                }
                if news {
                    // The peer may have finished later than this node, and dropped what this node said then.
                    self.tell(ctx, from);
                }
                self.drive(ctx);
                // A pair of others may be able to sign now.
                ctx.event(Event::Resume);
            }
            Message::Propose(proposal) => self.on_proposal(ctx, sessions, from, &proposal),
        }
    }

    /// Takes a member's word; `true` if it is news.
    fn on_agreed(&mut self, ctx: &mut Context, from: NodeId, agreed: &Agreed) -> bool {
        let Some(set) = self.sets.get_mut(&agreed.name) else { return false };
        let node = agreed.node;
        let Some(key) = ctx.config.peer(node).map(|p| p.key) else { return false };
        if set.agreed.contains_key(&node) || !set.members.contains(&node) {
            return false;
        }
        if !identity::verify(&key, tags::AUXILIARY_AGREED, &agreed_body(&agreed.name, node), &agreed.signature.0) {
            ctx.report(Report::Ignored { peer: ctx.name(from), what: "a wrong signature on an auxiliary set".into() });
            return false;
        }
        set.agreed.insert(node, agreed.signature);
        let mut batch = Batch::default();
        if set.is_agreed() {
            for piece in std::mem::take(&mut set.pieces) {
                self.pieces.remove(&piece);
                batch.remove(Keyspace::Ingredients, piece);
            }
        }
        batch.put(Keyspace::Auxiliary, agreed.name.to_vec(), set.encode());
        let (is_agreed, members, made) = (set.is_agreed(), set.members.clone(), set.made);
        if is_agreed && is_pairwise(ctx) {
            self.supersede(&agreed.name, &members, &mut batch);
        }
        self.drop_surplus(ctx, &agreed.name, &mut batch);
        if let Some((_, with)) = made.filter(|_| is_agreed) {
            self.paces.remove(&with);
        }
        ctx.persist(batch, ContextAfter::Nothing);
        if is_agreed {
            ctx.report(Report::AuxiliaryReady { set: short(&agreed.name), members: ctx.names(members) });
            self.lacking_since = None;
            // Those who coordinate signatures learn of a pair's set, and name none that is gone; and no member that they
            // name lacks a word that is known here.
            self.tell_everybody(ctx);
            ctx.event(Event::Resume);
        }
        true
    }

    fn on_proposal(&mut self, ctx: &mut Context, sessions: &mut Sessions, from: NodeId, proposal: &Proposal) {
        let session = proposal.session();
        let refuse = |ctx: &mut Context, reason: String| {
            ctx.send(from, Lane::Bulk, Envelope::Session(SessionMessage::Abort { session, reason }));
        };
        if !sessions.admits(ctx, from) {
            return refuse(ctx, "it proposes more than one node may".to_owned());
        }
        let suite = ctx.suites.secp256k1.clone();
        let Some(auxiliary) = suite.auxiliary() else { return };
        let pairwise = auxiliary.coverage() == Coverage::Pairs;
        let members: Vec<NodeId> = proposal.participants.iter().map(|p| p.0).collect();
        if members.iter().any(|member| *member != ctx.me && self.is_banning_with(*member)) {
            // Any reason would tell the ban.
            return;
        }
        let pieces: Vec<Vec<u8>> =
            self.pieces.keys().take(usize::from(auxiliary.ingredient_pieces())).cloned().collect();
        let problem = if let Err(decline) = check_participants(ctx, &proposal.participants) {
            Some(decline.to_string())
        } else if !members.is_sorted() || members.first() != Some(&from) {
            Some("it is the first of the members who proposes a run".to_owned())
        } else if pairwise {
            self.refuses_pair(ctx, from, members.len())
        } else if members.len() < usize::from(ctx.config.threshold) {
            Some("the proposed members are no committee".to_owned())
        } else if pieces.len() < usize::from(auxiliary.ingredient_pieces()) {
            Some("it has no ingredient yet".to_owned())
        } else if self.covers(&members) {
            // Whoever proposes does not know it.
            self.tell(ctx, from);
            Some("the proposed members have a set".to_owned())
        } else if let Some(wait) = self.waits_for(ctx, from) {
            Some(format!("its last run led to nothing: not for {} s", wait.as_secs()))
        } else if let Some((node, wait)) =
            members.iter().find_map(|node| Some((*node, self.loss_keeps_from(ctx, *node, Part::Join)?)))
        {
            Some(format!("{} has lost its last set: not for {} s", ctx.name(node), wait.as_secs()))
        } else if !self.joining.is_empty() {
            Some("another run is under way".to_owned())
        } else {
            None
        };
        let full = !sessions.has_room() || sessions.knows(session);
        if let Some(reason) = problem.or_else(|| full.then(|| "another run is under way".to_owned())) {
            return refuse(ctx, reason);
        }
        let parties = u16::try_from(members.len()).unwrap_or(u16::MAX);
        let ingredient: Vec<Secret> = pieces.iter().filter_map(|p| self.pieces.get(p).cloned()).collect();
        let execution_id = proposal.execution_id(suite.name());
        let pace = auxiliary.pace(parties);
        self.joining.insert(session, Joining { by: from, members, pieces });
        let starter = suite.clone();
        sessions.start(
            ctx,
            Plan {
                id: session,
                owner: Owner::Auxiliary,
                protocol: "auxiliary".to_owned(),
                wallet: String::new(),
                attempt: 0,
                coordinator: from,
                participants: proposal.participants.clone(),
                execution_id,
                pace,
                deadline: None,
                pairs: Vec::new(),
                priority: Priority::Background,
                lane: Lane::Bulk,
                start: Box::new(move |run| match starter.auxiliary() {
                    Some(auxiliary) => auxiliary.start(run, ingredient),
                    None => Err(crate::protocol::Abort::new("the suite has no auxiliary data")),
                }),
            },
        );
    }

    pub fn on_session_ended(&mut self, ctx: &mut Context, session: SessionId, result: Result<Outcome, Failure>) {
        let Some(joining) = self.joining.remove(&session) else { return };
        let data = match result {
            Ok(Outcome::Auxiliary(data)) => Some(data),
            Ok(_) => None,
            Err(failure) => {
                for node in failure.culprits.into_iter().chain(failure.silent) {
                    ctx.blame(node);
                }
                None
            }
        };
        let pairwise = is_pairwise(ctx);
        // A pair's runs are all proposed by the same one of the two.
        let peer = joining.members.iter().copied().find(|member| *member != ctx.me);
        let with = peer.filter(|_| pairwise).unwrap_or(joining.by);
        let wait = self.ran(ctx, with, data.is_some());
        if pairwise {
            self.on_tried(ctx, &joining.members, data.is_some().then_some(wait));
        }
        let own = joining.by == ctx.me;
        let Some(data) = data else {
            self.next_try = ctx.now.time.after(if own { wait } else { self.backoff });
            self.backoff = (self.backoff * 2).min(RETRY_MAX);
            return;
        };
        let Some(index) = joining.members.iter().position(|m| *m == ctx.me).and_then(|i| u16::try_from(i).ok()) else {
            return;
        };
        self.backoff = RETRY_MIN;
        // The others have a moment to agree before anybody thinks of another run.
        self.next_try = ctx.now.time.after(if own { wait } else { RETRY_MAX });
        let name = set_name(ctx.suites.secp256k1.name(), &joining.members, &data.rows);
        if self.sets.contains_key(&name) {
            // The same ingredients made the same set again, and with what is held stand the words of those who agreed
            // to it while the last members were still at it: they do not say them twice.
            return self.tell_everybody(ctx);
        }
        let signature = agree(&ctx.identity, &name);
        let mut agreed = BTreeMap::new();
        agreed.insert(ctx.me, crate::wallet::Signature(signature));
        let opened = ctx.suites.secp256k1.auxiliary().and_then(|auxiliary| auxiliary.open(&data));
        let made = Some((ctx.now.time, with));
        let members = joining.members;
        let set = Set { members, index, data, pieces: joining.pieces, agreed, made, durable: false, opened };
        let mut batch = Batch::default();
        batch.put(Keyspace::Auxiliary, name.to_vec(), set.encode());
        self.sets.insert(name, set);
        self.drop_surplus(ctx, &name, &mut batch);
        ctx.persist(batch, ContextAfter::Auxiliary(After::Stored(Some(name))));
    }

    pub fn on_persisted(&mut self, ctx: &mut Context, after: After) {
        match after {
            After::Stored(made) => {
                if let Some(set) = made.and_then(|name| self.sets.get_mut(&name)) {
                    set.durable = true;
                }
                self.tell_everybody(ctx);
            }
            After::Banned(names, unsaid) => {
                self.durable(&names);
                self.tell_everybody(ctx);
                for unsaid in unsaid {
                    unsaid.say(ctx);
                }
            }
        }
    }

    pub fn on_wake(&mut self, ctx: &mut Context) {
        self.drive(ctx);
    }

    pub fn wake_at(&self, ctx: &Context) -> Option<Time> {
        if is_pairwise(ctx) {
            return self.pairs_wake_at(ctx);
        }
        let since = self.lacking_since?;
        let now = ctx.now.time;
        let patience = since.after(PATIENCE);
        [self.next_try, patience].into_iter().chain(self.losses_end()).filter(|at| *at > now).min()
    }

    /// Proposes a run if one is needed and it is this node's turn.
    fn propose(&mut self, ctx: &mut Context) {
        let all: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).collect();
        let reachable = ctx.reachable();
        let missing = reachable.len() < all.len();
        let covered = |members: &[NodeId]| self.covers(members);
        if covered(&all) || (missing && covered(&reachable)) {
            self.lacking_since = None;
            return;
        }
        let now = ctx.now.time;
        let since = *self.lacking_since.get_or_insert(now);
        let ready: Vec<NodeId> = reachable
            .iter()
            .copied()
            .filter(|id| {
                if *id == ctx.me { self.has_own_ingredient(ctx) } else { self.has_ingredient.get(id) == Some(&true) }
            })
            .collect();
        let mut ready = ready;
        if now >= since.after(PATIENCE) {
            ready.retain(|id| !ctx.is_blamed(*id));
        }
        ready.retain(|id| self.loss_keeps_from(ctx, *id, Part::Propose).is_none());
        // A set of these would be no news; those that it lacks have no ingredient yet.
        if self.covers(&ready) {
            return;
        }
        let complete = ready.len() == all.len();
        let enough = ready.len() >= usize::from(ctx.config.threshold);
        let patient = now >= since.after(PATIENCE);
        if now < self.next_try || !self.joining.is_empty() || !enough || !(complete || patient) {
            return;
        }
        if ready.first() != Some(&ctx.me) {
            return;
        }
        self.next_try = now.after(self.backoff);
        let participants = ready.iter().filter_map(|id| Some((*id, ctx.incarnation_of(*id)?))).collect();
        let proposal = Proposal { participants, nonce: ctx.random_bytes() };
        for node in ready {
            ctx.send(node, Lane::Bulk, Envelope::Auxiliary(Message::Propose(proposal.clone())));
        }
    }

    fn wanted(&self, ctx: &Context) -> usize {
        let Some(auxiliary) = ctx.suites.secp256k1.auxiliary() else { return 0 };
        let all: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).collect();
        let ingredients = ctx.config.ingredients_reserve.max(usize::from(!self.covers(&all)));
        ingredients * usize::from(auxiliary.ingredient_pieces())
    }

    /// Drops sets that nobody needs, now that this one was stored or agreed to. A member that has dropped a set says so
    /// and is not asked to use it.
    fn drop_surplus(&mut self, ctx: &Context, newest: &[u8; 32], batch: &mut Batch) {
        let Some(set) = self.sets.get(newest) else { return };
        let others = || self.sets.iter().filter(|(name, _)| *name != newest);
        // Those of the same members that lack somebody's word: it is not given any more once they have a set.
        let unagreed = others().filter(|(_, other)| other.members == set.members && !other.is_agreed());
        let mut unagreed: Vec<_> = unagreed.map(|(name, other)| (other.made, *name)).collect();
        unagreed.sort_unstable();
        let kept = if set.is_agreed() { 0 } else { UNAGREED_KEPT - 1 };
        unagreed.truncate(unagreed.len().saturating_sub(kept));
        let mut surplus: BTreeSet<[u8; 32]> = unagreed.into_iter().map(|(_, name)| name).collect();
        if !is_pairwise(ctx) {
            // Of too many those that serve the fewest.
            let left = others().filter(|(name, _)| !surplus.contains(*name));
            let mut left: Vec<_> =
                left.map(|(name, other)| ((other.is_agreed(), other.members.len(), other.made), *name)).collect();
            left.sort_unstable();
            left.truncate(left.len().saturating_sub(limits::AUXILIARY_SETS_MAX - 1));
            surplus.extend(left.into_iter().map(|(_, name)| name));
        }
        for name in &surplus {
            self.sets.remove(name);
            batch.remove(Keyspace::Auxiliary, name.to_vec());
        }
    }

    /// Whether an agreed set serves all of these nodes.
    fn covers(&self, nodes: &[NodeId]) -> bool {
        self.sets.iter().any(|(name, set)| set.is_agreed() && nodes.iter().all(|node| self.serves(name, set, *node)))
    }

    fn serves(&self, name: &[u8; 32], set: &Set, node: NodeId) -> bool {
        set.members.contains(&node) && !self.lacks.get(&node).is_some_and(|lacks| lacks.contains(name))
    }

    fn has_own_ingredient(&self, ctx: &Context) -> bool {
        let pieces = ctx.suites.secp256k1.auxiliary().map_or(0, |a| usize::from(a.ingredient_pieces()));
        self.pieces.len() >= pieces
    }

    fn state(&self, ctx: &Context) -> Message {
        let durable = || self.sets.iter().filter(|(_, set)| set.durable);
        let agreed = durable().flat_map(|(name, set)| {
            set.agreed.iter().map(|(node, signature)| Agreed { name: *name, node: *node, signature: *signature })
        });
        Message::State {
            has_ingredient: self.has_own_ingredient(ctx),
            sets: durable().map(|(name, _)| *name).collect(),
            agreed: agreed.collect(),
            pairs: self.own_pairs(ctx),
            banned: self.bans.keys().copied().collect(),
        }
    }

    /// Says what this node has; but nothing while a ban waits to be durable, when everybody is told.
    fn tell(&self, ctx: &mut Context, peer: NodeId) {
        if !self.is_banning() {
            let state = self.state(ctx);
            ctx.send(peer, Lane::Control, Envelope::Auxiliary(state));
        }
    }

    fn tell_everybody(&self, ctx: &mut Context) {
        for node in ctx.reachable() {
            if node != ctx.me {
                self.tell(ctx, node);
            }
        }
    }

    /// What this signer needs of the named sets.
    ///
    /// # Errors
    /// In words: what it does not hold.
    pub fn view(&self, ctx: &Context, names: &[[u8; 32]], signers: &[NodeId]) -> Result<View, String> {
        if is_pairwise(ctx) {
            return self.view_of_pairs(ctx, names, signers);
        }
        let [name] = names else { return Err("the proposal names no auxiliary set".to_owned()) };
        if self.sets.get(name).is_some_and(|set| !set.is_agreed()) {
            return Err("not every member has agreed to that auxiliary set".to_owned());
        }
        let view = self.view_of_set(*name, signers);
        let view = view.ok_or_else(|| "it does not hold that auxiliary set".to_owned())?;
        Ok(View { views: vec![view], pairs: Vec::new() })
    }

    /// Its own secrets, and the rows of the signers in their order.
    fn view_of_set(&self, name: [u8; 32], signers: &[NodeId]) -> Option<AuxiliaryView> {
        let set = self.sets.get(&name)?;
        let rows = signers.iter().map(|node| {
            let at = set.members.iter().position(|m| m == node)?;
            set.data.rows.get(at).cloned()
        });
        Some(AuxiliaryView {
            secret: set.data.secret.clone(),
            rows: rows.collect::<Option<_>>()?,
            opened: set.opened.clone(),
        })
    }

    /// The first `threshold` candidates that agreed sets cover, in order of their ids, and the names of these sets.
    /// Candidates come in order of preference; the most preferred choice wins.
    pub fn choose(
        &self,
        ctx: &Context,
        candidates: &[NodeId],
        threshold: usize,
    ) -> Option<(Vec<[u8; 32]>, Vec<NodeId>)> {
        if is_pairwise(ctx) {
            return self.choose_pairs(ctx, candidates, threshold);
        }
        let (name, mut nodes) = self.choose_set(candidates, threshold)?;
        nodes.sort();
        Some((vec![name], nodes))
    }

    /// Whether enough nodes have auxiliary data together, wherever they are now.
    pub fn is_ready(&self, ctx: &Context) -> bool {
        let all: Vec<NodeId> = ctx.config.peers.iter().map(|p| p.id).collect();
        self.choose(ctx, &all, usize::from(ctx.config.threshold)).is_some()
    }

    fn choose_set(&self, candidates: &[NodeId], threshold: usize) -> Option<([u8; 32], Vec<NodeId>)> {
        self.sets
            .iter()
            .filter(|(_, set)| set.is_agreed())
            .filter_map(|(name, set)| {
                let at: Vec<usize> = candidates
                    .iter()
                    .enumerate()
                    .filter(|(_, c)| self.serves(name, set, **c))
                    .map(|(at, _)| at)
                    .take(threshold)
                    .collect();
                (at.len() == threshold).then_some((at, name))
            })
            .min()
            .map(|(at, name)| (*name, at.into_iter().filter_map(|i| candidates.get(i).copied()).collect()))
    }

    pub fn tables(&self) -> [Table; 10] {
        [
            // One set for each pair, or so many for committees, and some that nobody agrees to.
            ("auxiliary sets", self.sets.len(), Some((limits::NODES_MAX - 1) * (1 + UNAGREED_KEPT))),
            ("nodes that have proposed runs", self.paces.len(), Some(limits::NODES_MAX)),
            ("nodes that have lost sets", self.losses.len(), Some(limits::NODES_MAX)),
            ("pairs' sets that are not in use", self.dormant.len(), None),
            ("pieces of ingredients", self.pieces.len(), None),
            ("auxiliary runs", self.joining.len(), Some(limits::SESSIONS_MAX)),
            ("banned auxiliary sets", self.bans.len(), Some(pairs::BANS_KEPT * limits::NODES_MAX)),
            ("peers that name their pairs", self.claims.len(), Some(limits::NODES_MAX)),
            ("pairs that are tried again", self.tries.len(), Some(limits::NODES_MAX)),
            ("rows that something is computed from", self.precomputed_rows(), Some(limits::PRECOMPUTED_ROWS_MAX)),
        ]
    }

    pub fn status(&self, ctx: &Context) -> (IngredientStatus, Vec<AuxiliaryStatus>) {
        let ingredients =
            IngredientStatus { pieces: self.pieces.len(), wanted: self.wanted(ctx), making: self.making > 0 };
        let sets = self
            .sets
            .iter()
            .map(|(name, set)| AuxiliaryStatus {
                name: short(name),
                members: ctx.names(set.members.iter().copied()),
                agreed: set.is_agreed(),
                banned: String::new(),
            })
            .chain(self.banned_status(ctx))
            .collect();
        (ingredients, sets)
    }
}

impl Proposal {
    /// A proposal that no honest node makes.
    #[cfg(test)]
    pub fn new(participants: Vec<Participant>, nonce: [u8; 16]) -> Self {
        Self { participants, nonce }
    }

    /// What the run of these is bound to.
    pub fn execution_id(&self, suite: &str) -> [u8; 32] {
        let body = (suite, self);
        tags::EXECUTION_AUXILIARY.hash(&postcard::to_stdvec(&body).expect("plain data serialises"))
    }

    pub fn session(&self) -> SessionId {
        SessionId(tags::SESSION_AUXILIARY.hash(&postcard::to_stdvec(self).expect("plain data serialises")))
    }
}

/// What a signer gets of auxiliary data.
pub(crate) struct View {
    pub views: Vec<AuxiliaryView>,
    /// The pairs' sets among them, by the other member.
    pub pairs: Vec<(NodeId, [u8; 32])>,
}

/// Whether every pair of nodes has a set of its own.
fn is_pairwise(ctx: &Context) -> bool {
    ctx.suites.secp256k1.auxiliary().is_some_and(|auxiliary| auxiliary.coverage() == Coverage::Pairs)
}

fn set_name(suite: &str, members: &[NodeId], rows: &[Vec<u8>]) -> [u8; 32] {
    let body = (suite, members, rows);
    tags::AUXILIARY_SET.hash(&postcard::to_stdvec(&body).expect("plain data serialises"))
}

/// This member's word that it holds the set of that name.
pub(crate) fn agree(identity: &Identity, name: &[u8; 32]) -> [u8; 64] {
    identity.sign(tags::AUXILIARY_AGREED, &agreed_body(name, identity.id()))
}

fn agreed_body(name: &[u8; 32], node: NodeId) -> Vec<u8> {
    let mut body = name.to_vec();
    body.extend(node.as_bytes());
    body
}

fn short(name: &[u8; 32]) -> String {
    hex::encode(&name[..4])
}
